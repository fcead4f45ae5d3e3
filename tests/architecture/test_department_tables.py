"""Every table is reviewed for what it says of a department that ends."""

from exchange.migrations import METADATA
from tests.kit.cases.department_tables import FOLLOWS, HISTORY, NAMES_NONE


def test_each_table_says_what_becomes_of_a_department_that_ended() -> None:
    tables = {table.name for metadata in METADATA for table in metadata.tables.values()}
    reviewed = [*FOLLOWS, *HISTORY, *NAMES_NONE]
    assert len(reviewed) == len(set(reviewed)), "in one of the lists"
    assert set(reviewed) == tables, (
        "decide what a succession of departments does with these tables, in tests/kit/cases/department_tables.py: "
        f"{sorted(tables ^ set(reviewed))}"
    )

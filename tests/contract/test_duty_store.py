"""What every store of duty lists keeps true, in memory and on PostgreSQL."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from exchange.duties.model import DutyItem, cursor_of
from exchange.duties.postgres import PostgresDuties, metadata
from exchange.duties.store import DutyStore, MemoryDuties
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import CorruptError, Reason
from tests.kit.row_tags import row_tags

ONE = "0198c0de-0000-7000-8000-000000000001"
TWO = "0198c0de-0000-7000-8000-000000000002"
ITEM = DutyItem(
    department=ONE,
    code="HR-07",
    name="养老待遇资格核验",
    legal_basis="社会保险法 第七十四条",
    purposes=("benefit-payment", "eligibility"),
    changed_by="chen.da",
    changed_at=datetime(2026, 5, 4, 9, 30, tzinfo=UTC),
)


@dataclass
class Home:
    store: DutyStore
    db: Database

    def put(self, *items: DutyItem) -> None:
        with self.db.begin() as work:
            for item in items:
                self.store.put(work, item)

    def get(self, code: str = "HR-07") -> DutyItem | None:
        with self.db.read() as reader:
            return self.store.get(reader, ONE, code)

    def page(self, department: str | None = None, after: str = "", limit: int = 100) -> list[str]:
        with self.db.read() as reader:
            found = self.store.page(reader, department=department, after=after, limit=limit)
        return [one.cursor if isinstance(one, DamagedRow) else one.id for one in found]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return Home(MemoryDuties(), MemoryDatabase())
    return on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresDuties(row_tags()), PostgresDatabase(engine))


def test_an_item_is_read_back_as_it_was_written_last(home: Home) -> None:
    assert home.get() is None
    home.put(ITEM)
    assert home.get() == ITEM
    changed = replace(ITEM, active=False, purposes=("eligibility",), name="资格核验")
    home.put(changed)
    assert home.get() == changed
    assert home.get("HR-08") is None
    assert home.page() == [ITEM.id]


def test_a_list_is_in_the_order_of_departments_and_codes_and_its_pages_join(home: Home) -> None:
    items = [replace(ITEM, department=department, code=code) for department in (TWO, ONE) for code in ("b", "a", "B.1")]
    home.put(*items)
    expected = [cursor_of(department, code) for department in (ONE, TWO) for code in ("B.1", "a", "b")]
    assert home.page() == expected
    assert home.page(TWO) == expected[3:]
    assert home.page(ONE, after=expected[0], limit=1) == expected[1:2]
    joined: list[str] = []
    while page := home.page(after=joined[-1] if joined else "", limit=2):
        joined += page
    assert joined == expected


def test_items_of_a_department_are_counted_up_to_a_bound(home: Home) -> None:
    home.put(*(replace(ITEM, code=f"HR-{number}") for number in range(3)))
    with home.db.read() as reader:
        assert [home.store.count(reader, ONE, most) for most in (1, 3, 9)] == [1, 3, 3]
        assert home.store.count(reader, TWO, 9) == 0


@pytest.mark.postgres
def test_a_row_that_the_pool_did_not_write_is_refused_and_named(engine: sa.Engine) -> None:
    home = on_postgres(engine)
    home.put(ITEM, replace(ITEM, code="HR-08"))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE duty_item SET purposes = '[\"research\"]' WHERE code = 'HR-07'"))
    for act in (home.get, lambda: home.put(ITEM)):
        with pytest.raises(CorruptError) as caught:
            act()
        assert caught.value.reason is Reason.ROW_FORGED
    with home.db.read() as reader:
        named, whole = home.store.page(reader, limit=9)
        assert home.store.count(reader, ONE, 9) == 2, "who damages a row does not free the department of its list"
    assert isinstance(named, DamagedRow)
    assert isinstance(whole, DutyItem)

"""The definitions of figures are whole, and a figure is what its definition says."""

import pytest

from schemas.errors import Reason
from schemas.supervision.kpi import (
    FIRST_ENTRIES,
    Count,
    Kpi,
    Standing,
    figures_of,
    kpis,
    measures_of_reason,
    selects,
    unused_days,
)


@pytest.mark.parametrize("kpi", kpis(), ids=lambda kpi: kpi.id)
def test_a_definition_has_both_languages_a_clause_and_one_way_to_count(kpi: Kpi) -> None:
    for text in (kpi.name, kpi.formula):
        assert sorted(text) == ["en", "zh"]
        assert all(text.values())
    assert kpi.clause.startswith("809-")
    assert sum(map(bool, (kpi.sums, kpi.entries, kpi.standing))) == 1
    assert bool(kpi.of) == (kpi.unit == "share")


def test_ids_are_unique_and_reasons_exist() -> None:
    assert len({kpi.id for kpi in kpis()}) == len(kpis())
    assert unused_days() == 30
    counted = {measure for reason in Reason for measure in measures_of_reason(reason)}
    assert counted == {"out_of_scope", "repeated"}
    assert measures_of_reason(Reason.ELEMENT_HAS_LEAD) == ("repeated",)
    assert measures_of_reason(Reason.ROLE_MISSING) == ()


def test_a_selector_names_a_measure_or_one_detail_of_it() -> None:
    assert selects("refused", "refused", "clause")
    assert selects("refused:clause", "refused", "clause")
    assert not selects("refused:clause", "refused", "no_clause")
    assert not selects("refused", "replied", "clause")


def test_figures_add_amounts_and_entries_and_name_the_first_of_these() -> None:
    counts = {("approved", ""): Count(), ("refused", "clause"): Count(), ("denied", "role_missing"): Count()}
    for index in range(0, 60, 2):
        counts["approved", ""].add(index, f"a{index}", 1)
    counts["refused", "clause"].add(3, "r3", 1)
    counts["denied", "role_missing"].add(5, "d5", 7)
    standing = Standing(in_force=[(1, "g1"), (2, "g2")], unused=[(2, "g2")], fields=5, fields_unused=2)
    told = {figure["kpi"]: figure for figure in figures_of(counts, standing)}
    assert told["requests_approved"]["value"] == 30
    assert told["share_rate"] | {"first": []} == {
        "kpi": "share_rate",
        "value": 30,
        "of": 31,
        "entries": 31,
        "first": [],
    }
    assert told["share_rate"]["first"][:4] == ["a0", "a2", "r3", "a4"]
    assert len(told["share_rate"]["first"]) == FIRST_ENTRIES
    assert told["denials"] == {
        "kpi": "denials", "value": 7, "entries": 1, "first": ["d5"], "by": {"role_missing": 7},
    }  # fmt: skip
    assert told["replied_on_time"] == {"kpi": "replied_on_time", "value": 0, "of": 0, "entries": 0, "first": []}
    assert (told["grants_unused"]["value"], told["grants_unused"]["first"]) == (1, ["g2"])
    assert (told["fields_granted"]["value"], told["fields_never_drawn"]["value"]) == (5, 2)

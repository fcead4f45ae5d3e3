"""Totals of a reconciliation: counts by range of keys within their bounds, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.connector_report import Direction, KeyRangeTotals, ReconciliationTotals, check_totals
from schemas.errors import InvalidError, Reason

GRANT = "0198c0de-0000-7000-8000-0000000000a1"
GOOD = ReconciliationTotals(
    direction=Direction.PUBLISH,
    stream="household.v1",
    sequence=7,
    ranges=[KeyRangeTotals(digit, 3, 3, True) for digit in "0123456789abcdef"],
    set_aside=1,
    equal=True,
)


def test_totals_of_a_source_and_of_a_target_are_within_bounds() -> None:
    check_totals(GOOD)
    check_totals(replace(GOOD, direction=Direction.SUBSCRIBE, stream=GRANT, sequence=0))


@pytest.mark.parametrize(
    "change",
    [
        {"stream": GRANT},
        {"stream": "11010519491231002X"},
        {"stream": ""},
        {"direction": Direction.SUBSCRIBE},
        {"direction": Direction.SUBSCRIBE, "stream": GRANT.upper()},
        {"ranges": [KeyRangeTotals("0", 1, 1, True)] * 2},
        {"ranges": [KeyRangeTotals("110105", 1, 1, True)]},
        {"ranges": [KeyRangeTotals("g", 1, 1, True)]},
        {"ranges": [KeyRangeTotals("0", -1, 1, False)], "equal": False},
        {"ranges": [KeyRangeTotals("0", 1, 2**53, False)], "equal": False},
        {"ranges": [KeyRangeTotals("0", 1, 2, False)]},
        {"set_aside": -1},
        {"sequence": 2**64},
    ],
)
def test_anything_else_is_refused_without_being_named(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as refused:
        check_totals(replace(GOOD, **change))
    assert refused.value.reason is Reason.REQUEST_INVALID
    assert "110105" not in refused.value.message

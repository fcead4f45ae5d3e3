"""Duty lists: what an item must have, and which requests are within a list."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from exchange.duties.model import DutyItem, check_covered, check_item, cursor_of, retired, split_cursor
from schemas.errors import PoolError, Reason

NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
PURPOSES = {"eligibility", "statistics"}
ITEM = DutyItem(
    department="d",
    code="HR-07",
    name="资格核验",
    legal_basis="社会保险法 第七十四条",
    purposes=("eligibility",),
    changed_by="chen.da",
    changed_at=NOW,
)


def reason(act: Any, *args: Any, **named: Any) -> Reason:
    with pytest.raises(PoolError) as caught:
        act(*args, **named)
    return caught.value.reason


def test_a_whole_item_is_taken() -> None:
    check_item(ITEM, PURPOSES)


@pytest.mark.parametrize(
    "fault",
    [
        {"code": ""},
        {"code": "-a"},
        {"code": "a:b"},
        {"code": "a" * 65},
        {"name": " "},
        {"name": "x" * 501},
        {"legal_basis": ""},
        {"legal_basis": "x" * 501},
        {"purposes": ()},
        {"purposes": ("eligibility", "eligibility")},
        {"purposes": ("research",)},
    ],
)
def test_an_item_with_a_fault_is_refused(fault: dict[str, Any]) -> None:
    assert reason(check_item, replace(ITEM, **fault), PURPOSES) is Reason.REQUEST_INVALID


def test_all_faults_of_an_item_are_told_at_once() -> None:
    with pytest.raises(PoolError, match=r"a code .*a name .*a legal basis, .*1 to 50 purposes"):
        check_item(replace(ITEM, code="", name="", legal_basis="", purposes=()), PURPOSES)


def test_a_department_without_a_list_asks_as_before_and_names_no_duty() -> None:
    check_covered(has_list=False, item=None, duty="", purpose="eligibility")
    assert reason(check_covered, has_list=False, item=None, duty="HR-07", purpose="eligibility") is Reason.OUTSIDE_DUTY


@pytest.mark.parametrize(
    ("item", "duty", "purpose"),
    [
        (None, "", "eligibility"),
        (None, "HR-99", "eligibility"),
        (ITEM, "HR-07", "statistics"),
        (replace(ITEM, active=False), "HR-07", "eligibility"),
    ],
    ids=["none named", "not on the list", "another purpose", "retired"],
)
def test_a_request_outside_the_list_is_refused(item: DutyItem | None, duty: str, purpose: str) -> None:
    assert reason(check_covered, has_list=True, item=item, duty=duty, purpose=purpose) is Reason.OUTSIDE_DUTY


def test_a_request_within_the_list_is_taken() -> None:
    check_covered(has_list=True, item=ITEM, duty="HR-07", purpose="eligibility")


def test_an_item_is_retired_once() -> None:
    gone = retired(ITEM, by="zhou.da", at=NOW)
    assert (gone.active, gone.changed_by) == (False, "zhou.da")
    assert reason(retired, gone, by="zhou.da", at=NOW) is Reason.TRANSITION_NOT_ALLOWED


@given(st.text("0123456789abcdef-", min_size=1), st.text("ABCabc019._-", min_size=1))
def test_a_cursor_leads_back_to_its_item(department: str, code: str) -> None:
    assert split_cursor(cursor_of(department, code)) == (department, code)

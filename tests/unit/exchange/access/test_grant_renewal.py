"""A renewal goes on where the grant that it names ends, and inherits what makes a target go on without a double."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from exchange.access.grants.grant_json import from_text, to_json, to_text
from exchange.access.grants.renewal import (
    carried_by,
    check_renewable,
    check_renewal,
    describe_renewal,
    find_successor,
    quota_of,
    renewal,
)
from exchange.access.grants.store import unknown_grant
from schemas.access import Grant, GrantState, History, MaskRule
from schemas.errors import PoolError, Reason
from schemas.names import ResourceName, Topic
from tests.kit.cases.grants import GRANT, NOW, STRANGER, a_draft, a_grant

OLD = a_grant()
NEW = "0198c0de-0000-7000-9000-000000000002"
NEXT = "0198c0de-0000-7000-9000-000000000003"
TODAY = date(2026, 5, 4)


def request(**changes: Any) -> Grant:
    return a_draft(**{"id": NEW, "renews": GRANT, "expires": OLD.expires + timedelta(days=300), **changes})


def renewed(released: int = 0, old: Grant = OLD, **changes: Any) -> Grant:
    return renewal(request(**changes), old, released=released, day=TODAY)


def reason(check: Callable[[], object]) -> Reason | None:
    try:
        check()
    except PoolError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"consumer": STRANGER}, Reason.GRANT_UNKNOWN),
        ({"topic": Topic(ResourceName("household"), 1)}, Reason.REQUEST_INVALID),
        ({"expires": OLD.expires}, Reason.REQUEST_INVALID),
        ({"not_before": NOW + timedelta(seconds=1)}, Reason.REQUEST_INVALID),
    ],
    ids=str,
)
def test_a_grant_is_renewed_by_its_own_consumer_for_its_own_resource_and_longer(
    changes: dict[str, Any], expected: Reason | None
) -> None:
    assert reason(lambda: check_renewal(request(**changes), OLD, NOW)) is expected


def test_another_departments_grant_is_refused_as_one_that_does_not_exist() -> None:
    with pytest.raises(PoolError) as caught:
        check_renewal(request(consumer=STRANGER), OLD, NOW)
    assert (caught.value.reason, caught.value.message) == (unknown_grant().reason, unknown_grant().message)


@pytest.mark.parametrize("state", sorted(set(GrantState) - {GrantState.ACTIVE}))
def test_what_is_not_active_is_not_renewed(state: GrantState) -> None:
    assert reason(lambda: check_renewal(request(), a_grant(state=state), NOW)) is Reason.TRANSITION_NOT_ALLOWED


@pytest.mark.parametrize("state", sorted(GrantState))
def test_only_an_active_or_expired_grant_passes_anything_on(state: GrantState) -> None:
    allowed = state in {GrantState.ACTIVE, GrantState.EXPIRED}
    found = reason(lambda: check_renewable(request(), a_grant(state=state), []))
    assert found is (None if allowed else Reason.TRANSITION_NOT_ALLOWED)


def test_a_grant_is_renewed_once() -> None:
    first = a_grant(id=NEXT, renews=GRANT)
    assert reason(lambda: check_renewable(request(), OLD, [first])) is Reason.TRANSITION_NOT_ALLOWED
    assert reason(lambda: check_renewable(request(), OLD, [a_grant(id=NEXT), request()])) is None


def test_a_grant_whose_consumer_is_another_by_now_passes_nothing_on() -> None:
    moved = a_grant(consumer=STRANGER)
    assert reason(lambda: check_renewable(request(), moved, [])) is Reason.TRANSITION_NOT_ALLOWED


def test_a_renewal_that_shows_the_same_goes_on_in_the_same_stream() -> None:
    one = renewed(purpose="statistics", legal_basis="统计法 第九条", quota_per_day=5)
    assert (one.stream_id, one.record_key_id) == (GRANT, GRANT)
    assert one.since == OLD.approved_at, "history counts from the approval of the first"
    again = renewal(request(id=NEXT, renews=NEW), one, released=0, day=TODAY)
    assert (again.stream_id, again.record_key_id, again.since) == (GRANT, GRANT, OLD.approved_at)


@pytest.mark.parametrize(
    "change",
    [
        {"fields": ("id_number", "full_name")},
        {"fields": ("full_name", "id_number", "birth_date")},
        {"masks": ()},
        {"masks": (("id_number", MaskRule.DROP),)},
        {"row_filter": None},
        {"history": History.ALL},
        {"withdrawals": False},
        {"topic": Topic(ResourceName("population"), 2)},
    ],
    ids=str,
)
def test_a_renewal_that_shows_something_else_begins_at_the_beginning_with_the_same_record_keys(
    change: dict[str, Any],
) -> None:
    one = renewed(**change)
    assert (one.stream_id, one.record_key_id) == (NEW, GRANT)


def test_history_that_is_new_counts_from_the_renewal() -> None:
    assert renewed(old=a_grant(history=History.ALL)).since is None
    assert renewed(history=History.ALL).since is None


def test_what_was_released_on_the_day_of_the_activation_counts_for_that_day_alone() -> None:
    one, tomorrow = renewed(released=400), TODAY + timedelta(days=1)
    assert (quota_of(one, TODAY), carried_by(one, TODAY)) == (600, 400)
    assert (quota_of(one, tomorrow), carried_by(one, tomorrow)) == (1_000, 0)
    assert quota_of(renewed(released=400, quota_per_day=100), TODAY) == 0
    assert quota_of(renewed(released=400, quota_per_day=None), TODAY) is None


def test_the_successor_is_found_over_any_number_of_renewals() -> None:
    second = a_grant(id=NEW, renews=GRANT, first=GRANT, state=GrantState.COMPLETED)
    third = a_grant(id=NEXT, renews=NEW, first=GRANT)
    others = [a_grant(id="0198c0de-0000-7000-9000-000000000009"), second, third]
    assert find_successor(OLD, others) is third
    assert find_successor(second, others) is third
    assert find_successor(third, others) is None
    assert find_successor(OLD, [second, a_grant(id=NEXT, renews=NEW, first=GRANT, state=GrantState.SUSPENDED)]) is None


def test_who_decides_reads_what_changes() -> None:
    assert describe_renewal(request(), OLD)[0].endswith("changes nothing but its end")
    wider = request(fields=("id_number", "full_name", "ethnicity_code"), row_filter=None)
    assert describe_renewal(wider, OLD)[0].endswith("changes fields (+ethnicity_code -birth_date), the rows")


def test_a_grant_of_before_has_the_text_that_it_had() -> None:
    assert not {"renews", "first", "stream", "since", "carried_on", "carried"} & to_json(OLD).keys()
    one = renewed(released=7)
    assert from_text(to_text(one)) == one

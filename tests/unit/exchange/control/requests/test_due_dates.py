"""Due dates of requests are what the rule profiles in force say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exchange.control.requests.due_dates import RulesDue, due_of
from exchange.deadlines.in_force import RulesInForce, ShippedRules
from exchange.deadlines.profile import RuleBook, RuleId
from exchange.deadlines.shipped import shipped_profile
from exchange.requests.due_dates import Limit
from exchange.requests.life_cycle import advance
from exchange.requests.model import Event, RequestState
from exchange.requests.rules import Clock
from registry.database.unit_of_work import MemoryDatabase
from registry.directory.model import ShareType
from schemas.errors import PoolError, Reason
from tests.kit.cases.requests import a_draft, act, in_state, terms

S, E = RequestState, Event
FRIDAY = datetime(2026, 5, 8, 2, 0, tzinfo=UTC)  # Saturday, 9 May 2026, is a working day of the notice


def shipped() -> RulesInForce:
    with MemoryDatabase().read() as reader:
        return ShippedRules().rules(reader)


def test_a_reply_is_due_after_one_working_day_without_conditions_and_after_ten_with() -> None:
    free, bound = (RulesDue(shipped(), kind) for kind in (ShareType.UNCONDITIONAL, ShareType.CONDITIONAL))
    assert free.due(Limit.UNCONDITIONAL_REPLY, FRIDAY).day.isoformat() == "2026-05-09"
    assert bound.due(Limit.CONDITIONAL_REPLY, FRIDAY).day.isoformat() == "2026-05-21"
    assert (free.most_extension, bound.most_extension) == (0, 10)


def test_an_extension_adds_working_days_and_a_pause_is_not_counted() -> None:
    due = RulesDue(shipped(), ShareType.CONDITIONAL)
    plain = due.due_at(Limit.CONDITIONAL_REPLY, FRIDAY)
    longer = due.due_at(Limit.CONDITIONAL_REPLY, FRIDAY, extension=5)
    stood = due.due_at(Limit.CONDITIONAL_REPLY, FRIDAY, pauses=((FRIDAY, FRIDAY + timedelta(days=7)),))
    assert plain < longer
    assert plain < stood


def test_whether_a_supplement_restarts_the_clock_the_profile_says() -> None:
    city = RulesInForce(RuleBook([shipped_profile("city-example"), shipped_profile("809")]), shipped().calendar)
    assert RulesDue(shipped(), ShareType.CONDITIONAL).supplement_restarts
    assert not RulesDue(city, ShareType.CONDITIONAL).supplement_restarts
    assert RulesDue(city, ShareType.CONDITIONAL).profile == "city-example/1 809/1"


def test_the_machine_counts_by_the_profiles_and_names_them_in_each_step() -> None:
    due = RulesDue(shipped(), ShareType.UNCONDITIONAL)
    request = advance(a_draft(share_type=ShareType.UNCONDITIONAL), act(E.SUBMIT, at=FRIDAY), terms(due=due))
    over = due.due_at(Limit.UNCONDITIONAL_REPLY, FRIDAY)
    with pytest.raises(PoolError):
        advance(request, act(E.OVERDUE, at=over - timedelta(seconds=1)), terms(due=due))
    late = advance(request, act(E.OVERDUE, at=over), terms(due=due))
    assert (late.state, late.history[-1].violation) == (S.SUBMITTED, "Art. 39(4)")
    assert late.history[-1].profile == due.profile


@pytest.mark.parametrize(
    ("state", "clock"),
    [
        (S.SUBMITTED, Clock.REPLY),
        (S.COUNTERSIGNED, Clock.REPLY),
        (S.SUPPLEMENT, Clock.SUPPLEMENT),
        (S.APPROVED, Clock.DELIVERY),
        (S.ACTIVE, None),
        (S.REJECTED, None),
        (S.IN_DISPUTE, None),
    ],
)
def test_which_clock_runs_the_state_says(state: RequestState, clock: Clock | None) -> None:
    found = due_of(in_state(state), shipped())
    assert (None if found is None else found[0]) is clock


def test_where_no_profile_has_a_rule_nothing_is_due_and_an_act_that_needs_it_is_refused() -> None:
    bare = RulesInForce(RuleBook([shipped_profile("gf2016-51")]), shipped().calendar)
    assert bare.book.find(RuleId.SUPPLEMENT_REPLY) is None
    assert due_of(in_state(S.SUPPLEMENT), bare) is None
    with pytest.raises(PoolError) as caught:
        RulesDue(bare, ShareType.CONDITIONAL).due(Limit.SUPPLEMENT, FRIDAY)
    assert caught.value.reason is Reason.TRANSITION_NOT_ALLOWED


def test_a_clock_in_whose_place_the_authority_has_decided_is_none() -> None:
    overturned = replace(in_state(S.COUNTERSIGNED), overturned=True)
    assert due_of(overturned, shipped()) is None

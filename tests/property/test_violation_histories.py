"""Violation cases over random histories: any actor tries any event at any time, and the law holds at every step.

Cases on one grant are driven by people of all sides, one person under two accounts and a program among them, and a
clock that goes forward by chance. Beside them runs what the control side does to the grant: an order suspends it, the
last acceptance resumes it, an escalation ends it. At the end every case is brought to an end by the right people.
"""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from exchange.violations.case_json import from_document, to_document
from exchange.violations.life_cycle import MOST_REPLIES, advance, taken_over
from exchange.violations.model import CaseEvent, CaseState, Outcome, Sign, ViolationCase
from exchange.violations.rules import CASE_RULES, CaseParty, rule_of
from schemas.access import ActorKind, Role
from schemas.errors import PoolError
from tests.kit import share
from tests.kit.cases.violations import (
    CASE,
    CONSUMER,
    EVERYBODY,
    NOW,
    OFFICER,
    PATHS,
    PERSONS,
    SECOND,
    a_case,
    an_act,
    an_occurrence,
    an_order,
)

S, E = CaseState, CaseEvent
RUNS = share.count(2_000, 100)
LIMIT = timedelta(days=14)
_SEEN: Counter[CaseState] = Counter()
_HAPPENED: Counter[CaseEvent] = Counter()
_EVENTS = sorted(set(E) - {E.DETECT, E.REPORT})


class Cases(RuleBasedStateMachine):
    """Cases on one grant."""

    @initialize(count=st.integers(1, 3), reported=st.booleans(), start=st.sampled_from(list(PATHS)))
    def seen(self, *, count: int, reported: bool, start: CaseState) -> None:
        self.now = NOW
        self.grant = "active"
        sign = Sign.REPORT if reported else Sign.PURPOSE
        self.cases = [
            a_case(an_occurrence(sign=sign, subject=f"s{number}"), case_id=f"{CASE[:-1]}{number}", by=OFFICER.id)
            for number in range(count)
        ]
        for event in PATHS[start]:  # by chance alone, few histories come far
            self._try(0, event, by=SECOND)

    @rule(days=st.sampled_from([0, 0, 0, 1, 1, 3, 9, 15, 40]), seconds=st.integers(0, 86_400))
    def time_passes(self, days: int, seconds: int) -> None:
        self.now += timedelta(days=days, seconds=seconds)

    @rule(
        at=st.integers(0, 2),
        event=st.sampled_from(_EVENTS),
        by=st.sampled_from(EVERYBODY),
        reason=st.sampled_from(["", "so"]),
    )
    def anybody_tries(self, at: int, event: CaseEvent, by: Any, reason: str) -> None:
        self._try(at % len(self.cases), event, by=by, reason=reason)

    @rule(at=st.integers(0, 2), row=st.integers(0, 11), by=st.sampled_from([OFFICER, SECOND, SECOND, None, None]))
    def what_is_possible_is_tried(self, at: int, row: int, by: Any) -> None:
        at %= len(self.cases)
        rows = [one for one in CASE_RULES if one.source is self.cases[at].state]
        if rows:
            self._try(at, rows[row % len(rows)].event, **({} if by is None else {"by": by}))

    @rule(at=st.integers(0, 2))
    def the_right_persons_settle_it(self, at: int) -> None:
        self._try(at % len(self.cases), E.REPLY)
        self._try(at % len(self.cases), E.ACCEPT)

    @rule()
    def the_provider_resumes_the_grant(self) -> None:
        if self.grant == "suspended" and not any(one.holds_grant for one in self.cases):
            self.grant = "active"

    def _try(self, at: int, event: CaseEvent, **said: Any) -> bool:
        before = self.cases[at]
        due = None if before.order is None else before.order.at + LIMIT
        order = an_order(at=self.now, suspended=self.grant == "active") if event is E.ORDER else None
        attempt = an_act(event, **{"at": self.now, "due": due, "order": order, **said})
        try:
            after = advance(before, attempt, persons=PERSONS)
        except PoolError:
            return False
        self._check_step(before, after, attempt, due)
        self.cases[at] = after
        self._change_grant(at, before, event)
        _SEEN[after.state] += 1
        _HAPPENED[event] += 1
        return True

    def _change_grant(self, at: int, before: ViolationCase, event: CaseEvent) -> None:
        held = [number for number, one in enumerate(self.cases) if one.holds_grant and number != at]
        if event is E.ORDER and self.grant == "active":
            self.grant = "suspended"
        elif event is E.ESCALATE:
            self.grant = "terminated"
        elif event is E.ACCEPT and before.order is not None and before.order.suspended and self.grant == "suspended":
            if held:
                self.cases[held[0]] = taken_over(self.cases[held[0]])
            else:
                self.grant = "active"

    def _check_step(self, before: ViolationCase, after: ViolationCase, attempt: Any, due: Any) -> None:
        row = rule_of(attempt.event, before.state)
        assert row is not None
        assert (after.state, after.version) == (row.target, before.version + 1)
        assert after.history[:-1] == before.history, "what happened is never rewritten"
        assert after.occurrence == before.occurrence, "what was seen is never rewritten"
        assert attempt.by.kind is ActorKind.HUMAN
        assert attempt.reason.strip()
        if row.party is CaseParty.AUTHORITY:
            assert (attempt.by.role, attempt.by.department) == (Role.DATA_AUTHORITY, "")
        else:
            assert attempt.by.department == CONSUMER
            assert after.state is before.state, "a reply decides nothing"
        if attempt.event is E.CONFIRM and before.reported_by:
            assert PERSONS[attempt.by.id] != PERSONS[before.reported_by]
        if after.outcome is Outcome.RECTIFIED:
            ordered = max(step.at for step in after.history if step.event is E.ORDER)
            assert any(step.event is E.REPLY and ordered <= step.at < due for step in after.history), "in time"

    @invariant()
    def the_history_tells_the_state(self) -> None:
        for case in getattr(self, "cases", []):
            last = [step for step in case.history if step.event is not E.REPLY][-1]
            assert case.state is last.state
            assert (case.outcome is None) is (case.state is not S.CLOSED)
            assert (case.referral is None) is all(step.event is not E.ESCALATE for step in case.history)
            assert sum(step.event is E.REPLY for step in case.history) <= MOST_REPLIES
            assert all(step.at <= later.at for step, later in pairwise(case.history))
            assert from_document(to_document(case)) == case

    @invariant()
    def no_records_leave_while_an_order_is_open(self) -> None:
        if any(one.holds_grant for one in getattr(self, "cases", [])):
            assert self.grant in {"suspended", "terminated"}

    @invariant()
    def one_order_answers_for_the_suspension(self) -> None:
        cases = getattr(self, "cases", [])
        held = [one for one in cases if one.holds_grant]
        if held and self.grant == "suspended":
            assert any(one.order is not None and one.order.suspended for one in held)

    def teardown(self) -> None:
        """Bring every case to an end: from every state there is a way."""
        self.now += timedelta(days=1_000)
        for at in range(len(getattr(self, "cases", []))):
            for event in (E.DISMISS, E.ORDER, E.ESCALATE, E.CLOSE):
                if rule_of(event, self.cases[at].state) is not None:
                    assert self._try(at, event, by=SECOND), f"a dead end: {self.cases[at].state}"
            assert self.cases[at].state is S.CLOSED


@pytest.mark.counted
def test_any_history_keeps_the_law() -> None:
    """Drive random histories; their seed is that of the run."""
    _SEEN.clear()
    _HAPPENED.clear()
    run_state_machine_as_test(
        Cases,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    assert set(_SEEN) == set(S), "a state that no run reached"  # each history starts in one, and ends every case
    assert set(_HAPPENED) == set(_EVENTS), "an event that never happened"

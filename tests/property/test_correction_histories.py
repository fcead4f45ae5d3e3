"""Correction tickets over random histories: any actor tries any event at any time, and the law holds at every step.

What is refused leaves the ticket as it was. At the end, every ticket is brought to an end by the right people.
"""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from exchange.corrections.life_cycle import Act, advance, is_late
from exchange.corrections.model import OPEN, TERMINAL, CorrectionTicket, Event, RecordPlace, TicketState
from exchange.corrections.rules import CORRECTION_RULES, rules_from
from exchange.deadlines.in_force import ShippedRules
from exchange.deadlines.profile import RuleId
from registry.database.unit_of_work import MemoryDatabase
from schemas.access import Actor, ActorKind, Role
from schemas.errors import PoolError
from tests.kit import share
from tests.kit.cases.corrections import (
    BEHIND,
    CHEN,
    EVERYBODY,
    LI,
    NOW,
    PLACE,
    RAISER,
    SOURCE,
    STRANGER,
    WANG,
    ZHOU,
    a_ticket,
    act,
)

S, E = TicketState, Event
RUNS = share.count(2_000, 100)
_SEEN: Counter[TicketState] = Counter()
_HAPPENED: Counter[Event] = Counter()
_HEADS = {SOURCE: LI, STRANGER: ZHOU, RAISER: WANG}
_PLACES = [None, PLACE, BEHIND, RecordPlace(1, 0, 99), RecordPlace(2, 2, 7)]
_WILD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "reason": st.sampled_from(["", " ", "because"]),
        "source": st.sampled_from(["", SOURCE, STRANGER, RAISER]),
        "correction": st.sampled_from(_PLACES),
        "told": st.integers(0, 3),
    },
)


def _rules() -> Any:
    with MemoryDatabase().read() as reader:
        return ShippedRules().rules(reader)


_RULES = _rules()


class Tickets(RuleBasedStateMachine):
    """One ticket."""

    @initialize(days=st.integers(0, 400))
    def open(self, days: int) -> None:
        self.now = NOW + timedelta(days=days)
        self.ticket = self.first = a_ticket(received_at=self.now)
        self.due_at = _RULES.due(RuleId.CORRECTION, self.now).at

    @rule(days=st.sampled_from([0, 0, 1, 3, 9, 15, 40]), seconds=st.integers(0, 86_400))
    def time_passes(self, days: int, seconds: int) -> None:
        self.now += timedelta(days=days, seconds=seconds)

    @rule(event=st.sampled_from(Event), by=st.sampled_from(EVERYBODY), said=_WILD)
    def anybody_tries(self, event: Event, by: Actor, said: dict[str, Any]) -> None:
        self._try(act(event, by=by, at=self.now, **said))

    @rule(row=st.integers(0, 5), by=st.sampled_from(EVERYBODY))
    def anybody_tries_what_is_possible(self, row: int, by: Actor) -> None:
        rows = rules_from(self.ticket.state)
        if rows:
            self._try(act(rows[row % len(rows)].event, by=by, at=self.now))

    @rule(row=st.integers(0, 5), said=_WILD)
    def the_right_person_tries_what_is_possible(self, row: int, said: dict[str, Any]) -> None:
        rows = rules_from(self.ticket.state)
        if rows:
            self._try(self._right(rows[row % len(rows)].event, **said))

    def _right(self, event: Event, **said: Any) -> Act:
        right = act(event, at=self.now, **said)
        if event in {E.ACCEPT, E.CORRECT, E.CONFIRM, E.CANNOT_VERIFY}:
            right = replace(right, by=_HEADS[self.ticket.source])
        if event is E.TRANSFER and right.source == self.ticket.source:
            right = replace(right, source=SOURCE if self.ticket.source != SOURCE else STRANGER)
        return right

    def _try(self, attempt: Act) -> bool:
        before = self.ticket
        try:
            after = advance(before, attempt, self.due_at)
        except PoolError:
            return False
        self._check_step(before, after, attempt)
        self.ticket = after
        _SEEN[after.state] += 1
        _HAPPENED[attempt.event] += 1
        return True

    def _check_step(self, before: CorrectionTicket, after: CorrectionTicket, attempt: Act) -> None:
        rows = [one for one in CORRECTION_RULES if (one.event, one.source) == (attempt.event, before.state)]
        assert [row.target for row in rows] == [after.state], "one row leads there"
        by = attempt.by
        assert by.role in rows[0].roles | rows[0].pool_roles
        if attempt.event in {E.ACCEPT, E.CORRECT, E.CONFIRM, E.CANNOT_VERIFY}:
            assert (by.department, by.kind) == (before.source, ActorKind.HUMAN), "the source department answers"
        if attempt.event is E.TRANSFER:
            assert by == CHEN or by.department == before.source
            assert after.source != before.source
        if attempt.event in {E.NOTIFY, E.OVERDUE, E.ERASE}:
            assert (by.role, by.kind) == (Role.OPERATOR, ActorKind.MACHINE)
        if attempt.event is E.OVERDUE:
            assert after == replace(before, overdue_at=attempt.at), "silence leads nowhere"
        if attempt.event in {E.CONFIRM, E.CANNOT_VERIFY, E.WITHDRAW}:
            assert after.reason
        if attempt.event in {E.CONFIRM, E.CANNOT_VERIFY, E.CORRECT}:
            assert (after.overdue_at is not None) is (before.overdue_at is not None or is_late(self.now, self.due_at))

    @invariant()
    def the_first_receipt_and_what_is_doubted_stay(self) -> None:
        ticket, first = self.ticket, self.first
        assert (ticket.received_at, ticket.topic, ticket.field, ticket.place, ticket.grant, ticket.raiser) == (
            first.received_at, first.topic, first.field, first.place, first.grant, first.raiser
        )  # fmt: skip
        assert ticket.record in {first.record, b""}
        assert bool(ticket.record) is bool(ticket.claim) is bool(ticket.record_key)

    @invariant()
    def a_corrected_ticket_has_its_record(self) -> None:
        ticket = self.ticket
        if ticket.state in {S.CORRECTED, S.CLOSED_CORRECTED}:
            assert ticket.correction is not None
            assert ticket.correction > ticket.place
        assert (ticket.told is not None) is (ticket.state is S.CLOSED_CORRECTED)
        assert ticket.record or ticket.state not in OPEN

    def teardown(self) -> None:
        """Bring the ticket to an end: from every state there is a way, and not by an erasure alone."""
        if not hasattr(self, "ticket"):
            return
        self.now += timedelta(days=100)
        for _ in range(3):
            if self.ticket.state in TERMINAL:
                break
            ways = (E.ACCEPT, E.CANNOT_VERIFY, E.NOTIFY)
            assert any(self._try(self._right(event)) for event in ways), f"a dead end: {self.ticket.state}"
        assert self.ticket.state in TERMINAL


@pytest.mark.counted
def test_any_history_of_a_ticket_keeps_the_law() -> None:
    """Drive random histories; their seed is that of the run."""
    _SEEN.clear()
    _HAPPENED.clear()
    run_state_machine_as_test(
        Tickets,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    if share.count(1, 0):  # a hundred runs may miss one; that every state is reached, the table's test says
        assert set(_SEEN) == set(S), "a state that no run reached"
        assert set(_HAPPENED) == set(Event), "an event that never happened"

"""Share requests over random histories: any actor tries any event at any time, and the law holds at every step.

One request and the renewals of its grant are driven by people of all sides, one person under several accounts among
them, a program, and a clock that goes forward by chance. What is refused leaves the request as it was; at the end,
every request is brought to an end by the right people.
"""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exchange.requests.guards import due_at_of
from exchange.requests.life_cycle import advance, renewal_of
from exchange.requests.model import TERMINAL, Event, Ground, Office, RequestState, ShareRequest, required_offices
from exchange.requests.rules import REQUEST_RULES, Clock
from registry.directory.model import ShareType
from schemas.access import ActorKind, Level, Role
from schemas.errors import PoolError
from tests.kit import share
from tests.kit.cases.requests import (
    EVERYBODY,
    NOW,
    PATHS,
    PERSONS,
    PROVIDER,
    CalendarDays,
    a_draft,
    act,
    terms,
)

S, E = RequestState, Event
RUNS = share.count(2_000, 100)
_SEEN: Counter[RequestState] = Counter()
_HAPPENED: Counter[Event] = Counter()
_HELD = {S.APPROVED, S.ACTIVE, S.SUSPENDED}
_WILD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "reason": st.sampled_from(["", "because"]),
        "clause": st.sampled_from(["", "条例 第十五条"]),
        "ground": st.sampled_from([None, *Ground]),
        "missing": st.sampled_from([(), ("",), ("the article",)]),
        "days": st.integers(-1, 12),
        "reference": st.sampled_from(["", "paper-1"]),
    },
)


class Requests(RuleBasedStateMachine):
    """One request, and the renewals of what it becomes."""

    @initialize(
        share_type=st.sampled_from([ShareType.UNCONDITIONAL, ShareType.CONDITIONAL]),
        level=st.sampled_from(Level),
        sensitive=st.booleans(),
        restarts=st.booleans(),
        complete=st.booleans(),
        start=st.sampled_from(list(PATHS)),
    )
    def draft(
        self,
        *,
        share_type: ShareType,
        level: Level,
        sensitive: bool,
        restarts: bool,
        complete: bool,
        start: RequestState,
    ) -> None:
        self.now = NOW
        self.terms = terms(due=CalendarDays(supplement_restarts=restarts))
        lacks = {} if complete else {"legal_basis": "", "duty": "HR-99"}
        self.request = a_draft(share_type=share_type, level=level, sensitive=sensitive, **lacks)
        self.renewed: list[tuple[ShareRequest, ShareRequest]] = []
        for event in PATHS[start]:  # by chance alone, few histories come far
            self._try(event)

    @rule(days=st.sampled_from([0, 0, 0, 1, 1, 2, 3, 7, 11, 21, 100]), seconds=st.integers(0, 86_400))
    def time_passes(self, days: int, seconds: int) -> None:
        self.now += timedelta(days=days, seconds=seconds)

    @rule(event=st.sampled_from(Event), by=st.sampled_from(EVERYBODY), said=_WILD)
    def anybody_tries(self, event: Event, by: Any, said: dict[str, Any]) -> None:
        self._try(event, by=by, **said)

    @rule(row=st.integers(0, 11), by=st.sampled_from(EVERYBODY))
    def anybody_tries_what_is_possible(self, row: int, by: Any) -> None:
        rows = [one for one in REQUEST_RULES if one.source is self.request.state]
        if rows:
            self._try(rows[row % len(rows)].event, by=by)

    @rule(event=st.sampled_from(Event))
    def the_right_person_tries(self, event: Event) -> None:
        self._try(event)

    @rule(first=st.integers(0, 11))
    def what_is_possible_is_tried(self, first: int) -> None:
        self._possible(first)

    @rule(first=st.integers(0, 11))
    def what_is_possible_is_tried_as_often_as_the_rest_together(self, first: int) -> None:
        self._possible(first)

    def _possible(self, first: int) -> None:
        """Carry out an event of the state: by chance alone, most are refused and long histories rare."""
        rows = [row for row in REQUEST_RULES if row.source is self.request.state]
        turned = rows[first % max(len(rows), 1) :] + rows[: first % max(len(rows), 1)]
        any(self._try(row.event) for row in turned)

    @precondition(lambda self: self.request.state is S.DRAFT)
    @rule()
    def the_draft_is_completed(self) -> None:
        fitting = a_draft()
        self.request = replace(self.request, legal_basis=fitting.legal_basis, duty=fitting.duty)

    @precondition(lambda self: self.request.state is S.ACTIVE and len(self.renewed) < 2)
    @rule(days=st.integers(-10, 400))
    def the_consumer_renews(self, days: int) -> None:
        old = self.request
        assert old.use_until is not None
        try:
            new = renewal_of(old, renewal_id=f"{old.id}+", use_until=old.use_until + timedelta(days=days))
        except PoolError:
            assert days <= 0
            return
        assert days > 0
        assert (new.renews, new.state, new.signatures) == (old.id, S.DRAFT, ())
        self.renewed.append((old, self.request))
        self.request = replace(new, legal_basis=old.legal_basis, truthful=True)

    def _try(self, event: Event, **said: Any) -> bool:
        before = self.request
        attempt = act(event, at=self.now, **self._ahead(event), **said)
        try:
            after = advance(before, attempt, self.terms)
        except PoolError:
            return False
        self._check_step(before, after, attempt)
        self.request = after
        _SEEN[after.state] += 1
        _HAPPENED[event] += 1
        return True

    def _ahead(self, event: Event) -> dict[str, Any]:
        return {"rectify_until": self.now + timedelta(days=10)} if event is E.SUSPEND else {}

    def _check_step(self, before: ShareRequest, after: ShareRequest, attempt: Any) -> None:
        assert after.version == before.version + 1
        assert after.history[: len(before.history)] == before.history, "what happened is never rewritten"
        rows = [one for one in REQUEST_RULES if (one.event, one.source) == (attempt.event, before.state)]
        assert any(after.state is one.target and attempt.by.role in one.roles for one in rows)
        if after.state in _HELD and before.state not in _HELD:
            self._check_approval(after, attempt)
        if attempt.event in {E.REJECT, E.UPHOLD}:
            assert attempt.reason.strip()
            assert attempt.clause.strip()
        if attempt.event is E.OVERDUE:
            assert (after.state, after.signatures) == (before.state, before.signatures), "silence leads nowhere"
        if attempt.event in {E.CONCLUDE, E.REJECT, E.NEED_MORE}:
            due = due_at_of(before, Clock.REPLY, self.terms.due)
            late = due is not None and attempt.at >= due
            assert after.history[-1].late is late
            assert not late or Clock.REPLY in after.overdue

    def _check_approval(self, after: ShareRequest, attempt: Any) -> None:
        """Check that the right persons have agreed: each office that is due, another person each, not the requester."""
        accounts = {actor.id: actor for actor in EVERYBODY}
        assert attempt.by.kind is ActorKind.HUMAN
        assert {one.office for one in after.signatures} == required_offices(after)
        for one in after.signatures:
            actor = accounts[one.account]
            assert actor.kind is ActorKind.HUMAN
            role, department = {
                Office.HEAD: (Role.SHARING_OFFICE_HEAD, PROVIDER),
                Office.SECURITY_OFFICER: (Role.SECURITY_OFFICER, PROVIDER),
                Office.AUTHORITY: (Role.DATA_AUTHORITY, ""),
            }[one.office]
            assert (actor.role, actor.department) == (role, department)
        persons = [PERSONS[account] for account in (after.requested_by, *(one.account for one in after.signatures))]
        assert len(set(persons)) == len(persons), "two signatures of one person"
        if after.sensitive or after.level >= Level.G4:
            assert len(after.signatures) == 2

    @invariant()
    def the_history_tells_the_state(self) -> None:
        history = self.request.history
        assert self.request.state is (history[-1].state if history else S.DRAFT)
        assert sum(step.event is E.NEED_MORE for step in history) <= 1
        assert sum(step.event is E.EXTEND for step in history) <= 1
        assert all(bool(step.violation) is (step.event is E.OVERDUE) for step in history)
        assert all(step.at <= later.at for step, later in pairwise(history))

    @invariant()
    def a_grant_that_is_renewed_stays_as_it_was(self) -> None:
        for old, kept in self.renewed:
            assert old == kept
            assert kept.state is S.ACTIVE

    def teardown(self) -> None:
        """Bring the request to an end: from every state there is a way."""
        if not hasattr(self, "request"):
            return
        ways = (
            (E.WITHDRAW, {}),
            (E.UPHOLD, {}),
            (E.TERMINATE, {}),
            (E.EXPIRE, {}),
            (E.LAPSE, {}),
        )
        self.now += timedelta(days=1_000)
        if self.request.state is S.DRAFT:
            return  # not asked for yet
        for _ in range(3):
            if self.request.state in TERMINAL:
                break
            assert any(self._try(event, **said) for event, said in ways), f"a dead end: {self.request.state}"
        assert self.request.state in TERMINAL


@pytest.mark.counted
def test_any_history_keeps_the_law() -> None:
    """Drive random histories; their seed is that of the run."""
    _SEEN.clear()
    _HAPPENED.clear()
    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    if share.count(1, 0):  # a hundred runs seldom meet every event; that every state is reached, the table's test says
        assert set(_SEEN) == set(S) - {S.DRAFT}, "a state that no run reached"
        assert set(_HAPPENED) == set(Event), "an event that never happened"

"""The law of correction tickets, row by row: who may do what, when, and where it leads."""

from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from exchange.access.decision.roles import FORBIDDEN, RULES, Scope
from exchange.corrections.life_cycle import MOST_REASON, advance
from exchange.corrections.model import OPEN, TERMINAL, CorrectionTicket, Event, RecordPlace, TicketState
from exchange.corrections.rules import CORRECTION_RULES, CorrectionRule, Party, rights_of_action, rules_from
from schemas.access import Actor, Role
from schemas.errors import PoolError, Reason
from tests.kit.cases.corrections import (
    BEHIND,
    CHEN,
    DUE,
    EDITOR_LI,
    EVERYBODY,
    LI,
    NOW,
    OPERATOR,
    PLACE,
    ROBOT,
    SOURCE,
    STRANGER,
    SUN,
    TIMER,
    WANG,
    ZHOU,
    a_ticket,
    act,
)

S, E = TicketState, Event


def in_state(state: TicketState) -> CorrectionTicket:
    return a_ticket(state=state)


def refused(ticket: CorrectionTicket, event: Event, **said: Any) -> Reason:
    with pytest.raises(PoolError) as caught:
        advance(ticket, act(event, **said), DUE)
    return caught.value.reason


def name_of(rule: CorrectionRule) -> str:
    return f"{rule.event} from {rule.source} by {rule.article}"


@pytest.mark.parametrize("rule", CORRECTION_RULES, ids=name_of)
def test_each_row_leads_where_it_says_and_names_its_article(rule: CorrectionRule) -> None:
    at = DUE if rule.event is E.OVERDUE else NOW + timedelta(hours=1)
    assert advance(in_state(rule.source), act(rule.event, at=at), DUE).state is rule.target
    assert "Art." in rule.article


@pytest.mark.parametrize("state", sorted(S))
@pytest.mark.parametrize("event", sorted(E))
def test_what_has_no_row_cannot_happen(state: TicketState, event: Event) -> None:
    if not any(rule.event is event for rule in rules_from(state)):
        assert refused(in_state(state), event) is Reason.TRANSITION_NOT_ALLOWED


def test_every_state_is_reached_and_from_every_state_there_is_a_way_to_an_end() -> None:
    reached, waiting = {S.OPENED}, deque([S.OPENED])
    while waiting:
        for rule in rules_from(waiting.popleft()):
            if rule.target not in reached:
                reached.add(rule.target)
                waiting.append(rule.target)
    assert reached == set(S)
    ends = set(TERMINAL)
    while more := {rule.source for rule in CORRECTION_RULES if rule.target in ends} - ends:
        ends |= more
    assert ends == set(S)
    assert all(not rules_from(state) for state in TERMINAL)


@pytest.mark.parametrize("rule", CORRECTION_RULES, ids=name_of)
@pytest.mark.parametrize("by", EVERYBODY, ids=lambda one: one.id)
def test_only_the_side_and_the_roles_of_the_row_may(rule: CorrectionRule, by: Actor) -> None:
    at = DUE if rule.event is E.OVERDUE else NOW + timedelta(hours=1)
    own = {Party.RAISER: WANG.department, Party.SOURCE: SOURCE, Party.ROUTER: SOURCE}.get(rule.party)
    allowed = by.role in rule.roles and by.department == own if by.department else by.role in rule.pool_roles
    allowed = allowed and by not in {ROBOT, OPERATOR}
    if allowed:
        advance(in_state(rule.source), act(rule.event, by=by, at=at), DUE)
    else:
        assert refused(in_state(rule.source), rule.event, by=by, at=at) in {
            Reason.ROLE_MISSING,
            Reason.OTHER_DEPARTMENT,
            Reason.ROLE_FORBIDDEN,
        }


def test_the_rights_of_roles_are_those_of_the_table() -> None:
    for action in {rule.action for rule in CORRECTION_RULES if rule.event is not E.ERASE}:
        wanted = {role: Scope.ANY if every else Scope.OWN for role, every in rights_of_action(action).items()}
        assert RULES[action] == wanted, action
        assert (action in FORBIDDEN[Role.OPERATOR]) is (Role.OPERATOR not in wanted)


def test_an_answer_is_recorded_with_who_gave_it_when_and_why() -> None:
    closed = advance(in_state(S.VERIFYING), act(E.CONFIRM, reason=" the register was right "), DUE)
    assert (closed.reported_by, closed.reason) == (LI.id, "the register was right")
    assert closed.reported_at == NOW + timedelta(hours=1)
    assert closed.overdue_at is None


@pytest.mark.parametrize("event", [E.CONFIRM, E.CANNOT_VERIFY, E.CORRECT])
def test_a_late_answer_is_an_answer_and_recorded_as_late(event: Event) -> None:
    assert advance(in_state(S.VERIFYING), act(event, at=DUE), DUE).overdue_at == DUE
    known = replace(in_state(S.VERIFYING), overdue_at=DUE)
    assert advance(known, act(event, at=DUE + timedelta(days=2)), DUE).overdue_at == DUE


@pytest.mark.parametrize("state", [S.OPENED, S.VERIFYING])
def test_a_clock_that_runs_out_is_recorded_once_and_leads_nowhere(state: TicketState) -> None:
    ticket = in_state(state)
    assert refused(ticket, E.OVERDUE, at=DUE - timedelta(microseconds=1)) is Reason.TRANSITION_NOT_ALLOWED
    late = advance(ticket, act(E.OVERDUE, at=DUE), DUE)
    assert late == replace(ticket, overdue_at=DUE)
    assert refused(late, E.OVERDUE, at=DUE) is Reason.TRANSITION_NOT_ALLOWED


@pytest.mark.parametrize("by", [LI, CHEN], ids=lambda one: one.id)
def test_a_transfer_keeps_the_first_receipt(by: Actor) -> None:
    moved = advance(a_ticket(), act(E.TRANSFER, by=by), DUE)
    assert moved == replace(a_ticket(), source=STRANGER, transfers=1)
    assert refused(moved, E.ACCEPT) is Reason.OTHER_DEPARTMENT
    assert advance(moved, act(E.ACCEPT, by=ZHOU), DUE).state is S.VERIFYING


def test_a_ticket_that_is_being_verified_is_given_away_by_the_authority_alone() -> None:
    assert refused(in_state(S.VERIFYING), E.TRANSFER, by=LI) is Reason.OTHER_DEPARTMENT
    assert advance(in_state(S.VERIFYING), act(E.TRANSFER), DUE).state is S.OPENED


@pytest.mark.parametrize("source", ["", SOURCE])
def test_a_transfer_names_another_department(source: str) -> None:
    assert refused(a_ticket(), E.TRANSFER, source=source) is Reason.REQUEST_INVALID


@pytest.mark.parametrize("event", [E.TRANSFER, E.WITHDRAW, E.CONFIRM, E.CANNOT_VERIFY])
@pytest.mark.parametrize("reason", ["", " ", "x" * (MOST_REASON + 1)])
def test_what_takes_a_reason_is_refused_without_one(event: Event, reason: str) -> None:
    state = S.VERIFYING if event in {E.CONFIRM, E.CANNOT_VERIFY} else S.OPENED
    assert refused(in_state(state), event, reason=reason) is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    "place",
    [None, PLACE, RecordPlace(1, 2, 39), RecordPlace(1, 3, 99), RecordPlace(0, 2, 99)],
    ids=["none", "the doubted one", "before it", "another partition", "an earlier generation"],
)
def test_no_ticket_is_closed_as_corrected_without_a_record_behind_the_doubted_one(place: RecordPlace | None) -> None:
    assert refused(in_state(S.VERIFYING), E.CORRECT, correction=place) is Reason.CORRECTION_MISSING


def test_a_corrected_ticket_is_closed_when_the_others_are_told() -> None:
    corrected = advance(in_state(S.VERIFYING), act(E.CORRECT, by=EDITOR_LI), DUE)
    assert (corrected.correction, corrected.correction_entry) == (BEHIND, "entry")
    told = advance(corrected, act(E.NOTIFY, told=3), DUE)
    assert (told.state, told.told) == (S.CLOSED_CORRECTED, 3)


def test_an_erasure_takes_the_record_out_of_a_ticket() -> None:
    gone = advance(in_state(S.VERIFYING), act(E.ERASE), DUE)
    assert (gone.state, gone.record, gone.record_key, gone.claim) == (S.CLOSED_REJECTED, b"", b"", b"")


@pytest.mark.parametrize("at", [NOW - timedelta(seconds=1), NOW.replace(tzinfo=None)], ids=["before", "no offset"])
def test_times_are_aware_and_never_before_the_receipt(at: Any) -> None:
    assert refused(a_ticket(), E.ACCEPT, at=at) is Reason.REQUEST_INVALID


def test_open_and_terminal_states_are_all() -> None:
    assert set(S) == OPEN | TERMINAL
    assert not OPEN & TERMINAL
    assert SUN.role not in {role for rule in CORRECTION_RULES for role in rule.roles if rule.party is Party.SOURCE}
    assert TIMER.role is Role.OPERATOR

"""Who may do what to a grant is written in one table: the decision and the life cycle follow each change of it."""

import importlib.util
import sys
from dataclasses import replace
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from exchange.access.decision import grant_rules, roles
from exchange.access.decision.grant_rules import GRANT_RULES, Event, GrantRule, Party
from exchange.access.grants import life_cycle
from exchange.audit import log_invariants
from exchange.audit.log_invariants import makes_version
from exchange.control.grants import service as control
from exchange.requests import rules as law
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Grant, GrantState, Level, Role
from schemas.errors import PoolError, Reason
from tests.kit.cases.grants import CONSUMER, NOW, PERSONS, PLAIN, PROVIDER, STRANGER, a_draft, a_grant, a_person, held


class Checks:
    """The decision and the life cycle, each loaded apart, as they are under one table."""

    def __init__(self, decision: ModuleType, life: ModuleType) -> None:
        self.decision = decision
        self.life = life

    def answers(self, event: Event, by: Actor) -> tuple[Reason | None, Reason | None]:
        """Return what either check says when *by* lets the event happen to a fitting grant; None = it may."""
        rule = GRANT_RULES[event]
        grant = a_draft(requested_by="wang.hr") if event is Event.SUBMIT else a_grant(state=rule.source)
        if event in {Event.CONFIRM, Event.COUNTERSIGN}:  # the signature before is another test's
            grant = replace(grant, approved_by=None)
        assert rule.action is not None
        decided: Allow | Deny = self.decision.decide_control(
            by, rule.action, standing=self.decision.Standing.ACTIVE, grant=grant, proven=True, persons=PERSONS
        )
        return decided.reason if isinstance(decided, Deny) else None, self._carried_out(event, by, grant)

    def _carried_out(self, event: Event, by: Actor, grant: Grant) -> Reason | None:
        terms: Any = self.life.RequestTerms(
            purposes={grant.purpose}, level=Level.G4, masks=PLAIN, check_view=lambda _: None
        )
        at = grant.expires if event is Event.EXPIRE else NOW
        try:
            match event:
                case Event.SUBMIT:
                    self.life.submit(replace(grant, requested_by=by.id), by=by, at=at, terms=terms)
                case Event.APPROVE:
                    self.life.approve(grant, by=by, at=at, holding=held(grant))
                case Event.CONFIRM | Event.COUNTERSIGN:
                    self.life.confirm(grant, by=by, at=at, holding=held(grant))
                case Event.CONCLUDE:
                    self.life.conclude(grant, by=by, at=at, holding=held(grant))
                case Event.RESUBMIT:
                    draft = replace(a_draft(requested_by=by.id), id=grant.id, consumer=grant.consumer)
                    self.life.resubmit(grant, draft, by=by, at=at, terms=terms)
                case Event.PROVISION:
                    self.life.provision(grant, by=by, at=at, holding=held(grant), view_schema_id=17)
                case Event.REMIND:
                    self.life.remind(grant, by=by, at=at, suspend_after=at)
                case Event.SUSPEND_UNMASKED:
                    self.life.suspend_unmasked(replace(grant, suspend_after=at), by=by, at=at)
                case Event.SUPERSEDE:
                    self.life.supersede(grant, by=by, at=at)
                case _:
                    self.life.advance(grant, event, by=by, at=at, reason="because", holding=held(grant))
        except PoolError as error:
            return error.reason
        return None


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load both checks over a table of which one row is another, or gone; the modules in use keep theirs."""

    def load(event: Event, row: GrantRule | None) -> Checks:
        rows = {**GRANT_RULES, event: row} if row is not None else {e: r for e, r in GRANT_RULES.items() if e != event}
        monkeypatch.setattr(grant_rules, "GRANT_RULES", MappingProxyType(rows))
        return Checks(_copy(monkeypatch, roles), _copy(monkeypatch, life_cycle))

    return load


def _copy(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> ModuleType:
    name = f"{module.__name__}_under_another_table"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, copy)
    spec.loader.exec_module(copy)
    return copy


AS_IT_IS = Checks(roles, life_cycle)
HEAD_OF_CONSUMER = a_person(Role.SHARING_OFFICE_HEAD, CONSUMER, "zhao.hr")
HEAD_OF_PROVIDER = a_person(Role.SHARING_OFFICE_HEAD, PROVIDER, "li.ps")
OFFICER = a_person(Role.SECURITY_OFFICER, PROVIDER, "sun.ps")
AUTHORITY = a_person(Role.DATA_AUTHORITY, "", "chen.da")
OPERATOR = a_person(Role.OPERATOR, "", "timer", kind=ActorKind.MACHINE)
PROGRAM = replace(HEAD_OF_PROVIDER, kind=ActorKind.MACHINE)
REQUESTER = replace(HEAD_OF_PROVIDER, id="wang.hr")  # changed departments since
EVERYONE = [
    replace(a_person(role, department, name), kind=kind)
    for role in Role
    for department in ("", CONSUMER, PROVIDER, STRANGER)
    for name in ("li.ps", "wang.hr")
    for kind in ActorKind
]


@pytest.mark.parametrize("event", sorted(GRANT_RULES))
def test_both_checks_let_the_same_accounts_do_the_same(event: Event) -> None:
    allowed = 0
    for by in EVERYONE:
        decided, carried_out = AS_IT_IS.answers(event, by)
        assert (decided is None) is (carried_out is None), (by, decided, carried_out)
        allowed += decided is None
    assert 0 < allowed < len(EVERYONE)


CHANGED = [
    (Event.REJECT, {"party": Party.CONSUMER}, HEAD_OF_CONSUMER, HEAD_OF_PROVIDER),
    (Event.APPROVE, {"party": Party.AUTHORITY}, AUTHORITY, HEAD_OF_PROVIDER),
    (Event.RECTIFIED, {"party": Party.PROVIDER}, HEAD_OF_PROVIDER, AUTHORITY),
    (Event.SUSPEND, {"party": Party.SYSTEM}, OPERATOR, OFFICER),
    (Event.SUBMIT, {"party": Party.PROVIDER}, HEAD_OF_PROVIDER, HEAD_OF_CONSUMER),
    (Event.TERMINATE, {"department_roles": frozenset({Role.SECURITY_OFFICER})}, OFFICER, HEAD_OF_PROVIDER),
    (Event.APPROVE, {"person": False}, PROGRAM, REQUESTER),
    (Event.TERMINATE, {"person": True}, HEAD_OF_PROVIDER, PROGRAM),
    (Event.PROVISION, {"not_by_requester": False}, REQUESTER, PROGRAM),
    (Event.SUSPEND, {"not_by_requester": True}, HEAD_OF_PROVIDER, REQUESTER),
]


@pytest.mark.parametrize(("event", "change", "may", "may_not"), CHANGED)
def test_a_changed_row_changes_both_checks(
    under: Any, event: Event, change: dict[str, Any], may: Actor, may_not: Actor
) -> None:
    before = [AS_IT_IS.answers(event, by) for by in (may, may_not)]
    checks = under(event, replace(GRANT_RULES[event], **change))
    after = [checks.answers(event, by) for by in (may, may_not)]
    assert after[0] == (None, None)
    assert None not in after[1]
    assert after != before
    for both in (*before, *after):
        assert (both[0] is None) is (both[1] is None)


@pytest.mark.parametrize("event", sorted(GRANT_RULES))
def test_a_removed_row_stops_both_checks(under: Any, event: Event) -> None:
    checks = under(event, None)
    for by in (HEAD_OF_CONSUMER, HEAD_OF_PROVIDER, OFFICER, AUTHORITY, OPERATOR):
        decided, carried_out = checks.answers(event, by)
        assert decided in {Reason.ROLE_MISSING, Reason.ROLE_FORBIDDEN}
        assert carried_out is Reason.TRANSITION_NOT_ALLOWED


def test_a_row_that_would_let_the_operator_approve_does_not_pass_the_decision(under: Any) -> None:
    checks = under(Event.APPROVE, replace(GRANT_RULES[Event.APPROVE], party=Party.SYSTEM, person=False))
    assert checks.answers(Event.APPROVE, OPERATOR)[0] is Reason.ROLE_FORBIDDEN


def test_the_second_signature_and_its_moment_stay_in_the_grant(under: Any) -> None:
    request = a_grant(state=GrantState.SUBMITTED, approved_by=None, approved_at=None)
    signed = life_cycle.approve(request, by=HEAD_OF_PROVIDER, at=NOW, holding=held(request))
    assert (signed.approved_by, signed.approved_at) == (HEAD_OF_PROVIDER.id, NOW)
    life = under(Event.APPROVE, replace(GRANT_RULES[Event.APPROVE], second_signature=False)).life
    assert life.approve(request, by=HEAD_OF_PROVIDER, at=NOW, holding=held(request)).approved_by is None


def test_a_reason_is_due_where_the_row_says_so(under: Any) -> None:
    grant = a_grant(state=GrantState.ACTIVE)
    life = under(Event.SUSPEND, replace(GRANT_RULES[Event.SUSPEND], needs_reason=False)).life
    assert life.advance(grant, Event.SUSPEND, by=OFFICER, at=NOW).state is GrantState.SUSPENDED


def test_each_event_has_an_action_of_its_own() -> None:
    actions = [rule.action for rule in GRANT_RULES.values()]
    assert len(GRANT_RULES) == len(Event) == len(set(actions))
    acts = {action for action in Action if action.value.startswith(("exchange:grant:", "exchange:request:"))}
    others = {Action.GRANT_READ, Action.GRANT_SUCCEED, Action.REQUEST_CHECK, Action.REQUEST_DRAFT}
    assert set(actions) == acts - others, "a succession is no event, nor is a draft"
    assert all(event is rule.event for event, rule in GRANT_RULES.items())


_TIMERS_OWN = {Event.REMIND, Event.SUSPEND_UNMASKED, Event.SUPERSEDE}  # of the grant alone


@pytest.mark.parametrize("event", sorted(set(Event) - _TIMERS_OWN))
def test_no_row_is_narrower_than_the_law_of_requests_or_offers_a_state_in_which_that_has_no_row(event: Event) -> None:
    name = "countersign" if event is Event.CONFIRM else event.value
    mine = GRANT_RULES[event]
    rows = [row for row in law.REQUEST_RULES if row.event.value == name and row.source.value in {*mine.sources}]
    assert {row.source.value for row in rows} == {state.value for state in mine.sources}
    for row in rows:
        assert row.roles <= mine.roles
        assert row.person or not mine.person
        assert row.not_by_requester or not mine.not_by_requester
        assert row.article in {mine.article, ""} or not mine.article


def test_every_state_of_the_law_in_which_an_event_can_happen_is_offered() -> None:
    offered = {(event.value, state.value) for event, rule in GRANT_RULES.items() for state in rule.sources}
    offered |= {("countersign", state) for event, state in offered if event == "confirm"}
    assert {(row.event.value, row.source.value) for row in law.REQUEST_RULES} <= offered


def test_the_log_s_verification_knows_every_act_that_makes_a_version() -> None:
    assert all(makes_version(rule.action) for rule in GRANT_RULES.values())
    ends = {rule.action for rule in GRANT_RULES.values() if rule.target not in DELIVERING}
    assert ends <= log_invariants._ENDS


DELIVERING = {GrantState.SUBMITTED, GrantState.APPROVED, GrantState.ACTIVE}


def test_the_service_changes_a_grant_by_the_table_s_actions() -> None:
    assert {event: GRANT_RULES[event].action for event in life_cycle.ADVANCING} == control._ACTION

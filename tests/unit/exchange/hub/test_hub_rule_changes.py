"""The procedure of a library's rules: every event in every state, by whom, and three different persons."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from exchange.hub.fold.rules import parse
from exchange.hub.services.rule_changes import (
    MOST_OPEN,
    RULE_CHANGES,
    ChangeParty,
    RulesEvent,
    RulesState,
    RulesVersion,
    activated,
    agreed,
    proposed,
    rejected,
    retired,
)
from schemas.access import Actor, ActorKind, Role
from schemas.errors import PoolError, Reason
from tests.kit.cases.hub_claims import document

AT = datetime(2026, 5, 4, tzinfo=UTC)
CIVIL, POLICE = "d-civil", "d-police"
S, E = RulesState, RulesEvent


def person(name: str, role: Role, department: str = "") -> Actor:
    return Actor(kind=ActorKind.HUMAN, id=name, department=department, role=role)


EDITOR = person("editor", Role.CATALOGUE_EDITOR, "d-data")
HEAD, OTHER_HEAD = (person(f"head-{one}", Role.SHARING_OFFICE_HEAD, one) for one in (POLICE, CIVIL))
OFFICER = person("officer", Role.DATA_AUTHORITY)
PERSONS = {one.id: f"staff-{one.id}" for one in (EDITOR, HEAD, OTHER_HEAD, OFFICER)}


def a_version(
    *, departments: frozenset[str] = frozenset({POLICE, CIVIL}), number: int = 1, **changes: Any
) -> RulesVersion:
    before = () if number == 1 else (replace(a_version(), rules=parse(document(number - 1)), state=S.REJECTED),)
    made = proposed(parse(document(number)), versions=before, departments=departments, by=EDITOR, at=AT)
    return replace(made, **changes)


def active(number: int = 1) -> RulesVersion:
    return replace(a_version(number=number), state=S.ACTIVE)


def do(event: RulesEvent, version: RulesVersion, by: Actor | None = None, persons: Any = PERSONS) -> RulesVersion:
    if event is E.AGREE:
        return agreed(version, by or HEAD, AT, persons=persons)
    if event is E.ACTIVATE:
        return activated(version, by or OFFICER, AT, active=None, from_batch=(1,) * 256, persons=persons)
    return rejected(version, by or OFFICER, AT, "so") if event is E.REJECT else retired(version)


def refused(reason: Reason) -> Any:
    return pytest.raises(PoolError, check=lambda error: error.reason is reason)


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("event", E)
def test_an_event_leads_where_the_table_says_and_what_is_not_in_it_cannot_happen(
    event: RulesEvent, state: RulesState
) -> None:
    rule = next((one for one in RULE_CHANGES if (one.event, one.source) == (event, state)), None)
    version = a_version(state=state)
    if rule is None:
        with refused(Reason.TRANSITION_NOT_ALLOWED):
            do(event, version)
        return
    assert do(event, version).state in rule.targets
    others = {EDITOR, HEAD, OFFICER} - {one for one in (EDITOR, HEAD, OFFICER) if one.role is rule.role}
    for other in others if rule.party is not ChangeParty.SYSTEM else ():
        with refused(Reason.ROLE_MISSING):
            do(event, version, other)


def test_each_department_whose_lead_changes_signs_once() -> None:
    version = a_version()
    once = agreed(version, HEAD, AT, persons=PERSONS)
    assert (once.state, once.missing) == (S.PROPOSED, (OTHER_HEAD.department,))
    with refused(Reason.TRANSITION_NOT_ALLOWED):
        agreed(once, HEAD, AT, persons=PERSONS)
    stranger = person("stranger", Role.SHARING_OFFICE_HEAD, "d-other")
    with refused(Reason.OTHER_DEPARTMENT):
        agreed(once, stranger, AT, persons=PERSONS)
    whole = agreed(once, OTHER_HEAD, AT, persons=PERSONS)
    assert (whole.state, whole.missing) == (S.AGREED, ())
    assert [one.by for one in whole.agreements] == [HEAD.id, OTHER_HEAD.id]


def test_three_different_persons_act_whatever_their_accounts() -> None:
    same = PERSONS | {OFFICER.id: PERSONS[EDITOR.id]}
    with refused(Reason.SAME_PERSON):
        do(E.AGREE, a_version(), persons=PERSONS | {HEAD.id: PERSONS[EDITOR.id]})
    whole = a_version(departments=frozenset())
    with refused(Reason.SAME_PERSON):
        do(E.ACTIVATE, whole, persons=same)
    signed = do(E.AGREE, a_version(departments=frozenset({POLICE})))
    with refused(Reason.SAME_PERSON):
        do(E.ACTIVATE, signed, persons=PERSONS | {OFFICER.id: PERSONS[HEAD.id]})
    with refused(Reason.PERSON_UNKNOWN):
        do(E.ACTIVATE, signed, persons={})
    assert do(E.ACTIVATE, signed).state is S.ACTIVE


def test_rules_are_activated_over_those_that_they_were_proposed_about() -> None:
    signed = replace(a_version(departments=frozenset()), based_on=0)
    with refused(Reason.VERSION_CONFLICT):
        activated(signed, OFFICER, AT, active=active(7), from_batch=(1,) * 256, persons=PERSONS)
    made = activated(signed, OFFICER, AT, active=None, from_batch=(5,) * 256, persons=PERSONS)
    assert (made.state, made.decided_by, made.active_from) == (S.ACTIVE, OFFICER.id, (5,) * 256)


def test_the_number_of_a_version_is_the_next_one() -> None:
    for last in (1, 5):
        with refused(Reason.RULES_INVALID):
            proposed(parse(document(1)), versions=[active(last)], departments=frozenset(), by=EDITOR, at=AT)
    second = proposed(parse(document(2)), versions=[active(1)], departments=frozenset(), by=EDITOR, at=AT)
    assert (second.based_on, second.state) == (1, S.AGREED)


def test_rules_that_leave_a_field_without_lead_are_neither_proposed_nor_activated() -> None:
    bare = parse(document(full_name={"rule": "lead"}))
    with refused(Reason.NO_LEAD):
        proposed(bare, versions=[], departments=frozenset(), by=EDITOR, at=AT)
    with refused(Reason.NO_LEAD):
        do(E.ACTIVATE, a_version(state=S.AGREED, rules=bare))


def test_so_many_versions_wait_and_no_more() -> None:
    waiting = [a_version(number=number) for number in range(1, MOST_OPEN + 1)]
    waiting[3] = replace(waiting[3], state=S.AGREED)
    following = parse(document(MOST_OPEN + 1))
    with refused(Reason.TRANSITION_NOT_ALLOWED):
        proposed(following, versions=waiting, departments=frozenset(), by=EDITOR, at=AT)
    waiting[3] = replace(waiting[3], state=S.REJECTED)
    assert proposed(following, versions=waiting, departments=frozenset(), by=EDITOR, at=AT).state is S.AGREED


def test_a_rejection_says_why() -> None:
    for reason in ("", "  ", "x" * 2_001):
        with refused(Reason.REQUEST_INVALID):
            rejected(a_version(), OFFICER, AT, reason)
    assert rejected(a_version(), OFFICER, AT, " so ").reason == "so"

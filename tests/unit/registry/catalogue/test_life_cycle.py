"""Life cycle of entries: the table has no dead end, and says what the law says."""

from collections import defaultdict

import pytest

from exchange.access.decision.roles import FORBIDDEN, Scope, rights_of
from registry.catalogue.life_cycle import RULES, EntryEvent, ProcedureState, rule_of
from schemas.access import Action, Role

S, E = ProcedureState, EntryEvent
ENDS = {S.ARCHIVED, S.WITHDRAWN}


def reachable(start: ProcedureState) -> set[ProcedureState]:
    seen, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        for rule in RULES:
            if rule.source is state and rule.target not in seen:
                seen.add(rule.target)
                waiting.append(rule.target)
    return seen


def test_every_state_is_reached_and_every_run_can_end() -> None:
    assert reachable(S.DRAFT) == set(ProcedureState)
    for state in set(ProcedureState) - ENDS:
        assert reachable(state) & ENDS, state
    for state in ENDS:
        assert reachable(state) == {state}


def test_one_event_in_one_state_leads_to_one_state() -> None:
    rows = defaultdict(list)
    for rule in RULES:
        rows[rule.event, rule.source].append(rule)
    assert all(len(found) == 1 for found in rows.values())
    assert {rule.event for rule in RULES} == set(EntryEvent) - {EntryEvent.SUCCEED}, "a succession is no step"


def test_no_way_leads_to_publication_but_by_two_reviews_of_two_offices() -> None:
    into = [rule for rule in RULES if rule.target is S.PUBLISHED and rule.source not in {S.PUBLISHED, S.SUSPENDED}]
    assert [rule.event for rule in into] == [E.PUBLISH]
    assert into[0].roles == {Role.DATA_AUTHORITY}
    for rule in RULES:
        if rule.target is S.AUTHORITY_REVIEW:
            assert rule.roles == {Role.SHARING_OFFICE_HEAD}, "the head consents (Art. 13)"
            assert rule.other_person
            assert rule.complete


@pytest.mark.parametrize(
    ("event", "source", "target", "article"),
    [
        (E.SUBMIT, S.DRAFT, S.DEPT_REVIEW, "Art. 13"),
        (E.APPROVE, S.DEPT_REVIEW, S.AUTHORITY_REVIEW, "Art. 13"),
        (E.RETURN, S.DEPT_REVIEW, S.DRAFT, "Art. 12"),
        (E.PUBLISH, S.AUTHORITY_REVIEW, S.PUBLISHED, "Art. 12, 16, 17"),
        (E.RETURN, S.AUTHORITY_REVIEW, S.DRAFT, "Art. 12"),
        (E.CHANGE, S.PUBLISHED, S.UPDATING, "Art. 17"),
        (E.EXTEND, S.UPDATING, S.UPDATING, "Art. 17"),
        (E.SUBMIT, S.UPDATING, S.AUTHORITY_REVIEW, "Art. 13, 17"),
        (E.SUSPEND, S.PUBLISHED, S.SUSPENDED, "Art. 27"),
        (E.RESUME, S.SUSPENDED, S.PUBLISHED, "Art. 27"),
        (E.ANNOUNCE, S.PUBLISHED, S.PUBLISHED, "Art. 27"),
        (E.RETIRE, S.PUBLISHED, S.ARCHIVED, "Art. 27"),
        (E.WITHDRAW, S.DRAFT, S.WITHDRAWN, ""),
    ],
)
def test_the_table_is_that_of_the_law(
    event: EntryEvent, source: ProcedureState, target: ProcedureState, article: str
) -> None:
    rule = rule_of(event, source)
    assert rule is not None
    assert (rule.target, rule.article) == (target, article)


def test_what_a_role_may_do_is_derived_from_the_table() -> None:
    assert rights_of(Role.SHARING_OFFICE_HEAD)[Action.CATALOGUE_APPROVE] is Scope.OWN
    assert rights_of(Role.DATA_AUTHORITY)[Action.CATALOGUE_RETURN] is Scope.ANY
    assert rights_of(Role.SHARING_OFFICE_HEAD)[Action.CATALOGUE_RETURN] is Scope.OWN
    assert Action.CATALOGUE_APPROVE not in rights_of(Role.CATALOGUE_EDITOR)
    for role in (Role.OPERATOR, Role.AUDITOR):
        assert {rule.action for rule in RULES} - {Action.CATALOGUE_DRAFT, Action.CATALOGUE_ARCHIVE} <= FORBIDDEN[role]

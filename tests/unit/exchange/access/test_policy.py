"""What a decision says, rule by rule."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from exchange.access.decision import roles
from exchange.access.decision.roles import FORBIDDEN, RECORD_ACTIONS, RULES, Scope, Standing, decide_control
from schemas.access import AccessMode, Action, ActorKind, Allow, CaseRule, Deny, GrantState, Level, Role
from schemas.errors import Reason
from schemas.names import Topic
from tests.kit.cases.grants import (
    CONSUMER,
    NOW,
    PERSONS,
    POPULATION,
    PROVIDER,
    STRANGER,
    a_connector,
    a_draft,
    a_grant,
    a_person,
    a_resource,
    decided,
)

FITTING: dict[str, Any] = {
    "actor": a_connector(),
    "action": Action.FETCH,
    "standing": Standing.ACTIVE,
    "now": NOW,
    "resource": a_resource(),
    "grant": a_grant(),
    "proven": True,
    "purpose": "eligibility",
    "case": "HR-2026-0007",
    "level": Level.G4,
    "released_today": 0,
}
PUBLISHING: dict[str, Any] = {
    "actor": a_connector(PROVIDER),
    "action": Action.PUBLISH,
    "standing": Standing.ACTIVE,
    "resource": a_resource(),
}


def reason_of(decision: Allow | Deny) -> Reason | None:
    return decision.reason if isinstance(decision, Deny) else None


@pytest.mark.parametrize("action", [Action.FETCH, Action.COMMIT, Action.GRANT_READ])
def test_a_consumer_draws_under_its_own_active_grant(action: Action) -> None:
    assert decided(**FITTING | {"action": action}) == Allow()


@pytest.mark.parametrize("action", [Action.PUBLISH, Action.RESUME])
def test_a_provider_publishes_its_own_resource(action: Action) -> None:
    assert decided(**PUBLISHING | {"action": action}) == Allow()


SUBJECTS = {
    Action.HUB_LOOKUP: AccessMode.LOOKUP,
    Action.HUB_PREFILL: AccessMode.LOOKUP,
    Action.HUB_VERIFY: AccessMode.VERIFY,
    Action.HUB_INSTANT: AccessMode.VERIFY,
}

BENT = [
    ({"actor": None}, Reason.NO_IDENTITY),
    ({"standing": None}, Reason.NO_IDENTITY),
    ({"standing": Standing.REVOKED}, Reason.CERTIFICATE_REVOKED),
    ({"standing": Standing.DEPARTMENT_INACTIVE}, Reason.DEPARTMENT_INACTIVE),
    ({"actor": a_connector(role=Role.OPERATOR)}, Reason.ROLE_FORBIDDEN),
    ({"actor": a_connector(role=Role.AUDITOR)}, Reason.ROLE_FORBIDDEN),
    ({"actor": a_connector(role=Role.DATA_AUTHORITY)}, Reason.ROLE_MISSING),
    ({"action": Action.GRANT_APPROVE}, Reason.ROLE_MISSING),
    ({"grant": None}, Reason.GRANT_UNKNOWN),
    ({"proven": False}, Reason.GRANT_FORGED),
    ({"proven": None}, Reason.GRANT_FORGED),
    ({"actor": a_connector(STRANGER)}, Reason.GRANT_OTHER_CONSUMER),
    ({"actor": a_connector("")}, Reason.GRANT_OTHER_CONSUMER),
    ({"actor": a_connector(""), "grant": a_grant(consumer="")}, Reason.GRANT_OTHER_CONSUMER),
    ({"actor": a_connector(zone="internet")}, Reason.ZONE_MISMATCH),
    ({"resource": a_resource(zone="internet")}, Reason.ZONE_MISMATCH),
    ({"resource": None}, Reason.RESOURCE_UNKNOWN),
    ({"resource": a_resource(published=False)}, Reason.RESOURCE_NOT_PUBLISHED),
    ({"resource": a_resource(topic=Topic(POPULATION.name, 2))}, Reason.GRANT_OTHER_RESOURCE),
    ({"resource": a_resource(provider=STRANGER)}, Reason.GRANT_OTHER_RESOURCE),
    ({"grant": a_grant(state=GrantState.SUSPENDED)}, Reason.GRANT_SUSPENDED),
    ({"grant": a_grant(state=GrantState.EXPIRED)}, Reason.GRANT_EXPIRED),
    ({"grant": a_grant(state=GrantState.APPROVED)}, Reason.GRANT_NOT_ACTIVE),
    ({"now": None}, Reason.GRANT_EXPIRED),
    ({"now": a_grant().expires}, Reason.GRANT_EXPIRED),
    ({"now": a_grant().not_before - timedelta(microseconds=1)}, Reason.GRANT_NOT_YET_VALID),
    ({"purpose": ""}, Reason.PURPOSE_MISSING),
    ({"purpose": "public-service"}, Reason.PURPOSE_MISMATCH),
    ({"case": ""}, Reason.CASE_MISSING),
    ({"case": "", "grant": a_grant(case_rule=CaseRule.EACH_CALL, case="")}, Reason.CASE_MISSING),
    ({"case": "HR-2026-0008"}, Reason.CASE_MISMATCH),
    ({"level": None}, Reason.LEVEL_ABOVE_CEILING),
    ({"level": Level.IMP}, Reason.LEVEL_ABOVE_CEILING),
    *(({"grant": a_grant(access_mode=mode)}, Reason.GRANT_MODE) for mode in set(AccessMode) - {AccessMode.STREAM}),
    *(({"action": action}, Reason.GRANT_MODE) for action in SUBJECTS),
    ({"released_today": None}, Reason.QUOTA_EXHAUSTED),
    ({"released_today": 1_000}, Reason.QUOTA_EXHAUSTED),
]


@pytest.mark.parametrize(("bend", "reason"), BENT, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(BENT)])
def test_a_fetch_that_breaks_one_rule_is_denied_for_it(bend: dict[str, Any], reason: Reason) -> None:
    assert reason_of(decided(**FITTING | bend)) is reason


@pytest.mark.parametrize(
    ("bend", "reason"),
    [
        ({"resource": None}, Reason.RESOURCE_UNKNOWN),
        ({"resource": a_resource(published=False)}, Reason.RESOURCE_NOT_PUBLISHED),
        ({"actor": a_connector(CONSUMER)}, Reason.NOT_PROVIDER),
        ({"actor": a_connector(""), "resource": a_resource(provider="")}, Reason.NOT_PROVIDER),
        ({"resource": a_resource(zone="internet")}, Reason.ZONE_MISMATCH),
    ],
)
def test_a_publication_that_breaks_one_rule_is_denied_for_it(bend: dict[str, Any], reason: Reason) -> None:
    assert reason_of(decided(**PUBLISHING | bend)) is reason


@pytest.mark.parametrize("mode", AccessMode)
@pytest.mark.parametrize("action", [Action.FETCH, Action.COMMIT, *SUBJECTS])
def test_a_call_is_allowed_under_a_grant_of_its_own_access_mode_alone(action: Action, mode: AccessMode) -> None:
    decision = decided(**FITTING | {"action": action, "grant": a_grant(access_mode=mode)})
    assert reason_of(decision) is (None if mode is SUBJECTS.get(action, AccessMode.STREAM) else Reason.GRANT_MODE)


@pytest.mark.parametrize(("action", "mode"), SUBJECTS.items())
def test_a_question_about_a_subject_meets_every_rule_of_a_fetch(action: Action, mode: AccessMode) -> None:
    for bend, reason in BENT:
        if "action" in bend or reason is Reason.GRANT_MODE:
            continue
        grant = bend.get("grant", a_grant())
        bent = bend | {"grant": grant and replace(grant, access_mode=mode)}
        assert reason_of(decided(**FITTING | {"action": action} | bent)) is reason


def test_the_window_holds_its_first_moment_and_not_its_last() -> None:
    grant = a_grant()
    assert decided(**FITTING | {"now": grant.not_before})
    assert decided(**FITTING | {"now": grant.expires - timedelta(microseconds=1)})


def test_any_case_number_serves_where_each_call_states_its_own() -> None:
    grant = a_grant(case_rule=CaseRule.EACH_CALL, case="")
    assert decided(**FITTING | {"grant": grant, "case": "HR-2026-9999"})


def test_a_commit_meets_neither_ceiling_nor_quota() -> None:
    assert decided(**FITTING | {"action": Action.COMMIT, "level": None, "released_today": None})


def test_a_consumer_may_ask_about_a_suspended_grant_but_a_stranger_may_not() -> None:
    suspended = FITTING | {"action": Action.GRANT_READ, "grant": a_grant(state=GrantState.SUSPENDED), "purpose": ""}
    assert decided(**suspended)
    assert reason_of(decided(**suspended | {"actor": a_connector(STRANGER)})) is Reason.GRANT_OTHER_CONSUMER


def test_the_first_broken_rule_is_the_reason() -> None:
    broken = FITTING | {"purpose": "", "case": "", "released_today": None, "grant": a_grant(state=GrantState.SUSPENDED)}
    assert reason_of(decided(**broken)) is Reason.GRANT_SUSPENDED
    assert reason_of(decided(**broken | {"grant": a_grant()})) is Reason.PURPOSE_MISSING


def test_no_explanation_tells_a_case_number_or_a_department() -> None:
    for bend, _ in BENT:
        decision = decided(**FITTING | bend)
        assert isinstance(decision, Deny)
        for secret in ("HR-2026", CONSUMER, PROVIDER, STRANGER, "310104"):
            assert secret not in decision.explanation


# control


CONTROL: dict[str, Any] = {"standing": Standing.ACTIVE, "proven": True, "persons": PERSONS}
PROVIDER_HEAD = a_person(Role.SHARING_OFFICE_HEAD, PROVIDER, "li.ps")
CONSUMER_HEAD = a_person(Role.SHARING_OFFICE_HEAD, CONSUMER, "wang.hr")


def test_the_provider_s_head_approves_and_nobody_else_does() -> None:
    request = CONTROL | {"action": Action.GRANT_APPROVE, "grant": a_grant(state=GrantState.SUBMITTED)}
    assert decide_control(PROVIDER_HEAD, **request)
    assert reason_of(decide_control(CONSUMER_HEAD, **request)) is Reason.NOT_PROVIDER
    for role in set(Role) - {Role.SHARING_OFFICE_HEAD}:
        assert reason_of(decide_control(a_person(role, PROVIDER), **request)) in {
            Reason.ROLE_MISSING,
            Reason.ROLE_FORBIDDEN,
        }


def test_who_requested_never_approves_even_in_the_provider_s_office() -> None:
    moved = replace(PROVIDER_HEAD, id="wang.hr")  # changed departments since
    request = CONTROL | {"grant": a_grant(state=GrantState.SUBMITTED, requested_by="wang.hr")}
    for action in (Action.GRANT_APPROVE, Action.GRANT_PROVISION, Action.GRANT_REJECT, Action.GRANT_RESUME):
        assert reason_of(decide_control(moved, action=action, **request)) is Reason.SAME_PERSON


def test_who_requested_never_approves_under_another_account() -> None:
    request = {"standing": Standing.ACTIVE, "proven": True, "grant": a_grant(state=GrantState.SUBMITTED)}
    for action in (Action.GRANT_APPROVE, Action.GRANT_PROVISION, Action.GRANT_REJECT, Action.GRANT_RESUME):
        asked = partial(decide_control, PROVIDER_HEAD, action, **request)
        assert asked(persons={"wang.hr": "017", "li.ps": "018"})
        assert reason_of(asked(persons={"wang.hr": "017", "li.ps": "017"})) is Reason.SAME_PERSON
        for known in ({"wang.hr": "017"}, {"li.ps": "018"}, {"wang.hr": "", "li.ps": ""}, {}):
            assert reason_of(asked(persons=known)) is Reason.PERSON_UNKNOWN, known


def test_who_confirmed_a_sensitive_request_never_approves_it_under_another_account() -> None:
    grant = a_grant(state=GrantState.SUBMITTED, confirmed_by="sun.ps")
    persons = {"wang.hr": "017", "sun.ps": "018", "li.ps": "018"}
    request = {"standing": Standing.ACTIVE, "proven": True, "grant": grant}
    asked = partial(decide_control, PROVIDER_HEAD, Action.GRANT_APPROVE, **request)
    assert reason_of(asked(persons=persons)) is Reason.SAME_PERSON
    assert asked(persons={**persons, "li.ps": "019"})


def test_a_program_never_approves() -> None:
    program = replace(PROVIDER_HEAD, kind=ActorKind.MACHINE)
    decision = decide_control(program, Action.GRANT_APPROVE, grant=a_grant(), **CONTROL)
    assert reason_of(decision) is Reason.ROLE_FORBIDDEN


def test_a_classification_is_taken_back_by_an_officer_of_the_department_and_by_a_person() -> None:
    officer = replace(PROVIDER_HEAD, role=Role.SECURITY_OFFICER)
    own, other = CONTROL | {"department": officer.department}, CONTROL | {"department": "another"}
    assert decide_control(officer, Action.APPROVAL_DECIDE, **own)
    assert reason_of(decide_control(officer, Action.APPROVAL_DECIDE, **other)) is Reason.OTHER_DEPARTMENT
    program = replace(officer, kind=ActorKind.MACHINE)
    assert reason_of(decide_control(program, Action.APPROVAL_DECIDE, **own)) is Reason.ROLE_FORBIDDEN
    editor = replace(officer, role=Role.CATALOGUE_EDITOR)
    assert reason_of(decide_control(editor, Action.APPROVAL_DECIDE, **own)) is Reason.ROLE_MISSING
    assert decide_control(editor, Action.APPROVAL_ASK, **own)


@pytest.mark.parametrize("action", sorted(Action))
def test_an_auditor_writes_nothing(action: Action) -> None:
    auditor = a_person(Role.AUDITOR)
    request = CONTROL | {"department": "", "connector": auditor.id, "grant": a_grant(), "new_role": Role.AUDITOR}
    # It renews its own token, as a connector its certificate.
    reads = action.value.endswith((":read", ":read_by_id", ":prove", ":export")) or action is Action.USER_ROTATE
    assert bool(decide_control(auditor, action, **request)) is reads
    assert reads or reason_of(decide_control(auditor, action, **request)) is Reason.ROLE_FORBIDDEN


@pytest.mark.parametrize(
    "action", [*sorted(RECORD_ACTIONS), Action.GRANT_APPROVE, Action.USER_ADD, Action.PROPOSAL_CONFIRM]
)
def test_an_operator_neither_approves_nor_reads_records(action: Action) -> None:
    operator = a_person(Role.OPERATOR)
    assert reason_of(decide_control(operator, action, grant=a_grant(), **CONTROL)) is Reason.ROLE_FORBIDDEN
    if action in RECORD_ACTIONS:
        for kind in ActorKind:
            machine = replace(operator, kind=kind, department=CONSUMER)
            assert reason_of(decided(**FITTING | {"actor": machine, "action": action})) is Reason.ROLE_FORBIDDEN


def test_no_rule_allows_a_forbidden_pair_or_an_act_on_records() -> None:
    for action, rights in RULES.items():
        assert action not in RECORD_ACTIONS
        assert not [role for role in rights if action in FORBIDDEN.get(role, ())]


def test_a_mistake_in_the_rules_stays_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "RULES", {action: dict.fromkeys(Role, Scope.ANY) for action in Action})
    for role, actions in FORBIDDEN.items():
        for action in actions:
            decision = decide_control(a_person(role), action, grant=a_grant(), new_role=Role.AUDITOR, **CONTROL)
            assert reason_of(decision) is Reason.ROLE_FORBIDDEN


def test_every_act_is_ruled_somewhere_and_what_is_not_is_refused() -> None:
    assert set(Action) == set(RULES) | RECORD_ACTIONS
    for action in RECORD_ACTIONS:
        for role in Role:
            assert not decide_control(a_person(role, PROVIDER), action, grant=a_grant(), department=PROVIDER, **CONTROL)


@pytest.mark.parametrize(
    ("action", "role"),
    [(action, role) for action, rights in RULES.items() for role, scope in rights.items() if scope is Scope.OWN],
)
def test_own_means_own(action: Action, role: Role) -> None:
    request = CONTROL | {"new_role": Role.CATALOGUE_EDITOR}
    own = a_person(role, CONSUMER)
    assert decide_control(own, action, department=CONSUMER, **request)
    for other in (PROVIDER, None, ""):
        assert reason_of(decide_control(own, action, department=other, **request)) is Reason.OTHER_DEPARTMENT
    homeless = a_person(role, "")
    assert reason_of(decide_control(homeless, action, department="", **request)) is Reason.OTHER_DEPARTMENT


def test_a_connector_renews_itself_alone() -> None:
    me = a_connector()
    assert decide_control(me, Action.CONNECTOR_RENEW, department=CONSUMER, connector=me.id, **CONTROL)
    for department, connector in ((CONSUMER, "another"), (PROVIDER, me.id), (CONSUMER, None)):
        decision = decide_control(me, Action.CONNECTOR_RENEW, department=department, connector=connector, **CONTROL)
        assert reason_of(decision) is Reason.OTHER_DEPARTMENT


def test_both_parties_read_a_grant_and_a_third_does_not() -> None:
    for department, allowed in ((CONSUMER, True), (PROVIDER, True), (STRANGER, False)):
        reader = a_person(Role.SECURITY_OFFICER, department)
        assert bool(decide_control(reader, Action.GRANT_READ, grant=a_grant(), **CONTROL)) is allowed
        assert decide_control(reader, Action.GRANT_READ, department=department, **CONTROL)
        assert not decide_control(reader, Action.GRANT_READ, department="elsewhere", **CONTROL)


def test_a_request_is_submitted_by_its_consumer_before_any_entry_proves_it() -> None:
    submit = {"action": Action.GRANT_SUBMIT, "standing": Standing.ACTIVE, "grant": a_draft()}
    assert decide_control(CONSUMER_HEAD, **submit)
    assert reason_of(decide_control(PROVIDER_HEAD, **submit)) is Reason.GRANT_OTHER_CONSUMER
    assert reason_of(decide_control(CONSUMER_HEAD, **submit | {"grant": None})) is Reason.GRANT_UNKNOWN


def test_a_forged_grant_cannot_be_acted_on() -> None:
    for proven in (False, None):
        decision = decide_control(
            PROVIDER_HEAD, Action.GRANT_APPROVE, standing=Standing.ACTIVE, grant=a_grant(), proven=proven
        )
        assert reason_of(decision) is Reason.GRANT_FORGED


def test_a_department_s_officer_gives_no_role_of_the_pool_and_nobody_gives_a_connector_s() -> None:
    officer = a_person(Role.SECURITY_OFFICER, CONSUMER)
    authority = a_person(Role.DATA_AUTHORITY)
    add = CONTROL | {"action": Action.USER_ADD, "department": CONSUMER}
    for role in Role:
        ours = role in {Role.CATALOGUE_EDITOR, Role.SHARING_OFFICE_HEAD, Role.SECURITY_OFFICER}
        assert bool(decide_control(officer, new_role=role, **add)) is ours
        assert bool(decide_control(authority, new_role=role, **add)) is (role not in {Role.CONNECTOR, Role.BOOTSTRAP})
    assert reason_of(decide_control(authority, **add)) is Reason.ROLE_FORBIDDEN


@pytest.mark.parametrize("action", sorted(Action))
def test_the_first_token_adds_data_authorities_and_does_nothing_else(action: Action) -> None:
    first = a_person(Role.BOOTSTRAP)
    for role in Role:
        allowed = action is Action.USER_ADD and role is Role.DATA_AUTHORITY
        assert bool(decide_control(first, action, grant=a_grant(), new_role=role, **CONTROL)) is allowed


def test_lost_standing_ends_control_too() -> None:
    for standing, reason in (
        (None, Reason.NO_IDENTITY),
        (Standing.REVOKED, Reason.CERTIFICATE_REVOKED),
        (Standing.DEPARTMENT_INACTIVE, Reason.DEPARTMENT_INACTIVE),
    ):
        assert reason_of(decide_control(a_person(Role.AUDITOR), Action.AUDIT_READ, standing=standing)) is reason
    assert reason_of(decide_control(None, Action.AUDIT_READ, standing=Standing.ACTIVE)) is Reason.NO_IDENTITY

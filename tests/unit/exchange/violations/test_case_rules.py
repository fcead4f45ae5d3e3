"""Each transition of a violation case by its article, and what each of them refuses."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from exchange.violations.case_json import from_document, to_document
from exchange.violations.codes import Side, ViolationCode, text_of
from exchange.violations.life_cycle import MOST_REASON, MOST_REPLIES, advance, taken_over
from exchange.violations.model import CaseEvent, CaseState, Outcome, Referral, Sign, ViolationCase
from exchange.violations.rules import CASE_RULES, CaseParty, rule_of
from schemas.access import Actor
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError
from tests.kit.cases.violations import (
    AUDITOR,
    CHEN_TOO,
    DUE,
    EDITOR,
    EVERYBODY,
    HEAD,
    HOMELESS,
    IN_A_DEPARTMENT,
    NOW,
    OFFICER,
    OPERATOR,
    OTHER_HEAD,
    PERSONS,
    PROGRAM,
    SECOND,
    SECURITY,
    a_case,
    an_act,
    an_occurrence,
    an_order,
    in_state,
)

S, E = CaseState, CaseEvent


def do(case: ViolationCase, event: CaseEvent, **changes: Any) -> ViolationCase:
    return advance(case, an_act(event, **changes), persons=PERSONS)


def refused(case: ViolationCase, event: CaseEvent, **changes: Any) -> PoolError:
    with pytest.raises(PoolError) as caught:
        do(case, event, **changes)
    return caught.value


def test_a_case_is_detected_confirmed_ordered_answered_and_accepted() -> None:
    case = a_case()
    assert (case.state, case.version, case.reported_by) == (S.DETECTED, 1, "")
    case = do(do(case, E.CONFIRM), E.ORDER)
    assert case.state is S.RECTIFYING
    assert case.holds_grant
    case = do(case, E.REPLY, reason="the program declares the right purpose now")
    assert case.statement is not None
    assert (case.statement.ordered, case.statement.late) == (True, False)
    case = do(case, E.ACCEPT)
    assert (case.state, case.outcome, case.version, case.holds_grant) == (S.CLOSED, Outcome.RECTIFIED, 5, False)
    assert [step.event for step in case.history] == [E.DETECT, E.CONFIRM, E.ORDER, E.REPLY, E.ACCEPT]
    assert [step.article for step in case.history] == ["Art. 38", "Art. 38", "Art. 27, 39 to 41", "Art. 27", "Art. 27"]


def test_a_case_that_is_not_rectified_is_escalated_and_closed_after_the_referral() -> None:
    case = do(in_state(S.RECTIFYING), E.ESCALATE, referral=Referral.DISCIPLINE)
    assert (case.state, case.referral, case.holds_grant) == (S.ESCALATED, Referral.DISCIPLINE, False)
    case = do(case, E.CLOSE)
    assert (case.state, case.outcome) == (S.CLOSED, Outcome.REFERRED)


def test_a_case_that_is_none_is_dismissed() -> None:
    case = do(a_case(), E.DISMISS, reason="a test of the connector")
    assert (case.state, case.outcome) == (S.CLOSED, Outcome.DISMISSED)


@pytest.mark.parametrize("state", sorted(S))
@pytest.mark.parametrize("event", sorted(set(E) - {E.DETECT, E.REPORT}))
def test_what_the_table_does_not_have_cannot_happen(event: CaseEvent, state: CaseState) -> None:
    rule = rule_of(event, state)
    case = in_state(state)
    if rule is None:
        assert refused(case, event).reason is Reason.TRANSITION_NOT_ALLOWED
    elif event is E.ACCEPT:
        assert do(do(case, E.REPLY), event).state is rule.target
    else:
        assert do(case, event).state is rule.target


def test_every_state_is_reached_and_every_case_can_end() -> None:
    reached = {S.DETECTED}
    while more := {rule.target for rule in CASE_RULES if rule.source in reached} - reached:
        reached |= more
    assert reached == set(S)
    ending = {S.CLOSED}
    while more := {rule.source for rule in CASE_RULES if rule.target in ending} - ending:
        ending |= more
    assert ending == set(S)


@pytest.mark.parametrize("rule", CASE_RULES, ids=lambda rule: f"{rule.event}-{rule.source}")
def test_only_the_party_of_the_rule_may(rule: Any) -> None:
    case = in_state(rule.source)
    if rule.event is E.ACCEPT:
        case = do(case, E.REPLY)
    allowed = {HEAD, SECURITY} if rule.party is CaseParty.RESPONDENT else {OFFICER, SECOND, CHEN_TOO}
    for actor in EVERYBODY:
        if actor in allowed:
            assert do(case, rule.event, by=actor).state is rule.target
        else:
            error = refused(case, rule.event, by=actor)
            assert isinstance(error, RefusedError), actor


@pytest.mark.parametrize(
    ("by", "event", "reason"),
    [
        (HEAD, E.CONFIRM, Reason.ROLE_MISSING),  # the department concerned confirms or dismisses its own case
        (HEAD, E.DISMISS, Reason.ROLE_MISSING),
        (IN_A_DEPARTMENT, E.DISMISS, Reason.ROLE_MISSING),
        (AUDITOR, E.CONFIRM, Reason.ROLE_MISSING),
        (OPERATOR, E.DISMISS, Reason.ROLE_MISSING),
        (PROGRAM, E.CONFIRM, Reason.ROLE_FORBIDDEN),
        (OTHER_HEAD, E.REPLY, Reason.OTHER_DEPARTMENT),
        (OFFICER, E.REPLY, Reason.OTHER_DEPARTMENT),
        (EDITOR, E.REPLY, Reason.ROLE_MISSING),
    ],
    ids=lambda value: getattr(value, "id", value),
)
def test_the_refusal_says_why(by: Actor, event: CaseEvent, reason: Reason) -> None:
    assert refused(a_case(), event, by=by).reason is reason


def test_a_case_against_the_authority_is_answered_by_the_authority() -> None:
    case = a_case(an_occurrence(code=ViolationCode.A2, respondent="", grant=""))
    assert do(case, E.REPLY, by=OFFICER).statement is not None
    assert refused(case, E.REPLY, by=HOMELESS).reason is Reason.ROLE_MISSING


def test_who_reported_a_case_does_not_confirm_it_under_any_account() -> None:
    case = a_case(an_occurrence(sign=Sign.REPORT), by=OFFICER.id)
    assert case.reported_by == OFFICER.id
    assert refused(case, E.CONFIRM, by=OFFICER).reason is Reason.SAME_PERSON
    assert refused(case, E.CONFIRM, by=CHEN_TOO).reason is Reason.SAME_PERSON
    with pytest.raises(RefusedError) as caught:
        advance(case, an_act(E.CONFIRM, by=SECOND), persons={})
    assert caught.value.reason is Reason.PERSON_UNKNOWN
    assert do(case, E.CONFIRM, by=SECOND).state is S.CONFIRMED
    assert do(case, E.DISMISS, by=OFFICER).outcome is Outcome.DISMISSED, "its reporter may take it back"


def test_a_report_says_why() -> None:
    with pytest.raises(InvalidError) as caught:
        a_case(an_occurrence(sign=Sign.REPORT), reason=" ")
    assert caught.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("rule", CASE_RULES, ids=lambda rule: f"{rule.event}-{rule.source}")
@pytest.mark.parametrize("reason", ["", "  ", "x" * (MOST_REASON + 1)], ids=["none", "blank", "long"])
def test_each_event_needs_a_reason_of_bounded_length(rule: Any, reason: str) -> None:
    case = in_state(rule.source)
    if rule.event is E.ACCEPT:
        case = do(case, E.REPLY)
    assert refused(case, rule.event, reason=reason).reason is Reason.REQUEST_INVALID


def test_an_order_has_a_time_limit_and_an_escalation_a_referral() -> None:
    assert refused(in_state(S.CONFIRMED), E.ORDER, order=None).reason is Reason.REQUEST_INVALID
    assert refused(in_state(S.RECTIFYING), E.ESCALATE, referral=None).reason is Reason.REQUEST_INVALID


def test_nothing_is_accepted_before_the_department_has_said_what_it_rectified() -> None:
    before = do(in_state(S.CONFIRMED), E.REPLY)  # heard, and not yet ordered to do anything
    case = do(before, E.ORDER)
    assert isinstance(refused(case, E.ACCEPT), ConflictError)
    assert do(do(case, E.REPLY), E.ACCEPT).state is S.CLOSED


def test_a_statement_in_time_may_be_accepted_later_and_a_late_one_not_at_all() -> None:
    case = in_state(S.RECTIFYING)
    last = DUE - timedelta(microseconds=1)
    in_time = do(case, E.REPLY, at=last)
    accepted = do(in_time, E.ACCEPT, at=DUE + timedelta(days=3))
    assert (accepted.outcome, accepted.history[-1].late) == (Outcome.RECTIFIED, True)
    late = do(case, E.REPLY, at=DUE)
    assert late.statement is not None
    assert late.statement.late
    assert isinstance(refused(late, E.ACCEPT, at=DUE), ConflictError)
    assert do(late, E.ESCALATE, at=DUE).state is S.ESCALATED


def test_a_late_statement_does_not_take_the_place_of_one_in_time() -> None:
    case = do(in_state(S.RECTIFYING), E.REPLY, reason="done")
    case = do(case, E.REPLY, at=DUE, reason="and more")
    assert case.statement is not None
    assert case.statement.text == "done"
    assert [step.reason for step in case.history[-2:]] == ["done", "and more"]
    assert do(case, E.ACCEPT, at=DUE).state is S.CLOSED


def test_silence_changes_nothing() -> None:
    case = in_state(S.RECTIFYING)
    assert do(case, E.ESCALATE, at=DUE + timedelta(days=1_000)).state is S.ESCALATED
    assert case.state is S.RECTIFYING


def test_statements_are_bounded_so_that_a_history_is() -> None:
    case = a_case()
    for _ in range(MOST_REPLIES):
        case = do(case, E.REPLY)
    assert refused(case, E.REPLY).reason is Reason.TRANSITION_NOT_ALLOWED
    assert do(case, E.CONFIRM).state is S.CONFIRMED


def test_an_event_before_the_last_one_is_refused() -> None:
    case = do(a_case(), E.CONFIRM, at=NOW + timedelta(days=1))
    assert refused(case, E.ORDER).reason is Reason.VERSION_CONFLICT


def test_an_order_to_a_provider_holds_no_grant_of_its_consumer() -> None:
    assert not in_state(S.RECTIFYING, a_case(an_occurrence(code=ViolationCode.P4))).holds_grant
    assert not in_state(S.RECTIFYING, a_case(an_occurrence(grant=""))).holds_grant
    assert in_state(S.RECTIFYING).holds_grant


def test_a_case_takes_over_the_suspension_of_another_one() -> None:
    case = do(in_state(S.CONFIRMED), E.ORDER, order=an_order(suspended=False))
    taken = taken_over(case)
    assert taken.order is not None
    assert (taken.order.suspended, taken.version) == (True, case.version + 1)
    with pytest.raises(ConflictError):
        taken_over(a_case())


@pytest.mark.parametrize("state", sorted(S))
def test_a_case_is_read_back_from_its_document(state: CaseState) -> None:
    case = in_state(state)
    if state is S.RECTIFYING:
        case = do(case, E.REPLY)
    assert from_document(to_document(case)) == case


def test_one_department_subject_sign_and_day_are_one_occurrence() -> None:
    seen = an_occurrence()
    same = (
        {"entry": "another"},
        {"since": 5},
        {"resource": "other.v1"},
        {"code": ViolationCode.C7},
    )
    other = (
        {"day": date(2026, 5, 5)},
        {"respondent": "x"},
        {"subject": "x"},
        {"sign": Sign.CASE},
    )
    assert {replace(seen, **changes).key for changes in same} == {seen.key}
    assert len({replace(seen, **changes).key for changes in other} | {seen.key}) == len(other) + 1


def test_each_department_reports_each_violation_once_a_day() -> None:
    report = an_occurrence(sign=Sign.REPORT, reporter="a")
    others = (report, replace(report, reporter="b"), replace(report, code=ViolationCode.C3), an_occurrence())
    assert len({one.key for one in others}) == len(others)
    assert replace(report, entry="another").key == report.key


def test_the_codes_are_the_items_of_the_three_articles_in_both_languages() -> None:
    numbers = {Side.PROVIDER: (39, 9), Side.CONSUMER: (40, 7), Side.AUTHORITY: (41, 3)}
    by_side: dict[Side, list[int]] = {side: [] for side in Side}
    for code in ViolationCode:
        text = text_of(code)
        article, _ = numbers[code.side]
        assert (text.article, text.item) == (article, int(code[1:]))
        assert text.clause_en == f"decree 809 Art. {article}({text.item})"
        assert text.clause_zh.startswith("《政务数据共享条例》第")
        assert text.en.isascii()
        assert not text.zh.isascii()
        assert text.basis in {"text", "assumed"}
        by_side[code.side].append(text.item)
    assert {side: (numbers[side][0], len(items)) for side, items in by_side.items()} == numbers

"""Share requests: every transition by its article, who may carry it out, and what must hold."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from exchange.requests.guards import GUARDS, MOST_DISPUTES
from exchange.requests.life_cycle import MOST_STEPS, advance, renewal_of
from exchange.requests.model import TERMINAL, Event, Ground, Office, RequestState, ShareRequest
from exchange.requests.rules import REQUEST_RULES, Clock, Guard, Party, RequestRule
from registry.directory.model import ShareType
from schemas.access import ActorKind, Level
from schemas.errors import PoolError, Reason
from tests.kit.cases.requests import (
    CHEN,
    EVERYBODY,
    LI,
    LI_AS_OFFICER,
    NOW,
    QIAN_AS_OFFICER,
    ROBOT,
    SUN,
    TIMER,
    WANG,
    WANG_AS_AUTHORITY,
    WANG_AS_HEAD,
    WANG_AS_OFFICER,
    ZHOU,
    CalendarDays,
    a_draft,
    act,
    in_state,
    person,
    terms,
)

S, E = RequestState, Event
LATER = NOW + timedelta(days=400)  # every clock and the use are over
OVER = NOW + timedelta(days=30)  # clocks of requests are over, the use is not


def refusal(carry_out: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        carry_out()
    return caught.value.reason


def fitting(rule: RequestRule) -> tuple[ShareRequest, dict[str, Any]]:
    """Return a request to which the rule's event can happen, and what its act says beside the usual."""
    said: dict[str, Any] = {}
    if Guard.CLOCK_OVER in rule.guards or Guard.REPLY_OVERDUE in rule.guards:
        said["at"] = OVER
    if Guard.USE_OVER in rule.guards:
        said["at"] = LATER
    if rule.overturned:
        request = advance(in_state(S.IN_DISPUTE), act(E.OVERTURN), terms())
        return request, {"by": CHEN}
    if (rule.event, rule.source) == (E.WITHDRAW_SIGNATURE, S.SUBMITTED):  # the officer signed before the head
        return advance(in_state(S.SUBMITTED, sensitive=True), act(E.COUNTERSIGN), terms()), {"by": SUN}
    return in_state(rule.source, **({"sensitive": True} if rule.event is E.COUNTERSIGN else {})), said


def ids(rule: RequestRule) -> str:
    return f"{rule.source}-{rule.event}-{rule.target}"


@pytest.mark.parametrize("rule", REQUEST_RULES, ids=ids)
def test_each_event_leads_where_the_table_says_and_its_article_is_in_the_history(rule: RequestRule) -> None:
    request, said = fitting(rule)
    after = advance(request, act(rule.event, **said), terms())
    step = after.history[-1]
    assert (after.state, after.version) == (rule.target, request.version + 1)
    assert (step.event, step.state, step.article, step.profile) == (rule.event, rule.target, rule.article, "test/1")


@pytest.mark.parametrize("rule", REQUEST_RULES, ids=ids)
def test_nobody_outside_the_row_carries_an_event_out(rule: RequestRule) -> None:
    request, said = fitting(rule)
    usual = act(rule.event, **said).by
    said.pop("by", None)
    for somebody in EVERYBODY:
        right_side = {
            Party.CONSUMER: somebody.department == request.consumer,
            Party.PROVIDER: somebody.department == request.provider,
            Party.AUTHORITY: somebody.role is CHEN.role,
            Party.OVERSEER: somebody.department == request.provider or somebody.role is CHEN.role,
            Party.SYSTEM: somebody is TIMER,
        }[rule.party]
        one_person = somebody in {WANG_AS_HEAD, WANG_AS_OFFICER, WANG_AS_AUTHORITY}
        signed = somebody is LI_AS_OFFICER and rule.source is S.COUNTERSIGNED
        may = (
            right_side
            and somebody.role in rule.roles
            and not (rule.person and somebody.kind is ActorKind.MACHINE)
            and not (rule.not_by_requester and one_person)
            and not (rule.not_by_signer and signed)
            and not (rule.event is E.WITHDRAW_SIGNATURE and somebody is not usual)
        )
        carry_out = lambda: advance(request, act(rule.event, by=somebody, **said), terms())  # noqa: B023, E731
        if may:
            carry_out()
        else:
            refusal(carry_out)


def test_each_state_is_reached_and_left_and_every_run_can_end() -> None:
    reached, frontier = {S.DRAFT}, {S.DRAFT}
    while frontier:
        frontier = {rule.target for rule in REQUEST_RULES if rule.source in frontier} - reached
        reached |= frontier
    assert reached == set(S)
    ends = set(TERMINAL)
    while more := {rule.source for rule in REQUEST_RULES if rule.target in ends} - ends:
        ends |= more
    assert ends == set(S)


def test_every_way_to_approved_passes_countersigned() -> None:
    leading_to = {
        state: {rule.source for rule in REQUEST_RULES if rule.target is state} - {state}
        for state in (S.APPROVED, S.ACTIVE)
    }
    assert leading_to == {S.APPROVED: {S.COUNTERSIGNED}, S.ACTIVE: {S.APPROVED, S.SUSPENDED}}


def test_nothing_that_the_timer_does_leads_to_a_grant() -> None:
    by_timer = {rule.target for rule in REQUEST_RULES if rule.party is Party.SYSTEM and rule.target is not rule.source}
    assert by_timer == {S.WITHDRAWN, S.EXPIRED}


def test_each_guard_is_used_and_each_row_is_its_own() -> None:
    assert {guard for rule in REQUEST_RULES for guard in rule.guards} == set(Guard) == set(GUARDS)
    keys = [(rule.event, rule.source, rule.overturned) for rule in REQUEST_RULES]
    assert len(set(keys)) == len(keys)


# --- Art. 20, 21: what a request names, and the one list


def test_a_request_that_lacks_elements_learns_all_of_them_at_once() -> None:
    draft = a_draft(legal_basis=" ", duty="", scenario="", fields=(), mode=None, use_until=None, truthful=False)
    with pytest.raises(PoolError) as caught:
        advance(draft, act(E.SUBMIT), terms())
    assert caught.value.details["missing"] == "legal_basis,duty,scenario,fields,mode,use_until,truthful"


def test_a_request_outside_the_duty_list_is_refused() -> None:
    for stray in ({"duty": "HR-99"}, {"purpose": "statistics"}):
        assert refusal(lambda s=stray: advance(a_draft(**s), act(E.SUBMIT), terms())) is Reason.OUTSIDE_DUTY
    waiting = in_state(S.SUPPLEMENT)
    stray_act = act(E.RESUBMIT, supplement={"duty": "HR-99"})
    assert refusal(lambda: advance(waiting, stray_act, terms())) is Reason.OUTSIDE_DUTY


def test_a_second_list_of_what_is_missing_is_refused() -> None:
    supplemented = advance(in_state(S.SUPPLEMENT), act(E.RESUBMIT), terms())
    assert refusal(lambda: advance(supplemented, act(E.NEED_MORE), terms())) is Reason.SUPPLEMENT_REPEATED


@pytest.mark.parametrize("missing", [(), ("",), ("the article", " ")])
def test_a_list_without_words_is_refused(missing: tuple[str, ...]) -> None:
    waits = in_state(S.SUBMITTED)
    assert refusal(lambda: advance(waits, act(E.NEED_MORE, missing=missing), terms())) is Reason.REQUEST_INVALID


def test_a_supplement_writes_elements_of_the_request_alone() -> None:
    waiting = in_state(S.SUPPLEMENT)
    for supplement in ({}, {"provider": "x"}, {"level": Level.G1}, {"state": S.APPROVED}):
        carry_out = lambda s=supplement: advance(waiting, act(E.RESUBMIT, supplement=s), terms())  # noqa: E731
        assert refusal(carry_out) is Reason.REQUEST_INVALID


def test_a_supplement_restarts_the_reply_clock_or_lets_it_stand_still_as_the_profile_says() -> None:
    asked = advance(in_state(S.SUBMITTED), act(E.NEED_MORE, at=NOW + timedelta(days=9)), terms())
    answered = NOW + timedelta(days=12)
    for restarts, last in ((True, 22), (False, 13)):
        under = terms(due=CalendarDays(supplement_restarts=restarts))
        request = advance(asked, act(E.RESUBMIT, at=answered), under)
        marked = act(E.OVERDUE, at=NOW + timedelta(days=last))
        assert refusal(lambda r=request, u=under: advance(r, act(E.OVERDUE, at=answered), u))
        assert advance(request, marked, under).overdue == (Clock.REPLY,)


def test_a_supplement_that_does_not_come_lapses_when_its_time_is_over_and_not_before() -> None:
    waiting = in_state(S.SUPPLEMENT)
    assert refusal(lambda: advance(waiting, act(E.LAPSE), terms())) is Reason.TRANSITION_NOT_ALLOWED
    assert advance(waiting, act(E.LAPSE, at=NOW + timedelta(days=7)), terms()).state is S.WITHDRAWN


# --- Art. 21: extension


def test_a_reply_is_extended_once_by_at_most_ten_days_and_for_conditional_resources() -> None:
    waits = in_state(S.SUBMITTED)
    extended = advance(waits, act(E.EXTEND), terms())
    assert refusal(lambda: advance(extended, act(E.EXTEND), terms())) is Reason.TRANSITION_NOT_ALLOWED
    for days in (0, -1, 11):
        assert refusal(lambda d=days: advance(waits, act(E.EXTEND, days=d), terms())) is Reason.REQUEST_INVALID
    direct = in_state(S.SUBMITTED, share_type=ShareType.UNCONDITIONAL)
    assert refusal(lambda: advance(direct, act(E.EXTEND), terms())) is Reason.TRANSITION_NOT_ALLOWED
    late = act(E.EXTEND, at=NOW + timedelta(days=10))
    assert refusal(lambda: advance(waits, late, terms())) is Reason.TRANSITION_NOT_ALLOWED
    assert refusal(lambda: advance(waits, act(E.EXTEND, by=LI), terms())) is Reason.ROLE_MISSING
    before_end = act(E.OVERDUE, at=NOW + timedelta(days=19))
    assert refusal(lambda: advance(extended, before_end, terms())) is Reason.TRANSITION_NOT_ALLOWED


# --- Art. 39(4): silence


@pytest.mark.parametrize(("share_type", "days"), [(ShareType.UNCONDITIONAL, 1), (ShareType.CONDITIONAL, 10)])
def test_silence_is_a_violation_and_opens_nothing(share_type: ShareType, days: int) -> None:
    waits = in_state(S.SUBMITTED, share_type=share_type)
    early = act(E.OVERDUE, at=NOW + timedelta(days=days, seconds=-1))
    assert refusal(lambda: advance(waits, early, terms())) is Reason.TRANSITION_NOT_ALLOWED
    marked = advance(waits, act(E.OVERDUE, at=NOW + timedelta(days=days)), terms())
    assert (marked.state, marked.signatures, marked.approved_at) == (S.SUBMITTED, (), None)
    assert marked.history[-1].violation == "Art. 39(4)"
    assert refusal(lambda: advance(marked, act(E.OVERDUE, at=OVER), terms())) is Reason.TRANSITION_NOT_ALLOWED


def test_a_late_reply_has_its_overdue_event_before_it_also_where_the_timer_did_not_run() -> None:
    rejected = advance(in_state(S.SUBMITTED), act(E.REJECT, at=OVER), terms())
    assert [(step.event, step.violation) for step in rejected.history[-2:]] == [
        (E.OVERDUE, "Art. 39(4)"),
        (E.REJECT, ""),
    ]
    assert rejected.history[-1].late
    signed = advance(in_state(S.SUBMITTED), act(E.APPROVE), terms())
    concluded = advance(signed, act(E.CONCLUDE, at=OVER), terms())
    assert [step.event for step in concluded.history[-2:]] == [E.OVERDUE, E.CONCLUDE]


def test_a_late_delivery_is_a_violation_too() -> None:
    delivered = advance(in_state(S.APPROVED), act(E.PROVISION, at=OVER), terms())
    assert [step.event for step in delivered.history[-2:]] == [E.OVERDUE, E.PROVISION]
    assert delivered.overdue == (Clock.DELIVERY,)


def test_a_request_without_a_reply_is_taken_to_the_authority_once_its_time_is_over() -> None:
    waits = in_state(S.SUBMITTED)
    assert refusal(lambda: advance(waits, act(E.DISPUTE), terms())) is Reason.TRANSITION_NOT_ALLOWED
    disputed = advance(waits, act(E.DISPUTE, at=OVER), terms())
    assert advance(disputed, act(E.OVERTURN, at=OVER), terms()).state is S.COUNTERSIGNED


# --- Art. 20: signatures


@pytest.mark.parametrize(
    ("asked", "offices"),
    [
        ({}, {Office.HEAD}),
        ({"sensitive": True}, {Office.HEAD, Office.SECURITY_OFFICER}),
        ({"level": Level.G4}, {Office.HEAD, Office.SECURITY_OFFICER}),
        ({"level": Level.IMP}, {Office.HEAD, Office.SECURITY_OFFICER}),
    ],
)
def test_what_is_sensitive_and_what_is_graded_g4_need_two_persons(asked: dict[str, Any], offices: set[Office]) -> None:
    request = in_state(S.COUNTERSIGNED, **asked)
    if Office.SECURITY_OFFICER in offices:
        assert refusal(lambda: advance(request, act(E.CONCLUDE), terms())) is Reason.CONFIRMATION_MISSING
        request = advance(request, act(E.COUNTERSIGN), terms())
    approved = advance(request, act(E.CONCLUDE), terms())
    assert {signature.office for signature in approved.signatures} == offices


def test_one_person_does_not_sign_twice_under_another_account() -> None:
    request = in_state(S.COUNTERSIGNED, sensitive=True)
    for officer in (LI_AS_OFFICER, WANG_AS_OFFICER):
        countersign = act(E.COUNTERSIGN, by=officer)
        assert refusal(lambda a=countersign: advance(request, a, terms())) is Reason.SAME_PERSON


@pytest.mark.parametrize(
    ("state", "event", "by"),
    [(S.SUBMITTED, E.APPROVE, WANG_AS_HEAD), (S.IN_DISPUTE, E.OVERTURN, WANG_AS_AUTHORITY)],
)
def test_the_person_who_requested_does_not_decide_under_another_account(
    state: RequestState, event: Event, by: Any
) -> None:
    assert refusal(lambda: advance(in_state(state), act(event, by=by), terms())) is Reason.SAME_PERSON


def test_a_person_who_is_not_known_does_not_decide() -> None:
    waits = in_state(S.SUBMITTED)
    assert refusal(lambda: advance(waits, act(E.APPROVE), terms(persons={}))) is Reason.PERSON_UNKNOWN


def test_a_program_signs_nothing() -> None:
    assert refusal(lambda: advance(in_state(S.SUBMITTED), act(E.APPROVE, by=ROBOT), terms())) is Reason.ROLE_FORBIDDEN


def test_nobody_countersigns_where_no_countersignature_is_due() -> None:
    plain = in_state(S.COUNTERSIGNED)
    assert refusal(lambda: advance(plain, act(E.COUNTERSIGN), terms())) is Reason.TRANSITION_NOT_ALLOWED
    both = advance(in_state(S.COUNTERSIGNED, sensitive=True), act(E.COUNTERSIGN), terms())
    another = act(E.COUNTERSIGN, by=QIAN_AS_OFFICER)
    assert refusal(lambda: advance(both, another, terms())) is Reason.TRANSITION_NOT_ALLOWED


@pytest.mark.parametrize("who", [LI, SUN], ids=["head", "officer"])
def test_withdrawing_one_signature_reopens_the_request_and_both_sign_again(who: Any) -> None:
    both = advance(in_state(S.COUNTERSIGNED, sensitive=True), act(E.COUNTERSIGN), terms())
    reopened = advance(both, act(E.WITHDRAW_SIGNATURE, by=who), terms())
    assert (reopened.state, reopened.signatures) == (S.SUBMITTED, ())
    again = advance(reopened, act(E.APPROVE), terms())
    assert refusal(lambda: advance(again, act(E.CONCLUDE), terms())) is Reason.CONFIRMATION_MISSING


def test_a_signature_is_withdrawn_by_who_gave_it() -> None:
    signed = in_state(S.COUNTERSIGNED)
    other = person("qian.ps", LI.role, LI.department)
    stray = act(E.WITHDRAW_SIGNATURE, by=other)
    assert refusal(lambda: advance(signed, stray, terms())) is Reason.TRANSITION_NOT_ALLOWED


# --- Art. 21: refusals


@pytest.mark.parametrize("said", [{"clause": ""}, {"reason": ""}, {"clause": " ", "reason": " "}])
@pytest.mark.parametrize(("state", "event"), [(S.SUBMITTED, E.REJECT), (S.IN_DISPUTE, E.UPHOLD)])
def test_a_refusal_without_reason_or_clause_is_refused(state: RequestState, event: Event, said: dict[str, str]) -> None:
    assert refusal(lambda: advance(in_state(state), act(event, **said), terms())) is Reason.CLAUSE_MISSING


@pytest.mark.parametrize("ground", list(Ground))
def test_an_unconditional_resource_is_refused_out_of_duty_or_for_its_scope_alone(ground: Ground) -> None:
    direct = in_state(S.SUBMITTED, share_type=ShareType.UNCONDITIONAL)
    reject = act(E.REJECT, ground=ground)
    if ground in {Ground.OUT_OF_DUTY, Ground.INCOMPLETE_SCOPE}:
        assert advance(direct, reject, terms()).state is S.REJECTED
    else:
        assert refusal(lambda: advance(direct, reject, terms())) is Reason.REQUEST_INVALID
    assert advance(in_state(S.SUBMITTED), reject, terms()).state is S.REJECTED


def test_a_refusal_names_its_ground() -> None:
    waits = in_state(S.SUBMITTED)
    assert refusal(lambda: advance(waits, act(E.REJECT, ground=None), terms())) is Reason.REQUEST_INVALID


# --- Art. 28: the ladder


def test_a_dispute_needs_a_record_of_negotiations_and_ends_with_the_government() -> None:
    rejected = in_state(S.REJECTED)
    assert refusal(lambda: advance(rejected, act(E.DISPUTE, reference=""), terms())) is Reason.REQUEST_INVALID
    for _ in range(MOST_DISPUTES):
        rejected = advance(advance(rejected, act(E.DISPUTE), terms()), act(E.UPHOLD), terms())
    assert refusal(lambda: advance(rejected, act(E.DISPUTE), terms())) is Reason.TRANSITION_NOT_ALLOWED


def test_an_overturned_refusal_of_a_sensitive_request_needs_the_officer_as_well() -> None:
    overturned = advance(in_state(S.IN_DISPUTE, sensitive=True), act(E.OVERTURN), terms())
    assert overturned.state is S.COUNTERSIGNED
    assert refusal(lambda: advance(overturned, act(E.CONCLUDE, by=CHEN), terms())) is Reason.CONFIRMATION_MISSING
    signed = advance(overturned, act(E.COUNTERSIGN), terms())
    approved = advance(signed, act(E.CONCLUDE, by=CHEN), terms())
    assert {one.office for one in approved.signatures} == {Office.AUTHORITY, Office.SECURITY_OFFICER}


@pytest.mark.parametrize("who", [CHEN, SUN], ids=["authority", "officer"])
def test_withdrawing_a_signature_of_an_overturned_refusal_leads_back_into_the_dispute(who: Any) -> None:
    overturned = advance(in_state(S.IN_DISPUTE, sensitive=True), act(E.OVERTURN), terms())
    both = advance(overturned, act(E.COUNTERSIGN), terms())
    assert refusal(lambda: advance(both, act(E.WITHDRAW_SIGNATURE, by=LI), terms()))
    reopened = advance(both, act(E.WITHDRAW_SIGNATURE, by=who), terms())
    assert (reopened.state, reopened.overturned, reopened.signatures) == (S.IN_DISPUTE, False, ())


def test_a_dispute_that_takes_long_is_no_late_reply_of_the_provider() -> None:
    overturned = advance(in_state(S.IN_DISPUTE), act(E.OVERTURN, at=OVER), terms())
    assert refusal(lambda: advance(overturned, act(E.OVERDUE, at=OVER), terms())) is Reason.TRANSITION_NOT_ALLOWED
    assert not advance(overturned, act(E.CONCLUDE, at=OVER), terms()).history[-1].late


# --- Art. 22, 27: the grant


def test_a_suspension_names_its_ground_and_a_time_for_rectification() -> None:
    active = in_state(S.ACTIVE)
    for said in ({"misuse": None}, {"rectify_until": None}, {"rectify_until": NOW}, {"reason": ""}):
        assert refusal(lambda s=said: advance(active, act(E.SUSPEND, **s), terms())) is Reason.REQUEST_INVALID


def test_a_rectification_after_its_time_is_refused_and_the_grant_can_be_terminated() -> None:
    suspended = in_state(S.SUSPENDED)
    late = NOW + timedelta(days=200, seconds=1)
    assert refusal(lambda: advance(suspended, act(E.RECTIFIED, at=late), terms())) is Reason.TRANSITION_NOT_ALLOWED
    assert advance(suspended, act(E.TERMINATE, at=late), terms()).state is S.TERMINATED


@pytest.mark.parametrize("event", [E.COMPLETE, E.CHANGE_SERVICE, E.TERMINATE_BY_AGREEMENT])
def test_what_ends_or_changes_a_service_needs_its_certificate_or_filing(event: Event) -> None:
    active = in_state(S.ACTIVE)
    assert refusal(lambda: advance(active, act(event, reference=" "), terms())) is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (S.DRAFT, E.SUBMIT),
        (S.SUBMITTED, E.APPROVE),
        (S.COUNTERSIGNED, E.CONCLUDE),
        (S.IN_DISPUTE, E.OVERTURN),
        (S.APPROVED, E.PROVISION),
    ],
)
def test_nothing_opens_a_use_that_is_over(state: RequestState, event: Event) -> None:
    assert refusal(lambda: advance(in_state(state), act(event, at=LATER), terms())) is Reason.TRANSITION_NOT_ALLOWED


def test_a_grant_expires_when_its_use_is_over_and_not_before() -> None:
    for state in (S.ACTIVE, S.APPROVED):
        request = in_state(state)
        assert refusal(lambda r=request: advance(r, act(E.EXPIRE), terms())) is Reason.TRANSITION_NOT_ALLOWED
        assert advance(request, act(E.EXPIRE, at=LATER), terms()).state is S.EXPIRED


def test_a_renewal_is_a_request_of_its_own_and_the_grant_stays_active() -> None:
    active = in_state(S.ACTIVE)
    assert active.use_until is not None
    draft = renewal_of(active, renewal_id="new", use_until=active.use_until + timedelta(days=300))
    assert (draft.state, draft.renews, draft.signatures, draft.fields) == (S.DRAFT, active.id, (), active.fields)
    assert refusal(lambda: advance(draft, act(E.SUBMIT), terms())) is Reason.REQUEST_INVALID, "basis and statement anew"
    again = replace(draft, legal_basis=active.legal_basis, truthful=True)
    assert advance(again, act(E.SUBMIT), terms()).state is S.SUBMITTED
    assert active.state is S.ACTIVE


@pytest.mark.parametrize(
    ("state", "renewal_id", "days"),
    [(S.SUSPENDED, "new", 300), (S.APPROVED, "new", 300), (S.ACTIVE, "new", 0), (S.ACTIVE, a_draft().id, 300)],
)
def test_only_an_active_grant_is_renewed_under_another_id_and_for_longer(
    state: RequestState, renewal_id: str, days: int
) -> None:
    grant = in_state(state)
    assert grant.use_until is not None
    until = grant.use_until + timedelta(days=days)
    refusal(lambda: renewal_of(grant, renewal_id=renewal_id, use_until=until))


def test_a_time_without_an_offset_is_refused() -> None:
    naive = act(E.SUBMIT, at=NOW.replace(tzinfo=None))
    assert refusal(lambda: advance(a_draft(), naive, terms())) is Reason.REQUEST_INVALID


def test_strangers_and_the_consumer_itself_do_not_decide() -> None:
    for somebody in (ZHOU, WANG, TIMER):
        refusal(lambda s=somebody: advance(in_state(S.SUBMITTED), act(E.APPROVE, by=s), terms()))


# --- what is not shared, departments without a duty list, signatures in either order


class NoList:
    """A department without a duty list: it names no duty."""

    def covers(self, department: str, duty: str, purpose: str) -> bool:
        del department, purpose
        return not duty


def test_what_is_not_shared_is_neither_asked_for_nor_agreed_to() -> None:
    closed = {"share_type": ShareType.NONE}
    assert refusal(lambda: advance(a_draft(**closed), act(E.SUBMIT), terms())) is Reason.NOT_SHARED
    for state, event in ((S.SUBMITTED, E.APPROVE), (S.COUNTERSIGNED, E.CONCLUDE), (S.IN_DISPUTE, E.OVERTURN)):
        request = replace(in_state(state), **closed)
        assert refusal(lambda request=request, event=event: advance(request, act(event), terms())) is Reason.NOT_SHARED  # type: ignore[misc]


def test_a_department_without_a_duty_list_names_no_duty() -> None:
    assert advance(a_draft(duty=""), act(E.SUBMIT), terms(duties=NoList())).state is S.SUBMITTED
    assert refusal(lambda: advance(a_draft(duty=""), act(E.SUBMIT), terms())) is Reason.REQUEST_INVALID
    assert refusal(lambda: advance(a_draft(), act(E.SUBMIT), terms(duties=NoList()))) is Reason.OUTSIDE_DUTY


def test_the_officer_signs_before_the_head_or_after() -> None:
    request = in_state(S.SUBMITTED, sensitive=True)
    for events in ((E.COUNTERSIGN, E.APPROVE, E.CONCLUDE), (E.APPROVE, E.COUNTERSIGN, E.CONCLUDE)):
        after = request
        for event in events:
            after = advance(after, act(event), terms())
        assert after.state is S.APPROVED
        assert {one.office for one in after.signatures} == {Office.HEAD, Office.SECURITY_OFFICER}
    first = advance(request, act(E.COUNTERSIGN), terms())
    assert refusal(lambda: advance(first, act(E.COUNTERSIGN), terms())) is Reason.SAME_PERSON
    taken = advance(first, act(E.WITHDRAW_SIGNATURE, by=SUN), terms())
    assert (taken.state, taken.signatures) == (S.SUBMITTED, ())


def test_a_supplement_takes_signatures_away_and_who_wrote_it_does_not_decide() -> None:
    signed = advance(in_state(S.SUBMITTED, sensitive=True), act(E.COUNTERSIGN), terms())
    asked = advance(signed, act(E.NEED_MORE), terms())
    colleague = person("zhao.hr", WANG.role, WANG.department)
    moved = person("zhao.ps", LI.role, LI.department)
    persons = {**terms().persons, "zhao.hr": "staff-zhao", "zhao.ps": "staff-zhao"}
    again = advance(asked, act(E.RESUBMIT, by=colleague), terms(persons=persons))
    assert again.signatures == ()
    assert again.requested_by == WANG.id
    assert refusal(lambda: advance(again, act(E.APPROVE, by=moved), terms(persons=persons))) is Reason.SAME_PERSON
    assert refusal(lambda: advance(again, act(E.APPROVE, by=WANG_AS_HEAD), terms())) is Reason.SAME_PERSON


def test_the_ground_of_a_refusal_and_of_a_suspension_is_in_the_history() -> None:
    rejected = advance(in_state(S.SUBMITTED), act(E.REJECT), terms())
    assert rejected.history[-1].ground == Ground.OUT_OF_DUTY
    assert in_state(S.SUSPENDED).history[-1].ground == "third_party"


@pytest.mark.parametrize("rule", REQUEST_RULES, ids=lambda rule: f"{rule.event}-{rule.source}")
def test_a_history_stays_bounded_and_what_ends_a_request_is_always_possible(rule: RequestRule) -> None:
    request, said = fitting(rule)
    [step] = in_state(S.SUBMITTED).history
    full = replace(request, history=(*request.history, *[step] * (MOST_STEPS - len(request.history))))
    ends = rule.target in TERMINAL or rule.event in {E.SUSPEND, E.OVERDUE, E.WITHDRAW_SIGNATURE}
    if ends:
        assert advance(full, act(rule.event, **said), terms()).state is rule.target
    else:
        assert refusal(lambda: advance(full, act(rule.event, **said), terms())) is Reason.TRANSITION_NOT_ALLOWED

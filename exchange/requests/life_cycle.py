"""State machine of share requests: applies one event of the table to one value of a request. Pure: no store, no clock.

    request = advance(draft, Act(event=Event.SUBMIT, by=head, at=now), terms)

Every refusal leaves the request as it was. The rules of who and when are `exchange.requests.rules`, what must hold
beside them `exchange.requests.guards`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from exchange.requests.guards import GUARDS, Act, Terms, due_at_of
from exchange.requests.model import Event, Office, RequestState, ShareRequest, Signature, Step
from exchange.requests.rules import Clock, Party, RequestRule, rules_from
from registry.governance.two_persons import refuse_second_signature
from schemas.access import ActorKind, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["MOST_STEPS", "SUPPLEMENTED", "advance", "renewal_of", "requesters_of", "rule_of"]

MOST_STEPS: Final = 500
"""Events of a request, so that its history stays bounded: signatures, and suspensions, come and go without end."""

SUPPLEMENTED: Final = frozenset(
    {"duty", "purpose", "legal_basis", "scenario", "fields", "mode", "use_until", "truthful"}
)
"""Elements that a supplement may write; provider, resource and levels are not among them."""

_OFFICES: Mapping[Event, Office] = MappingProxyType(
    {Event.APPROVE: Office.HEAD, Event.COUNTERSIGN: Office.SECURITY_OFFICER, Event.OVERTURN: Office.AUTHORITY}
)
_VIOLATION = "Art. 39(4)"
_CLOSING: Final = frozenset(
    {
        Event.REJECT,
        Event.UPHOLD,
        Event.WITHDRAW,
        Event.WITHDRAW_SIGNATURE,
        Event.LAPSE,
        Event.OVERDUE,
        Event.SUSPEND,
        Event.TERMINATE,
        Event.TERMINATE_BY_AGREEMENT,
        Event.COMPLETE,
        Event.EXPIRE,
    }
)  # possible after any number of events: each takes away, or is recorded once


def advance(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    """Return the request after an event.

    Where a reply or a delivery comes after its clock has run out, the event that says so is recorded before it.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED; SUPPLEMENT_REPEATED, a second list of what is missing.
        RefusedError: GRANT_OTHER_CONSUMER, NOT_PROVIDER, ROLE_MISSING, ROLE_FORBIDDEN (a program), SAME_PERSON,
            PERSON_UNKNOWN, NOT_SHARED, OUTSIDE_DUTY, CONFIRMATION_MISSING.
        InvalidError: REQUEST_INVALID, what the event requires is missing; CLAUSE_MISSING, a refusal without a clause.
    """
    if act.at.utcoffset() is None:
        raise InvalidError(Reason.REQUEST_INVALID, "got a time without an offset from UTC; times are aware")
    rule = rule_of(request, act.event)
    _check_party(request, rule, act)
    _check_person(request, rule, act, terms)
    if len(request.history) >= MOST_STEPS and act.event not in _CLOSING:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the request has had {len(request.history)} events; it can only be refused or ended, and asked for again",
        )
    candidate = _supplemented(request, act) if act.event is Event.RESUBMIT else request
    if act.event is Event.SUBMIT:
        candidate = replace(candidate, requested_by=act.by.id)
    for guard in rule.guards:
        error = GUARDS[guard](candidate, act, terms, rule)
        if error is not None:
            raise error
    return _carried_out(candidate, rule, act, terms)


def renewal_of(grant: ShareRequest, *, renewal_id: str, use_until: datetime) -> ShareRequest:
    """Return the draft of a request by which a grant goes on after its end; the grant itself does not change.

    Consumer, resource, duty and scope are those of the grant; basis and statement are the requester's to repeat.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, the grant is not active.
        InvalidError: REQUEST_INVALID, the end is not later than the grant's, or the id is the grant's own.
    """
    if grant.state is not RequestState.ACTIVE:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, f"the grant is {grant.state}; an active one is renewed, or ask for a new one"
        )
    if grant.use_until is None or use_until <= grant.use_until or renewal_id == grant.id:
        raise InvalidError(Reason.REQUEST_INVALID, "a renewal has an id of its own and ends later than what it renews")
    return ShareRequest(
        id=renewal_id,
        consumer=grant.consumer,
        provider=grant.provider,
        resource=grant.resource,
        share_type=grant.share_type,
        level=grant.level,
        sensitive=grant.sensitive,
        duty=grant.duty,
        purpose=grant.purpose,
        scenario=grant.scenario,
        fields=grant.fields,
        mode=grant.mode,
        use_until=use_until,
        renews=grant.id,
    )


def requesters_of(request: ShareRequest) -> tuple[str, ...]:
    """Return the accounts that submitted a request, and supplemented it: none of them decides on it."""
    supplemented = (step.by for step in request.history if step.event is Event.RESUBMIT)
    return tuple(dict.fromkeys((request.requested_by, *supplemented)))


def rule_of(request: ShareRequest, event: Event) -> RequestRule:
    """Return the row of an event in the state of a request.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, there is none.
    """
    possible = [rule for rule in rules_from(request.state) if rule.overturned in {None, request.overturned}]
    for rule in possible:
        if rule.event is event:
            return rule
    names = sorted({rule.event for rule in possible})
    raise ConflictError(
        Reason.TRANSITION_NOT_ALLOWED,
        f"got {event} for a request that is {request.state}; possible now: {', '.join(names) or 'nothing'}",
    )


def _check_party(request: ShareRequest, rule: RequestRule, act: Act) -> None:
    by = act.by
    authority = by.role is Role.DATA_AUTHORITY and not by.department
    provider = bool(by.department) and by.department == request.provider
    match rule.party:
        case Party.CONSUMER if not by.department or by.department != request.consumer:
            raise RefusedError(Reason.GRANT_OTHER_CONSUMER, "only the consuming department may do this")
        case Party.PROVIDER if not provider:
            raise RefusedError(Reason.NOT_PROVIDER, "only the providing department may do this")
        case Party.OVERSEER if not (provider or authority):
            raise RefusedError(Reason.NOT_PROVIDER, "only the providing department or the data authority may do this")
        case Party.AUTHORITY if not authority:
            raise RefusedError(Reason.ROLE_MISSING, "only the data authority may do this")
        case Party.SYSTEM if by.role is not Role.OPERATOR or by.kind is not ActorKind.MACHINE:
            raise RefusedError(Reason.ROLE_MISSING, "only the pool's own timer does this")
        case _ if by.role not in rule.roles:
            expected = " or ".join(sorted(rule.roles))
            raise RefusedError(Reason.ROLE_MISSING, f"got {rule.event} by the role {by.role}; expected {expected}")


def _check_person(request: ShareRequest, rule: RequestRule, act: Act, terms: Terms) -> None:
    if rule.person and act.by.kind is not ActorKind.HUMAN:
        raise RefusedError(Reason.ROLE_FORBIDDEN, f"{rule.event} is an act of a person; a program may not")
    before = requesters_of(request) if rule.not_by_requester else ()
    before += tuple(signature.account for signature in request.signatures) if rule.not_by_signer else ()
    for account in before:
        refusal = refuse_second_signature(account, act.by.id, terms.persons)
        if refusal is not None:
            raise RefusedError(refusal.reason, refusal.explanation)


def _supplemented(request: ShareRequest, act: Act) -> ShareRequest:
    strays = sorted(set(act.supplement) - SUPPLEMENTED)
    if strays or not act.supplement:
        expected = ", ".join(sorted(SUPPLEMENTED))
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got {', '.join(strays) or 'nothing'} as a supplement; expected some of {expected}",
        )
    given: dict[str, Any] = dict(act.supplement)
    return replace(request, **given)


def _carried_out(request: ShareRequest, rule: RequestRule, act: Act, terms: Terms) -> ShareRequest:
    late = rule.clock is not None and act.event is not Event.EXTEND and _is_over(request, rule.clock, act, terms)
    if late and rule.clock in {Clock.REPLY, Clock.DELIVERY} and rule.clock.value not in request.overdue:
        marked = Step(
            event=Event.OVERDUE,
            state=rule.source,
            by=act.by.id,
            at=act.at,
            article=_VIOLATION,
            profile=terms.due.profile,
            late=True,
            violation=_VIOLATION,
        )
        history = request.history if act.event is Event.OVERDUE else (*request.history, marked)
        request = replace(request, overdue=(*request.overdue, rule.clock.value), history=history)
    changed = _EFFECTS.get(act.event, _nothing)(request, act, terms)
    step = Step(
        event=act.event,
        state=rule.target,
        by=act.by.id,
        at=act.at,
        article=rule.article,
        profile=terms.due.profile,
        late=late,
        violation=_VIOLATION if act.event is Event.OVERDUE else "",
        reason=act.reason,
        clause=act.clause,
        reference=act.reference,
        ground=str(act.ground or act.misuse or ""),
    )
    office = _OFFICES.get(act.event)
    if office is not None:
        changed = replace(changed, signatures=(*changed.signatures, Signature(office, act.by.id, act.at)))
    return replace(changed, version=request.version + 1, state=rule.target, history=(*changed.history, step))


def _is_over(request: ShareRequest, clock: Clock, act: Act, terms: Terms) -> bool:
    due = due_at_of(request, clock, terms.due)
    return due is not None and act.at >= due


def _nothing(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del act, terms
    return request


def _submitted(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del terms
    return replace(request, received_at=act.at)


def _asked_for_more(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del terms
    return replace(request, noticed_at=act.at, missing=act.missing)


def _resubmitted(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    request = replace(request, signatures=())  # what was signed was another request
    if terms.due.supplement_restarts:
        return replace(request, received_at=act.at, overdue=tuple(o for o in request.overdue if o != Clock.REPLY))
    assert request.noticed_at is not None  # noqa: S101 - a request is supplemented after a notice
    return replace(request, pauses=(*request.pauses, (request.noticed_at, act.at)))


def _extended(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del terms
    return replace(request, extension=act.days)


def _reopened(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del act, terms
    return replace(request, signatures=(), overturned=False)


def _disputed(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del act, terms
    return replace(request, disputes=request.disputes + 1)


def _overturned(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del act, terms
    return replace(request, signatures=(), overturned=True)


def _concluded(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del terms
    return replace(request, approved_at=act.at)


def _suspended(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del terms
    return replace(request, rectify_until=act.rectify_until)


def _rectified(request: ShareRequest, act: Act, terms: Terms) -> ShareRequest:
    del act, terms
    return replace(request, rectify_until=None)


_EFFECTS: Mapping[Event, Callable[[ShareRequest, Act, Terms], ShareRequest]] = MappingProxyType(
    {
        Event.SUBMIT: _submitted,
        Event.NEED_MORE: _asked_for_more,
        Event.RESUBMIT: _resubmitted,
        Event.EXTEND: _extended,
        Event.WITHDRAW_SIGNATURE: _reopened,
        Event.DISPUTE: _disputed,
        Event.OVERTURN: _overturned,
        Event.CONCLUDE: _concluded,
        Event.SUSPEND: _suspended,
        Event.RECTIFIED: _rectified,
    }
)

assert frozenset(one.name for one in fields(ShareRequest)) >= SUPPLEMENTED  # noqa: S101

"""State machine of violation cases: applies one event to one version of a case. Pure: no store, no clock.

    case = opened(occurrence, case_id=…, by="timer", at=now)
    case = advance(case, CaseAct(event=CaseEvent.CONFIRM, by=officer, at=now, reason="…"), persons=persons)
    case = advance(case, CaseAct(event=CaseEvent.ORDER, …, order=order), persons=persons)
    case = advance(case, CaseAct(event=CaseEvent.REPLY, by=head, …, due=due), persons=persons)
    case = advance(case, CaseAct(event=CaseEvent.ACCEPT, …, due=due), persons=persons)

It checks again what the decision before it has checked, since the version that is locked may be another than the one
that was decided on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from exchange.violations.model import (
    CaseEvent,
    CaseState,
    CaseStep,
    Occurrence,
    Order,
    Outcome,
    Referral,
    Sign,
    Statement,
    ViolationCase,
)
from exchange.violations.rules import CASE_RULES, CaseParty, CaseRule, rule_of
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["MOST_REASON", "MOST_REPLIES", "REPLYING", "CaseAct", "advance", "opened", "taken_over"]

MOST_REASON: Final = 2_000
"""Characters of a reason or a statement."""
MOST_REPLIES: Final = 20
"""Statements of a case, so that its history stays bounded."""
REPLYING: Final = frozenset({Role.SHARING_OFFICE_HEAD, Role.SECURITY_OFFICER})
"""Who states a department's case."""
_OUTCOMES: Final[Mapping[CaseEvent, Outcome]] = MappingProxyType(
    {
        CaseEvent.DISMISS: Outcome.DISMISSED,
        CaseEvent.ACCEPT: Outcome.RECTIFIED,
        CaseEvent.CLOSE: Outcome.REFERRED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseAct:
    """What somebody wants to do to a case.

    Attributes:
        event: what.
        by: who.
        at: aware.
        reason: in words: why, what is ordered, or what the respondent states.
        order: the order (ORDER).
        due: until when the order gives time, as the calendar has it now (REPLY, ACCEPT); None without an order.
        referral: to what it is escalated (ESCALATE).
        heir: the department that has taken over the respondent, and is heard in its place; empty = none.
    """

    event: CaseEvent
    by: Actor
    at: datetime
    reason: str = ""
    order: Order | None = None
    due: datetime | None = None
    referral: Referral | None = None
    heir: str = ""


def opened(occurrence: Occurrence, *, case_id: str, by: str, at: datetime, reason: str = "") -> ViolationCase:
    """Return the case of an occurrence, version 1.

    Raises:
        InvalidError: REQUEST_INVALID, it is reported without a reason.
    """
    reported = occurrence.sign is Sign.REPORT
    if reported:
        _check_reason(reason)
    event = CaseEvent.REPORT if reported else CaseEvent.DETECT
    step = CaseStep(event=event, state=CaseState.DETECTED, by=by, at=at, article="Art. 38", reason=reason.strip())
    return ViolationCase(
        id=case_id,
        version=1,
        occurrence=occurrence,
        state=CaseState.DETECTED,
        reported_by=by if reported else "",
        history=(step,),
    )


def advance(case: ViolationCase, act: CaseAct, *, persons: Mapping[str, str]) -> ViolationCase:
    """Return the next version of a case.

    Args:
        case: the locked version.
        act: what is done.
        persons: account name → staff number, of who acts and of who reported it.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED.
        RefusedError: ROLE_MISSING, ROLE_FORBIDDEN (a program), OTHER_DEPARTMENT, SAME_PERSON, PERSON_UNKNOWN.
        InvalidError: REQUEST_INVALID, what the event needs is missing.
    """
    rule = rule_of(act.event, case.state)
    if rule is None:
        possible = sorted({one.event for one in CASE_RULES if one.source is case.state})
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"got {act.event} for a case that is {case.state}; possible now: {', '.join(possible) or 'nothing'}",
        )
    _check_who(case, rule, act, persons)
    if rule.needs_reason:
        _check_reason(act.reason)
    if act.at < case.history[-1].at:
        raise ConflictError(Reason.VERSION_CONFLICT, "the case has changed since; read it again")
    late = act.due is not None and act.at >= act.due
    changed = _changed(case, act, late=late)
    step = CaseStep(
        event=act.event,
        state=rule.target,
        by=act.by.id,
        at=act.at,
        article=rule.article,
        reason=act.reason.strip(),
        late=late,
    )
    return replace(
        changed,
        version=case.version + 1,
        state=rule.target,
        outcome=_OUTCOMES.get(act.event),
        history=(*case.history, step),
    )


def taken_over(case: ViolationCase) -> ViolationCase:
    """Return a case whose order keeps the grant suspended from now on, as another one did that was accepted.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED, it holds no grant.
    """
    if case.order is None or not case.holds_grant:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"the case {case.id} holds no grant")
    return replace(case, version=case.version + 1, order=replace(case.order, suspended=True))


def _changed(case: ViolationCase, act: CaseAct, *, late: bool) -> ViolationCase:
    """Return the case with what the event adds beside its state."""
    match act.event:
        case CaseEvent.ORDER:
            if act.order is None:
                raise InvalidError(Reason.REQUEST_INVALID, "got an order without its time limit")
            return replace(case, order=act.order)
        case CaseEvent.REPLY:
            if sum(step.event is CaseEvent.REPLY for step in case.history) >= MOST_REPLIES:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED, f"the department has stated its case {MOST_REPLIES} times already"
                )
            ordered = case.state is CaseState.RECTIFYING
            if late and case.statement is not None and case.statement.ordered and not case.statement.late:
                return case  # what was stated in time is what the authority decides on; the history has both
            statement = Statement(text=act.reason.strip(), by=act.by.id, at=act.at, ordered=ordered, late=late)
            return replace(case, statement=statement)
        case CaseEvent.ACCEPT:
            _check_rectified(case)
            return case
        case CaseEvent.ESCALATE:
            if act.referral is None:
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"got no referral; expected one of {', '.join(Referral)} (decree 809, Art. 39 to 42)",
                )
            return replace(case, referral=act.referral)
        case _:
            return case


def _check_rectified(case: ViolationCase) -> None:
    """Check that the respondent has stated in time what it rectified; the authority itself may decide later."""
    statement = case.statement
    if statement is None or not statement.ordered:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            "the department has not stated what it has rectified; wait for its reply, or escalate the case",
        )
    if statement.late:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            "the department's statement came after the time for rectification; the case can only be escalated "
            "(decree 809, Art. 27)",
        )


def _check_who(case: ViolationCase, rule: CaseRule, act: CaseAct, persons: Mapping[str, str]) -> None:
    by = act.by
    if by.kind is not ActorKind.HUMAN:
        raise RefusedError(Reason.ROLE_FORBIDDEN, f"{rule.event} is an act of a person; a program may not")
    respondent = case.occurrence.respondent
    if rule.party is CaseParty.RESPONDENT:
        if by.department != (act.heir or respondent):
            raise RefusedError(Reason.OTHER_DEPARTMENT, "only the department that the case concerns replies to it")
        if by.role not in (REPLYING if respondent else {Role.DATA_AUTHORITY}):
            raise RefusedError(Reason.ROLE_MISSING, f"got a reply by the role {by.role}; expected a head or an officer")
        return
    if by.role is not Role.DATA_AUTHORITY or by.department:
        raise RefusedError(Reason.ROLE_MISSING, "only the data authority may do this")
    if rule.not_by_reporter and case.reported_by:
        refusal = refuse_second_signature(case.reported_by, by.id, persons)
        if refusal is not None:
            raise RefusedError(refusal.reason, refusal.explanation)


def _check_reason(text: str) -> None:
    if not text.strip() or len(text) > MOST_REASON:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got no reason, or one of more than {MOST_REASON} characters; say it in words, without records",
        )

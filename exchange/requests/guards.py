"""Guards of share requests: what must hold before an event, beside party and person. Pure.

Each guard of `exchange.requests.rules.Guard` is one function here, which returns the error, or None where it holds. A
guard reads the request, the act and the terms under which it is decided, and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from exchange.requests.due_dates import DueDates, Limit, Pause
from exchange.requests.model import (
    Event,
    Ground,
    Office,
    ShareRequest,
    SuspensionGround,
    missing_elements,
    required_offices,
)
from exchange.requests.refusals import check_clause, check_ground
from exchange.requests.rules import Clock, Guard, RequestRule
from registry.directory.model import ShareType
from schemas.access import Actor
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError

__all__ = ["GUARDS", "MOST_DISPUTES", "Act", "Duties", "Span", "Terms", "due_at_of", "limit_of"]

MOST_DISPUTES: Final = 2
"""How often a refusal goes up: to the data authority, then to the government above it (decree 809, Art. 28)."""


class Duties(Protocol):
    """Duty lists (权责清单) of departments."""

    def covers(self, department: str, duty: str, purpose: str) -> bool:
        """Return whether the item is on the department's list and the purpose belongs to it.

        The empty item is covered where the department has no list.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under what a request is decided.

    Attributes:
        due: due dates under the rule profile.
        duties: the duty lists.
        persons: account → staff number, of the actor, of who requested and of who signed.
    """

    due: DueDates
    duties: Duties
    persons: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What somebody wants to do with a request.

    Attributes:
        event: see Event.
        by: who.
        at: aware.
        reason: why, in words.
        clause: law and article that is cited.
        ground: of a refusal.
        misuse: ground of a suspension.
        missing: the complete list of what is missing.
        supplement: elements of the request as supplemented, by name (RESUBMIT).
        days: working days of an extension.
        rectify_until: until when a suspended grant can be rectified; aware.
        reference: record of negotiations, id of a filing, or of a certificate of disposal.
    """

    event: Event
    by: Actor
    at: datetime
    reason: str = ""
    clause: str = ""
    ground: Ground | None = None
    misuse: SuspensionGround | None = None
    missing: tuple[str, ...] = ()
    supplement: Mapping[str, object] = field(default_factory=dict)
    days: int = 0
    rectify_until: datetime | None = None
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """What a clock of a request runs from, and for how long."""

    limit: Limit
    start: datetime
    extension: int = 0
    pauses: tuple[Pause, ...] = ()


def limit_of(request: ShareRequest, clock: Clock) -> Span | None:
    """Return the limit of a clock of a request, and from when; None where it has not begun.

    The reply clock is the provider's: where the authority has decided in its place, there is none.
    """
    match clock:
        case Clock.REPLY if request.received_at is not None and not request.overturned:
            unconditional = request.share_type is ShareType.UNCONDITIONAL
            limit = Limit.UNCONDITIONAL_REPLY if unconditional else Limit.CONDITIONAL_REPLY
            return Span(limit, request.received_at, request.extension, request.pauses)
        case Clock.DELIVERY if request.approved_at is not None:
            return Span(Limit.DELIVERY, request.approved_at)
        case Clock.SUPPLEMENT if request.noticed_at is not None:
            return Span(Limit.SUPPLEMENT, request.noticed_at)
        case _:
            return None


def due_at_of(request: ShareRequest, clock: Clock, due: DueDates) -> datetime | None:
    """Return when a clock of a request runs out; None where it has not begun."""
    span = limit_of(request, clock)
    if span is None:
        return None
    return due.due_at(span.limit, span.start, extension=span.extension, pauses=span.pauses)


_Check = Callable[[ShareRequest, Act, Terms, RequestRule], PoolError | None]


def _invalid(message: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, message)


def _not_now(message: str) -> ConflictError:
    return ConflictError(Reason.TRANSITION_NOT_ALLOWED, message)


def _shared(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    if request.share_type is not ShareType.NONE:
        return None
    return RefusedError(
        Reason.NOT_SHARED,
        f"got {act.event} for a resource that the catalogue says is not shared (不予共享); its entry names the law "
        "that forbids it (decree 809, Art. 15)",
    )


def _complete(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del act, rule
    # A department without a duty list names no duty: nobody has written down yet which ones it has.
    bound = request.duty.strip() or not terms.duties.covers(request.consumer, "", request.purpose)
    missing = [name for name in missing_elements(request) if name != "duty" or bound]
    if missing:
        return InvalidError(
            Reason.REQUEST_INVALID,
            f"the request lacks {', '.join(missing)}; decree 809, Art. 20, requires all of them",
            details={"missing": ",".join(missing)},
        )
    return None


def _in_duty(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del act, rule
    if terms.duties.covers(request.consumer, request.duty, request.purpose):
        return None
    return RefusedError(
        Reason.OUTSIDE_DUTY,
        f"got the duty {request.duty[:64]!r} for the purpose {request.purpose[:64]!r}; expected an item of your "
        "department's duty list to which the purpose belongs",
    )


def _one_list(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    if request.noticed_at is not None:
        return ConflictError(
            Reason.SUPPLEMENT_REPEATED,
            "the consumer has been told once what is missing, and decree 809, Art. 21, allows one complete list; "
            "decide on the request as it is",
        )
    if not act.missing or any(not item.strip() for item in act.missing):
        return _invalid("got no list of what is missing; expected one complete list, each item in words (Art. 21)")
    return None


def _extendable(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del rule
    due, most = due_at_of(request, Clock.REPLY, terms.due), terms.due.most_extension
    if request.share_type is ShareType.UNCONDITIONAL:
        return _not_now("the resource is shared without conditions, and its reply is not extended (Art. 21)")
    if request.extension:
        return _not_now("the reply was extended once already, which is all that Art. 21 allows; it must be given")
    if due is not None and act.at >= due:
        return _not_now("the time of the reply has run out; what is over is not extended")
    if not 1 <= act.days <= most:
        return _invalid(f"got an extension of {act.days} working days; expected 1 to {most} (Art. 21)")
    return None


def _use_ahead(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    if request.use_until is None or act.at >= request.use_until:
        return _not_now("the use that is asked for is over; a new request must ask for a later end")
    return None


def _use_over(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    if request.use_until is None or act.at < request.use_until:
        return _not_now("the time of use is not over")
    return None


def _countersignature_due(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del act, terms, rule
    given = {signature.office for signature in request.signatures}
    if Office.SECURITY_OFFICER not in required_offices(request) - given:
        return _not_now("no countersignature of a security officer is due")
    return None


def _all_signed(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del act, terms, rule
    missing = required_offices(request) - {signature.office for signature in request.signatures}
    if missing:
        return RefusedError(
            Reason.CONFIRMATION_MISSING, f"the signature of {', '.join(sorted(missing))} is missing; it must sign first"
        )
    return None


def _own_signature(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    if act.by.id not in {signature.account for signature in request.signatures}:
        return _not_now("you have not signed this request; a signature is withdrawn by who gave it")
    return None


def _clause_cited(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del request, terms, rule
    try:
        check_clause(reason=act.reason, clause=act.clause)
    except PoolError as error:
        return error
    return None


def _ground_of_type(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    try:
        check_ground(act.ground, unconditional=request.share_type is ShareType.UNCONDITIONAL)
    except PoolError as error:
        return error
    return None


def _negotiated(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del request, terms, rule
    if not act.reference.strip():
        return _invalid("got no record of negotiations; expected its id: both sides negotiate first (Art. 28)")
    return None


def _ladder_left(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del act, terms, rule
    if request.disputes >= MOST_DISPUTES:
        return _not_now("the authority and the government above it have decided; there is no higher one (Art. 28)")
    return None


def _clock_over(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    assert rule.clock is not None  # noqa: S101 - a row of the table
    due = due_at_of(request, rule.clock, terms.due)
    if due is None or act.at < due:
        return _not_now(f"the clock of the {rule.clock} has not run out")
    if rule.clock.value in request.overdue:
        return _not_now(f"that the clock of the {rule.clock} has run out is recorded already")
    return None


def _reply_overdue(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del rule
    due = due_at_of(request, Clock.REPLY, terms.due)
    if due is None or act.at < due:
        return _not_now("the provider has still time to reply; a request that waits is disputed when that is over")
    return None


def _reason_given(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del request, terms, rule
    return None if act.reason.strip() else _invalid(f"got {act.event} without a reason; say why, in words")


def _misuse(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del request, terms, rule
    if act.misuse is None:
        return _invalid(f"got a suspension without a ground; expected one of {', '.join(SuspensionGround)} (Art. 27)")
    if act.rectify_until is None or act.rectify_until <= act.at:
        return _invalid("got no time until which the grant can be rectified; expected one ahead")
    return None


def _in_time(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del terms, rule
    if request.rectify_until is None or act.at > request.rectify_until:
        return _not_now("the time for rectification is over; the grant can only be terminated (Art. 27)")
    return None


def _certified(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del request, terms, rule
    if not act.reference.strip():
        return _invalid("got no certificate of disposal; expected its id: what was received is disposed of (Art. 27)")
    return None


def _filed(request: ShareRequest, act: Act, terms: Terms, rule: RequestRule) -> PoolError | None:
    del request, terms, rule
    if not act.reference.strip():
        return _invalid(
            "got no id of a filing; a provider changes or ends a service after negotiation and filing alone"
        )
    return None


GUARDS: Final[Mapping[Guard, _Check]] = MappingProxyType(
    {
        Guard.SHARED: _shared,
        Guard.COMPLETE: _complete,
        Guard.IN_DUTY: _in_duty,
        Guard.ONE_LIST: _one_list,
        Guard.EXTENDABLE: _extendable,
        Guard.USE_AHEAD: _use_ahead,
        Guard.USE_OVER: _use_over,
        Guard.COUNTERSIGNATURE_DUE: _countersignature_due,
        Guard.ALL_SIGNED: _all_signed,
        Guard.OWN_SIGNATURE: _own_signature,
        Guard.CLAUSE_CITED: _clause_cited,
        Guard.GROUND_OF_TYPE: _ground_of_type,
        Guard.NEGOTIATED: _negotiated,
        Guard.LADDER_LEFT: _ladder_left,
        Guard.CLOCK_OVER: _clock_over,
        Guard.REPLY_OVERDUE: _reply_overdue,
        Guard.REASON_GIVEN: _reason_given,
        Guard.MISUSE: _misuse,
        Guard.IN_TIME: _in_time,
        Guard.CERTIFIED: _certified,
        Guard.FILED: _filed,
    }
)
"""Every guard, by its name in the table."""

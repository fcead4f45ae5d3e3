"""State machine of correction tickets: applies one event of the table to one value of a ticket. Pure.

    ticket = advance(opened, Act(event=Event.ACCEPT, by=head, at=now), due_at)

Every refusal leaves the ticket as it was. The rules of who and when are `exchange.corrections.rules`. An answer after
the clock has run out is an answer; that it came late is recorded with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from exchange.corrections.model import CorrectionTicket, Event, RecordPlace, erased
from exchange.corrections.rules import CorrectionRule, Guard, Party, rules_from
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError

__all__ = ["MOST_REASON", "Act", "advance", "is_late"]

MOST_REASON: Final = 2_000
"""Characters of a reason."""

_ANSWERS = frozenset({Event.CORRECT, Event.CONFIRM, Event.CANNOT_VERIFY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What somebody wants to do with a ticket.

    Attributes:
        event: see Event.
        by: who.
        at: aware.
        reason: why, in words.
        source: internal id of the department that the ticket is transferred to.
        correction: place of the correct record, which the caller has found in the pool.
        correction_entry: id of the entry of its publication.
        told: grants whose consumers are told.
    """

    event: Event
    by: Actor
    at: datetime
    reason: str = ""
    source: str = ""
    correction: RecordPlace | None = None
    correction_entry: str = ""
    told: int = 0


def is_late(at: datetime, due_at: datetime) -> bool:
    """Return whether an answer at this time comes after its clock has run out."""
    return at >= due_at


def advance(ticket: CorrectionTicket, act: Act, due_at: datetime) -> CorrectionTicket:
    """Return the ticket after an event.

    Args:
        ticket: as it is.
        act: what happens.
        due_at: the end of the ticket's clock; aware.

    Raises:
        ConflictError: TRANSITION_NOT_ALLOWED; CORRECTION_MISSING, no correct record is in the pool.
        RefusedError: OTHER_DEPARTMENT, ROLE_MISSING, ROLE_FORBIDDEN (a program).
        InvalidError: REQUEST_INVALID, what the event requires is missing.
    """
    if act.at.utcoffset() is None or act.at < ticket.received_at:
        raise InvalidError(Reason.REQUEST_INVALID, "got a time without an offset, or before the ticket's receipt")
    rule = _rule_of(ticket, act)
    if rule.party is not Party.SYSTEM and act.by.kind is not ActorKind.HUMAN:
        raise RefusedError(Reason.ROLE_FORBIDDEN, f"{act.event} is an act of a person; a program may not")
    for guard in rule.guards:
        error = _GUARDS[guard](ticket, act, due_at)
        if error is not None:
            raise error
    return _carried_out(ticket, rule, act, due_at)


def _rule_of(ticket: CorrectionTicket, act: Act) -> CorrectionRule:
    possible = rules_from(ticket.state)
    rules = [rule for rule in possible if rule.event is act.event]
    if not rules:
        names = ", ".join(sorted({rule.event for rule in possible})) or "nothing"
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"got {act.event} for a ticket that is {ticket.state}; possible now: {names}",
        )
    refusal = _refuse_party(ticket, rules[0], act.by)
    if refusal is not None:
        raise refusal
    return rules[0]


def _refuse_party(ticket: CorrectionTicket, rule: CorrectionRule, by: Actor) -> RefusedError | None:
    if not by.department:
        if by.role not in rule.pool_roles:
            return RefusedError(Reason.ROLE_MISSING, f"{by.role} may not {rule.event}; ask the source department")
        if by.role is Role.OPERATOR and by.kind is not ActorKind.MACHINE:
            return RefusedError(Reason.ROLE_MISSING, "only the pool's own timer does this")
        return None
    own = {Party.RAISER: ticket.raiser, Party.SOURCE: ticket.source, Party.ROUTER: ticket.source}.get(rule.party)
    if own != by.department:
        who = "department that raised it" if rule.party is Party.RAISER else "source department or the data authority"
        return RefusedError(Reason.OTHER_DEPARTMENT, f"{rule.event} is an act of the {who}")
    if by.role not in rule.roles:
        return RefusedError(
            Reason.ROLE_MISSING, f"{by.role} may not {rule.event}; expected one of {', '.join(sorted(rule.roles))}"
        )
    return None


def _reason_given(ticket: CorrectionTicket, act: Act, due_at: datetime) -> PoolError | None:
    del ticket, due_at
    if act.reason.strip() and len(act.reason) <= MOST_REASON:
        return None
    return InvalidError(
        Reason.REQUEST_INVALID,
        f"got {act.event} without a reason, or with one of more than {MOST_REASON} characters; say why, in words",
    )


def _other_source(ticket: CorrectionTicket, act: Act, due_at: datetime) -> PoolError | None:
    del due_at
    if act.source and act.source != ticket.source:
        return None
    return InvalidError(Reason.REQUEST_INVALID, "got no other department than the ticket is with; name the source")


def _record_found(ticket: CorrectionTicket, act: Act, due_at: datetime) -> PoolError | None:
    del due_at
    place = act.correction
    if place is not None and place.partition == ticket.place.partition and place > ticket.place:
        return None
    return ConflictError(
        Reason.CORRECTION_MISSING,
        "got no record of operation `correct` of this record behind the doubted one in which the field has another "
        "value; publish it first",
    )


def _clock_over(ticket: CorrectionTicket, act: Act, due_at: datetime) -> PoolError | None:
    if ticket.overdue_at is not None:
        return ConflictError(Reason.TRANSITION_NOT_ALLOWED, "that the clock has run out is recorded already")
    if not is_late(act.at, due_at):
        return ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the clock has not run out")
    return None


_GUARDS: Mapping[Guard, Callable[[CorrectionTicket, Act, datetime], PoolError | None]] = MappingProxyType(
    {
        Guard.REASON_GIVEN: _reason_given,
        Guard.OTHER_SOURCE: _other_source,
        Guard.RECORD_FOUND: _record_found,
        Guard.CLOCK_OVER: _clock_over,
    }
)


def _carried_out(ticket: CorrectionTicket, rule: CorrectionRule, act: Act, due_at: datetime) -> CorrectionTicket:
    after = replace(ticket, state=rule.target)
    if act.event in _ANSWERS:
        late = act.at if ticket.overdue_at is None and is_late(act.at, due_at) else ticket.overdue_at
        after = replace(after, reported_by=act.by.id, reported_at=act.at, reason=act.reason.strip(), overdue_at=late)
    if act.event is Event.ERASE:
        return erased(ticket)
    written = _CHANGES.get(act.event)
    return after if written is None else replace(after, **written(ticket, act))


_CHANGES: Mapping[Event, Callable[[CorrectionTicket, Act], dict[str, Any]]] = MappingProxyType(
    {
        Event.TRANSFER: lambda ticket, act: {"source": act.source, "transfers": ticket.transfers + 1},
        Event.WITHDRAW: lambda _, act: {"reason": act.reason.strip()},
        Event.CORRECT: lambda _, act: {"correction": act.correction, "correction_entry": act.correction_entry},
        Event.NOTIFY: lambda _, act: {"told": act.told},
        Event.OVERDUE: lambda _, act: {"overdue_at": act.at},
    }
)
"""What an event writes beside the state, and beside what an answer writes."""

"""The life of a share request and the grant that it becomes (共享申请 / 授权). Pure: no store, no clock.

    draft ─submit→ submitted ─approve→ approved ─provision→ active ─expire→ expired
                       └─reject→ rejected      suspended ⇄ active    suspended ─terminate→ terminated

LIFE is the whole table, with supplements, disputes and renewal; OFFERED names the events that this version of the
pool carries out, and the rest is refused until it does. Every event makes a new version of the grant: the earlier
ones stay as they were. Nothing happens by silence: a request that nobody answers stays a request (a late reply is
a matter for supervision, State Council decree 809, Art. 39, and never an approval).

How a grant is written down and hashed stands in `exchange.access.grants.grant_json`.

    grant = submit(draft, by=head, at=now, terms=Terms(purposes, level, check_view))
    grant = approve(grant, by=owner, at=now)
    grant = provision(grant, by=owner, at=now, view_schema_id=17)
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from schemas.access import Actor, ActorKind, CaseRule, Grant, GrantState, Level, MaskRule, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = [
    "LIFE",
    "OFFERED",
    "TERMINAL",
    "Event",
    "Party",
    "Step",
    "Terms",
    "advance",
    "approve",
    "provision",
    "submit",
]


class Event(StrEnum):
    """What can happen to a request or a grant."""

    SUBMIT = "submit"
    NEED_MORE = "need_more"
    RESUBMIT = "resubmit"
    LAPSE = "lapse"
    WITHDRAW = "withdraw"
    EXTEND = "extend"
    APPROVE = "approve"
    REJECT = "reject"
    DISPUTE = "dispute"
    UPHOLD = "uphold"
    OVERTURN = "overturn"
    PROVISION = "provision"
    SUSPEND = "suspend"
    RECTIFIED = "rectified"
    TERMINATE = "terminate"
    EXPIRE = "expire"
    COMPLETE = "complete"
    CHANGE_SERVICE = "change_service"
    TERMINATE_BY_AGREEMENT = "terminate_by_agreement"
    RENEW = "renew"


class Party(StrEnum):
    """Who may let an event happen."""

    CONSUMER = "consumer"
    PROVIDER = "provider"
    AUTHORITY = "authority"  # the data authority, or the government above it
    OVERSEER = "overseer"  # the data authority or the provider
    SYSTEM = "system"  # the pool's own timer


@dataclass(frozen=True, slots=True)
class Step:
    """Where an event leads, and who may let it happen."""

    to: GrantState
    party: Party


_S, _E, _P = GrantState, Event, Party

LIFE: Final[Mapping[tuple[GrantState, Event], Step]] = MappingProxyType(
    {
        (_S.DRAFT, _E.SUBMIT): Step(_S.SUBMITTED, _P.CONSUMER),  # 809, Art. 20
        (_S.SUBMITTED, _E.NEED_MORE): Step(_S.SUPPLEMENT, _P.PROVIDER),  # Art. 21
        (_S.SUPPLEMENT, _E.RESUBMIT): Step(_S.SUBMITTED, _P.CONSUMER),
        (_S.SUPPLEMENT, _E.LAPSE): Step(_S.WITHDRAWN, _P.SYSTEM),
        (_S.SUBMITTED, _E.WITHDRAW): Step(_S.WITHDRAWN, _P.CONSUMER),
        (_S.SUBMITTED, _E.EXTEND): Step(_S.SUBMITTED, _P.AUTHORITY),  # Art. 21
        (_S.SUBMITTED, _E.APPROVE): Step(_S.APPROVED, _P.PROVIDER),
        (_S.SUBMITTED, _E.REJECT): Step(_S.REJECTED, _P.PROVIDER),  # Art. 21
        (_S.REJECTED, _E.DISPUTE): Step(_S.IN_DISPUTE, _P.CONSUMER),  # Art. 28
        (_S.IN_DISPUTE, _E.UPHOLD): Step(_S.REJECTED, _P.AUTHORITY),
        (_S.IN_DISPUTE, _E.OVERTURN): Step(_S.APPROVED, _P.AUTHORITY),
        (_S.APPROVED, _E.PROVISION): Step(_S.ACTIVE, _P.PROVIDER),  # Art. 22
        (_S.ACTIVE, _E.SUSPEND): Step(_S.SUSPENDED, _P.OVERSEER),  # Art. 27
        (_S.SUSPENDED, _E.RECTIFIED): Step(_S.ACTIVE, _P.OVERSEER),
        (_S.SUSPENDED, _E.TERMINATE): Step(_S.TERMINATED, _P.OVERSEER),  # Art. 27
        (_S.ACTIVE, _E.EXPIRE): Step(_S.EXPIRED, _P.SYSTEM),
        (_S.ACTIVE, _E.COMPLETE): Step(_S.COMPLETED, _P.CONSUMER),  # Art. 27
        (_S.ACTIVE, _E.CHANGE_SERVICE): Step(_S.ACTIVE, _P.PROVIDER),
        (_S.ACTIVE, _E.TERMINATE_BY_AGREEMENT): Step(_S.TERMINATED, _P.PROVIDER),
        (_S.ACTIVE, _E.RENEW): Step(_S.SUBMITTED, _P.CONSUMER),
    }
)
"""Every state and event. What is not here cannot happen."""

TERMINAL: Final = frozenset({_S.COMPLETED, _S.EXPIRED, _S.REJECTED, _S.TERMINATED, _S.WITHDRAWN})
"""Where a life may end (a rejected request may still be disputed)."""

OFFERED: Final = frozenset(
    {_E.SUBMIT, _E.APPROVE, _E.PROVISION, _E.REJECT, _E.SUSPEND, _E.RECTIFIED, _E.TERMINATE, _E.EXPIRE}
)
"""Events that this version of the pool carries out."""

_NEEDS_REASON = frozenset({_E.REJECT, _E.SUSPEND, _E.RECTIFIED, _E.TERMINATE})
_OF_A_PERSON = frozenset({_E.SUBMIT, _E.APPROVE, _E.PROVISION, _E.REJECT, _E.RECTIFIED})
_NOT_BY_REQUESTER = frozenset({_E.APPROVE, _E.PROVISION, _E.REJECT, _E.RECTIFIED, _E.OVERTURN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a request is measured by, looked up by the caller.

    Attributes:
        purposes: ids that may be asked for.
        level: highest level that a requested field has now.
        check_view: raises InvalidError (FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID) when the fields, masks or
            the row filter do not suit the resource's schema.
    """

    purposes: Container[str]
    level: Level
    check_view: Callable[[Grant], None]


def submit(draft: Grant, *, by: Actor, at: datetime, terms: Terms) -> Grant:
    """Let a draft become a request, version 1. Every limit of the grant is checked here, once.

    Raises:
        InvalidError: REQUEST_INVALID, or what `terms.check_view` raises.
        RefusedError: GRANT_OTHER_CONSUMER, LEVEL_ABOVE_CEILING.
        ConflictError: TRANSITION_NOT_ALLOWED, when it is no draft.
    """
    _permit(draft, Event.SUBMIT, by=by, at=at)
    for wrong, expected in _faults(draft, by, at, terms):
        if wrong:
            raise InvalidError(Reason.REQUEST_INVALID, f"the request cannot be submitted: expected {expected}")
    if draft.ceiling < terms.level:
        raise RefusedError(
            Reason.LEVEL_ABOVE_CEILING,
            f"a requested field is graded {terms.level.name}, the request's ceiling is {draft.ceiling.name}; "
            "raise the ceiling or leave the field out",
        )
    terms.check_view(draft)
    return replace(draft, version=1, state=GrantState.SUBMITTED, masks=tuple(sorted(draft.masks)))


def approve(grant: Grant, *, by: Actor, at: datetime) -> Grant:
    """Let the provider agree. What was asked for is approved as it stands or not at all.

    Raises:
        RefusedError: NOT_PROVIDER, SAME_PERSON, ROLE_FORBIDDEN (a program).
        ConflictError: TRANSITION_NOT_ALLOWED, also for a request whose time is over.
    """
    _permit(grant, Event.APPROVE, by=by, at=at)
    if at >= grant.expires:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the request asks for use until {grant.expires.isoformat()}, which is past; it must be asked for anew",
        )
    return _next(grant, GrantState.APPROVED, approved_by=by.id, approved_at=at)


def provision(grant: Grant, *, by: Actor, at: datetime, view_schema_id: int) -> Grant:
    """Let an approved grant become active, its view's output schema fixed.

    Raises:
        RefusedError: NOT_PROVIDER, SAME_PERSON, ROLE_FORBIDDEN.
        ConflictError: TRANSITION_NOT_ALLOWED.
    """
    _permit(grant, Event.PROVISION, by=by, at=at)
    return _next(grant, GrantState.ACTIVE, view_schema_id=view_schema_id)


def advance(grant: Grant, event: Event, *, by: Actor, at: datetime, reason: str = "") -> Grant:
    """Carry out REJECT, SUSPEND, RECTIFIED, TERMINATE or EXPIRE. *reason* goes to the audit entry, in words.

    Raises:
        InvalidError: REQUEST_INVALID, without a reason where one is due (809, Art. 21 and 27).
        RefusedError: NOT_PROVIDER, SAME_PERSON, ROLE_FORBIDDEN, ROLE_MISSING.
        ConflictError: TRANSITION_NOT_ALLOWED, also for an event with a call of its own, one that is not offered,
            and an expiry before its time.
    """
    if event in {Event.SUBMIT, Event.APPROVE, Event.PROVISION}:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"{event} has a call of its own")
    step = _permit(grant, event, by=by, at=at)
    if event in _NEEDS_REASON and not reason.strip():
        raise InvalidError(Reason.REQUEST_INVALID, f"got no reason; to {event} a grant, say why")
    if event is Event.EXPIRE and at < grant.expires:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"the grant holds until {grant.expires.isoformat()}")
    return _next(grant, step.to)


def _permit(grant: Grant, event: Event, *, by: Actor, at: datetime) -> Step:
    _aware(at, "the time of the event")
    step = LIFE.get((grant.state, event))
    if step is None or event not in OFFERED:
        possible = ", ".join(sorted(e for (state, e) in LIFE if state is grant.state and e in OFFERED)) or "nothing"
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED, f"got {event} for a grant that is {grant.state}; possible now: {possible}"
        )
    _check_party(grant, step.party, by)
    if event in _OF_A_PERSON and by.kind is not ActorKind.HUMAN:
        raise RefusedError(Reason.ROLE_FORBIDDEN, f"{event} is an act of a person; a program may not")
    if event in _NOT_BY_REQUESTER and by.id == grant.requested_by:
        raise RefusedError(Reason.SAME_PERSON, "who requested a grant does not decide on it; another person must")
    return step


def _check_party(grant: Grant, party: Party, by: Actor) -> None:
    authority = by.role is Role.DATA_AUTHORITY
    provider = bool(by.department) and by.department == grant.provider
    match party:
        case Party.CONSUMER if not by.department or by.department != grant.consumer:
            raise RefusedError(Reason.GRANT_OTHER_CONSUMER, "only the consuming department may do this")
        case Party.PROVIDER if not provider:
            raise RefusedError(Reason.NOT_PROVIDER, "only the providing department may do this")
        case Party.OVERSEER if not (provider or authority):
            raise RefusedError(Reason.NOT_PROVIDER, "only the providing department or the data authority may do this")
        case Party.AUTHORITY if not authority:
            raise RefusedError(Reason.ROLE_MISSING, "only the data authority may do this")
        case Party.SYSTEM if by.role is not Role.OPERATOR:
            raise RefusedError(Reason.ROLE_MISSING, "only the pool's own timer does this")
        case _:
            return


def _next(
    grant: Grant,
    state: GrantState,
    *,
    approved_by: str | None = None,
    approved_at: datetime | None = None,
    view_schema_id: int | None = None,
) -> Grant:
    return replace(
        grant,
        version=grant.version + 1,
        state=state,
        approved_by=approved_by or grant.approved_by,
        approved_at=approved_at or grant.approved_at,
        view_schema_id=grant.view_schema_id if view_schema_id is None else view_schema_id,
    )


def _faults(draft: Grant, by: Actor, at: datetime, terms: Terms) -> list[tuple[bool, str]]:
    """Return (is wrong, what was expected) for each rule of a request, in the order of the grant's fields."""
    _aware(draft.not_before, "the beginning")
    _aware(draft.expires, "the end")
    masked = [field for field, _ in draft.masks]
    dropped = {field for field, rule in draft.masks if rule is MaskRule.DROP}
    standing = draft.case_rule is CaseRule.STANDING
    return [
        (not draft.id or not draft.pool_id, "the id of the grant and of the pool"),
        (not draft.provider or draft.provider == draft.consumer, "a provider, another department than the consumer"),
        (not draft.fields, "at least one field: a grant names what it covers"),
        (len(set(draft.fields)) != len(draft.fields), "each field once"),
        (len(set(masked)) != len(masked), "one mask a field at most"),
        (not set(masked) <= set(draft.fields), "masks for requested fields alone"),
        (any(not isinstance(rule, MaskRule) for _, rule in draft.masks), "masks of the closed list"),
        (dropped >= set(draft.fields), "a field that is not dropped: nothing would be delivered"),
        (draft.purpose not in terms.purposes, "a purpose of the pool's list"),
        (not draft.legal_basis.strip(), "a legal basis: law and article (809, Art. 20)"),
        (standing and not draft.case.strip(), "a standing case number, for the case rule 'standing'"),
        (not standing and bool(draft.case), "no case number, for the case rule 'each_call'"),
        (draft.not_before >= draft.expires, "a beginning before the end"),
        (draft.expires <= at, "an end in the future"),
        (draft.expires > _a_year_after(draft.not_before), "an end at most 12 months after the beginning"),
        (draft.quota_per_day is not None and draft.quota_per_day < 1, "a daily quota of at least 1, or none"),
        (not draft.zone, "a network zone"),
        (not by.id or draft.requested_by != by.id, "the name of the account that submits it as `requested_by`"),
        (
            draft.approved_by is not None or draft.approved_at is not None or draft.view_schema_id is not None,
            "neither approval nor view schema: a request has none",
        ),
    ]


def _a_year_after(moment: datetime) -> datetime:
    try:
        return moment.replace(year=moment.year + 1)
    except ValueError:  # 29 February
        return moment.replace(year=moment.year + 1, month=3, day=1)


def _aware(moment: datetime, what: str) -> None:
    if moment.utcoffset() is None:
        raise InvalidError(Reason.REQUEST_INVALID, f"got {what} without an offset from UTC; times are aware")

"""State machine of grants: a share request, and the grant that it becomes (共享申请 / 授权). Pure: no store, no clock.

Which events there are, where they lead and who may carry them out is written in
`exchange.access.decision.grant_rules`; this module applies it to one version of a grant and adds what an event needs
beside it: the limits of a request, a reason, a time. It checks again what the decision before it has checked, since the
version that is locked may be another than the one that was decided on.

Every event makes a new version of the grant; earlier versions are never changed. Nothing happens by silence: a request
that no one answers stays a request (a late reply is a matter for supervision, State Council decree 809, Art. 39, and
never an approval).

How a grant is serialized and hashed is in `exchange.access.grants.grant_json`.

    terms = RequestTerms(purposes=purposes, level=level, check_view=check_view)
    grant = submit(draft, by=consumer_head, at=now, terms=terms)
    grant = approve(grant, by=provider_head, at=now)
    grant = provision(grant, by=provider_head, at=now, view_schema_id=17)
"""

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from exchange.access.decision.grant_rules import GRANT_RULES, OFFERED, Event, GrantRule, Party
from schemas.access import Actor, ActorKind, CaseRule, Grant, GrantState, Level, MaskRule, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["ADVANCING", "TERMINAL", "RequestTerms", "advance", "approve", "provision", "submit"]

TERMINAL: Final = frozenset(
    {GrantState.COMPLETED, GrantState.EXPIRED, GrantState.REJECTED, GrantState.TERMINATED, GrantState.WITHDRAWN}
)
"""States in which a grant may end (a rejected request may still be disputed)."""

ADVANCING: Final = OFFERED - {Event.SUBMIT, Event.APPROVE, Event.PROVISION}
"""Events that `advance` carries out; each of the others has a function of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTerms:
    """Limits of a request, which the caller looks up.

    Attributes:
        purposes: ids that may be asked for.
        level: highest level that a requested field has now.
        check_view: raises InvalidError (FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID) when the fields, masks or
            the row filter do not suit the resource's schema.
    """

    purposes: Container[str]
    level: Level
    check_view: Callable[[Grant], None]


def submit(draft: Grant, *, by: Actor, at: datetime, terms: RequestTerms) -> Grant:
    """Submit a draft: return the request, version 1. Every limit of the grant is checked here, once.

    Raises:
        InvalidError: REQUEST_INVALID, or what `terms.check_view` raises.
        RefusedError: GRANT_OTHER_CONSUMER, ROLE_MISSING, ROLE_FORBIDDEN (a program), LEVEL_ABOVE_CEILING.
        ConflictError: TRANSITION_NOT_ALLOWED, when it is no draft.
    """
    rule = _permit(draft, Event.SUBMIT, by=by, at=at)
    for wrong, expected in _violations(draft, by, at, terms):
        if wrong:
            raise InvalidError(Reason.REQUEST_INVALID, f"the request cannot be submitted: expected {expected}")
    if draft.ceiling < terms.level:
        raise RefusedError(
            Reason.LEVEL_ABOVE_CEILING,
            f"a requested field is graded {terms.level.name}, the request's ceiling is {draft.ceiling.name}; "
            "raise the ceiling or leave the field out",
        )
    terms.check_view(draft)
    return replace(draft, version=1, state=rule.target, masks=tuple(sorted(draft.masks)))


def approve(grant: Grant, *, by: Actor, at: datetime) -> Grant:
    """Approve a request for its provider. It is approved exactly as it was asked for, or not at all.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, SAME_PERSON, ROLE_FORBIDDEN (a program).
        ConflictError: TRANSITION_NOT_ALLOWED, also for a request whose time is over.
    """
    rule = _permit(grant, Event.APPROVE, by=by, at=at)
    if at >= grant.expires:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the request asks for use until {grant.expires.isoformat()}, which is past; submit a new request",
        )
    return _next(grant, rule, by=by, at=at)


def provision(grant: Grant, *, by: Actor, at: datetime, view_schema_id: int) -> Grant:
    """Activate an approved grant, and fix its view's output schema.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, SAME_PERSON, ROLE_FORBIDDEN (a program).
        ConflictError: TRANSITION_NOT_ALLOWED.
    """
    rule = _permit(grant, Event.PROVISION, by=by, at=at)
    return _next(grant, rule, by=by, at=at, view_schema_id=view_schema_id)


def advance(grant: Grant, event: Event, *, by: Actor, at: datetime, reason: str = "") -> Grant:
    """Carry out one of `ADVANCING`. *reason* goes to the audit entry, in words.

    Raises:
        InvalidError: REQUEST_INVALID, without a reason where one is due (809, Art. 21 and 27).
        RefusedError: NOT_PROVIDER, SAME_PERSON, ROLE_FORBIDDEN, ROLE_MISSING.
        ConflictError: TRANSITION_NOT_ALLOWED, also for an event with a function of its own, one that is not offered,
            and an expiry before its time.
    """
    if event in OFFERED - ADVANCING:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"{event} has a call of its own")
    rule = _permit(grant, event, by=by, at=at)
    if rule.needs_reason and not reason.strip():
        raise InvalidError(Reason.REQUEST_INVALID, f"got no reason; to {event} a grant, say why")
    if event is Event.EXPIRE and at < grant.expires:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"the grant is valid until {grant.expires.isoformat()}")
    return _next(grant, rule, by=by, at=at)


def _permit(grant: Grant, event: Event, *, by: Actor, at: datetime) -> GrantRule:
    """Return the rule of the event, if it may happen to this version now, by this actor."""
    _aware(at, "the time of the event")
    rule = GRANT_RULES.get(event)
    if rule is None or event not in OFFERED or rule.source is not grant.state:
        possible = sorted(e for e, other in GRANT_RULES.items() if other.source is grant.state and e in OFFERED)
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"got {event} for a grant that is {grant.state}; possible now: {', '.join(possible) or 'nothing'}",
        )
    _check_party(grant, rule, by)
    if rule.person and by.kind is not ActorKind.HUMAN:
        raise RefusedError(Reason.ROLE_FORBIDDEN, f"{event} is an act of a person; a program may not")
    if rule.not_by_requester and by.id == grant.requested_by:
        raise RefusedError(Reason.SAME_PERSON, "who requested a grant does not decide on it; another person must")
    return rule


def _check_party(grant: Grant, rule: GrantRule, by: Actor) -> None:
    authority = by.role is Role.DATA_AUTHORITY
    provider = bool(by.department) and by.department == grant.provider
    match rule.party:
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
        case _ if by.role not in rule.roles:
            expected = " or ".join(sorted(rule.roles))
            raise RefusedError(Reason.ROLE_MISSING, f"got {rule.event} by the role {by.role}; expected {expected}")


def _next(grant: Grant, rule: GrantRule, *, by: Actor, at: datetime, view_schema_id: int | None = None) -> Grant:
    return replace(
        grant,
        version=grant.version + 1,
        state=rule.target,
        approved_by=by.id if rule.second_signature else grant.approved_by,
        approved_at=at if rule.second_signature else grant.approved_at,
        view_schema_id=grant.view_schema_id if view_schema_id is None else view_schema_id,
    )


def _violations(draft: Grant, by: Actor, at: datetime, terms: RequestTerms) -> list[tuple[bool, str]]:
    """Return (is violated, what was expected) for each rule of a request, in the order of the grant's fields."""
    _aware(draft.not_before, "the beginning")
    _aware(draft.expires, "the end")
    masked = [field for field, _ in draft.masks]
    dropped = {field for field, rule in draft.masks if rule is MaskRule.DROP}
    standing_case = draft.case_rule is CaseRule.STANDING
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
        (standing_case and not draft.case.strip(), "a standing case number, for the case rule 'standing'"),
        (not standing_case and bool(draft.case), "no case number, for the case rule 'each_call'"),
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

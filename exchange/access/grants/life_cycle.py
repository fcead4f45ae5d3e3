"""State machine of grants: a share request, and the grant that it becomes (共享申请 / 授权). Pure: no store, no clock.

Which events there are, where they lead and who may carry them out is written in
`exchange.access.decision.grant_rules`; this module applies it to one version of a grant and adds what an event needs
beside it: the limits of a request, a reason, a time. It checks again what the decision before it has checked, since the
version that is locked may be another than the one that was decided on.

Every event makes a new version of the grant; earlier versions are never changed. The law of a request, with its
supplements, signatures and disputes, is `exchange.requests`: a grant follows the state to which its request came.
Nothing happens by silence: a request that no one answers stays a request (a late reply is a matter for supervision,
State Council decree 809, Art. 39, and never an approval).

How a grant is serialized and hashed is in `exchange.access.grants.grant_json`.

    terms = RequestTerms(purposes=purposes, level=level, check_view=check_view)
    grant = submit(draft, by=consumer_head, at=now, terms=terms)
    grant = confirm(grant, by=provider_officer, at=now, holding=holding)       where the holding is sensitive
    grant = approve(grant, by=provider_head, at=now, holding=holding)          … or the other way round, and `conclude`
    grant = provision(grant, by=provider_head, at=now, holding=holding, view_schema_id=17)
"""

import re
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from exchange.access.decision.grant_rules import GRANT_RULES, Event, GrantRule, Party
from exchange.access.grants.exposure import SchemaMasks, exposure_of, with_default_masks
from exchange.access.grants.holding import (
    Holding,
    check_asked,
    check_ceiling,
    check_decided,
    check_resumption,
)
from exchange.access.view.filter import fields_of
from schemas.access import AccessMode, Actor, ActorKind, CaseRule, Grant, GrantState, Level, MaskRule, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = [
    "ADVANCING",
    "MOST_SUBJECTS",
    "TERMINAL",
    "RequestTerms",
    "advance",
    "approve",
    "conclude",
    "confirm",
    "provision",
    "remind",
    "resubmit",
    "submit",
    "supersede",
    "suspend_unmasked",
]

TERMINAL: Final = frozenset(
    {GrantState.COMPLETED, GrantState.EXPIRED, GrantState.REJECTED, GrantState.TERMINATED, GrantState.WITHDRAWN}
)
"""States in which a grant may end (a rejected request may still be disputed)."""

ADVANCING: Final = frozenset(Event) - {
    Event.SUBMIT,
    Event.RESUBMIT,
    Event.CONFIRM,
    Event.COUNTERSIGN,
    Event.APPROVE,
    Event.CONCLUDE,
    Event.PROVISION,
    Event.REMIND,
    Event.SUSPEND_UNMASKED,
    Event.SUPERSEDE,
}
"""Events that `advance` carries out; each of the others has a function of its own."""


MOST_SUBJECTS: Final = 1_000
"""Subjects of one call at most: so many fit one audit entry."""

_PREDICATE: Final = re.compile(r"[a-z][a-z0-9-]{0,62}/[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTerms:
    """Limits of a request, which the caller looks up.

    Attributes:
        purposes: ids that may be asked for.
        level: highest level that a requested field, or one of the filter, has now.
        masks: how the schema masks its fields now.
        check_view: raises InvalidError (FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID) when the fields, masks or
            the row filter do not suit the resource's schema.
    """

    purposes: Container[str]
    level: Level
    masks: SchemaMasks
    check_view: Callable[[Grant], None]


def submit(draft: Grant, *, by: Actor, at: datetime, terms: RequestTerms) -> Grant:
    """Submit a draft: return the request, version 1, with the schema's masks where it writes none.

    Every limit of the grant is checked here, once.

    Raises:
        InvalidError: REQUEST_INVALID; MASK_WEAKER, a mask that shows more than the schema's without a reason;
            FILTER_DISCLOSES, a filter on a masked field that is not named as a disclosure, with a reason; or what
            `terms.check_view` raises.
        RefusedError: GRANT_OTHER_CONSUMER, ROLE_MISSING, ROLE_FORBIDDEN (a program), LEVEL_ABOVE_CEILING.
        ConflictError: TRANSITION_NOT_ALLOWED, when it is no draft.
    """
    rule = _permit(draft, Event.SUBMIT, by=by, at=at)
    return replace(_checked(draft, by, at, terms), version=1, state=rule.target)


def resubmit(grant: Grant, supplemented: Grant, *, by: Actor, at: datetime, terms: RequestTerms) -> Grant:
    """Submit a request again, as *supplemented*: a draft with what its list of what is missing asks for.

    Who requested it, and when, stays; its signers signed another request, so that their signatures are gone.

    Raises:
        InvalidError, RefusedError: as `submit`.
        ConflictError: TRANSITION_NOT_ALLOWED, nothing was asked for.
    """
    rule = _permit(grant, Event.RESUBMIT, by=by, at=at)
    checked = _checked(replace(supplemented, requested_by=by.id), by, at, terms)
    return replace(checked, requested_by=grant.requested_by, version=grant.version + 1, state=rule.target)


def _checked(draft: Grant, by: Actor, at: datetime, terms: RequestTerms) -> Grant:
    """Return what a draft asks for, with the schema's masks where it writes none; check every limit of it."""
    expected = [one for wrong, one in _violations(draft, by, at, terms) if wrong]
    if expected:  # all of them at once: the law gives one list of what is missing (Art. 21)
        raise InvalidError(Reason.REQUEST_INVALID, f"the request cannot be submitted: expected {'; '.join(expected)}")
    if draft.ceiling < terms.level:
        raise RefusedError(
            Reason.LEVEL_ABOVE_CEILING,
            f"a requested field, or one of the filter, is graded {terms.level.name}, the request's ceiling is "
            f"{draft.ceiling.name}; raise the ceiling or leave the field out",
        )
    masked = with_default_masks(draft, terms.masks)
    if {field for field, mask in masked.masks if mask is MaskRule.DROP} >= set(masked.fields):
        raise InvalidError(
            Reason.REQUEST_INVALID,
            "the schema drops every requested field where the request writes no mask, and nothing would be delivered; "
            "expected a field that is not dropped",
        )
    request = _written_out(masked, terms.masks)
    terms.check_view(request)
    return replace(request, masks=tuple(sorted(request.masks)))


def _written_out(draft: Grant, masks: SchemaMasks) -> Grant:
    """Return the request with what it shows beyond the schema's masks; check that it has written that out."""
    found = exposure_of(draft, masks)
    if found.unmasked and not draft.unmasked_reason.strip():
        raise InvalidError(
            Reason.MASK_WEAKER,
            f"got a mask of {', '.join(found.unmasked)} that shows more than the schema's and no `unmasked_reason`; "
            "write out why, or leave the mask to the schema",
            details={"fields": ",".join(found.unmasked)},
        )
    if draft.unmasked_reason and not found.unmasked:
        raise InvalidError(
            Reason.REQUEST_INVALID, "got an unmasked_reason and no mask that shows more than the schema's"
        )
    named, strays = set(draft.filter_discloses), set(draft.filter_discloses) - fields_of(draft.row_filter)
    if strays or len(named) != len(draft.filter_discloses):
        raise InvalidError(
            Reason.REQUEST_INVALID,
            "the request cannot be submitted: expected in filter_discloses fields of the row filter, each once",
        )
    unnamed = [field for field in found.disclosed if field not in named]
    if unnamed or (named and not draft.disclosure_reason.strip()):
        raise InvalidError(
            Reason.FILTER_DISCLOSES,
            f"got a row filter on {', '.join(unnamed or sorted(named))}, which the view masks or the schema does not "
            "show: each delivered row would tell it; name it in `filter_discloses` with a `disclosure_reason`, or "
            "filter by another field",
            details={"fields": ",".join(unnamed or sorted(named))},
        )
    if draft.disclosure_reason and not named and not draft.places and len(draft.predicates) < 2:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            "got a disclosure_reason and nothing to disclose: no filter_discloses, no places, no two predicates",
        )
    return replace(draft, unmasked=found.unmasked, filter_discloses=tuple(sorted(named)))


def confirm(grant: Grant, *, by: Actor, at: datetime, holding: Holding) -> Grant:
    """Sign a request for its provider, as its security officer, before the head or after; the head is another person.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, SAME_PERSON, ROLE_FORBIDDEN (a program), LEVEL_ABOVE_CEILING.
        ConflictError: TRANSITION_NOT_ALLOWED.
    """
    after = grant.state is GrantState.COUNTERSIGNED
    rule = _permit(grant, Event.COUNTERSIGN if after else Event.CONFIRM, by=by, at=at)
    if by.id == grant.approved_by:
        raise RefusedError(Reason.SAME_PERSON, "who approved a request does not countersign it; another person must")
    check_ceiling(holding)
    return replace(_next(grant, rule, by=by, at=at), confirmed_by=by.id, together_with=holding.together_with)


def approve(grant: Grant, *, by: Actor, at: datetime, holding: Holding, concludes: bool = True) -> Grant:
    """Sign a request for its provider, as the head. It is approved exactly as it was asked for, or not at all.

    Args:
        grant: as it is.
        by: who.
        at: when.
        holding: all that its consumer would hold.
        concludes: every other signature is there, so that it is approved; else it waits for the security officer's.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, SAME_PERSON, ROLE_FORBIDDEN (a program), or as `check_decided`.
        ConflictError: TRANSITION_NOT_ALLOWED, also for a request whose time is over.
    """
    rule = _permit(grant, Event.APPROVE, by=by, at=at)
    if by.id == grant.confirmed_by:
        raise RefusedError(Reason.SAME_PERSON, "who confirmed a request does not approve it; another person must")
    _check_ahead(grant, at)
    if concludes:
        check_decided(holding)
    else:
        check_asked(holding)
    signed = _next(grant, rule, by=by, at=at, state=rule.target if concludes else GrantState.COUNTERSIGNED)
    return replace(signed, together_with=holding.together_with)


def conclude(grant: Grant, *, by: Actor, at: datetime, holding: Holding) -> Grant:
    """Approve a request that everybody has signed whose signature is due; the approval is of this moment.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, SAME_PERSON, ROLE_FORBIDDEN (a program), or as `check_decided`.
        ConflictError: TRANSITION_NOT_ALLOWED, also for a request whose time is over.
    """
    rule = _permit(grant, Event.CONCLUDE, by=by, at=at)
    _check_ahead(grant, at)
    check_decided(holding)
    concluded = _next(grant, rule, by=by, at=at)
    return replace(concluded, approved_at=at, together_with=holding.together_with)


def provision(grant: Grant, *, by: Actor, at: datetime, holding: Holding, view_schema_id: int) -> Grant:
    """Activate an approved grant, and fix its view's output schema.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, SAME_PERSON, ROLE_FORBIDDEN (a program), or as `check_decided`.
        ConflictError: TRANSITION_NOT_ALLOWED.
    """
    rule = _permit(grant, Event.PROVISION, by=by, at=at)
    check_decided(holding)
    activated = _next(grant, rule, by=by, at=at, view_schema_id=view_schema_id)
    return replace(activated, together_with=holding.together_with)


def remind(grant: Grant, *, by: Actor, at: datetime, suspend_after: datetime) -> Grant:
    """Set the time after which a grant with an undecided exposure is suspended, and so tell both parties.

    Raises:
        RefusedError: ROLE_MISSING.
        ConflictError: TRANSITION_NOT_ALLOWED, also where the time is set already.
    """
    rule = _permit(grant, Event.REMIND, by=by, at=at)
    if grant.suspend_after is not None:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the time after which the grant is suspended is set already")
    return replace(_next(grant, rule, by=by, at=at), suspend_after=suspend_after)


def suspend_unmasked(grant: Grant, *, by: Actor, at: datetime) -> Grant:
    """Suspend a grant with an undecided exposure, when its time is over.

    Raises:
        RefusedError: ROLE_MISSING.
        ConflictError: TRANSITION_NOT_ALLOWED, also before its time.
    """
    rule = _permit(grant, Event.SUSPEND_UNMASKED, by=by, at=at)
    if grant.suspend_after is None or at < grant.suspend_after:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "the time to write the masks out is not over")
    return _next(grant, rule, by=by, at=at)


def supersede(grant: Grant, *, by: Actor, at: datetime) -> Grant:
    """Complete a grant whose renewal is activated.

    Raises:
        RefusedError: NOT_PROVIDER, ROLE_MISSING, ROLE_FORBIDDEN (a program).
        ConflictError: TRANSITION_NOT_ALLOWED.
    """
    return _next(grant, _permit(grant, Event.SUPERSEDE, by=by, at=at), by=by, at=at)


def advance(
    grant: Grant,
    event: Event,
    *,
    by: Actor,
    at: datetime,
    reason: str = "",
    holding: Holding | None = None,
    state: GrantState | None = None,
) -> Grant:
    """Carry out one of `ADVANCING`. *reason* goes to the audit entry, in words.

    A suspended grant is resumed only with its *holding*, as `check_resumption` says. *state* is the one to which the
    request of the grant came; None = that of the rule.

    Raises:
        InvalidError: REQUEST_INVALID, without a reason where one is due (809, Art. 21 and 27).
        RefusedError: NOT_PROVIDER, SAME_PERSON, ROLE_FORBIDDEN, ROLE_MISSING.
        ConflictError: TRANSITION_NOT_ALLOWED, also for an event with a function of its own, and an expiry before its
            time.
    """
    if event not in ADVANCING:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"{event} has a call of its own")
    rule = _permit(grant, event, by=by, at=at)
    if rule.needs_reason and not reason.strip():
        raise InvalidError(Reason.REQUEST_INVALID, f"got no reason; to {event} a grant, say why")
    if event is Event.EXPIRE and at < grant.expires:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, f"the grant is valid until {grant.expires.isoformat()}")
    if event is Event.RECTIFIED:
        if holding is None:
            raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "a grant is resumed together with the others alone")
        check_resumption(holding)
    return _next(grant, rule, by=by, at=at, state=state)


def _permit(grant: Grant, event: Event, *, by: Actor, at: datetime) -> GrantRule:
    """Return the rule of the event, if it may happen to this version now, by this actor."""
    _aware(at, "the time of the event")
    rule = GRANT_RULES.get(event)
    if rule is None or grant.state not in rule.sources:
        possible = sorted(e for e, other in GRANT_RULES.items() if grant.state in other.sources)
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


def _check_ahead(grant: Grant, at: datetime) -> None:
    if at >= grant.expires:
        raise ConflictError(
            Reason.TRANSITION_NOT_ALLOWED,
            f"the request asks for use until {grant.expires.isoformat()}, which is past; submit a new request",
        )


def _next(
    grant: Grant,
    rule: GrantRule,
    *,
    by: Actor,
    at: datetime,
    view_schema_id: int | None = None,
    state: GrantState | None = None,
) -> Grant:
    return replace(
        grant,
        version=grant.version + 1,
        state=rule.target if state is None else state,
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
        (draft.source_zone == draft.zone, "another zone as `source_zone` than the department's own"),
        (bool(draft.source_zone) != bool(draft.zone_reason.strip()), "`source_zone` and `zone_reason` both or none"),
        (not by.id or draft.requested_by != by.id, "the name of the account that submits it as `requested_by`"),
        (
            draft.approved_by is not None or draft.approved_at is not None or draft.view_schema_id is not None,
            "neither approval nor view schema: a request has none",
        ),
        *_access_violations(draft),
        (
            draft.confirmed_by is not None or bool(draft.together_with) or draft.suspend_after is not None,
            "no confirmation: a request has none",
        ),
    ]


def _access_violations(draft: Grant) -> list[tuple[bool, str]]:
    """Return the rules of the access mode and of what depends on it."""
    mode, named = draft.access_mode, draft.predicates
    asks = mode in {AccessMode.LOOKUP, AccessMode.VERIFY}
    states = mode in {AccessMode.VERIFY, AccessMode.LIST}
    return [
        (not isinstance(mode, AccessMode), f"an access mode of {', '.join(AccessMode)}"),
        (states and not named, f"predicates, for the access mode {mode}"),
        (not states and bool(named), "predicates for the access modes verify and list alone"),
        (len(set(named)) != len(named), "each predicate once"),
        (not all(map(_PREDICATE.fullmatch, named)), "predicates as `id/version`, such as alive-80/1"),
        (asks and not 1 <= draft.batch_max <= MOST_SUBJECTS, f"1 to {MOST_SUBJECTS:,} subjects of a call as batch_max"),
        (not asks and draft.batch_max != 0, "batch_max for the access modes lookup and verify alone"),
        (draft.provenance and mode is not AccessMode.LOOKUP, "provenance for the access mode lookup alone"),
        (draft.as_of and not asks, "as_of for the access modes lookup and verify alone"),
        (draft.places and mode is not AccessMode.STREAM, "places for the access mode stream alone"),
        (
            draft.places and not draft.disclosure_reason.strip(),
            "a disclosure_reason with places: they tell how many records lie between two that are delivered",
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

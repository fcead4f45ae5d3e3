"""The decision on records: may this actor publish, fetch or commit, now? Pure, default deny.

The first rule that fails is the reason, and an entry of the audit log names it, so the order is part of the
contract:

    every act        identity, standing, role
    publish, resume  resource known, published, provided by the actor's department; zone
    under a grant    grant known, proven, the actor's own; zone
    fetch, commit    resource known, published, the grant's own; state; window; purpose; case
    fetch            level within the ceiling, quota left

Describing a grant (GRANT_READ by a connector) shows no record, so a consumer may ask why a suspended grant gives
nothing. A commit releases nothing, so it meets neither ceiling nor quota. An attribute that is missing denies.

Which fields and rows a grant covers is not asked here: the view shows nothing else. Explanations name states,
topics and times; never a record's value, a case number or another department's grant.
"""

from dataclasses import dataclass
from datetime import datetime

from exchange.access.decision.roles import Standing, refuse_role, refuse_standing
from schemas.access import Action, Actor, Allow, CaseRule, Deny, Grant, GrantState, Level, Role
from schemas.errors import Reason
from schemas.names import Topic

__all__ = ["Resource", "decide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What the catalogue says of a topic at this moment.

    Attributes:
        topic: resource and schema major.
        provider: internal id of the department that provides it (数源部门).
        published: the catalogue entry is published; drafts and archived ones are not.
        zone: network zone.
    """

    topic: Topic
    provider: str
    published: bool
    zone: str = "default"


_ALLOW = Allow()

# Looking a member up on its enum class costs 50 ns; a decision would do it a dozen times.
_CONNECTOR, _STANDING_ACTIVE = Role.CONNECTOR, Standing.ACTIVE
_ACTIVE, _SUSPENDED, _EXPIRED = GrantState.ACTIVE, GrantState.SUSPENDED, GrantState.EXPIRED
_FETCH, _DESCRIBE = Action.FETCH, Action.GRANT_READ
_OF_PROVIDERS = (Action.PUBLISH, Action.RESUME)  # tuples: hashing an enum member costs more than comparing three
_OF_CONSUMERS = (Action.FETCH, Action.COMMIT, Action.GRANT_READ)
_CASE_STANDS = CaseRule.STANDING


def decide(
    actor: Actor | None,
    action: Action,
    *,
    standing: Standing | None,
    now: datetime | None = None,
    resource: Resource | None = None,
    grant: Grant | None = None,
    proven: bool | None = None,
    purpose: str = "",
    case: str = "",
    level: Level | None = None,
    released_today: int | None = None,
) -> Allow | Deny:
    """Decide an act on records: PUBLISH, RESUME, FETCH, COMMIT, or GRANT_READ by a connector.

    Args:
        actor: who acts; None = nobody proved to be anyone.
        action: what is asked.
        standing: of the actor's certificate and department; None = unknown.
        now: the time of the decision, aware, by the pool's one clock.
        resource: the topic as the catalogue has it; None = unknown.
        grant: the grant's current version; None = unknown.
        proven: whether the grant's hash is that of the audit log.
        purpose: id of the purpose that the call declares.
        case: number of the business case that the call states.
        level: highest level that a granted field has now; a field may have been graded up since the approval.
        released_today: records released under the grant on this day of Asia/Shanghai.
    """
    refusal: Deny | None
    if actor is None or standing is not _STANDING_ACTIVE:
        refusal = refuse_standing(actor, standing)
    elif actor.role is not _CONNECTOR:
        refusal = refuse_role(actor, action)
    elif action in _OF_PROVIDERS:
        refusal = _provider(actor, resource)
    elif action not in _OF_CONSUMERS:
        refusal = refuse_role(actor, action)
    elif grant is None:
        refusal = Deny(Reason.GRANT_UNKNOWN, "no such grant; ask for the list of your grants")
    else:
        refusal = _holder(actor, grant, proven)
        if refusal is None and action is not _DESCRIBE:
            refusal = _resource(actor, grant, resource)
            if refusal is None:
                refusal = _force(grant, now)
            if refusal is None:
                refusal = _declaration(grant, purpose, case)
            if refusal is None and action is _FETCH:
                refusal = _limits(grant, level, released_today)
    return _ALLOW if refusal is None else refusal


# Each gives the first rule that fails, or None.


def _provider(actor: Actor, resource: Resource | None) -> Deny | None:
    if resource is None:
        return Deny(Reason.RESOURCE_UNKNOWN, "no such resource; the catalogue lists those that there are")
    if not resource.published:
        return Deny(Reason.RESOURCE_NOT_PUBLISHED, f"{resource.topic} is not published in the catalogue")
    if not actor.department or actor.department != resource.provider:
        return Deny(
            Reason.NOT_PROVIDER, f"{resource.topic} is another department's; only its own connectors publish there"
        )
    if actor.zone != resource.zone:
        return _other_zone(actor, resource.zone)
    return None


def _holder(actor: Actor, grant: Grant, proven: bool | None) -> Deny | None:
    if not proven:
        return Deny(Reason.GRANT_FORGED, "the grant is not the one that the audit log proves; an auditor must look")
    if not actor.department or actor.department != grant.consumer:
        return Deny(Reason.GRANT_OTHER_CONSUMER, "the grant belongs to another department; use one of your own")
    if actor.zone != grant.zone:
        return _other_zone(actor, grant.zone)
    return None


def _resource(actor: Actor, grant: Grant, resource: Resource | None) -> Deny | None:
    if resource is None:
        return Deny(Reason.RESOURCE_UNKNOWN, "the grant's resource is not in the catalogue")
    if not resource.published:
        return Deny(Reason.RESOURCE_NOT_PUBLISHED, f"{resource.topic} is not published in the catalogue")
    if resource.topic != grant.topic or resource.provider != grant.provider:
        return Deny(
            Reason.GRANT_OTHER_RESOURCE,
            f"the grant is for {grant.topic} of the department that approved it; ask for a new grant",
        )
    if actor.zone != resource.zone:
        return _other_zone(actor, resource.zone)
    return None


def _force(grant: Grant, now: datetime | None) -> Deny | None:
    state = grant.state
    if state is _SUSPENDED:
        return Deny(Reason.GRANT_SUSPENDED, "the grant is suspended; ask the providing department what to mend")
    if state is _EXPIRED:
        return _over(grant)
    if state is not _ACTIVE:
        return Deny(Reason.GRANT_NOT_ACTIVE, f"the grant is {state}; records are released only while it is active")
    if now is None or now >= grant.expires:  # the window is [not_before, expires)
        return _over(grant)
    if now < grant.not_before:
        return Deny(
            Reason.GRANT_NOT_YET_VALID, f"the grant holds from {grant.not_before.isoformat()} on; come back then"
        )
    return None


def _declaration(grant: Grant, purpose: str, case: str) -> Deny | None:
    if not purpose:
        return Deny(Reason.PURPOSE_MISSING, "the call declares no purpose; declare the one that was granted")
    if purpose != grant.purpose:
        # Exactly the granted one: even a narrower purpose is another until the owner says otherwise (809, Art. 25).
        return Deny(
            Reason.PURPOSE_MISMATCH, f"the grant is for the purpose {grant.purpose!r}; another one needs its own grant"
        )
    if not case:
        return Deny(Reason.CASE_MISSING, "the call states no case number; state the one for which you act")
    if grant.case_rule is _CASE_STANDS and case != grant.case:
        return Deny(Reason.CASE_MISMATCH, "the call states another case number than the grant's standing one")
    return None


def _limits(grant: Grant, level: Level | None, released_today: int | None) -> Deny | None:
    if level is None or level > grant.ceiling:
        graded = "is not known" if level is None else f"is {level.name}"
        return Deny(
            Reason.LEVEL_ABOVE_CEILING,
            f"the highest level of a granted field {graded}, the grant's ceiling {grant.ceiling.name}; "
            "the owner must approve it anew",
        )
    quota = grant.quota_per_day
    if quota is not None and (released_today is None or released_today >= quota):
        return Deny(
            Reason.QUOTA_EXHAUSTED, f"the day's {quota} records have been released; the next day begins at 00:00 UTC+8"
        )
    return None


def _over(grant: Grant) -> Deny:
    return Deny(Reason.GRANT_EXPIRED, f"the grant held until {grant.expires.isoformat()}; ask for a new one")


def _other_zone(actor: Actor, zone: str) -> Deny:
    return Deny(Reason.ZONE_MISMATCH, f"the actor stands in the zone {actor.zone!r}; this is kept in {zone!r}")

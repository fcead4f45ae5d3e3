"""Authorization of acts on records: may this actor publish, fetch, commit or look up, now? Pure, default deny.

The first rule that fails is the reason, and an entry of the audit log names it, so the order is part of the
contract:

    every act        identity, standing, role
    publish, resume  resource known, published, provided by the actor's department; zone
    under a grant    grant known, proven, the actor's own
    fetch, commit    resource known, published, the grant's own; zones; state; validity; purpose; case
    fetch            no plaintext for a contractor, level within the ceiling
    fetch, commit    the grant's access mode
    fetch            quota left

Look-up, verification, prefill and instant approval in the hub are decided as a fetch is; the access mode tells apart
which of them a grant is for.

Describing a grant (GRANT_READ by a connector) releases no record, so a consumer may ask why it gets nothing under a
suspended grant, or from another zone. A commit releases nothing either, so neither ceiling nor quota applies to it. A
missing attribute denies.

Fields and rows are not decided here: the view of a grant delivers no others. Explanations name states, topics and
times; never a record's value, a case number or another department's grant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from exchange.access.decision.parties import DepartmentProfile, refuse_crossing, refuse_plaintext
from exchange.access.decision.roles import Standing, refuse_role, refuse_standing
from schemas.access import AccessMode, Action, Actor, Allow, CaseRule, Deny, Grant, GrantState, Level, Role
from schemas.errors import Reason
from schemas.names import Topic

__all__ = ["GrantContext", "Resource", "decide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A topic as the catalogue has it at the moment of the decision.

    Attributes:
        topic: resource and schema major.
        provider: internal id of the department that provides it (数源部门).
        published: the catalogue entry is published; drafts and archived ones are not.
        zone: network zone.
        time_step: microseconds to which the times of its records are rounded when they are delivered; 0 = exact.
        share_type: 共享属性, as the catalogue has it: unconditional, conditional or none.
        refusal_basis: law and article by which it is not shared; empty where it is.
        in_catalogue: every department sees its entry: it is published or suspended.
    """

    topic: Topic
    provider: str
    published: bool
    zone: str = "default"
    time_step: int = 0
    share_type: str = "conditional"
    refusal_basis: str = ""
    in_catalogue: bool = True

    @property
    def unconditional(self) -> bool:
        """Whether it is shared without conditions (无条件共享)."""
        return self.share_type == "unconditional"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantContext:
    """A grant at the moment of the decision: the attributes of its use, all of one moment.

    Attributes:
        grant: its current version.
        proven: whether the stored version is the one that the pool wrote (`exchange.access.grants.row_mac`); None =
            unknown.
        resource: its topic; None = the catalogue does not know it.
        level: highest level that a granted field, or a field of the row filter, has now, since a field may have been
            graded up after the approval; None = unknown.
        released_today: records released under it on this day of Asia/Shanghai; None = unknown.
        now: the time of the decision, aware, by the pool's one clock; None = unknown.
        consumer, provider: its parties now; None = unknown.
        plaintext: personal fields that it shows a contractor unmasked, or tells it; none for other consumers; None =
            unknown.
    """

    grant: Grant
    proven: bool | None
    resource: Resource | None
    level: Level | None
    released_today: int | None
    now: datetime | None
    consumer: DepartmentProfile | None = None
    provider: DepartmentProfile | None = None
    plaintext: tuple[str, ...] | None = ()


_ALLOW = Allow()

# Looking a member up on its enum class costs 50 ns; a decision would do it a dozen times.
_CONNECTOR, _STANDING_ACTIVE = Role.CONNECTOR, Standing.ACTIVE
_ACTIVE, _SUSPENDED, _EXPIRED = GrantState.ACTIVE, GrantState.SUSPENDED, GrantState.EXPIRED
_COMMIT, _DESCRIBE = Action.COMMIT, Action.GRANT_READ
_MODES: Final[Mapping[Action, AccessMode]] = MappingProxyType(
    {
        Action.HUB_LOOKUP: AccessMode.LOOKUP,
        Action.HUB_PREFILL: AccessMode.LOOKUP,
        Action.HUB_VERIFY: AccessMode.VERIFY,
        Action.HUB_INSTANT: AccessMode.VERIFY,
    }
)
"""The access mode that an act on subjects needs; no call of a consumer fits the mode LIST."""
_OF_SUBJECTS = (Action.HUB_LOOKUP, Action.HUB_VERIFY, Action.HUB_PREFILL, Action.HUB_INSTANT)
_OF_PROVIDERS = (Action.PUBLISH, Action.RESUME)  # tuples: hashing an enum member costs more than comparing three
_OF_CONSUMERS = (Action.FETCH, Action.COMMIT, Action.GRANT_READ, *_OF_SUBJECTS)
_OF_RECORDS, _STREAM = (Action.FETCH, Action.COMMIT), AccessMode.STREAM
_STANDING_CASE = CaseRule.STANDING


def decide(
    actor: Actor | None,
    action: Action,
    *,
    standing: Standing | None,
    resource: Resource | None = None,
    grant: GrantContext | None = None,
    purpose: str = "",
    case: str = "",
) -> Allow | Deny:
    """Decide an act on records: PUBLISH, RESUME, FETCH, COMMIT, acts on subjects, or GRANT_READ by a connector.

    Args:
        actor: who acts; None = the caller is not authenticated.
        action: what is asked.
        standing: of the actor's certificate and department; None = unknown.
        resource: the topic to publish to or resume on, as the catalogue has it; None = unknown.
        grant: the grant under which records are asked for, with its own topic; None = unknown.
        purpose: id of the purpose that the call declares.
        case: number of the business case that the call states.
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
        refusal = _consumer(actor, grant)
        if refusal is None and action is not _DESCRIBE:
            refusal = _use(actor, action, grant, purpose, case)
    return _ALLOW if refusal is None else refusal


# Each returns the first rule that fails, or None.


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


def _consumer(actor: Actor, context: GrantContext) -> Deny | None:
    grant = context.grant
    if not context.proven:
        return Deny(
            Reason.GRANT_FORGED, "the stored grant is not the one that the pool wrote; an auditor must look at it"
        )
    if not actor.department or actor.department != grant.consumer:
        return Deny(Reason.GRANT_OTHER_CONSUMER, "the grant belongs to another department; use one of your own")
    return None


def _use(actor: Actor, action: Action, context: GrantContext, purpose: str, case: str) -> Deny | None:
    grant = context.grant
    refusal = _resource(actor, context)
    if refusal is None:
        refusal = _validity(context)
    if refusal is None:
        refusal = _declaration(grant, purpose, case)
    releases = action is not _COMMIT
    if refusal is None and releases:
        refusal = _limits(context)
    needed = _STREAM if action in _OF_RECORDS else _MODES[action]
    if refusal is None and grant.access_mode is not needed:
        refusal = _other_mode(grant, needed)
    return _quota(context) if refusal is None and releases else refusal


def _resource(actor: Actor, context: GrantContext) -> Deny | None:
    grant, resource = context.grant, context.resource
    if resource is None:
        return Deny(Reason.RESOURCE_UNKNOWN, "the grant's resource is not in the catalogue")
    if not resource.published:
        return Deny(Reason.RESOURCE_NOT_PUBLISHED, f"{resource.topic} is not published in the catalogue")
    if resource.topic != grant.topic or resource.provider != grant.provider:
        return Deny(
            Reason.GRANT_OTHER_RESOURCE,
            f"the grant is for {grant.topic} of the department that approved it; ask for a new grant",
        )
    return refuse_crossing(grant, consumer_zone=actor.zone, resource_zone=resource.zone)


def _validity(context: GrantContext) -> Deny | None:
    grant, now = context.grant, context.now
    state = grant.state
    if state is _SUSPENDED:
        return Deny(Reason.GRANT_SUSPENDED, "the grant is suspended; ask the providing department what to mend")
    if state is _EXPIRED:
        return _expired(grant)
    if state is not _ACTIVE:
        return Deny(Reason.GRANT_NOT_ACTIVE, f"the grant is {state}; records are released only while it is active")
    if now is None or now >= grant.expires:  # validity is [not_before, expires)
        return _expired(grant)
    if now < grant.not_before:
        return Deny(
            Reason.GRANT_NOT_YET_VALID, f"the grant is valid from {grant.not_before.isoformat()} on; ask again then"
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
    if grant.case_rule is _STANDING_CASE and case != grant.case:
        return Deny(Reason.CASE_MISMATCH, "the call states another case number than the grant's standing one")
    return None


def _limits(context: GrantContext) -> Deny | None:
    grant, level = context.grant, context.level
    refusal = refuse_plaintext(context.plaintext)
    if refusal is not None:
        return refusal
    if level is None or level > grant.ceiling:
        graded = "is not known" if level is None else f"is {level.name}"
        return Deny(
            Reason.LEVEL_ABOVE_CEILING,
            f"the highest level of a granted field, or of one of the filter, {graded}, the grant's ceiling "
            f"{grant.ceiling.name}; "
            "ask for a new grant",
        )
    return None


def _other_mode(grant: Grant, needed: AccessMode) -> Deny:
    return Deny(
        Reason.GRANT_MODE,
        f"the grant has the access mode {grant.access_mode}, and the call needs {needed}; use a grant of that mode, or "
        "ask for one",
    )


def _quota(context: GrantContext) -> Deny | None:
    grant, released_today = context.grant, context.released_today
    quota = grant.quota_per_day
    if quota is not None and (released_today is None or released_today >= quota):
        return Deny(
            Reason.QUOTA_EXHAUSTED, f"the day's {quota} records have been released; the next day begins at 00:00 UTC+8"
        )
    return None


def _expired(grant: Grant) -> Deny:
    return Deny(Reason.GRANT_EXPIRED, f"the grant was valid until {grant.expires.isoformat()}; ask for a new one")


def _other_zone(actor: Actor, zone: str) -> Deny:
    return Deny(Reason.ZONE_MISMATCH, f"got an actor of the zone {actor.zone!r}; expected one of {zone!r}")

"""Grant service (共享申请与授权): submit, confirm, approve, reject, suspend, resume, terminate, expire.

Each step applies a pure event of `exchange.access.grants.life_cycle` to a locked grant, and stores a new version
together with its audit entry, which contains the version's hash. Approval and provision are one call and two entries:
the provider agrees, then the view's output schema is registered under a subject of its own, which is hidden from lists.

A grant is decided on together with all that its consumer holds of the resource (`exchange.access.grants.holding`), at
its approval, at its activation and when it is resumed.

A revocation (suspend or terminate) is acknowledged only after the release window: what a gateway was about to send
when the grant's row changed has either left by then or never will.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

import structlog

from exchange.access.decision.grant_rules import GRANT_RULES, Event
from exchange.access.decision.roles import decide_control
from exchange.access.grants.exposure import SchemaMasks, undecided_exposure
from exchange.access.grants.holding import Holding
from exchange.access.grants.life_cycle import (
    ADVANCING,
    advance,
    approve,
    confirm,
    provision,
    remind,
    supersede,
    suspend_unmasked,
)
from exchange.access.grants.renewal import carried_by, check_renewable, renewal
from exchange.access.grants.store import AccessStore, quota_day, version_conflict
from exchange.access.grants.succession import MOVED
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.parties import check_plaintext, check_zones
from exchange.control.grants.reads import read_grant
from exchange.control.grants.rectification import check_not_held
from exchange.control.grants.review import GrantReview, Review, decision_data
from exchange.control.grants.submission import Submission, ViewCheck
from exchange.control.quotas import Quotas
from exchange.duties.store import DutyStore
from exchange.requests.refusals import Refusal, check_clause, check_ground
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Grant, GrantState, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["GrantService", "PreparedChange", "ViewSchemas", "persons_of"]

_log = structlog.get_logger()
_ACTION = {event: rule.action for event, rule in GRANT_RULES.items() if rule.action and event in ADVANCING}
_REVOCATIONS = frozenset({Event.SUSPEND, Event.TERMINATE, Event.EXPIRE})
_ENDING = frozenset({Event.REJECT, Event.SUSPEND, Event.TERMINATE})  # possible where the current row is damaged, too
_RETRY_AFTER = 600_000_000  # microseconds; each failure writes an audit entry, and the timer must not fill the log
_TIMER = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)


class ViewSchemas(ViewCheck, Protocol):
    """What a grant needs of the registry: its resource's masks, and the schema of its view."""

    def register(self, work: UnitOfWork, grant: Grant) -> int:
        """Derive the view's output schema, register it under a hidden subject, and return its id."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedChange:
    """A decided event of a grant, to be carried out as a part of another act."""

    actor: Actor
    grant_id: str
    event: Event
    action: Action
    resource: str
    decision: Allow | Deny


class GrantService:
    """The control side of grants."""

    def __init__(
        self,
        *,
        pool_id: str,
        database: Database,
        enforcer: Enforcer,
        access: AccessStore,
        attributes: AttributeProvider,
        views: ViewSchemas,
        duties: DutyStore,
        violations: ViolationStore,
        window: float,
        unmasked_for: timedelta = timedelta(days=30),
        quotas: Quotas | None = None,
        clock: Callable[[], int],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._views = views
        self._violations = violations
        self._review = GrantReview(access, views, attributes)
        self._unmasked_for = unmasked_for
        self._submission = Submission(
            pool_id=pool_id,
            database=database,
            enforcer=enforcer,
            access=access,
            attributes=attributes,
            views=views,
            duties=duties,
            quotas=quotas or Quotas(),
            clock=clock,
        )
        self._window = window  # seconds
        self._clock = clock
        self._sleep = sleep
        self._review_again_at: dict[str, int] = {}  # grants that could not be reviewed → when to try again
        self._retry_at: dict[str, int] = {}  # grants that could not be expired → when to try again

    def submit(self, actor: Actor, call: RequestContext, draft: Grant) -> Grant:
        """File a request (共享申请); see `Submission.submit`."""
        return self._submission.submit(actor, call, draft)

    def check(self, actor: Actor, call: RequestContext, draft: Grant) -> Review:
        """Return a request as it would be filed, and what its approver would read; see `Submission.check`."""
        return self._submission.check(actor, call, draft)

    def confirm(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Confirm a request together with all that its consumer holds of the resource, before its approval.

        Raises:
            RefusedError: the actor may not confirm this.
            ConflictError: TRANSITION_NOT_ALLOWED, when there is nothing to confirm.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        standing = self._attributes.standing(actor)
        action = Action.GRANT_CONFIRM
        persons = persons_of(self._attributes, actor, grant)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            grant, holding = self._lock_with_holding(work, grant_id)
            now = self._attributes.now(work)
            confirmed = confirm(grant, by=actor, at=now, holding=holding)
            self._access.put(work, confirmed, entry_id=act.entry_id, at=now)
            act.grant = reference_to(confirmed)
            act.note(**decision_data(holding))
        return confirmed

    def approve(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Approve a request and activate the grant, in one transaction: both happen, or neither.

        A grant that is approved and not active yet, which an earlier version could leave behind, is activated.

        Raises:
            RefusedError: the actor may not approve this.
            ConflictError: TRANSITION_NOT_ALLOWED, when there is nothing to approve.
            InvalidError: the view does not suit the resource's schema any more.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        resource = str(grant.topic) if grant else grant_id
        standing = self._attributes.standing(actor)
        action = Action.GRANT_APPROVE
        if grant is not None and grant.state is GrantState.APPROVED:
            action = Action.GRANT_PROVISION
        persons = persons_of(self._attributes, actor, grant)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, resource, call, decision) as (work, act):
            grant, holding = self._lock_with_holding(work, grant_id)
            now = self._attributes.now(work)
            last = act
            if action is Action.GRANT_APPROVE:
                self._views.check(work, grant)
                check_zones(self._attributes, work, grant)
                check_plaintext(self._attributes, work, grant)
                grant = approve(grant, by=actor, at=now, holding=holding)
                self._access.put(work, grant, entry_id=act.entry_id, at=now)
                act.grant = reference_to(grant)
                act.note(**decision_data(holding), **self._review.clock_data(work, grant, done_at=now))
                decision = decide_control(
                    actor, Action.GRANT_PROVISION, standing=standing, grant=grant, proven=True, persons=persons
                )
                last = self._enforcer.follow(act, actor, Action.GRANT_PROVISION, resource, call, decision)
            schema_id = self._views.register(work, grant)
            renewed = None
            if grant.renews:
                renewed = self._lock_renewed(work, grant, holding)
                grant = self._inheriting(work, grant, renewed)
            activated = replace(holding, part=replace(holding.part, grant=grant))
            grant = provision(grant, by=actor, at=now, holding=activated, view_schema_id=schema_id)
            self._access.put(work, grant, entry_id=last.entry_id, at=now)
            last.grant = reference_to(grant)
            last.note(view_schema=schema_id, fields=list(grant.fields), **decision_data(activated))
            last.note(**self._review.sharing_data(work, grant))
            if renewed is not None:
                last.note(renews=grant.renews, **({"stream": grant.stream} if grant.stream else {}))
                if renewed.state is GrantState.ACTIVE:
                    self._supersede(work, act, actor, call, renewed, by=grant.id)
        return grant

    def _lock_renewed(self, work: UnitOfWork, grant: Grant, holding: Holding) -> Grant:
        """Lock the grant that another renews: no release under it is stored after this transaction."""
        renewed = self._access.lock_for_update(work, grant.renews)
        others = (*(part.grant for part in holding.others), *holding.ended)
        check_renewable(grant, renewed, others)
        return renewed

    def _inheriting(self, work: UnitOfWork, grant: Grant, renewed: Grant) -> Grant:
        day = quota_day(self._attributes.now(work))
        released = self._access.released(work, renewed.id, day) + carried_by(renewed, day)
        return renewal(grant, renewed, released=released, day=day)

    def _supersede(
        self, work: UnitOfWork, act: AuditedAct, actor: Actor, call: RequestContext, renewed: Grant, *, by: str
    ) -> None:
        """Complete the grant whose renewal is activated in the same transaction, with an entry of its own."""
        standing, action = self._attributes.standing(actor), Action.GRANT_SUPERSEDE
        decision = decide_control(actor, action, standing=standing, grant=renewed, proven=True)
        following = self._enforcer.follow(act, actor, action, str(renewed.topic), call, decision)
        now = self._attributes.now(work)
        superseded = supersede(renewed, by=actor, at=now)
        self._access.put(work, superseded, entry_id=following.entry_id, at=now)
        following.grant = reference_to(superseded)
        following.note(renewed_by=by, state=str(superseded.state))

    def change(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        event: Event,
        *,
        reason: str = "",
        refusal: Refusal | None = None,
    ) -> Grant:
        """Apply an event to a grant; a revocation returns when nothing more can leave under it.

        Raises:
            RefusedError: the actor may not.
            ConflictError: TRANSITION_NOT_ALLOWED.
            InvalidError: REQUEST_INVALID, without a reason or a ground where one is due; an event with a call of its
                own; CLAUSE_MISSING, a request is rejected without reason or clause.
        """
        changed = self._change(actor, call, grant_id, event, reason=reason, refusal=refusal)
        if event in _REVOCATIONS:
            self._sleep(self._window)
        return changed

    def _change(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        event: Event,
        *,
        reason: str = "",
        refusal: Refusal | None = None,
    ) -> Grant:
        """Apply an event to a grant, without waiting for the release window."""
        action = _ACTION.get(event)
        if action is None:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the event {event}; expected one of {', '.join(_ACTION)} (others have their own calls)",
            )
        grant, proven = read_grant(self._database, self._access, grant_id)
        if event in _ENDING:  # decided by what the pool wrote last; there is a version of it, whatever its row says
            proven = grant is not None
        standing, persons = self._attributes.standing(actor), persons_of(self._attributes, actor, grant)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            if event is Event.RECTIFIED:
                check_not_held(self._violations, work, grant_id)
            return self._applied(work, act, actor, grant_id, event, reason=reason, refusal=refusal)

    def prepared(self, actor: Actor, grant_id: str, event: Event) -> PreparedChange:
        """Return the decision on an event of a grant, for an act of which it is a part (`follow`).

        The version that is locked then is checked again. An event of a grant that there is not is refused there.
        """
        action = _ACTION[event]
        grant, proven = read_grant(self._database, self._access, grant_id)
        if event in _ENDING:
            proven = grant is not None
        standing, persons = self._attributes.standing(actor), persons_of(self._attributes, actor, grant)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        resource = str(grant.topic) if grant else grant_id
        return PreparedChange(actor, grant_id, event, action, resource, decision)

    def follow(
        self, work: UnitOfWork, act: AuditedAct, call: RequestContext, change: PreparedChange, *, reason: str
    ) -> Grant:
        """Apply an event to a grant within the transaction of another act, with an entry of its own.

        After a revocation the caller calls `await_releases` once the transaction is committed.

        Raises:
            RefusedError, ConflictError, InvalidError: as `change`; neither act happens.
        """
        actor = change.actor
        following = self._enforcer.follow(act, actor, change.action, change.resource, call, change.decision)
        return self._applied(work, following, actor, change.grant_id, change.event, reason=reason)

    def await_releases(self) -> None:
        """Wait until what was about to leave under a revoked grant has left, or never will."""
        self._sleep(self._window)

    def _applied(
        self,
        work: UnitOfWork,
        act: AuditedAct,
        actor: Actor,
        grant_id: str,
        event: Event,
        *,
        reason: str,
        refusal: Refusal | None = None,
    ) -> Grant:
        """Apply a decided event to a grant within a transaction; *act* gets what its entry says."""
        holding, damaged = None, False
        if event is Event.RECTIFIED:
            grant, holding = self._lock_with_holding(work, grant_id)
            act.note(**decision_data(holding))
        elif event in _ENDING:
            grant, damaged = self._access.lock_to_end(work, grant_id)
        else:
            grant = self._access.lock_for_update(work, grant_id)
        if event is Event.REJECT:
            said = refusal or Refusal()
            check_clause(reason=reason, clause=said.clause)
            unconditional = self._attributes.is_unconditional(work, grant.topic)
            check_ground(said.ground, unconditional=unconditional or self._review.is_returned(work, grant))
            act.note(clause=said.clause, ground=str(said.ground))
        now = self._attributes.now(work)
        if event is Event.REJECT:
            act.note(**self._review.clock_data(work, grant, done_at=now))
        changed = advance(grant, event, by=actor, at=now, reason=reason, holding=holding)
        if damaged:
            act.note(damaged=True)
            put = self._access.put_over_damaged
        else:
            put = self._access.put
        changed = put(work, changed, entry_id=act.entry_id, at=now).grant
        act.grant = reference_to(changed)
        act.note(reason=reason, state=str(changed.state))
        return changed

    def holds_any(self, work: UnitOfWork, department: str) -> bool:
        """Return whether a department is the consumer of a grant or request that has not ended."""
        return self._access.count(work, department, MOVED, 1) > 0

    def _lock_with_holding(self, work: UnitOfWork, grant_id: str) -> tuple[Grant, Holding]:
        """Lock a grant, and all that its consumer holds of the resource before it; return both.

        Two approvals of one consumer on one resource thus follow each other, and the second sees the first.
        """
        found = self._access.get(work, grant_id)  # the topic never changes
        self._access.lock_holding(work, found.consumer, found.topic.name)
        grant = self._access.lock_for_update(work, grant_id)
        if grant.consumer != found.consumer:
            raise version_conflict(grant, grant.version)
        return grant, self._review.holding(work, grant)

    def expire(self) -> int:
        """Expire the grants whose time is over, as the pool's own timer; return their number.

        A grant that cannot be expired (a forged one, say) does not stop the others; the reason is logged.

        Raises:
            UnavailableError: the database cannot list them.
        """
        with self._database.read() as reader:
            now = self._attributes.now(reader)
        expired, after = 0, ""
        while True:
            with self._database.read() as reader:
                overdue = self._access.overdue(reader, now, after=after)
            if not overdue:
                break
            for grant_id in overdue:
                if self._retry_at.get(grant_id, 0) > self._clock():
                    continue
                try:
                    self._change(_TIMER, RequestContext(trace="0" * 32, client="timer"), grant_id, Event.EXPIRE)
                except ConflictError:
                    continue  # another gateway was faster
                except PoolError as error:
                    _log.warning("expiry_failed", grant=grant_id, reason=error.reason)
                    if not isinstance(error, UnavailableError):
                        self._retry_at[grant_id] = self._clock() + _RETRY_AFTER
                else:
                    expired += 1
            after = overdue[-1]
        if expired:
            self._sleep(self._window)
        return expired

    def review_unmasked(self) -> int:
        """Tell, and later suspend, active grants that show unmasked what no request wrote out; return their number.

        Such grants were approved before this rule, or before the schema's mask became stricter. The first turn that
        meets one stores the time after which it is suspended, with an entry; until then its view stays as it is, since
        its consumer holds what it delivered. As with `expire`, one that cannot be changed does not stop the others.

        Raises:
            UnavailableError: the database cannot list them.
        """
        changed, suspended, after = 0, 0, ""
        masks: dict[Topic, SchemaMasks] = {}
        while True:
            with self._database.read() as reader:
                active = self._access.active(reader, after=after)
            if not active:
                break
            for grant_id in active:
                if self._review_again_at.get(grant_id, 0) > self._clock():
                    continue
                try:
                    event = self._review_one(grant_id, masks)
                except ConflictError:
                    continue  # another gateway was faster
                except PoolError as error:
                    _log.warning("review_failed", grant=grant_id, reason=error.reason)
                    if not isinstance(error, UnavailableError):
                        self._review_again_at[grant_id] = self._clock() + _RETRY_AFTER
                else:
                    changed += event is not None
                    suspended += event is Event.SUSPEND_UNMASKED
            after = active[-1]
        if suspended:
            self._sleep(self._window)
        return changed

    def _review_one(self, grant_id: str, masks: dict[Topic, SchemaMasks]) -> Event | None:
        with self._database.read() as reader:
            grant = self._access.get(reader, grant_id)
            if grant.topic not in masks:
                masks[grant.topic] = self._views.masks(reader, grant.topic)
            undecided = undecided_exposure(grant, masks[grant.topic])
            now = self._attributes.now(reader)
        if not undecided or (grant.suspend_after is not None and now < grant.suspend_after):
            return None
        event = Event.REMIND if grant.suspend_after is None else Event.SUSPEND_UNMASKED
        action = Action.GRANT_REMIND if event is Event.REMIND else Action.GRANT_SUSPEND_UNMASKED
        standing = self._attributes.standing(_TIMER)
        decision = decide_control(_TIMER, action, standing=standing, grant=grant, proven=True)
        call = RequestContext(trace="0" * 32, client="timer")
        with self._enforcer.act(_TIMER, action, str(grant.topic), call, decision) as (work, act):
            grant = self._access.lock_for_update(work, grant_id)
            now = self._attributes.now(work)
            if event is Event.REMIND:
                after = now + self._unmasked_for
                changed = remind(grant, by=_TIMER, at=now, suspend_after=after)
                act.note(suspend_after=after.isoformat())
            else:
                changed = suspend_unmasked(grant, by=_TIMER, at=now)
            self._access.put(work, changed, entry_id=act.entry_id, at=now)
            act.grant = reference_to(changed)
            act.note(
                unmasked=list(undecided.unmasked),
                filter_discloses=list(undecided.disclosed),
                consumer=grant.consumer,
                provider=grant.provider,
                state=str(changed.state),
            )
        return event


def persons_of(attributes: AttributeProvider, actor: Actor, grant: Grant | None) -> Mapping[str, str]:
    """Return the persons of the actor and of who signed before: a program's act needs none."""
    if grant is None or actor.kind is not ActorKind.HUMAN:
        return {}
    return attributes.persons(*filter(None, (actor.id, grant.requested_by, grant.confirmed_by)))

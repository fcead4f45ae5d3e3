"""Grant service (共享申请与授权): every event of a request and of the grant that it becomes, but its renewal.

Each step locks a grant, carries an event of its request out (`exchange.control.requests.law`), lets the grant follow
(`exchange.access.grants.life_cycle`), and stores both with one audit entry, which contains the version's hash. Approval
and provision are one call and two entries: the provider agrees, then the view's output schema is registered under a
subject of its own, which is hidden from lists.

An approval is complete once everybody has signed whose signature is due: the head of the provider's sharing office, and
its security officer beside it from level 4 on, for what shows more than the schema's masks, or across zones. Until then
the request is countersigned, and grants nothing.

A grant is decided on together with all that its consumer holds of the resource (`exchange.access.grants.holding`), at
its approval, at its activation and when it is resumed.

A revocation (suspend or terminate) is acknowledged only after the release window: what a gateway was about to send
when the grant's row changed has either left by then or never will.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
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
    conclude,
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
from exchange.control.grants.rectification import check_not_held, check_not_referred
from exchange.control.grants.review import GrantReview, Review, decision_data
from exchange.control.grants.submission import Asked, Submission, Supplement, ViewCheck
from exchange.control.quotas import Quotas
from exchange.control.requests.law import RequestLaw, accounts_of, followed, unsigned
from exchange.control.requests.stored import StoredRequests
from exchange.duties.store import DutyStore
from exchange.requests.details import Details
from exchange.requests.model import Event as RequestEvent
from exchange.requests.model import ShareRequest
from exchange.requests.refusals import check_ground
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Grant, GrantState, Role
from schemas.errors import ConflictError, CorruptError, InvalidError, PoolError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["GrantService", "PreparedChange", "ViewSchemas", "persons_of"]

_log = structlog.get_logger()
_ACTION = {event: rule.action for event, rule in GRANT_RULES.items() if event in ADVANCING}
_REVOCATIONS = frozenset({Event.SUSPEND, Event.TERMINATE, Event.EXPIRE, Event.COMPLETE, Event.TERMINATE_BY_AGREEMENT})
_APPROVING = {GrantState.COUNTERSIGNED: Action.GRANT_CONCLUDE, GrantState.APPROVED: Action.GRANT_PROVISION}
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
    persons: Mapping[str, str]  # of the actor, and of who requested and signed


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
        requests: StoredRequests,
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
        self.law = RequestLaw(requests, attributes, duties)
        self._unmasked_for = unmasked_for
        self._submission = Submission(
            pool_id=pool_id,
            database=database,
            enforcer=enforcer,
            access=access,
            attributes=attributes,
            views=views,
            law=self.law,
            duties=duties,
            quotas=quotas or Quotas(),
            clock=clock,
        )
        self._window = window  # seconds
        self._clock = clock
        self._sleep = sleep
        self._review_again_at: dict[str, int] = {}  # grants that could not be reviewed → when to try again
        self._retry_at: dict[str, int] = {}  # grants that could not be expired → when to try again

    def submit(self, actor: Actor, call: RequestContext, draft: Grant, asked: Asked = Asked()) -> Grant:  # noqa: B008
        """File a request (共享申请); see `Submission.submit`."""
        return self._submission.submit(actor, call, draft, asked)

    def check(self, actor: Actor, call: RequestContext, draft: Grant, asked: Asked = Asked()) -> Review:  # noqa: B008
        """Return a request as it would be filed, and what its approver would read; see `Submission.check`."""
        return self._submission.check(actor, call, draft, asked)

    def resubmit(self, actor: Actor, call: RequestContext, grant_id: str, supplement: Supplement) -> Grant:
        """Submit a request again, with what it lacked; see `Submission.resubmit`."""
        return self._submission.resubmit(actor, call, grant_id, supplement)

    def countersign(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Sign a request as the provider's security officer, together with all that its consumer holds.

        It may come before the head's signature or after it; the last one of those that are due approves the request,
        and the head provides.

        Raises:
            RefusedError: the actor may not sign this; SAME_PERSON, it has signed already.
            ConflictError: TRANSITION_NOT_ALLOWED, when no such signature is due.
        """
        grant, proven, persons = self._known(actor, grant_id)
        action = Action.GRANT_CONFIRM
        if grant is not None and grant.state is GrantState.COUNTERSIGNED:
            action = Action.GRANT_COUNTERSIGN
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            grant, holding = self._lock_with_holding(work, grant_id)
            now = self._attributes.now(work)
            request = self._current(work, grant, holding)
            said = Details().act(RequestEvent.COUNTERSIGN, by=actor, at=now)
            request = self.law.advanced(work, act, request, said, persons)
            signed = followed(confirm(grant, by=actor, at=now, holding=holding), request)
            act.note(**decision_data(holding))
            if signed.state is GrantState.COUNTERSIGNED and not unsigned(request):
                self._check_delivery(work, grant)
                said = Details().act(RequestEvent.CONCLUDE, by=actor, at=now)
                request = self.law.advanced(work, act, request, said, persons)
                decided = replace(holding, part=replace(holding.part, grant=signed))
                # One version for one act: the conclusion is the signature's own.
                signed = replace(conclude(signed, by=actor, at=now, holding=decided), version=signed.version)
            self._store(work, act, signed, request)
        return signed

    def approve(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Sign a request as the head; once everybody has signed, approve it and activate the grant in one transaction.

        A request that waits for the security officer is countersigned until then, and what is approved and not active
        is activated.

        Raises:
            RefusedError: the actor may not approve this; CONFIRMATION_MISSING, the head has signed already, and the
                security officer has not; NOT_SHARED.
            ConflictError: TRANSITION_NOT_ALLOWED, when there is nothing to approve.
            InvalidError: the view does not suit the resource's schema any more.
        """
        grant, proven, persons = self._known(actor, grant_id)
        resource = str(grant.topic) if grant else grant_id
        standing = self._attributes.standing(actor)
        action = Action.GRANT_APPROVE if grant is None else _APPROVING.get(grant.state, Action.GRANT_APPROVE)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, resource, call, decision) as (work, act):
            grant, holding = self._lock_with_holding(work, grant_id)
            now = self._attributes.now(work)
            request = self._current(work, grant, holding)
            last = act
            if action is not Action.GRANT_PROVISION:
                grant, request = self._agree(work, act, actor, grant, holding, request, persons, action)
                if grant.state is GrantState.COUNTERSIGNED or actor.department != grant.provider:
                    self._store(work, act, grant, request)
                    return grant
                self._access.put(work, grant, entry_id=act.entry_id, at=now)
                act.grant = reference_to(grant)
                decision = decide_control(
                    actor, Action.GRANT_PROVISION, standing=standing, grant=grant, proven=True, persons=persons
                )
                last = self._enforcer.follow(act, actor, Action.GRANT_PROVISION, resource, call, decision)
            said = Details().act(RequestEvent.PROVISION, by=actor, at=now)
            request = self.law.advanced(work, last, request, said, persons)
            schema_id = self._views.register(work, grant)
            renewed = None
            if grant.renews:
                renewed = self._lock_renewed(work, grant, holding)
                grant = self._inheriting(work, grant, renewed)
            activated = replace(holding, part=replace(holding.part, grant=grant))
            grant = provision(grant, by=actor, at=now, holding=activated, view_schema_id=schema_id)
            last.note(view_schema=schema_id, fields=list(grant.fields), **decision_data(activated))
            last.note(**self._review.sharing_data(work, grant))
            self._store(work, last, grant, request)
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
        check_not_held(self._violations, self._access, work, renewed.id)
        check_not_referred(self._violations, self._access, work, renewed.id)
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

    def _agree(
        self,
        work: UnitOfWork,
        act: AuditedAct,
        actor: Actor,
        grant: Grant,
        holding: Holding,
        request: ShareRequest,
        persons: Mapping[str, str],
        action: Action,
    ) -> tuple[Grant, ShareRequest]:
        """Carry the head's signature out, or the conclusion of a request that has it; return grant and request."""
        self._check_delivery(work, grant)
        now = self._attributes.now(work)
        act.note(**decision_data(holding))
        if action is Action.GRANT_CONCLUDE:
            said = Details().act(RequestEvent.CONCLUDE, by=actor, at=now)
            request = self.law.advanced(work, act, request, said, persons)
            return conclude(grant, by=actor, at=now, holding=holding), request
        said = Details().act(RequestEvent.APPROVE, by=actor, at=now)
        request = self.law.advanced(work, act, request, said, persons)
        missing = unsigned(request)
        if missing:
            act.note(waits_for=[*missing])
        else:
            said = Details().act(RequestEvent.CONCLUDE, by=actor, at=now)
            request = self.law.advanced(work, act, request, said, persons)
        return followed(approve(grant, by=actor, at=now, holding=holding, concludes=not missing), request), request

    def _check_delivery(self, work: UnitOfWork, grant: Grant) -> None:
        """Check that what is approved can be delivered as it was asked for."""
        self._views.check(work, grant)
        check_zones(self._attributes, work, grant)
        check_plaintext(self._attributes, work, grant)

    def change(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        event: Event,
        *,
        reason: str = "",
        details: Details = Details(),  # noqa: B008 - immutable
    ) -> Grant:
        """Apply an event to a request or a grant; a revocation returns when nothing more can leave under it.

        Raises:
            RefusedError: the actor may not.
            ConflictError: TRANSITION_NOT_ALLOWED; SUPPLEMENT_REPEATED.
            InvalidError: REQUEST_INVALID, without what the event requires; an event with a call of its own;
                CLAUSE_MISSING, a request is refused without reason or clause.
        """
        changed = self._change(actor, call, grant_id, event, reason=reason, details=details)
        if event in _REVOCATIONS:
            self._sleep(self._window)
        return changed

    def run_out(self, grant_id: str, event: Event) -> Grant:
        """Apply an event of a clock, as the pool's own timer: OVERDUE, LAPSE, or EXPIRE of what was never active.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the clock has not run out, or that is recorded already.
        """
        return self._change(_TIMER, RequestContext(trace="0" * 32, client="timer"), grant_id, event)

    def _change(
        self,
        actor: Actor,
        call: RequestContext,
        grant_id: str,
        event: Event,
        *,
        reason: str = "",
        details: Details = Details(),  # noqa: B008 - immutable
    ) -> Grant:
        """Apply an event to a grant, without waiting for the release window."""
        action = _ACTION.get(event)
        if action is None:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the event {event}; expected one of {', '.join(_ACTION)} (others have their own calls)",
            )
        grant, proven, persons = self._known(actor, grant_id)
        # To end it is decided by what the pool wrote last; there is a version of it, whatever its row says.
        proven = grant is not None if event in _ENDING else proven
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            if event is Event.RECTIFIED:
                self._lock_with_holding(work, grant_id)  # as an order does: either of the two sees the other
                check_not_held(self._violations, self._access, work, grant_id)
            return self._applied(work, act, actor, grant_id, event, persons, reason=reason, details=details)

    def prepared(self, actor: Actor, grant_id: str, event: Event) -> PreparedChange:
        """Return the decision on an event of a grant, for an act of which it is a part (`follow`).

        The version that is locked then is checked again. An event of a grant that there is not is refused there.
        """
        action = _ACTION[event]
        grant, proven, persons = self._known(actor, grant_id)
        proven = grant is not None if event in _ENDING else proven
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        resource = str(grant.topic) if grant else grant_id
        return PreparedChange(actor, grant_id, event, action, resource, decision, persons)

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
        return self._applied(
            work, following, actor, change.grant_id, change.event, change.persons, reason=reason, by_case=True
        )

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
        persons: Mapping[str, str],
        *,
        reason: str,
        details: Details = Details(),  # noqa: B008 - immutable
        by_case: bool = False,
    ) -> Grant:
        """Apply a decided event to a grant within a transaction; *act* gets what its entry says.

        Until when a grant that a violation case suspends (*by_case*) can be rectified, the case's own order says.
        """
        grant, holding, damaged = self._locked_for(work, grant_id, event)
        if event is Event.REJECT and self._review.is_returned(work, grant):
            check_ground(
                details.ground, unconditional=True
            )  # a lower level's own rows are shared as without conditions
        now = self._attributes.now(work)
        act.note(**({} if holding is None else decision_data(holding)), **details.noted())
        request = self._readable(work, act, grant, event)
        state = None
        if request is not None:
            said = details.act(RequestEvent(event.value), by=actor, at=now, reason=reason)
            if event is Event.SUSPEND:
                said = replace(said, rectify_until=grant.expires) if by_case else self.law.rectify_until(work, said)
            request = self.law.advanced(work, act, request, said, persons)
            state = GrantState(request.state.value)
        changed = advance(grant, event, by=actor, at=now, reason=reason, holding=holding, state=state)
        if request is not None:
            changed = followed(changed, request)
        act.note(reason=reason, state=str(changed.state))
        return self._store_change(work, act, grant, changed, request, damaged=damaged)

    def _locked_for(self, work: UnitOfWork, grant_id: str, event: Event) -> tuple[Grant, Holding | None, bool]:
        """Return a grant, locked for an event; what its consumer holds, to resume it; whether its row is damaged."""
        if event is Event.RECTIFIED:
            return *self._lock_with_holding(work, grant_id), False
        if event in _ENDING:
            grant, damaged = self._access.lock_to_end(work, grant_id)
            return grant, None, damaged
        return self._access.lock_for_update(work, grant_id), None, False

    def _store_change(
        self,
        work: UnitOfWork,
        act: AuditedAct,
        grant: Grant,
        changed: Grant,
        request: ShareRequest | None,
        *,
        damaged: bool,
    ) -> Grant:
        if request is not None and not damaged and replace(changed, version=grant.version) == grant:
            act.grant = reference_to(grant)  # an event of the request alone: its grant says the same as before
            self.law.put(work, request)
            return grant
        if damaged:
            act.note(damaged=True)
            now = self._attributes.now(work)
            changed = self._access.put_over_damaged(work, changed, entry_id=act.entry_id, at=now).grant
            act.grant = reference_to(changed)
            if request is not None:
                self.law.put(work, request)
        else:
            self._store(work, act, changed, request)
        return changed

    def holds_any(self, work: UnitOfWork, department: str) -> bool:
        """Return whether a department is the consumer of a grant or request that has not ended."""
        return self._access.count(work, department, MOVED, 1) > 0

    def _known(self, actor: Actor, grant_id: str) -> tuple[Grant | None, bool, Mapping[str, str]]:
        """Return a grant, whether its row is proven, and the persons of the actor and of who requested and signed."""
        grant, proven = read_grant(self._database, self._access, grant_id)
        accounts: tuple[str, ...] = ()
        if grant is not None and actor.kind is ActorKind.HUMAN:
            with self._database.read() as reader, suppress(CorruptError):
                accounts = accounts_of(self.law.requests.of(reader, grant))
        return grant, proven, persons_of(self._attributes, actor, grant, accounts)

    def _current(self, work: UnitOfWork, grant: Grant, holding: Holding) -> ShareRequest:
        return self.law.current(work, grant, sensitive=holding.sensitive, together=holding.together_with)

    def _readable(self, work: UnitOfWork, act: AuditedAct, grant: Grant, event: Event) -> ShareRequest | None:
        """Return the request of a grant; None where its row is damaged, and the event only takes away."""
        try:
            return self.law.current(work, grant)
        except CorruptError:
            if event not in _ENDING | {Event.EXPIRE}:
                raise
            act.note(damaged_request=True)
            return None

    def _store(self, work: UnitOfWork, act: AuditedAct, grant: Grant, request: ShareRequest | None) -> None:
        """Store a new version of a grant with its request, as the act's."""
        self._access.put(work, grant, entry_id=act.entry_id, at=self._attributes.now(work))
        act.grant = reference_to(grant)
        if request is not None:
            self.law.put(work, request)

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


def persons_of(
    attributes: AttributeProvider, actor: Actor, grant: Grant | None, accounts: tuple[str, ...] = ()
) -> Mapping[str, str]:
    """Return the persons of the actor, and of who requested and signed before: a program's act needs none."""
    if grant is None or actor.kind is not ActorKind.HUMAN:
        return {}
    signed = (grant.requested_by, grant.approved_by, grant.confirmed_by)
    return attributes.persons(*dict.fromkeys(filter(None, (actor.id, *signed, *accounts))))

"""Grant service (共享申请与授权): every event of a request and of the grant that it becomes, but its renewal.

Each step locks a grant, carries an event of its request out (`exchange.control.requests.law`), lets the grant follow
(`exchange.access.grants.life_cycle`), and stores both with one audit entry, which contains the version's hash. Requests
are filed in `submission`, signed in `approval`, and ended by the clock in `timer`.

A grant is decided on together with all that its consumer holds of the resource (`exchange.access.grants.holding`), at
its approval, at its activation and when it is resumed.

A revocation (suspend or terminate) is acknowledged only after the release window: what a gateway was about to send
when the grant's row changed has either left by then or never will.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from exchange.access.decision.grant_rules import GRANT_RULES, Event
from exchange.access.decision.roles import decide_control
from exchange.access.grants.holding import Holding
from exchange.access.grants.life_cycle import (
    ADVANCING,
    advance,
)
from exchange.access.grants.store import AccessStore
from exchange.access.grants.succession import MOVED
from exchange.access.predicates.store import MemoryPredicates, PredicateStore
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.approval import GrantApproval, ViewSchemas
from exchange.control.grants.rectification import check_not_held
from exchange.control.grants.review import GrantReview, Review, decision_data
from exchange.control.grants.submission import Asked, Submission, Supplement
from exchange.control.grants.timer import TIMER, TIMER_CALL, GrantTimer
from exchange.control.grants.versions import GrantVersions
from exchange.control.quotas import Quotas
from exchange.control.requests.law import RequestLaw, followed
from exchange.control.requests.stored import StoredRequests
from exchange.duties.store import DutyStore
from exchange.requests.details import Details
from exchange.requests.model import Event as RequestEvent
from exchange.requests.model import ShareRequest
from exchange.requests.refusals import check_ground
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import CorruptError, InvalidError, Reason

__all__ = ["GrantService", "PreparedChange"]

_ACTION = {event: rule.action for event, rule in GRANT_RULES.items() if event in ADVANCING}
_REVOCATIONS = frozenset({Event.SUSPEND, Event.TERMINATE, Event.EXPIRE, Event.COMPLETE, Event.TERMINATE_BY_AGREEMENT})
_ENDING = frozenset({Event.REJECT, Event.SUSPEND, Event.TERMINATE})  # possible where the current row is damaged, too


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
        predicates: PredicateStore | None = None,
        clock: Callable[[], int],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._violations = violations
        self._review = GrantReview(access, views, attributes)
        self.law = RequestLaw(requests, attributes, duties)
        self._versions = GrantVersions(database, access, attributes, self._review, self.law)
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
            predicates=predicates or MemoryPredicates(),
            clock=clock,
        )
        self._approval = GrantApproval(
            enforcer=enforcer,
            access=access,
            attributes=attributes,
            views=views,
            violations=violations,
            review=self._review,
            law=self.law,
            versions=self._versions,
        )
        self._timer = GrantTimer(
            database=database,
            enforcer=enforcer,
            access=access,
            attributes=attributes,
            views=views,
            run_out=self.run_out,
            await_releases=self.await_releases,
            unmasked_for=unmasked_for,
            clock=clock,
        )
        self._window = window  # seconds
        self._sleep = sleep

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
        """Sign a request as the provider's security officer; see `GrantApproval.countersign`."""
        return self._approval.countersign(actor, call, grant_id)

    def approve(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Sign a request as the head; activate the grant where everybody has; see `GrantApproval.approve`."""
        return self._approval.approve(actor, call, grant_id)

    def expire(self) -> int:
        """Expire the grants whose time is over; see `GrantTimer.expire`."""
        return self._timer.expire()

    def review_unmasked(self) -> int:
        """Review active grants that show unmasked what no request wrote out; see `GrantTimer.review_unmasked`."""
        return self._timer.review_unmasked()

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
            self.await_releases()
        return changed

    def run_out(self, grant_id: str, event: Event) -> Grant:
        """Apply an event of a clock, as the pool's own timer: OVERDUE, LAPSE, or EXPIRE of what was never active.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the clock has not run out, or that is recorded already.
        """
        return self._change(TIMER, TIMER_CALL, grant_id, event)

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
        grant, proven, persons = self._versions.known(actor, grant_id)
        # To end it is decided by what the pool wrote last; there is a version of it, whatever its row says.
        proven = grant is not None if event in _ENDING else proven
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            if event is Event.RECTIFIED:
                self._versions.lock_with_holding(work, grant_id)  # as an order does: either of the two sees the other
                check_not_held(self._violations, self._access, work, grant_id)
            return self._applied(work, act, actor, grant_id, event, persons, reason=reason, details=details)

    def prepared(self, actor: Actor, grant_id: str, event: Event) -> PreparedChange:
        """Return the decision on an event of a grant, for an act of which it is a part (`follow`).

        The version that is locked then is checked again. An event of a grant that there is not is refused there.
        """
        action = _ACTION[event]
        grant, proven, persons = self._versions.known(actor, grant_id)
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
            return *self._versions.lock_with_holding(work, grant_id), False
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
            self._versions.store(work, act, changed, request)
        return changed

    def holds_any(self, work: UnitOfWork, department: str) -> bool:
        """Return whether a department is the consumer of a grant or request that has not ended."""
        return self._access.count(work, department, MOVED, 1) > 0

    def _readable(self, work: UnitOfWork, act: AuditedAct, grant: Grant, event: Event) -> ShareRequest | None:
        """Return the request of a grant; None where its row is damaged, and the event only takes away."""
        try:
            return self.law.current(work, grant)
        except CorruptError:
            if event not in _ENDING | {Event.EXPIRE}:
                raise
            act.note(damaged_request=True)
            return None

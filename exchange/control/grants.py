"""Grant service (共享申请与授权): submit a request, approve, reject, suspend, resume, terminate, expire a grant.

Each step applies a pure event of `exchange.access.grants.life_cycle` to a locked grant, and stores a new version
together with its audit entry, which contains the version's hash. Approval and provision are one call and two entries:
the provider agrees, then the view's output schema is registered under a subject of its own, which is hidden from lists.

A revocation (suspend or terminate) is acknowledged only after the release window: what a gateway was about to send
when the grant's row changed has either left by then or never will.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import structlog

from exchange.access.decision.grant_rules import GRANT_RULES, Event
from exchange.access.decision.purposes import Purpose
from exchange.access.decision.roles import decide_control
from exchange.access.grants.life_cycle import ADVANCING, RequestTerms, advance, approve, provision, submit
from exchange.access.grants.store import AccessStore, GrantQuery
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Grant, GrantState, Role
from schemas.errors import ConflictError, CorruptError, InvalidError, PoolError, Reason, UnavailableError
from schemas.identifiers import uuid7

__all__ = ["GrantService", "ViewSchemas"]

_log = structlog.get_logger()
_ACTION = {event: rule.action for event, rule in GRANT_RULES.items() if rule.action and event in ADVANCING}
_REVOCATIONS = frozenset({Event.SUSPEND, Event.TERMINATE, Event.EXPIRE})
_RETRY_AFTER = 600_000_000  # microseconds; each failure writes an audit entry, and the timer must not fill the log
_TIMER = Actor(kind=ActorKind.MACHINE, id="timer", department="", role=Role.OPERATOR)


class ViewSchemas(Protocol):
    """What a grant needs of the registry: the schema of its view."""

    def check(self, reader: Reader, grant: Grant) -> None:
        """Check that a grant's fields, masks and filter suit every writer schema of its topic.

        Raises:
            InvalidError: FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID, SCHEMA_INCOMPATIBLE.
        """
        ...

    def register(self, work: UnitOfWork, grant: Grant) -> int:
        """Derive the view's output schema, register it under a hidden subject, and return its id."""
        ...


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
        window: float,
        clock: Callable[[], int],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pool_id = pool_id
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._views = views
        self._window = window  # seconds
        self._clock = clock
        self._sleep = sleep
        self._retry_at: dict[str, int] = {}  # grants that could not be expired → when to try again

    def submit(self, actor: Actor, call: RequestContext, draft: Grant) -> Grant:
        """File a request (共享申请). Consumer, provider, pool, id and requester are set here, not taken from the draft.

        Raises:
            RefusedError: the actor may not ask for this.
            InvalidError: RESOURCE_UNKNOWN, or what the request lacks.
        """
        resource = self._attributes.resource(draft.topic)
        if resource is None:
            raise InvalidError(
                Reason.RESOURCE_UNKNOWN,
                f"got the topic {draft.topic}, which is not in the catalogue; see `pool catalogue`",
            )
        draft = replace(
            draft,
            id=uuid7(self._clock()),
            version=1,
            pool_id=self._pool_id,
            consumer=actor.department,
            provider=resource.provider,
            requested_by=actor.id,
            approved_by=None,
            approved_at=None,
            view_schema_id=None,
            state=GrantState.DRAFT,
            zone=resource.zone,
        )
        level = self._attributes.level(draft.topic, draft.fields)
        if level is None:
            raise InvalidError(
                Reason.FIELD_UNKNOWN, f"got fields of which {draft.topic} lacks at least one; see its schema"
            )
        decision = decide_control(actor, Action.GRANT_SUBMIT, standing=self._attributes.standing(actor), grant=draft)
        with self._enforcer.act(actor, Action.GRANT_SUBMIT, str(draft.topic), call, decision) as (work, act):
            now = self._attributes.now(work)
            purposes = {purpose.id for purpose in self._access.purposes(work) if purpose.active}
            terms = RequestTerms(purposes=purposes, level=level, check_view=partial(self._views.check, work))
            grant = submit(draft, by=actor, at=now, terms=terms)
            self._access.put(work, grant, entry_id=act.entry_id, at=now)
            act.grant = reference_to(grant)
        return grant

    def approve(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Approve a request and activate the grant, in one transaction: both happen, or neither.

        A grant that is approved and not active yet, which an earlier version could leave behind, is activated.

        Raises:
            RefusedError: the actor may not approve this.
            ConflictError: TRANSITION_NOT_ALLOWED, when there is nothing to approve.
            InvalidError: the view does not suit the resource's schema any more.
        """
        grant, proven = self._read(grant_id)
        resource = str(grant.topic) if grant else grant_id
        standing = self._attributes.standing(actor)
        action = Action.GRANT_APPROVE
        if grant is not None and grant.state is GrantState.APPROVED:
            action = Action.GRANT_PROVISION
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven)
        with self._enforcer.act(actor, action, resource, call, decision) as (work, act):
            grant = self._access.lock_for_update(work, grant_id)
            now = self._attributes.now(work)
            last = act
            if action is Action.GRANT_APPROVE:
                self._views.check(work, grant)
                grant = approve(grant, by=actor, at=now)
                self._access.put(work, grant, entry_id=act.entry_id, at=now)
                act.grant = reference_to(grant)
                decision = decide_control(actor, Action.GRANT_PROVISION, standing=standing, grant=grant, proven=True)
                last = self._enforcer.follow(act, actor, Action.GRANT_PROVISION, resource, call, decision)
            schema_id = self._views.register(work, grant)
            grant = provision(grant, by=actor, at=now, view_schema_id=schema_id)
            self._access.put(work, grant, entry_id=last.entry_id, at=now)
            last.grant = reference_to(grant)
            last.note(view_schema=schema_id, fields=list(grant.fields))
        return grant

    def change(self, actor: Actor, call: RequestContext, grant_id: str, event: Event, *, reason: str = "") -> Grant:
        """Apply an event to a grant; a revocation returns when nothing more can leave under it.

        Raises:
            RefusedError: the actor may not.
            ConflictError: TRANSITION_NOT_ALLOWED.
            InvalidError: REQUEST_INVALID, without a reason where one is due; an event with a call of its own.
        """
        changed = self._change(actor, call, grant_id, event, reason=reason)
        if event in _REVOCATIONS:
            self._sleep(self._window)
        return changed

    def _change(self, actor: Actor, call: RequestContext, grant_id: str, event: Event, *, reason: str = "") -> Grant:
        """Apply an event to a grant, without waiting for the release window."""
        action = _ACTION.get(event)
        if action is None:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the event {event}; expected one of {', '.join(_ACTION)} (others have their own calls)",
            )
        grant, proven = self._read(grant_id)
        decision = decide_control(actor, action, standing=self._attributes.standing(actor), grant=grant, proven=proven)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            grant = self._access.lock_for_update(work, grant_id)
            now = self._attributes.now(work)
            changed = advance(grant, event, by=actor, at=now, reason=reason)
            self._access.put(work, changed, entry_id=act.entry_id, at=now)
            act.grant = reference_to(changed)
            act.note(reason=reason, state=str(changed.state))
        return changed

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

    def list(self, actor: Actor, call: RequestContext, query: GrantQuery) -> Sequence[Grant]:
        """List the grants that the actor may see: its department's, or all.

        Raises:
            RefusedError: the actor may see none.
        """
        decision = decide_control(
            actor, Action.GRANT_READ, standing=self._attributes.standing(actor), department=actor.department or None
        )
        with self._enforcer.act(actor, Action.GRANT_READ, "*", call, decision) as (work, _):
            if actor.department:
                query = replace(query, party=actor.department)
            return self._access.list(work, query)

    def purposes(self) -> Sequence[Purpose]:
        """Return the purposes that a request may name; they are public."""
        with self._database.read() as reader:
            return self._access.purposes(reader)

    def _read(self, grant_id: str) -> tuple[Grant | None, bool]:
        """Return the grant, None when unknown or forged, and whether its MAC was verified."""
        try:
            with self._database.read() as reader:
                return self._access.get(reader, grant_id), True
        except CorruptError:
            return None, False
        except PoolError as error:
            if error.reason is Reason.GRANT_UNKNOWN:
                return None, True
            raise

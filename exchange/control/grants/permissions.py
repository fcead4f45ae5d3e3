"""Permissions on one grant: what the caller may do with it now, and why not what it may not.

It is the decision and the life cycle themselves, asked without being carried out: the answer of an act may differ only
where the grant, its schema or the caller has changed in between. A reason in words is taken as given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from exchange.access.decision.grant_rules import GRANT_RULES, Event
from exchange.access.decision.roles import Standing, decide_control
from exchange.access.grants.holding import Holding
from exchange.access.grants.life_cycle import advance, approve, confirm
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.reads import GrantReads, read_grant
from exchange.control.grants.rectification import check_not_held
from exchange.control.grants.review import GrantReview
from exchange.control.grants.service import ViewSchemas, persons_of
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Deny, Grant, GrantState
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = ["EVENTS", "GrantPermissions", "Permission"]

EVENTS: Final = (Event.CONFIRM, Event.APPROVE, Event.REJECT, Event.SUSPEND, Event.RECTIFIED, Event.TERMINATE)
"""What people do with a grant, in the order in which they do it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """Whether an event may happen; `reason` and `message` say why not."""

    event: Event
    reason: Reason | None = None
    message: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it may."""
        return self.reason is None


class GrantPermissions:
    """Answers what may be done with a grant.

    Args:
        database: opens readers.
        grants: decides who may read a grant.
        access: the grants.
        attributes: of actors and resources.
        views: what a grant needs of the registry.
        violations: cases whose orders keep grants suspended.
    """

    def __init__(
        self,
        database: Database,
        grants: GrantReads,
        access: AccessStore,
        attributes: AttributeProvider,
        views: ViewSchemas,
        violations: ViolationStore,
    ) -> None:
        self._database = database
        self._grants = grants
        self._access = access
        self._attributes = attributes
        self._views = views
        self._violations = violations
        self._review = GrantReview(access, views, attributes)

    def permissions(self, actor: Actor, call: RequestContext, grant_id: str) -> Sequence[Permission]:
        """Return for each of `EVENTS` whether the actor may carry it out now. It is a read of the grant.

        Raises:
            RefusedError: the actor may not see the grant; GRANT_FORGED.
            UnavailableError: what decides cannot be read.
        """
        # Before the transaction of the read: of what the decision asks, only the grant is read within it.
        known, _ = read_grant(self._database, self._access, grant_id)
        persons, standing = persons_of(self._attributes, actor, known), self._attributes.standing(actor)

        def read(work: UnitOfWork, act: AuditedAct) -> Sequence[Permission]:
            del act
            grant = self._access.get(work, grant_id)
            return [self._permission(work, actor, event, grant, standing, persons) for event in EVENTS]

        return self._grants.reading(actor, call, grant_id, read)

    def _permission(
        self,
        work: UnitOfWork,
        actor: Actor,
        event: Event,
        grant: Grant,
        standing: Standing | None,
        persons: Mapping[str, str],
    ) -> Permission:
        action = GRANT_RULES[event].action
        if event is Event.APPROVE and grant.state is GrantState.APPROVED:
            action = Action.GRANT_PROVISION
        assert action is not None  # noqa: S101 - EVENTS are offered
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=True, persons=persons)
        if isinstance(decision, Deny):
            return Permission(event=event, reason=decision.reason, message=decision.explanation)
        try:
            self._try(work, actor, event, grant)
        except UnavailableError:
            raise
        except PoolError as error:
            return Permission(event=event, reason=error.reason, message=error.message)
        return Permission(event=event)

    def _try(self, work: UnitOfWork, actor: Actor, event: Event, grant: Grant) -> None:
        now = self._attributes.now(work)
        if event is Event.CONFIRM:
            confirm(grant, by=actor, at=now, holding=self._holding(work, grant))
        elif event is Event.APPROVE:
            if grant.state is not GrantState.APPROVED:
                self._views.check(work, grant)
                approve(grant, by=actor, at=now, holding=self._holding(work, grant))
        else:
            holding = None
            if event is Event.RECTIFIED:
                check_not_held(self._violations, work, grant.id)
                holding = self._holding(work, grant)
            advance(grant, event, by=actor, at=now, reason="-", holding=holding)

    def _holding(self, work: UnitOfWork, grant: Grant) -> Holding:
        return self._review.holding(work, grant)

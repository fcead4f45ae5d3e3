"""Permissions on one grant: what the caller may do with it now, and why not what it may not.

It is the decision, the law of requests and the life cycle themselves, asked without being carried out: the answer of an
act may differ only where the grant, its schema or the caller has changed in between. A reason in words is taken as
given, and so is what else an event has to say: a clause, a list, a certificate.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from exchange.access.decision.grant_rules import GRANT_RULES, Event
from exchange.access.decision.roles import Standing, decide_control
from exchange.access.grants.holding import check_resumption
from exchange.access.grants.life_cycle import approve, confirm
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.approval import ViewSchemas
from exchange.control.grants.reads import GrantReads, read_grant
from exchange.control.grants.rectification import check_not_held
from exchange.control.grants.review import GrantReview
from exchange.control.grants.versions import persons_of
from exchange.control.requests.law import RequestLaw, accounts_of, unsigned
from exchange.requests.details import Details, DisposalCertificate
from exchange.requests.guards import Act
from exchange.requests.model import Event as RequestEvent
from exchange.requests.model import Ground
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.access import Action, Actor, Deny, Grant, GrantState
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError

__all__ = ["EVENTS", "GrantPermissions", "Permission"]

EVENTS: Final = (
    Event.CONFIRM,
    Event.APPROVE,
    Event.WITHDRAW_SIGNATURE,
    Event.NEED_MORE,
    Event.RESUBMIT,
    Event.WITHDRAW,
    Event.EXTEND,
    Event.REJECT,
    Event.DISPUTE,
    Event.UPHOLD,
    Event.OVERTURN,
    Event.SUSPEND,
    Event.RECTIFIED,
    Event.TERMINATE,
    Event.COMPLETE,
    Event.CHANGE_SERVICE,
    Event.TERMINATE_BY_AGREEMENT,
)
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
        law: of requests.
    """

    def __init__(
        self,
        database: Database,
        grants: GrantReads,
        access: AccessStore,
        attributes: AttributeProvider,
        views: ViewSchemas,
        violations: ViolationStore,
        law: RequestLaw,
    ) -> None:
        self._database = database
        self._grants = grants
        self._access = access
        self._attributes = attributes
        self._views = views
        self._violations = violations
        self._law = law
        self._review = GrantReview(access, views, attributes)

    def permissions(self, actor: Actor, call: RequestContext, grant_id: str) -> Sequence[Permission]:
        """Return for each of `EVENTS` whether the actor may carry it out now. It is a read of the grant.

        Raises:
            RefusedError: the actor may not see the grant; GRANT_FORGED.
            UnavailableError: what decides cannot be read.
        """
        # Before the transaction of the read: of what the decision asks, only the grant is read within it.
        known, _ = read_grant(self._database, self._access, grant_id)
        accounts: tuple[str, ...] = ()
        if known is not None:
            with self._database.read() as reader, suppress(CorruptError):
                accounts = accounts_of(self._law.requests.of(reader, known))
        persons, standing = persons_of(self._attributes, actor, known, accounts), self._attributes.standing(actor)

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
        action = _actions(grant).get(event, GRANT_RULES[event].action)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=True, persons=persons)
        if isinstance(decision, Deny):
            return Permission(event=event, reason=decision.reason, message=decision.explanation)
        try:
            self._try(work, actor, event, grant, persons)
        except UnavailableError:
            raise
        except PoolError as error:
            return Permission(event=event, reason=error.reason, message=error.message)
        return Permission(event=event)

    def _try(self, work: UnitOfWork, actor: Actor, event: Event, grant: Grant, persons: Mapping[str, str]) -> None:
        now = self._attributes.now(work)
        signing = event in {Event.CONFIRM, Event.APPROVE}
        holding = self._review.holding(work, grant) if signing or event is Event.RECTIFIED else None
        request = self._law.current(
            work,
            grant,
            sensitive=holding.sensitive if holding is not None and signing else None,
            together=holding.together_with if holding is not None and signing else None,
        )
        asked = _EVENTS.get(grant.state, {}).get(event) or _SIGNED.get(event) or RequestEvent(event.value)
        after = self._law.tried(work, request, _act(asked, actor, now, grant), persons)
        if event is Event.CONFIRM and holding is not None:
            confirm(grant, by=actor, at=now, holding=holding)
        elif event is Event.APPROVE and holding is not None and grant.state is GrantState.SUBMITTED:
            self._views.check(work, grant)
            approve(grant, by=actor, at=now, holding=holding, concludes=not unsigned(after))
        elif event is Event.RECTIFIED and holding is not None:
            check_not_held(self._violations, self._access, work, grant.id)
            check_resumption(holding)


_SIGNED: Final = {Event.CONFIRM: RequestEvent.COUNTERSIGN, Event.APPROVE: RequestEvent.APPROVE}
_EVENTS: Final[Mapping[GrantState, Mapping[Event, RequestEvent]]] = {
    GrantState.COUNTERSIGNED: {Event.APPROVE: RequestEvent.CONCLUDE},
    GrantState.APPROVED: {Event.APPROVE: RequestEvent.PROVISION},
}
_CERTIFICATE: Final = DisposalCertificate(number="-", date="2000-01-01", method="-", person="-")


def _actions(grant: Grant) -> Mapping[Event, Action]:
    """Return the acts of the signatures, which depend on those that are there."""
    if grant.state is GrantState.COUNTERSIGNED:
        return {Event.APPROVE: Action.GRANT_CONCLUDE, Event.CONFIRM: Action.GRANT_COUNTERSIGN}
    return {Event.APPROVE: Action.GRANT_PROVISION} if grant.state is GrantState.APPROVED else {}


def _act(event: RequestEvent, actor: Actor, now: datetime, grant: Grant) -> Act:
    """Return an act that says all that its event requires."""
    details = Details(
        clause="-",
        ground=Ground.OUT_OF_DUTY,
        missing=("-",),
        days=1,
        rectify_until=now + timedelta(days=1),
        reference="-",
        certificate=_CERTIFICATE if event is RequestEvent.COMPLETE else None,
        supplement={"legal_basis": grant.legal_basis},
    )
    return details.act(event, by=actor, at=now, reason="-")

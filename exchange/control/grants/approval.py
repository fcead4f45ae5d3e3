"""Approval of a request: signatures of the provider's head and security officer, conclusion, activation, renewal.

Approval and provision are one call and two entries: the provider agrees, then the view's output schema is registered
under a subject of its own, which is hidden from lists.

An approval is complete once everybody has signed whose signature is due: the head of the provider's sharing office, and
its security officer beside it from level 4 on, for what shows more than the schema's masks, or across zones. Until then
the request is countersigned, and grants nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from exchange.access.decision.roles import decide_control
from exchange.access.grants.holding import Holding
from exchange.access.grants.life_cycle import approve, conclude, confirm, provision, supersede
from exchange.access.grants.renewal import carried_by, check_renewable, renewal
from exchange.access.grants.store import AccessStore, quota_day
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import AuditedAct, Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.parties import check_plaintext, check_zones
from exchange.control.grants.rectification import check_not_held, check_not_referred
from exchange.control.grants.review import GrantReview, decision_data
from exchange.control.grants.submission import ViewCheck
from exchange.control.grants.versions import GrantVersions
from exchange.control.requests.law import RequestLaw, followed, unsigned
from exchange.requests.details import Details
from exchange.requests.model import Event as RequestEvent
from exchange.requests.model import ShareRequest
from exchange.violations.store import ViolationStore
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Action, Actor, Grant, GrantState

__all__ = ["GrantApproval", "ViewSchemas"]


_APPROVING = {GrantState.COUNTERSIGNED: Action.GRANT_CONCLUDE, GrantState.APPROVED: Action.GRANT_PROVISION}


class ViewSchemas(ViewCheck, Protocol):
    """What a grant needs of the registry: its resource's masks, and the schema of its view."""

    def register(self, work: UnitOfWork, grant: Grant) -> int:
        """Derive the view's output schema, register it under a hidden subject, and return its id."""
        ...


class GrantApproval:
    """Signatures on a request, up to the activation of its grant."""

    def __init__(
        self,
        *,
        enforcer: Enforcer,
        access: AccessStore,
        attributes: AttributeProvider,
        views: ViewSchemas,
        violations: ViolationStore,
        review: GrantReview,
        law: RequestLaw,
        versions: GrantVersions,
    ) -> None:
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._views = views
        self._violations = violations
        self._review = review
        self._law = law
        self._versions = versions

    def countersign(self, actor: Actor, call: RequestContext, grant_id: str) -> Grant:
        """Sign a request as the provider's security officer, together with all that its consumer holds.

        It may come before the head's signature or after it; the last one of those that are due approves the request,
        and the head provides.

        Raises:
            RefusedError: the actor may not sign this; SAME_PERSON, it has signed already.
            ConflictError: TRANSITION_NOT_ALLOWED, when no such signature is due.
        """
        grant, proven, persons = self._versions.known(actor, grant_id)
        action = Action.GRANT_CONFIRM
        if grant is not None and grant.state is GrantState.COUNTERSIGNED:
            action = Action.GRANT_COUNTERSIGN
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, str(grant.topic) if grant else grant_id, call, decision) as (work, act):
            grant, holding = self._versions.lock_with_holding(work, grant_id)
            now = self._attributes.now(work)
            request = self._versions.current(work, grant, holding)
            said = Details().act(RequestEvent.COUNTERSIGN, by=actor, at=now)
            request = self._law.advanced(work, act, request, said, persons)
            signed = followed(confirm(grant, by=actor, at=now, holding=holding), request)
            act.note(**decision_data(holding))
            if signed.state is GrantState.COUNTERSIGNED and not unsigned(request):
                self._check_delivery(work, grant)
                said = Details().act(RequestEvent.CONCLUDE, by=actor, at=now)
                request = self._law.advanced(work, act, request, said, persons)
                decided = replace(holding, part=replace(holding.part, grant=signed))
                # One version for one act: the conclusion is the signature's own.
                signed = replace(conclude(signed, by=actor, at=now, holding=decided), version=signed.version)
            self._versions.store(work, act, signed, request)
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
        grant, proven, persons = self._versions.known(actor, grant_id)
        resource = str(grant.topic) if grant else grant_id
        standing = self._attributes.standing(actor)
        action = Action.GRANT_APPROVE if grant is None else _APPROVING.get(grant.state, Action.GRANT_APPROVE)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven, persons=persons)
        with self._enforcer.act(actor, action, resource, call, decision) as (work, act):
            grant, holding = self._versions.lock_with_holding(work, grant_id)
            now = self._attributes.now(work)
            request = self._versions.current(work, grant, holding)
            last = act
            if action is not Action.GRANT_PROVISION:
                grant, request = self._agree(work, act, actor, grant, holding, request, persons, action)
                if grant.state is GrantState.COUNTERSIGNED or actor.department != grant.provider:
                    self._versions.store(work, act, grant, request)
                    return grant
                self._access.put(work, grant, entry_id=act.entry_id, at=now)
                act.grant = reference_to(grant)
                decision = decide_control(
                    actor, Action.GRANT_PROVISION, standing=standing, grant=grant, proven=True, persons=persons
                )
                last = self._enforcer.follow(act, actor, Action.GRANT_PROVISION, resource, call, decision)
            said = Details().act(RequestEvent.PROVISION, by=actor, at=now)
            request = self._law.advanced(work, last, request, said, persons)
            schema_id = self._views.register(work, grant)
            renewed = None
            if grant.renews:
                renewed = self._lock_renewed(work, grant, holding)
                grant = self._inheriting(work, grant, renewed)
            activated = replace(holding, part=replace(holding.part, grant=grant))
            grant = provision(grant, by=actor, at=now, holding=activated, view_schema_id=schema_id)
            last.note(view_schema=schema_id, fields=list(grant.fields), **decision_data(activated))
            last.note(**self._review.sharing_data(work, grant))
            self._versions.store(work, last, grant, request)
            if renewed is not None:
                last.note(renews=grant.renews, **({"stream": grant.stream} if grant.stream else {}))
                if renewed.state is GrantState.ACTIVE:
                    self._supersede(work, act, actor, call, renewed, by=grant.id)
        return grant

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
            request = self._law.advanced(work, act, request, said, persons)
            return conclude(grant, by=actor, at=now, holding=holding), request
        said = Details().act(RequestEvent.APPROVE, by=actor, at=now)
        request = self._law.advanced(work, act, request, said, persons)
        missing = unsigned(request)
        if missing:
            act.note(waits_for=[*missing])
        else:
            said = Details().act(RequestEvent.CONCLUDE, by=actor, at=now)
            request = self._law.advanced(work, act, request, said, persons)
        return followed(approve(grant, by=actor, at=now, holding=holding, concludes=not missing), request), request

    def _check_delivery(self, work: UnitOfWork, grant: Grant) -> None:
        """Check that what is approved can be delivered as it was asked for."""
        self._views.check(work, grant)
        check_zones(self._attributes, work, grant)
        check_plaintext(self._attributes, work, grant)

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

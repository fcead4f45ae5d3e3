"""Submission of share requests (共享申请): file one, or check first whether it could be filed and what it would show.

A check is the submission itself without its row: what it answers, a submission at the same moment does.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from exchange.access.decision.roles import decide_control
from exchange.access.grants.holding import check_ceiling
from exchange.access.grants.life_cycle import RequestTerms, submit
from exchange.access.grants.renewal import check_renewal
from exchange.access.grants.store import AccessStore
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.duty import decide_duty
from exchange.control.grants.parties import check_asks, check_plaintext, check_zones, profile_of
from exchange.control.grants.review import GrantReview, Review, SchemaMaskSource
from exchange.control.quotas import Quotas, check_quota
from exchange.duties.store import DutyStore
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import InvalidError, Reason
from schemas.identifiers import uuid7

__all__ = ["Submission", "ViewCheck"]

_WAITING = frozenset({GrantState.SUBMITTED, GrantState.APPROVED})
_HELD = frozenset({GrantState.ACTIVE, GrantState.SUSPENDED})


class ViewCheck(SchemaMaskSource, Protocol):
    """What a request needs of the registry: its resource's masks, and whether its view suits the schema."""

    def check(self, reader: Reader, grant: Grant) -> None:
        """Check that a grant's fields, masks and filter suit every writer schema of its topic.

        Raises:
            InvalidError: FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID, SCHEMA_INCOMPATIBLE.
        """
        ...


class Submission:
    """Files and checks requests.

    Args:
        pool_id: the pool's name.
        database: opens readers.
        enforcer: decides and records.
        access: the grants.
        attributes: of actors and resources.
        views: of the registry.
        duties: the duty lists.
        quotas: of departments.
        clock: microseconds UTC; gives a request its id.
    """

    def __init__(
        self,
        *,
        pool_id: str,
        database: Database,
        enforcer: Enforcer,
        access: AccessStore,
        attributes: AttributeProvider,
        views: ViewCheck,
        duties: DutyStore,
        quotas: Quotas,
        clock: Callable[[], int],
    ) -> None:
        self._pool_id = pool_id
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._views = views
        self._duties = duties
        self._quotas = quotas
        self._clock = clock
        self._review = GrantReview(access, views, attributes, duties)

    def submit(self, actor: Actor, call: RequestContext, draft: Grant) -> Grant:
        """File a request. Consumer, provider, pool, id and requester are set here, not taken from the draft.

        Raises:
            RefusedError: the actor may not ask for this; OUTSIDE_DUTY, its department has a duty list without it;
                ZONE_MISMATCH, it is in another zone and does not say so; CONTRACTOR_PLAINTEXT; DEPARTMENT_KIND, it is
                no consumer.
            InvalidError: RESOURCE_UNKNOWN, or what the request lacks.
            ConflictError: DEPARTMENT_QUOTA, too many of its requests wait, or it has too many grants.
        """
        draft, decision = self._decided(actor, Action.GRANT_SUBMIT, draft)
        with self._enforcer.act(actor, Action.GRANT_SUBMIT, str(draft.topic), call, decision) as (work, act):
            grant = self._examined(work, actor, draft)
            self._access.put(work, grant, entry_id=act.entry_id, at=self._attributes.now(work))
            act.grant = reference_to(grant)
            if grant.unmasked or grant.filter_discloses:
                act.note(unmasked=list(grant.unmasked), filter_discloses=list(grant.filter_discloses))
            if grant.duty:
                act.note(duty=grant.duty)
            if grant.renews:
                act.note(renews=grant.renews)
            act.note(provider=grant.provider, **self._review.clock_data(work, grant))
        return grant

    def check(self, actor: Actor, call: RequestContext, draft: Grant) -> Review:
        """Return the request as it would be filed, and what its approver would read; nothing is filed.

        It is for those who may file it, and has an entry: it tells which fields a schema has.

        Raises:
            RefusedError, InvalidError, ConflictError: as `submit`.
        """
        draft, decision = self._decided(actor, Action.REQUEST_CHECK, draft)
        with self._enforcer.act(actor, Action.REQUEST_CHECK, str(draft.topic), call, decision) as (work, _):
            return self._review.review(work, self._examined(work, actor, draft))

    def _decided(self, actor: Actor, action: Action, draft: Grant) -> tuple[Grant, Allow | Deny]:
        resource = self._attributes.resource(draft.topic)
        # Of an entry that the department does not see, it learns nothing by asking for it.
        if resource is None or not (resource.in_catalogue or resource.provider == actor.department):
            raise InvalidError(
                Reason.RESOURCE_UNKNOWN,
                f"got the topic {draft.topic}, which is not in the catalogue; see `pool catalogue`",
            )
        with self._database.read() as reader:
            asking = profile_of(self._attributes, reader, actor.department)
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
            first="",
            stream="",
            since=None,
            carried_on="",
            carried=0,
            zone=resource.zone if asking is None else asking.zone,
        )
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=draft, proven=True)
        if decision:
            with self._database.read() as reader:
                decision = decide_duty(reader, self._duties, draft)
        return draft, decision

    def _examined(self, work: UnitOfWork, actor: Actor, draft: Grant) -> Grant:
        """Return the request that a draft becomes, or raise what is wrong with it."""
        self._check_quotas(work, draft.consumer)
        check_asks(profile_of(self._attributes, work, draft.consumer))
        check_zones(self._attributes, work, draft)
        # After the decision: which fields a schema has, only those learn who may ask for them, and with an entry.
        level = self._attributes.level_of(work, draft)
        if level is None:
            raise InvalidError(
                Reason.FIELD_UNKNOWN,
                f"got fields, or a row filter on fields, of which {draft.topic} lacks at least one; see its schema",
            )
        if draft.renews:
            check_renewal(draft, self._access.get(work, draft.renews), self._attributes.now(work))
        terms = RequestTerms(
            purposes={purpose.id for purpose in self._access.purposes(work) if purpose.active},
            level=level,
            masks=self._views.masks(work, draft.topic),
            check_view=partial(self._views.check, work),
        )
        grant = submit(draft, by=actor, at=self._attributes.now(work), terms=terms)
        check_plaintext(self._attributes, work, grant)
        check_ceiling(self._review.holding(work, grant))
        return grant

    def _check_quotas(self, work: UnitOfWork, consumer: str) -> None:
        quotas = self._quotas
        waiting = self._access.count(work, consumer, _WAITING, quotas.requests)
        check_quota("requests", waiting, quotas.requests, "let those that wait be decided on first")
        grants = self._access.count(work, consumer, _WAITING | _HELD, quotas.grants)
        check_quota("grants", grants, quotas.grants, "let those that are not needed be terminated first")

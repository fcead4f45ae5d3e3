"""Submission of share requests (共享申请): file one, or check first whether it could be filed and what it would show.

A check is the submission itself without its row: what it answers, a submission at the same moment does. A request that
is supplemented is examined as one that is filed, by the limits of that moment.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from typing import Protocol

from exchange.access.decision.roles import decide_control
from exchange.access.grants.holding import check_ceiling
from exchange.access.grants.life_cycle import RequestTerms, resubmit, submit
from exchange.access.grants.renewal import check_renewal
from exchange.access.grants.store import AccessStore
from exchange.access.predicates.model import shared_fields
from exchange.access.predicates.store import PredicateStore
from exchange.authorization.attributes import AttributeProvider, reference_to
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.duties.decision import decide_duty
from exchange.control.grants.parties import check_asks, check_plaintext, check_zones, profile_of, seen_resource
from exchange.control.grants.reads import read_grant
from exchange.control.grants.review import GrantReview, Review, SchemaMaskSource
from exchange.control.quotas import Quotas, check_quota
from exchange.control.requests.law import RequestLaw, followed
from exchange.control.requests.stored import request_of, scenario_of
from exchange.duties.store import DutyStore
from exchange.requests.details import Details
from exchange.requests.model import Event, Mode, RequestState, ShareRequest
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.directory.model import ShareType
from schemas.access import Action, Actor, Allow, Deny, Grant, GrantState
from schemas.errors import InvalidError, Reason
from schemas.identifiers import uuid7

__all__ = ["Asked", "Submission", "Supplement", "ViewCheck"]

_WAITING = frozenset(
    {
        GrantState.SUBMITTED,
        GrantState.SUPPLEMENT,
        GrantState.COUNTERSIGNED,
        GrantState.APPROVED,
        GrantState.IN_DISPUTE,
    }
)
_HELD = frozenset({GrantState.ACTIVE, GrantState.SUSPENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request says beside the grant that is asked for.

    Attributes:
        scenario: what the records are used for, in words; empty = purpose and case stand for it.
        mode: how they are shared.
        truthful: who files it states that it is true, lawful and necessary.
    """

    scenario: str = ""
    mode: Mode = Mode.SERVICE
    truthful: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplement:
    """Elements of a request that a supplement writes; None = as it was."""

    legal_basis: str | None = None
    duty: str | None = None
    purpose: str | None = None
    scenario: str | None = None
    fields: tuple[str, ...] | None = None
    mode: Mode | None = None
    expires: datetime | None = None
    truthful: bool | None = None

    def given(self) -> dict[str, object]:
        """Return what it writes, by the names of the request's members."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        said["use_until"] = said.pop("expires")
        return {name: value for name, value in said.items() if value is not None}


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
        law: of requests.
        duties: the duty lists.
        quotas: of departments.
        predicates: that were registered.
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
        law: RequestLaw,
        duties: DutyStore,
        quotas: Quotas,
        predicates: PredicateStore,
        clock: Callable[[], int],
    ) -> None:
        self._pool_id = pool_id
        self._database = database
        self._enforcer = enforcer
        self._access = access
        self._attributes = attributes
        self._views = views
        self._law = law
        self._duties = duties
        self._quotas = quotas
        self._predicates = predicates
        self._clock = clock
        self._review = GrantReview(access, views, attributes, duties)

    def submit(self, actor: Actor, call: RequestContext, draft: Grant, asked: Asked) -> Grant:
        """File a request. Consumer, provider, pool, id and requester are set here, not taken from the draft.

        Raises:
            RefusedError: the actor may not ask for this; NOT_SHARED; OUTSIDE_DUTY, its department has a duty list
                without it; ZONE_MISMATCH, it is in another zone and does not say so; CONTRACTOR_PLAINTEXT;
                DEPARTMENT_KIND, it is no consumer.
            InvalidError: RESOURCE_UNKNOWN, or what the request lacks.
            ConflictError: DEPARTMENT_QUOTA, too many of its requests wait, or it has too many grants.
        """
        draft, decision = self._decided(actor, Action.GRANT_SUBMIT, draft)
        with self._enforcer.act(actor, Action.GRANT_SUBMIT, str(draft.topic), call, decision) as (work, act):
            grant = self._examined(work, actor, draft)
            now = self._attributes.now(work)
            said = Details().act(Event.SUBMIT, by=actor, at=now)
            request = self._law.advanced(work, act, self._drafted(work, grant, asked), said, {})
            self._access.put(work, grant, entry_id=act.entry_id, at=now)
            self._law.put(work, request)
            act.grant = reference_to(grant)
            if grant.unmasked or grant.filter_discloses:
                act.note(unmasked=list(grant.unmasked), filter_discloses=list(grant.filter_discloses))
            if grant.duty:
                act.note(duty=grant.duty)
            if grant.renews:
                act.note(renews=grant.renews)
            act.note(provider=grant.provider)
        return grant

    def check(self, actor: Actor, call: RequestContext, draft: Grant, asked: Asked) -> Review:
        """Return the request as it would be filed, and what its approver would read; nothing is filed.

        It is for those who may file it, and has an entry: it tells which fields a schema has.

        Raises:
            RefusedError, InvalidError, ConflictError: as `submit`.
        """
        draft, decision = self._decided(actor, Action.REQUEST_CHECK, draft)
        with self._enforcer.act(actor, Action.REQUEST_CHECK, str(draft.topic), call, decision) as (work, act):
            grant = self._examined(work, actor, draft)
            said = Details().act(Event.SUBMIT, by=actor, at=self._attributes.now(work))
            self._law.advanced(work, act, self._drafted(work, grant, asked), said, {})
            return self._review.review(work, grant)

    def resubmit(self, actor: Actor, call: RequestContext, grant_id: str, supplement: Supplement) -> Grant:
        """Submit a request again, with what its list of what is missing asks for.

        Raises:
            RefusedError, InvalidError, ConflictError: as `submit`; TRANSITION_NOT_ALLOWED, nothing was asked for.
        """
        grant, proven = read_grant(self._database, self._access, grant_id)
        action, resource = Action.REQUEST_RESUBMIT, grant_id
        standing = self._attributes.standing(actor)
        decision = decide_control(actor, action, standing=standing, grant=grant, proven=proven)
        supplemented = grant
        if grant is not None:
            resource = str(grant.topic)
            supplemented = _supplemented(grant, supplement)
            decision = decision and self._decide_limits(supplemented)
        with self._enforcer.act(actor, action, resource, call, decision) as (work, act):
            grant = self._access.lock_for_update(work, grant_id)
            now = self._attributes.now(work)
            request = self._law.current(work, grant)
            draft = replace(_supplemented(grant, supplement), state=GrantState.DRAFT, approved_by=None)
            draft = replace(draft, approved_at=None, confirmed_by=None, together_with=())
            details = Details(supplement=supplement.given())
            act.note(**details.noted())
            # Nobody is compared with anybody: the consumer's own side supplements.
            request = self._law.advanced(work, act, request, details.act(Event.RESUBMIT, by=actor, at=now), {})
            terms = self._terms(work, draft)
            grant = resubmit(grant, draft, by=actor, at=now, terms=terms)
            self._check_delivery(work, grant)
            grant = followed(grant, request)
            self._access.put(work, grant, entry_id=act.entry_id, at=now)
            self._law.put(work, request)
            act.grant = reference_to(grant)
        return grant

    def _drafted(self, work: UnitOfWork, grant: Grant, asked: Asked) -> ShareRequest:
        resource = self._attributes.resource_of(work, grant.topic)
        share_type = ShareType.CONDITIONAL if resource is None else ShareType(resource.share_type)
        request = request_of(grant, share_type=share_type, level=self._attributes.level_of(work, grant))
        return replace(
            request,
            state=RequestState.DRAFT,
            received_at=None,
            scenario=asked.scenario.strip() or scenario_of(grant),
            mode=asked.mode,
            truthful=asked.truthful,
        )

    def _decide_limits(self, draft: Grant) -> Allow | Deny:
        """Decide whether a resource may be asked for at all, and for this duty."""
        with self._database.read() as reader:
            resource = self._attributes.resource_of(reader, draft.topic)
            if resource is not None and resource.share_type == ShareType.NONE.value:
                return Deny(
                    Reason.NOT_SHARED,
                    f"got a request for {draft.topic}, which is not shared (不予共享), by {resource.refusal_basis}; "
                    "expected a resource that is shared, with or without conditions",
                )
            return decide_duty(reader, self._duties, draft)

    def _decided(self, actor: Actor, action: Action, draft: Grant) -> tuple[Grant, Allow | Deny]:
        resource = seen_resource(self._attributes.resource(draft.topic), draft.topic, actor.department)
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
        return draft, decision and self._decide_limits(draft)

    def _examined(self, work: UnitOfWork, actor: Actor, draft: Grant) -> Grant:
        """Return the request that a draft becomes, or raise what is wrong with it."""
        self._check_quotas(work, draft.consumer)
        grant = submit(draft, by=actor, at=self._attributes.now(work), terms=self._terms(work, draft))
        self._check_delivery(work, grant)
        return grant

    def _terms(self, work: UnitOfWork, draft: Grant) -> RequestTerms:
        check_asks(profile_of(self._attributes, work, draft.consumer))
        check_zones(self._attributes, work, draft)
        # After the decision: which fields a schema has, only those learn who may ask for them, and with an entry.
        level = self._attributes.level_of(work, draft)
        if level is None:
            raise InvalidError(
                Reason.FIELD_UNKNOWN,
                f"got fields, or a row filter on fields, of which {draft.topic} lacks at least one; see its schema",
            )
        self._check_predicates(work, draft)
        if draft.renews:
            check_renewal(draft, self._access.get(work, draft.renews), self._attributes.now(work))
        return RequestTerms(
            purposes={purpose.id for purpose in self._access.purposes(work) if purpose.active},
            level=level,
            masks=self._views.masks(work, draft.topic),
            check_view=partial(self._views.check, work),
        )

    def _check_predicates(self, work: UnitOfWork, draft: Grant) -> None:
        """Check that the predicates that a request names are registered, and tell of its own fields alone."""
        found = self._predicates.confirmed(work, draft.predicates)
        unknown = [one[:80] for one in draft.predicates if one not in found]
        if unknown:
            raise InvalidError(
                Reason.PREDICATE_UNKNOWN,
                f"got the predicate {', '.join(unknown[:10])}, which is not registered; expected confirmed ones, as "
                "`pool hub predicates list` shows them",
            )
        for one in found.values():
            beyond = sorted(one.fields - set(draft.fields))
            if beyond:
                raise InvalidError(
                    Reason.PREDICATE_UNKNOWN,
                    f"got the predicate {one.reference}, which tells of {', '.join(beyond)}; expected each of its "
                    "fields among the requested ones, which are graded and consented to",
                )
        shared = sorted(shared_fields(tuple(found.values())))
        if shared and not draft.disclosure_reason.strip():
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got predicates that tell of one field together: {', '.join(shared)}; expected a disclosure_reason: "
                "two of them bracket its value",
                details={"fields": ",".join(shared)},
            )

    def _check_delivery(self, work: UnitOfWork, grant: Grant) -> None:
        check_plaintext(self._attributes, work, grant)
        check_ceiling(self._review.holding(work, grant))

    def _check_quotas(self, work: UnitOfWork, consumer: str) -> None:
        quotas = self._quotas
        waiting = self._access.count(work, consumer, _WAITING, quotas.requests)
        check_quota("requests", waiting, quotas.requests, "let those that wait be decided on first")
        grants = self._access.count(work, consumer, _WAITING | _HELD, quotas.grants)
        check_quota("grants", grants, quotas.grants, "let those that are not needed be terminated first")


def _supplemented(grant: Grant, supplement: Supplement) -> Grant:
    """Return a grant as supplemented; a mask of a field that is not asked for any more is left out."""
    changed = replace(
        grant,
        legal_basis=grant.legal_basis if supplement.legal_basis is None else supplement.legal_basis,
        duty=grant.duty if supplement.duty is None else supplement.duty,
        purpose=grant.purpose if supplement.purpose is None else supplement.purpose,
        fields=grant.fields if supplement.fields is None else supplement.fields,
        expires=grant.expires if supplement.expires is None else supplement.expires,
    )
    return replace(
        changed,
        masks=tuple((field, mask) for field, mask in grant.masks if field in changed.fields),
        unmasked=(),
        unmasked_reason=grant.unmasked_reason if set(grant.unmasked) & set(changed.fields) else "",
    )

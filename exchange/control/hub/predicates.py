"""Predicate service: what may be asked about a subject, proposed by one person and confirmed by another.

    propose      a new predicate, or the next version of one
    confirm      by another person of the data authority: from then on requests may name it
    reject       by whom it may be confirmed; its proposer may withdraw (reject) it
    predicates   every account reads them, before it asks for a grant

What is confirmed is never changed and never taken back: grants name its version, and end by themselves. The entry of
each step holds the digest of what the predicate says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from exchange.access.decision.roles import decide_control
from exchange.access.predicates.model import (
    MAX_OPEN,
    PredicateState,
    RegisteredPredicate,
    check_predicate,
    definition,
)
from exchange.access.predicates.store import PredicateStore
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, Allow, Deny, RowFilter
from schemas.canonical import Json, digest
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["PredicateService", "ProposedPredicate"]

_MOST_REASON: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedPredicate:
    """What a proposal says; its version is given by the pool."""

    name: str
    library: str
    expression: RowFilter
    answers: str
    replaces: tuple[str, ...] = ()


class PredicateService:
    """Audited acts on registered predicates.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors.
        store: of predicates.
        now: aware.
        new_id: UUIDv7.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: PredicateStore,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._now = now
        self._new_id = new_id

    def propose(self, actor: Actor, call: RequestContext, proposed: ProposedPredicate) -> RegisteredPredicate:
        """Propose a predicate; a name that is there gets its next version.

        Raises:
            RefusedError: the actor may not.
            InvalidError: REQUEST_INVALID, FILTER_INVALID, as `check_predicate`.
            ConflictError: ALREADY_EXISTS, one of this name waits for a decision; TRANSITION_NOT_ALLOWED, too many wait.
        """
        decision = self._decide(actor, Action.HUB_PREDICATE_PROPOSE)
        resource = proposed.name[:63] or "predicate"
        with self._enforcer.act(actor, Action.HUB_PREDICATE_PROPOSE, resource, call, decision) as (work, act):
            predicate = RegisteredPredicate(
                id=self._new_id(),
                name=proposed.name,
                version=1,
                library=proposed.library,
                expression=proposed.expression,
                answers=proposed.answers.strip(),
                replaces=proposed.replaces,
                proposed_by=actor.id,
                proposed_at=self._now(),
            )
            check_predicate(predicate)
            predicate = replace(predicate, version=self._store.next_version(work, predicate.name))
            self._check_open(work, predicate)
            self._store.add(work, predicate)
            act.note(**_noted(predicate))
        return predicate

    def confirm(self, actor: Actor, call: RequestContext, predicate_id: str) -> RegisteredPredicate:
        """Confirm what another person proposed; requests may name it when this returns.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, PERSON_UNKNOWN.
            InvalidError: NOT_FOUND; FILTER_INVALID, it does not suit its library any more.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided.
            CorruptError: ROW_FORGED.
        """
        with self._database.read() as reader:
            predicate = self._get(reader, predicate_id)
        decision = self._decide(actor, Action.HUB_PREDICATE_CONFIRM)
        if isinstance(decision, Allow):
            persons = self._attributes.persons(predicate.proposed_by, actor.id)
            refusal = refuse_second_signature(predicate.proposed_by, actor.id, persons)
            decision = decision if refusal is None else refusal  # a denial is falsy: no `or` here
        action = Action.HUB_PREDICATE_CONFIRM
        with self._enforcer.act(actor, action, predicate.reference, call, decision) as (work, act):
            decided = predicate.decide(confirmed=True, by=actor.id, at=self._now())
            check_predicate(decided)
            self._store.decide(work, decided)
            act.note(proposed_by=predicate.proposed_by, **_noted(decided))
        return decided

    def reject(self, actor: Actor, call: RequestContext, predicate_id: str, reason: str) -> RegisteredPredicate:
        """Reject a proposed predicate, or withdraw one's own.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided.
            CorruptError: ROW_FORGED.
        """
        if not reason.strip() or len(reason) > _MOST_REASON:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got no reason, or one of more than {_MOST_REASON} characters; say why"
            )
        with self._database.read() as reader:
            predicate = self._get(reader, predicate_id)
        decision = self._decide(actor, Action.HUB_PREDICATE_REJECT)
        action = Action.HUB_PREDICATE_REJECT
        with self._enforcer.act(actor, action, predicate.reference, call, decision) as (work, act):
            decided = predicate.decide(confirmed=False, by=actor.id, at=self._now(), reason=reason.strip())
            self._store.decide(work, decided)
            act.note(proposed_by=predicate.proposed_by, reason=reason.strip(), **_noted(decided))
        return decided

    def predicates(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        name: str | None = None,
        library: str | None = None,
        state: PredicateState | None = None,
        before: str = "",
        limit: int = MAX_PAGE,
    ) -> Sequence[RegisteredPredicate | DamagedRow]:
        """List predicates, newest first: older than the one with the id *before*; fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            return self._store.page(reader, name=name, library=library, state=state, before=before, limit=limit)

    def predicate(self, actor: Actor, call: RequestContext, predicate_id: str) -> RegisteredPredicate:
        """Return one predicate.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND.
            CorruptError: ROW_FORGED.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            return self._get(reader, predicate_id)

    def _check_open(self, reader: Reader, predicate: RegisteredPredicate) -> None:
        waiting = self._store.page(reader, state=PredicateState.PROPOSED, limit=MAX_OPEN)
        if len(waiting) >= MAX_OPEN:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"{len(waiting)} proposed predicates wait for a decision already; decide on them first",
            )
        for one in waiting:
            if isinstance(one, RegisteredPredicate) and one.name == predicate.name:
                raise ConflictError(
                    Reason.ALREADY_EXISTS,
                    f"{one.reference} is proposed already, as {one.id}; confirm or reject that one",
                    details={"predicate": one.id},
                )

    def _get(self, reader: Reader, predicate_id: str) -> RegisteredPredicate:
        predicate = self._store.get(reader, predicate_id)
        if predicate is None:
            raise InvalidError(Reason.NOT_FOUND, f"there is no predicate {predicate_id[:64]!r}; list them first")
        return predicate

    def _admit_read(self, actor: Actor, call: RequestContext) -> None:
        decision = self._decide(actor, Action.HUB_PREDICATE_READ)
        self._enforcer.admit(actor, Action.HUB_PREDICATE_READ, "*", call, decision)

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor))


def _noted(predicate: RegisteredPredicate) -> dict[str, Json]:
    return {
        "predicate": predicate.id,
        "version": predicate.version,
        "library": predicate.library,
        "fields": [*sorted(predicate.fields)],
        "replaces": list(predicate.replaces),
        "digest": f"sha256:{digest(definition(predicate)).hex()}",
    }

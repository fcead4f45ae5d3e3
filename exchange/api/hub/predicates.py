"""Control API of registered predicates: proposed by one person, confirmed by another, read by everybody."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from exchange.access.predicates.model import PredicateState, RegisteredPredicate, definition
from exchange.access.view.filter import filter_from_json
from exchange.api.bodies.base import Body, ReasonBody
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.control.hub.predicates import ProposedPredicate
from registry.database.keyset import MAX_PAGE
from schemas.canonical import Json

__all__ = ["router"]

router = APIRouter(prefix="/v1/hub", tags=["hub"], dependencies=[Depends(refuse_unknown)])


class PredicateBody(Body):
    """What a predicate says."""

    name: str = Field(max_length=63, description="by which grants call it, such as alive-80")
    library: str = Field(max_length=40, description="about whose golden records it is, such as population")
    expression: dict[str, object] = Field(description="a row filter, also over age, valid_now and days_to:FIELD")
    answers: str = Field(max_length=200, description="the question in words")
    replaces: list[str] = Field([], description="codes of the certificates in whose place it is answered")

    def to_proposed(self) -> ProposedPredicate:
        """Return it as the pool takes it.

        Raises:
            InvalidError: FILTER_INVALID.
        """
        return ProposedPredicate(
            name=self.name,
            library=self.library,
            expression=filter_from_json(self.expression),  # type: ignore[arg-type]
            answers=self.answers,
            replaces=tuple(self.replaces),
        )


def predicate_json(predicate: RegisteredPredicate) -> dict[str, Json]:
    """Return a predicate with the decision on it; `predicate` is what a grant names."""
    return {
        "id": predicate.id,
        "predicate": predicate.reference,
        **definition(predicate),
        "fields": [*sorted(predicate.fields)],
        "state": str(predicate.state),
        "proposed_by": predicate.proposed_by,
        "proposed_at": predicate.proposed_at.isoformat(),
        "decided_by": predicate.decided_by,
        "decided_at": None if predicate.decided_at is None else predicate.decided_at.isoformat(),
        "reason": predicate.reason,
    }


@router.get("/predicates", response_model=list[Document])
def predicates(
    request: Request,
    who: Caller,
    *,
    name: Annotated[str | None, Query(max_length=63)] = None,
    library: Annotated[str | None, Query(max_length=40)] = None,
    state: PredicateState | None = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List registered predicates, newest first, rejected ones too."""
    found = who.pool.predicates.predicates(
        who.actor, who.call, name=name, library=library, state=state, before=after, limit=limit
    )
    return listed(request, found, limit, document=predicate_json, key=lambda one: one.id)


@router.post("/predicates", status_code=201)
def propose_predicate(who: Caller, body: PredicateBody) -> Document:
    """Propose a predicate, or the next version of one; another person confirms it."""
    return predicate_json(who.pool.predicates.propose(who.actor, who.call, body.to_proposed()))


@router.get("/predicates/{predicate_id}")
def predicate(who: Caller, predicate_id: str) -> Document:
    """Return a predicate."""
    return predicate_json(who.pool.predicates.predicate(who.actor, who.call, predicate_id))


@router.post("/predicates/{predicate_id}/confirmation")
def confirm_predicate(who: Caller, predicate_id: str) -> Document:
    """Confirm a predicate that another person proposed; requests may name it when this returns."""
    return predicate_json(who.pool.predicates.confirm(who.actor, who.call, predicate_id))


@router.post("/predicates/{predicate_id}/rejection")
def reject_predicate(who: Caller, predicate_id: str, body: ReasonBody) -> Document:
    """Reject a predicate, or withdraw one's own."""
    return predicate_json(who.pool.predicates.reject(who.actor, who.call, predicate_id, body.reason))

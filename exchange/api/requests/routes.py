"""Control API of requests as they are decided on: lists, one with its history, a supplement, events."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from exchange.access.decision.grant_rules import Event
from exchange.access.grants.store import GrantOrder, GrantQuery, cursor_behind
from exchange.api.bodies.requests import EventBody, SupplementBody, grant_json
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.control.grants.request_reads import RequestView
from exchange.deadlines.clock import DueState
from registry.database.keyset import MAX_PAGE
from schemas.access import GrantState
from schemas.names import ResourceName

__all__ = ["router"]

router = APIRouter(prefix="/v1/requests", tags=["grants"], dependencies=[Depends(refuse_unknown)])


@router.get("", response_model=list[Document])
def requests(
    request: Request,
    who: Caller,
    state: Annotated[list[GrantState] | None, Query()] = None,
    *,
    consumer: Annotated[str | None, Query(description="internal id of the department that asks")] = None,
    provider: Annotated[str | None, Query(description="internal id of the providing department")] = None,
    resource: Annotated[str | None, Query(description="name of a resource, in any major")] = None,
    due: Annotated[
        DueState | None, Query(description="those with a clock that runs, by its end: overdue, soon, or normal")
    ] = None,
    order: Annotated[GrantOrder, Query(description="id (oldest first), newest, or expires")] = GrantOrder.ID,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the requests that the caller may see, each with its clock and its last event.

    `clock`, `due_at`, `due`: which clock runs (reply, supplement, delivery), until when, and how near that is;
    `waits_for`: offices whose signature is missing. A damaged row is `{"id": …, "status": "damaged"}`.
    """
    query = GrantQuery(
        consumer=consumer,
        provider=provider,
        resource=None if resource is None else ResourceName(resource),
        states=frozenset(state) if state else None,
        order=order,
        after=after,
        limit=limit,
    )
    found = who.pool.request_reads.page(who.actor, who.call, query, due=due)

    def document(one: RequestView) -> Document:
        return one.to_json(history=False)

    def key(one: RequestView) -> str:
        return cursor_behind(order, one.grant.expires, one.grant.id)

    return listed(request, found, limit, document=document, key=key)


@router.get("/{request_id}")
def one_request(who: Caller, request_id: str) -> Document:
    """Return a request with its history: each event with its article, the rule profiles, and whether it was late."""
    return who.pool.request_reads.show(who.actor, who.call, request_id).to_json(history=True)


@router.post("/{request_id}/resubmission")
def resubmit(who: Caller, request_id: str, body: SupplementBody) -> Document:
    """Submit a request again, with what its list of what is missing asks for; what is absent stays as it was."""
    return grant_json(who.pool.grants.resubmit(who.actor, who.call, request_id, body.to_supplement()))


@router.post("/{request_id}/{event}")
def change(who: Caller, request_id: str, event: Event, body: EventBody) -> Document:
    """Carry an event of a request out, as `POST /grants/{id}/{event}` does."""
    details = body.to_details()
    return grant_json(
        who.pool.grants.change(who.actor, who.call, request_id, event, reason=body.reason, details=details)
    )

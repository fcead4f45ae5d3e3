"""API of lineage and coverage: from the catalogue, the grants and the log."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from exchange.api.audit import next_link
from exchange.api.caller import Caller, Document, refuse_unknown
from exchange.control.audit_queries import cursor_text, parse_cursor
from registry.database.keyset import MAX_PAGE
from schemas.names import Topic

__all__ = ["router"]

router = APIRouter(prefix="/v1/reports", tags=["reports"], dependencies=[Depends(refuse_unknown)])


@router.get("/lineage/{topic}")
def lineage(
    who: Caller,
    topic: str,
    field: Annotated[str, Query(description="one field alone", max_length=300)] = "",
) -> Document:
    """Return the lineage of a resource: fields with their source, elements and masks, grants and what was drawn."""
    return who.pool.lineage.of(who.actor, who.call, Topic.parse(topic), field)


@router.get("/lineage/{topic}/batches")
def batches(
    request: Request,
    response: Response,
    who: Caller,
    topic: str,
    after: Annotated[str | None, Query(description="cursor of the page before, from its `Link` header")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> list[Document]:
    """List batches of a resource, newest first: received, drawn by whom, concerned by which erasures."""
    place = None if after is None else parse_cursor(after)
    page = who.pool.lineage.batches(who.actor, who.call, Topic.parse(topic), after=place, limit=limit)
    if page.after is not None:
        response.headers["Link"] = next_link(request, cursor_text(page.after))
    return page.batches


@router.get("/coverage")
def coverage(who: Caller) -> Document:
    """Return published resources by department, theme and division, and what is empty."""
    return who.pool.coverage.report(who.actor, who.call)

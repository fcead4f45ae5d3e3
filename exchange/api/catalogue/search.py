"""Control API of the catalogue's search: words in Chinese and English, and facets."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from exchange.api.bodies.catalogue import entry_json
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from registry.catalogue.search import Hit
from registry.database.keyset import MAX_PAGE
from registry.directory.model import EntryState, ShareType

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[Depends(refuse_unknown)])
_Words = Annotated[str, Query(max_length=100, description="words, all of them; of Chinese any part of a text")]


class _Limits:
    """Facets' values that entries must have."""

    def __init__(
        self,
        provider: Annotated[str | None, Query(description="internal id of the department")] = None,
        share_type: ShareType | None = None,
        level: Annotated[str | None, Query(pattern="^(G[1-4]|IMP)$")] = None,
        state: EntryState | None = None,
        theme: Annotated[str | None, Query(max_length=40, description="id of the list `themes`")] = None,
    ) -> None:
        given = {"provider": provider, "share_type": share_type, "level": level, "state": state, "theme": theme}
        self.values = {name: str(value) for name, value in given.items() if value is not None}


Limits = Annotated[_Limits, Depends(_Limits)]


@router.get("/catalogue/search", response_model=list[Document])
def search(
    request: Request, who: Caller, limits: Limits, q: _Words = "", after: After = "", limit: Limit = MAX_PAGE
) -> Response:
    """Search the catalogue: exact codes, names and titles first, then hits in titles, then the rest; each by topic."""
    behind = Hit.parse(after) if after else None
    found = who.pool.catalogue_search.find(who.actor, who.call, q, limits.values, after=behind, limit=limit)
    response = listed(
        request, found.entries, limit + 1, document=lambda one: entry_json(one[1]), key=lambda one: str(one[0])
    )
    if found.next is not None and "link" not in response.headers:
        query = urlencode({**dict(request.query_params), "after": str(found.next)})
        response.headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
    return response


@router.get("/catalogue/facets")
def facets(who: Caller, limits: Limits, q: _Words = "") -> Document:
    """Count the entries of a search by facet and value. `more`: there are more than were counted."""
    found = who.pool.catalogue_search.facets(who.actor, who.call, q, limits.values)
    return {"counts": {name: dict(counts) for name, counts in found.counts.items()}, "more": found.more}

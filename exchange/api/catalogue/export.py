"""Control API of the catalogue's export as DCAT 3 (DCAT-AP 3.0.1)."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from exchange.api.caller import After, Caller, Limit, refuse_unknown, topic_key
from registry.catalogue.dcat import RdfForm
from registry.database.keyset import MAX_PAGE

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[Depends(refuse_unknown)])
_MEDIA = {RdfForm.TURTLE: "text/turtle; charset=utf-8", RdfForm.JSON_LD: "application/ld+json"}


_SCHEMA = {"schema": {"type": "string"}}


@router.get(
    "/catalogue/dcat",
    response_class=Response,
    responses={200: {"content": {"text/turtle": _SCHEMA, "application/ld+json": _SCHEMA}}},
)
def export(
    request: Request,
    who: Caller,
    form: Annotated[RdfForm, Query(description="turtle or jsonld")] = RdfForm.TURTLE,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """Export the entries with full metadata that are in force, as DCAT 3; a part at a time, each a graph of its own."""
    base = str(request.base_url)
    page = who.pool.catalogue_export.page(who.actor, who.call, form, base=base, after=topic_key(after), limit=limit)
    response = Response(page.text, media_type=_MEDIA[form])
    if page.next is not None:
        query = urlencode({"form": str(form), "limit": limit, "after": str(page.next)})
        response.headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
    return response

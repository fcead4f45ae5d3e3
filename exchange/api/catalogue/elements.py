"""Control API of data elements: the dictionary, lead departments, the report of duplicates."""

from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from exchange.api.bodies.base import Body
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.control.catalogue.element_use import ElementGap
from registry.catalogue.elements import DataElement, Duplicate, ElementUse
from registry.database.keyset import MAX_PAGE
from schemas.access import Level, MaskRule

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["elements"], dependencies=[Depends(refuse_unknown)])


class ElementBody(Body):
    """A data element (数据元)."""

    code: str = Field(description="such as DE00001; forever")
    zh: str
    en: str
    type: str = Field(description="id of the list `item_types`")
    length: int | None = None
    value_domain: str = Field("", description="in words, or the codes of a closed one, such as `1|2|9`")
    unit: str = ""
    level: str = Field("G1", pattern="^(G[1-4]|IMP)$")
    personal: Literal["N", "P", "D"] = "N"
    sensitive: bool = False
    mask: MaskRule = MaskRule.NONE
    standard: str = ""

    def to_element(self) -> DataElement:
        """Return it as the dictionary has it.

        Raises:
            InvalidError: NAME_INVALID or REQUEST_INVALID.
        """
        return DataElement(**self.model_dump(exclude={"level"}), level=Level[self.level])


class LeadBody(Body):
    """The lead department of an element, and why."""

    department: str = Field(description="internal id")
    reason: str


@router.post("/elements", status_code=201)
def define(who: Caller, body: ElementBody) -> Document:
    """Define a data element, or replace its definition; its lead stays."""
    return element_json(who.pool.elements.define(who.actor, who.call, body.to_element()))


@router.get("/elements", response_model=list[Document])
def elements(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the data elements, by code."""
    found = who.pool.elements.elements(who.actor, who.call, after=after, limit=limit)
    return listed(request, found, limit, document=element_json, key=lambda one: one.code)


@router.get("/elements/{code}")
def element(who: Caller, code: str) -> Document:
    """Return a data element, and the entries in force that are its source."""
    found, sources = who.pool.elements.element(who.actor, who.call, code)
    return {**element_json(found), "sources": list(sources)}


@router.get("/elements/{code}/fields", response_model=list[Document])
def fields(request: Request, who: Caller, code: str, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the fields that name a data element, by subject and path: of the newest version of each schema."""
    subject, _, path = after.partition("/")
    found = who.pool.element_use.uses(who.actor, who.call, code, after=(subject, path), limit=limit)
    return listed(request, found, limit, document=_use, key=lambda one: f"{one.subject}/{one.path}")


@router.get("/element-gaps", response_model=list[Document])
def gaps(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """Report the fields that name no data element, or one that they do not fit: of the own department, or of all."""
    found = who.pool.element_use.gaps(who.actor, who.call, after=after, limit=limit)
    response = listed(request, found.gaps, limit + 1, document=_gap, key=lambda one: one.cursor)
    if found.next and "link" not in response.headers:
        query = urlencode({**dict(request.query_params), "after": found.next})
        response.headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
    return response


@router.post("/elements/{code}/lead")
def name_lead(who: Caller, code: str, body: LeadBody) -> Document:
    """Name the lead department: it alone is the element's source. `no_source`: entries that are so no more."""
    found, ended = who.pool.elements.name_lead(
        who.actor, who.call, code, department=body.department, reason=body.reason
    )
    return {**element_json(found), "no_source": list(ended)}


@router.get("/duplicates", response_model=list[Document])
def duplicates(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """Report elements with several sources, sources beside the lead, and items of one name in several departments."""
    found = [one for one in who.pool.elements.duplicates(who.actor, who.call) if _place(one) > after]
    found.sort(key=_place)
    return listed(request, found[:limit], limit, document=_duplicate, key=_place)


def element_json(element: DataElement) -> Document:
    """Return a data element's document."""
    return {
        "code": element.code,
        "version": element.version,
        "zh": element.zh,
        "en": element.en,
        "type": element.type,
        "length": element.length,
        "value_domain": element.value_domain,
        "unit": element.unit,
        "level": element.level.name,
        "personal": element.personal,
        "sensitive": element.sensitive,
        "mask": str(element.mask),
        "standard": element.standard,
        "lead": element.lead,
    }


def _use(one: ElementUse) -> Document:
    return {"subject": one.subject, "path": one.path, "version": one.version}


def _gap(one: ElementGap) -> Document:
    return {"topic": str(one.topic), "path": one.path, "zh": one.zh, "element": one.element, "problem": one.problem}


def _place(one: Duplicate) -> str:
    return f"{one.kind}/{one.element}/{one.name}"[:300]


def _duplicate(one: Duplicate) -> Document:
    return {
        "kind": one.kind,
        "element": one.element,
        "name": one.name,
        "lead": one.lead,
        "entries": [{"topic": str(topic), "provider": provider} for topic, provider in one.entries],
    }

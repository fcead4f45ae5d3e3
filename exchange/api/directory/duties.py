"""API of duty lists (权责清单): list, show, write and retire their items."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from exchange.api.bodies.base import Body, ReasonBody
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.duties.model import DutyItem
from registry.database.keyset import MAX_PAGE

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["duties"], dependencies=[Depends(refuse_unknown)])


class DutyBody(Body):
    """An item of a department's duty list."""

    department: str = Field(description="internal id of the department")
    code: str = Field(description="of the item, unique in the department's list (事项编码)")
    name: str
    legal_basis: str = Field(description="law and article that give the department this duty")
    purposes: list[str] = Field(description="ids of the purposes that belong to it", max_length=50)


@router.get("/duties", response_model=list[Document])
def duties(
    request: Request,
    who: Caller,
    department: Annotated[str | None, Query(description="internal id of the department whose list it is")] = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List items of duty lists, of one department or of all, by department and code."""
    found = who.pool.duties.items(who.actor, who.call, department=department, after=after, limit=limit)
    return listed(request, found, limit, document=_document, key=lambda one: one.id)


@router.post("/duties")
def set_duty(who: Caller, body: DutyBody) -> Document:
    """Write an item of a department's duty list, in place of the one of this code."""
    item = who.pool.duties.set_item(
        who.actor,
        who.call,
        body.department,
        body.code,
        name=body.name,
        legal_basis=body.legal_basis,
        purposes=body.purposes,
    )
    return _document(item)


@router.get("/duties/{department}/{code}")
def duty(who: Caller, department: str, code: str) -> Document:
    """Return an item of a department's duty list."""
    return _document(who.pool.duties.show(who.actor, who.call, department, code))


@router.post("/duties/{department}/{code}/retirement")
def retire_duty(who: Caller, department: str, code: str, body: ReasonBody) -> Document:
    """Retire an item: no later request may name it, and grants that do stay."""
    return _document(who.pool.duties.retire(who.actor, who.call, department, code, reason=body.reason))


def _document(item: DutyItem) -> Document:
    return {
        "id": item.id,
        "department": item.department,
        "code": item.code,
        "name": item.name,
        "legal_basis": item.legal_basis,
        "purposes": list(item.purposes),
        "status": "active" if item.active else "retired",
        "changed_by": item.changed_by,
        "changed_at": item.changed_at.isoformat(),
    }

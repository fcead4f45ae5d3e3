"""API of zones: where departments and resources are."""

from fastapi import APIRouter, Depends

from exchange.api.bodies.base import Body
from exchange.api.bodies.catalogue import entry_json
from exchange.api.caller import Caller, Document, refuse_unknown
from exchange.api.directory.departments import department_json
from registry.directory.model import Zone
from schemas.names import Topic

__all__ = ["router"]

router = APIRouter(prefix="/v1", dependencies=[Depends(refuse_unknown)])


class ZoneBody(Body):
    """The zone into which something moves, and why."""

    zone: Zone
    reason: str


@router.post("/departments/{department}/zone", tags=["departments"])
def move_department(who: Caller, department: str, body: ZoneBody) -> Document:
    """Move a department to another network zone; what it draws from another zone needs a grant that says so."""
    return department_json(
        who.pool.zones.move_department(who.actor, who.call, department, zone=body.zone, reason=body.reason)
    )


@router.post("/catalogue/{topic}/zone", tags=["catalogue"])
def move_resource(who: Caller, topic: str, body: ZoneBody) -> Document:
    """Move a resource to another network zone; who draws it from another zone needs a grant that says so."""
    return entry_json(
        who.pool.zones.move_resource(who.actor, who.call, Topic.parse(topic), zone=body.zone, reason=body.reason)
    )

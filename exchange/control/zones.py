"""Zone service: moves departments and resources to another network zone (政务内网, 政务外网, 互联网).

Records are delivered into another zone under a grant alone that names both zones (`exchange.access.decision.parties`).
A move is thus acknowledged when nothing more can leave by where the department or the resource was before.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from registry.database.unit_of_work import Database
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.model import CatalogueEntry, Department, DepartmentStatus, Zone
from schemas.access import Action, Actor
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = ["ZoneService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneService:
    """Audited moves between zones."""

    database: Database
    enforcer: Enforcer
    attributes: AttributeProvider
    departments: Departments
    catalogue: Catalogue
    sleep: Callable[[float], None] = time.sleep

    def move_department(
        self, actor: Actor, call: RequestContext, department: str, *, zone: Zone, reason: str
    ) -> Department:
        """Move a department: its connectors are in that zone from then on. Its resources stay where they are.

        Raises:
            RefusedError: the actor may not.
            InvalidError: DEPARTMENT_UNKNOWN; REQUEST_INVALID, without a reason.
            ConflictError: VERSION_CONFLICT; TRANSITION_NOT_ALLOWED, it is not active.
        """
        _check_reason(reason)
        with self.database.read() as reader:
            current = self.departments.get(reader, department)
        decision = decide_control(
            actor, Action.DEPARTMENT_CHANGE, standing=self.attributes.standing(actor), department=department
        )
        with self.enforcer.act(actor, Action.DEPARTMENT_CHANGE, department, call, decision) as (work, act):
            if current.status is not DepartmentStatus.ACTIVE:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED, f"the department is {current.status}; only an active one moves"
                )
            act.note(change="zone", zone=str(zone), before=str(current.zone), because=reason)
            moved = self.departments.move(work, department, zone=zone, version=current.version)
        self.sleep(RELEASE_WINDOW)
        return moved

    def move_resource(
        self, actor: Actor, call: RequestContext, topic: Topic, *, zone: Zone, reason: str
    ) -> CatalogueEntry:
        """Move a resource: its provider publishes it from that zone, and consumers of that zone draw it.

        Raises:
            RefusedError: the actor may not.
            InvalidError: RESOURCE_UNKNOWN; REQUEST_INVALID, without a reason.
            ConflictError: see `Catalogue.change`.
        """
        _check_reason(reason)
        with self.database.read() as reader:
            entry = self.catalogue.get(reader, topic)
        decision = decide_control(
            actor, Action.CATALOGUE_ZONE, standing=self.attributes.standing(actor), department=entry.provider
        )
        with self.enforcer.act(actor, Action.CATALOGUE_ZONE, str(topic), call, decision) as (work, act):
            act.note(zone=str(zone), before=str(entry.zone), because=reason)
            moved = self.catalogue.change(work, replace(entry, zone=zone))
        self.sleep(RELEASE_WINDOW)
        return moved


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidError(Reason.REQUEST_INVALID, "got no reason; say why it moves to another zone")

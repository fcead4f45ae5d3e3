"""API of departments: register, list, show, place, name officers, rename, merge, deactivate."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, Field

from exchange.api.bodies.base import Body, ReasonBody
from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.control.departments import Placement, ShownDepartment
from registry.database.keyset import MAX_PAGE
from registry.directory.model import Department, DepartmentKind, GovernmentLevel
from schemas.canonical import Json

__all__ = ["department_json", "router"]

router = APIRouter(prefix="/v1", dependencies=[Depends(refuse_unknown)])


class DepartmentBody(Body):
    """A department to register."""

    uscc: str = Field(description="unified social credit code (统一社会信用代码), 18 characters")
    name: str
    short_name: str
    level: GovernmentLevel
    division_code: str


class RenamingBody(Body):
    """A department's new name."""

    name: str
    short_name: str
    uscc: str | None = Field(None, description="new unified social credit code; unchanged if absent")


class PlacementBody(Body):
    """Where a department is to stand; what is absent stays as it is."""

    parent: str | None = Field(None, description="internal id of the department above it; empty = none")
    kinds: list[DepartmentKind] | None = Field(None, description="what it does in the pool", max_length=5)
    level: GovernmentLevel | None = None
    division_code: str | None = Field(None, description="administrative division (GB/T 2260), 6, 9 or 12 digits")
    contract_ends: AwareDatetime | None = Field(None, description="of a contractor: nobody acts for it from then on")

    def to_placement(self) -> Placement:
        """Return the values."""
        kinds = None if self.kinds is None else tuple(self.kinds)
        return Placement(**{**self.model_dump(), "kinds": kinds})


class OfficersBody(Body):
    """Accounts of a department's officers; empty = none, and who is absent stays."""

    office_head: str | None = Field(None, description="head of the sharing office (政务数据共享工作机构)")
    office_deputy: str | None = None
    security_officer: str | None = None


class MergerBody(Body):
    """The department that has taken over the duties of one that ends, and why it ends."""

    into: str = Field(description="internal id of the successor")
    reason: str


@router.post("/departments", status_code=201, tags=["departments"])
def register_department(who: Caller, body: DepartmentBody) -> Document:
    """Register a department."""
    return department_json(who.pool.administration.register_department(who.actor, who.call, **body.model_dump()))


@router.get("/departments", response_model=list[Document], tags=["departments"])
def departments(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the departments, in the order of their registration."""
    found = who.pool.administration.departments(who.actor, who.call, after=after, limit=limit)
    return listed(request, found, limit, document=department_json, key=lambda one: one.id)


@router.post("/departments/{department}/renaming", tags=["departments"])
def rename_department(who: Caller, department: str, body: RenamingBody) -> Document:
    """Change a department's name, and its credit code if one is given."""
    changed = who.pool.departments.rename(
        who.actor, who.call, department, name=body.name, short_name=body.short_name, uscc=body.uscc
    )
    return department_json(changed)


@router.get("/departments/{department}", tags=["departments"])
def department(who: Caller, department: str) -> Document:
    """Return a department, with those above and under it, and whether its officers' accounts are in use."""
    return _shown_json(who.pool.departments.show(who.actor, who.call, department))


@router.get("/departments/{department}/common-superior", tags=["departments"])
def common_superior(
    who: Caller, department: str, other: Annotated[str, Query(description="internal id of the other department")]
) -> Document:
    """Return the nearest department above both, `null` if there is none (decree 809, Art. 28)."""
    return {"superior": who.pool.departments.common_superior(who.actor, who.call, department, other)}


@router.post("/departments/{department}/placement", tags=["departments"])
def place_department(who: Caller, department: str, body: PlacementBody) -> Document:
    """Change the department above it, its level and division, what it does in the pool, the end of its contract."""
    return department_json(who.pool.departments.place(who.actor, who.call, department, body.to_placement()))


@router.post("/departments/{department}/officers", tags=["departments"])
def name_officers(who: Caller, department: str, body: OfficersBody) -> Document:
    """Name the head and the deputy of its sharing office, and its security officer."""
    return department_json(who.pool.departments.name_officers(who.actor, who.call, department, body.model_dump()))


@router.post("/departments/{department}/merger", tags=["departments"])
def merge_department(who: Caller, department: str, body: MergerBody) -> Document:
    """End a department that merged into another: its accounts and certificates end, the rest goes over to that."""
    changed = who.pool.departments.merge(who.actor, who.call, department, into=body.into, reason=body.reason)
    return department_json(changed)


@router.post("/departments/{department}/deactivation", tags=["departments"])
def deactivate_department(who: Caller, department: str, body: ReasonBody) -> Document:
    """End a department without a successor: its accounts, certificates, requests and grants end with it."""
    return department_json(who.pool.departments.deactivate(who.actor, who.call, department, reason=body.reason))


def _shown_json(shown: ShownDepartment) -> dict[str, Json]:
    """Return a department's document, with those above and under it and whether its officers' accounts are in use."""
    return {
        **department_json(shown.department),
        "superiors": list(shown.superiors),
        "inferiors": list(shown.inferiors),
        "officers_in_use": dict(shown.in_use),
    }


def department_json(department: Department) -> dict[str, Json]:
    """Return a department's document."""
    return {
        "id": department.id,
        "version": department.version,
        "uscc": department.uscc,
        "name": department.name,
        "short_name": department.short_name,
        "level": str(department.level),
        "division_code": department.division_code,
        "zone": str(department.zone),
        "status": str(department.status),
        "successor": department.successor,
        "parent": department.parent,
        "kinds": list(map(str, department.kinds)),
        "contract_ends": None if department.contract_ends is None else department.contract_ends.isoformat(),
        "office_head": department.office_head,
        "office_deputy": department.office_deputy,
        "security_officer": department.security_officer,
    }

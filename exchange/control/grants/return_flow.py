"""Drafts of requests of return flow (回流): the rows of a department's own area, out of a higher level's resource.

What such a request is, `exchange.access.grants.returned` says. A draft is a document that its reader files, changes or
throws away; nothing is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from exchange.access.decision.parties import DepartmentProfile, flow_of
from exchange.access.decision.roles import decide_control
from exchange.access.grants.exposure import SchemaMasks
from exchange.access.grants.returned import division_fields
from exchange.access.view.filter import filter_to_json
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.parties import seen_resource
from exchange.control.grants.review import SchemaMaskSource
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, Level, MaskRule, Prefix
from schemas.audit import Flow
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import Topic

__all__ = ["ReturnFlow", "Wanted"]

_BASIS: Final = "《政务数据共享条例》第二十四条 (decree 809, Art. 24)"
_TOLD: Final = "回流：本行政区域的数据 (return flow: the rows of the department's own area)"
_YEAR: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a department wants of a resource.

    Attributes:
        division: code of the division whose rows it wants (GB/T 2260); empty = those of its whole area.
        field: the division field; empty = the only one of the schema.
        purpose, duty, case: of the request.
    """

    division: str = ""
    field: str = ""
    purpose: str = ""
    duty: str = ""
    case: str = ""


class ReturnFlow:
    """Drafts requests of return flow; nothing is filed.

    Args:
        database: opens readers.
        enforcer: decides and records: a draft tells which fields a schema has.
        attributes: of departments and resources.
        schemas: how schemas mask fields.
        now: aware.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        schemas: SchemaMaskSource,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._schemas = schemas
        self._now = now

    def draft(self, actor: Actor, call: RequestContext, topic: Topic, wanted: Wanted) -> dict[str, Json]:
        """Return a request for the rows of the actor's own area, as `pool request submit` takes it.

        It asks for every field that the schema shows, as the schema masks it, from the resource's first record on, for
        a year.

        Raises:
            RefusedError: the actor may not ask; DEPARTMENT_KIND, its department is not of a lower level within the
                area of the resource's; OTHER_DEPARTMENT, the division is not of its own area.
            InvalidError: RESOURCE_UNKNOWN; FIELD_UNKNOWN, the schema has no division field, or several.
        """
        standing = self._attributes.standing(actor)
        department = actor.department or None
        decision = decide_control(actor, Action.REQUEST_DRAFT, standing=standing, department=department)
        with self._enforcer.act(actor, Action.REQUEST_DRAFT, str(topic), call, decision) as (work, _):
            resource = seen_resource(self._attributes.resource_of(work, topic), topic, actor.department)
            profiles = self._attributes.profiles(work, [resource.provider, actor.department])
            division = _own_division(wanted, profiles.get(resource.provider), profiles.get(actor.department))
            masks = self._schemas.masks(work, topic)
            field = _division_field(masks, wanted.field)
            fields = [name for name, mask in masks.items() if mask.default is not MaskRule.DROP]
            level = self._attributes.level_of_fields(work, topic, [*fields, field]) or Level.G4
        begin = self._now().replace(microsecond=0)
        document: dict[str, Json] = {
            "topic": str(topic),
            "fields": [*fields],
            "row_filter": filter_to_json(Prefix(field, division)),
            "purpose": wanted.purpose,
            "legal_basis": _BASIS,
            "case": wanted.case,
            "not_before": begin.isoformat(),
            "expires": (begin + _YEAR).isoformat(),
            "history": "all",
            "ceiling": level.name,
        }
        if masks[field].stated != MaskRule.NONE:
            document |= {"filter_discloses": [field], "disclosure_reason": _TOLD}
        if wanted.duty:
            document["duty"] = wanted.duty
        return document


def _own_division(wanted: Wanted, provider: DepartmentProfile | None, consumer: DepartmentProfile | None) -> str:
    """Return the prefix of the rows that are wanted.

    Raises:
        RefusedError: DEPARTMENT_KIND, OTHER_DEPARTMENT.
    """
    if provider is None or consumer is None or flow_of(provider, consumer) is not Flow.VERTICAL_DOWN:
        raise RefusedError(
            Reason.DEPARTMENT_KIND,
            "rows return to a department of a lower level, within the area of the one that has them; expected a "
            "resource of a department above yours (decree 809, Art. 24)",
        )
    division = wanted.division or consumer.area
    if not division.isdigit() or not division.startswith(consumer.area):
        raise RefusedError(
            Reason.OTHER_DEPARTMENT,
            f"got the division {division[:20]!r}; expected one of your department's own area, which begins with "
            f"{consumer.area}",
        )
    return division


def _division_field(masks: SchemaMasks, wanted: str) -> str:
    """Return the field by which rows are chosen.

    Raises:
        InvalidError: FIELD_UNKNOWN.
    """
    known = division_fields(masks)
    if wanted in known:
        return wanted
    if not wanted and len(known) == 1:
        return known[0]
    got = f"the field {wanted[:100]!r}" if wanted else "no field"
    raise InvalidError(
        Reason.FIELD_UNKNOWN,
        f"got {got}; expected in `field` a division field of the schema, of which it has: {', '.join(known) or 'none'}",
    )

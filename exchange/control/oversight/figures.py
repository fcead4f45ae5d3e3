"""Figures of supervision (考核指标) and the events for an e-supervision system (电子监察), as a caller may read them.

The data authority and the auditor read those of all departments, a department's sharing office head and security
officer those of their own. A figure says of how many entries of the log it is, and names the entries behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from exchange.access.decision.roles import decide_control
from exchange.audit.oversight.monthly_report import month_bounds
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.kpi.events import SupervisionEvent
from exchange.kpi.facts import Fact
from exchange.kpi.month import month_figures, standing_at
from exchange.kpi.store import EventQuery, FactQuery, KpiStore
from registry.database.unit_of_work import Database, Reader
from registry.directory.departments import Departments
from schemas.access import Action, Actor
from schemas.errors import InvalidError, Reason
from schemas.supervision.kpi import Kpi, Standing, kpis

__all__ = ["FigureService", "FiguresAsked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresAsked:
    """Which figures: a month (YYYY-MM of UTC+8), and a department; None for all that the caller may read."""

    month: str
    department: str | None = None


class FigureService:
    """Reads of figures and events; each is decided on and recorded.

    Args:
        database: opens readers.
        enforcer: decides and records.
        attributes: of actors.
        store: the figures.
        departments: their names.
        pool_id: the pool's.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: KpiStore,
        departments: Departments,
        pool_id: str,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._departments = departments
        self._pool_id = pool_id

    def definitions(self, actor: Actor, call: RequestContext) -> Sequence[Kpi]:
        """Return the definitions of the figures.

        Raises:
            RefusedError: the actor may not read figures.
        """
        self._admit(actor, call, Action.REPORT_READ, "kpi", actor.department or None)
        return kpis()

    def month(self, actor: Actor, call: RequestContext, asked: FiguresAsked) -> dict[str, Any]:
        """Return the figures of a month as a document.

        Raises:
            RefusedError: the actor may not read them.
            InvalidError: REQUEST_INVALID, for another form of the month.
        """
        department = self._admit(actor, call, Action.REPORT_READ, "kpi", asked.department)
        with self._database.read() as reader:
            document = month_figures(self._store, reader, pool=self._pool_id, month=asked.month, department=department)
            names = {one.id: one.short_name or one.name for one in self._departments.all(reader)}
        named = [one["department"] for one in document["departments"]]
        return {**document, "names": {one: names[one] for one in named if one in names}}

    def behind(
        self,
        actor: Actor,
        call: RequestContext,
        asked: FiguresAsked,
        kpi_id: str,
        *,
        after: tuple[int, int],
        limit: int,
    ) -> Sequence[Fact]:
        """Return a page of what is behind a department's figure, in the order of the log.

        Raises:
            RefusedError: the actor may not read it.
            InvalidError: REQUEST_INVALID, for another form of the month, or without a department; NOT_FOUND, there is
                no such figure.
        """
        department = self._admit(actor, call, Action.REPORT_READ, kpi_id, asked.department)
        month_bounds(asked.month)
        kpi = next((one for one in kpis() if one.id == kpi_id), None)
        if kpi is None:
            raise InvalidError(Reason.NOT_FOUND, f"got the figure {kpi_id[:40]!r}; expected one of `pool report kpis`")
        if department is None:
            raise InvalidError(Reason.REQUEST_INVALID, "got no department; expected the one whose figure it is")
        with self._database.read() as reader:
            if kpi.standing:
                return self._behind_standing(reader, kpi, asked.month, department, after, limit)
            measures = [tuple(one.partition(":")[::2]) for one in (kpi.of or kpi.measures)]
            query = FactQuery(
                month=asked.month,
                department=department,
                measures=[(name, detail) for name, detail in measures],
                after=after,
                limit=limit,
            )
            return self._store.facts(reader, query)

    def events(self, actor: Actor, call: RequestContext, query: EventQuery) -> Sequence[SupervisionEvent]:
        """Return a page of events, in the order of the log: of all departments, or of the actor's.

        Raises:
            RefusedError: the actor may not read them.
        """
        department = self._admit(actor, call, Action.SUPERVISION_READ, "events", query.department)
        with self._database.read() as reader:
            return self._store.events(reader, replace(query, department=department))

    def _behind_standing(
        self, reader: Reader, kpi: Kpi, month: str, department: str, after: tuple[int, int], limit: int
    ) -> Sequence[Fact]:
        standing = standing_at(self._store, reader, month, department).get(department, Standing())
        places = standing.unused if kpi.standing in {"unused", "fields_unused"} else standing.in_force
        facts = [
            Fact(
                position=position,
                ordinal=0,
                month=month,
                department=department,
                measure=kpi.standing,
                detail="",
                amount=1,
                at=0,
                grant="",
                entry=entry,
            )
            for position, entry in places
        ]
        return [one for one in facts if (one.position, one.ordinal) > after][:limit]

    def _admit(
        self, actor: Actor, call: RequestContext, action: Action, resource: str, department: str | None
    ) -> str | None:
        """Decide and record a read; return the department whose figures it is of, None for all."""
        asked = department if department is not None else actor.department or None
        decision = decide_control(actor, action, standing=self._attributes.standing(actor), department=asked)
        authorized = self._enforcer.admit(actor, action, resource, call, decision)
        self._enforcer.record_read(authorized, {} if asked is None else {"department": asked})
        return asked

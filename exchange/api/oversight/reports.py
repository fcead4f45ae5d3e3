"""API of reports for supervision (共享监督): figures with the entries behind them, and events."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from exchange.api.caller import After, Caller, Document, Limit, listed, refuse_unknown
from exchange.audit.search.entry_rows import iso_time
from exchange.control.oversight.figures import FiguresAsked
from exchange.kpi.events import EventKind, SupervisionEvent
from exchange.kpi.facts import Fact, month_of
from exchange.kpi.store import EventQuery
from registry.database.keyset import MAX_PAGE
from schemas.errors import InvalidError, Reason
from schemas.supervision.kpi import Kpi

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["reports"], dependencies=[Depends(refuse_unknown)])

Month = Annotated[str, Query(description="YYYY-MM of UTC+8; the current month without it", max_length=20)]
Department = Annotated[str | None, Query(description="internal id; without it, all that the caller may read")]


@router.get("/reports/kpis", response_model=list[Document])
def definitions(request: Request, who: Caller, after: After = "", limit: Limit = MAX_PAGE) -> Response:
    """List the definitions of the figures (考核指标): name, clause and formula in both languages."""
    found = sorted(who.pool.figures.definitions(who.actor, who.call), key=lambda one: one.id)
    found = [one for one in found if one.id > after]
    return listed(request, found[:limit], limit, document=_definition, key=lambda one: one.id)


@router.get("/reports/kpi")
def kpi(who: Caller, month: Month = "", department: Department = None) -> Document:
    """Return the figures of a month, by department, each with the first entries behind it."""
    return who.pool.figures.month(who.actor, who.call, FiguresAsked(month=month or _now(), department=department))


@router.get("/reports/kpi/{kpi_id}/entries", response_model=list[Document])
def entries(
    request: Request,
    who: Caller,
    kpi_id: Annotated[str, Path(description="id of the figure")],
    month: Month = "",
    department: Department = None,
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List the entries behind a department's figure, in the order of the log."""
    asked = FiguresAsked(month=month or _now(), department=department)
    found = who.pool.figures.behind(who.actor, who.call, asked, kpi_id, after=_place(after), limit=limit)
    return listed(request, found, limit, document=_fact, key=_key)


@router.get("/supervision/events", response_model=list[Document])
def events(
    request: Request,
    who: Caller,
    department: Department = None,
    kind: Annotated[EventKind | None, Query(description="kind of the events")] = None,
    since: Annotated[str, Query(description="`sequence` of an event: those from it on", max_length=40)] = "",
    after: After = "",
    limit: Limit = MAX_PAGE,
) -> Response:
    """List supervision events (监察事件) in the order of the log: clocks, overdue items, refusals, uses out of scope.

    The sequence of an event never changes, and those to come are behind it.
    """
    place = _place(after)
    if since and not after:
        position, ordinal = _place(since)
        place = (position, ordinal - 1)
    query = EventQuery(department=department, kind=kind, after=place, limit=limit)
    found = who.pool.figures.events(who.actor, who.call, query)
    return listed(request, found, limit, document=_event, key=_key)


def _now() -> str:
    return month_of(int(datetime.now(UTC).timestamp()) * 1_000_000)


def _place(after: str) -> tuple[int, int]:
    """Return position and ordinal of a cursor.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    if not after:
        return (-1, 0)
    position, _, ordinal = after.partition(".")
    numbers = all(part.isascii() and part.isdigit() for part in (position, ordinal))
    if not numbers or len(position) > 15 or len(ordinal) > 4:  # digits
        raise InvalidError(
            Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
        )
    return (int(position), int(ordinal))


def _key(one: Fact | SupervisionEvent) -> str:
    # Of one width: a reader that compares sequences as texts gets the order of the log.
    return f"{one.position:015d}.{one.ordinal:04d}"


def _definition(one: Kpi) -> Document:
    return {
        "id": one.id,
        "name_zh": one.name["zh"],
        "name_en": one.name["en"],
        "formula_zh": one.formula["zh"],
        "formula_en": one.formula["en"],
        "clause": one.clause,
        "unit": one.unit,
        "measures": list(one.measures),
    }


def _fact(one: Fact) -> Document:
    return {
        "sequence": _key(one),
        "index": one.position,
        "entry": one.entry,
        "measure": one.measure,
        "detail": one.detail,
        "amount": one.amount,
        "time": iso_time(one.at) if one.at else None,
        "grant": one.grant,
    }


def _event(one: SupervisionEvent) -> Document:
    return {
        "sequence": _key(one),
        "time": iso_time(one.at),
        "kind": str(one.kind),
        "department": one.department,
        "action": one.action,
        "resource": one.resource,
        "grant": one.grant,
        "detail": one.detail,
        "rule": one.rule,
        "due": one.due,
        "clause": one.clause,
        "times": one.times,
        "index": one.position,
        "entry": one.entry,
    }

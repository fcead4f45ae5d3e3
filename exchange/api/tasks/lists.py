"""Control API of tasks (待办): what waits for the caller, what is overdue, what changed, due dates as iCalendar."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from exchange.api.caller import After, Caller, Document, refuse_unknown
from exchange.audit.search.entry_rows import iso_time
from exchange.control.audit_queries import cursor_text, parse_cursor
from exchange.control.tasks.changes import TaskChange
from exchange.tasks.icalendar import MEDIA_TYPE
from exchange.tasks.model import Task, TaskKind
from exchange.tasks.worklist import TaskPage
from schemas.errors import InvalidError, Reason

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["tasks"], dependencies=[Depends(refuse_unknown)])
_Limit = Annotated[int, Query(ge=1, le=1_000, description="items of the page at most")]
_PAGE = 100
_YESTERDAY = timedelta(days=1)


@router.get("/tasks", response_model=list[Document])
def waiting(request: Request, who: Caller, after: After = "", limit: _Limit = _PAGE) -> Response:
    """List what waits for an act of the caller, by kind: the acts that the caller may do, and until when."""
    return _page(request, who.pool.tasks.waiting(who.actor, who.call, after=after, limit=limit))


@router.get("/tasks/overdue", response_model=list[Document])
def overdue(request: Request, who: Caller, after: After = "", limit: _Limit = _PAGE) -> Response:
    """List what waits for an act of the caller and should have been done by now."""
    return _page(request, who.pool.tasks.overdue(who.actor, who.call, after=after, limit=limit))


@router.get("/tasks/changes", response_model=list[Document])
def changes(
    request: Request,
    who: Caller,
    since: Annotated[datetime | None, Query(description="aware; without it, a day ago")] = None,
    after: After = "",
    limit: _Limit = _PAGE,
) -> Response:
    """List what changed since an instant among what the caller's role takes part in, newest first."""
    at = datetime.now(UTC) - _YESTERDAY if since is None else since
    if at.utcoffset() is None:
        raise InvalidError(Reason.REQUEST_INVALID, "since: got a time without an offset; expected one such as ...Z")
    place = parse_cursor(after) if after else None
    found = who.pool.tasks.changes(who.actor, who.call, at, after=place, limit=limit)
    following = cursor_text(found[-1].place) if len(found) == limit else ""
    query = {"since": at.isoformat(), "limit": str(limit)}
    return _linked(request, [_change(one) for one in found], following, query)


@router.get(
    "/tasks/calendar",
    response_class=Response,
    responses={200: {"content": {"text/calendar": {"schema": {"type": "string"}}}}},
)
def calendar(who: Caller) -> Response:
    """Return the due dates of the caller's tasks as iCalendar (RFC 5545); it names no person."""
    return Response(who.pool.tasks.calendar(who.actor, who.call), media_type=MEDIA_TYPE)


@router.get("/tasks/{kind}/{task_id}")
def one_task(who: Caller, kind: TaskKind, task_id: str) -> Document:
    """Return one task of the caller: 404 where nothing of this kind and id waits for it."""
    return _task(who.pool.tasks.one(who.actor, who.call, kind, task_id))


def _page(request: Request, page: TaskPage) -> Response:
    given = {name: value for name, value in request.query_params.multi_items() if name != "after"}
    return _linked(request, [_task(one) for one in page.tasks], page.next, given)


def _linked(request: Request, documents: list[Document], following: str, query: dict[str, str]) -> Response:
    response = JSONResponse(documents)
    if following:
        response.headers["link"] = f'<{request.url.path}?{urlencode({**query, "after": following})}>; rel="next"'
    return response


def _task(task: Task) -> Document:
    due = task.due
    return {
        "kind": str(task.kind),
        "id": task.id,
        "title": task.title,
        "state": task.state,
        "acts": list(task.acts),
        "department": task.department,
        "since": None if task.since is None else task.since.isoformat(),
        "due_on": None if due is None else due.on.isoformat(),
        "due_at": None if due is None else due.at.isoformat(),
        "due": None if due is None else str(due.urgency),
        "provisional": None if due is None else due.provisional,
    }


def _change(change: TaskChange) -> Document:
    return {
        "at": iso_time(change.place.at),
        "kind": str(change.kind),
        "action": change.action,
        "resource": change.resource,
        "grant": change.grant,
        "department": change.department,
        "state": change.state,
        "entry": change.entry,
    }

"""REST application: the registry as Confluent's clients, serializers and tools call it, over ASGI.

    from registry.rest.app import create
    app = create(subjects, access, database, identify=…)

There is one way through it. A request's media types are negotiated, its route is found in the routing table, the route
reads its parameters and body, the handler runs in a thread, and what it returns or raises becomes the response:

    negotiation → routing → parameters → [cached] → turn → handler in a thread → response

A route may be answered from memory, on the event loop, where everything that the handler would ask for is cached:
identity, permission and response. It is the same decision on the same data; where anything is missing, too old or to be
recorded, the handler is called (ADR 0043).

Every call is identified and passes access control, which decides and records. `AccessControl` has no default, so an API
without it cannot be built. It chooses which acts leave an entry: every write and every read under a view's subject
(which shows who was granted what) must; other reads need not, since deserializers make them for each id they meet.

A subject is locked in the store, not here. Any number of processes may serve one database: there is no leader to find
and none to wait for.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from registry.database.unit_of_work import Database
from registry.rest.access import AccessControl
from registry.rest.config import ConfigHandlers
from registry.rest.errors import Dialect, HttpError, error_response, http_error_response, internal_error_response
from registry.rest.handlers import Handlers, Identify, IdentifyFromCache, Shared
from registry.rest.negotiation import check_body_headers, media_type_of, path_of, request_id_of
from registry.rest.openapi import document
from registry.rest.requests import DEFAULT_MEDIA_TYPE, read_body
from registry.rest.response_cache import ResponseCache
from registry.rest.routing import Arguments, Route, Router
from registry.rest.schemas import SchemaHandlers
from registry.rest.subjects import SubjectHandlers
from registry.rest.thread_pool import ThreadPool
from registry.subjects.services import SubjectServices
from schemas.access import Role
from schemas.errors import PoolError, Reason, RefusedError

__all__ = ["Identify", "RestApplication", "Turns", "create"]

_log = logging.getLogger(__name__)
_PLAIN = (b"content-type", b"application/json")
_CACHED_LINES = 4_096
_LONGEST_CACHED = 512  # bytes of a path and its query

_Scope = MutableMapping[str, Any]
_T = TypeVar("_T")
_READS_METRICS = (Role.OPERATOR, Role.DATA_AUTHORITY, Role.AUDITOR)
_Message = MutableMapping[str, Any]
Turns = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Any]]
"""Returns what is entered while a request takes a thread, by its ASGI scope."""
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def create(
    subjects: SubjectServices,
    access: AccessControl,
    database: Database,
    *,
    identify: Identify,
    identify_from_cache: IdentifyFromCache = lambda _: None,
    version: str = "1",
    dialect: Dialect = Dialect.CONFLUENT,
    metrics: Callable[[], tuple[bytes, str]] | None = None,
    more: Sequence[Callable[[Shared], Handlers]] = (),
    turns: Turns = lambda _: nullcontext(),
    abandoned: Callable[[], None] = lambda: None,
) -> "RestApplication":
    """Build the application.

    Args:
        subjects: the services behind it.
        access: decides on acts and reads, and records them.
        database: opens readers.
        identify: returns who calls.
        identify_from_cache: returns it without waiting; by default never.
        version: of the product.
        dialect: whose texts errors have where peers contradict each other.
        metrics: returns the process's metrics and their media type; None = `/metrics` is not there.
        more: further groups of handlers (`registry.rest.governance`).
        turns: returns what is entered while a request takes a thread, by its ASGI scope; by default nothing.
        abandoned: called where a client was gone before its request was read.
    """
    shared = Shared(
        subjects=subjects,
        access=access,
        database=database,
        identify=identify,
        identify_from_cache=identify_from_cache,
        responses=ResponseCache(),
        dialect=dialect,
        version=version,
    )
    groups: tuple[Callable[[Shared], Handlers], ...] = (SubjectHandlers, SchemaHandlers, ConfigHandlers, *more)
    routes = [route for group in groups for route in group(shared).routes()]
    described = document(routes, version)
    routes.append(Route("GET", "/openapi.json", lambda _: described, documented=False))
    if metrics is not None:
        routes.append(Route("GET", "/metrics", partial(_metrics, metrics, identify), documented=False))
    return RestApplication(routes, dialect, identify, turns, abandoned)


def _metrics(metrics: Callable[[], tuple[bytes, str]], identify: Identify, request: Request) -> Response:
    actor = identify(request)
    # Counts of the whole pool: a department that reads them before and after a publication counts hidden records.
    if actor.role not in _READS_METRICS:
        raise RefusedError(
            Reason.ROLE_MISSING,
            f"got {actor.role}; metrics count the records of all departments, and are for {', '.join(_READS_METRICS)}",
        )
    body, media_type = metrics()
    return Response(body, headers={"Content-Type": media_type})


class RestApplication:
    """An ASGI application over a routing table.

    Args:
        routes: the table.
        dialect: whose texts errors have.
        identify: returns who calls; asked before more than a part of a body is read.
        turns: returns what is entered while a request takes a thread.
        abandoned: called where a client was gone before its request was read.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        dialect: Dialect,
        identify: Identify,
        turns: Turns = lambda _: nullcontext(),
        abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        self._identify = identify
        self._abandoned = abandoned
        self._turns = turns
        self._router = Router(routes)
        self._dialect = dialect
        self._threads = ThreadPool()
        # Clients repeat their requests: what a line of one means is the same each time. Errors are not cached.
        self._route_of_cached = lru_cache(maxsize=_CACHED_LINES)(self._route_of)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _serve_other(scope, receive, send)
            return
        headers = dict(scope["headers"])
        media_type = media_type_of(headers.get(b"accept", b""))
        response = await self._answer(scope, receive, headers) if media_type else http_error_response(HttpError(406))
        answered = (b"content-type", media_type or DEFAULT_MEDIA_TYPE.encode())
        sent = [answered if one == _PLAIN else one for one in response.raw_headers]
        sent.append((b"x-request-id", request_id_of(headers.get(b"x-request-id", b""))))
        await send({"type": "http.response.start", "status": response.status_code, "headers": sent})
        await send({"type": "http.response.body", "body": response.body})

    def _route_of(self, method: str, raw_path: bytes, query: bytes) -> tuple[Route, Arguments]:
        """Return the route of a request and the arguments of its handler, but for the body.

        Raises:
            HttpError: 404, 405 or 422.
            InvalidError: SUBJECT_INVALID.
        """
        path, query = path_of(raw_path, query)
        route, values = self._router.match(method, path)
        return route, route.arguments(values, query)

    async def _in_thread(self, scope: _Scope, call: Callable[[], _T]) -> _T:
        async with self._turns(scope):
            return await self._threads.run(call)

    async def _answer(self, scope: _Scope, receive: _Receive, headers: dict[bytes, bytes]) -> Response:
        try:
            method: str = scope["method"]
            if method != "GET":
                check_body_headers(method, headers)
            raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
            query: bytes = scope["query_string"]
            short = len(raw_path) + len(query) <= _LONGEST_CACHED
            route, arguments = (self._route_of_cached if short else self._route_of)(method, raw_path, query)
            if route.body is not None:
                request = Request(scope, receive)
                body = await read_body(request, lambda: self._in_thread(scope, partial(self._identify, request)))
                route.check_body(body)
                arguments = {**arguments, "body": body}
            elif route.cached is not None:
                found = route.cached(scope, arguments)
                if found is not None:
                    return found
            return await self._in_thread(scope, partial(_call, route, Request(scope, receive), arguments))
        except HttpError as error:
            return http_error_response(error)
        except PoolError as error:
            return error_response(error, self._dialect)
        except ClientDisconnect:
            self._abandoned()
            _log.debug("client_disconnected")
            return Response(status_code=400)  # the client is gone and receives nothing
        except Exception:  # noqa: BLE001 - a defect in one request must not close the connection without an answer
            _log.exception("unexpected")
            return internal_error_response()


def _call(route: Route, request: Request, arguments: Arguments) -> Response:
    found = route.handler(request, **arguments)
    return found if isinstance(found, Response) else JSONResponse(found, route.status)


async def _serve_other(scope: _Scope, receive: _Receive, send: _Send) -> None:
    """Refuse a WebSocket; acknowledge the server's start and end, at which there is nothing to do."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})

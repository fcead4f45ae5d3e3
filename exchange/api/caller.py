"""Caller of the control API: authentication by bearer token, refusal of what a request must not hold, pages of lists.

A list takes the cursor `after` and a `limit`, and names its next page as `Link: rel="next"` (RFC 8288). It stays a JSON
array. It has at most 1,000 items, and ends early where it would be longer than about 4 MiB; whether there are more
items, only the header tells.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import unquote, urlencode

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.authorization.text_screen import TextFinding, TextScreen
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from schemas.access import Action, Actor
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import Topic

__all__ = [
    "MAX_BYTES",
    "After",
    "Caller",
    "Document",
    "Limit",
    "authenticate",
    "certificate_key",
    "connector_key",
    "listed",
    "refuse_unknown",
    "topic_key",
    "version_key",
]

Document = dict[str, Any]
After = Annotated[str, Query(max_length=300, description='cursor: of the `Link: rel="next"` of the page before')]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="items of the page at most")]
MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a page at most, if it has more than one item."""

_Item = TypeVar("_Item")


async def _body(request: Request) -> bytes:
    return await request.body()


class _Caller:
    """The authenticated caller and the request's context; what it sends holds no personal number."""

    def __init__(self, request: Request, body: Annotated[bytes, Depends(_body)]) -> None:
        pool: Pool = request.app.state.pool
        self.pool = pool
        self.actor = authenticate(pool, request)
        request.app.state.callers.learn(request.headers["authorization"].encode("latin-1"), self.actor)
        request.state.places.acquire(self.actor.id)
        _refuse_zero(request)
        pool.enforcer.check_refusals(self.actor)
        self.call = RequestContext(trace=request.state.trace, client=request.headers.get("user-agent", "")[:100])
        finding = _finding(pool.enforcer.screen, request, body)
        if finding is not None:
            pool.enforcer.refuse_text(self.actor, Action.REQUEST_SCREEN, self.call, finding)


def authenticate(pool: Pool, request: Request) -> Actor:
    """Return who makes a request.

    Raises:
        RefusedError: NO_IDENTITY; what `Pool.authenticate` raises.
        UnavailableError: TOO_MANY_FAILURES.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # Of the connection: what a proxy's header claims could be anybody's claim.
    origin = Origin(Interface.HTTP, source_of(request.client.host if request.client else ""))
    if scheme.lower() != "bearer" or not token:
        with pool.authentications.attempt(origin):
            raise RefusedError(
                Reason.NO_IDENTITY,
                "got no bearer token; send `Authorization: Bearer …` with the token of your account",
            )
    return pool.authenticate(token, origin)


def _refuse_zero(request: Request) -> None:
    """Refuse a zero character in path or query: no text of the database has one, and its driver fails at it.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    sent = (unquote(request.url.path), *(text for pair in request.query_params.multi_items() for text in pair))
    if any("\0" in text for text in sent):
        raise InvalidError(
            Reason.REQUEST_INVALID, "got a zero character (%00) in path or query; expected a text without"
        )


def _finding(screen: TextScreen, request: Request, body: bytes) -> TextFinding | None:
    """Return what is wrong with the texts of a request: in its path, its query or its body.

    Raises:
        InvalidError: REQUEST_INVALID, the body is too deep to be looked at.
    """
    sent: list[tuple[str, Any]] = [("path", unquote(request.url.path)), ("query", dict(request.query_params))]
    sent += [("query", text) for name, text in request.query_params.multi_items() if name != "case"]
    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON is refused as such
        sent.append(("body", json.loads(body) if body else None))
    try:
        return next((found for field, value in sent if (found := screen.document(value, field)) is not None), None)
    except RecursionError:
        raise InvalidError(
            Reason.REQUEST_INVALID, "got a body of hundreds of levels; expected those of its form"
        ) from None


async def refuse_unknown(request: Request) -> None:
    """Refuse what the route would ignore: parameters that it does not have, and a body where it takes none.

    What is ignored, a caller takes for done: a search whose filter is misspelled returns what the filter would hide.
    """
    route: APIRoute = request.scope["route"]
    known = [*_parameters(route.dependant)]
    for name in request.query_params:
        if name not in known:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the parameter {name[:80]!r}; expected {', '.join(known) or 'no parameter'}",
            )
    if route.body_field is None and await request.body() not in {b"", b"{}"}:
        raise InvalidError(Reason.REQUEST_INVALID, "got a body; expected none for this call")


def _parameters(dependant: Dependant) -> Iterator[str]:
    """Yield the names of the parameters of a route and of what it depends on."""
    yield from (one.alias for one in dependant.query_params)
    for one in dependant.dependencies:
        yield from _parameters(one)


Caller = Annotated[_Caller, Depends(_Caller)]


def listed(
    request: Request,
    items: Sequence[_Item | DamagedRow],
    limit: int,
    *,
    document: Callable[[_Item], Any],
    key: Callable[[_Item], str],
) -> JSONResponse:
    """Return a page of a list.

    Args:
        request: of the page; the link to the next one has its parameters.
        items: of the page, as many as *limit* if there may be more; a damaged row is only named.
        limit: of the page.
        document: of an item.
        key: cursor after an item.
    """
    texts: list[str] = []
    size = 0
    for item in items:
        told = item.document() if isinstance(item, DamagedRow) else document(item)
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        size += len(text.encode())
        if texts and size > MAX_BYTES:
            break
        texts.append(text)
    response = _Encoded(",".join(texts))
    if texts and (len(texts) < len(items) or len(items) >= limit):
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
        last = items[len(texts) - 1]
        query = urlencode([*others, ("after", last.cursor if isinstance(last, DamagedRow) else key(last))])
        response.headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
    return response


class _Encoded(JSONResponse):
    """A JSON array whose items are encoded already."""

    def render(self, content: Any) -> bytes:
        return f"[{content}]".encode()


def topic_key(after: str) -> Topic | None:
    """Return the topic of a cursor.

    Raises:
        InvalidError: NAME_INVALID.
    """
    return Topic.parse(after) if after else None


def version_key(after: str) -> int:
    """Return the number of the version of a cursor, 0 without one.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    if not after:
        return 0
    if after.isascii() and after.isdigit() and len(after) < 10:
        return int(after)
    raise InvalidError(
        Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
    )


def certificate_key(after: str) -> tuple[str, str, str]:
    """Return department, connector and serial of a cursor.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    if not after:
        return ("", "", "")
    match after.split("/"):
        case [department, connector, serial]:
            return (department, connector, serial)
        case _:
            raise InvalidError(
                Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
            )


def connector_key(after: str) -> tuple[str, str]:
    """Return department and connector of a cursor.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    if not after:
        return ("", "")
    match after.split("/"):
        case [department, connector]:
            return (department, connector)
        case _:
            raise InvalidError(
                Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
            )

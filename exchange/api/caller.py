"""Caller of the control API: authentication by bearer token, and refusal of what a request must not hold."""

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.authorization.text_screen import TextFinding, TextScreen
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from schemas.access import Action, Actor
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["Caller", "Document", "authenticate", "refuse_unknown"]

Document = dict[str, Any]


async def _body(request: Request) -> bytes:
    return await request.body()


class _Caller:
    """The authenticated caller and the request's context; what it sends holds no personal number."""

    def __init__(self, request: Request, body: Annotated[bytes, Depends(_body)]) -> None:
        pool: Pool = request.app.state.pool
        self.pool = pool
        self.actor = authenticate(pool, request)
        request.state.places.acquire(self.actor.id)
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


def _finding(screen: TextScreen, request: Request, body: bytes) -> TextFinding | None:
    """Return what is wrong with the texts of a request: in its path, its query or its body."""
    sent: list[tuple[str, Any]] = [("path", unquote(request.url.path)), ("query", dict(request.query_params))]
    sent += [("query", text) for name, text in request.query_params.multi_items() if name != "case"]
    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON is refused as such
        sent.append(("body", json.loads(body) if body else None))
    return next((found for field, value in sent if (found := screen.document(value, field)) is not None), None)


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

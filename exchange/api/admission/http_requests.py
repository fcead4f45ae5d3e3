"""ASGI middleware: bounds on requests of the control API, before a route sees them.

    concurrency    requests in all, by source before the caller is known, by account afterwards
    body           read as it comes, up to the limit of its route; beyond 64 KiB only of an authenticated caller
    trace          the request's id, which errors name
    disconnect     a client that goes before its request is read, or has had its turn, ends the request; it is no error

A body that is refused is not read further, and the connection is closed (`exchange.api.admission.http_protocol`).
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from exchange import metrics
from exchange.api.admission.concurrency import ConcurrencyLimiter, Exceeded
from exchange.authorization.request_context import trace_of
from exchange.identity.failure_limiter import source_of
from registry.rest.requests import UNKNOWN_CALLER, read_bounded
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

__all__ = ["BODY_LIMITS", "AccountPlaces", "RequestBounds", "request_limiter"]

_log = structlog.get_logger()
_MIB = 1024 * 1024

BODY_LIMITS: Final[Sequence[tuple[re.Pattern[str], int]]] = (
    (re.compile(r"/v1/catalogue/[^/]+/schemas"), 2 * _MIB),  # a schema's text
    (re.compile(r"/v1/requests"), 2 * _MIB),  # a row filter may list thousands of values
    (re.compile(r".*"), UNKNOWN_CALLER),
)
"""Bytes of a body by path; the first pattern that fits counts."""

_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def request_limiter(requests: int) -> ConcurrencyLimiter:
    """Return the limiter of the control API: an account alone has a quarter of the places, a source three quarters."""
    return ConcurrencyLimiter(requests, {"source": 3.0, "account": 1 / 3})


class AccountPlaces:
    """The places of one request: that of its source, and that of its account once it is known."""

    def __init__(self, limiter: ConcurrencyLimiter, held: ExitStack) -> None:
        self._limiter = limiter
        self._held = held

    def acquire(self, account: str) -> None:
        """Take a place for the account.

        Raises:
            UnavailableError: OVERLOADED, the account has too many requests at once.
        """
        try:
            self._held.enter_context(self._limiter.acquire(account=account))
        except Exceeded as exceeded:
            raise _overloaded(exceeded) from exceeded

    def release(self) -> None:
        """Release the places: the request goes on within other bounds."""
        self._held.close()


class RequestBounds:
    """The middleware.

    Args:
        app: behind it.
        identify: authenticates the caller of a request, or raises; runs in a thread.
        refuse: makes the answer of an error.
        sources: limits requests by source.
        accounts: limits requests by account.
    """

    def __init__(
        self,
        app: _App,
        *,
        identify: Callable[[Request], object],
        refuse: Callable[[Request, PoolError], Response],
        sources: ConcurrencyLimiter,
        accounts: ConcurrencyLimiter,
    ) -> None:
        self._app = app
        self._identify = identify
        self._refuse = refuse
        self._sources = sources
        self._accounts = accounts

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.trace = trace_of(request.headers.get("x-request-id", ""))
        try:
            with ExitStack() as held:
                request.state.places = AccountPlaces(self._accounts, held)
                try:
                    body = await self._admitted(request, held)
                except PoolError as error:
                    await self._refuse(request, error)(scope, receive, send)
                    return
                await self._app(scope, receive if body is None else _replay(body, receive), send)
        except ClientDisconnect:
            # While the body is read, or a turn is waited for: there is nobody to answer. Anybody can provoke it, so its
            # line is for debugging alone, and it is counted.
            metrics.REQUESTS_ABANDONED.labels("http").inc()
            _log.debug("client_disconnected", trace=request.state.trace)

    async def _admitted(self, request: Request, held: ExitStack) -> bytes | None:
        """Take a place for a request, and read its body."""
        source = source_of(request.client.host if request.client else "")
        try:
            held.enter_context(self._sources.acquire(source=source))
        except Exceeded as exceeded:
            raise _overloaded(exceeded) from exceeded
        return await self._body(request)

    async def _body(self, request: Request) -> bytes | None:
        """Read the body; None where the request announces none."""
        headers = request.headers
        length = headers.get("content-length", "0")
        if length == "0" and "transfer-encoding" not in headers:
            return None
        limit = next(limit for path, limit in BODY_LIMITS if path.fullmatch(request.url.path))
        if not length.isdigit() or len(length) > 18 or int(length) > limit:
            raise _too_large(limit)
        return await read_bounded(
            request.stream(),
            limit=limit,
            identify=lambda: run_in_threadpool(self._identify, request),
            too_large=lambda _: _too_large(limit),
        )


def _too_large(limit: int) -> InvalidError:
    metrics.ADMISSION_REFUSED.labels("http", "body").inc()
    return InvalidError(Reason.REQUEST_INVALID, f"got a body too large; expected {limit} bytes at most")


def _overloaded(exceeded: Exceeded) -> UnavailableError:
    metrics.ADMISSION_REFUSED.labels("http", f"requests_{exceeded.kind}").inc()
    whose = {"source": "from your address", "account": "of your account"}.get(exceeded.kind, "at this gateway")
    return UnavailableError(
        Reason.OVERLOADED,
        f"got more requests {whose} at once than it may have; wait for some of them, then try again",
        retry_after=1.0,
    )


def _replay(body: bytes, receive: _Receive) -> _Receive:
    """Return a receive that gives the body as one message, then goes on with what the connection says."""
    left = [body]

    async def again() -> _Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again

"""ASGI middleware: a request of the control API takes a turn of its caller's department before a route sees it.

Who calls is known only once a thread has asked the database. So whose turn it is is taken from what was found out about
the same credentials before; a caller whose credentials are new takes a turn as a caller that is not known, by source.
What is remembered decides about turns alone: each request is authenticated.

The turn begins when the body has been read, and ends when the answer begins: a caller that reads slowly holds none.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from exchange.api.admission.fair_queue import Flow
from exchange.api.admission.scheduler import FairScheduler, flow_of, flow_of_source
from exchange.identity.failure_limiter import source_of
from schemas.access import Actor
from schemas.errors import PoolError

__all__ = ["FairTurns", "KnownCallers"]

_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


_OF_A_CALLER = 16  # credentials of one that are remembered


class KnownCallers:
    """Flows by credentials, of those that were right; the last *capacity* of them. Thread-safe.

    One caller may write its credentials in many ways (spaces of a header, names beside a token), so only its last
    16 are remembered: it cannot have those of others forgotten.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._flows: OrderedDict[bytes, Flow] = OrderedDict()
        self._keys: dict[Flow, list[bytes]] = {}  # oldest first

    def learn(self, credentials: bytes, actor: Actor) -> None:
        """Remember whose credentials these are: a header, or a certificate."""
        key, flow = _digest(credentials), flow_of(actor)
        with self._lock:
            if self._flows.get(key) == flow:
                self._flows.move_to_end(key)
                return
            self._forget(key)
            self._flows[key] = flow
            own = self._keys.setdefault(flow, [])
            own.append(key)
            if len(own) > _OF_A_CALLER:
                self._forget(own[0])
            elif len(self._flows) > self._capacity:
                self._forget(next(iter(self._flows)))

    def _forget(self, key: bytes) -> None:
        flow = self._flows.pop(key, None)
        if flow is not None:
            self._keys[flow].remove(key)
            if not self._keys[flow]:
                del self._keys[flow]

    def flow(self, credentials: bytes | None, scope: Mapping[str, Any]) -> Flow:
        """Return the flow of a request; that of its source, where its credentials are not known."""
        found = self._flows.get(_digest(credentials)) if credentials else None
        if found is not None:
            return found
        client = scope.get("client")
        return flow_of_source(source_of(client[0] if client else ""))


class FairTurns:
    """The middleware.

    Args:
        app: behind it.
        scheduler: of the process.
        callers: what is known of credentials.
        refuse: makes the answer of an error.
        exempt: paths whose requests take their turns themselves, since they wait between them.
    """

    def __init__(
        self,
        app: _App,
        *,
        scheduler: FairScheduler,
        callers: KnownCallers,
        refuse: Callable[[Request, PoolError], Response],
        exempt: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._scheduler = scheduler
        self._callers = callers
        self._refuse = refuse
        self._exempt = exempt

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one request in its turn."""
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        turn = self._scheduler.turn(self._callers.flow(header, scope))

        async def answer(message: _Message) -> None:
            turn.end()
            await send(message)

        try:
            async with turn:
                await self._app(scope, receive, answer)
        except PoolError as error:  # of the queue: the application answers its own
            await self._refuse(Request(scope, receive), error)(scope, receive, send)


def _digest(credentials: bytes) -> bytes:
    return hashlib.sha256(credentials).digest()

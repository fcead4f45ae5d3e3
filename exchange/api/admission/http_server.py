"""HTTP server that bounds connections by source before their TLS handshake, on uvicorn.

uvicorn leaves accepting to the event loop, which knows no bound: an address that opens connections and sends nothing
would use up the process's file descriptors. Here each connection takes a place before its handshake begins, and gives
it back when it is closed:

    source       a share of the places (`exchange.api.admission.concurrency`), and `limits.connections_per_source`
    handshake    10 s
"""

import asyncio
import errno
import socket
import ssl
from typing import Any, Final

import structlog
import uvicorn

from exchange import metrics
from exchange.api.admission.concurrency import ConcurrencyLimiter, Exceeded, Place
from exchange.api.admission.http_protocol import BoundedProtocol
from exchange.identity.failure_limiter import source_of

__all__ = ["HANDSHAKE_SECONDS", "BoundedServer", "connection_limiter"]

_log = structlog.get_logger()
HANDSHAKE_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS = 5.0  # for the end of TLS, in which what a caller still sends is thrown away
_AT_ONCE = 64  # connections that are accepted in one turn of the event loop
_PAUSE = 1.0  # seconds without accepting, where the process has no more file descriptors
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def connection_limiter(connections: int, per_source: int) -> ConcurrencyLimiter:
    """Return the limiter of one listener's connections."""
    return ConcurrencyLimiter(connections, {"source": 3.0}, {"source": per_source})


class BoundedServer(uvicorn.Server):
    """Serves on sockets that are bound.

    Args:
        config: its protocol class is a `BoundedProtocol`.
        listener: name, for metrics.
        connections: of this listener.
    """

    def __init__(self, config: uvicorn.Config, listener: str, connections: ConcurrencyLimiter) -> None:
        super().__init__(config)
        self._listener = listener
        self._connections = connections
        self._handshakes: set[asyncio.Task[None]] = set()
        metrics.LISTENER_CONNECTIONS.labels(listener).set_function(lambda: connections.total)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await self.lifespan.startup()
        self.servers = [_Accepting(one, self) for one in sockets or ()]  # type: ignore[misc]  # what shutdown asks of it
        self.started = True

    def accepted(self, connection: socket.socket, address: Any) -> None:
        """Begin the handshake of a connection, or refuse it."""
        try:
            place = self._connections.acquire(source=source_of(str(address[0])))
        except Exceeded as exceeded:
            metrics.ADMISSION_REFUSED.labels(self._listener, f"connections_{exceeded.kind}").inc()
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._connect(connection, place))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def cancel_handshakes(self) -> None:
        """End what is no connection yet."""
        for task in self._handshakes:
            task.cancel()

    async def _connect(self, connection: socket.socket, place: Place) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> BoundedProtocol:
            made: BoundedProtocol = self.config.http_protocol_class(  # type: ignore[call-arg,assignment]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            made.place = place
            made.listener = self._listener
            return made

        tls = self.config.ssl
        how: dict[str, Any] = {}
        if tls is not None:
            how = {"ssl": tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": _SHUTDOWN_SECONDS}
        try:
            await loop.connect_accepted_socket(protocol, connection, **how)
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            place.release()
            connection.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            metrics.HANDSHAKES_FAILED.labels(self._listener).inc()


class _Accepting:
    """A listening socket; what `uvicorn.Server.shutdown` expects of asyncio's own."""

    def __init__(self, listening: socket.socket, server: BoundedServer) -> None:
        self._listening = listening
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._closed = False
        listening.listen(server.config.backlog)
        listening.setblocking(False)
        self._resume()

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("accept_failed", error=errno.errorcode.get(error.errno, "?"))
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(_PAUSE, self._resume)
                return
            self._server.accepted(connection, address)

    def close(self) -> None:
        """Accept no more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listening.fileno())
            self._server.cancel_handshakes()

    async def wait_closed(self) -> None:
        """Return at once: the server waits for its connections itself."""

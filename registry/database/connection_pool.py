"""Connection pool for PostgreSQL that checks idle connections by their socket, without a round trip.

A server that ends closes its sockets, and a closed socket is detected without a message: it is readable, and an idle
one is not. So taking a connection from the pool costs no round trip, and one that a restart has closed is still never
returned. A connection that was idle for long is tested with a query as well, because a network in between may have
dropped it.

A thread that has a connection and takes a second one (a broker's read within a transaction, a denial that is recorded
on its own) never waits for it. With one limit for all, as many threads as there are connections could each have one and
wait for another forever (a deadlock). So the limit counts threads, not connections.
"""

import select
import threading
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from registry.database.connection import BatchingConnection

__all__ = ["connect"]

# A server behind a network that drops packets is given up within seconds, not after the kernel's quarter of an hour.
_LIMITS = {
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds without an acknowledgement of what was sent
    "keepalives_idle": 15,  # seconds
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_IDLE = 10.0  # seconds without use after which a connection is tested with a query
_TIMEOUT = 30.0  # seconds that a thread waits for its first connection


class _ThreadConnections:
    """One thread's number of connections; another thread may return them."""

    def __init__(self) -> None:
        self.count = 0


class _PerThreadBoundedPool(QueuePool):
    """A pool that limits the number of threads with connections; a thread with one gets more without waiting."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._threads = threading.Semaphore(self.size())
        self._thread = threading.local()
        self._taken: dict[ConnectionPoolEntry, tuple[_ThreadConnections, bool]] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        own: _ThreadConnections | None = getattr(self._thread, "connections", None)
        if own is None:
            own = self._thread.connections = _ThreadConnections()
        is_first = own.count == 0
        if is_first and not self._threads.acquire(timeout=self.timeout()):
            raise sa_exc.TimeoutError(
                f"{self.size()} threads have connections; none returned one within {self.timeout()} s"
            )
        own.count += 1
        try:
            record = super()._do_get()
        except BaseException:
            self._release(own, is_first)
            raise
        self._taken[record] = (own, is_first)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        own, was_first = self._taken.pop(record)
        try:
            super()._do_return_conn(record)
        finally:
            self._release(own, was_first)

    def _release(self, own: _ThreadConnections, was_first: bool) -> None:
        own.count -= 1
        if was_first:
            self._threads.release()


def connect(url: sa.URL, *, connections: int, timeout: float = _TIMEOUT, autocommit: bool = False) -> sa.Engine:
    """Return an engine for a process.

    Args:
        url: of the database.
        connections: maximum number of idle connections, and of threads that have some; what a thread takes beside its
            first one is closed again if it is one too many.
        timeout: seconds that a thread waits for its first one.
        autocommit: for single statements, each a transaction of its own: without BEGIN and COMMIT.
    """
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if autocommit else {}
    arguments: dict[str, Any] = dict(_LIMITS) if autocommit else _LIMITS | {"connection_factory": BatchingConnection}
    engine = sa.create_engine(
        url,
        poolclass=_PerThreadBoundedPool,
        pool_size=connections,
        max_overflow=-1,
        pool_timeout=timeout,
        connect_args=arguments,
        **options,
    )
    event.listen(engine, "checkin", _checked_in)
    event.listen(engine, "checkout", _check_out)
    return engine


def _checked_in(_: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _check_out(connection: Any, record: Any, _: Any) -> None:
    """Refuse a dead connection; the pool then opens another."""
    since = record.info.get("idle_since")
    if since is None:  # new
        return
    try:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if not waiting.poll(0) and time.monotonic() - since < _IDLE:
            return
        previous = connection.autocommit
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = previous
    except connection.Error as error:
        raise sa_exc.DisconnectionError("the server has closed the connection") from error

"""Connection pool of PostgreSQL: checks a connection without a round trip, bounds threads rather than connections.

When a server goes away it closes its ends, and a closed end shows without a message: its socket is readable, where an
idle one has nothing to read. So checking out a connection costs no round trip, and one that a restart has closed is
still never handed out. A connection that was not used for some seconds is checked with a query too, since a network in
between may have dropped it.

A thread that holds a connection and takes a second one (a broker's read within a transaction, a denial that is recorded
in a transaction of its own) never waits for it. If both came from one bounded set, as many threads as there are
connections could each hold one and wait for another: a deadlock. So the bound counts threads, not connections.
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

__all__ = ["create_engine"]

# A server behind a network that drops packets is given up in seconds, not after the kernel's quarter of an hour.
_NETWORK_TIMEOUTS = {
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds without an acknowledgement of what was sent
    "keepalives_idle": 15,  # seconds
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_QUERY_AFTER_IDLE = 10.0  # seconds without use after which a connection is checked with a query
_CHECKOUT_TIMEOUT = 30.0  # seconds


class _ThreadUsage:
    """Number of connections that one thread has checked out; any thread may return them."""

    def __init__(self) -> None:
        self.count = 0


class _PerThreadBoundedPool(QueuePool):
    """Pool that bounds how many threads hold connections; a thread that holds one gets more without waiting."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._threads = threading.Semaphore(self.size())
        self._local = threading.local()
        self._checked_out: dict[ConnectionPoolEntry, tuple[_ThreadUsage, bool]] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        usage: _ThreadUsage | None = getattr(self._local, "usage", None)
        if usage is None:
            usage = self._local.usage = _ThreadUsage()
        first = usage.count == 0
        if first and not self._threads.acquire(timeout=self.timeout()):
            raise sa_exc.TimeoutError(
                f"{self.size()} threads hold connections; none returned its connections within {self.timeout()} s"
            )
        usage.count += 1
        try:
            record = super()._do_get()
        except BaseException:
            self._release(usage, first=first)
            raise
        self._checked_out[record] = (usage, first)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        usage, first = self._checked_out.pop(record)
        try:
            super()._do_return_conn(record)
        finally:
            self._release(usage, first=first)

    def _release(self, usage: _ThreadUsage, *, first: bool) -> None:
        usage.count -= 1
        if first:
            self._threads.release()


def create_engine(
    url: sa.URL, *, connections: int, timeout: float = _CHECKOUT_TIMEOUT, autocommit: bool = False
) -> sa.Engine:
    """Create the engine of a process.

    Args:
        url: of the database.
        connections: kept open at most, and threads that may hold some at once; a further connection of a thread is
            closed on return if it is one too many.
        timeout: seconds that a thread waits for its first connection.
        autocommit: for single statements, each its own transaction: no BEGIN before and no COMMIT after it.
    """
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if autocommit else {}
    connect_args: dict[str, Any] = dict(_NETWORK_TIMEOUTS)
    if not autocommit:
        connect_args["connection_factory"] = BatchingConnection
    engine = sa.create_engine(
        url,
        poolclass=_PerThreadBoundedPool,
        pool_size=connections,
        max_overflow=-1,
        pool_timeout=timeout,
        connect_args=connect_args,
        **options,
    )
    event.listen(engine, "checkin", _on_checkin)
    event.listen(engine, "checkout", _on_checkout)
    return engine


def _on_checkin(_: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _on_checkout(connection: Any, record: Any, _: Any) -> None:
    """Reject a dead connection; the pool then opens another."""
    idle_since = record.info.get("idle_since")
    if idle_since is None:  # opened just now
        return
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if not poll.poll(0) and time.monotonic() - idle_since < _QUERY_AFTER_IDLE:
            return
        autocommit = connection.autocommit
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = autocommit
    except connection.Error as error:
        raise sa_exc.DisconnectionError("the server has closed the connection") from error

"""Connections to PostgreSQL: a pool whose idle connections are looked at, not asked, before they are used.

A server that goes away closes its ends, and the closed end can be seen without a message: its socket has something to
read, where an idle one has nothing. So a connection that is taken from the pool costs no way to the server, and one
that a restart has closed is still never handed out. One that nobody has used for a while is asked as well, since
a network in between may have forgotten it.

Whoever holds a connection and takes a second one (a broker's read within a transaction, a denial that is recorded on
its own) never waits for it. Were both taken from one bounded lot, as many callers as there are connections could each
hold one and wait for another, forever. So the bound counts the callers, not their connections.
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

# A server behind a network that swallows packets is given up in seconds, not when the kernel's quarter of an hour ends.
_LIMITS = {
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds without an acknowledgement of what was sent
    "keepalives_idle": 15,  # seconds
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_IDLE = 10.0  # seconds without use after which a connection is asked
_PATIENCE = 30.0  # seconds that a caller waits for a place


class _Held:
    """One thread's number of connections, given back by whichever thread."""

    def __init__(self) -> None:
        self.count = 0


class _PerThreadBoundedPool(QueuePool):
    """A pool that bounds how many threads hold connections; one that holds one gets more without waiting."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._places = threading.Semaphore(self.size())
        self._thread = threading.local()
        self._taken: dict[ConnectionPoolEntry, tuple[_Held, bool]] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        held: _Held | None = getattr(self._thread, "held", None)
        if held is None:
            held = self._thread.held = _Held()
        takes = held.count == 0
        if takes and not self._places.acquire(timeout=self.timeout()):
            raise sa_exc.TimeoutError(f"{self.size()} threads hold connections; none let go in {self.timeout()} s")
        held.count += 1
        try:
            record = super()._do_get()
        except BaseException:
            self._leave(held, takes)
            raise
        self._taken[record] = (held, takes)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        held, took = self._taken.pop(record)
        try:
            super()._do_return_conn(record)
        finally:
            self._leave(held, took)

    def _leave(self, held: _Held, took: bool) -> None:
        held.count -= 1
        if took:
            self._places.release()


def connect(url: sa.URL, *, connections: int, patience: float = _PATIENCE, single: bool = False) -> sa.Engine:
    """Make an engine of a process.

    Args:
        url: of the database.
        connections: kept open at most, and threads that may hold some at once; what a thread takes beside its first
            one is closed again where it is one too many.
        patience: seconds that a thread waits for its first one.
        single: for single statements, each its own transaction: nothing is begun before and nothing ended after it.
    """
    more: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if single else {}
    how: dict[str, Any] = dict(_LIMITS) if single else _LIMITS | {"connection_factory": BatchingConnection}
    engine = sa.create_engine(
        url,
        poolclass=_PerThreadBoundedPool,
        pool_size=connections,
        max_overflow=-1,
        pool_timeout=patience,
        connect_args=how,
        **more,
    )
    event.listen(engine, "checkin", _checked_in)
    event.listen(engine, "checkout", _check_out)
    return engine


def _checked_in(_: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _check_out(connection: Any, record: Any, _: Any) -> None:
    """Refuse a dead connection; the pool then makes another."""
    since = record.info.get("idle_since")
    if since is None:  # made just now
        return
    try:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if not waiting.poll(0) and time.monotonic() - since < _IDLE:
            return
        usual = connection.autocommit
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = usual
    except connection.Error as error:
        raise sa_exc.DisconnectionError("the server has closed the connection") from error

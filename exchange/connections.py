"""Connections to PostgreSQL: a pool whose idle connections are looked at, not asked, before they are used.

A server that goes away closes its ends, and the closed end can be seen without a message: its socket has something to
read, where an idle one has nothing. So a connection that is taken from the pool costs no way to the server, and one
that a restart has closed is still never handed out. One that nobody has used for a while is asked as well, since
a network in between may have forgotten it.
"""

import select
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import exc as sa_exc

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


def connect(url: sa.URL, *, connections: int) -> sa.Engine:
    """Make the engine of a process.

    Args:
        url: of the database.
        connections: kept open at most; as many more for a moment.
    """
    engine = sa.create_engine(url, pool_size=connections, max_overflow=connections, connect_args=dict(_LIMITS))
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
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except connection.Error as error:
        raise sa_exc.DisconnectionError("the server has closed the connection") from error

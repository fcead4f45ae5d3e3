"""Startup retry: wait, with a timeout, for a database or a broker that is itself still starting, and log it."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from registry.database.errors import connection_failure
from schemas.errors import Reason, UnavailableError

__all__ = ["STARTUP_TIMEOUT", "retry_until_available"]

STARTUP_TIMEOUT = 60.0  # seconds
_TRANSIENT = frozenset({Reason.DATABASE_UNAVAILABLE, Reason.BROKER_UNAVAILABLE, Reason.OVERLOADED})
_LOG_PERIOD = 10.0  # seconds

_Result = TypeVar("_Result")
_log = structlog.get_logger()


def retry_until_available(
    act: Callable[[], _Result],
    *,
    timeout: float = STARTUP_TIMEOUT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> _Result:
    """Return the result of *act*; retry each second while the database or the broker is unavailable.

    A machine that boots starts everything at once, and a restart of PostgreSQL must not end a gateway that happens to
    start beside it.

    Args:
        act: may be repeated after it has failed.
        timeout: seconds.
        clock: monotonic seconds.
        sleep: waits so many seconds.

    Raises:
        UnavailableError: the last one, when the timeout is over; every other error at once.
    """
    deadline = clock() + timeout
    next_log = clock()
    while True:
        try:
            return act()
        except UnavailableError as error:
            now = clock()
            if error.reason not in _TRANSIENT or now >= deadline:
                raise
            if now >= next_log:
                _log.warning(
                    "start_waits",
                    reason=error.reason,
                    message=error.message,
                    seconds=round(deadline - now),
                    said=connection_failure(error),
                )
                next_log = now + _LOG_PERIOD
        sleep(1.0)

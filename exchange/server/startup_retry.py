"""Starting beside a database or a broker that is itself still starting: wait for it, and say so."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from registry.database.errors import refusal
from schemas.errors import Reason, UnavailableError

__all__ = ["PATIENCE", "retry_until_available"]

PATIENCE = 60.0  # seconds; whoever has not come by then is not on the way
_AWAY = frozenset({Reason.DATABASE_UNAVAILABLE, Reason.BROKER_UNAVAILABLE, Reason.OVERLOADED})
_SAID_AGAIN = 10.0  # seconds

_Result = TypeVar("_Result")
_log = structlog.get_logger()


def retry_until_available(
    act: Callable[[], _Result],
    *,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> _Result:
    """Do what a start needs, again each second while the database or the broker is away.

    A machine that boots starts everything at once, and a restart of PostgreSQL must not be the end of a gateway that
    happens to start beside it.

    Args:
        act: may be done again after it has failed.
        patience: seconds.
        clock: seconds that only rise.
        sleep: wait so many seconds.

    Raises:
        UnavailableError: the last one, when the patience is over; every other error at once.
    """
    give_up = clock() + patience
    say = clock()
    while True:
        try:
            return act()
        except UnavailableError as error:
            now = clock()
            if error.reason not in _AWAY or now >= give_up:
                raise
            if now >= say:
                _log.warning(
                    "start_waits",
                    reason=error.reason,
                    message=error.message,
                    seconds=round(give_up - now),
                    said=refusal(error),
                )
                say = now + _SAID_AGAIN
        sleep(1.0)

"""Process supervisor of the embedded PostgreSQL: starts it again when it has ended, and gives up aloud.

The server ends when its disk is full, when it is killed, or when the kernel takes its memory. The process that owns it
(`exchange.server.embedded_postgres`: exactly one holds the lock of the folder) looks once a second. It starts the
server again at once, then with pauses that double from half a second to half a minute, as long as `restart_seconds` of
the configuration allow. Then `/livez` answers 503, and the process ends with the exit code `GAVE_UP`, so that the init
system restarts it, or tells somebody.

Nothing acknowledged is lost by a restart: PostgreSQL recovers what was committed from its write-ahead log.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from exchange import metrics
from exchange.server.supervision.restart_policy import RestartPolicy
from schemas.errors import PoolError

__all__ = ["GAVE_UP", "PostgresSupervisor", "Server"]

GAVE_UP = 75
"""Exit code of a process that has given its database up: EX_TEMPFAIL of sysexits.h."""

_PERIOD = 1.0  # seconds between two looks
_FAREWELL = 5.0  # seconds for which `/livez` answers 503 before the process ends
_log = structlog.get_logger()


class Server(Protocol):
    """The server that is supervised."""

    def running(self) -> bool:
        """Return whether its process is alive."""
        ...

    def restart(self) -> None:
        """Start it again.

        Raises:
            UnavailableError: it does not start.
        """
        ...


class PostgresSupervisor:
    """Supervises one server, turn by turn.

    Args:
        server: owned by this process.
        bound: seconds of an outage after which it is given up.
        clock: monotonic seconds.
    """

    def __init__(self, server: Server, bound: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._policy = RestartPolicy(bound)
        self._clock = clock
        self.gave_up = False

    def turn(self) -> float:
        """Look once, and make an attempt where the server has ended; return the seconds until the next turn."""
        now = self._clock()
        if self._server.running():
            self._policy.found_running(now)
            return _PERIOD
        first = not self._policy.outage(now)
        self._policy.found_dead(now)
        if first:
            _log.error("embedded_postgres_ended")
        if self._policy.is_over(now):
            self.gave_up = True
            _log.critical(
                "embedded_postgres_given_up", attempts=self._policy.attempts, seconds=round(self._policy.outage(now))
            )
            return 0.0
        wait = self._policy.wait(now)
        if wait:
            return min(wait, _PERIOD)
        try:
            self._server.restart()
        except PoolError as error:
            metrics.POSTGRES_RESTARTS.labels("failed").inc()
            self._policy.attempted(self._clock(), succeeded=False)
            _log.error(
                "embedded_postgres_restart_failed",
                reason=error.reason,
                message=error.message,
                attempts=self._policy.attempts,
                seconds=self._policy.pause(),
            )
            return self._policy.pause()
        metrics.POSTGRES_RESTARTS.labels("started").inc()
        self._policy.attempted(self._clock(), succeeded=True)
        _log.warning("embedded_postgres_restarted", attempts=self._policy.attempts)
        return _PERIOD

    def supervise(self, give_up: Callable[[], object], stop: threading.Event) -> None:
        """Take turns until the process ends; call *give_up* once the server is given up."""
        while not stop.is_set():
            pause = self.turn()
            if self.gave_up:
                stop.wait(_FAREWELL)
                give_up()
                return
            stop.wait(pause)

"""Restart policy: exponential back-off between attempts to start a server again, and a bound after which to give up.

Pure: the time, in monotonic seconds, is a parameter.

An outage lasts from the moment at which the server was found dead until it has run for `STABLE` seconds. One that dies
again before does not begin a new outage, so the pauses go on growing, and a server that dies at each start is given up
as one that does not start.
"""

from dataclasses import dataclass

__all__ = ["STABLE", "RestartPolicy"]

FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 30.0  # seconds
STABLE = 5.0  # seconds that a server has to run until an outage is over


@dataclass
class RestartPolicy:
    """The state of one server.

    Args:
        bound: seconds of an outage after which no further attempt is made.
    """

    bound: float
    _since: float | None = None  # begin of the outage
    _started: float | None = None  # time of the last start that succeeded
    _attempts: int = 0
    _attempted: float = 0.0  # when the last one ended

    def found_running(self, now: float) -> None:
        """Note that the server runs."""
        if self._since is not None and (self._started is None or now - self._started >= STABLE):
            self._since, self._started, self._attempts = None, None, 0

    def found_dead(self, now: float) -> None:
        """Note that the server does not run."""
        if self._since is not None and self._started is not None and now - self._started >= STABLE:
            self._since, self._attempts = None, 0
        if self._since is None:
            self._since = now
        self._started = None

    def attempted(self, now: float, *, succeeded: bool) -> None:
        """Note the outcome of an attempt to start it."""
        self._attempts += 1
        self._attempted = now
        if succeeded:
            self._started = now

    @property
    def attempts(self) -> int:
        """Return the number of attempts of this outage."""
        return self._attempts

    def pause(self) -> float:
        """Return the seconds to wait before the next attempt: 0 before the first, then doubled each time."""
        if not self._attempts:
            return 0.0
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._attempts - 1, 16)))

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt may be made, also where the last one succeeded for a moment."""
        return max(0.0, self._attempted + self.pause() - now) if self._attempts else 0.0

    def outage(self, now: float) -> float:
        """Return the seconds that the outage has lasted; 0 without one."""
        return 0.0 if self._since is None else now - self._since

    def is_over(self, now: float) -> bool:
        """Return whether the outage has lasted longer than the bound."""
        return self.outage(now) > self.bound

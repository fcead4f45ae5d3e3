"""Clock of this process: the only module that reads the system time.

The clock of a process follows the machine's, but for a jump ahead: where the machine's clock goes ahead of the time
that has passed (CLOCK_BOOTTIME, which a suspended machine counts too) by more than `TOLERANCE`, the jump is held. The
process then goes on with the time that has passed, so that no entry, receipt or checkpoint carries a time of the
future that the log could never take back. A jump is held until the machine's clock is back, or until the watch of the
log takes it for right (`exchange.server.supervision.clock_check`). A step back is followed: the sequencer refuses it.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["CLOCK", "TOLERANCE", "SteadyClock", "microseconds", "utc_now"]

TOLERANCE: Final = 5_000_000
"""Microseconds by which two clocks may differ."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SteadyClock:
    """A clock that holds jumps ahead. Thread-safe.

    Args:
        machine: the machine's clock, microseconds since 1970 UTC.
        passed: microseconds that have passed since some moment; never goes back.
    """

    def __init__(self, machine: Callable[[], int], passed: Callable[[], int]) -> None:
        self.machine = machine
        self._passed = passed
        self._lock = threading.Lock()
        self._offset = machine() - passed()  # of the machine's clock that is followed

    def now(self) -> int:
        """Return the time, microseconds since 1970 UTC."""
        return self._read()[0]

    def ahead(self) -> int:
        """Return the microseconds by which a jump ahead is held; 0 where none is."""
        return self._read()[1]

    def accept(self) -> None:
        """Take the machine's clock for right."""
        with self._lock:
            self._offset = self.machine() - self._passed()

    def _read(self) -> tuple[int, int]:
        # Between two readings the thread may have to wait for long, so each offset is known within bounds.
        before = self._passed()
        machine = self.machine()
        after = self._passed()
        least, most = machine - after, machine - before
        with self._lock:
            if least > self._offset + TOLERANCE:
                return after + self._offset, least - self._offset
            self._offset = min(max(self._offset, least), most)
        return machine, 0


def _machine() -> int:
    return time.time_ns() // 1_000


def _passed() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000


CLOCK: Final = SteadyClock(_machine, _passed)
"""Of this process."""


def microseconds() -> int:
    """Return the time of this process's clock: microseconds since 1970 UTC."""
    return CLOCK.now()


def utc_now() -> datetime:
    """Return the time of this process's clock, aware."""
    return _EPOCH + timedelta(microseconds=CLOCK.now())

"""Log watch: a thread that looks once a second whether the log is signed and the clocks agree; tells the serving guard.

The checkpoint in the log's folder is read before the store's. The sequencer writes the store first, so an honest store
is never behind the folder; a restored older one is. On a host without the folder, the age of the unsigned entries
shows that nobody signs.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from exchange.audit.store import SigningState
from exchange.authorization.serving import ServingGuard
from exchange.server.clock import SteadyClock
from exchange.server.supervision.clock_check import ClockReading, clock_fault, is_synchronised
from exchange.server.supervision.signing import SigningMonitor
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = ["LogWatch"]

_PERIOD = 1.0  # seconds
_START = 10.0  # seconds that a start waits for the sequencer to sign what an earlier process has left
_log = structlog.get_logger()


class LogWatch:
    """Watches one log.

    Args:
        read: the state of the store.
        folder: of the log; it need not exist here.
        guard: is told what was found.
        bound: seconds that an entry may wait for its signature.
        independent: whether the store's clock is that of another machine.
        clock: of this process.
    """

    def __init__(
        self,
        read: Callable[[], SigningState],
        folder: Path,
        guard: ServingGuard,
        bound: float,
        *,
        independent: bool,
        clock: SteadyClock,
    ) -> None:
        self._read = read
        self._checkpoint = folder / "checkpoint"
        self._guard = guard
        self._monitor = SigningMonitor(bound, time.monotonic())
        self._lock = threading.Lock()
        self._independent = independent
        self._clock = clock
        self.clock_fault: PoolError | None = None  # as of the last look
        self.database: PoolError | None = UnavailableError(Reason.DATABASE_UNAVAILABLE, "it was not asked yet")
        self.looked = time.monotonic()  # when the last look ended

    @property
    def fault(self) -> PoolError | None:
        """Return what is wrong with the log, as of the last look."""
        return self._guard.fault

    def sequencer_reported(self, error: PoolError | None) -> None:
        """Take the outcome of a step of the sequencer in this process."""
        with self._lock:
            self._monitor.sequencer_reported(error)

    def age(self) -> float:
        """Return the seconds for which the oldest unsigned entry has waited."""
        with self._lock:
            return self._monitor.age(time.monotonic())

    def look(self) -> PoolError | None:
        """Look once; return what is wrong with the log."""
        covered = self._size_in_folder()
        asked, database = self._clock.machine(), None
        try:
            state = self._read()
        except PoolError as error:
            self.database = error
            with self._lock:
                fault = self._monitor.no_answer(time.monotonic())
        else:
            self.database = None
            database = state.now or None
            with self._lock:
                fault = self._monitor.look(state, covered, now=self._clock.now(), monotonic=time.monotonic())
        self.clock_fault = self._compare(asked, database)
        fault = fault or self.clock_fault
        self._guard.update(fault)
        self.looked = time.monotonic()
        return fault

    def _compare(self, asked: int, database: int | None) -> PoolError | None:
        """Compare the clocks; a jump that is held is taken for right where nothing speaks against it."""
        ahead = self._clock.ahead()
        fault = clock_fault(
            ClockReading(
                before=asked,
                after=self._clock.machine(),
                database=database,
                ahead=ahead,
                independent=self._independent,
                synchronised=bool(ahead) and is_synchronised(),
            )
        )
        if ahead and fault is None:
            _log.warning("clock_followed", seconds=ahead // 1_000_000)
            self._clock.accept()
        return fault

    def wait_until_signed(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Check before the listeners start; wait some seconds until what an earlier process has left is signed."""
        give_up = time.monotonic() + _START
        while self.look() is not None and time.monotonic() < give_up and not stopped():
            time.sleep(0.1)

    def watch(self, stop: threading.Event) -> None:
        """Look once a second."""
        while not stop.wait(_PERIOD):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - see exchange.server.background
                _log.error("upkeep_failed", task="log", error=type(error).__name__)

    def _size_in_folder(self) -> int | None:
        """Return the size that the folder's checkpoint states; its signature is the sequencer's business."""
        try:
            return int(self._checkpoint.read_text(encoding="utf-8").split("\n", 2)[1])
        except (OSError, ValueError, IndexError):
            return None

"""Liveness of background loops: whether each thread is alive, and when it last began a turn.

A loop asks its stop event at every turn, `stop.is_set()` or `stop.wait(period)`. The event notes the time of each, so
that no loop has to report by itself. A loop is dead when its thread has ended before its time, and stuck when it has
neither begun a turn nor asked for a pause for `STUCK` seconds. Some turns take long and are not stuck: the sequencer
that reads a large log at its start, an erasure that rewrites a table.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import override

__all__ = ["LOOPS", "STUCK", "LoopLiveness", "LoopState", "LoopStop"]

STUCK = 900.0  # seconds
_LONG = frozenset({"erasures", "sequencer"})  # a turn may take as long as it needs; the thread must be alive


class LoopStop(threading.Event):
    """The stop event of one loop, which knows until when its next turn has to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.due = time.monotonic()

    @override
    def is_set(self) -> bool:
        self.due = time.monotonic()
        return super().is_set()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        self.due = time.monotonic() + (timeout or 0.0)
        stopped = super().wait(timeout)
        self.due = time.monotonic()
        return stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """One loop: whether its thread lives, and for how many seconds its present turn has run (0 in a pause)."""

    name: str
    alive: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Return whether the loop does its work, as far as can be seen from outside."""
        return self.alive and (self.name in _LONG or self.seconds < STUCK)


class LoopLiveness:
    """The loops of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: dict[str, tuple[threading.Thread, LoopStop]] = {}

    @contextmanager
    def reporting(self, name: str, thread: threading.Thread, stop: LoopStop) -> Iterator[None]:
        """Report on a loop until the block ends."""
        with self._lock:
            self._loops[name] = thread, stop
        try:
            yield
        finally:
            with self._lock:
                self._loops.pop(name, None)

    def states(self) -> list[LoopState]:
        """Return the state of every loop."""
        with self._lock:
            loops = dict(self._loops)
        now = time.monotonic()
        return [
            LoopState(name=name, alive=thread.is_alive(), seconds=max(0.0, now - stop.due))
            for name, (thread, stop) in sorted(loops.items())
        ]


LOOPS = LoopLiveness()
"""Those of this process; `background.in_thread` enters them."""

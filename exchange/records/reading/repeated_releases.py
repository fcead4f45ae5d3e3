"""Rate limiter of repeated releases: the same position, drawn again and again under one grant.

A consumer that lost an answer asks for it again, and one that crashes and starts draws from its last committed position
each time; both are served. A consumer that draws the same records hundreds of times a minute has no use of them, and
each time costs a read, a view, an entry and an answer.

A release is repeated where the same grant was released records from the same position before. Each grant has a token
bucket of repeated releases, which holds one minute's worth and refills evenly. So a consumer that follows its topic, or
replays the history once, spends nothing: it draws each position once. Empty answers never count.

Memory is bounded: positions and buckets that were used least lately are forgotten. Limits are of one process.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from schemas.record import Positions

__all__ = ["DEFAULT_REPEATS", "RepeatedReleases"]

DEFAULT_REPEATS: Final = 120
"""Repeated releases of a grant a minute: a consumer that crashes twice a second stays below."""
_POSITIONS = 100_000
_GRANTS = 10_000

_Key = tuple[str, int, Positions]


class RepeatedReleases:
    """Counts releases by grant and position. Thread-safe.

    Args:
        per_minute: repeated releases of one grant.
        clock: seconds, monotonic.
    """

    def __init__(self, per_minute: int = DEFAULT_REPEATS, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._released: OrderedDict[int, None] = OrderedDict()  # hashes of keys: positions are long
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # grant → level, at

    def wait(self, grant_id: str, generation: int, position: Positions) -> float:
        """Return the seconds until a fetch from this position may be served; 0 = now.

        Args:
            grant_id: of the grant.
            generation: of the topic.
            position: at which the fetch begins.
        """
        with self._lock:
            if hash((grant_id, generation, position)) not in self._released:
                return 0.0
            level = self._level(grant_id)
        return 0.0 if level >= 1 else (1 - level) * 60 / self.per_minute

    def released(self, grant_id: str, generation: int, position: Positions) -> None:
        """Note that records were released from a position."""
        key = hash((grant_id, generation, position))
        with self._lock:
            if key not in self._released:
                self._released[key] = None
                if len(self._released) > _POSITIONS:
                    self._released.popitem(last=False)
                return
            self._released.move_to_end(key)
            self._levels[grant_id] = (max(0.0, self._level(grant_id) - 1), self._clock())
            self._levels.move_to_end(grant_id)
            if len(self._levels) > _GRANTS:
                self._levels.popitem(last=False)

    def _level(self, grant_id: str) -> float:
        level, at = self._levels.get(grant_id, (float(self.per_minute), 0.0))
        return min(float(self.per_minute), level + (self._clock() - at) * self.per_minute / 60)

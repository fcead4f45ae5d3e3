"""TTL cache: answers of the database that may be used again for a fraction of a second.

For attributes that a revocation changes, where asking with each call costs more than the call. The age of an answer is
counted from the moment at which its question was put: what is revoked then or later is used for `TTL` at most, however
late the answer came. Refusals are not cached, and a refusal removes what was cached before.

Halfway to its end an answer is refreshed: one caller gets nothing, so it asks, while the others use what is cached. So
the callers of a busy account never come to the database all at once.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.errors import RefusedError

__all__ = ["TTL", "TtlCache"]

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

TTL = 0.5  # seconds
_MOST = 10_000


@dataclass(slots=True)
class _Entry(Generic[_V]):
    value: _V
    refresh: float  # when one caller shall ask
    end: float
    refreshing: bool = False


class TtlCache(Generic[_K, _V]):
    """Answers by key, at most `TTL` old. Thread-safe; `get` never waits.

    Args:
        cacheable: whether an answer may be used again; by default each.
        clock: seconds, monotonic.
        most: entries.
    """

    def __init__(
        self,
        cacheable: Callable[[_V], bool] = lambda _: True,
        *,
        clock: Callable[[], float] = time.monotonic,
        most: int = _MOST,
    ) -> None:
        self._cacheable = cacheable
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._entries: dict[_K, _Entry[_V]] = {}

    def get(self, key: _K) -> _V | None:
        """Return the cached answer, None where the question has to be asked."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now >= entry.end:
            return None
        if now >= entry.refresh and not entry.refreshing:
            entry.refreshing = True
            return None
        return entry.value

    def ask(self, key: _K, question: Callable[[], _V]) -> _V:
        """Put the question and cache its answer.

        Raises:
            PoolError: what the question raises.
        """
        asked = self._clock()
        try:
            value = question()
        except RefusedError:
            self._remove(key)
            raise
        if self._cacheable(value):
            self._put(key, value, asked)
        else:
            self._remove(key)
        return value

    def _put(self, key: _K, value: _V, asked: float) -> None:
        with self._lock:
            before = self._entries.pop(key, None)
            if before is not None and before.end > asked + TTL:  # an answer that came late does not replace a newer one
                self._entries[key] = before
                return
            if len(self._entries) >= self._most:
                del self._entries[next(iter(self._entries))]  # the oldest
            self._entries[key] = _Entry(value, asked + TTL / 2, asked + TTL)

    def _remove(self, key: _K) -> None:
        with self._lock:
            self._entries.pop(key, None)

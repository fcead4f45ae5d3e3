"""Token bucket: rate limiter by key, with a burst. Pure.

A key may act `burst` times at once, then `rate` times a second. Memory is bounded: the `capacity` keys that acted last
are remembered. A caller with more addresses than that gets more attempts, and no other gets fewer.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["TokenBucket"]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class TokenBucket:
    """Buckets by key. Thread-safe.

    Args:
        rate: tokens a second that a bucket is filled with.
        burst: tokens of a full bucket.
        clock: seconds, monotonic.
        capacity: keys that are remembered.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float], *, capacity: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._capacity = capacity
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str) -> float:
        """Take a token and return 0; where there is none, return the seconds until there is one."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
            self._buckets[key] = bucket
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
            bucket.tokens = min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)
            bucket.at = now
            if bucket.tokens >= 1.0:
                bucket.tokens -= 1.0
                return 0.0
            return (1.0 - bucket.tokens) / self._rate

    def size(self) -> int:
        """Return how many keys are remembered."""
        return len(self._buckets)

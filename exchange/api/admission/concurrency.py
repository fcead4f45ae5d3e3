"""Concurrency limiter: places for calls or connections, shared among departments, certificates and sources. Pure.

Each caller is known by some keys, such as its department. Of each kind of key there is a share. A caller gets a place
while what its key holds is less than the share times the free places (the dynamic threshold of Choudhury and Hahne,
1998). So one key alone never has all of them, and a caller that holds none gets a place as long as one is free:

    share 3     three quarters, if the key is alone
    share 1     half of the places alone; two keys a third each, and a third stays free
    share 3/4   three sevenths

    limiter = ConcurrencyLimiter(2_000, {"department": 1.0, "certificate": 0.75})
    place = limiter.acquire(department="d1", certificate="5f…")     raises Exceeded, which names the kind
    ...
    place.release()
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self

__all__ = ["ALL", "ConcurrencyLimiter", "Exceeded", "Place"]

ALL: Final = "all"
"""The kind that `Exceeded` names where every place is taken."""


class Exceeded(Exception):  # noqa: N818 - a result, not a defect
    """A bound is reached. `kind`: of the key whose share is used up, or ALL."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Place:
    """One place; `release` gives it back, once. It is a context manager too."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class ConcurrencyLimiter:
    """Gives places while there are any, and no key more than its share. Thread-safe.

    Args:
        limit: places in all.
        shares: by kind of key; a kind without a share is not limited.
        caps: by kind, the most that one key may hold, however many are free.
    """

    def __init__(self, limit: int, shares: Mapping[str, float], caps: Mapping[str, int] | None = None) -> None:
        self._limit = limit
        self._shares = dict(shares)
        self._caps = dict(caps or {})
        self._lock = threading.Lock()
        self._total = 0
        self._held: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        """Places that are taken."""
        return self._total

    def held(self, kind: str, key: str) -> int:
        """Return how many places a key holds."""
        return self._held.get((kind, key), 0)

    def acquire(self, **keys: str) -> Place:
        """Take a place for a caller.

        Args:
            keys: of the caller, by kind.

        Raises:
            Exceeded: a bound is reached; nothing was taken.
        """
        wanted = tuple(keys.items())
        with self._lock:
            free = self._limit - self._total
            if free <= 0:
                raise Exceeded(ALL)
            for one in wanted:
                kind = one[0]
                held = self._held.get(one, 0)
                if kind in self._shares and held >= max(1.0, self._shares[kind] * free):
                    raise Exceeded(kind)
                if held >= self._caps.get(kind, self._limit):
                    raise Exceeded(kind)
            self._total += 1
            self._held.update(wanted)
        return Place(partial(self._release, wanted))

    def _release(self, keys: tuple[tuple[str, str], ...]) -> None:
        with self._lock:
            self._total -= 1
            for one in keys:
                left = self._held[one] - 1
                if left:
                    self._held[one] = left
                else:
                    del self._held[one]

"""Rate limiter (token bucket) of each actor: what an actor may have refused, and have written into the log, a minute.

    refusals   calls that are denied, or refused for what they declare
    entries    acts of the control API, lanes that are resumed and schemas that are read with an entry
    schemas    acts on the registry's schemas, of which an import makes many

A bucket holds one minute's budget and refills evenly. Beyond it the actor is slowed, not the log: its calls get
`rate_limited` with the seconds to wait. Beyond the budget of refusals all calls of a person's account wait, before
anything is decided; of a connector only those that are denied, since one subscription whose grant has ended must not
hold up the others. Publishing and fetching spend nothing here.

Memory is bounded: of a bucket that is full again nothing is remembered. Budgets are of one process: n gateways give n.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import structlog

from exchange import metrics
from schemas.access import Actor, ActorKind
from schemas.errors import Reason, UnavailableError

__all__ = ["DEFAULTS", "ActorBudgets", "Budget"]

_log = structlog.get_logger()
_CAPACITY = 10_000  # buckets
_DEV = "dev:"  # begins the name of the caller of a registry under --dev, on loopback


class Budget(StrEnum):
    """What is limited."""

    REFUSALS = "refusals"
    ENTRIES = "entries"
    SCHEMAS = "schemas"


DEFAULTS: Final[Mapping[str, int]] = MappingProxyType(
    {Budget.REFUSALS: 120, Budget.ENTRIES: 1_200, Budget.SCHEMAS: 12_000}
)


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float
    told: float = float("-inf")  # when the pool's own log had a line about it


class ActorBudgets:
    """Token buckets by actor and budget. Thread-safe.

    Args:
        per_minute: of each budget, by its name.
        clock: seconds, monotonic.
    """

    def __init__(self, per_minute: Mapping[str, int] = DEFAULTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = dict(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str, Budget], _Bucket] = {}

    def spend(self, actor: Actor, budget: Budget) -> None:
        """Take one from an actor's bucket.

        Raises:
            UnavailableError: RATE_LIMITED, it is empty; nothing was taken.
        """
        self._require(actor, budget, 1.0)

    def check(self, actor: Actor, budget: Budget) -> None:
        """Check that an actor's bucket is not empty, and take nothing.

        Raises:
            UnavailableError: RATE_LIMITED, it is.
        """
        self._require(actor, budget, 0.0)

    def _require(self, actor: Actor, budget: Budget, amount: float) -> None:
        if _is_exempt(actor):
            return
        most = float(self._per_minute[budget])
        key, now = (actor.department, actor.id, budget), self._clock()
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                if not amount:
                    return
                if len(self._buckets) >= _CAPACITY:
                    self._forget(now)
                bucket = self._buckets[key] = _Bucket(most, now)
            bucket.level = min(most, bucket.level + max(0.0, now - bucket.at) * most / 60)
            bucket.at = now
            if bucket.level >= 1:
                bucket.level -= amount
                return
            wait = (1 - bucket.level) * 60 / most
            tell = now - bucket.told >= 60
            if tell:
                bucket.told = now
        metrics.ACTORS_SLOWED.labels(budget).inc()
        if tell:
            _log.warning("actor_slowed", budget=str(budget), actor=actor.id, department=actor.department)
        raise UnavailableError(
            Reason.RATE_LIMITED,
            f"got more {_WORDS[budget]} of {actor.id[:64]} than {most:.0f} a minute; wait, then go on more slowly",
            details={"budget": str(budget), "per_minute": f"{most:.0f}"},
            retry_after=wait,
        )

    def _forget(self, now: float) -> None:
        """Forget the buckets that are full again; where none is, those that were used least lately."""
        full = [
            key
            for key, one in self._buckets.items()
            if one.level + (now - one.at) * self._per_minute[key[2]] / 60 >= self._per_minute[key[2]]
        ]
        oldest = sorted(self._buckets, key=lambda key: self._buckets[key].at)[: _CAPACITY // 10]
        for key in full or oldest:
            del self._buckets[key]


_WORDS: Final = {
    Budget.REFUSALS: "refused calls",
    Budget.ENTRIES: "acts with an entry",
    Budget.SCHEMAS: "acts on schemas",
}


def _is_exempt(actor: Actor) -> bool:
    """Return whether an actor is the pool itself, or the caller of a registry under --dev."""
    if actor.kind is ActorKind.MACHINE:
        return not actor.department
    return actor.id.startswith(_DEV)

"""Retraction: a void without valid time; values of its key before it are never released again, to anybody.

A void that states from when the key is no longer valid (`valid_from`) ends validity only: what was true before stays
readable to grants with history. A void without it says that the record should not be there.

    published   in the transaction that stores the void's receipt: `RetractionStore.add`
    released    in the transaction that stores a release's entry: `RetractionStore.join`, then what is newer

`add` waits for the releases of the topic that have joined and lets no other join until its transaction ends. So a
release either ends before the retraction or sees it; the void is acknowledged when the release window of the former
has passed as well. `at` is read from the database's clock after that wait: a grant approved later can never have been
given a value that the retraction covers.

A retraction that is taken away would let out what nobody may get any more. So the retractions of a topic make a chain:
each version has a MAC over its own retractions and the MAC before it, and the newest is the topic's `Head`. To bring a
copy up to date, pass the head of the copy; no retraction whose chain is broken is returned.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from schemas.errors import CorruptError, Reason
from schemas.names import Topic
from schemas.record import Operation

__all__ = [
    "NO_RETRACTIONS",
    "Head",
    "MemoryRetractions",
    "Retraction",
    "RetractionStore",
    "StoredRetraction",
    "is_retraction",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraction:
    """Values of `key` (16-byte pseudonym) before `position`, the void's, are not released."""

    key: bytes
    partition: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRetraction(Retraction):
    """A retraction as stored.

    Attributes:
        version: 1, 2, 3 … of the topic's retractions; those of one transaction have the same.
        at: when it was stored, microseconds UTC by the database's clock.
    """

    version: int
    at: int


@dataclass(frozen=True, slots=True)
class Head:
    """Which retractions of a topic there are: the newest version, 0 = none, and the MAC that ends their chain."""

    version: int
    chain: bytes


NO_RETRACTIONS = Head(0, b"")


class RetractionStore(Protocol):
    """Stores the retractions of topics; of each key the one with the highest position."""

    def add(self, work: UnitOfWork, topic: Topic, retractions: Sequence[Retraction]) -> None:
        """Store retractions, one at least; wait before it for the releases that have joined.

        Call it last in a transaction: until its end, no release of the topic can join.
        """
        ...

    def incomplete(self, reader: Reader) -> list[Topic]:
        """Return the topics that have voids from before retractions, which are not all stored as such yet."""
        ...

    def complete(self, work: UnitOfWork, topic: Topic) -> None:
        """Store that every void of a topic is a retraction."""
        ...

    def join(self, work: UnitOfWork, topic: Topic) -> Head:
        """Hold back the topic's retractions until the transaction ends; return which there are, unproven."""
        ...

    def newer(self, reader: Reader, topic: Topic, after: Head, limit: int) -> tuple[list[StoredRetraction], Head]:
        """Return the retractions of higher versions than *after*, in no order, of each key the last; and the head.

        Of *limit* and more, some are returned, and whether any is missing is not known.

        Raises:
            CorruptError: ROW_FORGED, a retraction was taken away, changed or inserted, or all were set back.
        """
        ...

    def of_keys(self, reader: Reader, topic: Topic, keys: Sequence[bytes]) -> list[StoredRetraction]:
        """Return the retractions of these keys, in no order."""
        ...


def is_retraction(mark: int, valid: bytes) -> bool:
    """Return whether a record is a retraction, from its mark byte and its valid times (16 bytes, or none stated)."""
    return mark & 15 == Operation.VOID and not any(valid[:8])


class MemoryRetractions(RetractionStore):
    """In-memory adapter: one transaction at a time, so nobody has to wait."""

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._clock = clock  # microseconds UTC
        self._rows: dict[tuple[Topic, bytes], StoredRetraction] = {}
        self._versions: dict[Topic, int] = {}
        self.earlier: set[Topic] = set()
        self._lock = threading.RLock()

    @override
    def add(self, work: UnitOfWork, topic: Topic, retractions: Sequence[Retraction]) -> None:
        with self._lock:
            before, version = dict(self._rows), self._versions.get(topic, 0)
            self._versions[topic] = version + 1
            for one in retractions:
                stored = self._rows.get((topic, one.key))
                if stored is None or stored.position < one.position:
                    self._rows[topic, one.key] = StoredRetraction(
                        key=one.key,
                        partition=one.partition,
                        position=one.position,
                        version=version + 1,
                        at=self._clock(),
                    )

        def undo() -> None:
            with self._lock:
                self._rows, self._versions[topic] = before, version

        on_rollback(work, undo)

    @override
    def incomplete(self, reader: Reader) -> list[Topic]:
        return sorted(self.earlier)

    @override
    def complete(self, work: UnitOfWork, topic: Topic) -> None:
        self.earlier.discard(topic)
        on_rollback(work, lambda: self.earlier.add(topic))

    @override
    def join(self, work: UnitOfWork, topic: Topic) -> Head:
        with self._lock:
            return Head(self._versions.get(topic, 0), b"")

    @override
    def newer(self, reader: Reader, topic: Topic, after: Head, limit: int) -> tuple[list[StoredRetraction], Head]:
        with self._lock:
            head = Head(self._versions.get(topic, 0), b"")
            found = [row for (of, _), row in self._rows.items() if of == topic and row.version > after.version]
        if head.version < after.version:
            raise CorruptError(
                Reason.ROW_FORGED, f"the retractions of {topic} were set back; nothing is released of it"
            )
        return found[:limit], head

    @override
    def of_keys(self, reader: Reader, topic: Topic, keys: Sequence[bytes]) -> list[StoredRetraction]:
        with self._lock:
            return [row for key in set(keys) if (row := self._rows.get((topic, key))) is not None]

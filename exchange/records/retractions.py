"""Retractions on the record path: which records of an append are retractions, and which of a read may not leave.

What a read may not release is found column by column, in a copy of the topic's retractions that this process keeps: 32
bytes each, at most a million of all topics. A topic that has more is asked for the keys of each read instead.

The copy may be old. The release's transaction joins the topic's retractions (`RetractionStore.join`), brings the copy
up to date and compares: a read that holds a key retracted meanwhile is selected again. A store whose retractions do not
follow those of the copy was changed by another hand, and nothing of the topic is released.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from exchange.broker.port import Append, Appended, Broker, ReadResult
from exchange.erasure.retractions import (
    NO_RETRACTIONS,
    Head,
    Retraction,
    RetractionStore,
    StoredRetraction,
    is_retraction,
)
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from schemas.errors import GoneError, InvalidError, Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Operation, Positions

__all__ = ["Blocked", "RetractionCache", "read_retractions", "retractions_in"]

_MAX_CACHED = 1_000_000  # retractions of all topics
_READ_RECORDS = 16_384
_READ_BYTES = 16 * 1024 * 1024
_Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


def retractions_in(append: Append, appended: Appended) -> list[Retraction]:
    """Return the retractions of a batch that was appended."""
    if not has_retraction(append.marks, append.valid):
        return []
    free = {partition: iter(offsets) for partition, offsets in _offsets(appended).items()}
    found = []
    for index, (key, partition, mark) in enumerate(zip(append.keys, append.partitions, append.marks, strict=True)):
        position = next(free[partition])
        if is_retraction(mark, append.valid[16 * index : 16 * index + 16]):
            found.append(Retraction(key=key, partition=partition, position=position))
    return found


def has_retraction(marks: bytes, valid: bytes) -> bool:
    """Return whether a batch has a retraction, from its marks and its valid times."""
    if not any(mark & 15 == Operation.VOID for mark in set(marks)):
        return False
    return any(is_retraction(mark, valid[16 * index : 16 * index + 16]) for index, mark in enumerate(marks))


def read_retractions(broker: Broker, appended: Appended) -> list[Retraction]:
    """Read a batch's retractions from the broker: for a batch whose gateway died before it stored them.

    On Kafka a committed record can be read once every earlier transaction of its partition has ended. A gateway that
    was killed leaves one open until its timeout, so records of another gateway's batch may lie behind it.

    Raises:
        UnavailableError: the broker does not answer, or not all of the batch can be read yet.
    """
    wanted = {partition: set(offsets) for partition, offsets in _offsets(appended).items()}
    try:
        ends = broker.ends(appended.lane.topic)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return []  # no topic any more: nothing is released of it
    if any(max(offsets) >= ends.latest[partition] for partition, offsets in wanted.items()):
        raise UnavailableError(
            Reason.BROKER_UNAVAILABLE,
            f"records of {appended.lane.topic} lie behind a transaction that has not ended; try again",
            retry_after=1.0,
        )
    after = tuple(
        max(min(wanted[partition]), earliest) if partition in wanted else latest
        for partition, (earliest, latest) in enumerate(zip(ends.earliest, ends.latest, strict=True))
    )
    return [
        Retraction(key=records.keys[index], partition=records.partition, position=offset)
        for read in _reads(broker, appended.lane.topic, after, {number: max(of) for number, of in wanted.items()})
        for records in read.partitions
        for index, offset in enumerate(records.offsets)
        if offset in wanted.get(records.partition, ())
        and records.values[index] is None
        and is_retraction(records.mark(index), records.valid(index))
    ]


def _reads(broker: Broker, topic: Topic, after: Positions, last: dict[int, int]) -> Iterator[ReadResult]:
    """Read on until every partition in *last* has been read up to its position there, or has no more."""
    while any(after[partition] <= end for partition, end in last.items()):
        try:
            read = broker.read(topic, after, max_records=_READ_RECORDS, max_bytes=_READ_BYTES)
        except GoneError as error:  # retention was faster
            earliest = map(int, error.details["earliest"].split(","))
            after = tuple(max(pair) for pair in zip(after, earliest, strict=True))
            continue
        yield read
        if read.next == after:
            return
        after = read.next


def _offsets(appended: Appended) -> dict[int, list[int]]:
    """Return the positions of a batch's records, in order, by partition."""
    offsets: dict[int, list[int]] = {}
    for run in appended.runs:
        offsets.setdefault(run.partition, []).extend(range(run.first, run.last + 1))
    return offsets


@dataclass(frozen=True, slots=True)
class Blocked:
    """What retractions keep back of the n records of a read, in the order of its partitions.

    Attributes:
        hidden: a later retraction of the same key covers the record.
        at: of a void that is itself a retraction or lies before one, when that was stored (microseconds UTC); else 0.
    """

    hidden: _Flags
    at: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocked) and np.array_equal(self.hidden, other.hidden)

    __hash__ = None  # type: ignore[assignment]  # compared, never a key

    def silent(self, approved_at: datetime | None) -> _Flags:
        """Return which voids a grant approved at this time is not told of: it was never given the values before."""
        limit = 0 if approved_at is None else int(approved_at.timestamp() * 1_000_000)
        return (self.at > 0) & (self.at <= limit)


class _Index:
    """Retractions of one topic as columns, sorted by key; immutable."""

    def __init__(self, columns: "np.ndarray[tuple[int, int], np.dtype[np.uint64]]", head: Head) -> None:
        self._columns = columns  # first and second half of the key, position, at; rows sorted by key
        self._heads = np.ascontiguousarray(columns[:, 0])
        self.head = head

    @classmethod
    def empty(cls) -> "_Index":
        return cls(np.empty((0, 4), dtype=np.uint64), NO_RETRACTIONS)

    def __len__(self) -> int:
        return len(self._columns)

    def with_newer(self, rows: Sequence[StoredRetraction], head: Head) -> "_Index":
        """Return these retractions and newer ones: of each key the highest position, and of equal ones the earlier."""
        if not rows:
            return _Index(self._columns, head)
        new = np.empty((len(rows), 4), dtype=np.uint64)
        new[:, :2] = _halves([row.key for row in rows])
        new[:, 2] = [row.position for row in rows]
        new[:, 3] = [row.at for row in rows]
        both = np.concatenate((self._columns, new))
        both = both[np.lexsort((~both[:, 3], both[:, 2], both[:, 1], both[:, 0]))]
        last = np.ones(len(both), dtype=np.bool_)
        last[:-1] = (both[1:, :2] != both[:-1, :2]).any(axis=1)
        return _Index(both[last], head)

    def blocked(self, read: ReadResult) -> Blocked | None:
        """Return what of a read is kept back; None if nothing is."""
        if not len(self._columns):
            return None
        keys = _halves([key for records in read.partitions for key in records.keys])
        at = np.searchsorted(self._heads, keys[:, 0])
        found = np.zeros(len(keys), dtype=np.bool_)
        near = np.flatnonzero(at < len(self._heads))
        near = near[self._heads[at[near]] == keys[near, 0]]
        for index in near.tolist():
            row = at[index]
            while row < len(self._heads) and self._heads[row] == keys[index, 0]:
                if self._columns[row, 1] == keys[index, 1]:
                    at[index], found[index] = row, True
                    break
                row += 1
        if not found.any():
            return None
        offsets = np.fromiter(
            (offset for records in read.partitions for offset in records.offsets), dtype=np.uint64, count=len(keys)
        )
        position, stored = np.zeros(len(keys), dtype=np.uint64), np.zeros(len(keys), dtype=np.int64)
        position[found] = self._columns[at[found], 2]
        stored[found] = self._columns[at[found], 3]
        covered = found & (offsets <= position)  # the void itself, too: whom to tell of it depends on the time
        if not covered.any():
            return None
        return Blocked(hidden=found & (offsets < position), at=np.where(covered, stored, 0))


def _halves(keys: Sequence[bytes]) -> "np.ndarray[tuple[int, int], np.dtype[np.uint64]]":
    return np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2)


def _hide_the_same(one: Blocked | None, other: Blocked | None) -> bool:
    if one is None or other is None:
        return not any(each is not None and each.hidden.any() for each in (one, other))
    return one == other


class RetractionCache:
    """Finds what retractions keep back of a read. Thread-safe.

    Args:
        store: of all retractions.
        database: opens a reader for what is not cached.
        limit: the most retractions to keep, of all topics.
    """

    def __init__(self, store: RetractionStore, database: Database, *, limit: int = _MAX_CACHED) -> None:
        self._store = store
        self._database = database
        self._limit = limit
        self._cached: OrderedDict[Topic, _Index | None] = OrderedDict()  # None: too many to keep
        self._lock = threading.Lock()

    def blocked(self, topic: Topic, read: ReadResult) -> Blocked | None:
        """Return what of a read retractions keep back, as far as this process knows; None if nothing is."""
        with self._lock:
            is_cached = topic in self._cached
            index = self._cached.get(topic)
        if not is_cached:
            with self._database.read() as reader:
                index = self._update(reader, topic, _Index.empty())
        if index is not None:
            return index.blocked(read)
        with self._database.read() as reader:
            return self._query(reader, topic, read)

    def still_blocked(self, work: UnitOfWork, topic: Topic, read: ReadResult, blocked: Blocked | None) -> bool:
        """Return whether exactly this is kept back of a read, and hold back the topic's retractions within *work*.

        Raises:
            CorruptError: ROW_FORGED, the retractions are not those that the pool stored.
        """
        return self.each_still_blocked(work, topic, [(read, blocked)])[0]

    def each_still_blocked(
        self, work: UnitOfWork, topic: Topic, reads: Sequence[tuple[ReadResult, Blocked | None]]
    ) -> list[bool]:
        """Return the same for several reads of a topic, which is joined once.

        Raises:
            CorruptError: ROW_FORGED, the retractions are not those that the pool stored.
        """
        head = self._store.join(work, topic)
        with self._lock:
            index = self._cached.get(topic)
            is_cached = topic in self._cached
        if (index is not None or not is_cached) and (index is None or index.head != head):
            index = self._update(work, topic, index or _Index.empty())
        return [
            _hide_the_same(self._query(work, topic, read) if index is None else index.blocked(read), blocked)
            for read, blocked in reads
        ]

    def _query(self, reader: Reader, topic: Topic, read: ReadResult) -> Blocked | None:
        keys = [key for records in read.partitions for key in records.keys]
        return _Index.empty().with_newer(self._store.of_keys(reader, topic, keys), NO_RETRACTIONS).blocked(read)

    def _update(self, reader: Reader, topic: Topic, base: _Index) -> _Index | None:
        """Cache *base* and what is newer; return it, None if it is too much."""
        room = self._limit - len(base)
        newer, head = self._store.newer(reader, topic, base.head, room + 1)
        index = None if len(newer) > room else base.with_newer(newer, head)
        with self._lock:
            self._cached[topic] = index
            self._cached.move_to_end(topic)
            while sum(len(one) for one in self._cached.values() if one is not None) > self._limit:
                self._cached.popitem(last=False)
        return index

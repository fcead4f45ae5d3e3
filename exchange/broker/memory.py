"""The broker in memory: the twin that ships, for tests and for reading what the port means.

`MemoryLog` is the backend and outlives its adapters, so that a restart is a new `MemoryBroker` over the same log
and several gateways are several adapters. Like Kafka, it commits before the seal (which therefore gets no
transaction), leaves a position unused after each append, and can be down (`log.down`) or full (`log.full`).
"""

import bisect
import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from operator import attrgetter

from typing_extensions import override

from exchange.broker.port import (
    Append,
    Appended,
    Broker,
    CommitHook,
    Ends,
    LaneState,
    PartitionRecords,
    ReadResult,
    Retention,
    TopicInfo,
)
from exchange.broker.rules import (
    REMEMBERED,
    another_shape,
    check_batches,
    check_positions,
    fenced,
    sort_out,
    unknown_topic,
)
from schemas.errors import Reason, UnavailableError
from schemas.names import Lane, Topic
from schemas.record import Positions, Run

__all__ = ["MemoryBroker", "MemoryLog"]


@dataclass(frozen=True, slots=True)
class _Record:
    position: int
    key: bytes
    value: bytes | None
    recorded_at: int
    mark: int
    valid: bytes


_position = attrgetter("position")
_recorded_at = attrgetter("recorded_at")


@dataclass(slots=True)
class _Partition:
    records: list[_Record] = field(default_factory=list)
    earliest: int = 0
    latest: int = 0
    free: int = 0  # where the next append begins, one past `latest` once something was appended
    recorded_at: int = 0


@dataclass(slots=True)
class _TopicLog:
    info: TopicInfo
    partitions: list[_Partition]


@dataclass(slots=True)
class _LaneLog:
    epoch: int = 0
    receipts: deque[Appended] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class MemoryLog:
    """What adapters share: topics, lanes and those who watch. Set `down` or `full` to see how callers bear it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.down = False
        self.full = False
        self.topics: dict[Topic, _TopicLog] = {}
        self.lanes: dict[Lane, _LaneLog] = {}
        self.watchers: dict[Topic, list[Callable[[], None]]] = {}


class MemoryBroker(Broker):
    """See `exchange.broker.port.Broker`. Made without a log, it has one of its own."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self._epochs: dict[Lane, int] = {}
        self._resumes: Counter[Lane] = Counter()
        self._closed = False

    @override
    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        with self._open():
            there = self.log.topics.get(topic)
            if there is None:
                info = TopicInfo(topic=topic, partitions=partitions, keep=keep, retention=retention, generation=1)
                there = _TopicLog(info, [_Partition() for _ in range(partitions)])
                self.log.topics[topic] = there
            if there.info.partitions != partitions:
                raise another_shape(topic, there.info.partitions, partitions)
            return there.info

    @override
    def topic(self, topic: Topic) -> TopicInfo:
        with self._open():
            return self._topic(topic).info

    @override
    def append(self, batches: Sequence[Append], seal: CommitHook) -> list[Appended]:
        """The seal gets None, after the commit and outside the log's lock."""
        if not batches:
            return []
        resumed = self._resumes[batches[0].lane]
        with self._open():
            log = self._topic(batches[0].lane.topic)
            lane = check_batches(batches, log.info.partitions)
            if self._resumes[lane] != resumed:  # while it waited: whoever resumed was told where the lane stands
                raise fenced(lane)
            state = self.log.lanes.setdefault(lane, _LaneLog())
            if self._epochs.get(lane, state.epoch) != state.epoch:
                raise fenced(lane)
            before, new = sort_out(tuple(state.receipts), batches)
            if lane not in self._epochs:
                self._take_over(lane, state)
            if new and self.log.full:
                raise UnavailableError(Reason.DISK_FULL, "the log has no room left; nothing was stored", retry_after=10)
            appended = [_store(log, batch) for batch in new]
            state.receipts.extend(appended)
            watchers = list(self.log.watchers.get(lane.topic, ())) if new else []
        for wake in watchers:
            with contextlib.suppress(Exception):  # a watcher's fault is its own
                wake()
        if appended:
            seal(None, appended)
        return before + appended

    @override
    def resume(self, lane: Lane) -> LaneState | None:
        with self._open():
            state = self.log.lanes.setdefault(lane, _LaneLog())
            self._take_over(lane, state)
            self._resumes[lane] += 1
            return LaneState(lane=lane, receipts=tuple(state.receipts)) if state.receipts else None

    @override
    def stands(self, lane: Lane) -> LaneState | None:
        with self._open():
            state = self.log.lanes.get(lane)
            return LaneState(lane=lane, receipts=tuple(state.receipts)) if state and state.receipts else None

    @override
    def lanes(self) -> Iterator[LaneState]:
        with self._open():
            states = [
                LaneState(lane=lane, receipts=tuple(state.receipts))
                for lane, state in self.log.lanes.items()
                if state.receipts
            ]
        yield from states

    @override
    def read(self, topic: Topic, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        with self._open():
            log = self._topic(topic)
            check_positions(topic, after, *_ends(log))
            waiting = {
                number: part.records[index : index + max_records]
                for number, (part, at) in enumerate(zip(log.partitions, after, strict=True))
                for index in [bisect.bisect_left(part.records, at, key=_position)]
            }
        taken = _share(waiting, max_records, max_bytes)
        following = tuple(
            taken[number][-1].position + 1 if taken.get(number) else at for number, at in enumerate(after)
        )
        return ReadResult(
            stretches=tuple(_stretch(number, records) for number, records in taken.items()), next=following
        )

    @override
    def ends(self, topic: Topic) -> Ends:
        with self._open():
            earliest, latest = _ends(self._topic(topic))
        return Ends(earliest=earliest, latest=latest)

    @override
    def since(self, topic: Topic, recorded_at: int) -> Positions:
        with self._open():
            return tuple(
                part.records[index].position if index < len(part.records) else part.latest
                for part in self._topic(topic).partitions
                for index in [bisect.bisect_left(part.records, recorded_at, key=_recorded_at)]
            )

    @contextmanager
    @override
    def watch(self, topic: Topic, wake: Callable[[], None]) -> Iterator[None]:
        with self.log.lock:
            self.log.watchers.setdefault(topic, []).append(wake)
        try:
            yield
        finally:
            with self.log.lock:
                self.log.watchers[topic].remove(wake)

    @override
    def close(self) -> None:
        """The log stays."""
        self._closed = True

    def retain(self, now: int) -> int:
        """Remove what is older than each topic's retention, at `now` (microseconds UTC); give the count."""
        removed = 0
        with self._open():
            for log in self.log.topics.values():
                if log.info.retention is None:
                    continue
                limit = now - log.info.retention // timedelta(microseconds=1)
                for part in log.partitions:
                    index = bisect.bisect_left(part.records, limit, key=_recorded_at)
                    if index:
                        left = part.records[index:]
                        part.earliest = left[0].position if left else part.latest
                        part.records = left
                        removed += index
        return removed

    def compact(self) -> int:
        """Remove every record of a Keep.LATEST topic whose key has a later one; give the count."""
        removed = 0
        with self._open():
            for log in self.log.topics.values():
                if log.info.keep is not Retention.LATEST:
                    continue
                for part in log.partitions:
                    last = {record.key: record.position for record in part.records}
                    left = [record for record in part.records if last[record.key] == record.position]
                    removed += len(part.records) - len(left)
                    part.records = left
        return removed

    def renew_generations(self) -> None:
        """Raise every topic's generation: what a restored backup must do before it serves."""
        with self._open():
            for log in self.log.topics.values():
                log.info = replace(log.info, generation=log.info.generation + 1)

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self.log.lock:
            if self._closed:
                raise UnavailableError(Reason.SHUTTING_DOWN, "this broker was closed; make a new one")
            if self.log.down:
                raise UnavailableError(Reason.BROKER_UNAVAILABLE, "the log does not answer", retry_after=1.0)
            yield

    def _topic(self, topic: Topic) -> _TopicLog:
        log = self.log.topics.get(topic)
        if log is None:
            raise unknown_topic(topic)
        return log

    def _take_over(self, lane: Lane, state: _LaneLog) -> None:
        state.epoch += 1
        self._epochs[lane] = state.epoch


def _store(log: _TopicLog, batch: Append) -> Appended:
    parts = {number: log.partitions[number] for number in sorted(set(batch.partitions))}
    recorded_at = max(batch.recorded_at, *(part.recorded_at for part in parts.values()))
    begins = {number: part.free for number, part in parts.items()}
    for index, number in enumerate(batch.partitions):
        part = parts[number]
        stated = batch.valid[16 * index : 16 * index + 16]
        part.records.append(
            _Record(
                position=part.free,
                key=batch.keys[index],
                value=batch.values[index],
                recorded_at=recorded_at,
                mark=batch.marks[index],
                valid=stated if any(stated) else b"",
            )
        )
        part.free += 1
    runs = tuple(Run(partition=number, first=begins[number], last=part.free - 1) for number, part in parts.items())
    for part in parts.values():
        part.latest = part.free
        part.free += 1  # as Kafka's control records do: nobody may count positions
        part.recorded_at = recorded_at
    return Appended(
        lane=batch.lane,
        sequence=batch.sequence,
        digest=batch.digest,
        source_position=batch.source_position,
        recorded_at=recorded_at,
        count=len(batch.keys),
        runs=runs,
    )


def _ends(log: _TopicLog) -> tuple[Positions, Positions]:
    return tuple(part.earliest for part in log.partitions), tuple(part.latest for part in log.partitions)


def _share(waiting: dict[int, list[_Record]], max_records: int, max_bytes: int) -> dict[int, list[_Record]]:
    """Take records in turns from each partition, oldest first, until a bound is met; at least one."""
    taken: dict[int, list[_Record]] = {}
    count = size = index = 0
    while waiting:
        for number, records in list(waiting.items()):
            record = records[index] if index < len(records) else None
            weight = len(record.value or b"") if record else 0
            if record is None or count >= max_records or (count and size + weight > max_bytes):
                del waiting[number]
                continue
            taken.setdefault(number, []).append(record)
            count, size = count + 1, size + weight
        index += 1
    return taken


def _stretch(number: int, records: list[_Record]) -> PartitionRecords:
    return PartitionRecords(
        partition=number,
        offsets=[record.position for record in records],
        keys=[record.key for record in records],
        values=[record.value for record in records],
        recorded_at=[record.recorded_at for record in records],
        mark=lambda index: records[index].mark,
        valid=lambda index: records[index].valid,
    )

"""In-memory broker: test code that ships, to keep the port honest and to show what it means (ADR 0020).

No configuration selects it: its records end with the process. It passes the same contract suite as the adapters on
PostgreSQL and Kafka, so that tests of the record path run against a broker and not against a mock.

`MemoryLog` is the backend and outlives its adapters: a restart is a new `MemoryBroker` over the same log, and several
gateways are several adapters. Like Kafka, it commits before the commit hook (which therefore gets no transaction),
leaves a position unused after each append, and can be down (`log.down`) or full (`log.full`).
"""

import bisect
import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    RECEIPTS_PER_LANE,
    check_batches,
    check_positions,
    lane_fenced,
    partition_count_mismatch,
    split_duplicates,
    topic_not_found,
)
from schemas.errors import Reason, UnavailableError
from schemas.names import Lane, Topic
from schemas.record import OffsetRange, Positions

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
    next_position: int = 0  # of the next append: one past `latest` once something was appended
    recorded_at: int = 0


@dataclass(slots=True)
class _TopicLog:
    info: TopicInfo
    partitions: list[_Partition]


@dataclass(slots=True)
class _LaneLog:
    epoch: int = 0
    receipts: deque[Appended] = field(default_factory=lambda: deque(maxlen=RECEIPTS_PER_LANE))


class MemoryLog:
    """Backend that adapters share: topics, lanes and watchers. Set `down` or `full` to test how callers cope."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.down = False
        self.full = False
        self.topics: dict[Topic, _TopicLog] = {}
        self.lanes: dict[Lane, _LaneLog] = {}
        self.watchers: dict[Topic, list[Callable[[], None]]] = {}


class MemoryBroker(Broker):
    """In-memory adapter of the broker port. Without a log given, it has one of its own."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self._epochs: dict[Lane, int] = {}
        self._resumes: Counter[Lane] = Counter()
        self._closed = False

    @override
    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        with self._available():
            existing = self.log.topics.get(topic)
            if existing is None:
                info = TopicInfo(topic=topic, partitions=partitions, keep=keep, retention=retention, generation=1)
                existing = _TopicLog(info, [_Partition() for _ in range(partitions)])
                self.log.topics[topic] = existing
            if existing.info.partitions != partitions:
                raise partition_count_mismatch(topic, existing.info.partitions, partitions)
            return existing.info

    @override
    def configure_topic(self, topic: Topic, *, keep: Retention, retention: timedelta | None) -> TopicInfo:
        with self._available():
            log = self._topic(topic)
            log.info = replace(log.info, keep=keep, retention=retention)
            return log.info

    @override
    def topic(self, topic: Topic) -> TopicInfo:
        with self._available():
            return self._topic(topic).info

    @override
    def append(self, batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        """The commit hook gets None, after the commit and outside the log's lock."""
        if not batches:
            return []
        resumed = self._resumes[batches[0].lane]
        with self._available():
            log = self._topic(batches[0].lane.topic)
            lane = check_batches(batches, log.info.partitions)
            if self._resumes[lane] != resumed:  # resumed meanwhile: what `resume` returned must stay true
                raise lane_fenced(lane)
            state = self.log.lanes.setdefault(lane, _LaneLog())
            if self._epochs.get(lane, state.epoch) != state.epoch:
                raise lane_fenced(lane)
            duplicates, new = split_duplicates(tuple(state.receipts), batches)
            if lane not in self._epochs:
                self._take_over(lane, state)
            if new and self.log.full:
                raise UnavailableError(Reason.DISK_FULL, "the log has no room left; nothing was stored", retry_after=10)
            appended = [_store(log, batch) for batch in new]
            state.receipts.extend(appended)
            watchers = list(self.log.watchers.get(lane.topic, ())) if new else []
        for wake in watchers:
            with contextlib.suppress(Exception):  # a watcher's error must not reach the append
                wake()
        if appended:
            commit_hook(None, appended)
        return duplicates + appended

    @override
    def resume(self, lane: Lane) -> LaneState | None:
        with self._available():
            state = self.log.lanes.setdefault(lane, _LaneLog())
            self._take_over(lane, state)
            self._resumes[lane] += 1
            return LaneState(lane=lane, receipts=tuple(state.receipts)) if state.receipts else None

    @override
    def peek_lane(self, lane: Lane) -> LaneState | None:
        with self._available():
            state = self.log.lanes.get(lane)
            return LaneState(lane=lane, receipts=tuple(state.receipts)) if state and state.receipts else None

    @override
    def lanes(self) -> Iterator[LaneState]:
        with self._available():
            states = [
                LaneState(lane=lane, receipts=tuple(state.receipts))
                for lane, state in self.log.lanes.items()
                if state.receipts
            ]
        yield from states

    @override
    def read(self, topic: Topic, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        with self._available():
            log = self._topic(topic)
            check_positions(topic, after, *_ends(log))
            candidates = {
                number: part.records[index : index + max_records]
                for number, (part, at) in enumerate(zip(log.partitions, after, strict=True))
                for index in [bisect.bisect_left(part.records, at, key=_position)]
            }
        taken = _take_round_robin(candidates, max_records, max_bytes)
        next_positions = tuple(
            taken[number][-1].position + 1 if taken.get(number) else at for number, at in enumerate(after)
        )
        return ReadResult(
            partitions=tuple(_partition_records(number, records) for number, records in taken.items()),
            next=next_positions,
        )

    @override
    def ends(self, topic: Topic) -> Ends:
        with self._available():
            earliest, latest = _ends(self._topic(topic))
        return Ends(earliest=earliest, latest=latest)

    @override
    def positions_for_time(self, topic: Topic, recorded_at: int) -> Positions:
        with self._available():
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
        """The log stays usable by other adapters."""
        self._closed = True

    def retain(self, now: int) -> int:
        """Remove what is older than each topic's retention, at `now` (microseconds UTC); return the count."""
        removed = 0
        with self._available():
            for log in self.log.topics.values():
                if log.info.retention is None:
                    continue
                limit = now - log.info.retention // timedelta(microseconds=1)
                for part in log.partitions:
                    index = bisect.bisect_left(part.records, limit, key=_recorded_at)
                    if index:
                        remaining = part.records[index:]
                        part.earliest = remaining[0].position if remaining else part.latest
                        part.records = remaining
                        removed += index
        return removed

    def compact(self) -> int:
        """Remove every record of a `Retention.LATEST` topic whose key has a later one; return the count."""
        removed = 0
        with self._available():
            for log in self.log.topics.values():
                if log.info.keep is not Retention.LATEST:
                    continue
                for part in log.partitions:
                    last = {record.key: record.position for record in part.records}
                    remaining = [record for record in part.records if last[record.key] == record.position]
                    removed += len(part.records) - len(remaining)
                    part.records = remaining
        return removed

    @override
    def erase(self, topic: Topic, partition: int, key: bytes, before: int) -> int:
        with self._available():
            records = self._topic(topic).partitions[partition].records
            chosen = [
                index
                for index, one in enumerate(records)
                if one.key == key and one.position < before and one.value is not None
            ]
            for index in chosen:
                records[index] = replace(records[index], value=None)
            return len(chosen)

    @override
    def erased(self, topic: Topic) -> Mapping[tuple[int, int], tuple[bytes, bytes]]:
        return {}

    @override
    def destroy_erased(self, topics: Collection[Topic]) -> bool:
        return True

    @override
    def renew_generations(self, at_least: int = 0) -> int:
        with self._available():
            for log in self.log.topics.values():
                log.info = replace(log.info, generation=max(log.info.generation + 1, at_least))
            return len(self.log.topics)

    @override
    def ping(self) -> None:
        with self._available():
            pass

    @contextmanager
    def _available(self) -> Iterator[None]:
        with self.log.lock:
            if self._closed:
                raise UnavailableError(Reason.SHUTTING_DOWN, "this broker was closed; make a new one")
            if self.log.down:
                raise UnavailableError(Reason.BROKER_UNAVAILABLE, "the log does not answer", retry_after=1.0)
            yield

    def _topic(self, topic: Topic) -> _TopicLog:
        log = self.log.topics.get(topic)
        if log is None:
            raise topic_not_found(topic)
        return log

    def _take_over(self, lane: Lane, state: _LaneLog) -> None:
        state.epoch += 1
        self._epochs[lane] = state.epoch


def _store(log: _TopicLog, batch: Append) -> Appended:
    parts = {number: log.partitions[number] for number in sorted(set(batch.partitions))}
    recorded_at = max(batch.recorded_at, *(part.recorded_at for part in parts.values()))
    first_positions = {number: part.next_position for number, part in parts.items()}
    for index, number in enumerate(batch.partitions):
        part = parts[number]
        stated = batch.valid[16 * index : 16 * index + 16]
        part.records.append(
            _Record(
                position=part.next_position,
                key=batch.keys[index],
                value=batch.values[index],
                recorded_at=recorded_at,
                mark=batch.marks[index],
                valid=stated if any(stated) else b"",
            )
        )
        part.next_position += 1
    runs = tuple(
        OffsetRange(partition=number, first=first_positions[number], last=part.next_position - 1)
        for number, part in parts.items()
    )
    for part in parts.values():
        part.latest = part.next_position
        part.next_position += 1  # as Kafka's control records do: callers must not count positions
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


def _take_round_robin(
    candidates: dict[int, list[_Record]], max_records: int, max_bytes: int
) -> dict[int, list[_Record]]:
    """Take records from the partitions in turn, oldest first, until a bound is met; at least one."""
    taken: dict[int, list[_Record]] = {}
    count = size = index = 0
    while candidates:
        for number, records in list(candidates.items()):
            record = records[index] if index < len(records) else None
            weight = len(record.value or b"") if record else 0
            if record is None or count >= max_records or (count and size + weight > max_bytes):
                del candidates[number]
                continue
            taken.setdefault(number, []).append(record)
            count, size = count + 1, size + weight
        index += 1
    return taken


def _partition_records(number: int, records: list[_Record]) -> PartitionRecords:
    return PartitionRecords(
        partition=number,
        offsets=[record.position for record in records],
        keys=[record.key for record in records],
        values=[record.value for record in records],
        recorded_at=[record.recorded_at for record in records],
        mark=lambda index: records[index].mark,
        valid=lambda index: records[index].valid,
    )

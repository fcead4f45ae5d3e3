"""The broker on Apache Kafka: what a province runs.

    KafkaBroker ── lanes ──── transaction     append: one transactional producer per lane (librdkafka)
        │           readers                   read: a bounded pool of consumers (librdkafka)
        │           tail                      watch: one consumer for all topics (librdkafka)
        │           topics, versions          administration (kafka-python)
        └────────── link                      both administration clients, errors, deadlines

Records stand on Kafka as any Confluent-compatible consumer expects them: key = 16-byte pseudonym, value = framed Avro
or null, CloudEvents headers. Departments never see it: the access rules (deploy/kafka/acls.txt) know the gateway
alone.

Three things differ from the other adapters, and the port allows each. `recorded_at` is cut to whole milliseconds,
since that is Kafka's time. Positions have gaps: commit markers take some. The seal gets no transaction, since records
are committed before it; what was committed without its seal is found by `lanes()`. And one promise is narrower:
recorded_at never falls within a partition among the appends of one gateway or of gateways one after another; for two
gateways at the same moment it may fall by as much as their clocks differ.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta

from typing_extensions import override

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.consumers import Readers
from exchange.broker.kafka.producers import Lanes
from exchange.broker.kafka.receipts import Kept, fitting, is_of, runs_of, unpack
from exchange.broker.kafka.settings import KafkaSettings
from exchange.broker.kafka.topics import Topics
from exchange.broker.kafka.version_check import check_broker_version
from exchange.broker.kafka.watcher import Tail
from exchange.broker.port import (
    Append,
    Appended,
    Broker,
    CommitHook,
    Ends,
    LaneFault,
    LaneState,
    ReadResult,
    Retention,
    TopicInfo,
)
from exchange.broker.rules import check_batches
from exchange.single_flight import SingleFlight
from schemas.errors import CorruptError, PoolError, Reason
from schemas.failpoints import reached
from schemas.names import Lane, Topic
from schemas.record import Positions

__all__ = ["KafkaBroker", "KafkaSettings"]


class KafkaBroker(Broker):
    """See `exchange.broker.port.Broker`. Connects on first use; `check` asks at once.

    Args:
        settings: where Kafka is and who the gateway is there.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._link = KafkaClient(settings)
        self._topics = Topics(self._link)
        self._readers = Readers(self._link)
        self._reads = SingleFlight(self._read)
        self._lanes = Lanes(self._link, self._exact)
        self._tail = Tail(self._link, self._topics, self._readers.cool)

    def check(self, warn: Callable[[str], None]) -> int:
        """Reach Kafka and check its version: see `check_broker_version`."""
        return check_broker_version(self._link, warn)

    @override
    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        """; 256 partitions at most."""
        return self._topics.create(topic, partitions, keep, retention)

    @override
    def topic(self, topic: Topic) -> TopicInfo:
        """; the answer may be five seconds old."""
        return self._topics.describe(topic)

    @override
    def append(self, batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        """The seal gets None, after each commit; there are several where receipts are long."""
        if not batches:
            return []
        lane = check_batches(batches, self._topics.partitions(batches[0].lane.topic))
        appended: list[Appended] = []
        for part in fitting(batches):
            before, new = self._lanes.append(lane, part)
            if new:
                reached("after_broker_commit")
                self._tail.wake(lane.topic)
                commit_hook(None, new)
            appended += before + new
        return appended

    @override
    def resume(self, lane: Lane) -> LaneState | None:
        receipts = self._lanes.resume(lane)
        return LaneState(lane=lane, receipts=receipts) if receipts else None

    @override
    def peek_lane(self, lane: Lane) -> LaneState | None:
        receipts = self._lanes.peek_lane(lane)
        return LaneState(lane=lane, receipts=receipts) if receipts else None

    @override
    def lanes(self) -> Iterator[LaneState | LaneFault]:
        """A receipt whose transaction is being closed at this moment comes with the next call."""
        for name, metadata in self._topics.lane_metadata():
            try:
                lane = Lane.parse(name)
                kept = unpack(lane, metadata)
                receipts = tuple(each.receipt if each.exact else self._exact(each) for each in kept)
            except PoolError as error:
                yield LaneFault(name=name, error=error)
            else:
                if receipts:
                    yield LaneState(lane=lane, receipts=receipts)

    @override
    def read(self, topic: Topic, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        """Those who stand at the same place at the same time share one read."""
        return self._reads((topic, after, max_records, max_bytes))

    def _read(self, wanted: tuple[Topic, Positions, int, int]) -> ReadResult:
        topic, after, max_records, max_bytes = wanted
        return self._readers.read(
            topic, self._topics.partitions(topic), after, max_records=max_records, max_bytes=max_bytes
        )

    @override
    def ends(self, topic: Topic) -> Ends:
        return self._link.ends(topic, self._topics.partitions(topic), self._link.deadline())

    @override
    def positions_for_time(self, topic: Topic, recorded_at: int) -> Positions:
        partitions, deadline = self._topics.partitions(topic), self._link.deadline()
        # The ends are asked for first: a record that comes in between must not be taken for one before them.
        latest = self._link.ends(topic, partitions, deadline).latest
        millisecond = -(-recorded_at // 1000)
        bounds = self._link.first_at(topic, partitions, millisecond, deadline)
        # Kafka counts its commit markers, which bear the broker's clock: from there on, look for a record.
        waiting = {number: (offset, latest[number] - 1) for number, offset in bounds.items()}
        found = list(latest)
        with contextlib.closing(self._readers.scan(topic, partitions, waiting)) as messages:
            for message in messages:
                number = message.partition()
                if number in waiting and message.timestamp()[1] >= millisecond:
                    found[number] = message.offset()
                    del waiting[number]
                    if not waiting:
                        break
        return tuple(found)

    @override
    def watch(self, topic: Topic, wake: Callable[[], None]) -> AbstractContextManager[None]:
        return self._tail.watch(topic, wake)

    @override
    def close(self) -> None:
        """Waits for appends under way."""
        self._link.close()
        self._tail.close()
        self._lanes.close()
        self._readers.close()
        self._topics.close()

    def whole(self, receipts: Sequence[Appended]) -> list[Appended]:
        """Return those acknowledged receipts whose records a reader of committed records does not see whole.

        The check that notices what Kafka itself may lose: such a loss leaves no gap in the sequence. Records that
        retention or compaction has removed are not missed.

        Raises:
            InvalidError: NOT_FOUND, no such topic.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        return [receipt for receipt in receipts if not self._is_whole(receipt)]

    def renew_generations(self) -> int:
        """Raise every topic's generation: what a restored backup must do before it serves. Gives the count."""
        return self._topics.renew_generations()

    def _is_whole(self, receipt: Appended) -> bool:
        topic = receipt.lane.topic
        if self._topics.describe(topic).keep is Retention.LATEST:
            return True
        earliest = self.ends(topic).earliest
        wanted = [
            (run.partition, offset)
            for run in receipt.runs
            for offset in range(max(run.first, earliest[run.partition]), run.last + 1)
        ]
        return set(wanted) <= set(self._places(receipt))

    def _exact(self, kept: Kept) -> Appended:
        """Find the exact runs of a receipt that was kept with ranges; what retention has removed is left out."""
        offsets: dict[int, list[int]] = {}
        for partition, offset in sorted(self._places(kept.receipt)):
            offsets.setdefault(partition, []).append(offset)
        return replace(kept.receipt, runs=runs_of(offsets.items()))

    def _places(self, receipt: Appended) -> Iterator[tuple[int, int]]:
        """Return partition and position of the batch's records that are found where its receipt says."""
        ranges: dict[int, tuple[int, int]] = {}
        for run in receipt.runs:
            first, last = ranges.get(run.partition, (run.first, run.last))
            ranges[run.partition] = (min(first, run.first), max(last, run.last))
        topic = receipt.lane.topic
        partitions = self._topics.partitions(topic)
        if ranges and max(ranges) >= partitions:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"a receipt of lane {receipt.lane} names a partition that its topic does not have; compare it with the "
                "pool's own",
            )
        for message in self._readers.scan(topic, partitions, ranges):
            if is_of(message.headers(), receipt.lane, receipt.sequence):
                yield message.partition(), message.offset()

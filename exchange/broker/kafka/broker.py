"""Kafka broker: the adapter for production.

    KafkaBroker ── producers ── transaction   append: one transactional producer per lane (librdkafka)
        │           consumers                 read: a bounded pool of consumers (librdkafka)
        │           watcher                   watch: one consumer for all topics (librdkafka)
        │           topics, version_check     administration (kafka-python)
        └────────── client                    both administration clients, errors, deadlines

Records are stored on Kafka as any Confluent-compatible consumer expects them: key = 16-byte pseudonym (followed by
what is the record's own and its tag, where the topic keeps all history, see `record_tags`), value = framed Avro or
null, CloudEvents headers. Departments have no access to Kafka: the access rules (deploy/kafka/acls.txt) name the
gateway alone.

What somebody with write access to Kafka has changed, invented, repeated or exchanged is refused by the read that meets
it, and so is what he has removed from batches that the read meets (`read_check`). What he removed so that no read
meets anything of it, `pool broker verify` finds, by the roots in the entries (ADR 0047).

Three things differ from the other adapters, and the port allows each. `recorded_at` is truncated to milliseconds,
since that is Kafka's resolution. Positions have gaps: commit markers take some. The commit hook gets no transaction,
since records are committed before it; what was committed without its audit entry is found by `lanes()`. And one
promise is narrower: recorded_at never falls within a partition among the appends of one gateway or of gateways one
after another; for two gateways at the same moment it may fall by as much as their clocks differ.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta

from typing_extensions import override

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.consumers import ConsumerPool, partition_records
from exchange.broker.kafka.erasure import KafkaEraser
from exchange.broker.kafka.producers import LaneProducers
from exchange.broker.kafka.read_check import ReadCheck, ReceiptRuns, columns_of
from exchange.broker.kafka.receipts import (
    StoredReceipt,
    belongs_to_batch,
    decode_receipts,
    runs_of,
    split_into_transactions,
)
from exchange.broker.kafka.record_tags import Columns, RecordTags
from exchange.broker.kafka.settings import KafkaSettings
from exchange.broker.kafka.topics import Topics
from exchange.broker.kafka.version_check import check_broker_version
from exchange.broker.kafka.watcher import TopicWatcher
from exchange.broker.port import (
    Append,
    Appended,
    Broker,
    CommitHook,
    Ends,
    LaneFault,
    LaneState,
    ReadResult,
    RecordsCorruptError,
    Retention,
    TopicInfo,
)
from exchange.broker.rules import check_batches
from exchange.single_flight import SingleFlight
from schemas.errors import ConflictError, CorruptError, GoneError, PoolError, Reason
from schemas.failpoints import reached
from schemas.names import Lane, Topic
from schemas.record import Positions

__all__ = ["KafkaBroker", "KafkaSettings"]


class KafkaBroker(Broker):
    """Kafka adapter of the broker port. Connects on first use, or at once in `check`.

    Args:
        settings: Kafka's addresses, and the gateway's identity there.
        key: of the records' tags; at least 32 bytes, kept outside Kafka.
        alarm: called with whatever is found corrupt, before it is raised.
        untagged: by topic, its generation, and by partition the offset before which records may have no tag.
        receipts: returns the offsets of batches by their receipts; none without it.

    Attributes:
        check_reads: whether `read` checks records. False for `pool broker verify` alone, which compares them itself
            and names what it finds.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        key: bytes,
        alarm: Callable[[RecordsCorruptError], None] = lambda _: None,
        untagged: Mapping[Topic, tuple[int, Positions]] | None = None,
        receipts: ReceiptRuns = lambda _: {},
    ) -> None:
        self.check_reads = True
        self._client = KafkaClient(settings)
        self._alarm = alarm
        tags = RecordTags(key)
        self._topics = Topics(self._client)
        self._consumers = ConsumerPool(self._client)
        self._reads = SingleFlight(self._read)
        self._producers = LaneProducers(self._client, tags, self._restore_runs, self._is_compacted)
        self._eraser = KafkaEraser(self._client, self._topics, self._consumers, tags)
        self._read_check = ReadCheck(tags, self._topics.describe, untagged or {}, receipts, self._eraser.among)
        self._watcher = TopicWatcher(self._client, self._topics, self._consumers.unassign_idle)

    def check(self, warn: Callable[[str], None]) -> int:
        """Connect to Kafka and check its version, as `check_broker_version` says."""
        return check_broker_version(self._client, warn)

    @override
    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        """Allows 256 partitions at most."""
        return self._topics.create(topic, partitions, keep, retention)

    @override
    def configure_topic(self, topic: Topic, *, keep: Retention, retention: timedelta | None) -> TopicInfo:
        """Takes the operator's certificate: the gateway may not change a topic's settings.

        A topic of which retention or compaction has removed records cannot go back to keeping all of them: what Kafka
        removed could not be told from what somebody else removed (`ends`, `read_check`).
        """
        info = self._topics.describe(topic, fresh=True)
        if (info.keep, keep) == (Retention.LATEST, Retention.ALL) and any(
            self._client.ends(topic, info.partitions, self._client.deadline()).latest
        ):
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"{topic} has records of which Kafka kept the latest of each key, and cannot keep all of them from now "
                "on; publish under the next major version",
            )
        if retention is None and any(self._client.ends(topic, info.partitions, self._client.deadline()).earliest):
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"{topic} has lost its first records to retention and cannot keep all from now on; set a number of "
                "days, as large as you like",
            )
        return self._topics.configure(topic, keep, retention)

    @override
    def topic(self, topic: Topic) -> TopicInfo:
        """The description may be five seconds old."""
        return self._topics.describe(topic)

    @override
    def append(self, batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        """The commit hook gets None, after each commit; there are several commits where receipts are long."""
        if not batches:
            return []
        topic = batches[0].lane.topic
        lane = check_batches(batches, self._topics.partitions(topic))
        appended: list[Appended] = []
        for part in split_into_transactions(batches):
            duplicates, new = self._producers.append(lane, part)
            if new:
                reached("after_broker_commit")
                self._watcher.notify(lane.topic)
                commit_hook(None, new)
            appended += duplicates + new
        return appended

    @override
    def resume(self, lane: Lane) -> LaneState | None:
        receipts = self._producers.resume(lane)
        return LaneState(lane=lane, receipts=receipts) if receipts else None

    @override
    def peek_lane(self, lane: Lane) -> LaneState | None:
        receipts = self._producers.peek(lane)
        return LaneState(lane=lane, receipts=receipts) if receipts else None

    @override
    def lanes(self) -> Iterator[LaneState | LaneFault]:
        """A receipt whose transaction is being completed at this moment is returned by the next call."""
        for name, metadata in self._topics.lane_metadata():
            try:
                lane = Lane.parse(name)
                stored = decode_receipts(lane, metadata)
                receipts = tuple(each.receipt if each.exact else self._restore_runs(each) for each in stored)
            except PoolError as error:
                yield LaneFault(name=name, error=error)
            else:
                if receipts:
                    yield LaneState(lane=lane, receipts=receipts)

    @override
    def read(self, topic: Topic, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        """Concurrent reads with the same arguments share one."""
        return self._reads((topic, after, max_records, max_bytes))

    def _read(self, arguments: tuple[Topic, Positions, int, int]) -> ReadResult:
        topic, after, max_records, max_bytes = arguments
        partitions = self._topics.partitions(topic)
        while True:
            try:
                fetched = self._consumers.read(topic, partitions, after, max_records=max_records, max_bytes=max_bytes)
            except GoneError:
                self.ends(topic)  # raises where retention removes nothing
                raise
            found = {number: columns_of(messages) for number, messages in fetched.messages.items()}
            if self.check_reads:
                self._check_read(topic, after, found, fetched.next)
            parts = tuple(partition_records(number, columns) for number, columns in found.items() if columns.keys)
            if parts or fetched.next == after:
                return ReadResult(partitions=parts, next=fetched.next)
            after = fetched.next  # nothing but replacements of erased values, or Kafka's own markers

    def _check_read(self, topic: Topic, after: Positions, found: Mapping[int, Columns], until: Positions) -> None:
        try:
            self._read_check.check(topic, after, found, until)
        except RecordsCorruptError as error:
            self._alarm(error)
            raise

    def _is_compacted(self, topic: Topic) -> bool:
        return self._topics.describe(topic).keep is Retention.LATEST

    def untagged_marks(self) -> dict[Topic, tuple[int, Positions]]:
        """Return, for every topic, its generation and the ends of its partitions, open transactions included.

        What lies before them when the pool is migrated may have no tag.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        marks = {}
        for topic in self._topics.names():
            info = self._topics.describe(topic, fresh=True)
            ends = self._client.high_watermarks(topic, range(info.partitions), self._client.deadline())
            marks[topic] = (info.generation, tuple(ends[number] for number in range(info.partitions)))
        return marks

    @override
    def ends(self, topic: Topic) -> Ends:
        """Where retention removes nothing, a first offset above 0 is corrupt: somebody has removed records."""
        ends = self._client.ends(topic, self._topics.partitions(topic), self._client.deadline())
        if any(ends.earliest) and self._topics.describe(topic).retention is None:
            number = next(number for number, first in enumerate(ends.earliest) if first)
            error = RecordsCorruptError(
                str(topic), number, (0, ends.earliest[number] - 1), "removed, though the topic keeps its records"
            )
            self._alarm(error)
            raise error
        return ends

    @override
    def positions_for_time(self, topic: Topic, recorded_at: int) -> Positions:
        partitions, deadline = self._topics.partitions(topic), self._client.deadline()
        # The ends first: a record that is appended in between must not be taken for one before them.
        latest = self._client.ends(topic, partitions, deadline).latest
        millisecond = -(-recorded_at // 1000)
        bounds = self._client.offsets_for_time(topic, partitions, millisecond, deadline)
        # Kafka counts its commit markers, which carry the broker's clock: from there on, look for a record.
        waiting = {number: (offset, latest[number] - 1) for number, offset in bounds.items()}
        found = list(latest)
        with contextlib.closing(self._consumers.scan(topic, partitions, waiting)) as messages:
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
        return self._watcher.watch(topic, wake)

    @override
    def ping(self) -> None:
        self._client.ping()

    @override
    def close(self) -> None:
        """Waits for running appends."""
        self._client.close()
        self._watcher.close()
        self._producers.close()
        self._consumers.close()
        self._topics.close()

    def find_incomplete(self, receipts: Sequence[Appended]) -> list[Appended]:
        """Return those acknowledged receipts of which a reader of committed records does not find every record.

        This check notices what Kafka itself may lose: such a loss leaves no gap in the sequence. Records that retention
        or compaction has removed do not count.

        Raises:
            InvalidError: NOT_FOUND, no such topic.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        return [receipt for receipt in receipts if not self._is_complete(receipt)]

    @override
    def erase(self, topic: Topic, partition: int, key: bytes, before: int) -> int:
        """Takes the operator's certificate."""
        return self._eraser.erase(topic, partition, key, before)

    @override
    def erased(self, topic: Topic) -> Mapping[tuple[int, int], tuple[bytes, bytes]]:
        """Reads the whole topic."""
        return self._eraser.erased(topic)

    @override
    def destroy_erased(self, topics: Collection[Topic]) -> bool:
        """Takes the operator's certificate, and a minute or two."""
        return self._eraser.destroy(topics)

    @override
    def renew_generations(self, at_least: int = 0) -> int:
        """Count one more restore; the count is Kafka's own, which no restore of a database sets back."""
        return self._topics.renew_generations()

    def _is_complete(self, receipt: Appended) -> bool:
        topic = receipt.lane.topic
        if self._topics.describe(topic).keep is Retention.LATEST:
            return True
        earliest = self.ends(topic).earliest
        wanted = [
            (run.partition, offset)
            for run in receipt.runs
            for offset in range(max(run.first, earliest[run.partition]), run.last + 1)
        ]
        return set(wanted) <= set(self._find_records(receipt))

    def _restore_runs(self, stored: StoredReceipt) -> Appended:
        """Find the exact runs of a receipt stored with ranges; what retention has removed is left out."""
        offsets: dict[int, list[int]] = {}
        for partition, offset in sorted(self._find_records(stored.receipt)):
            offsets.setdefault(partition, []).append(offset)
        return replace(stored.receipt, runs=runs_of(offsets.items()))

    def _find_records(self, receipt: Appended) -> Iterator[tuple[int, int]]:
        """Return partition and position of the batch's records that are found within its receipt's runs."""
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
        for message in self._consumers.scan(topic, partitions, ranges):
            if belongs_to_batch(message.headers(), receipt.lane, receipt.sequence):
                yield message.partition(), message.offset()

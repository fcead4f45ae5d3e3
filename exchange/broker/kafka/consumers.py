"""Consumer pool: a bounded number of Kafka consumers, each found again by its positions.

A librdkafka consumer costs four threads and, while it lags, its queue's memory; one per subscriber would be too many.
A read takes the consumer that is positioned exactly where the reader continues, so that prefetched records are used;
if there is none, an idle one is assigned (3 to 6 ms). A consumer at the log's end is unassigned at once: it would
only poll for nothing.

An empty result is returned only when it is certain. The ends of the topic are queried, and a read is complete when it
has reached them: by the records it got, or by the consumer's end-of-partition event (the last positions before an end
may be Kafka's own commit markers, which no reader ever sees).

Records fetched of several partitions are divided evenly, so that none starves behind another; what remains is
buffered for the reader that continues from there.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.message import Header, Message, consume, poll_one
from exchange.broker.kafka.record_tags import Columns, attributes, is_tagged
from exchange.broker.kafka.settings import closed, unavailable
from exchange.broker.port import PartitionRecords
from exchange.broker.rules import KEY_SIZE, check_positions
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["ConsumerPool", "Fetched", "partition_records"]

_MAX_MESSAGES = 1_000  # messages taken from a consumer's queue in one call
# What is taken from a queue is buffered as Python objects, at three times its size: no more is taken than is needed.
_MAX_BUFFERED_BYTES = 4 * 1024 * 1024  # in one consumer; beyond it no more is taken from its queue
_MIN_BUFFERED_RECORDS = 4_000  # even where fewer are asked for, so that most results have records of every partition
_LINGER = 0.005  # seconds that a lagging reader waits for a fuller result
_IDLE_SECONDS = 2.0  # after which an unused consumer is unassigned
_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001 - the library's spelling


@dataclass(frozen=True, slots=True)
class Fetched:
    """Messages by partition, in order, and the positions after them."""

    messages: Mapping[int, Sequence[Message]]
    next: Positions


class _OutOfRangeError(Exception):
    """Retention has removed the position of the consumer."""


class _PooledConsumer:
    """A consumer with its positions and the messages it has buffered. Used by one thread at a time."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.topic: Topic | None = None
        self.next_offsets: dict[int, int] = {}  # partition → position of the next record to return
        self.used = time.monotonic()
        self._buffered: dict[int, deque[Message]] = {}
        self._bytes = self._count = 0
        self._fetched_to: dict[int, int] = {}  # partition → all before this position was fetched

    def assign(self, topic: Topic, next_offsets: Mapping[int, int]) -> None:
        """Assign the consumer to these positions."""
        self.topic, self.next_offsets, self._fetched_to = topic, dict(next_offsets), dict(next_offsets)
        self._buffered, self._bytes, self._count = {number: deque() for number in next_offsets}, 0, 0
        self.consumer.assign([TopicPartition(str(topic), number, offset) for number, offset in next_offsets.items()])

    def unassign(self) -> None:
        """Unassign the consumer and drop its buffer."""
        self.consumer.unassign()
        self.topic, self._buffered, self._bytes, self._count = None, {}, 0, 0

    def drain(self, records: int) -> bool:
        """Buffer up to *records* messages that were fetched, without waiting; return whether any are buffered."""
        enough = max(records, _MIN_BUFFERED_RECORDS)
        while self._bytes < _MAX_BUFFERED_BYTES and self._count < enough:
            messages = consume(self.consumer, _MAX_MESSAGES)
            for message in messages:
                self._buffer(message)
            if len(messages) < _MAX_MESSAGES:
                break
        return any(self._buffered.values())

    def wait(self, until: Mapping[int, int], deadline: float, records: int = _MIN_BUFFERED_RECORDS) -> bool:
        """Wait until a record is buffered, or it is certain that there is none before *until*; buffer up to *records*.

        Returns:
            Whether any are buffered.

        Raises:
            _OutOfRangeError: retention has removed a position.
            UnavailableError: BROKER_UNAVAILABLE, neither until the deadline.
        """
        while not self.drain(records):
            if self.fetched_up_to(until):
                return False
            waiting = deadline - time.monotonic()
            if waiting <= 0:
                raise unavailable(None, f"return records of {self.topic}")
            message = poll_one(self.consumer, min(waiting, 0.2))
            if message is not None:
                self._buffer(message)
        if self.lagging():
            # Lingering turns a result of a few records into one of some hundred.
            message = poll_one(self.consumer, _LINGER)
            if message is not None:
                self._buffer(message)
                self.drain(records)
        return True

    def fetched_up_to(self, until: Mapping[int, int]) -> bool:
        """Return whether everything before *until* was fetched."""
        return all(self._fetched_to[number] >= end for number, end in until.items())

    def _buffer(self, message: Message) -> None:
        error = message.error()
        if error is None:
            number = message.partition()
            self._buffered[number].append(message)
            self._fetched_to[number] = message.offset() + 1
            self._bytes += _size(message)
            self._count += 1
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._fetched_to[message.partition()] = message.offset()
        elif error.code() in _OUT_OF_RANGE:
            raise _OutOfRangeError
        # Anything else is transient, or the deadline ends it.

    def take_fairly(self, max_records: int, max_bytes: int) -> Fetched:
        """Take as much from the buffer as these bounds allow, evenly from all partitions; at least one record."""
        taken: dict[int, list[Message]] = {}
        waiting = [number for number, buffered in self._buffered.items() if buffered]
        # The first partition depends on the reader's positions, so that none is always last.
        turn = sum(self.next_offsets.values()) % len(waiting) if waiting else 0
        waiting = waiting[turn:] + waiting[:turn]
        records, size, divide_bytes = max_records, max_bytes, True
        while waiting and records > 0:
            quota, budget = max(records // len(waiting), 1), size // len(waiting) if divide_bytes else size
            progress = False
            for number in waiting:
                got = self._take_from(number, min(quota, records), min(budget, size), taken.setdefault(number, []))
                records, size, progress = records - got[0], size - got[1], progress or got[0] > 0
            waiting = [number for number in waiting if self._buffered[number]]
            if not progress:
                if not divide_bytes:
                    break
                divide_bytes = False
        if not any(taken.values()) and waiting:
            self._take_from(waiting[0], 1, max_bytes, taken[waiting[0]], oversize=True)
        for number, messages in taken.items():
            if messages:
                self.next_offsets[number] = messages[-1].offset() + 1
        for number, buffered in self._buffered.items():
            if not buffered:
                self.next_offsets[number] = max(self.next_offsets[number], self._fetched_to[number])
        return Fetched({number: messages for number, messages in sorted(taken.items()) if messages}, self.positions())

    def _take_from(
        self, number: int, records: int, size: int, into: list[Message], *, oversize: bool = False
    ) -> tuple[int, int]:
        buffered, count, total = self._buffered[number], 0, 0
        while buffered and count < records:
            length = _size(buffered[0])
            if total + length > size and not oversize:
                break
            into.append(buffered.popleft())
            count, total = count + 1, total + length
        self._bytes -= total
        self._count -= count
        return count, total

    def take_all(self) -> list[Message]:
        """Take everything from the buffer, partition by partition."""
        messages = [message for buffered in self._buffered.values() for message in buffered]
        for buffered in self._buffered.values():
            buffered.clear()
        self._bytes = self._count = 0
        return messages

    def positions(self) -> Positions:
        """Return the positions of the next records."""
        return tuple(self.next_offsets[number] for number in sorted(self.next_offsets))

    def lagging(self) -> bool:
        """Return whether more records follow than are buffered, by cached watermarks."""
        for number, fetched_to in self._fetched_to.items():
            _, high = self.consumer.get_watermark_offsets(TopicPartition(str(self.topic), number), cached=True)
            # One position more is the marker of the last commit.
            if high > fetched_to + 1:
                return True
        return False

    def has_buffered(self) -> bool:
        """Return whether any message is buffered."""
        return any(self._buffered.values())


class ConsumerPool:
    """The consumers. Thread-safe."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._free = threading.Condition()
        self._idle: list[_PooledConsumer] = []  # longest unused first
        self._open_count = 0
        self._closed = False

    def read(self, topic: Topic, partitions: int, after: Positions, *, max_records: int, max_bytes: int) -> Fetched:
        """Read messages from positions on, as `Broker.read` says; nothing of them is checked."""
        deadline = self._client.deadline()
        with self._borrowed(topic, after, deadline) as pooled:
            try:
                if pooled.topic is None or not pooled.drain(max_records):
                    ends = self._client.ends(topic, partitions, deadline)
                    check_positions(topic, after, ends.earliest, ends.latest)
                    if all(at >= end for at, end in zip(after, ends.latest, strict=True)):
                        return Fetched({}, after)
                    if pooled.topic is None:
                        pooled.assign(topic, dict(enumerate(after)))
                    pooled.wait(dict(enumerate(ends.latest)), deadline, max_records)
            except _OutOfRangeError:
                ends = self._client.ends(topic, partitions, deadline)
                check_positions(topic, after, ends.earliest, ends.latest)
                raise unavailable(None, f"explain why it has no position {after} in {topic}") from None
            return pooled.take_fairly(max_records, max_bytes)

    def scan(self, topic: Topic, partitions: int, ranges: Mapping[int, tuple[int, int]]) -> Generator[Message]:
        """Return the committed messages of these ranges, (first, last) by partition, as far as they still exist.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        deadline = self._client.deadline()
        ends = self._client.ends(topic, partitions, deadline)
        begin = {number: max(first, ends.earliest[number]) for number, (first, _) in ranges.items()}
        until = {number: min(last + 1, ends.latest[number]) for number, (_, last) in ranges.items()}
        begin = {number: first for number, first in begin.items() if first < until[number]}
        until = {number: until[number] for number in begin}
        if not begin:
            return
        with self._borrowed(topic, (), deadline) as pooled:
            pooled.assign(topic, begin)
            with contextlib.suppress(_OutOfRangeError):  # removed meanwhile
                while not pooled.fetched_up_to(until) and pooled.wait(until, self._client.deadline()):
                    yield from (each for each in pooled.take_all() if each.offset() < until[each.partition()])
            # It has fetched beyond its positions: a reader at them must not get it.
            pooled.unassign()

    def unassign_idle(self) -> None:
        """Unassign consumers that were not used lately; called about once a second."""
        before = time.monotonic() - _IDLE_SECONDS
        with self._free:
            for pooled in self._idle:
                if pooled.topic is not None and pooled.used < before:
                    pooled.unassign()

    def close(self) -> None:
        """Close all consumers, those in use as soon as they are released."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._free.notify_all()
        for pooled in idle:
            pooled.consumer.close()

    @contextlib.contextmanager
    def _borrowed(self, topic: Topic, after: Positions, deadline: float) -> Iterator[_PooledConsumer]:
        pooled = self._acquire(topic, after, deadline)
        try:
            yield pooled
            if pooled.topic is not None and not pooled.has_buffered() and not pooled.lagging():
                pooled.unassign()
        except KafkaException as error:
            self._client.record_failure()
            pooled.unassign()
            raise unavailable(error, f"return records of {topic}") from error
        except BaseException:
            pooled.unassign()
            raise
        finally:
            self._release(pooled)

    def _acquire(self, topic: Topic, after: Positions, deadline: float) -> _PooledConsumer:
        with self._free:
            while True:
                if self._closed:
                    raise closed()
                for index, pooled in enumerate(self._idle):
                    if pooled.topic == topic and pooled.positions() == after:
                        return self._idle.pop(index)
                idle = next((index for index, each in enumerate(self._idle) if each.topic is None), None)
                if idle is not None:
                    return self._idle.pop(idle)
                if self._open_count < self._client.settings.max_consumers:
                    self._open_count += 1
                    break
                if self._idle:
                    pooled = self._idle.pop(0)
                    pooled.unassign()
                    return pooled
                if not self._free.wait(deadline - time.monotonic()):
                    raise UnavailableError(
                        Reason.OVERLOADED,
                        f"all {self._open_count} consumers of Kafka are in use; try again in a moment",
                        retry_after=0.5,
                    )
        try:
            return _PooledConsumer(Consumer(self._client.settings.consumer()))
        except BaseException:
            with self._free:
                self._open_count -= 1
            raise

    def _release(self, pooled: _PooledConsumer) -> None:
        pooled.used = time.monotonic()
        with self._free:
            if not self._closed:
                self._idle.append(pooled)
                self._free.notify()
                return
        pooled.consumer.close()


def _size(message: Message) -> int:
    return len(message) + len(message.key() or b"")


def partition_records(number: int, columns: Columns) -> PartitionRecords:
    """Return messages of a partition as the records that they are."""
    keys, messages = columns.keys, columns.messages
    # A result may be shared by many readers. The library parses a message's headers at the first call and frees their
    # raw form; two threads in that call free it twice, and the process dies (confluent-kafka 2.16.0).
    lock = threading.Lock()

    def attributes_of(index: int) -> tuple[int, bytes]:
        if is_tagged(keys[index]):
            return attributes(keys[index], None)
        with lock:
            headers: Sequence[Header] | None = messages[index].headers()
        return attributes(keys[index], headers)

    return PartitionRecords(
        partition=number,
        offsets=columns.offsets,
        keys=[key[:KEY_SIZE] for key in keys],
        values=columns.values,
        recorded_at=[millisecond * 1000 for millisecond in columns.milliseconds],
        mark=lambda index: attributes_of(index)[0],
        valid=lambda index: attributes_of(index)[1],
    )

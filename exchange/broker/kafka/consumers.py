"""Reading from Kafka with few consumers: a bounded pool, keyed by where each of them stands.

A librdkafka consumer costs four threads and, while it lags, its queue's memory; one per subscriber would be too many.
A read takes the consumer that stands exactly where the reader wants to go on, so that what it has fetched ahead is
used; if there is none, an idle one is assigned again (3 to 6 ms). A consumer at the log's end is unassigned at once:
it would only ask for nothing, again and again.

Empty is an answer only when it is certain. The ends of the topic are asked for, and a reader is done when it has come
to them: by the records it got, or by the consumer's word that there is nothing more (the last positions before an end
may hold only Kafka's own commit markers, which no reader ever sees).

What was fetched of several partitions is shared out evenly, so that none starves behind another; what is left over
waits in the consumer for the reader who goes on from there.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.message import Fetched, Header, fetch, fetch_one
from exchange.broker.kafka.receipts import mark_of, valid_of
from exchange.broker.kafka.settings import closed, unavailable
from exchange.broker.port import PartitionRecords, ReadResult
from exchange.broker.rules import check_positions
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["Readers"]

_CHUNK = 1_000  # messages taken from a consumer's queue in one call
# What is taken from a queue waits as objects of Python, at three times its size: no more is taken than is asked for.
_HELD = 4 * 1024 * 1024  # bytes kept in a consumer beyond which no more are taken from its queue
_AHEAD = 4_000  # records kept even where fewer are asked for, so that most slices have some of every partition
_LINGER = 0.005  # seconds that a lagging reader waits for a fuller slice
_COOL = 2.0  # seconds after which a consumer that nobody has come back for gives up its place
_OVERTAKEN = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001 - the library's spelling


class _OvertakenError(Exception):
    """Retention has removed the position at which the consumer stands."""


class _Stream:
    """A consumer, where it stands, and what it holds. Used by one thread at a time."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.topic: Topic | None = None
        self.at: dict[int, int] = {}  # partition → position of the next record to give
        self.used = time.monotonic()
        self._held: dict[int, deque[Fetched]] = {}
        self._bytes = self._count = 0
        self._known: dict[int, int] = {}  # partition → everything before this position was fetched

    def assign(self, topic: Topic, at: Mapping[int, int]) -> None:
        """Stand at these positions."""
        self.topic, self.at, self._known = topic, dict(at), dict(at)
        self._held, self._bytes, self._count = {number: deque() for number in at}, 0, 0
        self.consumer.assign([TopicPartition(str(topic), number, offset) for number, offset in at.items()])

    def rest(self) -> None:
        """Stand nowhere."""
        self.consumer.unassign()
        self.topic, self._held, self._bytes, self._count = None, {}, 0, 0

    def gather(self, records: int) -> bool:
        """Take so many of the records that the consumer has fetched, without waiting; tell whether it holds any."""
        enough = max(records, _AHEAD)
        while self._bytes < _HELD and self._count < enough:
            messages = fetch(self.consumer, _CHUNK)
            for message in messages:
                self._take(message)
            if len(messages) < _CHUNK:
                break
        return any(self._held.values())

    def wait(self, until: Mapping[int, int], deadline: float, records: int = _AHEAD) -> bool:
        """Wait for a first record, or for the certainty that there is none before *until*; gather so many *records*.

        Raises:
            _OvertakenError: see there.
            UnavailableError: BROKER_UNAVAILABLE, neither until the deadline.
        """
        while not self.gather(records):
            if self.past(until):
                return False
            waiting = deadline - time.monotonic()
            if waiting <= 0:
                raise unavailable(None, f"give records of {self.topic}")
            message = fetch_one(self.consumer, min(waiting, 0.2))
            if message is not None:
                self._take(message)
        if self.lagging():
            # Another moment makes a slice of some hundred records out of one of a few.
            message = fetch_one(self.consumer, _LINGER)
            if message is not None:
                self._take(message)
                self.gather(records)
        return True

    def past(self, until: Mapping[int, int]) -> bool:
        """Return whether everything before *until* was fetched."""
        return all(self._known[number] >= end for number, end in until.items())

    def _take(self, message: Fetched) -> None:
        error = message.error()
        if error is None:
            number = message.partition()
            self._held[number].append(message)
            self._known[number] = message.offset() + 1
            self._bytes += _size(message)
            self._count += 1
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._known[message.partition()] = message.offset()
        elif error.code() in _OVERTAKEN:
            raise _OvertakenError
        # Anything else passes by itself or ends at the deadline.

    def share(self, max_records: int, max_bytes: int) -> ReadResult:
        """Return as much as these bounds allow, evenly of all partitions; at least one record."""
        taken: dict[int, list[Fetched]] = {}
        waiting = [number for number, held in self._held.items() if held]
        # Whose turn is first depends on where the reader stands: no partition is always last.
        turn = sum(self.at.values()) % len(waiting) if waiting else 0
        waiting = waiting[turn:] + waiting[:turn]
        records, size, lean = max_records, max_bytes, True
        while waiting and records > 0:
            quota, budget = max(records // len(waiting), 1), size // len(waiting) if lean else size
            moved = False
            for number in waiting:
                got = self._pull(number, min(quota, records), min(budget, size), taken.setdefault(number, []))
                records, size, moved = records - got[0], size - got[1], moved or got[0] > 0
            waiting = [number for number in waiting if self._held[number]]
            if not moved:
                if not lean:
                    break
                lean = False
        if not any(taken.values()) and waiting:
            self._pull(waiting[0], 1, max_bytes, taken[waiting[0]], oversize=True)
        for number, messages in taken.items():
            if messages:
                self.at[number] = messages[-1].offset() + 1
        for number, held in self._held.items():
            if not held:
                self.at[number] = max(self.at[number], self._known[number])
        partitions = tuple(_stretch(number, messages) for number, messages in sorted(taken.items()) if messages)
        return ReadResult(partitions=partitions, next=self.positions())

    def _pull(
        self, number: int, records: int, size: int, into: list[Fetched], *, oversize: bool = False
    ) -> tuple[int, int]:
        held, count, total = self._held[number], 0, 0
        while held and count < records:
            length = _size(held[0])
            if total + length > size and not oversize:
                break
            into.append(held.popleft())
            count, total = count + 1, total + length
        self._bytes -= total
        self._count -= count
        return count, total

    def take_all(self) -> list[Fetched]:
        """Return everything that is held, partition by partition."""
        messages = [message for held in self._held.values() for message in held]
        for held in self._held.values():
            held.clear()
        self._bytes = self._count = 0
        return messages

    def positions(self) -> Positions:
        """Return where the reader stands now."""
        return tuple(self.at[number] for number in sorted(self.at))

    def lagging(self) -> bool:
        """Return whether more is known to follow than what is held; asks no broker."""
        for number, known in self._known.items():
            _, high = self.consumer.get_watermark_offsets(TopicPartition(str(self.topic), number), cached=True)
            # One position more than known is the marker of the last commit.
            if high > known + 1:
                return True
        return False

    def pending(self) -> bool:
        """Return whether it holds anything."""
        return any(self._held.values())


class Readers:
    """The pool. Thread-safe."""

    def __init__(self, link: KafkaClient) -> None:
        self._link = link
        self._free = threading.Condition()
        self._streams: list[_Stream] = []  # free ones, longest unused first
        self._made = 0
        self._closed = False

    def read(self, topic: Topic, partitions: int, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        """Read the records behind positions; see `Broker.read`."""
        deadline = self._link.deadline()
        with self._lent(topic, after, deadline) as stream:
            try:
                if stream.topic is None or not stream.gather(max_records):
                    ends = self._link.ends(topic, partitions, deadline)
                    check_positions(topic, after, ends.earliest, ends.latest)
                    if all(at >= end for at, end in zip(after, ends.latest, strict=True)):
                        return ReadResult(partitions=(), next=after)
                    if stream.topic is None:
                        stream.assign(topic, dict(enumerate(after)))
                    stream.wait(dict(enumerate(ends.latest)), deadline, max_records)
            except _OvertakenError:
                ends = self._link.ends(topic, partitions, deadline)
                check_positions(topic, after, ends.earliest, ends.latest)
                raise unavailable(None, f"tell why it has no position {after} in {topic}") from None
            return stream.share(max_records, max_bytes)

    def scan(self, topic: Topic, partitions: int, ranges: Mapping[int, tuple[int, int]]) -> Generator[Fetched]:
        """Return the committed messages of these ranges, (first, last) by partition, as far as they are still there.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        deadline = self._link.deadline()
        ends = self._link.ends(topic, partitions, deadline)
        begin = {number: max(first, ends.earliest[number]) for number, (first, _) in ranges.items()}
        until = {number: min(last + 1, ends.latest[number]) for number, (_, last) in ranges.items()}
        begin = {number: first for number, first in begin.items() if first < until[number]}
        until = {number: until[number] for number in begin}
        if not begin:
            return
        with self._lent(topic, (), deadline) as stream:
            stream.assign(topic, begin)
            with contextlib.suppress(_OvertakenError):  # what has gone meanwhile is not there
                while not stream.past(until) and stream.wait(until, self._link.deadline()):
                    yield from (each for each in stream.take_all() if each.offset() < until[each.partition()])
            # It has read on from where it says it stands: whoever stands there must not get it.
            stream.rest()

    def cool(self) -> None:
        """Unassign consumers that nobody has come back for; called every second or so."""
        before = time.monotonic() - _COOL
        with self._free:
            for stream in self._streams:
                if stream.topic is not None and stream.used < before:
                    stream.rest()

    def close(self) -> None:
        """Return all consumers back, those in use as soon as they are free."""
        with self._free:
            self._closed = True
            streams, self._streams = self._streams, []
            self._free.notify_all()
        for stream in streams:
            stream.consumer.close()

    @contextlib.contextmanager
    def _lent(self, topic: Topic, after: Positions, deadline: float) -> Iterator[_Stream]:
        stream = self._take(topic, after, deadline)
        try:
            yield stream
            if stream.topic is not None and not stream.pending() and not stream.lagging():
                stream.rest()
        except KafkaException as error:
            self._link.doubt()
            stream.rest()
            raise unavailable(error, f"give records of {topic}") from error
        except BaseException:
            stream.rest()
            raise
        finally:
            self._give(stream)

    def _take(self, topic: Topic, after: Positions, deadline: float) -> _Stream:
        with self._free:
            while True:
                if self._closed:
                    raise closed()
                for index, stream in enumerate(self._streams):
                    if stream.topic == topic and stream.positions() == after:
                        return self._streams.pop(index)
                idle = next((index for index, each in enumerate(self._streams) if each.topic is None), None)
                if idle is not None:
                    return self._streams.pop(idle)
                if self._made < self._link.settings.readers:
                    self._made += 1
                    break
                if self._streams:
                    stream = self._streams.pop(0)
                    stream.rest()
                    return stream
                if not self._free.wait(deadline - time.monotonic()):
                    raise UnavailableError(
                        Reason.OVERLOADED,
                        f"all {self._made} readers of Kafka are at work; try again in a moment",
                        retry_after=0.5,
                    )
        try:
            return _Stream(Consumer(self._link.settings.consumer()))
        except BaseException:
            with self._free:
                self._made -= 1
            raise

    def _give(self, stream: _Stream) -> None:
        stream.used = time.monotonic()
        with self._free:
            if not self._closed:
                self._streams.append(stream)
                self._free.notify()
                return
        stream.consumer.close()


def _size(message: Fetched) -> int:
    return len(message) + len(message.key() or b"")


def _stretch(number: int, messages: Sequence[Fetched]) -> PartitionRecords:
    # A slice may be shared by many readers. The library parses a message's headers at the first call and frees their
    # raw form; two threads in that call at once free it twice, and the process dies (confluent-kafka 2.16.0).
    one_at_a_time = threading.Lock()

    def headers(index: int) -> Sequence[Header] | None:
        with one_at_a_time:
            return messages[index].headers()

    return PartitionRecords(
        partition=number,
        offsets=[message.offset() for message in messages],
        keys=[message.key() for message in messages],
        values=[message.value() for message in messages],
        recorded_at=[message.timestamp()[1] * 1000 for message in messages],
        mark=lambda index: mark_of(headers(index)),
        valid=lambda index: valid_of(headers(index)),
    )

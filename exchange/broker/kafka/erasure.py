"""Erasure on Kafka: a value is replaced by its leaf hash, and log compaction removes the original from the segments.

Kafka compacts by key: of records with the same key the last one stays. So the key of a record in a topic that keeps all
history is its own (`record_tags`): the pseudonym, and what no other record has. Compaction then removes nothing, except
the original of a record that was written again: other records and positions stay.

    erase     find the values; write each again under its key with its leaf hash as the value (a replacement)
    destroy   switch compaction on, close the segments, wait until the originals are gone and their files deleted

A replacement begins with a byte that no framed value begins with. Readers never return one. It has a tag, and without
one that fits, the record that it names is missing and not erased.

It takes the operator's certificate: the gateway may not change a topic's settings. It takes a minute or two, since
Kafka's log cleaner looks for work every 15 seconds. A crash leaves compaction switched on, which harms nothing, and
the next `destroy` goes on. A topic with records from before keys were unique cannot be compacted without losing
history, so nothing is erased in it; one that keeps the latest record of each key is compacted anyway.
"""

import hmac
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, Producer

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.consumers import ConsumerPool
from exchange.broker.kafka.message import Message, is_replacement, replaced, replacement_content
from exchange.broker.kafka.record_tags import RecordTags, attributes
from exchange.broker.kafka.settings import unavailable
from exchange.broker.kafka.topics import Topics
from exchange.broker.port import Ends, Retention
from exchange.broker.rules import KEY_SIZE
from schemas.errors import ConflictError, Reason, UnavailableError
from schemas.names import Topic
from schemas.record import leaf_hashes

__all__ = ["KafkaEraser"]

_TAG_SIZE = 16
_SEGMENT_MS = 1_000
_FILE_DELAY_MS = 1_000
_CENTURY_MS = 100 * 365 * 86_400_000
_GONE_WITHIN = 300.0  # seconds: the cleaner looks every 15, and reads the topic
_POLL = 2.0  # seconds
_FOLLOWERS = 60.0  # seconds for the replicas, which clean their own segments

_WINDOW: dict[str, str] = {
    "cleanup.policy": "compact,delete",  # not `compact` alone, which is how a topic that keeps the latest is known
    "min.cleanable.dirty.ratio": "0.0",
    "min.compaction.lag.ms": "0",
    "segment.ms": str(_SEGMENT_MS),
    "file.delete.delay.ms": str(_FILE_DELAY_MS),
    "delete.retention.ms": str(_CENTURY_MS),  # a void has no value: compaction would remove it after a day
}


@dataclass(frozen=True, slots=True)
class _Erased:
    partition: int
    offset: int
    key: bytes
    value: bytes  # the replacement


class KafkaEraser:
    """Erases values with the operator's certificate, and knows what was erased.

    `erase` and `destroy` are used by one thread at a time; the others are thread-safe.
    """

    def __init__(self, client: KafkaClient, topics: Topics, consumers: ConsumerPool, tags: RecordTags) -> None:
        self._tags = tags
        self._lock = threading.Lock()
        self._known: dict[Topic, tuple[Sequence[int], set[tuple[int, int]]]] = {}  # up to offsets: what was erased
        self._client = client
        self._topics = topics
        self._consumers = consumers
        self._waiting: dict[Topic, list[_Erased]] = {}

    def erase(self, topic: Topic, partition: int, key: bytes, before: int) -> int:
        """Replace the values of a key before a position, as `Broker.erase` says.

        Raises:
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, the certificate may not; the topic keeps the latest of each key, or
                has records from before keys were unique.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        if self._topics.describe(topic, fresh=True).keep is Retention.LATEST:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"{topic} keeps the latest record of each key: publish a void, and Kafka removes the values before it",
            )
        # First: the certificate may do nothing of it, or all.
        self._topics.alter(topic, {"file.delete.delay.ms": str(_FILE_DELAY_MS)})
        found = [
            _Erased(message.partition(), message.offset(), message.key(), self._replacement(topic, message))
            for message in self._unique(topic)
            if message.partition() == partition
            and message.key()[:KEY_SIZE] == key
            and message.offset() < before
            and (value := message.value()) is not None
            and not is_replacement(value)
        ]
        self._write(topic, found)
        self._waiting.setdefault(topic, []).extend(found)
        return len(found)

    def destroy(self, topics: Collection[Topic]) -> bool:
        """Remove the originals of what was replaced, as `Broker.destroy_erased` says.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the certificate may not.
            UnavailableError: BROKER_UNAVAILABLE, also where the log cleaner takes longer than five minutes.
        """
        topics = [topic for topic in topics if self._waiting.get(topic)]
        for topic in topics:
            self._topics.alter(topic, _WINDOW)
        if topics:
            time.sleep(1.5 * _SEGMENT_MS / 1000)  # a segment is closed by a record that is so much later than its first
        for topic in topics:
            self._write(topic, self._waiting[topic])
        for topic in topics:
            self._await_gone(topic)
        if topics:
            delay = 3 * _FILE_DELAY_MS / 1000
            time.sleep(delay if self._client.settings.replication == 1 else delay + _FOLLOWERS)
        for topic in topics:
            back: dict[str, str | None] = dict.fromkeys(_WINDOW)
            self._topics.alter(topic, {**back, "cleanup.policy": "delete"})
            del self._waiting[topic]
        return True

    def erased(self, topic: Topic) -> dict[tuple[int, int], tuple[bytes, bytes]]:
        """Return the records that were erased, as `Broker.erased` says."""
        ends = self._ends(topic)
        return self._find(topic, dict(enumerate(zip(ends.earliest, ends.latest, strict=True))))

    def among(self, topic: Topic, missing: Collection[tuple[int, int]]) -> Collection[tuple[int, int]]:
        """Return those of a topic's records, (partition, offset), that an erasure has removed.

        Reads the whole topic at the first call where any is missing, and later what was appended since.
        """
        with self._lock:
            scanned, known = self._known.get(topic, ((), set()))
            if not known.issuperset(missing):
                ends = self._ends(topic)
                if not scanned or any(one > end for one, end in zip(scanned, ends.latest, strict=True)):
                    scanned, known = ends.earliest, set()
                found = self._find(topic, dict(enumerate(zip(scanned, ends.latest, strict=True))))
                known = known | set(found)
                self._known[topic] = ends.latest, known
        return known.intersection(missing)

    def _find(self, topic: Topic, bounds: Mapping[int, tuple[int, int]]) -> dict[tuple[int, int], tuple[bytes, bytes]]:
        """Return the records that replacements between these offsets name: (partition, offset) → key, leaf hash."""
        found = {}
        ranges = {number: (first, end - 1) for number, (first, end) in bounds.items()}
        for message in self._consumers.scan(topic, self._topics.partitions(topic), ranges):
            value, key = message.value(), message.key() or b""
            if value is not None and is_replacement(value):
                content, tag = value[:-_TAG_SIZE], value[-_TAG_SIZE:]
                if hmac.compare_digest(self._tags.replacement_tag(str(topic), message.partition(), key, content), tag):
                    offset, leaf = replaced(value)
                    found[message.partition(), offset] = (key[:KEY_SIZE], leaf)
        return found

    def _replacement(self, topic: Topic, message: Message) -> bytes:
        content = replacement_content(message.offset(), _leaf(message))
        return content + self._tags.replacement_tag(str(topic), message.partition(), message.key(), content)

    def _ends(self, topic: Topic) -> Ends:
        return self._client.ends(topic, self._topics.partitions(topic), self._client.deadline())

    def _unique(self, topic: Topic) -> Iterator[Message]:
        """Return every message of a topic, each with a key of its own."""
        for message in self._scan(topic, range(self._topics.partitions(topic))):
            if len(message.key()) == KEY_SIZE:
                raise ConflictError(
                    Reason.TRANSITION_NOT_ALLOWED,
                    f"{topic} has records from before its keys were unique, such as {message.partition()}:"
                    f"{message.offset()}; compaction would remove history of others. Nothing of the key is released",
                )
            yield message

    def _scan(self, topic: Topic, partitions: Collection[int]) -> Iterator[Message]:
        count, ends = self._topics.partitions(topic), self._ends(topic)
        ranges = {number: (ends.earliest[number], ends.latest[number] - 1) for number in partitions}
        return self._consumers.scan(topic, count, ranges)

    def _await_gone(self, topic: Topic) -> None:
        originals: defaultdict[int, set[int]] = defaultdict(set)
        for one in self._waiting[topic]:
            originals[one.partition].add(one.offset)
        give_up = time.monotonic() + _GONE_WITHIN
        while True:
            ranges = {number: (min(offsets), max(offsets)) for number, offsets in originals.items()}
            left = [
                message.offset()
                for message in self._consumers.scan(topic, self._topics.partitions(topic), ranges)
                if message.offset() in originals[message.partition()]
            ]
            if not left:
                return
            if time.monotonic() >= give_up:
                raise UnavailableError(
                    Reason.BROKER_UNAVAILABLE,
                    f"Kafka's log cleaner has not removed {len(left)} values of {topic} within {_GONE_WITHIN:.0f} s; "
                    "see that `log.cleaner.enable` is on, and run the command again",
                    retry_after=60.0,
                )
            time.sleep(_POLL)

    def _write(self, topic: Topic, erased: Sequence[_Erased]) -> None:
        """Write replacements, and wait until Kafka has them."""
        if not erased:
            return
        config = self._client.settings.producer("")
        for name in ("transactional.id", "transaction.timeout.ms"):
            del config[name]
        producer = Producer({**config, "enable.idempotence": True, "linger.ms": 5})
        failed: list[KafkaError] = []

        def report(error: KafkaError | None, _: object) -> None:
            if error is not None:
                failed.append(error)

        for one in erased:
            producer.produce(str(topic), one.value, one.key, one.partition, report)
        if producer.flush(self._client.settings.call_timeout) or failed:
            raise unavailable(None, f"store what replaces erased values of {topic}")


def _leaf(message: Message) -> bytes:
    mark, valid = attributes(message.key(), message.headers())
    return leaf_hashes(bytes([mark]), [message.value() or b""], (), valid)[0]

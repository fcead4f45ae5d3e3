"""Topics on Kafka, and the list of lanes: what kafka-python administers for the record path.

A topic is made once, with its partitions for life; nothing here deletes one or changes its shape. Kafka refuses to
make topics by itself (`auto.create.topics.enable=false`), so that a spelling mistake finds nothing instead of making
something.

The generation tells a token of before a restore from one of after. Its lower 40 bits come from the topic's id, which
Kafka draws again when a topic is deleted and made again or mirrored to another cluster; the bits above count
restores, since a data folder that is put back keeps its ids (`renew_generations`). It stays below 2^53, where JSON
numbers are exact.
"""

import functools
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

from confluent_kafka import Consumer
from kafka import TopicPartition
from kafka import errors as admin_errors
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.receipts import MAX_PARTITIONS
from exchange.broker.kafka.settings import PREFIX
from exchange.broker.port import Retention, TopicInfo
from exchange.broker.rules import partition_count_mismatch
from schemas.errors import InvalidError, Reason
from schemas.names import Lane, Topic

__all__ = ["Topics", "lane_group"]

_FRESH = 5.0  # seconds that a description may be used again
_LANES = f"{PREFIX}lane/"
_RESTORES = f"{PREFIX}restores"  # its offset for a topic's partition 0 counts the topic's restores
_ID_BITS = 40
_PAUSE = 0.05
_GROUPS = 500  # groups asked about in one request


def lane_group(lane: Lane) -> str:
    """Return the name of a lane's group and transactional id: Kafka takes any text there, slashes included."""
    return f"{_LANES}{lane}"


class Topics:
    """Makes topics, describes them, and lists the lanes that have receipts. Thread-safe."""

    def __init__(self, link: KafkaClient) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._known: dict[Topic, tuple[float, TopicInfo]] = {}
        self._group: Consumer | None = None

    def create(self, topic: Topic, partitions: int, keep: Retention, retention: timedelta | None) -> TopicInfo:
        """Create a topic, as `Broker.create_topic` says.

        Raises:
            InvalidError: REQUEST_INVALID, no partition or more than 256.
            ConflictError: ALREADY_EXISTS, with another number of partitions.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got {partitions} partitions for {topic}; expected 1 to {MAX_PARTITIONS}"
            )
        settings = self._link.settings
        milliseconds = None if retention is None else retention // timedelta(milliseconds=1)
        wanted = {
            str(topic): {
                "num_partitions": partitions,
                "replication_factor": settings.replication,
                "configs": settings.topic_configs(compacted=keep is Retention.LATEST, retention_ms=milliseconds),
            }
        }

        def make(client: KafkaAdminClient) -> None:
            try:
                client.create_topics(wanted, timeout_ms=int(settings.patience * 1000), wait_for_metadata=True)
            except admin_errors.TopicAlreadyExistsError:
                client.wait_for_topics([str(topic)], timeout_ms=int(settings.patience * 1000))

        self._link.administer(f"make {topic}", make)
        info = self._made(topic)
        if info.partitions != partitions:
            raise partition_count_mismatch(topic, info.partitions, partitions)
        return info

    def _made(self, topic: Topic) -> TopicInfo:
        """Describe a topic that is there; the brokers learn of it one after the other."""
        deadline = self._link.deadline()
        while True:
            try:
                return self.describe(topic, fresh=True)
            except InvalidError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)

    def describe(self, topic: Topic, *, fresh: bool = False) -> TopicInfo:
        """Describe a topic; an answer of less than five seconds ago may be given again."""
        self._link.deadline()
        with self._lock:
            at, info = self._known.get(topic, (0.0, None))
        if info is not None and not fresh and time.monotonic() - at < _FRESH:
            return info
        info = self._describe(topic)
        with self._lock:
            self._known[topic] = (time.monotonic(), info)
        return info

    def _describe(self, topic: Topic) -> TopicInfo:
        deadline = self._link.deadline()
        topic_id, partitions, configs = self._link.shape(topic, deadline)
        retention = int(configs.get("retention.ms", -1))
        restored = self._link.stands_at(self._restores(), topic, deadline)
        return TopicInfo(
            topic=topic,
            partitions=partitions,
            keep=Retention.LATEST if "compact" in configs.get("cleanup.policy", "") else Retention.ALL,
            retention=None if retention < 0 else timedelta(milliseconds=retention),
            generation=(restored[0] if restored else 0) << _ID_BITS | topic_id & (1 << _ID_BITS) - 1,
        )

    def _restores(self) -> Consumer:
        with self._lock:
            if self._group is None:
                self._group = self._link.group(_RESTORES)
            return self._group

    def close(self) -> None:
        """Return the group of the generations back."""
        with self._lock:
            group, self._group = self._group, None
        if group is not None:
            group.close()

    def partitions(self, topic: Topic) -> int:
        """Return a topic's number of partitions; asked once, since it never changes."""
        with self._lock:
            known = self._known.get(topic)
        return known[1].partitions if known else self.describe(topic).partitions

    def lane_metadata(self) -> Iterator[tuple[str, str]]:
        """Return the name of every lane that has committed receipts, with their packed form; takes nothing over."""
        groups = self._link.administer(
            "list its groups",
            lambda client: sorted(
                group["group_id"] for group in client.list_groups() if group["group_id"].startswith(_LANES)
            ),
        )
        for start in range(0, len(groups), _GROUPS):
            asked = {group: _place(group) for group in groups[start : start + _GROUPS]}
            places: dict[str, dict[TopicPartition, OffsetAndMetadata]] = self._link.administer(
                "tell where lanes stand", functools.partial(KafkaAdminClient.list_group_offsets, group_specs=asked)
            )
            for group, offsets in places.items():
                for place in offsets.values():
                    if place.offset >= 0 and place.metadata:
                        yield group.removeprefix(_LANES), place.metadata

    def renew_generations(self) -> int:
        """Raise every topic's generation: what a restored backup must do before it serves. Gives the count."""
        renewed = self._link.administer("raise the generations of its topics", _renew_all)
        with self._lock:
            self._known.clear()
        return renewed


def _renew_all(client: KafkaAdminClient) -> int:
    topics = [topic for name in client.list_topics() if (topic := _topic_or_none(name)) is not None]
    for topic in topics:
        _renew(client, topic)
    return len(topics)


def _renew(client: KafkaAdminClient, topic: Topic) -> None:
    place = TopicPartition(str(topic), 0)
    restores = max(client.list_group_offsets({_RESTORES: [place]})[_RESTORES][place].offset, 0)
    written = client.alter_group_offsets(_RESTORES, {place: OffsetAndMetadata(restores + 1, "", None)})
    if written[place] is not admin_errors.NoError:
        raise written[place]


def _place(group: str) -> list[TopicPartition] | None:
    """Return where a lane's group keeps its receipts; None, which means everywhere, where its name is no lane's."""
    try:
        return [TopicPartition(str(Lane.parse(group.removeprefix(_LANES)).topic), 0)]
    except InvalidError:
        return None


def _topic_or_none(name: str) -> Topic | None:
    try:
        return Topic.parse(name)
    except InvalidError:
        return None

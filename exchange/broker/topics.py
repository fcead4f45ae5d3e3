"""Topics on Kafka, and the list of lanes: what kafka-python administers for the record path.

A topic is made once, with its partitions for life; nothing here deletes one or changes its shape. Kafka refuses to
make topics by itself (`auto.create.topics.enable=false`), so that a spelling mistake finds nothing instead of
making something.

The generation tells a token of before a restore from one of after. Its lower 40 bits come from the topic's id,
which Kafka draws anew when a topic is deleted and made again or mirrored to another cluster; the bits above count
restores, since a data folder that is put back keeps its ids (`renew_generations`). It stays below 2^53, where JSON
numbers are exact.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from kafka import TopicPartition
from kafka import errors as admin_errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from exchange.broker.kafka_link import Link
from exchange.broker.kafka_receipts import MAX_PARTITIONS
from exchange.broker.kafka_settings import PREFIX
from exchange.broker.port import Keep, TopicInfo
from exchange.broker.rules import another_shape, unknown_topic
from schemas.errors import InvalidError, Reason
from schemas.names import Lane, Topic

__all__ = ["Topics", "lane_group"]

_FRESH = 5.0  # seconds that a description may be used again
_LANES = f"{PREFIX}lane/"
_TOPICS = f"{PREFIX}topic/"
_ID_BITS = 40
_GROUPS = 500  # groups asked about in one request


def lane_group(lane: Lane) -> str:
    """Give the name of a lane's group and transactional id: Kafka takes any text there, slashes included."""
    return f"{_LANES}{lane}"


class Topics:
    """Makes topics, describes them, and lists the lanes that have receipts. Thread-safe."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._known: dict[Topic, tuple[float, TopicInfo]] = {}

    def create(self, topic: Topic, partitions: int, keep: Keep, retention: timedelta | None) -> TopicInfo:
        """See `Broker.create_topic`.

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
                "configs": settings.topic_configs(compacted=keep is Keep.LATEST, retention_ms=milliseconds),
            }
        }

        def make(client: KafkaAdminClient) -> None:
            try:
                client.create_topics(wanted, timeout_ms=int(settings.patience * 1000), wait_for_metadata=True)
            except admin_errors.TopicAlreadyExistsError:
                client.wait_for_topics([str(topic)], timeout_ms=int(settings.patience * 1000))

        self._link.administer(f"make {topic}", make)
        info = self.describe(topic, fresh=True)
        if info.partitions != partitions:
            raise another_shape(topic, info.partitions, partitions)
        return info

    def describe(self, topic: Topic, *, fresh: bool = False) -> TopicInfo:
        """See `Broker.topic`; an answer of less than five seconds ago may be given again."""
        self._link.deadline()
        with self._lock:
            at, info = self._known.get(topic, (0.0, None))
        if info is not None and not fresh and time.monotonic() - at < _FRESH:
            return info
        info = self._link.administer(f"describe {topic}", lambda client: _describe(client, topic))
        if info is None:
            raise unknown_topic(topic)
        with self._lock:
            self._known[topic] = (time.monotonic(), info)
        return info

    def partitions(self, topic: Topic) -> int:
        """Give a topic's number of partitions; asked once, since it never changes."""
        with self._lock:
            known = self._known.get(topic)
        return known[1].partitions if known else self.describe(topic).partitions

    def forget(self, topic: Topic) -> None:
        """Drop what is known of a topic that Kafka says it does not know."""
        with self._lock:
            self._known.pop(topic, None)

    def lane_metadata(self) -> Iterator[tuple[Lane, str]]:
        """Give every lane that has committed receipts, with their packed form; takes nothing over."""
        groups = self._link.administer(
            "list its groups",
            lambda client: sorted(
                group["group_id"] for group in client.list_groups() if group["group_id"].startswith(_LANES)
            ),
        )
        for start in range(0, len(groups), _GROUPS):
            part = groups[start : start + _GROUPS]
            places = self._link.administer(
                "tell where lanes stand",
                lambda client, part=part: client.list_group_offsets(
                    {group: [TopicPartition(str(_lane(group).topic), 0)] for group in part}
                ),
            )
            for group, offsets in places.items():
                for place in offsets.values():
                    if place.offset >= 0 and place.metadata:
                        yield _lane(group), place.metadata

    def renew_generations(self) -> int:
        """Raise every topic's generation: what a restored backup must do before it serves. Gives the count."""
        names = self._link.administer("list its topics", lambda client: client.list_topics())
        topics = [topic for name in names if (topic := _topic_or_none(name)) is not None]
        for topic in topics:
            self._link.administer(f"raise the generation of {topic}", lambda client, topic=topic: _renew(client, topic))
            self.forget(topic)
        return len(topics)


def _describe(client: KafkaAdminClient, topic: Topic) -> TopicInfo | None:
    (found,) = client.describe_topics([str(topic)])
    if found["error_code"] == admin_errors.UnknownTopicOrPartitionError.errno:
        return None
    if found["error_code"]:
        raise admin_errors.for_code(found["error_code"])()
    configs = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, str(topic))], config_filter="modified")
    values: dict[str, Any] = {name: entry["value"] for name, entry in configs["topic"][str(topic)].items()}
    retention = int(values.get("retention.ms", -1))
    restores = _restores(client, topic)
    return TopicInfo(
        topic=topic,
        partitions=len(found["partitions"]),
        keep=Keep.LATEST if "compact" in values.get("cleanup.policy", "") else Keep.ALL,
        retention=None if retention < 0 else timedelta(milliseconds=retention),
        generation=restores << _ID_BITS | uuid.UUID(str(found["topic_id"])).int & (1 << _ID_BITS) - 1,
    )


def _restores(client: KafkaAdminClient, topic: Topic) -> int:
    group, place = f"{_TOPICS}{topic}", TopicPartition(str(topic), 0)
    return max(client.list_group_offsets({group: [place]})[group][place].offset, 0)


def _renew(client: KafkaAdminClient, topic: Topic) -> None:
    place = TopicPartition(str(topic), 0)
    written = client.alter_group_offsets(
        f"{_TOPICS}{topic}", {place: OffsetAndMetadata(_restores(client, topic) + 1, "", None)}
    )
    if written[place] is not admin_errors.NoError:
        raise written[place]()


def _lane(group: str) -> Lane:
    return Lane.parse(group.removeprefix(_LANES))


def _topic_or_none(name: str) -> Topic | None:
    try:
        return Topic.parse(name)
    except InvalidError:
        return None

"""Topic administration on Kafka: create, describe, list lanes, raise generations.

A topic is created once and keeps its partitions; nothing here deletes one or changes its number of partitions. Kafka
does not create topics automatically (`auto.create.topics.enable=false`), so that a misspelled name finds nothing
instead of creating something.

The generation distinguishes a position from before a restore from one after it. Its lower 40 bits come from the
topic's id, which Kafka draws again when a topic is deleted and created again or mirrored to another cluster; the bits
above count restores, since a restored data folder has the same ids (`renew_generations`). It stays below 2^53, where
JSON numbers are exact.
"""

import functools
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta

from confluent_kafka import Consumer
from kafka import TopicPartition
from kafka import errors as admin_errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.receipts import MAX_PARTITIONS
from exchange.broker.kafka.settings import PREFIX
from exchange.broker.port import Retention, TopicInfo
from exchange.broker.rules import partition_count_mismatch
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Lane, Topic

__all__ = ["Topics", "lane_group"]

_CACHE_SECONDS = 5.0  # how long a cached description is returned
_LANE_PREFIX = f"{PREFIX}lane/"
_RESTORES_GROUP = f"{PREFIX}restores"  # its offset for a topic's partition 0 counts the topic's restores
_ID_BITS = 40
_RETRY_DELAY = 0.05
_GROUPS_PER_REQUEST = 500  # in one request for their offsets


def lane_group(lane: Lane) -> str:
    """Return the name of a lane's group and transactional id. Kafka accepts any text there, slashes included."""
    return f"{_LANE_PREFIX}{lane}"


class Topics:
    """Creates topics, describes them, and lists the lanes that have receipts. Thread-safe."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._cache: dict[Topic, tuple[float, TopicInfo]] = {}
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
        settings = self._client.settings
        milliseconds = None if retention is None else retention // timedelta(milliseconds=1)
        new_topic = {
            str(topic): {
                "num_partitions": partitions,
                "replication_factor": settings.replication,
                "configs": settings.topic_configs(compacted=keep is Retention.LATEST, retention_ms=milliseconds),
            }
        }

        def create_topic(client: KafkaAdminClient) -> None:
            try:
                client.create_topics(new_topic, timeout_ms=int(settings.call_timeout * 1000), wait_for_metadata=True)
            except admin_errors.TopicAlreadyExistsError:
                client.wait_for_topics([str(topic)], timeout_ms=int(settings.call_timeout * 1000))

        self._client.with_admin(f"create {topic}", create_topic)
        info = self._describe_new(topic)
        if info.partitions != partitions:
            raise partition_count_mismatch(topic, info.partitions, partitions)
        return info

    def configure(self, topic: Topic, keep: Retention, retention: timedelta | None) -> TopicInfo:
        """Change what a topic keeps, as `Broker.configure_topic` says; takes the operator's certificate.

        Raises:
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, the certificate may not change a topic's settings.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        self.describe(topic, fresh=True)
        milliseconds = None if retention is None else retention // timedelta(milliseconds=1)
        wanted = self._client.settings.topic_configs(compacted=keep is Retention.LATEST, retention_ms=milliseconds)
        self.alter(topic, {name: wanted[name] for name in ("cleanup.policy", "retention.ms")})
        return self.describe(topic, fresh=True)

    def alter(self, topic: Topic, configs: Mapping[str, str | None]) -> None:
        """Set some of a topic's settings; None takes one back to its default.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the certificate may not.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        values = {name: ("DELETE", None) if value is None else ("SET", value) for name, value in configs.items()}
        resource = ConfigResource(ConfigResourceType.TOPIC, str(topic), values)

        def alter_configs(client: KafkaAdminClient) -> bool:
            try:
                answers = client.alter_configs([resource], raise_on_unknown=False)
            except admin_errors.AuthorizationError:
                return False
            found = [str(answer) for by_name in answers.values() for answer in by_name.values()]
            if any("AUTHORIZATION" in answer.upper() for answer in found):
                return False
            if any(answer != "OK" for answer in found):
                raise admin_errors.InvalidConfigurationError
            return True

        if not self._client.with_admin(f"change the settings of {topic}", alter_configs):
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the gateway's certificate may not change the settings of {topic} on Kafka; run `pool broker apply` "
                "with the operator's",
            )

    def _describe_new(self, topic: Topic) -> TopicInfo:
        """Return the description of a topic that exists, once every broker has learnt of it."""
        deadline = self._client.deadline()
        while True:
            try:
                return self.describe(topic, fresh=True)
            except InvalidError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_RETRY_DELAY)

    def describe(self, topic: Topic, *, fresh: bool = False) -> TopicInfo:
        """Return a topic's description, cached for five seconds unless *fresh*."""
        self._client.deadline()
        with self._lock:
            at, info = self._cache.get(topic, (0.0, None))
        if info is not None and not fresh and time.monotonic() - at < _CACHE_SECONDS:
            return info
        info = self._describe(topic)
        with self._lock:
            self._cache[topic] = (time.monotonic(), info)
        return info

    def _describe(self, topic: Topic) -> TopicInfo:
        deadline = self._client.deadline()
        topic_id, partitions, configs = self._client.describe_topic(topic, deadline)
        retention = int(configs.get("retention.ms", -1))
        restores = self._client.committed_offset(self._restores_group(), topic, deadline)
        return TopicInfo(
            topic=topic,
            partitions=partitions,
            # `compact,delete` is an erasure under way (`erasure`).
            keep=Retention.LATEST if configs.get("cleanup.policy", "") == "compact" else Retention.ALL,
            retention=None if retention < 0 else timedelta(milliseconds=retention),
            generation=(restores[0] if restores else 0) << _ID_BITS | topic_id & (1 << _ID_BITS) - 1,
        )

    def _restores_group(self) -> Consumer:
        with self._lock:
            if self._group is None:
                self._group = self._client.open_group(_RESTORES_GROUP)
            return self._group

    def close(self) -> None:
        """Close the consumer of the restores group."""
        with self._lock:
            group, self._group = self._group, None
        if group is not None:
            group.close()

    def partitions(self, topic: Topic) -> int:
        """Return a topic's number of partitions; cached without limit, since it never changes."""
        with self._lock:
            cached = self._cache.get(topic)
        return cached[1].partitions if cached else self.describe(topic).partitions

    def lane_metadata(self) -> Iterator[tuple[str, str]]:
        """Return the name of every lane with committed receipts, and their encoded form; takes no lane over."""
        groups = self._client.with_admin(
            "list its groups",
            lambda client: sorted(
                group["group_id"] for group in client.list_groups() if group["group_id"].startswith(_LANE_PREFIX)
            ),
        )
        for start in range(0, len(groups), _GROUPS_PER_REQUEST):
            asked = {group: _receipt_partitions(group) for group in groups[start : start + _GROUPS_PER_REQUEST]}
            by_group: dict[str, dict[TopicPartition, OffsetAndMetadata]] = self._client.with_admin(
                "return the lanes' offsets", functools.partial(KafkaAdminClient.list_group_offsets, group_specs=asked)
            )
            for group, offsets in by_group.items():
                for committed in offsets.values():
                    if committed.offset >= 0 and committed.metadata:
                        yield group.removeprefix(_LANE_PREFIX), committed.metadata

    def names(self) -> list[Topic]:
        """Return the topics of the pool."""
        listed = self._client.with_admin("list its topics", lambda client: list(client.list_topics()))
        return [topic for name in listed if (topic := _topic_or_none(name)) is not None]

    def renew_generations(self) -> int:
        """Raise every topic's generation, as `Broker.renew_generations` says; return the number of topics."""
        renewed = self._client.with_admin("raise the generations of its topics", _renew_all)
        with self._lock:
            self._cache.clear()
        return renewed


def _renew_all(client: KafkaAdminClient) -> int:
    topics = [topic for name in client.list_topics() if (topic := _topic_or_none(name)) is not None]
    for topic in topics:
        _renew(client, topic)
    return len(topics)


def _renew(client: KafkaAdminClient, topic: Topic) -> None:
    partition = TopicPartition(str(topic), 0)
    restores = max(client.list_group_offsets({_RESTORES_GROUP: [partition]})[_RESTORES_GROUP][partition].offset, 0)
    results = client.alter_group_offsets(_RESTORES_GROUP, {partition: OffsetAndMetadata(restores + 1, "", None)})
    if results[partition] is not admin_errors.NoError:
        raise results[partition]


def _receipt_partitions(group: str) -> list[TopicPartition] | None:
    """Return the partition of a lane's receipts in its group; None (all of them) where the name is not a lane's."""
    try:
        return [TopicPartition(str(Lane.parse(group.removeprefix(_LANE_PREFIX)).topic), 0)]
    except InvalidError:
        return None


def _topic_or_none(name: str) -> Topic | None:
    try:
        return Topic.parse(name)
    except InvalidError:
        return None

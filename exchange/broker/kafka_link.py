"""The gateway's line to Kafka: the two administration clients, their errors turned into the pool's, one closed door.

kafka-python's client makes topics and lists groups; librdkafka's answers the small questions of the record path
(where does a partition end, where does a group stand), since it is three times as quick and can ask for stable
offsets. Both are made on first use, so that a gateway starts while Kafka is still starting.

After a failure the next call knocks first: a TCP connection to one of the brokers. While nobody listens, callers
get their UnavailableError at once and do not fill the gateway's threads with waiting.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka import errors as admin_errors
from kafka.admin import KafkaAdminClient

from exchange.broker.kafka_settings import KafkaSettings, admin, closed, code_of, unavailable
from exchange.broker.port import Ends
from exchange.broker.rules import unknown_topic
from schemas.names import Topic

__all__ = ["Link"]

_T = TypeVar("_T")
_PAUSE = 0.05  # seconds between two questions about something that is about to settle
_KNOCK = 0.5  # seconds that a TCP connection may take
# A leader that has just been elected, a topic that has just been made, an offset whose transaction is being closed.
_SETTLING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError._WAIT_COORD,  # noqa: SLF001 - the library spells its local codes so
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
}
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001


class Link:
    """Shared by everything that a gateway does with Kafka. Thread-safe."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._python: KafkaAdminClient | None = None
        self._native: AdminClient | None = None
        self._closed = False
        self._doubtful = False

    def deadline(self) -> float:
        """Give the moment (monotonic seconds) at which a call that begins now gives up.

        Raises:
            UnavailableError: SHUTTING_DOWN after `close`; BROKER_UNAVAILABLE when the last call failed and nobody
                listens at any of the addresses.
        """
        if self._closed:
            raise closed()
        if self._doubtful and not any(map(_listens, self.settings.bootstrap.split(","))):
            raise unavailable(None, "listen")
        return time.monotonic() + self.settings.patience

    def doubt(self) -> None:
        """Note that a call failed: the next one knocks first."""
        self._doubtful = True

    def close(self) -> None:
        """Give both clients back. Later calls raise."""
        with self._lock:
            self._closed = True
            python, self._python, self._native = self._python, None, None
        if python is not None:
            with contextlib.suppress(RuntimeError, OSError):
                python.close()

    def administer(self, doing: str, act: Callable[[KafkaAdminClient], _T]) -> _T:
        """Let *act* use kafka-python's client; its errors come back as UnavailableError.

        `AlreadyExists` and such, which the caller wants to see, must be caught within *act*.
        """
        deadline = self.deadline()
        while True:
            try:
                answer = act(self._administrator())
            except (admin_errors.KafkaError, RuntimeError, OSError) as error:
                if not getattr(error, "retriable", False) or time.monotonic() + _PAUSE >= deadline:
                    self.doubt()
                    raise unavailable(error, doing) from error
                time.sleep(_PAUSE)
            else:
                self._doubtful = False
                return answer

    def stands_at(self, group: str, topic: Topic, deadline: float, *, stable: bool = True) -> tuple[int, str] | None:
        """Give offset and metadata that a group has committed for partition 0 of a topic; None if nothing.

        With `stable`, an offset whose transaction is still being closed is waited for, never taken for none.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE, no stable answer until the deadline.
        """
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(str(topic), 0)])

        def ask(timeout: float) -> tuple[int, str] | None:
            futures = self._client().list_consumer_group_offsets(
                [asked], require_stable=stable, request_timeout=timeout
            )
            (place,) = futures[group].result(timeout + 1).topic_partitions
            if place.error is not None:
                raise KafkaException(place.error)
            return None if place.offset < 0 else (place.offset, place.metadata or "")

        return self._settled(ask, deadline, f"tell where group {group} stands")

    def ends(self, topic: Topic, partitions: int, deadline: float) -> Ends:
        """Give both ends of a topic as a reader of committed records sees them.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        earliest = self._offsets(topic, range(partitions), OffsetSpec.earliest(), deadline)
        latest = self._offsets(topic, range(partitions), OffsetSpec.latest(), deadline)
        return Ends(
            earliest=tuple(earliest[number][0] for number in range(partitions)),
            latest=tuple(latest[number][0] for number in range(partitions)),
        )

    def first_at(self, topic: Topic, partitions: int, millisecond: int, deadline: float) -> dict[int, int]:
        """Give, per partition that has one, the offset of the first record of that time (ms UTC) or later."""
        spec = OffsetSpec.for_timestamp(max(millisecond, 0))
        found = self._offsets(topic, range(partitions), spec, deadline)
        return {number: offset for number, (offset, _) in found.items() if offset >= 0}

    def high(self, topic: Topic, partitions: Iterable[int], deadline: float) -> dict[int, int]:
        """Give the offset after the last one written, open transactions and markers included, per partition."""
        found = self._offsets(topic, partitions, OffsetSpec.latest(), deadline, IsolationLevel.READ_UNCOMMITTED)
        return {number: offset for number, (offset, _) in found.items()}

    def _offsets(
        self,
        topic: Topic,
        partitions: Iterable[int],
        spec: Any,
        deadline: float,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> Mapping[int, tuple[int, int]]:
        asked = {TopicPartition(str(topic), number): spec for number in partitions}

        def ask(timeout: float) -> dict[int, tuple[int, int]]:
            futures = self._client().list_offsets(asked, isolation_level=isolation, request_timeout=timeout)
            answers = {place.partition: future.result(timeout + 1) for place, future in futures.items()}
            return {number: (answer.offset, answer.timestamp) for number, answer in answers.items()}

        return self._settled(ask, deadline, f"tell the offsets of {topic}", topic)

    def _settled(self, ask: Callable[[float], _T], deadline: float, doing: str, topic: Topic | None = None) -> _T:
        """Ask until the answer is final or the deadline has passed."""
        while True:
            left = deadline - time.monotonic()
            try:
                answer = ask(max(left, 0.1))
            except (KafkaException, TimeoutError) as error:
                code = code_of(error)
                if code not in _SETTLING or left <= _PAUSE:
                    self.doubt()
                    if topic is not None and code in _UNKNOWN:
                        raise unknown_topic(topic) from error
                    raise unavailable(error, doing) from error
                time.sleep(_PAUSE)
            else:
                self._doubtful = False
                return answer

    def _administrator(self) -> KafkaAdminClient:
        with self._lock:
            if self._closed:
                raise closed()
            if self._python is None:
                self._python = admin(self.settings)
            return self._python

    def _client(self) -> AdminClient:
        with self._lock:
            if self._closed:
                raise closed()
            if self._native is None:
                self._native = AdminClient(self.settings.admin())
            return self._native


def _listens(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()
    except (OSError, ValueError):
        return False
    return True

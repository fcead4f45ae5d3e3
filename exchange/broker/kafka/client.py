"""The gateway's line to Kafka: the two administration clients, their errors turned into the pool's, one closed door.

librdkafka's client answers the small questions of the record path (what is a topic like, where does a partition end,
where does a group stand): it is three times as quick and can ask for stable offsets. It is made on first use, so that
a gateway starts while Kafka is still starting. kafka-python's, which makes topics and lists groups, is opened for
each such act: kept open, it would knock at a broker that is away all day long.

After a failure the next call knocks first: a TCP connection to one of the brokers. While nobody listens, callers get
their UnavailableError at once and do not fill the gateway's threads with waiting.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # published by its documentation, not by __all__
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)
from kafka import errors as admin_errors
from kafka.admin import KafkaAdminClient

from exchange.broker.kafka.settings import KafkaSettings, admin, closed, code_of, unavailable
from exchange.broker.port import Ends
from exchange.broker.rules import topic_not_found
from schemas.errors import CorruptError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["KafkaClient"]

_EARLIEST: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
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
    KafkaError._NOENT,  # noqa: SLF001 - no leader known
}
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001


class KafkaClient:
    """Shared by everything that a gateway does with Kafka. Thread-safe."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._native: AdminClient | None = None
        self._closed = False
        self._doubtful = False

    def deadline(self) -> float:
        """Return the moment (monotonic seconds) at which a call that begins now gives up.

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
        """Return the clients back. Later calls raise."""
        with self._lock:
            self._closed = True
            self._native = None

    def administer(self, doing: str, act: Callable[[KafkaAdminClient], _T]) -> _T:
        """Let *act* use kafka-python's client, again if Kafka asks for it; its errors come back as the pool's.

        What the caller wants to see of them (a topic that exists already) must be caught within *act*.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        deadline = self.deadline()
        client = None
        try:
            client = admin(self.settings)
            while True:
                try:
                    answer = act(client)
                except admin_errors.KafkaError as error:
                    if not error.retriable or time.monotonic() + _PAUSE >= deadline:
                        raise
                    time.sleep(_PAUSE)
                else:
                    self._doubtful = False
                    return answer
        except UnavailableError:
            self.doubt()
            raise
        except (admin_errors.KafkaError, RuntimeError, OSError) as error:
            self.doubt()
            raise unavailable(error, doing) from error
        finally:
            if client is not None:
                client.close()

    def shape(self, topic: Topic, deadline: float) -> tuple[int, int, dict[str, str]]:
        """Return a topic's id as a number, its number of partitions, and its configuration.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        name = str(topic)

        def ask(timeout: float) -> tuple[int, int, dict[str, str]]:
            client, resource = self._client(), ConfigResource(ResourceType.TOPIC, name)
            described = client.describe_topics(TopicCollection([name]), request_timeout=timeout)[name]
            (configured,) = client.describe_configs([resource], request_timeout=timeout).values()
            found = described.result(timeout + 1)
            configs = {entry.name: str(entry.value) for entry in configured.result(timeout + 1).values()}
            return _number(found.topic_id), len(found.partitions), configs

        return self._settled(ask, deadline, f"describe {topic}", topic, final=_UNKNOWN)

    def group(self, group: str, *, stable: bool = True) -> Consumer:
        """Open a group for a look at its offsets; it joins nothing and fetches nothing. The caller closes it.

        With `stable`, an offset whose transaction is still being closed is waited for, never taken for none.
        """
        level = "read_committed" if stable else "read_uncommitted"
        # Not the administration client's call for it: librdkafka 2.16.0 dies (SIGSEGV, in the handler of an
        # OffsetFetch answer) when the coordinator has just moved and the client is no consumer.
        return Consumer(self.settings.consumer(**{"group.id": group, "isolation.level": level}))

    def stands_at(self, group: Consumer, topic: Topic, deadline: float) -> tuple[int, str] | None:
        """Return offset and metadata that an opened group has committed for partition 0 of a topic; None if nothing.

        Raises:
            CorruptError: LOG_CORRUPT, the metadata is no text.
            UnavailableError: BROKER_UNAVAILABLE, no (stable) answer until the deadline.
        """

        def ask(timeout: float) -> tuple[int, str] | None:
            try:
                (place,) = group.committed([TopicPartition(str(topic), 0)], timeout)
            except UnicodeDecodeError as error:
                # Metadata that librdkafka has not written lacks the NUL at which it would stop reading.
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    f"what a group keeps on Kafka for {topic} cannot be read: somebody else has written it",
                ) from error
            if place.error is not None:
                raise KafkaException(place.error)
            return None if place.offset < 0 else (place.offset, place.metadata or "")

        return self._settled(ask, deadline, f"tell what is committed for {topic}")

    def ends(self, topic: Topic, partitions: int, deadline: float) -> Ends:
        """Return both ends of a topic as a reader of committed records sees them.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        earliest = self._offsets(topic, range(partitions), _EARLIEST, deadline)
        latest = self.stable(topic, range(partitions), deadline)
        return Ends(
            earliest=tuple(earliest[number][0] for number in range(partitions)),
            latest=tuple(latest[number] for number in range(partitions)),
        )

    def stable(self, topic: Topic, partitions: Iterable[int], deadline: float) -> dict[int, int]:
        """Return the offset before which everything is committed or aborted, per partition."""
        found = self._offsets(topic, partitions, _LATEST, deadline)
        return {number: offset for number, (offset, _) in found.items()}

    def first_at(self, topic: Topic, partitions: int, millisecond: int, deadline: float) -> dict[int, int]:
        """Return, per partition that has one, the offset of the first record of that time (ms UTC) or later."""
        spec = OffsetSpec.for_timestamp(max(millisecond, 0))
        found = self._offsets(topic, range(partitions), spec, deadline)
        return {number: offset for number, (offset, _) in found.items() if offset >= 0}

    def high(self, topic: Topic, partitions: Iterable[int], deadline: float) -> dict[int, int]:
        """Return the offset after the last one written, open transactions and markers included, per partition."""
        found = self._offsets(topic, partitions, _LATEST, deadline, IsolationLevel.READ_UNCOMMITTED)
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

    def _settled(
        self,
        ask: Callable[[float], _T],
        deadline: float,
        doing: str,
        topic: Topic | None = None,
        final: Collection[int] = (),
    ) -> _T:
        """Ask until the answer is final or the deadline has passed."""
        while True:
            left = deadline - time.monotonic()
            try:
                answer = ask(max(left, 0.1))
            except (KafkaException, TimeoutError) as error:
                code = code_of(error)
                if code in _SETTLING and code not in final and left > _PAUSE:
                    self._refresh(topic, left)
                    continue
                if topic is not None and code in _UNKNOWN:
                    raise topic_not_found(topic) from error
                self.doubt()
                raise unavailable(error, doing) from error
            else:
                self._doubtful = False
                return answer

    def _refresh(self, topic: Topic | None, left: float) -> None:
        """Wait a little, then have the leaders looked up again: librdkafka goes on asking a former one otherwise."""
        time.sleep(_PAUSE)
        if topic is not None:
            with contextlib.suppress(KafkaException):
                self._client().list_topics(str(topic), timeout=min(left, 1.0))

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


def _number(topic_id: Any) -> int:
    mask = (1 << 64) - 1
    bits = topic_id.get_most_significant_bits() & mask, topic_id.get_least_significant_bits() & mask
    return int(bits[0] << 64 | bits[1])

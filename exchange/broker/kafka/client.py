"""Kafka client for administration, with retries, error translation and a circuit breaker.

librdkafka's client serves the small queries of the record path (a topic's description, a partition's ends, a group's
committed offset): it is three times as quick and can ask for stable offsets. It is created on first use, so that a
gateway starts while Kafka is still starting. kafka-python's, which creates topics and lists groups, is opened for
each such call: kept open, it would try to reconnect all day to a broker that is down.

Circuit breaker: a failed call opens the circuit. The next call then probes the brokers' addresses by TCP; while none
of them accepts a connection, it fails at once with UnavailableError, so that waiting calls do not fill the gateway's
threads. The first call that succeeds closes the circuit.
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
_RETRY_DELAY = 0.05  # seconds between two attempts
_PROBE_TIMEOUT = 0.5  # seconds that the circuit breaker's TCP connection may take
# A leader just elected, a topic just created, an offset whose transaction is being completed.
_RETRIABLE = {
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
_UNKNOWN_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001


class KafkaClient:
    """Kafka client of a gateway, shared by all parts of the adapter. Thread-safe."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._admin_client: AdminClient | None = None
        self._closed = False
        self._circuit_open = False

    def deadline(self) -> float:
        """Return the deadline (monotonic seconds) of a call that begins now.

        Raises:
            UnavailableError: SHUTTING_DOWN after `close`; BROKER_UNAVAILABLE when the circuit is open and no address
                accepts connections.
        """
        if self._closed:
            raise closed()
        if self._circuit_open and not any(map(_accepts_connections, self.settings.bootstrap.split(","))):
            raise unavailable(None, "accept connections")
        return time.monotonic() + self.settings.call_timeout

    def record_failure(self) -> None:
        """Open the circuit: the next call probes the brokers' addresses first."""
        self._circuit_open = True

    def close(self) -> None:
        """Close the client. Later calls raise."""
        with self._lock:
            self._closed = True
            self._admin_client = None

    def with_admin(self, doing: str, call: Callable[[KafkaAdminClient], _T]) -> _T:
        """Run *call* with kafka-python's client, retry retriable errors, translate the others.

        An error that the caller handles itself (a topic exists already) must be caught within *call*.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """
        deadline = self.deadline()
        client = None
        try:
            client = admin(self.settings)
            while True:
                try:
                    answer = call(client)
                except admin_errors.KafkaError as error:
                    if not error.retriable or time.monotonic() + _RETRY_DELAY >= deadline:
                        raise
                    time.sleep(_RETRY_DELAY)
                else:
                    self._circuit_open = False
                    return answer
        except UnavailableError:
            self.record_failure()
            raise
        except (admin_errors.KafkaError, RuntimeError, OSError) as error:
            self.record_failure()
            raise unavailable(error, doing) from error
        finally:
            if client is not None:
                client.close()

    def describe_topic(self, topic: Topic, deadline: float) -> tuple[int, int, dict[str, str]]:
        """Return a topic's id as a number, its number of partitions, and its configuration.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        name = str(topic)

        def query(timeout: float) -> tuple[int, int, dict[str, str]]:
            client, resource = self._admin(), ConfigResource(ResourceType.TOPIC, name)
            described = client.describe_topics(TopicCollection([name]), request_timeout=timeout)[name]
            (configured,) = client.describe_configs([resource], request_timeout=timeout).values()
            found = described.result(timeout + 1)
            configs = {entry.name: str(entry.value) for entry in configured.result(timeout + 1).values()}
            return _number(found.topic_id), len(found.partitions), configs

        return self._retry(query, deadline, f"describe {topic}", topic, not_retried=_UNKNOWN_TOPIC)

    def ping(self) -> None:
        """Ask for the cluster's id.

        Raises:
            UnavailableError: BROKER_UNAVAILABLE.
        """

        def query(timeout: float) -> str:
            described = self._admin().describe_cluster(request_timeout=timeout).result(timeout + 1)
            return str(described.cluster_id)

        self._retry(query, self.deadline(), "describe its cluster")

    def open_group(self, group: str, *, stable: bool = True) -> Consumer:
        """Open a group to read its offsets; it joins nothing and fetches nothing. The caller closes it.

        With `stable`, an offset whose transaction is still being completed is waited for, never taken for none.
        """
        level = "read_committed" if stable else "read_uncommitted"
        # Not the administration client's call for it: librdkafka 2.16.0 dies (SIGSEGV, in the handler of an
        # OffsetFetch answer) when the coordinator has just moved and the client is no consumer.
        return Consumer(self.settings.consumer(**{"group.id": group, "isolation.level": level}))

    def committed_offset(self, group: Consumer, topic: Topic, deadline: float) -> tuple[int, str] | None:
        """Return offset and metadata that an opened group has committed for partition 0 of a topic; None if nothing.

        Raises:
            CorruptError: LOG_CORRUPT, the metadata is not text.
            UnavailableError: BROKER_UNAVAILABLE, no (stable) answer until the deadline.
        """

        def query(timeout: float) -> tuple[int, str] | None:
            try:
                (found,) = group.committed([TopicPartition(str(topic), 0)], timeout)
                metadata = found.metadata or ""
            except UnicodeDecodeError as error:
                # Metadata that librdkafka has not written lacks the NUL at which it would stop reading.
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    f"what a group has committed on Kafka for {topic} cannot be read: another client has written it",
                ) from error
            if found.error is not None:
                raise KafkaException(found.error)
            return None if found.offset < 0 else (found.offset, metadata)

        return self._retry(query, deadline, f"return the committed offset for {topic}")

    def ends(self, topic: Topic, partitions: int, deadline: float) -> Ends:
        """Return both ends of a topic as a reader of committed records sees them.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: BROKER_UNAVAILABLE.
        """
        earliest = self._offsets(topic, range(partitions), _EARLIEST, deadline)
        latest = self.stable_offsets(topic, range(partitions), deadline)
        return Ends(
            earliest=tuple(earliest[number][0] for number in range(partitions)),
            latest=tuple(latest[number] for number in range(partitions)),
        )

    def stable_offsets(self, topic: Topic, partitions: Iterable[int], deadline: float) -> dict[int, int]:
        """Return the last stable offset of each partition: before it, everything is committed or aborted."""
        found = self._offsets(topic, partitions, _LATEST, deadline)
        return {number: offset for number, (offset, _) in found.items()}

    def offsets_for_time(self, topic: Topic, partitions: int, millisecond: int, deadline: float) -> dict[int, int]:
        """Return, per partition that has one, the offset of the first record of that time (ms UTC) or later."""
        spec = OffsetSpec.for_timestamp(max(millisecond, 0))
        found = self._offsets(topic, range(partitions), spec, deadline)
        return {number: offset for number, (offset, _) in found.items() if offset >= 0}

    def high_watermarks(self, topic: Topic, partitions: Iterable[int], deadline: float) -> dict[int, int]:
        """Return the high watermark of each partition, with the records of open transactions and markers."""
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
        specs = {TopicPartition(str(topic), number): spec for number in partitions}

        def query(timeout: float) -> dict[int, tuple[int, int]]:
            futures = self._admin().list_offsets(specs, isolation_level=isolation, request_timeout=timeout)
            answers = {asked.partition: future.result(timeout + 1) for asked, future in futures.items()}
            return {number: (answer.offset, answer.timestamp) for number, answer in answers.items()}

        return self._retry(query, deadline, f"return the offsets of {topic}", topic)

    def _retry(
        self,
        query: Callable[[float], _T],
        deadline: float,
        doing: str,
        topic: Topic | None = None,
        not_retried: Collection[int] = (),
    ) -> _T:
        """Repeat a query until it succeeds, fails permanently, or the deadline has passed."""
        while True:
            remaining = deadline - time.monotonic()
            try:
                answer = query(max(remaining, 0.1))
            except (KafkaException, TimeoutError) as error:
                code = code_of(error)
                if code in _RETRIABLE and code not in not_retried and remaining > _RETRY_DELAY:
                    self._refresh(topic, remaining)
                    continue
                if topic is not None and code in _UNKNOWN_TOPIC:
                    raise topic_not_found(topic) from error
                self.record_failure()
                raise unavailable(error, doing) from error
            else:
                self._circuit_open = False
                return answer

    def _refresh(self, topic: Topic | None, remaining: float) -> None:
        """Wait, then refresh the metadata of leaders: librdkafka keeps asking a former leader otherwise."""
        time.sleep(_RETRY_DELAY)
        if topic is not None:
            with contextlib.suppress(KafkaException):
                self._admin().list_topics(str(topic), timeout=min(remaining, 1.0))

    def _admin(self) -> AdminClient:
        with self._lock:
            if self._closed:
                raise closed()
            if self._admin_client is None:
                self._admin_client = AdminClient(self.settings.admin())
            return self._admin_client


def _accepts_connections(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT).close()
    except (OSError, ValueError):
        return False
    return True


def _number(topic_id: Any) -> int:
    mask = (1 << 64) - 1
    bits = topic_id.get_most_significant_bits() & mask, topic_id.get_least_significant_bits() & mask
    return int(bits[0] << 64 | bits[1])

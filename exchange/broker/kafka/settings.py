"""Kafka settings: addresses, TLS, and the configuration of both client libraries.

Two clients, one job each: confluent-kafka (librdkafka) carries records, kafka-python administers. Both use mutual TLS
with the gateway's certificate of Kafka's own authority; there is no plaintext setting.

The numbers below are measured: with librdkafka's defaults a lagging reader takes 70 MiB of memory, and a small queue
waits a second after it was full.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

if TYPE_CHECKING:  # a tenth of a second at each start of a pool, which may have its records elsewhere
    from kafka.admin import KafkaAdminClient

__all__ = [
    "MAX_RECORD_BYTES",
    "PREFIX",
    "KafkaSettings",
    "OnBrokenVersion",
    "admin",
    "check_key_files",
    "closed",
    "code_of",
    "unavailable",
]

PREFIX = "pool/"
"""Prefix of every group and transactional id of the exchange, so that an ACL can name them."""

MAX_RECORD_BYTES = 8 * 1024 * 1024 + 4096  # a batch on the wire may be one record; headers come on top
_SOCKET_TIMEOUT_MS = 10_000
_MAX_MESSAGE_BYTES = 10 * 1024 * 1024  # the topic's max.message.bytes


class OnBrokenVersion(StrEnum):
    """What to do about a broker of a version that can lose acknowledged transactions (KAFKA-20734)."""

    AUTO = "auto"  # refuse where replication is 1, else warn
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Kafka's addresses, the gateway's identity there, and the bounds of its use.

    Attributes:
        bootstrap: `host:port` of some brokers, separated by commas.
        ca, certificate, key: PEM files; the authority is Kafka's own, never the departments'.
        replication, min_insync: of the topics that are created; 3 and 2 in production, 1 and 1 on a single node.
        max_producers: open at once, one a lane; one costs up to 0.8 MiB, 4 threads and 8 descriptors.
        max_consumers: open at once, shared by all subscribers.
        call_timeout: seconds that a call may take before it raises UnavailableError.
        transaction_timeout: seconds after which the brokers abort a dead gateway's transaction.
        on_broken_version: see `OnBrokenVersion`.
    """

    bootstrap: str
    ca: Path
    certificate: Path
    key: Path
    replication: int = 3
    min_insync: int | None = None
    max_producers: int = 64
    max_consumers: int = 8
    call_timeout: float = 15.0
    transaction_timeout: float = 10.0
    on_broken_version: OnBrokenVersion = OnBrokenVersion.AUTO

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": str(self.ca),
            "ssl.certificate.location": str(self.certificate),
            "ssl.key.location": str(self.key),
            "ssl.endpoint.identification.algorithm": "https",
            "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "allow.auto.create.topics": False,
            # librdkafka would write to stderr; what matters is raised by some call as well.
            "log_level": 0,
        }

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """Return the configuration of a lane's producer."""
        common = self._common()
        del common["allow.auto.create.topics"]
        return common | {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(self.transaction_timeout * 1000),
            "message.timeout.ms": int(self.transaction_timeout * 1000),
            "socket.timeout.ms": min(int(self.transaction_timeout * 1000), _SOCKET_TIMEOUT_MS),
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": 1_000,
            "batch.size": 1_000_000,
            "batch.num.messages": 10_000,
            "message.max.bytes": _MAX_MESSAGE_BYTES,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
            # librdkafka drops the brokers when none is left, but not a group's coordinator, and then waits for that one
            # without end (its issues 5456 and 5511; 9 of 10 restarts of a single node, never with these settings).
            "metadata.recovery.strategy": "none",
            "metadata.max.age.ms": 10_000,
            "topic.metadata.refresh.interval.ms": 5_000,
            # Without it the library writes to stderr that it was fenced; some call raises that as well.
            "error_cb": _ignore_error,
        }

    def consumer(self, **changes: object) -> dict[str, Any]:
        """Return the configuration of a consumer: committed records only, little memory, no silent skip of a gap."""
        return (
            self._common()
            | {
                "group.id": f"{PREFIX}readers",  # the library requires one; nothing is ever committed under it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.max.bytes": 2 * 1024 * 1024,
                "fetch.message.max.bytes": 512 * 1024,
                "queued.max.messages.kbytes": 2_048,
                "fetch.queue.backoff.ms": 10,
                "fetch.error.backoff.ms": 50,
                "fetch.wait.max.ms": 10,
            }
            | changes
        )

    def admin(self) -> dict[str, Any]:
        """Return the configuration of librdkafka's administration client: offsets of groups and partitions."""
        common = self._common()
        del common["allow.auto.create.topics"]
        return common

    def topic_configs(self, *, compacted: bool, retention_ms: int | None) -> dict[str, str]:
        """Return the configuration of a new topic."""
        insync = self.min_insync or max(1, self.replication - 1)
        return {
            "cleanup.policy": "compact" if compacted else "delete",
            "retention.ms": str(-1 if retention_ms is None else retention_ms),
            "retention.bytes": "-1",
            "min.insync.replicas": str(insync),
            "max.message.bytes": str(_MAX_MESSAGE_BYTES),
            "message.timestamp.type": "CreateTime",
            "unclean.leader.election.enable": "false",
        }


def _ignore_error(error: KafkaError) -> None:
    """Ignore librdkafka's report of its own state; calls raise the same."""


def check_key_files(settings: KafkaSettings) -> None:
    """Check that this process can read the PEM files.

    Raises:
        InvalidError: CONFIG_INVALID.
    """
    for path in (settings.ca, settings.certificate, settings.key):
        if not path.is_file() or not os.access(path, os.R_OK):
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"got {path} in the Kafka settings; expected a PEM file that this process can read",
            )


def admin(settings: KafkaSettings) -> "KafkaAdminClient":
    """Connect kafka-python's administration client.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE, when no broker answers.
        InvalidError: CONFIG_INVALID, when a PEM file cannot be read.
    """
    from kafka import errors
    from kafka.admin import KafkaAdminClient
    from kafka.net.compat import KafkaNetClient

    check_key_files(settings)
    made: list[KafkaNetClient] = []

    def connect(**configs: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**configs))
        return made[-1]

    try:
        return KafkaAdminClient(
            bootstrap_servers=settings.bootstrap.split(","),
            client_id="exchange-pool",
            security_protocol="SSL",
            ssl_cafile=str(settings.ca),
            ssl_certfile=str(settings.certificate),
            ssl_keyfile=str(settings.key),
            bootstrap_timeout_ms=int(settings.call_timeout * 1000),
            request_timeout_ms=int(settings.call_timeout * 1000),
            reconnect_backoff_max_ms=1_000,
            kafka_client=connect,
        )
    except (errors.KafkaError, OSError) as error:
        # The constructor leaves its thread and its sockets behind when no broker answers.
        for each in made:
            each.close()
        raise unavailable(error) from error


_ACCESS_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - the library spells its local codes so
    KafkaError._SSL,  # noqa: SLF001
}


def code_of(error: BaseException) -> int | None:
    """Return librdkafka's code of an error, also where the library wraps it into a SystemError."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KafkaException) and seen.args and isinstance(seen.args[0], KafkaError):
            return int(seen.args[0].code())
        seen = seen.__cause__ or seen.__context__
    return None


def unavailable(error: BaseException | None, doing: str = "answer") -> UnavailableError:
    """Build the error for a failed call, with Kafka's error code and without its text, which may hold addresses."""
    code = None if error is None else code_of(error)
    if code == KafkaError.KAFKA_STORAGE_ERROR:
        return UnavailableError(
            Reason.DISK_FULL, "Kafka cannot write to its disk; nothing was stored", retry_after=10.0
        )
    from kafka.errors import AuthorizationError

    if code in _ACCESS_DENIED or isinstance(error, AuthorizationError):
        return _access_denied(_name(error))
    return UnavailableError(
        Reason.BROKER_UNAVAILABLE, f"Kafka did not {doing} in time ({_name(error)}); nothing visible", retry_after=1.0
    )


def _access_denied(name: str) -> UnavailableError:
    """Build the error for a certificate or access rule that Kafka rejects: an operator has to act, not the caller."""
    return UnavailableError(
        Reason.BROKER_UNAVAILABLE,
        f"Kafka refuses the gateway's certificate or lacks an access rule ({name}); apply deploy/kafka/acls.txt",
        retry_after=10.0,
    )


def closed() -> UnavailableError:
    """Build the error for a call after `close`."""
    return UnavailableError(Reason.SHUTTING_DOWN, "the broker was closed; open another one")


def _name(error: BaseException | None) -> str:
    if isinstance(error, PoolError):
        return error.reason
    seen = error
    while seen is not None:
        if isinstance(seen, KafkaException) and seen.args and isinstance(seen.args[0], KafkaError):
            return str(seen.args[0].name())
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__ if error is not None else "timeout"

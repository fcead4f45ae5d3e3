"""How a gateway reaches Kafka, and what each of its two libraries is told.

Two clients, one job each: confluent-kafka (librdkafka) carries records, kafka-python administers. Both speak mutual
TLS with the gateway's certificate of Kafka's own authority; there is no plaintext setting.

The numbers below are measured ones: librdkafka's defaults give a lagging reader 70 MiB of memory and make a small
queue wait a second after it was full.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from kafka import errors as admin_errors
from kafka.admin import KafkaAdminClient
from kafka.net.compat import KafkaNetClient

from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

__all__ = ["PREFIX", "KafkaSettings", "OnBrokenVersion", "admin", "refused", "unavailable"]

PREFIX = "pool/"
"""What every group and transactional id of the exchange begins with, so that an ACL can name them."""

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
    """Where Kafka is, who the gateway is there, and how much of it the gateway uses.

    Attributes:
        bootstrap: `host:port` of some brokers, separated by commas.
        ca, certificate, key: PEM files; the authority is Kafka's own, never the departments'.
        replication, min_insync: of the topics that are made; 3 and 2 in production, 1 and 1 on a single node.
        lanes: producers kept at once; one costs up to 0.8 MiB, 4 threads and 8 descriptors.
        readers: consumers kept at once, shared by all subscribers.
        patience: seconds that a call may take before it gives up with UnavailableError.
        transaction_timeout: seconds after which the brokers abort a dead gateway's transaction.
        on_broken_version: see `OnBrokenVersion`.
    """

    bootstrap: str
    ca: Path
    certificate: Path
    key: Path
    replication: int = 3
    min_insync: int | None = None
    lanes: int = 64
    readers: int = 8
    patience: float = 15.0
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
            # librdkafka writes to the process's stderr; what matters comes back as an error of some call.
            "log_level": 0,
        }

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """Return the settings of a lane's one producer."""
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
            # librdkafka forgets the brokers when none is left, but not who a group's coordinator was, and then waits
            # for that one without end (its issues 5456 and 5511; 9 of 10 restarts of a single node, never with these).
            "metadata.recovery.strategy": "none",
            "metadata.max.age.ms": 10_000,
            "topic.metadata.refresh.interval.ms": 5_000,
            # Without it the library writes to stderr that it was fenced; that comes as the error of a call, too.
            "error_cb": _noted,
        }

    def consumer(self, **changes: object) -> dict[str, Any]:
        """Return the settings of a reader: committed records only, little memory, no silent jump over a gap."""
        return (
            self._common()
            | {
                "group.id": f"{PREFIX}readers",  # demanded by the library; nothing is ever committed under it
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
        """Return the settings of librdkafka's own administration client: offsets of groups and partitions."""
        common = self._common()
        del common["allow.auto.create.topics"]
        return common

    def topic_configs(self, *, compacted: bool, retention_ms: int | None) -> dict[str, str]:
        """Return the configuration of a topic to be made."""
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


def _noted(error: KafkaError) -> None:
    """Take librdkafka's word about its own state; each call tells the same by its error."""


def refuse_missing_keys(settings: KafkaSettings) -> None:
    """Refuse settings whose PEM files this process cannot read.

    Raises:
        InvalidError: CONFIG_INVALID.
    """
    for path in (settings.ca, settings.certificate, settings.key):
        if not path.is_file() or not os.access(path, os.R_OK):
            raise InvalidError(Reason.CONFIG_INVALID, f"no PEM file to read at {path}; the Kafka settings name it")


def admin(settings: KafkaSettings) -> KafkaAdminClient:
    """Connect kafka-python's administration client.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE, when no broker answers.
        InvalidError: CONFIG_INVALID, when a PEM file cannot be read.
    """
    refuse_missing_keys(settings)
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
            bootstrap_timeout_ms=int(settings.patience * 1000),
            request_timeout_ms=int(settings.patience * 1000),
            reconnect_backoff_max_ms=1_000,
            kafka_client=connect,
        )
    except (admin_errors.KafkaError, OSError) as error:
        # The constructor leaves its thread and its sockets behind when nobody answers.
        for each in made:
            each.close()
        raise unavailable(error) from error


_REFUSALS = {
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
    """Say that Kafka is away, without its own words: they may hold addresses, never values, but help nobody."""
    code = None if error is None else code_of(error)
    if code == KafkaError.KAFKA_STORAGE_ERROR:
        return UnavailableError(
            Reason.DISK_FULL, "Kafka cannot write to its disk; nothing was stored", retry_after=10.0
        )
    if code in _REFUSALS or isinstance(error, admin_errors.AuthorizationError):
        return refused(_name(error))
    return UnavailableError(
        Reason.BROKER_UNAVAILABLE, f"Kafka did not {doing} in time ({_name(error)}); nothing visible", retry_after=1.0
    )


def refused(name: str) -> UnavailableError:
    """Say that Kafka does not let the gateway do its work: an operator's business, not the caller's."""
    return UnavailableError(
        Reason.BROKER_UNAVAILABLE,
        f"Kafka refuses the gateway's certificate or lacks an access rule ({name}); apply deploy/kafka/acls.txt",
        retry_after=10.0,
    )


def closed() -> UnavailableError:
    """Say that the adapter was closed."""
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

"""Brokers of a pool by its configuration: PostgreSQL or Kafka, for a gateway, an operator's command or a restore."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from exchange import metrics
from exchange.audit.postgres import PostgresReceipts
from exchange.broker.kafka.settings import KafkaSettings, OnBrokenVersion
from exchange.broker.port import Broker, RecordsCorruptError
from exchange.broker.postgres.broker import PostgresBroker
from exchange.config import Config
from exchange.config import KafkaBroker as KafkaSection
from exchange.identity.secrets import FileSecrets
from exchange.server.key_files import RECORDS_KEY, read_untagged, records_tagged
from exchange.server.schemas_topic import SchemasTopic, read_topic
from registry.database.unit_of_work import PostgresDatabase
from registry.postgres.outbox import PostgresOutbox
from registry.schemas_topic.records import Record
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Lane, Topic
from schemas.record import OffsetRange, Positions

if TYPE_CHECKING:  # a fifth of a second at each start, which a pool on PostgreSQL does not need
    from exchange.broker.kafka.broker import KafkaBroker
    from exchange.broker.kafka.read_check import ReceiptRuns

__all__ = [
    "kafka_untagged",
    "leave_reads_unchecked",
    "open_broker",
    "open_kafka",
    "open_schemas_topic",
    "operator_broker",
    "schemas_on_topic",
]

_log = structlog.get_logger()


def open_broker(config: Config, key: bytes, database: PostgresDatabase) -> Broker:
    """Open the broker of a gateway.

    Args:
        config: says which, and where it is.
        key: of the tags of records.
        database: of the pool; on Kafka it has the receipts that reads are compared with.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE.
    """
    if isinstance(config.broker, KafkaSection):
        return _gateway_kafka(config, config.broker, key, _receipt_runs(database))
    return PostgresBroker(database, key=key, alarm=_report_corrupt, maintenance_period=timedelta(minutes=10))


def operator_broker(config: Config, certificate: Path, key: Path) -> "KafkaBroker":
    """Open Kafka with the operator's certificate, which may do what the gateway's may not.

    Raises:
        InvalidError: CONFIG_INVALID, the records of this pool are not on Kafka.
    """
    from exchange.broker.kafka.broker import KafkaBroker

    if not isinstance(config.broker, KafkaSection):
        raise InvalidError(
            Reason.CONFIG_INVALID, "the records of this pool are in PostgreSQL, which needs no operator for this"
        )
    records_key = FileSecrets.open(config.path("secrets")).named_key(RECORDS_KEY)
    return KafkaBroker(replace(_kafka(config, config.broker), certificate=certificate, key=key), key=records_key)


def open_kafka(config: Config) -> "KafkaBroker":
    """Open Kafka as a gateway does, without the receipts of a database.

    Raises:
        InvalidError: CONFIG_INVALID, the records of this pool are not on Kafka.
        UnavailableError: BROKER_UNAVAILABLE.
    """
    if not isinstance(config.broker, KafkaSection):
        raise InvalidError(Reason.CONFIG_INVALID, "the records of this pool are in PostgreSQL, not on Kafka")
    return _gateway_kafka(config, config.broker, FileSecrets.open(config.path("secrets")).named_key(RECORDS_KEY))


def _gateway_kafka(
    config: Config, section: KafkaSection, key: bytes, receipts: "ReceiptRuns" = lambda _: {}
) -> "KafkaBroker":
    from exchange.broker.kafka.broker import KafkaBroker

    broker = KafkaBroker(
        _kafka(config, section),
        key=key,
        alarm=_report_corrupt,
        untagged=read_untagged(records_tagged(config.folder)),
        receipts=receipts,
    )
    try:
        broker.check(lambda sentence: _log.warning("unsafe_kafka_version", message=sentence))
    except PoolError:
        broker.close()
        raise
    return broker


def leave_reads_unchecked(broker: Broker) -> None:
    """Have a broker return records that are not as the pool stored them, for a command that compares them itself."""
    from exchange.broker.kafka.broker import KafkaBroker

    if isinstance(broker, KafkaBroker):
        broker.check_reads = False


def kafka_untagged(config: Config, key: bytes) -> dict[Topic, tuple[int, Positions]]:
    """Return the ends of the topics of a pool on Kafka, whose records have no tags before them; none on PostgreSQL.

    Raises:
        UnavailableError: BROKER_UNAVAILABLE.
    """
    if not isinstance(config.broker, KafkaSection):
        return {}
    from exchange.broker.kafka.broker import KafkaBroker

    broker = KafkaBroker(_kafka(config, config.broker), key=key)
    try:
        return broker.untagged_marks()
    finally:
        broker.close()


def _receipt_runs(database: PostgresDatabase) -> "ReceiptRuns":
    store = PostgresReceipts()

    def runs(batches: Collection[tuple[Lane, int]]) -> Mapping[tuple[Lane, int], Sequence[OffsetRange]]:
        with database.read() as reader:
            return store.runs(reader, batches)

    return runs


def open_schemas_topic(config: Config, database: PostgresDatabase, outbox: PostgresOutbox) -> SchemasTopic | None:
    """Open the topic that tells schemas; None where the pool has none."""
    topic = _schemas_topic_settings(config)
    return None if topic is None else SchemasTopic(topic[0], database, outbox, name=topic[1])


def schemas_on_topic(config: Config) -> Iterator[Record]:
    """Read the schemas topic, without the database, which may be lost.

    Raises:
        InvalidError: CONFIG_INVALID, the pool has no such topic.
        UnavailableError: BROKER_UNAVAILABLE.
        CorruptError: LOG_CORRUPT, a record is not UTF-8.
    """
    topic = _schemas_topic_settings(config)
    if topic is None:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "got a pool without a topic of schemas; expected `topic` under [registry], and Kafka as the broker",
        )
    return read_topic(*topic)


def _schemas_topic_settings(config: Config) -> tuple[KafkaSettings, str] | None:
    """Return the connection settings and the name of the schemas topic; None where the pool has none."""
    if config.registry.topic is None or not isinstance(config.broker, KafkaSection):
        return None
    return _kafka(config, config.broker), config.registry.topic


def _kafka(config: Config, section: KafkaSection) -> KafkaSettings:
    strictness = {None: OnBrokenVersion.AUTO, True: OnBrokenVersion.REFUSE, False: OnBrokenVersion.WARN}
    return KafkaSettings(
        bootstrap=section.bootstrap,
        ca=_below(config.folder, section.authority),
        certificate=_below(config.folder, section.certificate),
        key=_below(config.folder, section.key),
        replication=section.replication,
        on_broken_version=strictness[section.refuse_unsafe_versions],
    )


def _below(folder: Path, path: Path) -> Path:
    return path if path.is_absolute() else folder / path


def _report_corrupt(error: RecordsCorruptError) -> None:
    metrics.RECORDS_CORRUPT.labels(error.topic).inc()
    _log.error("records_corrupt", topic=error.topic, partition=error.partition, offsets=error.offsets, found=error.why)

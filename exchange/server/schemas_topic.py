"""Schemas topic on Kafka: sends the registry's outbox, for Kafka-side tools and for a restore.

    outbox ── lock held by one process ── one Kafka transaction ── _schemas (compacted, one partition)

A lock in PostgreSQL selects the process that sends, for as long as the sending takes. Kafka excludes every other
writer: all processes use one transactional id, so a process that lost the lock without noticing is fenced. A batch is
sent first and deleted afterwards. If a process dies in between, the next one sends the batch again in the same order.

An empty topic is first filled with everything that the registry contains. The topic belongs to the pool: no other
registry may write to it.
"""

import contextlib
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from exchange.broker.kafka.settings import PREFIX, KafkaSettings, admin, check_key_files, unavailable
from registry.database.unit_of_work import Database, UnitOfWork
from registry.postgres.outbox import PostgresOutbox
from registry.schemas_topic.records import Record
from schemas.errors import CorruptError, Reason

__all__ = ["SchemasTopic", "read_topic"]

_TRANSACTIONAL_ID = f"{PREFIX}schemas"
_BATCH = 500  # records of one transaction


class SchemasTopic:
    """Sends the outbox to the topic. Used by one thread.

    Args:
        settings: connection to Kafka.
        database: opens transactions.
        outbox: records to send.
        name: of the topic.
    """

    def __init__(
        self, settings: KafkaSettings, database: Database, outbox: PostgresOutbox, *, name: str = "_schemas"
    ) -> None:
        self.name = name
        self._settings = settings
        self._database = database
        self._outbox = outbox
        self._producer: Producer | None = None
        self._prepared = False

    def step(self) -> int:
        """Send at most one batch; return the number of records, 0 when another process holds the lock.

        Raises:
            UnavailableError: Kafka or the database does not answer; nothing is lost.
        """
        if not self._prepared:
            # In a transaction of its own: if the first batch were sent in the same one and that failed, the topic would
            # not be empty any more, and the records that were never put into the outbox would never be sent.
            with self._database.begin() as work:
                if not self._outbox.try_lock(work):
                    return 0
                self._prepare(work)
            self._prepared = True
        with self._database.begin() as work:
            if not self._outbox.try_lock(work):
                return 0
            waiting = self._outbox.pending(work, _BATCH)
            if waiting:
                self._send([record for _, record in waiting])
                self._outbox.remove(work, [number for number, _ in waiting])
            return len(waiting)

    def _prepare(self, work: UnitOfWork) -> None:
        """Create the topic if it does not exist, and fill the outbox if the topic is empty."""
        client = admin(self._settings)
        wanted = {
            self.name: {
                "num_partitions": 1,
                "replication_factor": self._settings.replication,
                "configs": self._settings.topic_configs(compacted=True, retention_ms=None),
            }
        }
        from kafka import errors

        milliseconds = int(self._settings.call_timeout * 1000)
        try:
            with contextlib.suppress(errors.TopicAlreadyExistsError):
                client.create_topics(wanted, timeout_ms=milliseconds, wait_for_metadata=True)
            client.wait_for_topics([self.name], timeout_ms=milliseconds)
        except errors.KafkaError as error:
            raise unavailable(error, f"make {self.name}") from error
        finally:
            client.close()
        if self._empty():
            self._outbox.fill(work)

    def _empty(self) -> bool:
        consumer = Consumer(self._settings.consumer())
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(self.name, 0), timeout=self._settings.call_timeout)
        except KafkaException as error:
            raise unavailable(error, f"look into {self.name}") from error
        finally:
            consumer.close()
        return bool(end == 0)

    def _send(self, records: list[Record]) -> None:
        """Send a batch in one transaction: all of it or nothing."""
        is_reused = self._producer is not None
        try:
            try:
                self._send_once(records)
            except KafkaException:
                # Another process has sent since, and fenced this producer; a new producer fences that one.
                if not is_reused:
                    raise
                self._producer = None
                self._send_once(records)
        except (KafkaException, BufferError) as error:
            self._producer = None
            raise unavailable(error, f"write to {self.name}") from error

    def _send_once(self, records: list[Record]) -> None:
        producer = self._open_producer()
        producer.begin_transaction()
        for record in records:
            value = None if record.value is None else record.value.encode()
            producer.produce(self.name, key=record.key.encode(), value=value, partition=0)
        producer.commit_transaction(self._settings.call_timeout)

    def _open_producer(self) -> Producer:
        if self._producer is None:
            producer = Producer(self._settings.producer(_TRANSACTIONAL_ID))
            producer.init_transactions(self._settings.call_timeout)
            self._producer = producer
        return self._producer


def read_topic(settings: KafkaSettings, name: str) -> Iterator[Record]:
    """Read a schemas topic from its beginning to its end.

    Raises:
        InvalidError: CONFIG_INVALID, a PEM file cannot be read.
        UnavailableError: BROKER_UNAVAILABLE.
        CorruptError: LOG_CORRUPT, a record is not UTF-8.
    """
    check_key_files(settings)
    consumer = Consumer(settings.consumer(**{"auto.offset.reset": "earliest"}))
    partition = TopicPartition(name, 0)
    try:
        first, end = consumer.get_watermark_offsets(partition, timeout=settings.call_timeout)
        consumer.assign([TopicPartition(name, 0, first)])
        while consumer.position([partition])[0].offset < end:
            message = consumer.poll(settings.call_timeout)
            if message is None:
                raise unavailable(None, f"read {name}")
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library names its local codes so
                    return
                raise unavailable(KafkaException(error), f"read {name}")
            yield _record(message.key(), message.value())
    except KafkaException as error:
        raise unavailable(error, f"read {name}") from error
    finally:
        consumer.close()


def _record(key: bytes | None, value: bytes | None) -> Record:
    try:
        return Record((key or b"").decode(), None if value is None else value.decode())
    except UnicodeDecodeError as error:
        raise CorruptError(Reason.LOG_CORRUPT, "a record of the topic of schemas is no text; who wrote it?") from error

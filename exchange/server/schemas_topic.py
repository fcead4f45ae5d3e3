"""The topic of schemas on Kafka: what the registry's outbox holds, for Kafka-side tools and for a restore.

    outbox ── one process's turn ── one Kafka transaction ── _schemas (compacted, one partition)

PostgreSQL says whose turn it is, for as long as the sending takes; Kafka says that nobody else writes: there is one
transactional id for all, so a process that lost its turn without knowing is fenced. A batch is sent, then forgotten.
Whoever dies in between leaves it to the next, which sends it again in the same order.

A topic that is empty is filled with everything that the registry holds before anything else. The topic belongs to the
pool: no other registry may write to it.
"""

import contextlib
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from kafka import errors as admin_errors

from exchange.broker.kafka.settings import PREFIX, KafkaSettings, admin, check_key_files, unavailable
from registry.database.unit_of_work import Database, UnitOfWork
from registry.postgres.outbox import PostgresOutbox
from registry.schemas_topic.records import Record
from schemas.errors import CorruptError, Reason

__all__ = ["SchemasTopic", "read_topic"]

_TRANSACTIONAL_ID = f"{PREFIX}schemas"
_BATCH = 500  # records of one turn


class SchemasTopic:
    """Empties the outbox. Used by one thread.

    Args:
        settings: how the gateway reaches Kafka.
        database: opens transactions.
        outbox: what is to be sent.
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
        self._ready = False

    def step(self) -> int:
        """Send what waits, at most one batch; give the number of records, 0 when it is another process's turn.

        Raises:
            UnavailableError: Kafka or the database does not answer; nothing is lost.
        """
        if not self._ready:
            # A turn and a commit of its own: were the first batch sent in it and lost, or sent and not noted, the
            # topic would not be empty any more, and what was never sent would never come.
            with self._database.begin() as work:
                if not self._outbox.take_turn(work):
                    return 0
                self._prepare(work)
            self._ready = True
        with self._database.begin() as work:
            if not self._outbox.take_turn(work):
                return 0
            waiting = self._outbox.waiting(work, _BATCH)
            if waiting:
                self._send([record for _, record in waiting])
                self._outbox.sent(work, [number for number, _ in waiting])
            return len(waiting)

    def _prepare(self, work: UnitOfWork) -> None:
        """Make the topic if it is not there, and fill it if it is empty."""
        client = admin(self._settings)
        wanted = {
            self.name: {
                "num_partitions": 1,
                "replication_factor": self._settings.replication,
                "configs": self._settings.topic_configs(compacted=True, retention_ms=None),
            }
        }
        milliseconds = int(self._settings.call_timeout * 1000)
        try:
            with contextlib.suppress(admin_errors.TopicAlreadyExistsError):
                client.create_topics(wanted, timeout_ms=milliseconds, wait_for_metadata=True)
            client.wait_for_topics([self.name], timeout_ms=milliseconds)
        except admin_errors.KafkaError as error:
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
        """Send a batch in one transaction; afterwards all of it is on the topic, or none."""
        kept = self._producer is not None
        try:
            try:
                self._send_once(records)
            except KafkaException:
                # Another process had its turn since, and fenced this producer; a new one fences that in its turn.
                if not kept:
                    raise
                self._producer = None
                self._send_once(records)
        except (KafkaException, BufferError) as error:
            self._producer = None
            raise unavailable(error, f"write to {self.name}") from error

    def _send_once(self, records: list[Record]) -> None:
        producer = self._started()
        producer.begin_transaction()
        for record in records:
            value = None if record.value is None else record.value.encode()
            producer.produce(self.name, key=record.key.encode(), value=value, partition=0)
        producer.commit_transaction(self._settings.call_timeout)

    def _started(self) -> Producer:
        if self._producer is None:
            producer = Producer(self._settings.producer(_TRANSACTIONAL_ID))
            producer.init_transactions(self._settings.call_timeout)
            self._producer = producer
        return self._producer


def read_topic(settings: KafkaSettings, name: str) -> Iterator[Record]:
    """Read a topic of schemas from its beginning to its end.

    Raises:
        InvalidError: CONFIG_INVALID, a PEM file cannot be read.
        UnavailableError: BROKER_UNAVAILABLE.
        CorruptError: LOG_CORRUPT, a record is no text.
    """
    check_key_files(settings)
    consumer = Consumer(settings.consumer(**{"auto.offset.reset": "earliest"}))
    place = TopicPartition(name, 0)
    try:
        first, end = consumer.get_watermark_offsets(place, timeout=settings.call_timeout)
        consumer.assign([TopicPartition(name, 0, first)])
        while consumer.position([place])[0].offset < end:
            message = consumer.poll(settings.call_timeout)
            if message is None:
                raise unavailable(None, f"read {name}")
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library spells its local codes so
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

"""PostgreSQL broker: the embedded default, with nothing to run besides the pool's own database.

Positions are assigned under a row lock of (topic, partition) that is held until the commit, never by a sequence:
sequences do not commit in order, and a reader would skip what commits late. Locks are taken in one order (the lane,
then its partitions from the lowest on), so that appends cannot deadlock. Records, receipt and what the commit hook
writes are one transaction.

A lane belongs to the adapter that last took it over: `resume`, or the first append, raises the lane's epoch, and an
adapter with an older one is fenced. A gateway that is stopped in the middle of an append blocks the topic for
`lock_timeout` at most; then the server ends its transaction and nothing of it is visible.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.broker.port import (
    Append,
    Appended,
    Broker,
    CommitHook,
    Ends,
    LaneFault,
    LaneState,
    ReadResult,
    RecordsCorruptError,
    Retention,
    TopicInfo,
)
from exchange.broker.postgres import tables
from exchange.broker.postgres.append import lanes_after, lock_lane, read_lane, store
from exchange.broker.postgres.block_tags import BlockTags, NewestEnds, PartitionRow, TopicRow, TopicTags
from exchange.broker.postgres.blocks import Block, pack
from exchange.broker.postgres.erasure import destroy_old, erase_key
from exchange.broker.postgres.notifications import Notifications
from exchange.broker.postgres.read import read_ends, read_positions_for_time, read_records
from exchange.broker.postgres.retention import compact_partition, retain_partition
from exchange.broker.postgres.tables import block_table_of, metadata
from exchange.broker.rules import (
    check_batches,
    lane_fenced,
    partition_count_mismatch,
    split_duplicates,
    topic_not_found,
)
from registry.database.errors import DriverError, sqlstate, translated_errors, unavailable
from registry.database.unit_of_work import PostgresDatabase, connection_of
from schemas.errors import Reason, UnavailableError
from schemas.names import Lane, Topic
from schemas.record import Positions

__all__ = ["PostgresBroker", "metadata"]

_MICROSECOND = timedelta(microseconds=1)


class PostgresBroker(Broker):
    """PostgreSQL adapter of the broker port.

    Args:
        database: the pool's database, with `metadata` created. Its engine is made by
            `registry.database.connection_pool.create_engine`, whose pool replaces a connection that the server has
            closed before it is used.
        key: of the rows' tags; at least 32 bytes, kept outside the database.
        alarm: called with whatever is found corrupt, before it is raised.
        clock: returns the time that the maintenance thread passes to `retain`.
        lock_timeout: how long an append waits for another's lock, and how long a stopped one may hold its own.
        maintenance_period: how often a thread of this adapter runs `retain` and `compact`; None leaves that to the
            caller.
        check_period: how often the connection for notifications is checked; while there is none, watchers are called
            this often.
    """

    def __init__(
        self,
        database: PostgresDatabase,
        *,
        key: bytes,
        alarm: Callable[[RecordsCorruptError], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lock_timeout: timedelta = timedelta(seconds=10),
        maintenance_period: timedelta | None = None,
        check_period: timedelta = timedelta(seconds=5),
    ) -> None:
        self._database = database
        self._snapshots = PostgresDatabase(
            database.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        self._lock_timeout = f"{lock_timeout // timedelta(milliseconds=1)}ms"
        self._clock = clock
        self._notifications = Notifications(database.engine, check_period.total_seconds())
        self._tags = BlockTags(key)
        self._newest = NewestEnds()
        self._alarm = alarm
        self._topics: dict[Topic, tuple[TopicTags, int]] = {}  # id and partitions, which never change
        self._epochs: dict[Lane, int] = {}
        self._resumes: Counter[Lane] = Counter()
        self._lane_locks: dict[Lane, threading.Lock] = {}
        self._reads = count()
        self._closed = threading.Event()
        self._maintenance = None
        if maintenance_period is not None:
            self._maintenance = threading.Thread(
                target=self._maintain,
                args=(maintenance_period.total_seconds(),),
                name="broker-maintenance",
                daemon=True,
            )
            self._maintenance.start()

    # topics

    @override
    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        """Creates the topic's own table for its records."""
        values = {
            "name": str(topic),
            "partitions": partitions,
            "keep": keep.value,
            "retention": None if retention is None else retention // _MICROSECOND,
        }
        with self._transaction(self._database) as connection:
            topic_id = connection.exec_driver_sql(
                "INSERT INTO broker_topic (name, partitions, keep, retention) "
                "VALUES (%(name)s, %(partitions)s, %(keep)s, %(retention)s) ON CONFLICT (name) DO NOTHING RETURNING id",
                values,
            ).scalar()
            if topic_id is not None:
                self._store_tags(
                    connection,
                    TopicRow(
                        id=topic_id,
                        name=str(topic),
                        partitions=partitions,
                        keep=keep.value,
                        retention=None if retention is None else retention // _MICROSECOND,
                        generation=1,
                    ),
                )
                # ATTACH lets appends to other topics go on; CREATE TABLE … PARTITION OF would block them.
                name = block_table_of(topic_id)
                connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE broker_stretch INCLUDING ALL)")
                connection.exec_driver_sql(
                    f"ALTER TABLE broker_stretch ATTACH PARTITION {name} FOR VALUES IN ({topic_id:d})"
                )
        info = self.topic(topic)
        if info.partitions != partitions:
            raise partition_count_mismatch(topic, info.partitions, partitions)
        return info

    @override
    def configure_topic(self, topic: Topic, *, keep: Retention, retention: timedelta | None) -> TopicInfo:
        self._topic(topic)
        microseconds = None if retention is None else retention // _MICROSECOND
        with self._transaction(self._database) as connection:
            where = tables.topic.c.name == str(topic)
            found = connection.execute(sa.select(tables.topic).where(where).with_for_update()).one()
            row = replace(self._checked(found), keep=keep.value, retention=microseconds)
            values = {"keep": row.keep, "retention": row.retention, "tag": self._tags.topic(row)}
            connection.execute(sa.update(tables.topic).where(where).values(values))
        return self.topic(topic)

    @override
    def topic(self, topic: Topic) -> TopicInfo:
        with self._transaction(self._snapshots) as connection:
            row = self._topic_row(connection, topic)
        return TopicInfo(
            topic=topic,
            partitions=row.partitions,
            keep=Retention(row.keep),
            retention=None if row.retention is None else row.retention * _MICROSECOND,
            generation=row.generation,
        )

    def _store_tags(self, connection: sa.Connection, row: TopicRow) -> None:
        """Store a new topic's tag, and the rows of its partitions."""
        connection.exec_driver_sql("UPDATE broker_topic SET tag = %s WHERE id = %s", (self._tags.topic(row), row.id))
        tags = self._tags.of(row.id, row.name)
        for number in range(row.partitions):
            partition = PartitionRow(partition=number, earliest=0, latest=0, recorded_at=0, compacted=0)
            connection.exec_driver_sql(
                "INSERT INTO broker_partition (topic_id, partition, tag) VALUES (%s, %s, %s)",
                (row.id, number, tags.partition(partition)),
            )

    # append

    @override
    def append(self, batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        """The commit hook gets the open transaction, a `PostgresUnitOfWork`."""
        if not batches:
            return []
        tags, partitions = self._topic(batches[0].lane.topic)
        lane = check_batches(batches, partitions)
        packed = {batch.sequence: pack(batch) for batch in batches}  # before any lock
        resumed = self._resumes[lane]
        with self._lane_lock(lane):
            if self._resumes[lane] != resumed:  # resumed meanwhile: what `resume` returned must stay true
                raise lane_fenced(lane)
            duplicates, appended = self._append(tags, lane, batches, packed, commit_hook)
        if appended:
            self._notifications.notify(tags.topic_id)
        return duplicates + appended

    def _append(
        self,
        tags: TopicTags,
        lane: Lane,
        batches: Sequence[Append],
        packed: dict[int, list[Block]],
        commit_hook: CommitHook,
    ) -> tuple[list[Appended], list[Appended]]:
        own_epoch = self._epochs.get(lane)
        appended: list[Appended] = []
        with self._translated(), self._database.begin() as work:
            connection = connection_of(work)
            lane_id, epoch, receipts = self._lock_lane(
                connection, lane, take_over=own_epoch is None, first_sequence=batches[0].sequence
            )
            if own_epoch is not None and own_epoch != epoch:
                raise lane_fenced(lane)
            duplicates, new = split_duplicates(receipts, batches)
            if new:
                appended = store(connection, tags, lane_id, new, packed, self._newest)
                commit_hook(work, appended)
        self._epochs[lane] = epoch
        self._newest.note(tags.topic_id, [(run.partition, 0, run.last + 1) for one in appended for run in one.runs])
        return duplicates, appended

    @override
    def resume(self, lane: Lane) -> LaneState | None:
        with self._lane_lock(lane):
            with self._transaction(self._database) as connection:
                _, epoch, receipts = self._lock_lane(connection, lane, take_over=True)
            self._epochs[lane] = epoch
            self._resumes[lane] += 1
        return LaneState(lane=lane, receipts=tuple(receipts)) if receipts else None

    @override
    def peek_lane(self, lane: Lane) -> LaneState | None:
        with self._transaction(self._snapshots) as connection:
            receipts = read_lane(connection, lane)
        return LaneState(lane=lane, receipts=tuple(receipts)) if receipts else None

    @override
    def lanes(self) -> Iterator[LaneState | LaneFault]:
        """Reads 200 lanes at a time, each time in a transaction of its own."""
        after: int | None = 0
        while after is not None:
            with self._transaction(self._snapshots) as connection:
                states, after = lanes_after(connection, after)
            yield from states

    # read

    @override
    def read(self, topic: Topic, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        tags, partitions = self._topic(topic)
        with self._transaction(self._snapshots) as connection:
            return read_records(
                connection,
                tags,
                self._newest,
                topic,
                tuple(after),
                partitions=partitions,
                max_records=max_records,
                max_bytes=max_bytes,
                turn=next(self._reads),
            )

    @override
    def ends(self, topic: Topic) -> Ends:
        tags, partitions = self._topic(topic)
        with self._transaction(self._snapshots) as connection:
            return read_ends(connection, tags, partitions, self._newest)

    @override
    def positions_for_time(self, topic: Topic, recorded_at: int) -> Positions:
        tags, partitions = self._topic(topic)
        with self._transaction(self._snapshots) as connection:
            return read_positions_for_time(connection, tags, partitions, self._newest, recorded_at)

    @override
    def watch(self, topic: Topic, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Opens one connection for notifications, the first time."""
        with self._translated():
            tags, _ = self._topic(topic)
        return self._notifications.watch(tags.topic_id, wake)

    # maintenance

    def retain(self, now: int) -> int:
        """Remove what is older than each topic's retention, at *now* (microseconds UTC); return the number of records.

        Raises:
            RecordsCorruptError: of the first partition that is not as the pool stored it; the others are done.
            UnavailableError: the database does not answer; what was removed until then stays removed.
        """

        def retain_one(tags: TopicTags, row: TopicRow, partition: int) -> int:
            return retain_partition(self._database, tags, partition, now - (row.retention or 0))

        return self._maintain_topics(lambda row: row.retention is not None, retain_one)

    def compact(self, *, dirty_share: float = 0.0) -> int:
        """Remove records with a later one of their key from `Retention.LATEST` topics; return the number of records.

        Args:
            dirty_share: skip a partition while less than this share of its positions is new since the last pass; a
                pass reads the keys of the whole partition.

        Raises:
            RecordsCorruptError: of the first partition that is not as the pool stored it; the others are done.
            UnavailableError: the database does not answer; what was removed until then stays removed.
        """

        def compact_one(tags: TopicTags, _row: TopicRow, partition: int) -> int:
            return compact_partition(self._database, tags, partition, dirty_share)

        return self._maintain_topics(lambda row: row.keep == Retention.LATEST, compact_one)

    def _maintain_topics(
        self, applies: Callable[[TopicRow], bool], work: Callable[[TopicTags, TopicRow, int], int]
    ) -> int:
        """Do this work on each partition; a corrupt one is reported and does not stop the others."""
        removed = 0
        failed: RecordsCorruptError | None = None
        with self._transaction(self._snapshots) as connection:
            found = connection.execute(sa.select(tables.topic).order_by(tables.topic.c.id)).all()
        for one in found:
            for partition in range(one.partitions):
                try:
                    with self._translated():
                        row = self._checked(one)
                        if applies(row):
                            removed += work(self._tags.of(row.id, row.name), row, partition)
                except RecordsCorruptError as error:
                    failed = failed or error
        if failed is not None:
            raise failed
        return removed

    @override
    def erase(self, topic: Topic, partition: int, key: bytes, before: int) -> int:
        tags, _ = self._topic(topic)
        with self._translated():
            return erase_key(self._database, tags, partition, key, before)

    @override
    def erased(self, topic: Topic) -> Mapping[tuple[int, int], tuple[bytes, bytes]]:
        return {}

    @override
    def destroy_erased(self, topics: Collection[Topic]) -> bool:
        """Writes the topics' tables again and locks them meanwhile; deletes old write-ahead log, as a superuser."""
        with self._translated():
            return destroy_old(self._database, [self._topic(topic)[0].topic_id for topic in topics])

    @override
    def renew_generations(self, at_least: int = 0) -> int:
        with self._transaction(self._database) as connection:
            rows = [self._checked(row) for row in connection.execute(sa.select(tables.topic).with_for_update()).all()]
            for row in rows:
                renewed = replace(row, generation=max(row.generation + 1, at_least))
                values = {"generation": renewed.generation, "tag": self._tags.topic(renewed)}
                connection.execute(sa.update(tables.topic).where(tables.topic.c.id == row.id).values(values))
        return len(rows)

    @override
    def ping(self) -> None:
        with self._translated(), self._database.read() as reader:
            connection_of(reader).execute(sa.text("SELECT 1"))

    @override
    def close(self) -> None:
        """The engine stays open; it belongs to the caller."""
        self._closed.set()
        self._notifications.close()
        if self._maintenance is not None:
            self._maintenance.join()

    def _maintain(self, period: float) -> None:
        while not self._closed.wait(period):
            try:
                self.retain((self._clock() - datetime.fromtimestamp(0, UTC)) // _MICROSECOND)
                self.compact(dirty_share=0.5)
            except (UnavailableError, RecordsCorruptError):
                continue  # the next pass does it; what is corrupt was reported

    # private

    def _lane_lock(self, lane: Lane) -> threading.Lock:
        """Return the lock of a lane within this adapter.

        With the row's lock alone, a second thread could take the lane over after the first one's commit and before it
        has noted its epoch: an adapter would fence itself.
        """
        return self._lane_locks.setdefault(lane, threading.Lock())

    def _topic(self, topic: Topic) -> tuple[TopicTags, int]:
        cached = self._topics.get(topic)
        if cached is None:
            with self._transaction(self._snapshots) as connection:
                row = self._topic_row(connection, topic)
            cached = self._topics[topic] = (self._tags.of(row.id, row.name), row.partitions)
        return cached

    def _topic_row(self, connection: sa.Connection, topic: Topic) -> TopicRow:
        """Return a topic's row, if it is the one that the pool wrote, and the one that this adapter knows."""
        row = connection.execute(sa.select(tables.topic).where(tables.topic.c.name == str(topic))).one_or_none()
        known = self._topics.get(topic)
        if row is None and known is None:
            raise topic_not_found(topic)
        if row is None or (known is not None and known[0].topic_id != row.id):
            raise RecordsCorruptError(str(topic), None, None, "the topic's row was removed or replaced")
        return self._checked(row)

    def _checked(self, row: Any) -> TopicRow:
        checked = TopicRow(
            id=row.id,
            name=row.name,
            partitions=row.partitions,
            keep=row.keep,
            retention=row.retention,
            generation=row.generation,
        )
        self._tags.check_topic(checked, row.tag)
        return checked

    def _lock_lane(
        self, connection: sa.Connection, lane: Lane, *, take_over: bool, first_sequence: int = 0
    ) -> tuple[int, int, list[Appended]]:
        locked = lock_lane(
            connection, lane, take_over=take_over, first_sequence=first_sequence, lock_timeout=self._lock_timeout
        )
        if locked is None:  # owned, but missing: the database is another one
            raise lane_fenced(lane)
        return locked

    @contextmanager
    def _transaction(self, database: PostgresDatabase) -> Iterator[sa.Connection]:
        with self._translated(), database.begin() as work:
            yield connection_of(work)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate the database's errors into the port's; refuse every call after `close`."""
        if self._closed.is_set():
            raise UnavailableError(Reason.SHUTTING_DOWN, "this broker was closed; make a new one")
        try:
            with translated_errors(_broker_error):
                yield
        except RecordsCorruptError as error:
            self._alarm(error)
            raise
        except UnavailableError as error:
            if error.reason is not Reason.DATABASE_UNAVAILABLE:
                raise
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, error.message, retry_after=error.retry_after) from error


def _broker_error(error: DriverError) -> UnavailableError:
    found = unavailable(error)
    if isinstance(found, UnavailableError) and found.reason is not Reason.DATABASE_UNAVAILABLE:
        return found
    return UnavailableError(
        Reason.BROKER_UNAVAILABLE,
        f"PostgreSQL did not carry out a statement (SQLSTATE {sqlstate(error) or 'none'}); nothing was stored",
        retry_after=1.0,
    )

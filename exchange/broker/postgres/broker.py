"""The broker on PostgreSQL: the embedded default, with nothing to run besides the pool's own database.

Positions are given under a row lock of (topic, partition) that is held until the commit, never by a sequence:
sequences do not commit in order, and a reader would step over what commits late. Locks are taken in one order
(the lane, then its partitions from the lowest on), so that appends cannot block each other in a circle. Records,
receipt and whatever the seal writes are one transaction.

A lane belongs to the adapter that last took it over: `resume`, or the first append, raises the lane's epoch, and
an adapter that remembers an older one is fenced. A gateway that is stopped in the middle of an append holds the
topic up for `patience` at most; then the server ends its transaction and nothing of it is visible.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
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
    Retention,
    TopicInfo,
)
from exchange.broker.postgres import tables
from exchange.broker.postgres.append import lanes_after, lock_lane, read_lane, store
from exchange.broker.postgres.blocks import Block, pack
from exchange.broker.postgres.notifications import Wakes
from exchange.broker.postgres.read import read_ends, read_since, read_slice
from exchange.broker.postgres.retention import compact_partition, retain_partition
from exchange.broker.postgres.tables import metadata, stretch_table_of
from exchange.broker.rules import another_shape, check_batches, fenced, sort_out, unknown_topic
from registry.database.errors import sqlstate, unavailable
from registry.database.unit_of_work import PostgresDatabase, connection_of
from schemas.errors import Reason, UnavailableError
from schemas.names import Lane, Topic
from schemas.record import Positions

__all__ = ["PostgresBroker", "metadata"]

_MICROSECOND = timedelta(microseconds=1)


class PostgresBroker(Broker):
    """See `exchange.broker.port.Broker`.

    Args:
        database: the pool's database, with `metadata` created. Its engine is best made with `pool_pre_ping`, so that
            a restart of the server costs no call.
        clock: tells the time that the upkeep thread hands to `retain`.
        patience: how long an append waits for another's lock, and how long a stopped one may hold its own.
        upkeep: how often a thread of this adapter runs `retain` and `compact`; None leaves that to the caller.
        poll: how often the waking connection is looked after; while it is away, watchers are woken this often.
    """

    def __init__(
        self,
        database: PostgresDatabase,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patience: timedelta = timedelta(seconds=10),
        upkeep: timedelta | None = None,
        poll: timedelta = timedelta(seconds=5),
    ) -> None:
        self._database = database
        self._snapshots = PostgresDatabase(
            database.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        self._patience = f"{patience // timedelta(milliseconds=1)}ms"
        self._clock = clock
        self._wakes = Wakes(database.engine, poll.total_seconds())
        self._topics: dict[Topic, tuple[int, int]] = {}  # id and partitions: neither ever changes
        self._epochs: dict[Lane, int] = {}
        self._resumes: Counter[Lane] = Counter()
        self._lane_locks: dict[Lane, threading.Lock] = {}
        self._turns = count()
        self._closed = threading.Event()
        self._upkeep = None
        if upkeep is not None:
            self._upkeep = threading.Thread(
                target=self._keep_up, args=(upkeep.total_seconds(),), name="broker-upkeep", daemon=True
            )
            self._upkeep.start()

    # topics

    @override
    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        """Makes the topic's own table for its records."""
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
                connection.exec_driver_sql(
                    "INSERT INTO broker_partition (topic_id, partition) SELECT %s, generate_series(0, %s)",
                    (topic_id, partitions - 1),
                )
                # ATTACH lets appends to other topics go on; CREATE TABLE … PARTITION OF would stop them.
                name = stretch_table_of(topic_id)
                connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE broker_stretch INCLUDING ALL)")
                connection.exec_driver_sql(
                    f"ALTER TABLE broker_stretch ATTACH PARTITION {name} FOR VALUES IN ({topic_id:d})"
                )
        info = self.topic(topic)
        if info.partitions != partitions:
            raise another_shape(topic, info.partitions, partitions)
        return info

    @override
    def topic(self, topic: Topic) -> TopicInfo:
        with self._transaction(self._snapshots) as connection:
            row = connection.execute(sa.select(tables.topic).where(tables.topic.c.name == str(topic))).one_or_none()
        if row is None:
            raise unknown_topic(topic)
        return TopicInfo(
            topic=topic,
            partitions=row.partitions,
            keep=Retention(row.keep),
            retention=None if row.retention is None else row.retention * _MICROSECOND,
            generation=row.generation,
        )

    # append

    @override
    def append(self, batches: Sequence[Append], seal: CommitHook) -> list[Appended]:
        """The seal gets the open transaction, as a `PostgresWork`."""
        if not batches:
            return []
        topic_id, partitions = self._topic(batches[0].lane.topic)
        lane = check_batches(batches, partitions)
        packed = {batch.sequence: pack(batch) for batch in batches}  # before any lock
        resumed = self._resumes[lane]
        with self._one_at_a_time(lane):
            if self._resumes[lane] != resumed:  # while it waited: whoever resumed was told where the lane stands
                raise fenced(lane)
            before, appended = self._append(topic_id, lane, batches, packed, seal)
        if appended:
            self._wakes.grown(topic_id)
        return before + appended

    def _append(
        self, topic_id: int, lane: Lane, batches: Sequence[Append], packed: dict[int, list[Block]], seal: CommitHook
    ) -> tuple[list[Appended], list[Appended]]:
        owned = self._epochs.get(lane)
        appended: list[Appended] = []
        with self._foreign(), self._database.begin() as work:
            connection = connection_of(work)
            since = batches[0].sequence
            lane_id, epoch, receipts = self._lock_lane(connection, lane, take=owned is None, since=since)
            if owned is not None and owned != epoch:
                raise fenced(lane)
            before, new = sort_out(receipts, batches)
            if new:
                appended = store(connection, topic_id, lane_id, new, packed)
                seal(work, appended)
        self._epochs[lane] = epoch
        return before, appended

    @override
    def resume(self, lane: Lane) -> LaneState | None:
        with self._one_at_a_time(lane):
            with self._transaction(self._database) as connection:
                _, epoch, receipts = self._lock_lane(connection, lane, take=True)
            self._epochs[lane] = epoch
            self._resumes[lane] += 1
        return LaneState(lane=lane, receipts=tuple(receipts)) if receipts else None

    @override
    def stands(self, lane: Lane) -> LaneState | None:
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
        topic_id, _ = self._topic(topic)
        with self._transaction(self._snapshots) as connection:
            return read_slice(
                connection,
                topic_id,
                topic,
                tuple(after),
                max_records=max_records,
                max_bytes=max_bytes,
                turn=next(self._turns),
            )

    @override
    def ends(self, topic: Topic) -> Ends:
        topic_id, _ = self._topic(topic)
        with self._transaction(self._snapshots) as connection:
            return read_ends(connection, topic_id)

    @override
    def since(self, topic: Topic, recorded_at: int) -> Positions:
        topic_id, _ = self._topic(topic)
        with self._transaction(self._snapshots) as connection:
            return read_since(connection, topic_id, recorded_at)

    @override
    def watch(self, topic: Topic, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Takes one connection of the adapter's own, the first time."""
        with self._foreign():
            topic_id, _ = self._topic(topic)
        return self._wakes.watch(topic_id, wake)

    # upkeep

    def retain(self, now: int) -> int:
        """Remove what is older than each topic's retention, at *now* (microseconds UTC); give the number of records.

        Raises:
            UnavailableError: the database does not answer; what was done until then stays done.
        """
        with self._foreign():
            return sum(
                retain_partition(self._database, row.id, partition, now - row.retention)
                for row in self._topic_rows()
                if row.retention is not None
                for partition in range(row.partitions)
            )

    def compact(self, *, dirty_share: float = 0.0) -> int:
        """Remove what has a later record of its key from Keep.LATEST topics; give the number of records.

        Args:
            dirty_share: leave a partition alone while less than this share of its positions is new since the last
                time; a pass reads the keys of the whole partition.

        Raises:
            UnavailableError: the database does not answer; what was done until then stays done.
        """
        with self._foreign():
            return sum(
                compact_partition(self._database, row.id, partition, dirty_share)
                for row in self._topic_rows()
                if row.keep == Retention.LATEST
                for partition in range(row.partitions)
            )

    def renew_generations(self) -> None:
        """Raise every topic's generation: what a restored backup must do before it serves."""
        with self._transaction(self._database) as connection:
            connection.execute(sa.update(tables.topic).values(generation=tables.topic.c.generation + 1))

    @override
    def close(self) -> None:
        """The engine stays open; it belongs to the caller."""
        self._closed.set()
        self._wakes.close()
        if self._upkeep is not None:
            self._upkeep.join()

    def _keep_up(self, period: float) -> None:
        while not self._closed.wait(period):
            try:
                self.retain((self._clock() - datetime.fromtimestamp(0, UTC)) // _MICROSECOND)
                self.compact(dirty_share=0.5)
            except UnavailableError:
                continue  # the next time, then

    # within

    def _one_at_a_time(self, lane: Lane) -> threading.Lock:
        """Return the lock of a lane within this adapter.

        The row's lock alone would let a second thread take the lane over between the first one's commit and its
        remembering the epoch: an adapter would fence itself.
        """
        return self._lane_locks.setdefault(lane, threading.Lock())

    def _topic(self, topic: Topic) -> tuple[int, int]:
        known = self._topics.get(topic)
        if known is None:
            with self._transaction(self._snapshots) as connection:
                row = connection.exec_driver_sql(
                    "SELECT id, partitions FROM broker_topic WHERE name = %s", (str(topic),)
                ).one_or_none()
            if row is None:
                raise unknown_topic(topic)
            known = self._topics[topic] = (row.id, row.partitions)
        return known

    def _topic_rows(self) -> Sequence[Any]:
        with self._transaction(self._snapshots) as connection:
            return connection.execute(sa.select(tables.topic).order_by(tables.topic.c.id)).all()

    def _lock_lane(
        self, connection: sa.Connection, lane: Lane, *, take: bool, since: int = 0
    ) -> tuple[int, int, list[Appended]]:
        locked = lock_lane(connection, lane, take=take, since=since, patience=self._patience)
        if locked is None:  # owned, and yet not there: the database is another one
            raise fenced(lane)
        return locked

    @contextmanager
    def _transaction(self, database: PostgresDatabase) -> Iterator[sa.Connection]:
        with self._foreign(), database.begin() as work:
            yield connection_of(work)

    @contextmanager
    def _foreign(self) -> Iterator[None]:
        """Let no exception of the driver's cross the port."""
        if self._closed.is_set():
            raise UnavailableError(Reason.SHUTTING_DOWN, "this broker was closed; make a new one")
        try:
            yield
        except UnavailableError as error:
            if error.reason is not Reason.DATABASE_UNAVAILABLE:
                raise
            raise UnavailableError(Reason.BROKER_UNAVAILABLE, error.message, retry_after=error.retry_after) from error
        except (psycopg2.Error, sa_exc.SQLAlchemyError) as error:
            raise _translated(error) from error


def _translated(error: psycopg2.Error | sa_exc.SQLAlchemyError) -> UnavailableError:
    found = unavailable(error)
    if isinstance(found, UnavailableError) and found.reason is not Reason.DATABASE_UNAVAILABLE:
        return found
    return UnavailableError(
        Reason.BROKER_UNAVAILABLE,
        f"PostgreSQL did not carry out a statement (SQLSTATE {sqlstate(error) or 'none'}); nothing was stored",
        retry_after=1.0,
    )

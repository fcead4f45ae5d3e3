"""What the PostgreSQL broker promises beyond the contract: one transaction, and what a crash leaves.

On connections made as the pool makes them: what a kill leaves depends on when BEGIN and COMMIT are sent.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.broker.port import Appended, Retention
from exchange.broker.postgres.broker import PostgresBroker, metadata
from exchange.server.embedded_postgres import EmbeddedPostgres
from registry.database.connection_pool import create_engine
from registry.database.unit_of_work import PostgresDatabase, UnitOfWork, connection_of
from schemas.errors import PoolError, Reason, UnavailableError
from schemas.names import Topic
from tests.kit.cases.broker import (
    KEY,
    SECOND,
    START,
    Read,
    append,
    at_once,
    batch,
    fresh_topic,
    lane_of,
    no_hook,
    read_all,
)
from tests.kit.faults import broker_writer

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).parents[2]
PATIENCE = timedelta(seconds=1)


@pytest.fixture
def db(database: sa.URL) -> Iterator[PostgresDatabase]:
    engine = create_engine(database, connections=10)
    metadata.create_all(engine)
    yield PostgresDatabase(engine)
    engine.dispose()


@pytest.fixture
def broker(db: PostgresDatabase) -> Iterator[PostgresBroker]:
    broker = PostgresBroker(db, key=KEY, lock_timeout=PATIENCE, check_period=timedelta(milliseconds=100))
    yield broker
    broker.close()


class Writer:
    """A gateway in a process of its own."""

    def __init__(self, url: sa.URL, topic: Topic, mode: str, first: int) -> None:
        arguments = [url.render_as_string(hide_password=False), str(topic), mode, str(first)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.faults.broker_writer", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def line(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        word, _, rest = self.process.stdout.readline().strip().partition(" ")
        return word, rest

    def until(self, line: tuple[str, str]) -> None:
        while (said := self.line()) != line:
            assert said[0] in {"begun", "done"}, said

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> list[tuple[str, str]]:
        """Kill it; give what it had still said."""
        self.process.kill()
        rest, _ = self.process.communicate()
        return [(words[0], words[1]) for words in map(str.split, rest.splitlines()) if len(words) == 2]


def sequences_of(records: Sequence[Read]) -> Counter[int]:
    return Counter(int((record.value or b"").split(b"/")[1]) for record in records)


# one transaction


def test_what_the_commit_hook_writes_is_one_transaction_with_the_records(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic = fresh_topic()
    broker.create_topic(topic)
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE entry (sequence bigint)")

    def commit_hook(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
        assert work is not None
        connection_of(work).exec_driver_sql("INSERT INTO entry VALUES (%s)", (appended[0].sequence,))
        if appended[0].sequence == 2:
            raise PoolError(Reason.QUOTA_EXHAUSTED, "no")

    broker.append([batch(lane_of(topic), 1)], commit_hook)
    with pytest.raises(PoolError):
        broker.append([batch(lane_of(topic), 2)], commit_hook)
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sequence FROM entry").scalars().all() == [1]
    assert sequences_of(read_all(broker, topic)) == {1: 8}


def test_a_read_sees_whole_batches_over_all_partitions(db: PostgresDatabase, broker: PostgresBroker) -> None:
    topic, writer = fresh_topic(), PostgresBroker(db, key=KEY)
    broker.create_topic(topic)
    done = threading.Event()

    def publish() -> None:
        try:
            for sequence in range(1, 41):
                append(writer, batch(lane_of(topic), sequence, range(200)))
        finally:
            done.set()

    def look() -> int:
        looks = 0
        while not done.is_set():
            part = broker.read(topic, (0, 0, 0, 0), max_records=100_000, max_bytes=1 << 26)
            assert len(part) % 200 == 0
            looks += 1
        return looks

    _, looks = at_once(publish, look)
    writer.close()
    assert isinstance(looks, int)
    assert looks > 3


def test_lanes_that_touch_the_partitions_in_opposite_orders_do_not_block_each_other(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic = fresh_topic()
    broker.create_topic(topic)

    def publish(number: int) -> None:
        for sequence in range(1, 31):
            sent = batch(lane_of(topic, f"c{number}"), sequence, range(16))
            order = sorted(range(16), key=lambda index: sent.partitions[index], reverse=number % 2 == 1)
            moved = replace(
                sent,
                keys=[sent.keys[index] for index in order],
                values=[sent.values[index] for index in order],
                partitions=[sent.partitions[index] for index in order],
            )
            append(broker, moved)

    at_once(*(lambda number=number: publish(number) for number in range(4)))
    assert len(read_all(broker, topic)) == 4 * 30 * 16


def test_threads_of_one_gateway_that_begin_a_lane_at_once_do_not_fence_each_other(broker: PostgresBroker) -> None:
    topic = fresh_topic()
    broker.create_topic(topic)
    for number in range(20):
        lane = lane_of(topic, f"c{number}")
        at_once(*(lambda lane=lane: append(broker, batch(lane, 1)) for _ in range(6)))
        append(broker, batch(lane, 2))
    assert len(read_all(broker, topic)) == 20 * 16


# crashes


def test_a_gateway_killed_in_mid_transaction_leaves_nothing_and_blocks_nobody(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic = fresh_topic()
    broker.create_topic(topic)
    writer = Writer(db.engine.url, topic, "stay", 1)
    writer.until(("begun", "1"))
    writer.end()
    append(broker, batch(lane_of(topic, "other"), 1, range(100)))
    assert len(read_all(broker, topic)) == 100
    assert broker.resume(lane_of(topic)) is None
    (appended,) = append(broker, batch(lane_of(topic), 1, range(broker_writer.RECORDS)))
    assert not appended.duplicate


def test_a_gateway_killed_anywhere_leaves_no_half_batch_and_no_acknowledged_batch_is_lost(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic, lane, rng = fresh_topic(), None, random.Random(7)
    broker.create_topic(topic)
    lane = lane_of(topic)
    next_sequence = 1
    for _ in range(6):
        writer = Writer(db.engine.url, topic, "run", next_sequence)
        word = rng.choice(["begun", "done"])
        writer.until((word, str(next_sequence + rng.randrange(4))))
        said = writer.end()
        state = broker.resume(lane)
        last = state.receipts[-1].sequence if state else 0
        acknowledged = [int(number) for what, number in said if what == "done"]
        assert last >= max(acknowledged, default=0)
        if word == "done":
            assert last >= next_sequence
        assert sequences_of(read_all(broker, topic)) == dict.fromkeys(range(1, last + 1), broker_writer.RECORDS)
        if state:
            again = append(broker, batch(lane, last, range(broker_writer.RECORDS)))
            assert again == [replace(state.receipts[-1], duplicate=True)]
        next_sequence = last + 1
    assert next_sequence > 6


def test_a_gateway_that_is_stopped_in_mid_transaction_holds_nobody_up_for_long(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic = fresh_topic()
    broker.create_topic(topic)
    writer = Writer(db.engine.url, topic, "stay", 1)
    writer.until(("begun", "1"))
    os.kill(writer.process.pid, signal.SIGSTOP)
    # The writer holds the partitions' rows. The other lane waits for as long as both have patience, no longer.
    with db.begin() as work:
        began = connection_of(work).exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    for _ in range(3):
        try:
            append(broker, batch(lane_of(topic, "other"), 1, range(100)))
            break
        except UnavailableError as error:
            waited = error
    else:
        raise waited
    with db.begin() as work:
        ended = connection_of(work).exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    assert ended - began < 4 * PATIENCE
    # The lane can be taken over; the writer wakes up to find its transaction gone.
    (appended,) = append(broker, batch(lane_of(topic), 1, range(5), salt="taken over"))
    os.kill(writer.process.pid, signal.SIGCONT)
    writer.go_on()
    assert writer.line()[0] == "failed"
    writer.end()
    assert appended.count == 5
    assert len(read_all(broker, topic)) == 105


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="pool-test-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_killed_server_keeps_what_was_acknowledged_and_adapters_go_on(own_server: EmbeddedPostgres) -> None:
    engine = create_engine(own_server.start(), connections=10)
    metadata.create_all(engine)
    broker = PostgresBroker(PostgresDatabase(engine), key=KEY, check_period=timedelta(milliseconds=100))
    topic = fresh_topic()
    broker.create_topic(topic)
    lane, woken, acknowledged = lane_of(topic), threading.Event(), 0
    began = threading.Event()

    def publish() -> int:
        for sequence in range(1, 10_000):
            try:
                append(broker, batch(lane, sequence, range(500)))
            except UnavailableError:
                return sequence - 1
            if sequence == 5:
                began.set()
        raise AssertionError

    def kill() -> None:
        assert began.wait(60)
        pid = own_server.pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)  # immediate shutdown: no checkpoint, the log is replayed at the start

    with broker.watch(topic, woken.set):
        acknowledged, _ = at_once(publish, kill)  # type: ignore[assignment]
        while own_server.running():
            threading.Event().wait(0.05)
        own_server.release()
        own_server.start()
        state = broker.resume(lane)
        assert state is not None
        last = state.receipts[-1].sequence
        assert last in {acknowledged, acknowledged + 1}
        assert sequences_of(read_all(broker, topic)) == dict.fromkeys(range(1, last + 1), 500)
        woken.clear()
        append(broker, batch(lane, last + 1, range(500)))
        assert woken.wait(30)
    broker.close()
    engine.dispose()


# waking


def test_watchers_are_woken_again_after_the_waking_connection_was_lost(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic, writer = fresh_topic(), PostgresBroker(db, key=KEY)
    broker.create_topic(topic)
    woken = threading.Event()
    with broker.watch(topic, woken.set):
        for sequence in (1, 2):
            woken.clear()
            append(writer, batch(lane_of(topic), sequence))
            assert woken.wait(30)
            with db.engine.connect() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query ~ '^(LISTEN|SELECT 1$|SELECT pg_notify)'"
                )
            woken.clear()
            assert woken.wait(30)  # while nothing is heard, everybody is woken now and then
    writer.close()


def test_close_gives_every_connection_and_thread_back(db: PostgresDatabase) -> None:
    threads = set(threading.enumerate())
    broker = PostgresBroker(db, key=KEY, maintenance_period=timedelta(hours=1))
    topic = fresh_topic()
    broker.create_topic(topic)
    with broker.watch(topic, threading.Event().set):
        append(broker, batch(lane_of(topic), 1))
    broker.close()
    db.engine.dispose()
    assert set(threading.enumerate()) <= threads  # threads of tests before may end meanwhile
    with db.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert connection.exec_driver_sql(query).scalar_one() == 0


# maintenance


def test_maintenance_retains_and_compacts_by_itself(db: PostgresDatabase) -> None:
    now = datetime.fromtimestamp(START // SECOND + 3600, UTC)
    broker = PostgresBroker(db, key=KEY, clock=lambda: now, maintenance_period=timedelta(milliseconds=50))
    old, latest = fresh_topic("old"), fresh_topic("latest")
    broker.create_topic(old, retention=timedelta(minutes=1))
    broker.create_topic(latest, keep=Retention.LATEST)
    for sequence in (1, 2):
        append(broker, batch(lane_of(latest), sequence, range(50)))
    append(broker, batch(lane_of(old), 1, range(50)))
    pause = threading.Event()
    for _ in range(600):
        ends = broker.ends(old)
        if ends.earliest == ends.latest and len(read_all(broker, latest)) == 50:
            break
        pause.wait(0.05)
    assert read_all(broker, old) == []
    assert sequences_of(read_all(broker, latest)) == {2: 50}
    broker.close()


def test_compaction_leaves_alone_what_is_mostly_clean(broker: PostgresBroker) -> None:
    topic = fresh_topic()
    broker.create_topic(topic, keep=Retention.LATEST, partitions=1)
    for sequence in range(1, 11):
        append(broker, batch(lane_of(topic), sequence, range(10), partitions=1))
    assert broker.compact() == 90
    append(broker, batch(lane_of(topic), 11, range(10), partitions=1))
    assert broker.compact(dirty_share=0.5) == 0
    assert broker.compact() == 10
    assert broker.compact() == 0


def test_readers_during_retention_get_everything_or_are_told_that_it_is_gone(
    db: PostgresDatabase, broker: PostgresBroker
) -> None:
    topic, keeper = fresh_topic(), PostgresBroker(db, key=KEY)
    broker.create_topic(topic, retention=timedelta(seconds=5), partitions=1)
    for sequence in range(1, 81):
        append(broker, batch(lane_of(topic), sequence, range(20), partitions=1))
    done = threading.Event()

    def retain() -> None:
        try:
            for sequence in range(1, 81):
                keeper.retain(START + (sequence + 5) * SECOND)
        finally:
            done.set()

    def look() -> int:
        looks = 0
        while not done.is_set():
            earliest = broker.ends(topic).earliest
            try:
                part = broker.read(topic, earliest, max_records=10_000, max_bytes=1 << 26)
            except PoolError as error:
                assert error.reason is Reason.POSITION_GONE  # noqa: PT017 - one of the two honest answers
                continue
            looks += 1
            if len(part):
                # No step over what went away between two statements: the first record is the one asked for.
                assert part.partitions[0].offsets[0] == earliest[0]
                assert len(part) == 1600 - earliest[0]
        return looks

    _, looks = at_once(retain, look)
    keeper.close()
    assert isinstance(looks, int)
    assert looks > 3


# nothing foreign crosses the port


def test_a_database_without_tables_is_unavailable_and_no_driver_error_shows(database: sa.URL) -> None:
    engine = create_engine(database, connections=2)
    broker = PostgresBroker(PostgresDatabase(engine), key=KEY)
    topic = fresh_topic()
    for call in (
        lambda: broker.create_topic(topic),
        lambda: broker.topic(topic),
        lambda: broker.append([batch(lane_of(topic), 1)], no_hook),
        lambda: broker.resume(lane_of(topic)),
        lambda: broker.retain(START),
        broker.compact,
    ):
        with pytest.raises(UnavailableError):
            call()
    broker.close()
    engine.dispose()


def test_an_exhausted_connection_pool_is_unavailable(database: sa.URL) -> None:
    engine = create_engine(database, connections=1, timeout=0.1)
    metadata.create_all(engine)
    broker = PostgresBroker(PostgresDatabase(engine), key=KEY)
    topic = fresh_topic()
    broker.create_topic(topic)
    with engine.connect(), ThreadPoolExecutor(1) as another:  # a thread that has a connection gets more
        waiting = another.submit(broker.ends, topic)
        with pytest.raises(UnavailableError) as raised:
            waiting.result(60)
    assert raised.value.reason is Reason.OVERLOADED
    broker.close()
    engine.dispose()

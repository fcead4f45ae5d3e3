"""Connections that the server has closed are never handed out, and a statement on one raises what happened."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange.broker.postgres.broker import PostgresBroker
from exchange.broker.postgres.broker import metadata as broker_metadata
from registry.database import connection_pool
from registry.database.connection_pool import create_engine
from registry.database.prepared_statement import PreparedStatement
from registry.database.unit_of_work import PostgresDatabase, connection_of
from registry.postgres import tables
from registry.subjects.model import Content
from schemas.errors import Reason, UnavailableError
from tests.kit.cases.broker import KEY, fresh_topic
from tests.kit.cases.registry import Subjects, postgres_store
from tests.kit.patience import PATIENCE
from tests.kit.world.postgres import end_sessions

pytestmark = pytest.mark.postgres

ONE = PreparedStatement("test_one", "SELECT :number + 1 AS next", number="integer")


@pytest.fixture
def pooled(database: sa.URL) -> Iterator[sa.Engine]:
    engine = create_engine(database, connections=2)
    tables.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def tiny(database: sa.URL) -> Iterator[sa.Engine]:
    """A pool for two threads."""
    engine = create_engine(database, connections=2, timeout=PATIENCE)
    yield engine
    engine.dispose()


def test_a_connection_that_was_closed_while_idle_is_not_handed_out(pooled: sa.Engine, database: sa.URL) -> None:
    store = postgres_store(pooled)
    subjects = Subjects(store, governed=lambda _: False)
    first = subjects.register("a", Content(text='"int"'))
    end_sessions(database)
    assert subjects.register("a", Content(text='"int"')) == first
    assert subjects.version("a", None) == first


def test_a_connection_that_is_closed_in_use_is_unavailable_and_the_next_one_works(
    pooled: sa.Engine, database: sa.URL
) -> None:
    def use() -> None:
        with PostgresDatabase(pooled).read() as reader:
            connection = reader.connection
            assert ONE.one_or_none(connection, {"number": 1}).next == 2
            end_sessions(database)
            ONE.execute(connection, {"number": 1})

    with pytest.raises(UnavailableError) as caught:
        use()
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    with PostgresDatabase(pooled).read() as reader:
        connection = reader.connection
        assert ONE.one_or_none(connection, {"number": 2}).next == 3


def test_connections_in_autocommit_mode_hold_no_transaction_and_are_checked_as_well(
    pooled: sa.Engine, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    autocommit = create_engine(database, connections=2, autocommit=True)
    store = postgres_store(pooled, autocommit)
    subjects = Subjects(store, governed=lambda _: False)
    first = subjects.register("a", Content(text='"int"'))
    monkeypatch.setattr(connection_pool, "_QUERY_AFTER_IDLE", -1.0)  # each is checked with a query
    assert subjects.version("a", None) == first
    assert store.settings_of(["a"]) == {}
    with autocommit.connect() as asked:
        ONE.execute(asked, {"number": 1})
    with pooled.connect() as other:
        states = sa.text(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        assert set(other.scalars(states)) == {"idle"}
    monkeypatch.undo()
    end_sessions(database)
    assert subjects.version("a", None) == first
    autocommit.dispose()


def test_a_rollback_keeps_what_is_prepared(pooled: sa.Engine) -> None:
    with pooled.connect() as connection:
        ONE.execute(connection, {"number": 1})
        connection.rollback()
        assert ONE.execute(connection, {"number": 1}) == [(2,)]


def test_errors_are_sqlalchemy_s(pooled: sa.Engine) -> None:
    wrong = PreparedStatement("test_wrong", "SELECT 1 / :number AS x", number="integer")
    with pooled.connect() as connection, pytest.raises(sa_exc.DataError):
        wrong.execute(connection, {"number": 0})


def test_callers_that_each_need_a_second_connection_do_not_wait_for_each_other(tiny: sa.Engine) -> None:
    """As a fetch does that asks the broker within its transaction: here by twelve threads in a pool for two."""
    broker_metadata.create_all(tiny)
    db = PostgresDatabase(tiny)
    broker = PostgresBroker(db, key=KEY)
    topic = fresh_topic()
    broker.create_topic(topic)
    inside = threading.Semaphore(0)

    def fetch(_: int) -> int:
        with db.begin() as work:
            connection_of(work).exec_driver_sql("SELECT 1")
            inside.release()
            # Until another one holds its first connection too; at the end no other is left.
            inside.acquire(timeout=0.2)
            return len(broker.ends(topic).latest)

    began = time.monotonic()
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(fetch, range(24))) == [4] * 24
    assert time.monotonic() - began < PATIENCE - 1, "one had to time out before the others could go on"
    broker.close()


def test_no_more_threads_hold_connections_than_the_pool_allows(tiny: sa.Engine) -> None:
    lock = threading.Lock()
    now = most = 0

    def hold(_: int) -> None:
        nonlocal now, most
        with tiny.connect(), tiny.connect():
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.01)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, range(24)))
    assert most == 2
    assert tiny.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_threads_slot_is_released_whatever_becomes_of_its_connection(tiny: sa.Engine, database: sa.URL) -> None:
    for _ in range(4):
        with tiny.connect() as connection:
            end_sessions(database)
            with pytest.raises(sa_exc.DBAPIError):
                connection.exec_driver_sql("SELECT 1")
        with tiny.connect() as connection:
            connection.invalidate()
        with tiny.connect() as connection:
            connection.detach()
        end_sessions(database)  # what is in the pool is dead, too
    bad = create_engine(database.set(database="there is none"), connections=1, timeout=0.5)
    for _ in range(3):
        with pytest.raises(sa_exc.OperationalError):
            bad.connect()
    with ThreadPoolExecutor(4) as threads:  # what one thread checked out, another returns
        for connection in threads.map(lambda _: tiny.connect(), range(2)):
            connection.close()
        assert list(threads.map(one, [tiny] * 8)) == [1] * 8


def one(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        answer: int = connection.exec_driver_sql("SELECT 1").scalar_one()
        return answer


def test_a_checkout_that_times_out_is_refused_as_overloaded(database: sa.URL) -> None:
    engine = create_engine(database, connections=1, timeout=0.1)
    with ThreadPoolExecutor(1) as threads, engine.connect(), engine.connect():
        waiting = threads.submit(lambda: PostgresDatabase(engine).begin().__enter__())
        with pytest.raises(UnavailableError) as refused:
            waiting.result()
        assert refused.value.reason is Reason.OVERLOADED
    engine.dispose()

"""Connections that the server has closed are never handed out, and a statement on one says what happened."""

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
from registry.database.connection_pool import connect
from registry.database.prepared_statement import PreparedStatement
from registry.database.unit_of_work import PostgresDatabase, connection_of
from registry.postgres import tables
from registry.subjects.model import Content
from schemas.errors import Reason, UnavailableError
from tests.kit.cases.broker import fresh_topic
from tests.kit.cases.registry import Subjects, postgres_store
from tests.kit.patience import PATIENCE
from tests.kit.world.postgres import end_sessions

pytestmark = pytest.mark.postgres

ONE = PreparedStatement("test_one", "SELECT :number + 1 AS next", number="integer")


@pytest.fixture
def looked_at(database: sa.URL) -> Iterator[sa.Engine]:
    engine = connect(database, connections=2)
    tables.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def tiny(database: sa.URL) -> Iterator[sa.Engine]:
    """A pool with two places."""
    engine = connect(database, connections=2, timeout=PATIENCE)
    yield engine
    engine.dispose()


def test_a_connection_that_was_closed_while_idle_is_not_handed_out(looked_at: sa.Engine, database: sa.URL) -> None:
    store = postgres_store(looked_at)
    subjects = Subjects(store, governed=lambda _: False)
    first = subjects.register("a", Content(text='"int"'))
    end_sessions(database)
    assert subjects.register("a", Content(text='"int"')) == first
    assert subjects.version("a", None) == first


def test_a_connection_that_is_closed_in_use_is_unavailable_and_the_next_one_works(
    looked_at: sa.Engine, database: sa.URL
) -> None:
    def use() -> None:
        with PostgresDatabase(looked_at).read() as reader:
            connection = reader.connection
            assert ONE.one_or_none(connection, {"number": 1}).next == 2
            end_sessions(database)
            ONE.run(connection, {"number": 1})

    with pytest.raises(UnavailableError) as caught:
        use()
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    with PostgresDatabase(looked_at).read() as reader:
        connection = reader.connection
        assert ONE.one_or_none(connection, {"number": 2}).next == 3


def test_connections_for_single_statements_hold_no_transaction_and_are_looked_at_as_well(
    looked_at: sa.Engine, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = connect(database, connections=2, autocommit=True)
    store = postgres_store(looked_at, single)
    subjects = Subjects(store, governed=lambda _: False)
    first = subjects.register("a", Content(text='"int"'))
    monkeypatch.setattr(connection_pool, "_IDLE", -1.0)  # each is asked before it is used
    assert subjects.version("a", None) == first
    assert store.settings_of(["a"]) == {}
    with single.connect() as asked:
        ONE.run(asked, {"number": 1})
    with looked_at.connect() as other:
        states = sa.text(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        assert set(other.scalars(states)) == {"idle"}
    monkeypatch.undo()
    end_sessions(database)
    assert subjects.version("a", None) == first
    single.dispose()


def test_a_rollback_keeps_what_is_prepared(looked_at: sa.Engine) -> None:
    with looked_at.connect() as connection:
        ONE.run(connection, {"number": 1})
        connection.rollback()
        assert ONE.run(connection, {"number": 1}) == [(2,)]


def test_errors_are_sqlalchemy_s(looked_at: sa.Engine) -> None:
    wrong = PreparedStatement("test_wrong", "SELECT 1 / :number AS x", number="integer")
    with looked_at.connect() as connection, pytest.raises(sa_exc.DataError):
        wrong.run(connection, {"number": 0})


def test_callers_that_each_need_a_second_connection_do_not_wait_for_each_other(tiny: sa.Engine) -> None:
    """As a fetch does that asks the broker within its transaction: here by twelve threads and two places."""
    broker_metadata.create_all(tiny)
    db = PostgresDatabase(tiny)
    broker = PostgresBroker(db)
    topic = fresh_topic()
    broker.create_topic(topic)
    inside = threading.Semaphore(0)

    def fetch(_: int) -> int:
        with db.begin() as work:
            connection_of(work).exec_driver_sql("SELECT 1")
            inside.release()
            # Until another one holds its first connection too: or, at the end, nobody is left who could.
            inside.acquire(timeout=0.2)
            return len(broker.ends(topic).latest)

    began = time.monotonic()
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(fetch, range(24))) == [4] * 24
    assert time.monotonic() - began < PATIENCE - 1, "somebody had to be refused before the others could go on"
    broker.close()


def test_no_more_threads_hold_connections_than_there_are_places(tiny: sa.Engine) -> None:
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


def test_a_place_is_left_whatever_becomes_of_its_connection(tiny: sa.Engine, database: sa.URL) -> None:
    for _ in range(4):
        with tiny.connect() as connection:
            end_sessions(database)
            with pytest.raises(sa_exc.DBAPIError):
                connection.exec_driver_sql("SELECT 1")
        with tiny.connect() as connection:
            connection.invalidate()
        with tiny.connect() as connection:
            connection.detach()
        end_sessions(database)  # what lies in the pool is dead, too
    bad = connect(database.set(database="there is none"), connections=1, timeout=0.5)
    for _ in range(3):
        with pytest.raises(sa_exc.OperationalError):
            bad.connect()
    with ThreadPoolExecutor(4) as threads:  # what one thread took, another gives back
        for connection in threads.map(lambda _: tiny.connect(), range(2)):
            connection.close()
        assert list(threads.map(one, [tiny] * 8)) == [1] * 8


def one(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        answer: int = connection.exec_driver_sql("SELECT 1").scalar_one()
        return answer


def test_who_waits_too_long_for_a_place_is_told_so(database: sa.URL) -> None:
    engine = connect(database, connections=1, timeout=0.1)
    with ThreadPoolExecutor(1) as threads, engine.connect(), engine.connect():
        waiting = threads.submit(lambda: PostgresDatabase(engine).begin().__enter__())
        with pytest.raises(UnavailableError) as refused:
            waiting.result()
        assert refused.value.reason is Reason.OVERLOADED
    engine.dispose()

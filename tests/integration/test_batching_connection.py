"""A connection sends BEGIN and COMMIT with statements, and its transactions mean what the driver's mean."""

import io
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2 import errors, extensions, sql

from registry.database.connection import BatchingConnection
from registry.database.prepared_statement import PreparedStatement
from registry.database.unit_of_work import Outcome, PostgresDatabase, PostgresUnitOfWork
from schemas.errors import ConflictError, Reason, UnavailableError
from tests.kit.world.postgres import end_sessions

pytestmark = pytest.mark.postgres

COMMITTED, ROLLED_BACK, UNKNOWN = Outcome.COMMITTED, Outcome.ROLLED_BACK, Outcome.UNKNOWN
SAID = "SELECT current_query()"
ADD = PreparedStatement("test_session_add", "INSERT INTO thing (n) VALUES (:n)", n="integer")


@pytest.fixture(params=[BatchingConnection, extensions.connection], ids=["ours", "the driver's"])
def either(request: pytest.FixtureRequest, database: sa.URL) -> Iterator[Any]:
    """Both kinds: what holds for one must hold for the other."""
    yield from opened(database, request.param)


@pytest.fixture
def session(database: sa.URL) -> Iterator[BatchingConnection]:
    yield from opened(database, BatchingConnection)


def opened(database: sa.URL, kind: type) -> Iterator[Any]:
    text = database.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(text, connection_factory=kind)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE thing (n int PRIMARY KEY)")
    connection.commit()
    yield connection
    connection.close()


def add(connection: Any, *numbers: int) -> None:
    with connection.cursor() as cursor:
        for number in numbers:
            cursor.execute("INSERT INTO thing VALUES (%s)", [number])


def things(connection: Any) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM thing ORDER BY n")
        found = [row[0] for row in cursor.fetchall()]
    connection.rollback()
    return found


def test_what_is_committed_stands_and_what_is_rolled_back_does_not(either: Any) -> None:
    add(either, 1, 2)
    either.rollback()
    add(either, 3, 4)
    either.commit()
    either.commit()
    either.rollback()
    add(either, 5)
    either.rollback()
    assert things(either) == [3, 4]


def test_a_statement_that_fails_takes_the_transaction_with_it_be_it_the_first_or_not(either: Any) -> None:
    for before in ([], [1]):
        add(either, *before)
        with pytest.raises(errors.NumericValueOutOfRange):
            add(either, 2**40)
        with pytest.raises(errors.InFailedSqlTransaction):
            add(either, 2)
        either.rollback()
    assert things(either) == []


@pytest.mark.parametrize("way", ["many", "copy", "procedure", "composed", "bytes", "named"])
def test_whatever_is_said_first_is_said_within_a_transaction(either: Any, way: str) -> None:
    with either.cursor() as cursor:
        match way:
            case "many":
                cursor.executemany("INSERT INTO thing VALUES (%s)", [(1,), (2,)])
            case "copy":
                cursor.copy_expert("COPY thing FROM STDIN", io.StringIO("1\n2\n"))
            case "procedure":
                cursor.callproc("pg_advisory_xact_lock", [1])
            case "composed":
                cursor.execute(sql.SQL("INSERT INTO {} VALUES (1)").format(sql.Identifier("thing")))
            case "bytes":
                cursor.execute(b"INSERT INTO thing VALUES (%s)", [1])
            case "named":
                with either.cursor("stream") as stream:
                    stream.execute("SELECT generate_series(1, 10)")
                    assert len(stream.fetchall()) == 10
    assert either.info.transaction_status == extensions.TRANSACTION_STATUS_INTRANS
    either.rollback()
    assert either.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
    assert things(either) == []


def test_a_block_is_a_transaction_in_either_mode_and_as_often_as_one_likes(either: Any) -> None:
    def fail(number: int) -> None:
        with either:
            add(either, number)
            raise KeyError

    for single in (False, True):
        either.autocommit = single
        for number in (1, 2):
            with pytest.raises(KeyError):
                fail(number)
        with either:
            add(either, 3 + single)
        assert either.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
    assert things(either) == [3, 4]


def test_a_cursor_with_a_name_may_wait_for_its_transaction(either: Any) -> None:
    stream = either.cursor("stream")
    either.rollback()
    stream.execute("SELECT generate_series(1, 3)")
    assert stream.fetchall() == [(1,), (2,), (3,)]
    assert either.info.transaction_status == extensions.TRANSACTION_STATUS_INTRANS


def test_a_level_that_is_asked_for_is_said_whatever_the_servers_default(either: Any) -> None:
    for level, name in [
        (extensions.ISOLATION_LEVEL_READ_UNCOMMITTED, "read uncommitted"),
        (extensions.ISOLATION_LEVEL_READ_COMMITTED, "read committed"),
        (extensions.ISOLATION_LEVEL_SERIALIZABLE, "serializable"),
        (extensions.ISOLATION_LEVEL_DEFAULT, "repeatable read"),
    ]:
        either.set_isolation_level(level)
        with either.cursor() as cursor:
            cursor.execute("SET default_transaction_isolation = 'repeatable read'")
            either.commit()
            cursor.execute("SHOW transaction_isolation")
            assert cursor.fetchone() == (name,)
        either.rollback()


def test_levels_and_read_only_are_kept_until_others_are_set(either: Any) -> None:
    def shown(what: str) -> str:
        with either.cursor() as cursor:
            cursor.execute(f"SHOW transaction_{what}")
            found: str = cursor.fetchone()[0]
        either.rollback()
        return found

    assert shown("isolation") == "read committed"
    either.set_isolation_level(extensions.ISOLATION_LEVEL_REPEATABLE_READ)
    either.readonly = True
    assert (shown("isolation"), shown("isolation"), shown("read_only")) == ("repeatable read", "repeatable read", "on")
    with pytest.raises(errors.ReadOnlySqlTransaction):
        add(either, 1)
    either.set_isolation_level(extensions.ISOLATION_LEVEL_READ_COMMITTED)
    either.readonly = False
    assert (shown("isolation"), shown("read_only")) == ("read committed", "off")
    either.set_isolation_level(extensions.ISOLATION_LEVEL_AUTOCOMMIT)
    assert either.autocommit
    add(either, 1)
    either.rollback()
    either.autocommit = False
    add(either, 2)
    either.rollback()
    assert things(either) == [1]


def test_the_mode_is_not_changed_within_a_transaction(either: Any) -> None:
    add(either, 1)
    for change in ("autocommit", "readonly"):
        with pytest.raises(psycopg2.ProgrammingError):
            setattr(either, change, True)
    either.commit()
    assert things(either) == [1]


def test_begin_is_no_message_of_its_own_and_nothing_is_begun_before_it_is_needed(session: BatchingConnection) -> None:
    assert session.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
    with session.cursor() as cursor:
        cursor.execute(SAID)
        assert cursor.fetchone() == (f"BEGIN;{SAID}",)
        cursor.execute(SAID)
        assert cursor.fetchone() == (SAID,)
    session.rollback()
    assert session.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE


def test_the_last_statement_goes_with_the_commit(session: BatchingConnection) -> None:
    add(session, 1)
    session.send_with_commit(b"INSERT INTO thing SELECT 2 WHERE (" + SAID.encode() + b") LIKE 'INSERT%;COMMIT'")
    session.commit()
    session.send_with_commit(b"INSERT INTO thing VALUES (3)")  # the first and the last at once
    session.commit()
    assert things(session) == [1, 2, 3]


def test_a_last_statement_that_fails_leaves_nothing(session: BatchingConnection) -> None:
    for last in (b"INSERT INTO thing VALUES (1)", b"no SQL at all"):
        add(session, 1)
        session.send_with_commit(last)
        with pytest.raises((errors.UniqueViolation, errors.SyntaxError)):
            session.commit()
        assert session.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
        assert things(session) == []


def test_a_last_statement_that_is_the_first_too_is_one_message(session: BatchingConnection) -> None:
    said = b"BEGIN ISOLATION LEVEL REPEATABLE READ;INSERT%;COMMIT"
    session.set_isolation_level(extensions.ISOLATION_LEVEL_REPEATABLE_READ)
    session.send_with_commit(b"INSERT INTO thing SELECT 1 WHERE (" + SAID.encode() + b") LIKE '" + said + b"'")
    assert session.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
    session.commit()
    for last in (b"INSERT INTO thing VALUES (1)", b"no SQL at all"):
        session.send_with_commit(last)
        with pytest.raises((errors.UniqueViolation, errors.SyntaxError)):
            session.commit()
        assert session.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
    session.send_with_commit(b"INSERT INTO thing VALUES (2)")
    session.rollback()
    assert things(session) == [1]


def test_nothing_is_said_after_the_last_statement(session: BatchingConnection) -> None:
    session.send_with_commit(b"INSERT INTO thing VALUES (1)")
    for more in (lambda: add(session, 2), session.begin, lambda: session.send_with_commit(b"SELECT 1")):
        with pytest.raises(psycopg2.ProgrammingError, match="sent with the commit"):
            more()
    session.rollback()
    session.commit()
    assert things(session) == []


def test_a_commit_after_a_failure_that_somebody_swallowed_is_no_success(session: BatchingConnection) -> None:
    add(session, 1)
    with pytest.raises(errors.UniqueViolation):
        add(session, 1)
    with pytest.raises(errors.InFailedSqlTransaction):
        session.commit()
    assert things(session) == []


def test_a_unit_of_work_reports_its_outcome(engine: sa.Engine, database: sa.URL) -> None:
    db = PostgresDatabase(engine)
    outcomes: list[Outcome] = []

    def do(*steps: Any) -> None:
        with db.begin() as work:
            work.on_completion(outcomes.append)
            for step in steps:
                step(work)

    def make(work: PostgresUnitOfWork) -> None:
        work.connection.exec_driver_sql("CREATE TABLE thing (n int PRIMARY KEY)")

    def put(number: int, *, last: bool) -> Any:
        def exists(_: Any) -> ConflictError:
            return ConflictError(Reason.ALREADY_EXISTS, "there is one")

        return lambda work: work.write(ADD, {"n": number}, on_violation=exists, last=last)

    def fail(_: PostgresUnitOfWork) -> None:
        raise KeyError

    def lose(_: PostgresUnitOfWork) -> None:
        end_sessions(database)

    do(make)
    for last in (False, True):
        with pytest.raises(KeyError):
            do(put(1, last=last), fail)
    do(put(1, last=True))
    for last in (False, True):
        with pytest.raises(ConflictError):
            do(put(1, last=last))
    assert outcomes == [COMMITTED, ROLLED_BACK, ROLLED_BACK, COMMITTED, ROLLED_BACK, ROLLED_BACK]
    with pytest.raises(UnavailableError) as caught:
        do(put(2, last=True), lose)
    assert (caught.value.reason, outcomes[-1]) == (Reason.OUTCOME_UNKNOWN, UNKNOWN)
    with pytest.raises(UnavailableError) as caught:
        do(lose, put(2, last=False))
    assert (caught.value.reason, outcomes[-1]) == (Reason.DATABASE_UNAVAILABLE, UNKNOWN)
    do(put(3, last=True))  # prepared on the new connection
    with pytest.raises(UnavailableError) as caught:
        do(lose, put(2, last=True))
    assert (caught.value.reason, outcomes[-1]) == (Reason.OUTCOME_UNKNOWN, UNKNOWN)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM thing").scalars().all() == [1, 3]


@pytest.mark.parametrize("what", ["commit", "rollback"])
def test_a_unit_of_work_whose_end_is_interrupted_reports_an_unknown_outcome(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    outcomes: list[Outcome] = []
    end = getattr(BatchingConnection, what)

    def interrupted(session: BatchingConnection) -> None:
        end(session)
        raise KeyboardInterrupt

    def do() -> None:
        with PostgresDatabase(engine).begin() as work:
            work.on_completion(outcomes.append)
            work.connection.exec_driver_sql("SELECT 1")
            monkeypatch.setattr(BatchingConnection, what, interrupted)
            if what == "rollback":
                raise KeyError

    with pytest.raises(KeyboardInterrupt):
        do()
    monkeypatch.undo()
    assert outcomes == [UNKNOWN]

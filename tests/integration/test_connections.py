"""Connections that the server has closed are never handed out, and a statement on one says what happened."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange.connections import connect
from registry import tables
from registry.postgres import PostgresSubjects, reading
from registry.prepared import Prepared
from registry.settings import Configuration
from registry.store import Content
from registry.subjects import Subjects
from schemas.errors import Reason, UnavailableError

pytestmark = pytest.mark.postgres

ONE = Prepared("test_one", "SELECT :number + 1 AS next", number="integer")


@pytest.fixture
def looked_at(database: sa.URL) -> Iterator[sa.Engine]:
    engine = connect(database, connections=2)
    tables.metadata.create_all(engine)
    yield engine
    engine.dispose()


def close_all(url: sa.URL) -> None:
    """Let the server close every other connection to the database, as a restart does."""
    other = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    other.dispose()


def test_a_connection_that_was_closed_while_idle_is_not_handed_out(looked_at: sa.Engine, database: sa.URL) -> None:
    store = PostgresSubjects(looked_at)
    subjects = Subjects(store, Configuration(store), governed=lambda _: False)
    first = subjects.register("a", Content(text='"int"'))
    close_all(database)
    assert subjects.register("a", Content(text='"int"')) == first
    assert subjects.version("a", None) == first


def test_a_connection_that_is_closed_in_use_is_unavailable_and_the_next_one_works(
    looked_at: sa.Engine, database: sa.URL
) -> None:
    def use() -> None:
        with reading(looked_at) as connection:
            assert ONE.one_or_none(connection, {"number": 1}).next == 2
            close_all(database)
            ONE.run(connection, {"number": 1})

    with pytest.raises(UnavailableError) as caught:
        use()
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    with reading(looked_at) as connection:
        assert ONE.one_or_none(connection, {"number": 2}).next == 3


def test_a_rollback_keeps_what_is_prepared(looked_at: sa.Engine) -> None:
    with looked_at.connect() as connection:
        ONE.run(connection, {"number": 1})
        connection.rollback()
        assert ONE.run(connection, {"number": 1}) == [(2,)]


def test_errors_are_sqlalchemy_s(looked_at: sa.Engine) -> None:
    wrong = Prepared("test_wrong", "SELECT 1 / :number AS x", number="integer")
    with looked_at.connect() as connection, pytest.raises(sa_exc.DataError):
        wrong.run(connection, {"number": 0})

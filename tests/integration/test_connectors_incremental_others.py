"""Tables of SQLite and MariaDB that are read by a cursor: no horizon, so an overlap and the reconciliation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.sources.cursor_checks import check_cursor
from connectors.sources.incremental import CursorSettings
from connectors.sources.sql_table import SqlSource
from tests.kit.world import mariadb
from tests.kit.world.changing_tables import execute
from tests.kit.world.cursor_table import CursorTable, every_day


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with mariadb.server() as url:
        yield url


@pytest.fixture
def maria(server: sa.URL) -> Iterator[sa.URL]:
    with mariadb.fresh_database(server) as url:
        yield url


def follows(table: CursorTable) -> None:
    execute(table.url, "INSERT INTO item VALUES (1, 'a', '2026-11-01 10:00:00'), (2, 'b', '2026-11-01 10:20:00')")
    table.publish()
    execute(
        table.url,
        "INSERT INTO item VALUES (3, 'late', '2026-11-01 10:10:00'), (4, 'new', '2026-11-01 10:30:00')",
        "INSERT INTO item VALUES (5, 'too late', '2026-11-01 08:00:00'), (6, 'null', NULL)",
        "DELETE FROM item WHERE id = 1",
    )
    (report,) = table.publish()
    assert (report.read, report.published) == (3, 2)
    assert table.state().keys() == {"1", "2", "3", "4"}
    table.reconcile()
    assert table.state() == table.rows()
    execute(table.url, "INSERT INTO item VALUES (7, 'future', '2099-01-01 00:00:00')")
    table.publish()
    execute(table.url, "INSERT INTO item VALUES (8, 'c', '2026-11-01 10:40:00')")
    table.publish()
    assert table.state() == table.rows()


def test_a_table_of_sqlite(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 'register.db'}")
    execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, at TIMESTAMP)")
    table = CursorTable(tmp_path, url)
    follows(table)
    source = SqlSource(url, "item")
    (index, nulls, horizon) = check_cursor(source, table.settings)
    assert 'CREATE INDEX "item_at" ON "item" ("at", "id");' in index.statements
    execute(url, *index.statements, *nulls.statements)
    assert [each.message for each in check_cursor(source, table.settings)] == [horizon.message]
    assert "sqlite" in horizon.message
    assert "So each poll reads again from 30 min before the last cursor" in horizon.message
    source.close()


@pytest.mark.needs_package("mariadb-server-core", program="mariadbd")
@pytest.mark.parametrize("kind", ["datetime(6)", "datetime"])
def test_a_table_of_mariadb(tmp_path: Path, maria: sa.URL, kind: str) -> None:
    execute(maria, f"CREATE TABLE item (id bigint PRIMARY KEY, name text, at {kind})")
    table = CursorTable(tmp_path, maria)
    follows(table)
    source = SqlSource(maria, "item")
    (index, nulls, horizon) = check_cursor(source, table.settings)
    execute(maria, *index.statements, *nulls.statements)
    assert [each.message for each in check_cursor(source, table.settings)] == [horizon.message]
    source.close()


def test_a_number_of_sqlite(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 'register.db'}")
    execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, at INTEGER)")
    table = CursorTable(tmp_path, url, settings=replace(CursorSettings(column="at", whole=every_day), overlap=10))
    execute(url, "INSERT INTO item VALUES (1, 'a', 100)")
    table.publish()
    execute(url, "INSERT INTO item VALUES (2, 'b', 95), (3, 'c', 101), (4, 'd', 50)")
    table.publish()
    assert table.state().keys() == {"1", "2", "3"}
    table.reconcile()
    assert table.state() == table.rows()

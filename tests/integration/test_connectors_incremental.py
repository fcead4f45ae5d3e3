"""A table that is read by a cursor: late commits, deletes, nulls, clocks that jump, and what `check` prints."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import cli
from connectors.runtime import service
from connectors.sources import incremental
from connectors.sources.cursor_checks import check_cursor
from connectors.sources.incremental import CursorSettings
from connectors.sources.postgres import horizon
from connectors.sources.postgres.readiness import Finding
from connectors.sources.sql_table import SqlSource
from schemas.errors import InvalidError, Reason
from tests.kit.share import count, random_of
from tests.kit.world.changing_tables import execute
from tests.kit.world.cursor_table import CursorTable
from tests.kit.world.department import Department

pytestmark = pytest.mark.postgres

TABLE = "CREATE TABLE item (id bigint PRIMARY KEY, name text, at timestamptz DEFAULT now())"


@pytest.fixture
def cursor(tmp_path: Path, database: sa.URL, monkeypatch: pytest.MonkeyPatch) -> CursorTable:
    """The margin is for what happens within a session of the server; a test of its rules need not wait for it."""
    monkeypatch.setattr(horizon, "MARGIN", 0)
    execute(database, TABLE)
    return CursorTable(tmp_path, database)


@contextmanager
def transaction(url: sa.URL) -> Iterator[sa.Connection]:
    """Hold a transaction open; it is committed at the end."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT now()")  # a transaction of the server begins with its first statement
        yield connection
        connection.commit()
    engine.dispose()


def greatest_seen(table: Any, settings: CursorSettings) -> horizon.Horizon:
    """The naive end: whatever is committed now."""
    del settings
    with table.engine.connect() as connection:
        at = connection.exec_driver_sql("SELECT coalesce(max(at), '-infinity')::text FROM item").scalar_one()
    return horizon.Horizon(at=at + "" if at.endswith("infinity") else _after(table.engine, at))


def _after(engine: sa.Engine, at: str) -> str:
    with engine.connect() as connection:
        return str(
            connection.execute(sa.text("SELECT (CAST(:at AS timestamptz) + interval '1us')::text"), {"at": at}).scalar()
        )


# -- late commits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("naive", [False, True])
def test_a_transaction_that_commits_late_is_published(
    cursor: CursorTable, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(incremental, "find_horizon", greatest_seen)
    cursor.publish()
    with transaction(cursor.url) as late:
        late.exec_driver_sql("INSERT INTO item VALUES (1, 'late')")
        execute(cursor.url, "INSERT INTO item VALUES (2, 'early')")
        cursor.publish()
        assert cursor.state() == ({"2": "early"} if naive else {}), "what is not final waits"
    cursor.publish()
    assert (cursor.state() == {"1": "late", "2": "early"}) is not naive, "the naive end has to lose the row"


@pytest.mark.parametrize("naive", [False, True])
def test_late_commit_storm(cursor: CursorTable, naive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 writers, transactions of random length and with rollbacks, and polls all the while."""
    if naive:
        monkeypatch.setattr(incremental, "find_horizon", greatest_seen)
    cursor.publish()
    ended = threading.Event()

    def write(writer: int) -> None:
        seed = random_of(f"storm {writer}")
        engine = sa.create_engine(cursor.url, poolclass=sa.NullPool)
        for turn in range(count(6, 3)):
            with engine.connect() as connection:
                for each in range(seed.randint(1, 3)):
                    number = writer * 1000 + turn * 10 + each
                    connection.exec_driver_sql(f"INSERT INTO item VALUES ({number}, 'w')")
                    if seed.random() < 0.5:
                        connection.exec_driver_sql(f"UPDATE item SET name = 'x', at = now() WHERE id = {writer * 1000}")
                connection.exec_driver_sql(f"SELECT pg_sleep({seed.uniform(0, count(30, 10) / 10):.3f})")
                connection.rollback() if seed.random() < 0.2 else connection.commit()
        engine.dispose()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(1, 51)]
    for each in writers:
        each.start()
    watch = threading.Thread(target=lambda: [each.join() for each in writers] and ended.set())
    watch.start()
    while not ended.wait(0.01):
        cursor.publish()
    watch.join()
    cursor.publish()
    missing = cursor.rows().items() - cursor.state().items()
    assert bool(missing) is naive, "the naive end has to lose rows, or the storm shows nothing"
    assert naive or cursor.state() == cursor.rows()


def test_a_prepared_transaction_holds_the_horizon_where_it_was(
    tmp_path: Path, source: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horizon, "MARGIN", 0)
    execute(source, TABLE)
    cursor = CursorTable(tmp_path, source)
    cursor.publish()
    execute(source, "BEGIN; INSERT INTO item VALUES (1, 'late'); PREPARE TRANSACTION 'one'")
    try:
        execute(source, "INSERT INTO item VALUES (2, 'early')")
        cursor.publish()
        assert cursor.state() == {}
        assert "prepared" in cursor.meta("cursor_waiting")
    finally:
        execute(source, "COMMIT PREPARED 'one'")
    cursor.publish()
    assert cursor.state() == {"1": "late", "2": "early"}
    assert cursor.meta("cursor_waiting") == ""


def test_a_forgotten_session_is_named_and_nothing_is_lost(cursor: CursorTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horizon, "_LONG", 0.0)
    cursor.publish()
    with transaction(cursor.url):
        execute(cursor.url, "INSERT INTO item VALUES (1, 'a')")
        cursor.publish()
        assert cursor.state() == {}
        assert "horizon held by session" in cursor.meta("cursor_waiting")
    cursor.publish()
    assert cursor.state() == {"1": "a"}


def test_a_clock_that_is_set_back_takes_the_position_with_it(
    cursor: CursorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor.publish()
    moments = ["2027-06-01 12:00:00+00", "2027-06-01 11:00:00+00", "2027-06-01 12:30:00+00"]
    monkeypatch.setattr(incremental, "find_horizon", lambda *_: horizon.Horizon(at=moments.pop(0)))
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (1, 'again', '2027-06-01 11:30:00+00')")
    cursor.publish()
    cursor.publish()
    assert cursor.state() == {"1": "again"}


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York"])
def test_a_cursor_without_a_time_zone_is_read_in_the_one_that_is_named(cursor: CursorTable, zone: str) -> None:
    execute(
        cursor.url,
        f"ALTER TABLE item ALTER at TYPE timestamp, ALTER at SET DEFAULT timezone('{zone}', now())",
        "INSERT INTO item VALUES (1, 'a')",
    )
    cursor.settings = replace(cursor.settings, timezone=zone)
    cursor.publish()
    with transaction(cursor.url) as late:
        late.exec_driver_sql("INSERT INTO item VALUES (2, 'late')")
        execute(cursor.url, "INSERT INTO item VALUES (3, 'early')")
        cursor.publish()
        assert cursor.state() == {"1": "a"}
    cursor.publish()
    assert cursor.state() == cursor.rows()


# -- where the horizon is not known ------------------------------------------------------------------------------------


@pytest.fixture
def reader(cursor: CursorTable, database: sa.URL) -> Iterator[sa.URL]:
    """A role that sees nobody else's transactions."""
    execute(database, "CREATE ROLE cursor_reader LOGIN PASSWORD 'reader'", "GRANT SELECT ON item TO cursor_reader")
    yield database.set(username="cursor_reader", password="reader")
    execute(database, "DROP OWNED BY cursor_reader", "DROP ROLE cursor_reader")


def test_without_the_right_an_overlap_is_read_and_said(cursor: CursorTable, reader: sa.URL) -> None:
    owner, cursor.url = cursor.url, reader
    cursor.publish()
    assert any('GRANT pg_read_all_stats TO "cursor_reader";' in said for said in cursor.department.said)
    with transaction(owner) as late:
        late.exec_driver_sql("INSERT INTO item VALUES (1, 'late')")
        execute(owner, "INSERT INTO item VALUES (2, 'early')")
        cursor.publish()
        assert cursor.state() == {"2": "early"}
    cursor.publish()
    assert cursor.state() == {"1": "late", "2": "early"}, "within the overlap"
    assert "no right" in cursor.meta("cursor_way")
    assert cursor.meta("cursor_way").endswith("each poll reads again from 30 min before the last cursor")
    execute(owner, "GRANT pg_read_all_stats TO cursor_reader")
    execute(owner, "INSERT INTO item VALUES (3, 'c')")
    cursor.publish()
    assert cursor.meta("cursor_way") == "safe horizon"
    assert len(cursor.state()) == 3


def test_what_commits_later_than_the_overlap_is_found_by_the_reconciliation(cursor: CursorTable) -> None:
    cursor.settings = replace(cursor.settings, set_by_database=False, overlap=60)
    execute(cursor.url, "INSERT INTO item VALUES (1, 'a')")
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (2, 'of yesterday', now() - interval '1 day')")
    cursor.publish()
    assert cursor.state() == {"1": "a"}
    cursor.reconcile()
    assert cursor.state() == cursor.rows()


def test_a_cursor_in_the_far_future_does_not_end_the_reading(cursor: CursorTable) -> None:
    cursor.settings = replace(cursor.settings, set_by_database=False, overlap=60)
    execute(cursor.url, "INSERT INTO item VALUES (1, 'a', '2099-01-01')")
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (2, 'b')", "UPDATE item SET name = 'c' WHERE id = 1")
    cursor.publish()
    assert cursor.state() == cursor.rows()


@pytest.mark.parametrize("kind", ["bigint", "numeric", "double precision"])
def test_a_number_is_followed_with_an_overlap(cursor: CursorTable, kind: str) -> None:
    execute(cursor.url, "CREATE SEQUENCE change", f"ALTER TABLE item DROP at, ADD at {kind} DEFAULT nextval('change')")
    cursor.settings = replace(cursor.settings, overlap=3)
    for number in range(1, 9):
        execute(cursor.url, f"INSERT INTO item (id, name) VALUES ({number}, 'a')")
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (20, 'late', 7), (21, 'new', 9), (22, 'too late', 2)")
    (report,) = cursor.publish()
    assert cursor.state().keys() == {str(number) for number in (*range(1, 9), 20, 21)}
    assert report.read == 6
    assert cursor.meta("cursor_way").endswith("each poll reads again from 3 below the last cursor")
    cursor.reconcile()
    assert cursor.state() == cursor.rows()


@pytest.mark.parametrize(
    ("kind", "value"),
    [("numeric", "NaN"), ("numeric", "Infinity"), ("numeric(10,2)", "NaN"), ("double precision", "Infinity")],
)
def test_a_number_without_end_does_not_end_the_reading(cursor: CursorTable, kind: str, value: str) -> None:
    execute(cursor.url, f"ALTER TABLE item DROP at, ADD at {kind}", f"INSERT INTO item VALUES (1, 'a', '{value}')")
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (2, 'b', 2)", "UPDATE item SET name = 'c' WHERE id = 1")
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (3, 'd', 3)")
    cursor.publish()
    assert cursor.state() == cursor.rows()


def test_never_to_reconcile_is_refused_where_rows_could_be_missed(cursor: CursorTable, reader: sa.URL) -> None:
    cursor.url = reader
    cursor.settings = replace(cursor.settings, whole=None)
    with pytest.raises(InvalidError) as error:
        cursor.publish()
    assert error.value.reason is Reason.CONFIG_INVALID
    assert "GRANT pg_read_all_stats" in error.value.message


# -- what no cursor tells ----------------------------------------------------------------------------------------------


def test_deletes_nulls_and_silent_changes_are_found_by_the_reconciliation(cursor: CursorTable) -> None:
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 40) n")
    cursor.publish()
    execute(
        cursor.url,
        "DELETE FROM item WHERE id = 1",
        "UPDATE item SET id = 100 WHERE id = 2",
        "UPDATE item SET name = 'silent' WHERE id = 3",
        "INSERT INTO item VALUES (50, 'null', NULL)",
    )
    assert cursor.publish() == []
    whole, *_ = cursor.reconcile()
    assert (whole.published, whole.voided) == (3, 2)
    assert cursor.state() == cursor.rows()


@pytest.mark.parametrize("left", [0, 30])
def test_a_source_that_shows_far_fewer_rows_deletes_nothing(cursor: CursorTable, left: int) -> None:
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 60) n")
    cursor.publish()
    execute(cursor.url, f"DELETE FROM item WHERE id > {left}")
    for _ in range(2):
        with pytest.raises(InvalidError) as error:
            cursor.reconcile()
        assert error.value.reason is Reason.DELETE_GUARD
        assert "--accept-deletes" in error.value.message
        assert len(cursor.state()) == 60
    cursor.department.limits = replace(cursor.department.limits, accept_deletes=True)
    cursor.publish()
    assert cursor.state() == cursor.rows()


def test_what_changes_while_the_table_is_read_whole_is_published(cursor: CursorTable) -> None:
    """The position is of before the reading: rows behind the pages that were read would be lost otherwise."""
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 30) n")
    changed = []

    def change(_: str) -> None:
        if len(cursor.department.twin.records("item.v1")) >= 15 and not changed:
            changed.append(True)
            execute(
                cursor.url, "UPDATE item SET name = 'b', at = now() WHERE id = 1", "INSERT INTO item VALUES (0, 'n')"
            )

    cursor.department.twin.fail = change
    cursor.publish()
    cursor.department.twin.fail = lambda _: None
    cursor.publish()
    assert changed
    assert cursor.state() == cursor.rows()


def test_a_row_that_fits_no_record_stays_in_quarantine_until_the_table_is_read_whole(cursor: CursorTable) -> None:
    execute(cursor.url, "ALTER TABLE item ALTER id TYPE numeric", "INSERT INTO item VALUES (1, 'a')")
    cursor.publish()
    execute(cursor.url, "INSERT INTO item VALUES (1.5, 'b'), (2, 'c')")
    assert [each.quarantined for each in cursor.publish()] == [1]
    execute(cursor.url, "INSERT INTO item VALUES (3, 'd')")
    cursor.publish()
    assert [each.field for each in cursor.department.quarantined()] == ["id"]
    execute(cursor.url, "DELETE FROM item WHERE id = 1.5")
    cursor.reconcile()
    assert cursor.department.quarantined() == []


# -- positions ---------------------------------------------------------------------------------------------------------


def test_a_quiet_table_is_not_read(cursor: CursorTable) -> None:
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 30) n")
    assert cursor.publish()[0].read == 30
    assert cursor.publish() == []
    execute(cursor.url, "UPDATE item SET name = 'b', at = now() WHERE id = 7")
    assert [(each.read, each.published) for each in cursor.publish()] == [(1, 1)]


def test_another_cursor_mapping_or_contract_reads_the_table_whole(cursor: CursorTable) -> None:
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 30) n")
    cursor.publish()
    cursor.settings = replace(cursor.settings, scope="WHERE id > 0")
    assert cursor.publish()[0].read == 30
    cursor.fresh = True
    assert cursor.publish()[0].read == 30


@pytest.mark.parametrize("fault", ["lost ledger", "restored pool"])
def test_after_a_loss_the_table_is_read_whole(cursor: CursorTable, fault: str) -> None:
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 30) n")
    cursor.publish()
    backup = cursor.department.twin.back_up()
    execute(cursor.url, "INSERT INTO item VALUES (31, 'b')")
    cursor.publish()
    if fault == "lost ledger":
        cursor.department.lose_ledger()
    else:
        cursor.department.twin.restore(backup)
    cursor.publish()
    assert cursor.state() == cursor.rows()


@pytest.mark.parametrize(
    "rows",
    [
        {"query": "SELECT i.id, i.name, i.at FROM item i WHERE i.id > 0", "key": ("id",)},
        {"table": "recent", "key": ("id",)},
        {"table": "item", "where": "id > 0"},
    ],
)
def test_a_query_a_view_and_a_part_are_read_by_a_cursor(cursor: CursorTable, rows: dict[str, Any]) -> None:
    execute(cursor.url, "CREATE VIEW recent AS SELECT * FROM item WHERE id > 0")
    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(0, 30) n")
    cursor.table = {"page": 7, **rows}
    cursor.publish()
    execute(cursor.url, "UPDATE item SET name = 'b', at = now() WHERE id < 3")
    assert [each.published for each in cursor.publish()] == [2]
    assert cursor.state() == {key: name for key, name in cursor.rows().items() if key != "0"}


# -- check -------------------------------------------------------------------------------------------------------------


def findings(cursor: CursorTable, url: sa.URL) -> list[Finding]:
    source = SqlSource(url, "public.item")
    try:
        return list(check_cursor(source, cursor.settings))
    finally:
        source.close()


def test_what_check_prints_makes_it_pass(cursor: CursorTable, reader: sa.URL) -> None:
    execute(cursor.url, "ALTER TABLE item ALTER at DROP DEFAULT", "INSERT INTO item VALUES (1, 'a', NULL)")
    found = findings(cursor, reader)
    text = " ".join(each.message for each in found)
    assert "no index begins with at" in text
    assert "1 rows have a null at" in text
    assert "no right" in text
    for statement in (each for finding in found for each in finding.statements):
        execute(cursor.url, statement)
    assert findings(cursor, reader) == []
    assert cursor.rows() == {"1": "a"}


def test_check_says_that_deletes_are_not_seen(cursor: CursorTable) -> None:
    execute(cursor.url, "CREATE INDEX ON item (at)")
    cursor.settings = replace(cursor.settings, whole=None)
    (finding,) = findings(cursor, cursor.url)
    assert "deleted rows stay published" in finding.message


def test_a_cursor_that_is_not_there_is_named(cursor: CursorTable) -> None:
    cursor.settings = replace(cursor.settings, column="updated")
    with pytest.raises(InvalidError) as error:
        findings(cursor, cursor.url)
    assert "no column updated" in error.value.message


CONFIG = """
version: 1
connector: drop
exchange: {{ identity: identity/ }}
source: {{ kind: sql, url: "{url}", password: "${{env:SOURCE_PASSWORD}}" }}
publish:
  - resource: item.v1
    table: public.item
    mode: incremental
    cursor: at
    columns: {{ at: {{ exclude: true }} }}
"""


class PoolOfCommands:
    """The pool's client of a command, in this process."""

    def __init__(self, department: Department) -> None:
        self._client = department.twin.client("d-1", "drop", department.key)
        self.sign = department.key.sign

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def refresh(self) -> None:
        pass


def test_the_commands_check_run_and_show_it(
    cursor: CursorTable, reader: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    address = sa.URL.create("postgresql", username=reader.username, database=reader.database, query=reader.query)
    file.write_text(CONFIG.format(url=address.render_as_string()))
    monkeypatch.setenv("SOURCE_PASSWORD", "reader")
    monkeypatch.setattr(cli, "_connect", lambda *_: PoolOfCommands(cursor.department))
    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)

    def invoke(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, [arguments[0], str(file), *arguments[1:]])
        assert done.exit_code == 0, done.output
        return done.output

    execute(cursor.url, "INSERT INTO item SELECT n, 'a' FROM generate_series(1, 20) n")
    checked = invoke("check")
    execute(cursor.url, *(line.strip() for line in checked.splitlines() if line.endswith(";")))
    assert "no index begins with at" in checked
    assert "an index and no nulls, and a safe horizon" in invoke("check")
    invoke("run", "--once")
    execute(cursor.url, "DELETE FROM item WHERE id = 1", "UPDATE item SET name = 'b', at = now() WHERE id = 2")
    assert "1 rows read = 1 published" in invoke("run", "--once")
    assert len(cursor.state()) == 20
    assert "1 voided" in invoke("run", "--once", "--resnapshot", "item.v1")
    assert cursor.state() == cursor.rows()
    assert "safe horizon" in invoke("status")

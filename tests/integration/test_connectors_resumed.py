"""A pass over a table that is interrupted goes on where it was, and begins again where that would not be right."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.sources.sql_table import SqlSource
from connectors.sources.table_portion import TablePortion
from connectors.state.ledger import Ledger, RunReport
from schemas.errors import InvalidError, Reason, UnavailableError
from tests.kit.twins.pool_twin_process import Killer, TwinServer, publish_table
from tests.kit.world.changing_tables import execute
from tests.kit.world.cursor_table import CursorTable
from tests.kit.world.department import now

KILLED = -9
ROWS = 100


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> CursorTable:
    url = sa.make_url(f"sqlite:///{tmp_path / 'register.db'}")
    if request.param == "postgres":
        url = request.getfixturevalue("database")
    execute(
        url,
        "CREATE TABLE item (id NUMERIC NOT NULL PRIMARY KEY, name text, at timestamp)",
        "INSERT INTO item VALUES " + ", ".join(f"({number}, 'a', NULL)" for number in range(1, ROWS + 1)),
    )
    return CursorTable(tmp_path, url, table={"table": "item", "page": 5})


@pytest.fixture
def server(table: CursorTable, tmp_path: Path) -> Iterator[TwinServer]:
    department = table.department
    made = TwinServer(department.twin, tmp_path, department.twin.client("d-1", "drop", department.key))
    yield made
    made.close()


def run(server: TwinServer, table: CursorTable, *, killer: Killer | None = None) -> int:
    key = table.department.key.private_bytes_raw()
    url = table.url.render_as_string(hide_password=False)
    return server.run(publish_table, str(table.folder), url, key, "snapshot", killer=killer)


def interrupt(server: TwinServer, table: CursorTable) -> int:
    """Kill a pass when more than half of the table is published; return the number of published rows."""
    assert run(server, table, killer=Killer(at_call=18)) == KILLED
    published = len(table.department.twin.records("item.v1"))
    assert ROWS // 2 < published < ROWS
    return published


def last_run(table: CursorTable) -> RunReport:
    with closing(Ledger(table.department.ledger_file, clock=now)) as ledger:
        row = ledger.sql.execute("SELECT id, portion, read, published FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    return RunReport(id=row[0], portion=row[1], read=row[2], published=row[3])


def scratch(table: CursorTable) -> Path:
    return Path(f"{table.department.ledger_file}-scan")


def test_a_pass_that_is_killed_at_60_percent_goes_on_from_there(server: TwinServer, table: CursorTable) -> None:
    interrupt(server, table)
    assert run(server, table) == 0
    assert table.state() == table.rows()
    assert len(table.department.twin.records("item.v1")) == ROWS, "nothing was published twice"
    assert last_run(table).read <= ROWS // 2, "it went on behind what was acknowledged"
    assert not list(scratch(table).parent.glob("*-scan*"))


def test_a_pass_that_is_stopped_while_it_reads_the_keys_goes_on_too(table: CursorTable) -> None:
    department = table.department
    told: list[RunReport] = []

    def stop_after_eight(report: RunReport) -> None:
        told.append(report)
        if len(told) == 8:
            department.stop.set()

    department.progress = stop_after_eight
    department.publish(lambda _: SqlSource(table.url, **table.table))
    assert department.twin.records("item.v1") == []
    assert scratch(table).stat().st_mode & 0o077 == 0
    department.stop.clear()
    department.publish(lambda _: SqlSource(table.url, **table.table))
    assert any("goes on behind 40 keys" in said for said in department.said)
    assert table.state() == table.rows()


def test_a_source_that_is_away_for_a_moment_costs_no_row_that_was_not_sent_yet(
    table: CursorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was mapped and waits for a batch to be full is in no outbox."""
    pages = 0
    statement = TablePortion._statement

    def away_at_the_33rd_page(self: TablePortion, *arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 33:  # 21 for the keys, the last of which is empty
            raise UnavailableError(Reason.SOURCE_UNAVAILABLE, "away")
        return statement(self, *arguments)

    monkeypatch.setattr(TablePortion, "_statement", away_at_the_33rd_page)
    table.department.limits = replace(table.department.limits, batch_rows=13)
    table.department.publish(lambda _: SqlSource(table.url, **table.table))
    assert any("goes on behind" in said for said in table.department.said)
    assert table.state() == table.rows()
    assert pages < 2 * 33, "it did not begin again"


def test_what_changed_meanwhile_is_found_by_this_pass_or_the_next(server: TwinServer, table: CursorTable) -> None:
    interrupt(server, table)
    execute(
        table.url,
        "UPDATE item SET name = 'b' WHERE id IN (1, 99)",
        "DELETE FROM item WHERE id IN (2, 98)",
        "INSERT INTO item VALUES (0, 'n', NULL), (1000, 'n', NULL)",
    )
    assert run(server, table) == 0
    assert table.state()["99"] == "b"
    assert "1000" in table.state()
    assert run(server, table) == 0
    assert table.state() == table.rows()


def test_rows_that_were_set_aside_before_the_interruption_stay_so(server: TwinServer, table: CursorTable) -> None:
    execute(table.url, "UPDATE item SET id = 3.5 WHERE id = 4")
    interrupt(server, table)
    assert run(server, table) == 0
    assert [each.field for each in table.department.quarantined()] == ["id"]
    execute(table.url, "UPDATE item SET id = 4 WHERE id = 3.5")
    assert run(server, table) == 0
    assert table.department.quarantined() == []
    assert table.state() == table.rows()


def test_after_a_restore_of_the_pool_it_begins_again(server: TwinServer, table: CursorTable) -> None:
    twin = table.department.twin
    assert run(server, table, killer=Killer(at_call=6)) == KILLED
    backup = twin.back_up()
    assert twin.records("item.v1")
    interrupt(server, table)
    twin.restore(backup)
    assert run(server, table) == 0
    assert table.state() == table.rows(), "what the pool has lost is published again by this pass"


@pytest.mark.parametrize("what", ["damaged", "old", "of another ledger", "of another mapping"])
def test_a_scratch_file_that_may_not_be_trusted_is_not(server: TwinServer, table: CursorTable, what: str) -> None:
    interrupt(server, table)
    if what == "damaged":
        for each in scratch(table).parent.glob("*-scan*"):
            each.write_bytes(b"\xff" * 5000)
    else:
        change = {
            "old": "begun = '2020-01-01T00:00:00+00:00'",
            "of another ledger": "token = 'x'",
            "of another mapping": "identity = 'x'",
        }[what]
        with closing(sqlite3.connect(scratch(table))) as sql:
            sql.execute(f"UPDATE pass SET {change}")
            sql.commit()
    assert run(server, table) == 0
    assert table.state() == table.rows()
    assert last_run(table).read == ROWS


@pytest.mark.parametrize("left", [0, 80])
def test_the_delete_guard_stops_a_pass_and_leaves_nothing_to_go_on_with(table: CursorTable, left: int) -> None:
    def publish() -> list[RunReport]:
        return table.department.publish(lambda _: SqlSource(table.url, **table.table))

    publish()
    execute(table.url, "CREATE TABLE kept AS SELECT * FROM item", f"DELETE FROM item WHERE id > {left}")
    for _ in range(2):
        with pytest.raises(InvalidError) as error:
            publish()
        assert error.value.reason is Reason.DELETE_GUARD
        assert "--accept-deletes" in error.value.message
        assert len(table.state()) == ROWS
        assert not scratch(table).exists()
    execute(table.url, f"INSERT INTO item SELECT * FROM kept WHERE id > {left}")
    assert publish()[0].unchanged == ROWS
    execute(table.url, "DELETE FROM item WHERE id > 80")
    table.department.limits = replace(table.department.limits, delete_share=0.3)
    assert publish()[0].voided == 20
    assert table.state() == table.rows()

"""The slot: what it holds back, who else reads it, what becomes of it. In doubt the connector stops, with code 4."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psycopg2
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner
from typing_extensions import override

from connectors import cli
from connectors.port import ChangeSource
from connectors.runtime import service
from connectors.runtime.exit_codes import ExitCode, exit_code_for
from connectors.sources.postgres.change_source import PostgresChangeSource, WalLimit
from connectors.sources.postgres.connection import open_sql
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, UnavailableError
from tests.kit.patience import PATIENCE
from tests.kit.world import postgres
from tests.kit.world.changing_tables import SLOT, ChangingTables, execute, only, query, slots

pytestmark = pytest.mark.postgres

TABLE = "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount bigint)"


@pytest.fixture
def tables(tmp_path: Path, source: sa.URL) -> ChangingTables:
    execute(source, TABLE, "ALTER TABLE item REPLICA IDENTITY FULL", "CREATE PUBLICATION pool FOR TABLE item")
    execute(source, "INSERT INTO item SELECT n, 'x', n FROM generate_series(1, 50) n")
    return ChangingTables(tmp_path, source)


def table(tables: ChangingTables) -> dict[str, dict[str, object]]:
    rows = query(tables.url, "SELECT id, name, amount FROM item")
    return {str(row[0]): {"id": row[0], "name": row[1], "amount": row[2]} for row in rows}


def stops(tables: ChangingTables, word: str) -> None:
    """It stops twice, for a person, says what to do, publishes nothing; and what it says works."""
    count = len(tables.twin.records("item.v1"))
    for _ in range(2):
        with pytest.raises(ConflictError) as error:
            tables.publish()
        assert (error.value.reason, exit_code_for(error.value)) == (Reason.SOURCE_CHANGED, ExitCode.PERSON)
        assert word in error.value.message
        assert "--resnapshot" in error.value.message
        assert len(tables.twin.records("item.v1")) == count
    tables.publish(resnapshot=["public.item"])
    execute(tables.url, "INSERT INTO item VALUES (1000, 'after', 0)")
    tables.publish()
    assert tables.state() == table(tables)
    assert slots(tables.url) == [SLOT]


def miss_something(tables: ChangingTables) -> None:
    execute(tables.url, "DELETE FROM item WHERE id = 1", "INSERT INTO item VALUES (100, 'missed', 0)")


# -- a slot that is not where it was left ----------------------------------------------------------------------------


def test_a_slot_that_was_dropped(tables: ChangingTables) -> None:
    tables.publish()
    execute(tables.url, f"SELECT pg_drop_replication_slot('{SLOT}')")
    miss_something(tables)
    stops(tables, "is gone")


def test_a_slot_that_was_made_again(tables: ChangingTables) -> None:
    tables.publish()
    execute(tables.url, f"SELECT pg_drop_replication_slot('{SLOT}')")
    miss_something(tables)
    execute(tables.url, f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    stops(tables, "another program has read it, or it was made again")


def test_a_slot_that_another_program_has_read(tables: ChangingTables) -> None:
    tables.publish()
    miss_something(tables)
    execute(
        tables.url,
        f"SELECT count(*) FROM pg_logical_slot_get_binary_changes('{SLOT}', NULL, NULL, 'proto_version', '1', "
        "'publication_names', 'pool')",
    )
    stops(tables, "another program has read it")


def test_a_slot_whose_log_was_removed(tables: ChangingTables) -> None:
    tables.publish()
    execute(tables.url, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    try:
        miss_something(tables)
        for _ in range(3):
            execute(tables.url, "INSERT INTO item SELECT n, 'x', n FROM generate_series(2000, 60000) n")
            execute(tables.url, "DELETE FROM item WHERE id >= 2000", "SELECT pg_switch_wal()", "CHECKPOINT")
        assert query(tables.url, "SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    finally:
        execute(tables.url, "ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'", "SELECT pg_reload_conf()")
    stops(tables, "is lost")


def test_another_database_under_the_same_address(tables: ChangingTables, logical_server: sa.URL) -> None:
    tables.publish()
    execute(tables.url, f"SELECT pg_drop_replication_slot('{SLOT}')")
    with postgres.fresh_database(logical_server) as url:
        execute(url, TABLE, "ALTER TABLE item REPLICA IDENTITY FULL", "CREATE PUBLICATION pool FOR TABLE item")
        execute(url, "INSERT INTO item VALUES (50, 'x', 50), (100, 'other', 0)")
        before, tables.url = tables.url, url
        with pytest.raises(ConflictError) as error:
            tables.publish()
        assert "another database" in error.value.message
        tables.url = before


def test_a_slot_of_someone_else_is_left_alone(tables: ChangingTables) -> None:
    execute(tables.url, f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    for resnapshot in ([], ["public.item"]):
        with pytest.raises(ConflictError) as error:
            tables.publish(resnapshot=resnapshot)
        assert "did not make" in error.value.message
    assert slots(tables.url) == [SLOT]


def test_a_second_reader_waits_and_is_told_so(tables: ChangingTables) -> None:
    tables.publish()
    connection = psycopg2.connect(
        **_parameters(tables.url), connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    options = {"proto_version": "1", "publication_names": "pool"}
    connection.cursor().start_replication(slot_name=SLOT, decode=False, options=options)
    tables.limits = replace(tables.limits, give_up_after=0.1)
    with pytest.raises(UnavailableError) as error:
        tables.publish()
    assert "another session" in error.value.message
    connection.close()


# -- what is lost on this side ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [("slot",), ("item.v1",), ("slot", "item.v1")])
def test_lost_notes_and_ledgers_are_recovered_from_the_pool(tables: ChangingTables, lost: tuple[str, ...]) -> None:
    tables.publish()
    execute(tables.url, "UPDATE item SET name = 'y' WHERE id <= 5")
    tables.publish()
    execute(tables.url, "DELETE FROM item WHERE id = 7", "UPDATE item SET name = 'z' WHERE id = 8")
    tables.lose(*lost)
    tables.publish()
    assert tables.state() == table(tables)
    assert slots(tables.url) == [SLOT]


def test_a_pool_that_was_restored_gets_what_it_lost(tables: ChangingTables) -> None:
    tables.publish()
    backup = tables.twin.back_up()
    execute(tables.url, "DELETE FROM item WHERE id <= 5", "UPDATE item SET name = 'y' WHERE id BETWEEN 6 AND 9")
    tables.publish()
    tables.twin.restore(backup)
    execute(tables.url, "INSERT INTO item VALUES (77, 'after', 0)")
    tables.publish()
    assert tables.state() == table(tables)


# -- what the slot costs ---------------------------------------------------------------------------------------------


def test_a_quiet_table_beside_a_busy_database_holds_no_log_back(tables: ChangingTables) -> None:
    """PostgreSQL's own default: a slot of a table that does not change keeps the log of all that does."""
    tables.publish()
    execute(tables.url, "CREATE TABLE noise (n int)")
    for _ in range(2):
        execute(tables.url, "INSERT INTO noise SELECT generate_series(1, 50000)", "CHECKPOINT")
        assert retained(tables) > 1_000_000
        tables.publish()
        execute(tables.url, "CHECKPOINT")
        tables.publish()
    assert retained(tables) < 1_000_000


def retained(tables: ChangingTables) -> int:
    ((size,),) = query(
        tables.url, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots"
    )
    return int(size)


def test_a_slot_that_holds_back_too_much_is_given_up_to_save_the_database(tables: ChangingTables) -> None:
    tables.publish()
    miss_something(tables)
    execute(tables.url, "CREATE TABLE noise (n int)", "INSERT INTO noise SELECT generate_series(1, 50000)")
    settings = tables.settings
    tables.settings = replace(settings, heartbeat=0.0, wal_limit=WalLimit(warn=500_000, drop_slot=1_000_000))
    with pytest.raises(ConflictError) as error:
        tables.publish()
    assert "was dropped" in error.value.message
    assert slots(tables.url) == []
    tables.settings = settings
    stops(tables, "is gone")


def test_an_unlimited_log_is_refused_unless_it_is_accepted(tables: ChangingTables) -> None:
    execute(tables.url, "ALTER SYSTEM SET max_slot_wal_keep_size = -1", "SELECT pg_reload_conf()")
    try:
        with pytest.raises(InvalidError) as error:
            tables.publish()
        assert "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';" in error.value.message
        tables.settings = replace(tables.settings, accept_unbounded_wal=True)
        tables.publish()
    finally:
        execute(tables.url, "ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'", "SELECT pg_reload_conf()")


# -- hand-over -------------------------------------------------------------------------------------------------------


def test_nothing_is_confirmed_that_the_pool_has_not_acknowledged(tables: ChangingTables) -> None:
    tables.publish()
    confirmed = query(tables.url, "SELECT confirmed_flush_lsn FROM pg_replication_slots")
    miss_something(tables)

    def away(what: str) -> None:
        if what == "before append":
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the pool is away")

    tables.twin.fail = away
    tables.limits = replace(tables.limits, give_up_after=0.1)
    with pytest.raises(UnavailableError):
        tables.publish()
    assert query(tables.url, "SELECT confirmed_flush_lsn FROM pg_replication_slots") == confirmed
    tables.twin.fail = lambda _: None
    tables.publish()
    assert tables.state() == table(tables)


class DiedError(Exception):
    """The process ends."""


def test_a_crash_in_the_snapshot_leaves_no_slot(tables: ChangingTables) -> None:
    calls = 0

    def die(what: str) -> None:
        nonlocal calls
        calls += what == "after append"
        if calls == 2:
            raise DiedError

    tables.limits = replace(tables.limits, batch_rows=10)
    tables.twin.fail = die
    with pytest.raises(DiedError):
        tables.publish()
    assert query(tables.url, "SELECT count(*) FROM pg_replication_slots") == [(0,)]
    tables.twin.fail = lambda _: None
    miss_something(tables)
    tables.publish()
    assert tables.state() == table(tables)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_in_the_hand_over_is_gone_on_from(
    tables: ChangingTables, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Before the permanent slot is made, or after it is made and before that is noted."""
    from connectors.sources.postgres import change_source

    copy = change_source.copy_slot

    def dying_copy(*arguments: object) -> None:
        if after:
            copy(*arguments)  # type: ignore[arg-type]
        raise DiedError

    monkeypatch.setattr(change_source, "copy_slot", dying_copy)
    with pytest.raises(DiedError):
        tables.publish()
    monkeypatch.undo()
    assert slots(tables.url) == ([SLOT] if after else [])
    miss_something(tables)
    tables.publish()
    assert tables.state() == table(tables)
    assert slots(tables.url) == [SLOT]


class Writers:
    """Short and long transactions, one after the other, until told to stop.

    Each is followed by a pause, so that a slow machine also reads changes faster than they come.
    """

    def __init__(self, url: sa.URL, count: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(url, number)) for number in range(count)]
        for each in self._threads:
            each.start()

    def _write(self, url: sa.URL, number: int) -> None:
        connection = open_sql(url)
        connection.autocommit = False
        at = 0
        while not self._stop.is_set():
            at += 1
            key = (number + 1) * 1_000_000 + at
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO item VALUES (%s, 'w', %s)", (key, at))
                time.sleep(0.002 * number)
                cursor.execute("UPDATE item SET amount = amount + 1 WHERE id = %s", (key - 1,))
                cursor.execute("DELETE FROM item WHERE id = %s", (key - 3,))
            connection.rollback() if at % 7 == 0 else connection.commit()
            time.sleep(0.02)
        connection.close()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(PATIENCE)


@pytest.mark.parametrize("naive", [False, True])
def test_no_change_falls_between_snapshot_and_log(tables: ChangingTables, naive: bool) -> None:
    """The naive hand-over makes its slot when the snapshot is published; what was committed meanwhile is in neither."""
    if naive:
        tables.wrap = make_naive
    writers = Writers(tables.url, 4)
    try:
        tables.publish()
        tables.publish()
    finally:
        writers.stop()
    tables.publish()
    assert (tables.state() == table(tables)) is not naive


def make_naive(source: ChangeSource) -> ChangeSource:
    assert isinstance(source, PostgresChangeSource)
    source.__class__ = NaiveHandOver
    return source


class NaiveHandOver(PostgresChangeSource):
    """Makes the slot after the snapshot, as it is often done."""

    @override
    def _keep_log(self, temporary: str, start: int, tables: object) -> None:
        time.sleep(0.3)
        if self._notes.meta("change_state") == "kept":
            return
        ((lsn,),) = query(self._url, f"SELECT lsn::text FROM pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
        high, _, low = lsn.partition("/")
        self._note("kept", int(high, 16) << 32 | int(low, 16))
        self._note_tables(["public.item"])
        self._confirmed = self._given = self._noted("change_confirmed")


def test_it_follows_until_it_is_stopped_and_survives_a_restart_of_the_server(tables: ChangingTables) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            tables.publish(once=False)
        except PoolError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: len(tables.state()) == 50)
    execute(tables.url, "INSERT INTO item VALUES (200, 'live', 1)")
    wait_for(lambda: "200" in tables.state())
    wait_for(lambda: bool(query(tables.url, "SELECT 1 FROM pg_replication_slots WHERE active")))
    execute(tables.url, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    execute(tables.url, "INSERT INTO item VALUES (201, 'live', 1)")
    wait_for(lambda: "201" in tables.state())
    tables.stop.set()
    thread.join(PATIENCE)
    assert not errors
    assert not thread.is_alive()
    tables.stop.clear()
    assert only(tables.publish()).read == 0, "what was acknowledged is not read again"


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _parameters(url: sa.URL) -> dict[str, object]:
    return {"host": url.query["host"], "user": url.username, "password": url.password, "dbname": url.database}


# -- the program -----------------------------------------------------------------------------------------------------

CONFIG = """\
version: 1
connector: changes
exchange: {{ identity: identity/ }}
source:
  kind: sql
  url: "{url}"
  password: "${{env:SOURCE_PASSWORD}}"
  cdc: {{ slot: pool_test, publication: pool }}
publish:
  - resource: item.v1
    table: item
    mode: cdc
"""


class PoolOfCommands:
    """The pool's client of a command, in this process."""

    def __init__(self, tables: ChangingTables) -> None:
        self._client = tables.twin.client("d-1", "changes", tables.key)
        self.sign = tables.key.sign

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def refresh(self) -> None:
        pass


def test_what_check_prints_makes_the_database_ready_and_teardown_leaves_no_slot(
    tmp_path: Path, logical_server: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.fresh_database(logical_server) as url:
        execute(url, TABLE, "INSERT INTO item VALUES (1, 'a', 1)")
        execute(url, "CREATE ROLE poor LOGIN PASSWORD 'poor'", "ALTER SYSTEM SET max_slot_wal_keep_size = -1")
        execute(url, "SELECT pg_reload_conf()")
        try:
            _check_setup_run_and_teardown(ChangingTables(tmp_path, url), monkeypatch)
        finally:
            execute(url, "ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'", "SELECT pg_reload_conf()")
            execute(url, "DROP OWNED BY poor", "DROP ROLE poor")


def _check_setup_run_and_teardown(tables: ChangingTables, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tables.folder / "c.yaml"
    poor = sa.URL.create("postgresql", username="poor", database=tables.url.database, query=tables.url.query)
    file.write_text(CONFIG.format(url=poor.render_as_string()))
    monkeypatch.setenv("SOURCE_PASSWORD", "poor")
    monkeypatch.setattr(cli, "_connect", lambda *_: PoolOfCommands(tables))
    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)
    runner = CliRunner()
    checked = runner.invoke(cli.app, ["check", str(file)])
    assert checked.exit_code == ExitCode.AWAY
    for word in (
        "REPLICATION",
        "max_slot_wal_keep_size",
        "CREATE PUBLICATION",
        "REPLICA IDENTITY FULL",
        "GRANT SELECT",
    ):
        assert word in checked.output
    printed = runner.invoke(cli.app, ["setup", str(file), "--print-sql"]).output.splitlines()
    assert all(line.endswith(";") for line in printed), printed
    execute(tables.url, *printed)
    checked = runner.invoke(cli.app, ["check", str(file)])
    assert (checked.exit_code, "0 problems" in checked.output) == (0, True), checked.output
    ran = runner.invoke(cli.app, ["run", str(file), "--once"])
    assert ran.exit_code == 0, ran.output
    execute(tables.url, "UPDATE item SET name = 'b'", "INSERT INTO item VALUES (2, 'c', 2)")
    assert runner.invoke(cli.app, ["run", str(file), "--once"]).exit_code == 0
    assert tables.state() == table(tables)
    assert slots(tables.url) == [SLOT]
    execute(tables.url, "TRUNCATE item")
    assert runner.invoke(cli.app, ["run", str(file), "--once"]).exit_code == ExitCode.PERSON
    assert "TRUNCATE" in runner.invoke(cli.app, ["status", str(file)]).output
    again = ["run", str(file), "--once", "--resnapshot", "item.v1", "--accept-deletes"]
    assert runner.invoke(cli.app, again).exit_code == 0
    assert tables.state() == {}
    assert "TRUNCATE" not in runner.invoke(cli.app, ["status", str(file)]).output
    assert runner.invoke(cli.app, ["teardown", str(file)]).exit_code == 0
    assert slots(tables.url) == []

"""Change sources: PostgreSQL's log, the grant of another pool and the one in memory keep the same promises."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from typing_extensions import override

from connectors.conformance import ChangeSourceSuite
from connectors.conformance.change_sources import TABLE, Change
from connectors.port import ChangeSource
from connectors.sources.memory import Change as MemoryChange
from connectors.sources.memory import MemoryChangeSource, MemoryDatabase
from connectors.sources.postgres.change_assembly import AssemblyLimits
from connectors.sources.postgres.change_source import LogSettings, PostgresChangeSource
from connectors.state.ledger import Ledger
from tests.kit.world import postgres
from tests.kit.world.changing_tables import SLOT, execute, slots
from tests.kit.world.other_pool import OtherPool

PART_ROWS = ChangeSourceSuite.part_rows


class TestLogInMemory(ChangeSourceSuite):
    @pytest.fixture(autouse=True)
    def place(self) -> None:
        self.database = MemoryDatabase({TABLE: ("id", "name")})
        self.notes: dict[str, int] = {}

    @override
    def make_source(self) -> ChangeSource:
        return MemoryChangeSource(self.database, "pool", self.notes, batch_rows=PART_ROWS)

    @override
    def commit(self, *changes: Change) -> None:
        made: list[MemoryChange] = []
        for kind, key, value in changes:
            if kind == "move":
                (moved,) = [row for row in self.database.rows(TABLE) if row["id"] == key]
                made += [("delete", TABLE, moved), ("put", TABLE, {**moved, "id": value})]
            else:
                operation: dict[str, Literal["put", "delete", "truncate"]] = {
                    "put": "put",
                    "delete": "delete",
                    "truncate": "truncate",
                }
                before = [row for row in self.database.rows(TABLE) if row["id"] == key]
                row = before[0] if kind == "delete" and before else {"id": key, "name": value}
                made.append((operation[kind], TABLE, row))
        self.database.commit(*made)

    @override
    def roll_back(self, *changes: Change) -> None:
        pass

    @override
    def lose_log(self) -> None:
        self.database.kept.clear()

    @override
    def make_unreachable(self) -> None:
        self.database.reachable = False


class TestGrantOfAnotherPool(ChangeSourceSuite):
    """A release is what a transaction is to a database. A pool has no TRUNCATE, and a grant always has a beginning."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.other = OtherPool(("id", "name"))
        self.journal = tmp_path / "journal.sqlite3"

    @override
    def make_source(self) -> ChangeSource:
        return self.other.source(self.journal, part_rows=PART_ROWS)

    @override
    def commit(self, *changes: Change) -> None:
        made: list[tuple[str, dict[str, str | None]]] = []
        for kind, key, value in changes:
            if kind == "move":
                name = self.other.twin.state("item.v1")[key.encode()]["name"]
                made += [("delete", {"id": key}), ("put", {"id": value, "name": name})]
            else:
                made.append((kind, {"id": key, "name": value}))
        self.other.commit(*made)

    @override
    def roll_back(self, *changes: Change) -> None:
        pass

    @override
    def lose_log(self) -> None:
        self.journal.unlink()

    @override
    def make_unreachable(self) -> None:
        self.other.make_unreachable()

    @override
    def test_an_emptied_table_is_named_and_nothing_of_it_follows(self) -> None:
        """Nothing empties a resource at once: each key is withdrawn."""

    @override
    def test_a_log_that_is_gone_is_a_conflict_until_it_is_begun_again(self) -> None:
        """It is none: the grant is drawn from its beginning, and what is gone from it is deleted."""
        self.commit(("put", "1", "a"))
        self._begin()
        self.lose_log()
        with self._prepared() as (source, kept):
            assert kept == frozenset()
            with source.snapshot([TABLE]) as snapshot:
                chunks = list(snapshot.portions[TABLE].chunks())
        assert [chunk.columns["id"].to_pylist() for chunk in chunks] == [["1"]]


@pytest.fixture(scope="module")
def logical_server() -> Iterator[sa.URL]:
    with postgres.logical_cluster() as url:
        yield url


@pytest.mark.postgres
class TestLogOfPostgres(ChangeSourceSuite):
    @pytest.fixture(autouse=True)
    def place(self, logical_server: sa.URL, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        with postgres.fresh_database(logical_server) as url:
            self.url = self.connected = url
            execute(
                self.url,
                "CREATE TABLE item (id text PRIMARY KEY, name text)",
                "ALTER TABLE item REPLICA IDENTITY FULL",
                "CREATE PUBLICATION pool FOR TABLE item",
            )
            try:
                yield
            finally:
                self.lose_log()

    @override
    def make_source(self) -> ChangeSource:
        ledger = Ledger(self.folder / "notes.sqlite3", clock=lambda: datetime.now(UTC))
        limits = AssemblyLimits(batch_rows=1_000, transaction_rows=PART_ROWS)
        settings = LogSettings(slot=SLOT, publication="pool", limits=limits)

        class Source(PostgresChangeSource):
            @override
            def close(self) -> None:
                super().close()
                ledger.close()

        return Source(self.connected, settings, ledger, lambda _: None)

    @override
    def commit(self, *changes: Change) -> None:
        self._run(changes, "COMMIT")

    @override
    def roll_back(self, *changes: Change) -> None:
        self._run(changes, "ROLLBACK")

    def _run(self, changes: tuple[Change, ...], end: str) -> None:
        statements = []
        for kind, key, value in changes:
            text = "NULL" if value is None else f"'{value}'"
            statements.append(
                {
                    "put": f"INSERT INTO item VALUES ('{key}', {text}) ON CONFLICT (id) DO UPDATE SET name = {text}",
                    "delete": f"DELETE FROM item WHERE id = '{key}'",
                    "move": f"UPDATE item SET id = {text} WHERE id = '{key}'",
                    "truncate": "TRUNCATE item",
                }[kind]
            )
        execute(self.url, f"BEGIN; {'; '.join(statements)}; {end}")

    @override
    def lose_log(self) -> None:
        for name in slots(self.url):
            execute(self.url, f"SELECT pg_drop_replication_slot('{name}')")

    @override
    def make_unreachable(self) -> None:
        self.connected = self.url.set(database="nowhere")

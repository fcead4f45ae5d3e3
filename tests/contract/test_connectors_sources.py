import csv
import gzip
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
import sqlalchemy as sa
from typing_extensions import override

from connectors.conformance import COLUMNS, Row, SnapshotSourceSuite
from connectors.port import ChangeRequest, Replaces, SnapshotSource
from connectors.publishing.change_snapshot import SnapshotTableSource
from connectors.sources.drop_folder import AfterSuccess, DropFolder, ReadyWhen
from connectors.sources.file_portion import FileFormat
from connectors.sources.http.http_client import HttpSourceClient
from connectors.sources.http.http_source import HttpRequest, HttpSource, Paging
from connectors.sources.memory import MemoryDatabase, MemorySnapshotSource
from connectors.sources.sql_table import SqlSource
from connectors.state.ledger import Ledger
from tests.kit.cases.workbooks import write_workbook
from tests.kit.twins.http_server import Answer, Call, http_server
from tests.kit.world.other_pool import OtherPool


def _write_cells(file: IO[str], rows: Sequence[Row], delimiter: str = ",") -> None:
    writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)


class _DropFolder(SnapshotSourceSuite):
    distinguishes_null = False
    encoding = "utf-8"

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path / "drop"
        self.folder.mkdir()
        self.ledger = Ledger(tmp_path / "state" / "l.sqlite3", clock=lambda: datetime.now(UTC))
        yield
        self.ledger.close()

    def write(self, rows: Sequence[Row]) -> None:
        with (self.folder / "rows.csv").open("w", encoding=self.encoding, newline="") as file:
            _write_cells(file, rows)

    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        self.write(rows)
        return DropFolder(
            self.folder,
            ["rows.*"],
            file_format=FileFormat(),
            replaces=Replaces.EVERYTHING,
            ready_when=ReadyWhen(unchanged=0),
            after_success=AfterSuccess(),
            history=self.ledger,
            quarantine=lambda name, reject: pytest.fail(f"{name}: {reject.message}"),
            clock=lambda: datetime.now(UTC),
        )

    def make_unreachable(self, source: SnapshotSource) -> None:
        shutil.rmtree(self.folder)


class TestCsvInUtf8(_DropFolder):
    pass


class TestCsvWithByteOrderMark(_DropFolder):
    encoding = "utf-8-sig"


class TestCsvInGb18030(_DropFolder):
    encoding = "gb18030"


class TestCsvInUtf16(_DropFolder):
    encoding = "utf-16"


class TestTsv(_DropFolder):
    @override
    def write(self, rows: Sequence[Row]) -> None:
        with (self.folder / "rows.tsv").open("w", encoding="utf-8", newline="") as file:
            _write_cells(file, rows, "\t")


class TestCompressedCsv(_DropFolder):
    @override
    def write(self, rows: Sequence[Row]) -> None:
        with gzip.open(self.folder / "rows.csv.gz", "wt", encoding="gb18030", newline="") as file:
            _write_cells(file, rows)


class TestCompressedTsv(_DropFolder):
    @override
    def write(self, rows: Sequence[Row]) -> None:
        with gzip.open(self.folder / "rows.tsv.gz", "wt", encoding="utf-8", newline="") as file:
            _write_cells(file, rows, "\t")


class TestJsonLines(_DropFolder):
    distinguishes_null = True

    @override
    def write(self, rows: Sequence[Row]) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.folder / "rows.jsonl").write_text(lines, encoding="utf-8")


class TestCompressedJsonLines(_DropFolder):
    distinguishes_null = True

    @override
    def write(self, rows: Sequence[Row]) -> None:
        with gzip.open(self.folder / "rows.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


class TestWorkbook(_DropFolder):
    @override
    def write(self, rows: Sequence[Row]) -> None:
        write_workbook(self.folder / "rows.xlsx", [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])


class TestHttp(SnapshotSourceSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path / "state"
        self.folder.mkdir()
        self.ledger = Ledger(self.folder / "l.sqlite3", clock=lambda: datetime.now(UTC))
        self.made: list[HttpSource] = []
        with http_server(self.page) as self.server:
            yield
        for source in self.made:
            source.close()
        self.ledger.close()

    def page(self, call: Call) -> Answer:
        first = int(call.query["page"]) * 5_000
        return Answer(body=json.dumps(self.rows[first : first + 5_000]).encode())

    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        self.rows = rows
        paging = Paging(kind="page", parameter="page", first=0)
        request = HttpRequest(path="/rows", paging=paging, fields={name: f"$.{name}" for name in COLUMNS})
        client = HttpSourceClient(self.server.url, "token", backoff=0.001)
        spool = self.folder / "spool"
        self.made.append(HttpSource(client, request, self.ledger, spool, Replaces.EVERYTHING))
        return self.made[-1]

    def make_unreachable(self, source: SnapshotSource) -> None:
        """Take the pages of the pass away; a server that is away ends the pass before it has a portion."""
        self.server.close()
        shutil.rmtree(self.folder)


def _table(url: sa.URL, rows: Sequence[Row]) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS people")
        connection.exec_driver_sql(
            "CREATE TABLE people (id INTEGER PRIMARY KEY NOT NULL, name VARCHAR(100), amount VARCHAR(20), note TEXT)"
        )
        if rows:
            connection.execute(
                sa.text("INSERT INTO people VALUES (:id, :name, :amount, :note)"),
                [{**row, "id": int(row["id"] or 0)} for row in rows],
            )
    engine.dispose()


class TestTableInSqlite(SnapshotSourceSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.file = tmp_path / "register.db"
        self.made: list[SqlSource] = []
        yield
        for source in self.made:
            source.close()

    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        url = sa.make_url(f"sqlite:///{self.file}")
        _table(url, rows)
        self.made.append(SqlSource(url, "people"))
        return self.made[-1]

    def make_unreachable(self, source: SnapshotSource) -> None:
        source.close()
        self.file.unlink()
        self.file.mkdir()


@pytest.mark.postgres
class TestTableInPostgres(SnapshotSourceSuite):
    @pytest.fixture(autouse=True)
    def place(self, database: sa.URL) -> Iterator[None]:
        self.url = database
        self.made: list[SqlSource] = []
        yield
        for source in self.made:
            source.close()

    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        _table(self.url, rows)
        self.made.append(SqlSource(self.url, "people"))
        return self.made[-1]

    def make_unreachable(self, source: SnapshotSource) -> None:
        engine = sa.create_engine(self.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{self.url.database}" WITH (FORCE)')
            connection.exec_driver_sql(f'CREATE DATABASE "{self.url.database}" ALLOW_CONNECTIONS false')
        engine.dispose()


class TestTableInMemory(SnapshotSourceSuite):
    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        self.database = MemoryDatabase({"people": COLUMNS})
        self.database.commit(*(("put", "people", row) for row in rows))
        return MemorySnapshotSource(self.database, "people")

    def make_unreachable(self, source: SnapshotSource) -> None:
        self.database.reachable = False


class TestStateUnderAGrantOfAnotherPool(SnapshotSourceSuite):
    """The state is drawn to this machine before it is stated: then nothing of it can be out of reach."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.journal = tmp_path / "journal.sqlite3"
        with ExitStack() as self.opened:
            yield

    @override
    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        other = OtherPool(COLUMNS)
        self.journal.unlink(missing_ok=True)
        for start in range(0, len(rows), 5_000):
            other.commit(*(("put", row) for row in rows[start : start + 5_000]))
        source = self.opened.enter_context(closing(other.source(self.journal)))
        source.prepare(
            [ChangeRequest(table="g", after=None, key=("id",), columns=frozenset(COLUMNS))], adopt=False, fresh=False
        )
        snapshot = self.opened.enter_context(source.snapshot(["g"]))
        return SnapshotTableSource(snapshot.portions["g"])

    @override
    def test_raises_unavailable_when_it_cannot_be_reached(self) -> None:
        pass

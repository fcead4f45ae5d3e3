import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from connectors.conformance import SCHEMA, SinkSuite, expect_no_rejects, make_release
from connectors.port import Sink
from connectors.sinks import sql_copy
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from connectors.sinks.sql_copy import CopyWriter
from connectors.sinks.sql_rows import RowWriter
from connectors.sinks.webhook import WebhookSink, WebhookTarget
from tests.kit.twins.http_server import Answer, Call, http_server


class _SqlTarget(SinkSuite):
    hard = False
    native = True
    url: sa.URL
    made: list[Sink]

    def make_sink(self) -> Sink:
        sink = SqlSink(self.url, "people", "g-1", create_table=True, hard_deletes=self.hard, native_upsert=self.native)
        self.made.append(sink)
        return sink

    def stored(self) -> Mapping[str, Mapping[str, Any] | None]:
        engine = sa.create_engine(self.url)
        table = sa.Table("people", sa.MetaData(), autoload_with=engine)
        with engine.connect() as connection:
            rows = connection.execute(sa.select(table)).mappings().all()
        engine.dispose()
        if self.hard:
            assert all(row["_deleted_at"] is None for row in rows)
        return {row["_record_key"]: None if row["_deleted_at"] is not None else dict(row) for row in rows}

    def make_rejecting_sink(self) -> Sink:
        sink = self.prepared_sink()
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE UNIQUE INDEX one_name ON people (name)")
        engine.dispose()
        return sink

    def test_what_breaks_off_after_the_position_stores_neither(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)

        def broken(*_: object) -> int:
            raise MemoryError

        monkeypatch.setattr(RowWriter, "withdraw", broken)
        monkeypatch.setattr(CopyWriter, "withdraw", broken)
        for before in (b"p1", b""):
            fresh = SqlSink(self.url, "people", "g-1" if before else "g-2", native_upsert=self.native)
            self.made.append(fresh)
            fresh.prepare(SCHEMA)
            with pytest.raises(MemoryError):
                fresh.write(make_release({2: "b"}, at=20), before, b"p2", expect_no_rejects)
            assert fresh.position() == before
        assert [key for key, fields in self.stored().items() if fields] == [(1).to_bytes(16, "big").hex()]


class TestSqlite(_SqlTarget):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.file = tmp_path / "target.db"
        self.url = sa.make_url(f"sqlite:///{self.file}")
        self.made = []
        yield
        for sink in self.made:
            sink.close()

    # SQLite has no exact decimals; SQLAlchemy says so in a warning.
    test_keeps_values_of_every_type = pytest.mark.filterwarnings("ignore:Dialect sqlite")(
        SinkSuite.test_keeps_values_of_every_type
    )

    def stored(self) -> Mapping[str, Mapping[str, Any] | None]:
        """Return decimals as such: SQLite, which has none, keeps them as text."""
        return {
            key: row and {name: Decimal(each) if name == "amount" and each else each for name, each in row.items()}
            for key, row in super().stored().items()
        }

    def make_unreachable(self, sink: Sink) -> None:
        sink.close()
        self.file.unlink()
        self.file.mkdir()


class TestSqliteWithHardDeletes(TestSqlite):
    hard = True


class TestAnyOtherDatabase(TestSqlite):
    native = False


@pytest.mark.postgres
class TestPostgres(_SqlTarget):
    @pytest.fixture(autouse=True)
    def place(self, database: sa.URL) -> Iterator[None]:
        self.url = database
        self.made = []
        yield
        for sink in self.made:
            sink.close()

    def make_unreachable(self, sink: Sink) -> None:
        engine = sa.create_engine(self.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{self.url.database}" WITH (FORCE)')
            connection.exec_driver_sql(f'CREATE DATABASE "{self.url.database}" ALLOW_CONNECTIONS false')
        engine.dispose()


@pytest.mark.postgres
class TestPostgresWithHardDeletes(TestPostgres):
    hard = True


@pytest.mark.postgres
class TestPostgresByColumns(TestPostgres):
    """As for releases of many records, which this suite has none of."""

    @pytest.fixture(autouse=True)
    def columns_for_few_records(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sql_copy, "MIN_RECORDS", 0)
        monkeypatch.setattr(sql_copy, "_FEW_ROWS", 1)


@pytest.mark.postgres
class TestPostgresByColumnsWithHardDeletes(TestPostgresByColumns):
    hard = True


class _Folder(SinkSuite):
    keeps_latest = False
    typed = False
    file_format = "jsonl"
    encoding = "utf-8"

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "out"

    def make_sink(self) -> Sink:
        return FileSink(self.folder, "g-1", file_format=self.file_format, encoding=self.encoding)

    def lines(self, part: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in part.read_text().splitlines()]

    def stored(self) -> Mapping[str, Mapping[str, Any] | None]:
        state: dict[str, Mapping[str, Any] | None] = {}
        for manifest in sorted(self.folder.glob("*.manifest.json")):
            stated = json.loads(manifest.read_text())
            lines = self.lines(self.folder / stated["file"])
            assert len(lines) == stated["rows"]
            for line in lines:
                state[line["_record_key"]] = None if line["_operation"] == "withdrawn" else line
        return state

    def make_unreachable(self, sink: Sink) -> None:
        shutil.rmtree(self.folder)
        with suppress(FileExistsError):
            self.folder.write_text("a file where the folder was")


class TestJsonLines(_Folder):
    pass


class TestParquet(_Folder):
    typed = True
    file_format = "parquet"

    def lines(self, part: Path) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = pq.read_table(part).to_pylist()
        return lines


class TestCsv(_Folder):
    file_format = "csv"

    def lines(self, part: Path) -> list[dict[str, Any]]:
        with part.open(encoding=self.encoding, newline="") as file:
            return list(csv.DictReader(file))


class TestCsvForSpreadsheets(TestCsv):
    encoding = "utf-8-sig"


class TestCsvInGb18030(TestCsv):
    encoding = "gb18030"


class TestWebhook(SinkSuite):
    """What it cannot do with others, take back what was delivered before a refusal, is in its own tests."""

    keeps_latest = False
    typed = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path / "positions"
        self.records: dict[str, dict[str, Any]] = {}
        self.made: list[WebhookSink] = []
        with http_server(self.take) as self.server:
            yield
        for sink in self.made:
            sink.close()

    def take(self, call: Call) -> Answer:
        self.records |= {one["id"]: one for one in json.loads(call.body)["records"]}
        return Answer(204)

    def make_sink(self) -> Sink:
        target = WebhookTarget(url=self.server.url, secret="a-secret-of-more-than-24-bytes")
        self.made.append(WebhookSink(target, "g-1", self.folder, backoff=0.001))
        return self.made[-1]

    def stored(self) -> Mapping[str, Mapping[str, Any] | None]:
        return {one["record_key"]: one.get("value") for one in self.records.values()}

    def make_unreachable(self, sink: Sink) -> None:
        self.server.close()

"""`pool-connect check` on a database that nobody has prepared: what it prints makes it pass."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import cli
from connectors.runtime.exit_codes import ExitCode
from exchange.server.embedded_postgres import EmbeddedPostgres
from tests.kit.twins.pool_twin import CASE, PURPOSE
from tests.kit.world.changing_tables import ChangingTables, execute
from tests.kit.world.department import TOPIC, Department

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
  - resource: visit.v1
    table: office.visit
    columns:
      at: {{ as: at }}
  - resource: org.v1
    table: public.org
    mode: incremental
    cursor: updated_at
"""
VISIT = {
    "type": "record",
    "name": "Visit",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
    ],
}
ORG = {
    "type": "record",
    "name": "Org",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "updated_at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
    ],
}
SUBSCRIBES = """\
version: 1
connector: sink
exchange: { identity: identity/ }
subscribe:
  - grant: g-1
    purpose: research
    case: WRONG-1
    into: { kind: sql, url: "sqlite:///target.db", table: household, create_table: true }
"""


class Client:
    """The pool's client of a command, in this process."""

    def __init__(self, tables: ChangingTables) -> None:
        self._client = tables.twin.client("d-1", "changes", tables.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="pool-unprepared-"))
    folder.chmod(0o755)
    embedded = EmbeddedPostgres(folder)
    try:
        yield embedded
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.postgres
def test_what_check_prints_makes_an_unprepared_database_pass(
    tmp_path: Path, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.start()
    execute(
        url,
        "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount bigint)",
        "CREATE SCHEMA office",
        "CREATE TABLE office.visit (id bigint PRIMARY KEY, at timestamp)",
        "INSERT INTO office.visit VALUES (1, '2026-03-01 08:30')",
        "CREATE TABLE org (id bigint PRIMARY KEY, updated_at timestamptz)",
        "INSERT INTO org SELECT n, CASE WHEN n > 3 THEN now() END FROM generate_series(1, 9) n",
        "CREATE ROLE reader LOGIN PASSWORD 'reader'",
        "GRANT SELECT ON org TO reader",
    )
    topics = {"public.item": "item.v1", "office.visit": "visit.v1", "public.org": "org.v1"}
    tables = ChangingTables(tmp_path, url, topics, {"visit.v1": VISIT, "org.v1": ORG})
    file = tmp_path / "c.yaml"
    reader = sa.URL.create("postgresql", username="reader", database=url.database, query=url.query)
    file.write_text(CONFIG.format(url=reader.render_as_string()))
    monkeypatch.setenv("SOURCE_PASSWORD", "reader")
    monkeypatch.setattr(cli, "_connect", lambda *_: Client(tables))
    runner = CliRunner()

    checked = runner.invoke(cli.app, ["check", str(file)])
    assert checked.exit_code == ExitCode.AWAY
    shown = checked.output.splitlines()
    for statement in (
        "ALTER SYSTEM SET wal_level = 'logical';",
        "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';",
        'ALTER ROLE "reader" REPLICATION;',
        'CREATE PUBLICATION "pool";',
        'ALTER TABLE "public"."item" REPLICA IDENTITY FULL;',
        'GRANT SELECT ON "public"."item" TO "reader";',
        'GRANT USAGE ON SCHEMA "office" TO "reader";',
        'GRANT SELECT ON "office"."visit" TO "reader";',
        'GRANT pg_read_all_stats TO "reader";',
        'UPDATE "public"."org" SET "updated_at" = CURRENT_TIMESTAMP WHERE "updated_at" IS NULL;',
        'CREATE INDEX CONCURRENTLY ON "public"."org" ("updated_at", "id");',
    ):
        assert f"         {statement}" in shown, statement
    (zone,) = (line.strip() for line in shown if "timezone: Asia/Shanghai" in line)

    statements = runner.invoke(cli.app, ["check", str(file), "--sql"]).output.splitlines()
    assert all(line.endswith(";") for line in statements), statements
    execute(url, *statements)
    server.stop()
    server.start()
    file.write_text(file.read_text().replace("at: { as: at }", zone))
    checked = runner.invoke(cli.app, ["check", str(file)])
    assert (checked.exit_code, "0 problems" in checked.output) == (0, True), checked.output
    assert [line.split()[1] for line in checked.output.splitlines() if "WARN" in line] == ["clock"], "the twin's"
    assert runner.invoke(cli.app, ["check", str(file), "--sql"]).output == ""


def test_another_purpose_another_case_and_an_end_that_is_near_are_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    department = Department(tmp_path)
    department.twin.grant("g-1", TOPIC, ("id", "note"), lambda _: True)
    client = department.twin.client("d-2", "sink", department.key)
    monkeypatch.setattr(cli, "_connect", lambda *_: nullcontext(client))
    monkeypatch.setattr(cli, "_now", lambda: datetime.fromtimestamp(department.twin.now() / 1e6, UTC))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "c.yaml"
    runner = CliRunner()
    text = SUBSCRIBES
    for wrong, right in (("purpose: research", f"purpose: {PURPOSE}"), ("case: WRONG-1", f"case: {CASE}")):
        file.write_text(text)
        checked = runner.invoke(cli.app, ["check", str(file)])
        lines = [line.strip() for line in checked.output.splitlines()]
        assert checked.exit_code == ExitCode.AWAY
        assert lines[lines.index("pool grant show g-1") + 1].startswith(wrong.split(":")[0] + ": ")
        text = text.replace(wrong, right)
    file.write_text(text)
    checked = runner.invoke(cli.app, ["check", str(file)])
    assert checked.exit_code == 0, checked.output
    assert "WARN  g-1" in checked.output, "the grant of the twin ends within a day"
    assert "pool request submit" in checked.output

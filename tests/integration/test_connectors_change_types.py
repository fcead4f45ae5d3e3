"""Every type of PostgreSQL is the same record by snapshot, log, pass and poll by a cursor, or set aside."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.sources.incremental import CursorSettings, IncrementalSource
from connectors.sources.postgres import change_assembly
from connectors.sources.sql_table import SqlSource
from tests.kit.world import postgres
from tests.kit.world.changing_tables import ChangingTables, execute, slots
from tests.kit.world.cursor_table import every_day
from tests.kit.world.department import Department, now

pytestmark = pytest.mark.postgres

VALUES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["1e-37", "3.4e38", "NaN", "-Infinity", "0.1"],
    "double precision": ["1e-307", "1.7976931348623157e308", "NaN", "Infinity", "0.1"],
    "numeric": ["0", "1.50", "-12345678901234567890.123456789", "NaN", "Infinity"],
    "numeric(10,2)": ["1.5", "-99999999.99", "NaN"],
    "money": ["1.50", "-92233720368547758.08"],
    "text": ["", "王小明", "𠮷野家 🀄", "two\nlines", "\\N", "\\x41", "tab\t", " blanks ", "t"],
    "varchar(9)": ["", "𠮷", "x  "],
    "char(6)": ["ab", "", "𠮷", " x"],
    "bytea": ["\\x", "\\x00ff80"],
    "date": ["2026-01-31", "0044-03-15 BC", "infinity", "-infinity", "5874897-12-31", "1900-02-28"],
    "time": ["00:00", "24:00:00", "23:59:59.999999"],
    "timetz": ["00:00+08", "23:59:59.999999-15:59"],
    "timestamp": ["2026-01-31 09:30:00.123456", "infinity", "0044-03-15 00:00:00 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": [
        "2026-01-31 09:30:00.123456+08",
        "-infinity",
        "1927-01-01 00:00:00+08:05:43",
        "0001-01-01 00:00 BC",
    ],
    "interval": ["1 year 2 mons 3 days 04:05:06.7", "-1 day"],
    "uuid": ["0198c1de-0000-7000-8000-000000000001"],
    "json": ['{"b": 1,  "a": [null, "𠮷"]}'],
    "jsonb": ['{"b": 1,  "a": [null, "𠮷"]}'],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "varbit": ["", "1011"],
    "int[]": ["{}", "{1,NULL,3}"],
    "text[]": ['{"",NULL,"a\\"b"}'],
    "point": ["(1.5,-2)"],
    "int4range": ["[1,5)", "empty"],
    "tsvector": ["'a':1 'b':2"],
    "pg_lsn": ["0/16B3748"],
    "flag": ["true", "false"],
    "code": ["ab", ""],
    "mood": ["好", "bad"],
}
TYPES = """
CREATE DOMAIN flag AS boolean; CREATE DOMAIN code AS char(4); CREATE TYPE mood AS ENUM ('好', 'bad')
"""
RECORD: dict[str, Any] = {
    "type": "record",
    "name": "Matrix",
    "key": ["id"],
    "fields": [{"name": "id", "type": "long"}]
    + [{"name": f"c{at}", "type": ["null", "string"], "default": None} for at in range(len(VALUES))],
}
TYPED = {
    "boolean": "boolean",
    "smallint": "int",
    "integer": "int",
    "bigint": "long",
    "real": "float",
    "double precision": "double",
    "numeric(10,2)": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
    "bytea": "bytes",
    "date": {"type": "int", "logicalType": "date"},
    "timestamp": {"type": "long", "logicalType": "local-timestamp-micros"},
    "timestamptz": {"type": "long", "logicalType": "timestamp-micros"},
    "uuid": {"type": "string", "logicalType": "uuid"},
    "flag": "boolean",
}


def schema(*, typed: bool) -> dict[str, Any]:
    fields = [
        {"name": f"c{at}", "type": ["null", TYPED.get(name, "string") if typed else "string"], "default": None}
        for at, name in enumerate(VALUES)
    ]
    return {**RECORD, "fields": [RECORD["fields"][0], *fields]}


def make(url: sa.URL) -> list[str]:
    """Create the table; return the statements that fill it, one value of one type a row, and one row of nulls."""
    columns = ", ".join(f"c{at} {name}" for at, name in enumerate(VALUES))
    execute(url, *TYPES.strip().split("; "), f"CREATE TABLE matrix (id bigint PRIMARY KEY, {columns})")
    execute(url, "ALTER TABLE matrix REPLICA IDENTITY FULL", "CREATE PUBLICATION pool FOR TABLE matrix")
    rows = [(at, value) for at, name in enumerate(VALUES) for value in VALUES[name]]
    quoted = [(number, at, value.replace("'", "''").replace("%", "%%")) for number, (at, value) in enumerate(rows, 1)]
    return ["INSERT INTO matrix (id) VALUES (0)"] + [
        f"INSERT INTO matrix (id, c{at}) VALUES ({number}, '{value}')" for number, at, value in quoted
    ]


def by_log(url: sa.URL, folder: Path, statements: list[str], *, before: bool, typed: bool) -> tuple[Any, Any]:
    """Publish by the log, or by its snapshot where the rows are there before; return records, and codes by id."""
    tables = ChangingTables(
        folder, url, tables={"public.matrix": "matrix.v1"}, schemas={"matrix.v1": schema(typed=typed)}
    )
    tables.limits = replace(tables.limits, quarantine_share=1.0)
    if not before:
        tables.publish()
    execute(url, *statements)
    tables.publish()
    for name in slots(url):
        execute(url, f"SELECT pg_drop_replication_slot('{name}')")
    return tables.state("matrix.v1"), {
        json.loads(each.original)["id"]: (each.code, each.field) for each in tables.quarantined("matrix.v1")
    }


def by_pass(url: sa.URL, folder: Path, *, typed: bool) -> tuple[Any, Any]:
    """Publish the table by a pass over it."""
    department = passing(folder, typed=typed)
    source = SqlSource(url, "matrix")
    department.publish(lambda _: source)
    source.close()
    return stated(department)


def by_cursor(url: sa.URL, folder: Path, statements: list[str], *, typed: bool) -> tuple[Any, Any]:
    """Publish by a poll, the rows having come after the table was read whole."""
    department = passing(folder, typed=typed)

    def poll() -> None:
        with closing(SqlSource(url, "matrix")) as table:
            settings = CursorSettings(column="id", whole=every_day, overlap=1)
            department.publish(lambda ledger: IncrementalSource(table, settings, ledger, clock=now))

    execute(url, "INSERT INTO matrix (id) VALUES (-1)")
    poll()
    execute(url, "DELETE FROM matrix", *statements)
    poll()
    records, rejected = stated(department)
    assert records.pop("-1"), "a poll does not see what was deleted; a pass over the table does"
    return records, rejected


def passing(folder: Path, *, typed: bool) -> Department:
    """Return a department that sets aside as many rows as there are."""
    folder.mkdir()
    department = Department(folder, topic="matrix.v1", schema=schema(typed=typed))
    department.limits = replace(department.limits, quarantine_share=1.0)
    return department


def stated(department: Department) -> tuple[Any, Any]:
    """Return what was published, and the codes of what was set aside by id."""
    return department.state(), {
        json.loads(each.original)["id"]: (each.code, each.field) for each in department.quarantined()
    }


def told(records: dict[str, Any]) -> dict[str, str]:
    """Return id → its column's type and value, by which NaN equals NaN."""
    names = list(VALUES)
    return {
        key: ", ".join(
            f"{names[int(at[1:])]} {value!r}" for at, value in record.items() if at != "id" and value is not None
        )
        for key, record in records.items()
    }


@pytest.mark.parametrize("typed", [False, True])
def test_a_value_is_the_same_by_every_way(tmp_path: Path, logical_server: sa.URL, typed: bool) -> None:
    results = []
    for before in (False, True):
        with postgres.fresh_database(logical_server) as url:
            folder = tmp_path / f"log-{before}"
            folder.mkdir()
            results.append(by_log(url, folder, make(url), before=before, typed=typed))
            if before:
                results.append(by_pass(url, tmp_path / "pass", typed=typed))
    with postgres.fresh_database(logical_server) as url:
        results.append(by_cursor(url, tmp_path / "cursor", make(url), typed=typed))
    (stream, stream_bad), *others = results
    count = 1 + sum(map(len, VALUES.values()))
    assert len(stream) + len(stream_bad) == count
    assert typed or not stream_bad, "every value has a text"
    for way, bad in others:
        assert told(stream) == told(way)
        assert stream_bad == bad


def test_without_one_text_form_the_ways_differ(
    tmp_path: Path, logical_server: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what output functions write is not what casts write."""
    monkeypatch.setattr(change_assembly, "text_form", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_value_is_the_same_by_every_way(tmp_path, logical_server, False)

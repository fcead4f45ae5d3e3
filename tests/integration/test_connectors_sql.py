"""A department's table into the pool, and a grant's records into a table: the database's own corners."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors.conformance import SCHEMA, expect_no_rejects, make_release
from connectors.port import DecodedRelease, RejectCode, RejectedRecord
from connectors.sinks.sql import SqlSink
from connectors.sources import table_portion
from connectors.sources.sql_table import SqlSource
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError, UnavailableError
from tests.kit.world.department import Department, only

pytestmark = pytest.mark.postgres

WIDE = {
    "type": "record",
    "name": "Wide",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "small", "type": ["null", "int"]},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}]},
        {"name": "ratio", "type": ["null", "double"]},
        {"name": "good", "type": ["null", "boolean"]},
        {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "seen", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "local", "type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]},
        {"name": "code", "type": ["null", "string"]},
        {"name": "raw", "type": ["null", "bytes"]},
        {"name": "number", "type": ["null", {"type": "string", "logicalType": "uuid"}]},
    ],
}
TABLE = """
CREATE TABLE wide (id bigint PRIMARY KEY, small smallint, price numeric, ratio double precision, good boolean,
    born date, seen timestamptz, local timestamp, code char(4), raw bytea, number uuid)
"""


@pytest.fixture
def department(tmp_path: Path) -> Department:
    made = Department(tmp_path, topic="wide.v1", schema=WIDE)
    made.limits = replace(made.limits, quarantine_share=1.0)
    return made


def publish(department: Department, url: sa.URL, table: str = "wide", **how: Any) -> Any:
    made: list[SqlSource] = []

    def source(_: object) -> SqlSource:
        made.append(SqlSource(url, table, **how))
        return made[-1]

    try:
        return only(department.publish(source))
    finally:
        for each in made:
            each.close()


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_every_type_arrives_or_is_quarantined_by_name(
    department: Department, engine: sa.Engine, database: sa.URL
) -> None:
    """BC, infinity and NaN break a driver off in the middle of a page; here the other rows go on."""
    execute(
        engine,
        TABLE,
        "INSERT INTO wide VALUES (1, 32767, 1234567890.10, 0.1, true, '1949-10-01', '2026-01-31 09:30:00.123456+08', "
        "'2026-01-31 09:30:00', 'ab', '\\x00ff80', '0198c1de-0000-7000-8000-000000000001')",
        "INSERT INTO wide (id) VALUES (2)",
        "INSERT INTO wide (id, born) VALUES (3, 'infinity'), (4, '0044-03-15 BC'), (5, '12026-01-01')",
        "INSERT INTO wide (id, seen) VALUES (6, '-infinity'), (7, '0044-03-15 BC')",
        "INSERT INTO wide (id, price) VALUES (8, 'NaN'), (9, 'Infinity'), (10, 1.005), (11, 10000000000)",
        "INSERT INTO wide (id, ratio) VALUES (12, 'NaN'), (13, '-Infinity'), (14, 1e300)",
    )
    run = publish(department, database)
    assert (run.published, run.quarantined) == (5, 9)
    state = department.state()
    first = state["1"]
    assert first["price"] == Decimal("1234567890.10")
    assert (first["small"], first["ratio"], first["good"], first["code"]) == (32767, 0.1, True, "ab")
    assert first["born"].isoformat() == "1949-10-01"
    assert first["seen"].isoformat() == "2026-01-31T01:30:00.123456+00:00"
    assert first["raw"] == b"\x00\xff\x80"
    assert {name: value for name, value in state["2"].items() if value is not None} == {"id": 2}
    assert state["14"]["ratio"] == 1e300
    assert (repr(state["12"]["ratio"]), state["13"]["ratio"]) == ("nan", -math.inf)
    codes = {json.loads(each.original)["id"]: each.code for each in department.quarantined()}
    special, out = RejectCode.NUMERIC_SPECIAL, RejectCode.TIME_SPECIAL
    assert codes == {
        **dict.fromkeys(["3", "4", "5", "6", "7"], out),
        **dict.fromkeys(["8", "9"], special),
        "10": RejectCode.PRECISION_LOSS,
        "11": RejectCode.RANGE,
    }


def test_a_table_s_changes_and_deletes_are_found_by_reading_it_again(
    department: Department, engine: sa.Engine, database: sa.URL
) -> None:
    execute(engine, TABLE, "INSERT INTO wide (id, code) SELECT n, 'x' FROM generate_series(-3000, 3000) n")
    assert publish(department, database, page=700).published == 6001
    assert publish(department, database, page=700).unchanged == 6001
    execute(engine, "UPDATE wide SET code = 'y' WHERE id = 17", "DELETE FROM wide WHERE id IN (-3000, 42)")
    run = publish(department, database, page=700)
    assert (run.published, run.voided, run.unchanged) == (1, 2, 5998)


def test_a_text_form_does_not_depend_on_the_server_s_settings(
    department: Department, engine: sa.Engine, database: sa.URL
) -> None:
    execute(
        engine,
        "CREATE TABLE wide (id bigint PRIMARY KEY, ratio real, price money, raw bytea, code interval)",
        "INSERT INTO wide VALUES (1, 16777217, 1234.50, '', '1 day 02:00:00'), (2, 1.5e-12, NULL, NULL, NULL), "
        "(3, 0.1, NULL, '\\x00', NULL)",
        f'ALTER DATABASE "{database.database}" SET extra_float_digits = -5',
        f"ALTER DATABASE \"{database.database}\" SET bytea_output = 'escape'",
        f"ALTER DATABASE \"{database.database}\" SET intervalstyle = 'iso_8601'",
        f"ALTER DATABASE \"{database.database}\" SET lc_monetary = 'C'",
    )
    assert publish(department, database).published == 3
    state = department.state()
    assert [state[id_]["ratio"] for id_ in "123"] == [16777216.0, 1.5e-12, 0.1]
    assert [state[id_]["raw"] for id_ in "123"] == [b"", None, b"\x00"]
    assert (state["1"]["price"], state["1"]["code"]) == (Decimal("1234.50"), "1 day 02:00:00")


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_a_view_is_read_by_the_key_that_its_owner_names(
    department: Department, engine: sa.Engine, database: sa.URL, kind: str
) -> None:
    execute(
        engine,
        TABLE,
        "INSERT INTO wide (id, code, raw, price) SELECT n, 'x', CASE WHEN n = 7 THEN ''::bytea END, n FROM "
        "generate_series(1, 3000) n",
        f"CREATE {kind} few AS SELECT id, code, raw, price FROM wide",
    )
    with pytest.raises(InvalidError, match="as in a view, under `key:`"):
        publish(department, database, "few")
    run = publish(department, database, "few", key=("id",), page=700, where="code LIKE 'x%' AND id <= 2000")
    assert (run.read, run.published) == (2000, 2000)
    assert department.state()["7"]["raw"] == b""
    run = publish(department, database, "", query="SELECT id, code, raw, price FROM few LIMIT 1990", key=("id",))
    assert (run.read, run.unchanged, run.voided) == (1990, 1990, 10)


def test_a_key_that_is_none_stops_before_anything_is_published(
    department: Department, engine: sa.Engine, database: sa.URL
) -> None:
    execute(
        engine,
        "CREATE TABLE many (id bigint, code text)",
        "INSERT INTO many SELECT n %% 2990, 'x' FROM generate_series(1, 3000) n",
        "INSERT INTO many VALUES (NULL, 'y'), (NULL, 'z')",
        "CREATE VIEW wide AS SELECT * FROM many",
    )
    with pytest.raises(InvalidError) as error:
        publish(department, database, key=("id",), page=700)
    assert "10 rows have the key of a row before them, and 2 have null in it" in error.value.message
    assert department.state() == {}
    with pytest.raises(InvalidError, match="names columns twice: id"):
        publish(department, database, "", query="SELECT id, id FROM many", key=("id",))


@pytest.mark.parametrize("page", [1, 2, 3, 7, 1000])
def test_pages_over_several_columns_lose_and_double_nothing(
    department: Department, engine: sa.Engine, database: sa.URL, page: int
) -> None:
    """Ties in the first column across the edge of a page are where keyset paging goes wrong."""
    execute(
        engine,
        'CREATE TABLE wide (town text COLLATE "C" NOT NULL, day date NOT NULL, id bigint NOT NULL, '
        "PRIMARY KEY (town, day, id))",
        "INSERT INTO wide SELECT t, d, row_number() OVER () FROM unnest(ARRAY['杭州','a','A','']) t, "
        "generate_series('2026-01-01'::date, '2026-01-03', '1 day') d, generate_series(1, 2)",
    )
    source = SqlSource(database, "wide", page=page)
    (portion,) = source.portions(b"")
    ids = [text for chunk in portion.chunks(["id"]) for text in chunk.columns["id"].to_pylist()]
    assert sorted(map(int, ids)) == list(range(1, 25))
    source.close()


@pytest.mark.parametrize(
    ("table", "page_by", "word"),
    [
        ("CREATE TABLE wide (id bigint)", (), "no primary key"),
        ("CREATE TABLE wide (id bigint NOT NULL, code text)", ("id",), "not declared unique"),
        ("CREATE TABLE wide (id bigint UNIQUE)", ("id",), "may be null"),
        ("CREATE TABLE wide (id bigint PRIMARY KEY)", ("nr",), "no column nr"),
        ("CREATE TABLE other (id bigint PRIMARY KEY)", (), "not there"),
        (
            "CREATE TABLE wide (id bigint NOT NULL, code text); CREATE UNIQUE INDEX ON wide (id) WHERE code = 'x'",
            ("id",),
            "not declared unique",
        ),
    ],
)
def test_a_table_that_cannot_be_paged_through_is_refused(
    engine: sa.Engine, database: sa.URL, table: str, page_by: tuple[str, ...], word: str
) -> None:
    execute(engine, table)
    source = SqlSource(database, "wide", page_by=page_by)
    with pytest.raises(InvalidError) as error:
        source.open()
    assert error.value.reason is Reason.CONFIG_INVALID
    assert word in error.value.message
    source.close()


def test_a_unique_index_is_enough(engine: sa.Engine, database: sa.URL) -> None:
    execute(engine, "CREATE TABLE wide (id bigint NOT NULL, code text)", "CREATE UNIQUE INDEX ON wide (id)")
    source = SqlSource(database, "wide", page_by=("id",))
    assert list(source.open().columns) == ["id", "code"]
    source.close()


@pytest.fixture
def reader(engine: sa.Engine, database: sa.URL) -> Iterator[sa.URL]:
    execute(engine, TABLE, "CREATE ROLE reader LOGIN PASSWORD 'reader'")
    yield database.set(username="reader", password="reader")
    execute(engine, "DROP OWNED BY reader", "DROP ROLE reader")


def test_who_may_not_read_is_told_so_without_the_statement(reader: sa.URL, department: Department) -> None:
    with pytest.raises(RefusedError) as error:
        publish(department, reader)
    assert "SELECT" in error.value.message
    assert "wide" in error.value.message
    wrong = reader.set(password="hunter2")
    with pytest.raises(PoolError) as failed:
        SqlSource(wrong, "wide").open()
    assert isinstance(failed.value, UnavailableError)
    assert "hunter2" not in str(failed.value)


# -- the sink --------------------------------------------------------------------------------------------------


@pytest.fixture
def sink(database: sa.URL) -> Iterator[SqlSink]:
    made = SqlSink(database, "people", "g-1", create_table=True, add_columns=True)
    made.prepare(SCHEMA)
    yield made
    made.close()


def names(engine: sa.Engine) -> dict[int, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT _record_key, name FROM people WHERE _deleted_at IS NULL")
        return {int(key, 16): name for key, name in rows}


def test_a_record_that_the_target_refuses_does_not_take_the_others_with_it(sink: SqlSink, engine: sa.Engine) -> None:
    execute(engine, "ALTER TABLE people ADD CONSTRAINT short CHECK (length(name) < 5)")
    sent = dict.fromkeys(range(1000), "fine") | {77: "far too long", 500: "nul\x00", 999: "long again"}
    quarantined: list[RejectedRecord] = []
    written = sink.write(make_release(sent), b"", b"p1", quarantined.extend)
    assert quarantined == list(written.rejected)
    rejected = {each.index: each.code for each in written.rejected}
    assert rejected == {
        77: RejectCode.TARGET_CONSTRAINT,
        500: RejectCode.TARGET_TYPE,
        999: RejectCode.TARGET_CONSTRAINT,
    }
    assert written.upserted == 997
    assert len(names(engine)) == 997
    assert sink.position() == b"p1"
    assert all("far too long" not in each.message for each in written.rejected)


def test_rows_and_position_are_one_transaction(sink: SqlSink, engine: sa.Engine, database: sa.URL) -> None:
    execute(
        engine,
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        "CREATE TRIGGER at_the_end AFTER INSERT ON people FOR EACH STATEMENT EXECUTE FUNCTION never()",
    )
    with pytest.raises(UnavailableError):
        sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert names(engine) == {}
    assert sink.position() == b""


def test_fields_that_a_view_got_since_are_added_and_nothing_else_changes(
    sink: SqlSink, engine: sa.Engine, database: sa.URL
) -> None:
    sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    wider = SCHEMA.append(pa.field("phone", pa.string()))
    strict = SqlSink(database, "people", "g-1", create_table=True)
    with pytest.raises(ConflictError) as error:
        strict.prepare(wider)
    assert error.value.reason is Reason.CONTRACT_BROKEN
    assert "phone" in error.value.message
    strict.close()
    sink.prepare(wider)
    record = {**dict.fromkeys(wider.names), "name": "b", "phone": "138"}
    release = DecodedRelease(
        keys=[(2).to_bytes(16, "big")],
        recorded_at=[20],
        withdrawn=[False],
        records=pa.RecordBatch.from_pylist([record], wider),
        values=[b"v"],
        entry_id="e",
    )
    sink.write(release, b"p1", b"p2", expect_no_rejects)
    assert names(engine) == {1: "a", 2: "b"}


def test_a_table_that_is_not_there_is_made_only_if_asked_for(database: sa.URL) -> None:
    sink = SqlSink(database, "people", "g-1")
    with pytest.raises(ConflictError) as error:
        sink.prepare(SCHEMA)
    assert "create_table" in error.value.message
    sink.close()


def test_two_grants_may_fill_two_tables_and_keep_their_positions_apart(database: sa.URL) -> None:
    one = SqlSink(database, "one", "g-1", create_table=True)
    two = SqlSink(database, "two", "g-2", create_table=True)
    for sink in (one, two):
        sink.prepare(SCHEMA)
    one.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert (one.position(), two.position()) == (b"p1", b"")
    one.close()
    two.close()


def test_a_view_s_names_are_names_and_not_statements(database: sa.URL, engine: sa.Engine) -> None:
    """Field names come from a schema that another department wrote."""
    hostile = pa.schema([pa.field('x" text); DROP TABLE people; --', pa.string()), pa.field("select", pa.string())])
    execute(
        engine,
        "CREATE TABLE people (id int)",
        "CREATE TABLE target (_record_key text PRIMARY KEY, _recorded_at bigint NOT NULL, _deleted_at bigint)",
    )
    sink = SqlSink(database, "target", "g-1", add_columns=True)
    sink.prepare(hostile)
    record = dict.fromkeys(hostile.names, "值")
    sink.write(
        DecodedRelease(
            keys=[bytes(16)],
            recorded_at=[1],
            withdrawn=[False],
            records=pa.RecordBatch.from_pylist([record], hostile),
            values=[b"v"],
            entry_id="e",
        ),
        b"",
        b"p1",
        expect_no_rejects,
    )
    assert sa.inspect(engine).has_table("people")
    sink.close()


AWKWARD = (
    "",
    "a",
    "\\.",
    "\\N",
    "NULL",
    'x"y',
    "a\n\\.\nb",
    "a\r\nb",
    "\ufeffx",
    "x,y",
    " x ",
    "100 %",
    "'",
    "\\",
    "𠮷",
    None,
)


@pytest.mark.parametrize("where", ["", "note IS NULL OR note LIKE '%' OR note = '100 %%'"])
def test_pages_by_copy_are_what_a_cursor_reads(
    engine: sa.Engine, database: sa.URL, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = 'CREATE TABLE wide (id text PRIMARY KEY, note text, "100 % of" bytea, day date)'
    with engine.begin() as connection:
        connection.exec_driver_sql(table, execution_options={"no_parameters": True})
        connection.execute(
            sa.text("INSERT INTO wide VALUES (:id, :note, :raw, :day)"),
            [
                {
                    "id": f"{at} {text}",
                    "note": text,
                    "raw": None if at % 3 else b"\x00%",
                    "day": None if at % 2 else "infinity",
                }
                for at, text in enumerate(AWKWARD)
            ],
        )

    def read() -> list[tuple[Any, ...]]:
        source = SqlSource(database, "wide", where=where, page=3)
        found = [
            (*row, line, json.loads(original))
            for chunk in source.open().chunks()
            for *row, line, original in zip(
                *(column.to_pylist() for column in chunk.columns.values()), chunk.lines, chunk.originals, strict=True
            )
        ]
        source.close()
        return found

    by_copy = read()
    monkeypatch.setattr(table_portion, "copies", lambda _: False)
    assert by_copy == read()
    assert [row[1] for row in sorted(by_copy, key=lambda row: int(row[0].split(" ")[0]))] == list(AWKWARD)

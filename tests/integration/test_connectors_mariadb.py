"""A table of MariaDB into the pool: values that its driver, or SQLAlchemy, would round, reorder or fail at."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors.port import DecodedRelease, RejectCode
from connectors.sinks.sql import SqlSink
from connectors.sources.sql_table import SqlSource
from schemas.errors import RefusedError
from tests.kit.twins.pool_twin import Record
from tests.kit.world import mariadb
from tests.kit.world.department import Department, only

pytestmark = pytest.mark.needs_package("mariadb-server-core", program="mariadbd")

TABLE = """
CREATE TABLE t (id INT PRIMARY KEY, d DOUBLE, f FLOAT, tm TIME(6), st SET('a','b','c','d'), en ENUM('x','y'), y YEAR,
    dt DATETIME(6), n DECIMAL(30,10), b1 BIT(1), b8 BIT(8), js JSON, bl BLOB, da DATE, flag BOOLEAN, c VARCHAR(40),
    u BIGINT UNSIGNED, uu UUID, ine INET6)
"""
FIELDS: dict[str, Any] = {
    "id": "int",
    "d": "double",
    "f": "float",
    "tm": {"type": "long", "logicalType": "time-micros"},
    "st": "string",
    "en": {"type": "enum", "name": "E", "symbols": ["x", "y"]},
    "y": "int",
    "dt": {"type": "long", "logicalType": "local-timestamp-micros"},
    "n": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 10},
    "b1": "boolean",
    "b8": "int",
    "js": "string",
    "bl": "bytes",
    "da": {"type": "int", "logicalType": "date"},
    "flag": "boolean",
    "c": "string",
    "u": "long",
    "uu": {"type": "string", "logicalType": "uuid"},
    "ine": "string",
}
SCHEMA: Record = {
    "type": "record",
    "name": "T",
    "key": ["id"],
    "fields": [{"name": name, "type": kind if name == "id" else ["null", kind]} for name, kind in FIELDS.items()],
}


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with mariadb.server() as url:
        yield url


@pytest.fixture
def url(server: sa.URL) -> Iterator[sa.URL]:
    with mariadb.fresh_database(server) as made:
        yield made


@pytest.fixture
def department(tmp_path: Path) -> Department:
    made = Department(tmp_path, topic="t.v1", schema=SCHEMA)
    made.limits = replace(made.limits, quarantine_share=1.0)
    return made


def execute(url: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def publish(department: Department, url: sa.URL, table: str = "t", **how: Any) -> Any:
    made: list[SqlSource] = []

    def source(_: object) -> SqlSource:
        made.append(SqlSource(url, table, **how))
        return made[-1]

    try:
        return only(department.publish(source))
    finally:
        for each in made:
            each.close()


def test_every_type_arrives_exactly(department: Department, url: sa.URL) -> None:
    execute(
        url,
        TABLE,
        "INSERT INTO t VALUES (1, 1.5e-12, 0.1, '10:00:00.999999', 'd,a', 'y', 2023, '2023-02-09 10:00:00.999999', "
        "12345678901234567890.1234567890, b'1', b'10000001', '{\"b\":1.10,\"a\":2}', x'00ff', '2023-02-09', TRUE, "
        "'王𠮷 🀄', 9223372036854775807, '0198c1de-0000-7000-8000-000000000001', '::1')",
        "INSERT INTO t (id, d, f, bl, c, st) VALUES (2, 0.12345678901234567, 16777217, '', '', '')",
        "INSERT INTO t (id, d, f) VALUES (3, 1.7976931348623157e308, 1.5e-12)",
    )
    assert publish(department, url).published == 3
    state = department.state()
    assert [state[id_]["d"] for id_ in "123"] == [1.5e-12, 0.12345678901234567, 1.7976931348623157e308]
    assert [state[id_]["f"] for id_ in "123"] == [
        pytest.approx(0.1, rel=1e-7),
        16777216.0,
        pytest.approx(1.5e-12, rel=1e-7),
    ]
    first = state["1"]
    assert first["tm"].isoformat() == "10:00:00.999999"
    assert (first["st"], first["en"], first["y"]) == ("a,d", "y", 2023)
    assert first["dt"].isoformat() == "2023-02-09T10:00:00.999999"
    assert first["n"] == Decimal("12345678901234567890.1234567890")
    assert (first["b1"], first["b8"], first["flag"], first["bl"]) == (True, 129, True, b"\x00\xff")
    assert first["js"] == '{"b":1.10,"a":2}'
    assert (first["da"].isoformat(), first["c"], first["u"], first["ine"]) == (
        "2023-02-09",
        "王𠮷 🀄",
        2**63 - 1,
        "::1",
    )
    assert (state["2"]["bl"], state["2"]["c"], state["2"]["st"]) == (b"", "", "")
    assert publish(department, url).unchanged == 3


def test_what_no_field_can_hold_is_one_row_s_fault(department: Department, url: sa.URL) -> None:
    execute(
        url,
        TABLE,
        "SET sql_mode = ''",
        "INSERT INTO t (id, tm) VALUES (1, '-838:59:59'), (2, '100:00:00'), (3, '00:00:01')",
        "INSERT INTO t (id, da) VALUES (4, '0000-00-00'), (5, '2023-02-00')",
        "INSERT INTO t (id, dt) VALUES (6, '0000-00-00 00:00:00')",
        "INSERT INTO t (id, u) VALUES (7, 18446744073709551615)",
    )
    run = publish(department, url)
    assert (run.published, run.quarantined) == (1, 6)
    codes = {each.line: (each.field, each.code) for each in department.quarantined()}
    assert codes == {
        1: ("tm", RejectCode.RANGE),
        2: ("tm", RejectCode.RANGE),
        4: ("da", RejectCode.TIME_SPECIAL),
        5: ("da", RejectCode.RANGE),
        6: ("dt", RejectCode.TIME_SPECIAL),
        7: ("u", RejectCode.RANGE),
    }


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("DOUBLE", "0.1, 1.5e-12, 0.12345678901234567, 1e300, -2"),
        ("FLOAT", "0.1, 1.5e-12, 16777216, 3e38, -2"),
        ("TIME(6)", "'-838:59:59', '-00:00:01', '10:00:00.000001', '10:00:00.000002', '838:59:59'"),
        ("DECIMAL(30,10)", "0.1, 12345678901234567890.1234567890, 12345678901234567890.1234567891, -1, 3"),
        ("VARCHAR(20) COLLATE utf8mb4_bin", "'a', 'A', '王', '𠮷', ''"),
        (
            "DATETIME(6)",
            "'2023-02-09 10:00:00.000001', '2023-02-09 10:00:00.000002', '1000-01-01', '9999-12-31', '2023-01-01'",
        ),
    ],
)
@pytest.mark.parametrize("page", [1, 2])
def test_pages_lose_and_double_nothing_whatever_orders_them(url: sa.URL, kind: str, values: str, page: int) -> None:
    execute(
        url,
        f"CREATE TABLE t (k {kind} PRIMARY KEY)",
        *(f"INSERT INTO t VALUES ({each})" for each in values.split(", ")),
    )
    source = SqlSource(url, "t", page=page)
    texts = [text for chunk in source.open().chunks() for text in chunk.columns["k"].to_pylist()]
    source.close()
    assert len(texts) == len(set(texts)) == 5


def test_a_sink_keeps_fractions_and_sets_aside_what_a_column_would_cut(url: sa.URL) -> None:
    kind = pa.timestamp("us", "UTC")
    moment = datetime(2023, 2, 9, 10, 0, 0, 999999, UTC)
    schema = pa.schema([pa.field("v", kind), pa.field("n", pa.decimal128(30, 10))])
    records = pa.RecordBatch.from_arrays(
        [
            pa.array([moment, moment.replace(microsecond=0)], kind),
            pa.array([Decimal("0.1"), None], schema.field(1).type),
        ],
        schema=schema,
    )
    release = DecodedRelease(
        keys=[b"a" * 16, b"b" * 16],
        recorded_at=[1, 2],
        withdrawn=[False] * 2,
        records=records,
        values=[b"x"] * 2,
        entry_id="",
    )
    execute(
        url,
        "CREATE TABLE cut (_record_key VARCHAR(32) PRIMARY KEY, _recorded_at BIGINT NOT NULL, _deleted_at BIGINT, "
        "v DATETIME, n DOUBLE)",
    )
    found = {}
    for table in ("made", "cut"):
        sink, set_aside = SqlSink(url, table, "g", create_table=True), []
        sink.prepare(schema)
        sink.write(release, b"", b"p", set_aside.extend)
        sink.close()
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT v FROM {table}").scalars().all()
        found[table] = (sorted(rows), [(each.index, each.field) for each in set_aside])
    whole = datetime(2023, 2, 9, 10)  # noqa: DTZ001
    assert found == {"made": ([whole, moment.replace(tzinfo=None)], []), "cut": ([whole], [(0, "v")])}


def test_views_and_queries_are_read_by_the_key_that_their_owner_names(department: Department, url: sa.URL) -> None:
    execute(
        url,
        TABLE,
        "INSERT INTO t (id, f, c, st) SELECT seq, 0.1, '100%% :x', 'd,a' FROM seq_1_to_2000",
        "CREATE VIEW v AS SELECT id, f, c, st FROM t",
    )
    assert publish(department, url, "v", key=("id",), page=300).published == 2000
    query = "SELECT id, f, c, st FROM v WHERE c LIKE '%:x' AND id > 5"
    run = publish(department, url, "", query=query, key=("id",), page=300)
    assert (run.read, run.unchanged, run.voided) == (1995, 1995, 5)


def test_a_missing_right_is_refused_with_the_statement_that_gives_it(department: Department) -> None:
    """The driver reports it as it reports a server that is away: the connector would try again for ever."""
    with mariadb.server(rights=True) as root, mariadb.fresh_database(root) as url:
        execute(url, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE USER reader@localhost")
        reader = url.set(username="reader")
        execute(url, "CREATE TABLE u (id INT PRIMARY KEY)", f"GRANT SELECT ON {url.database}.u TO reader@localhost")
        with pytest.raises(RefusedError) as refused:
            publish(department, reader)
        statement = refused.value.message.partition("its owner executes: ")[2]
        assert statement == f"GRANT SELECT ON `{url.database}`.`t` TO 'reader'@'localhost';"
        execute(url, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM reader@localhost")
        with pytest.raises(RefusedError) as refused:
            publish(department, reader)
        assert refused.value.message.endswith(statement)
        execute(url, statement)
        assert publish(department, reader).published == 1

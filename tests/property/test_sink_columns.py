"""A table is the same whether a release is written by columns or row by row, and so is what it rejects."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.port import DecodedRelease, RejectedRecord
from connectors.sinks import sql_copy
from connectors.sinks.sql import SqlSink
from tests.kit.share import count
from tests.kit.world import postgres

pytestmark = pytest.mark.postgres

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
        pa.field("small", pa.int32()),
        pa.field("large", pa.int64()),
        pa.field("good", pa.bool_()),
        pa.field("ratio", pa.float64()),
        pa.field("narrow", pa.float32()),
        pa.field("amount", pa.decimal128(20, 4)),
        pa.field("wide", pa.decimal256(60, 30)),
        pa.field("born", pa.date32()),
        pa.field("clock", pa.time64("us")),
        pa.field("short clock", pa.time32("ms")),
        pa.field("seen", pa.timestamp("us", "UTC")),
        pa.field("local", pa.timestamp("ms")),
        pa.field("raw", pa.binary()),
        pa.field("digest", pa.binary(4)),
        pa.field('100 % "quoted"', pa.string()),
    ]
)
OWN = "_record_key varchar(32) PRIMARY KEY, _recorded_at bigint NOT NULL, _deleted_at bigint"
# A table of the department's own: narrower, of other types, with constraints and a trigger.
STRICT = (
    f"CREATE TABLE strict_{{}} ({OWN}, name varchar(3), kind char(2), small smallint, large integer, good text, "
    "ratio real, narrow numeric(8, 3), amount numeric(6, 2), wide double precision, born text, clock interval, "
    '"short clock" text, seen timestamp, local timestamptz, raw bytea CHECK (length(raw) < 3), digest bytea NOT NULL, '
    '"100 % ""quoted""" integer UNIQUE)'
)
TEXTS = st.sampled_from(
    ["", "a", "张三", "\x00", 'x"y', "\\.", "a\n\\.\nb", "NULL", "\\N", "12", "007", "𠮷", " x", "长文字"]
)
DECIMALS = st.decimals(-(10**16) + 1, 10**16 - 1, places=4, allow_nan=False)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXTS,
    "kind": st.sampled_from(["甲", "乙", "abc"]),
    "small": st.sampled_from([0, -1, 32_768, 2**31 - 1, -(2**31)]),
    "large": st.sampled_from([0, 2**31, 2**63 - 1, -(2**63)]),
    "good": st.booleans(),
    "ratio": st.floats().map(lambda value: value + 0.0),  # not -0.0: psycopg2 writes it as a numeric, without a sign
    "narrow": st.floats(width=32).map(lambda value: value + 0.0),
    "amount": DECIMALS,
    "wide": st.sampled_from([Decimal("1e-30"), Decimal("-123456789012345678901234567890.5"), Decimal(0)]),
    "born": st.dates(),
    "clock": st.times(),
    "short clock": st.sampled_from([time(0), time(23, 59, 59, 999_000)]),
    "seen": st.datetimes(timezones=st.just(UTC)),
    "local": st.sampled_from([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59), datetime(1986, 5, 4, 2, 30)]),  # noqa: DTZ001 - local
    "raw": st.binary(max_size=4),
    "digest": st.binary(min_size=4, max_size=4),
    '100 % "quoted"': st.sampled_from(["1", "2", "3", "x"]),
}  # fmt: skip
RECORDS = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})
ENTRIES = st.tuples(st.integers(1, 12), st.integers(1, 4), st.none() | RECORDS)


@pytest.fixture(scope="module")
def url(postgres_server: sa.URL) -> Iterator[sa.URL]:
    with postgres.fresh_database(postgres_server) as made:
        yield made


def release_of(entries: Sequence[tuple[int, int, dict[str, Any] | None]], base: int) -> DecodedRelease:
    records = [record for _, _, record in entries if record is not None]
    return DecodedRelease(
        keys=[number.to_bytes(16, "big") for number, _, _ in entries],
        recorded_at=[base + at for _, at, _ in entries],
        withdrawn=[record is None for _, _, record in entries],
        records=pa.RecordBatch.from_pylist(records, SCHEMA),
        values=[b"" if record is None else b"v" for _, _, record in entries],
        entry_id="e",
    )


def write(url: sa.URL, table: str, releases: Sequence[DecodedRelease], *, columns: bool) -> list[RejectedRecord]:
    sink = SqlSink(url, table, table, create_table=True, columns=columns)
    sink.prepare(SCHEMA)
    position = sink.position()
    rejected: list[RejectedRecord] = []
    for number, release in enumerate(releases):
        written = sink.write(release, position, f"p{number}".encode(), rejected.extend)
        assert written.upserted + written.withdrawn + written.stale + len(written.rejected) == len(release)
        position = f"p{number}".encode()
    sink.close()
    return rejected


FULL = {
    "name": "\\.", "kind": "甲", "small": 7, "large": 8, "good": True, "ratio": 0.1, "narrow": 0.1,
    "amount": Decimal("1.0050"), "wide": Decimal("1e-30"), "born": date(1, 1, 1), "clock": time(23, 59, 59, 999_999),
    "short clock": time(1), "seen": datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), "local": datetime(1, 1, 1),  # noqa: DTZ001
    "raw": b"\x00\xff", "digest": b"\x00\x01\x02\x03", '100 % "quoted"': "1",
}  # fmt: skip


@pytest.mark.counted
@settings(max_examples=count(200, 20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(ENTRIES, max_size=12), min_size=1, max_size=3))
@example([[(1, 1, FULL), (2, 1, dict.fromkeys(VALUES))], [(1, 1, None), (2, 2, FULL)]])
def test_columns_and_rows_make_the_same_table(
    url: sa.URL, monkeypatch: pytest.MonkeyPatch, entries: list[list[tuple[int, int, dict[str, Any] | None]]]
) -> None:
    monkeypatch.setattr(sql_copy, "MIN_RECORDS", 0)
    monkeypatch.setattr(sql_copy, "_FEW_ROWS", 1)
    releases = [release_of(each, base) for base, each in enumerate(entries)]
    engine = sa.create_engine(url)
    for kind in ("plain", "strict"):
        tables = (f"{kind}_columns", f"{kind}_rows")
        with engine.begin() as connection:
            for table in tables:
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS pool_positions, {table}")
                if kind == "strict":
                    connection.exec_driver_sql(
                        STRICT.format(table.removeprefix("strict_")), execution_options={"no_parameters": True}
                    )
        rejected = [write(url, table, releases, columns=table.endswith("columns")) for table in tables]
        assert [(each.index, each.code, each.field) for each in rejected[0]] == [
            (each.index, each.code, each.field) for each in rejected[1]
        ]
        with engine.connect() as connection:
            stored = [
                connection.exec_driver_sql(f"SELECT t::text FROM {table} t ORDER BY _record_key").scalars().all()
                for table in tables
            ]
        assert stored[0] == stored[1]
    engine.dispose()

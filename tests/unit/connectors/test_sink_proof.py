"""A sink stores what it got, or sets the record aside with its column: for every type, in every kind of target."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors.port import DecodedRelease, RejectCode, RejectedRecord
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from connectors.subscribing.nanoseconds import as_deliverable, deliverable_schema

DECIMAL = pa.decimal128(30, 10)
BIG = Decimal("12345678901234567890.1234567890")


def release(kind: pa.DataType, *values: Any) -> DecodedRelease:
    records = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["v"])
    return DecodedRelease(
        keys=[bytes([at]) * 16 for at in range(len(values))],
        recorded_at=[at + 1 for at in range(len(values))],
        withdrawn=[False] * len(values),
        records=records,
        values=[b"x"] * len(values),
        entry_id="",
    )


def rejecting(into: list[RejectedRecord]) -> Callable[[Sequence[RejectedRecord]], None]:
    return into.extend


def stored(url: sa.URL) -> list[Any]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT v FROM t ORDER BY _recorded_at")]


def written(url: sa.URL, kind: pa.DataType, *values: Any, create: bool = True) -> list[RejectedRecord]:
    sink = SqlSink(url, "t", "g", create_table=create)
    set_aside: list[RejectedRecord] = []
    sink.prepare(pa.schema([pa.field("v", kind)]))
    result = sink.write(release(kind, *values), b"", b"p", rejecting(set_aside))
    assert (result.upserted, len(result.rejected)) == (len(values) - len(set_aside), len(set_aside))
    assert sink.position() == b"p"
    sink.close()
    return set_aside


def test_a_decimal_of_sqlite_is_kept_as_text(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 't.db'}")
    assert written(url, DECIMAL, BIG, Decimal("1.5000000000"), None) == []
    assert stored(url) == ["12345678901234567890.1234567890", "1.5000000000", None]


def test_what_a_column_of_sqlite_would_round_is_set_aside(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 't.db'}")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE t (_record_key TEXT PRIMARY KEY, _recorded_at INTEGER, _deleted_at INTEGER, v NUMERIC)"
        )
    (rejected,) = written(url, DECIMAL, Decimal("1.5"), BIG, Decimal("2.5"), create=False)
    assert (rejected.index, rejected.field, rejected.code) == (1, "v", RejectCode.TARGET_TYPE)
    assert "the target stored another value: its column v is of the type NUMERIC" in rejected.message
    assert "1234567890" not in rejected.message
    assert stored(url) == [1.5, 2.5]


def test_sqlite_has_no_nan_and_says_so_of_the_one_record(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 't.db'}")
    (rejected,) = written(url, pa.float64(), 1.5, float("nan"), float("-inf"))
    assert (rejected.index, rejected.field, rejected.code) == (1, "v", RejectCode.TARGET_TYPE)
    assert stored(url) == [1.5, float("-inf")]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float64(), [0.1, 1.5e-12, -0.0, float("inf")]),
        (pa.float32(), [0.1]),
        (pa.int64(), [2**63 - 1, -(2**63)]),
        (pa.bool_(), [True, False]),
        (pa.timestamp("us", "UTC"), [datetime(2023, 2, 9, 10, 0, 0, 999999, UTC), datetime(1, 1, 1, tzinfo=UTC)]),
        (pa.time64("us"), [time(10, 0, 0, 999999)]),
        (pa.binary(), [b"", b"\x00\xff"]),
        (pa.string(), ["", " a ", "王𠮷", "007"]),
        (pa.list_(pa.int32()), [[1, 2], []]),
        (pa.map_(pa.string(), pa.int32()), [[("a", 1)]]),
        (pa.struct([pa.field("a", pa.string())]), [{"a": "x"}]),
    ],
)
def test_every_type_is_proven_and_kept_by_the_table_that_the_sink_makes(
    tmp_path: Path, kind: pa.DataType, values: list[Any]
) -> None:
    assert written(sa.make_url(f"sqlite:///{tmp_path / 't.db'}"), kind, *values, None) == []


def test_nanoseconds_are_delivered_as_text(tmp_path: Path) -> None:
    kind = pa.timestamp("ns", "UTC")
    records = pa.RecordBatch.from_arrays(
        [pa.array([1675936800123456789, None, -1], kind), pa.array([1, 2, 3], pa.timestamp("ns"))], names=["v", "w"]
    )
    texts = as_deliverable(records)
    assert texts.schema == deliverable_schema(records.schema)
    assert texts.column("v").to_pylist() == [
        "2023-02-09T10:00:00.123456789Z",
        None,
        "1969-12-31T23:59:59.999999999Z",
    ]
    assert texts.column("w")[0].as_py() == "1970-01-01T00:00:00.000000001"
    assert as_deliverable(texts) is texts


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
def test_no_single_record_stops_a_folder(tmp_path: Path, file_format: str) -> None:
    sink = FileSink(tmp_path, "g", file_format=file_format)
    kind = pa.list_(pa.timestamp("ns"))
    sink.prepare(pa.schema([pa.field("v", kind)]))
    set_aside: list[RejectedRecord] = []
    sink.write(release(kind, [1000], [1675936800123456789], [2000]), b"", b"p", rejecting(set_aside))
    assert [(each.index, each.field) for each in set_aside] == [(1, "v")]
    assert json.loads((tmp_path / "part-00000001.manifest.json").read_bytes())["rows"] == 2
    assert sink.position() == b"p"


def test_json_has_no_nan(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "g")
    sink.prepare(pa.schema([pa.field("v", pa.float64())]))
    set_aside: list[RejectedRecord] = []
    sink.write(release(pa.float64(), 1.5, float("nan"), float("-inf")), b"", b"p", rejecting(set_aside))
    assert [(each.index, each.field, each.code) for each in set_aside] == [
        (1, "v", RejectCode.TARGET_TYPE),
        (2, "v", RejectCode.TARGET_TYPE),
    ]
    assert "NaN" not in (tmp_path / "part-00000001.jsonl").read_text()

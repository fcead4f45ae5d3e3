"""Parquet parts: every type of a view comes back as it was, and what has no type there is refused before."""

import io
import json
import random
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.port import DecodedRelease
from connectors.sinks.parquet_part import parquet_part, require_parquet
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.json_rows import json_rows
from schemas.errors import ConflictError, Reason
from tests.kit.cases.random_avro import encode, random_record, random_value


def release(records: pa.RecordBatch, withdrawn: list[bool]) -> DecodedRelease:
    return DecodedRelease(
        keys=[bytes([number]) * 16 for number in range(len(withdrawn))],
        recorded_at=list(range(len(withdrawn))),
        withdrawn=withdrawn,
        records=records,
        values=[b"" if gone else b"v" for gone in withdrawn],
        entry_id="e",
    )


@given(st.randoms(use_true_random=False), st.lists(st.booleans(), max_size=40))
def test_each_value_comes_back(rng: random.Random, withdrawn: list[bool]) -> None:
    schema = random_record(rng)
    datums = [encode(schema, random_value(rng, schema)) for gone in withdrawn if not gone]
    records = engine_for(parse(json.dumps(schema))).decode(datums)
    try:
        require_parquet(records.schema)
    except ConflictError:
        return
    table = pq.read_table(io.BytesIO(parquet_part(release(records, withdrawn))))
    assert table["_operation"].to_pylist() == ["withdrawn" if gone else "upsert" for gone in withdrawn]
    assert table["_record_key"].to_pylist() == [f"{number:02x}" * 16 for number in range(len(withdrawn))]
    kept = table.filter(pa.array([not gone for gone in withdrawn], pa.bool_())).select(records.schema.names)
    back = kept.combine_chunks().to_batches()
    assert [row for batch in back for row in json_rows(batch)] == json_rows(records)


def test_what_has_no_type_is_named() -> None:
    union = pa.sparse_union([pa.field("b0", pa.int32()), pa.field("b1", pa.string())])
    schema = pa.schema({"a": pa.string(), "u": pa.list_(union), "r": pa.struct([])})
    with pytest.raises(ConflictError, match="without fields: u, r") as refused:
        require_parquet(schema)
    assert refused.value.reason is Reason.CONTRACT_BROKEN


def test_a_decimal_of_76_digits_and_a_time_of_nanoseconds_come_back() -> None:
    value = Decimal("1" * 70 + ".123456")
    columns = [
        pa.array([value], pa.decimal256(76, 6)),
        pa.array([1_675_936_800_123_456_789], pa.timestamp("ns", "UTC")),
    ]
    records = pa.RecordBatch.from_arrays(columns, ["d", "t"])
    table = pq.read_table(io.BytesIO(parquet_part(release(records, [False]))))
    assert table["d"].to_pylist() == [value]
    assert table["t"].cast(pa.int64()).to_pylist() == [1_675_936_800_123_456_789]

"""What every engine keeps true, demanded of both: the row engine, and the codec with its column engine."""

import random
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from registry.codec.codec import COLUMNAR_MIN_RECORDS, CheckedBatch
from schemas.errors import Reason
from schemas.record import Packed
from tests.kit.cases.engines import (
    COLOUR,
    DATE,
    EVERYTHING,
    MONEY,
    MONEY_FIXED,
    NAME,
    PART,
    SIMPLE,
    Make,
    N,
    columns,
    everything,
    record,
    refused,
    rows,
    simple,
)
from tests.kit.cases.random_avro import encode, random_value, write_long


@pytest.fixture(params=[rows, columns])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


# --- the same bytes, the same columns ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, COLUMNAR_MIN_RECORDS, 333])
def test_what_was_written_is_read_and_written_again(make: Make, count: int) -> None:
    engine, datums = make(EVERYTHING), everything(count)
    batch = engine.decode(datums)
    batch.validate(full=True)
    assert len(batch) == count
    assert batch.schema.equals(engine.schema)
    assert list(engine.encode(batch)) == datums
    assert engine.check(datums) == CheckedBatch(keys=[])


def test_packed_and_listed_datums_are_the_same(make: Make) -> None:
    engine, datums = make(EVERYTHING), everything()
    assert engine.encode(engine.decode(Packed.of(datums))) == Packed.of(datums)
    assert engine.check(Packed.of(datums)) == engine.check(tuple(datums)) == CheckedBatch(keys=[])


def test_both_engines_give_equal_columns() -> None:
    datums = everything()
    mine, theirs = rows(EVERYTHING).decode(datums), columns(EVERYTHING).decode(datums)
    assert mine.drop_columns(["ratio"]).equals(theirs.drop_columns(["ratio"]))  # NaN equals nothing
    assert mine.column("ratio").view(pa.int32()).equals(theirs.column("ratio").view(pa.int32()))


def test_values_come_out_as_what_they_mean(make: Make) -> None:
    schema = record(
        ("day", DATE), ("money", MONEY), ("m2", MONEY_FIXED), ("colour", ["null", COLOUR]), ("x", ["int", "string"])
    )
    value = {"day": -7000, "money": -12345, "m2": 99, "colour": (1, "green"), "x": (1, "王")}
    row = make(schema).decode([encode(schema, value)] * N).slice(N - 1).to_pylist()[0]
    assert row == {
        "day": date(1950, 11, 2),
        "money": Decimal("-123.45"),
        "m2": Decimal("0.99"),
        "colour": "green",
        "x": "王",
    }


def test_only_the_selected_fields_are_given_in_the_order_asked_for(make: Make) -> None:
    engine, datums = make(EVERYTHING), everything()
    batch = engine.decode(datums, ("never", "day", "text"))
    assert batch.schema.names == ["never", "day", "text"]
    assert batch.column("day").equals(engine.decode(datums).column("day"))
    for select in (("nope",), ("day", "day")):
        refused(lambda select=select: engine.decode(datums, select), Reason.FIELD_UNKNOWN)


@pytest.mark.parametrize("start", [0, 1, 3, 39])
def test_a_slice_is_written_as_the_rows_that_it_shows(make: Make, start: int) -> None:
    # The engine below writes other rows' values for such columns, in silence.
    engine, datums = make(EVERYTHING), everything(3 * N)
    batch = engine.decode(datums)
    assert list(engine.encode(batch.slice(start, N + 5))) == datums[start : start + N + 5]
    assert list(engine.encode(batch.slice(start, 0))) == []


def test_rows_filtered_and_taken_are_written(make: Make) -> None:
    engine, datums = make(EVERYTHING), everything(2 * N)
    batch = engine.decode(datums)
    assert list(engine.encode(batch.filter(pa.array([i % 2 == 0 for i in range(2 * N)])))) == datums[::2]
    assert list(engine.encode(batch.take(pa.array(range(2 * N - 1, -1, -1))))) == datums[::-1]


def test_every_nan_keeps_its_payload(make: Make) -> None:
    schema = record(("f", "float"), ("d", ["null", "double"]), ("l", {"type": "array", "items": "float"}))
    quiet, signal = b"\x01\x00\xc0\x7f", b"\x01\x00\xa0\x7f"
    value = {"f": signal, "d": (1, b"\x05\0\0\0\0\0\xf4\x7f"), "l": [quiet, signal]}
    datums, engine = [encode(schema, value)] * N, make(schema)
    assert list(engine.encode(engine.decode(datums))) == datums


def test_decimals_are_written_in_their_fewest_bytes(make: Make) -> None:
    schema = record(("m", MONEY))
    for number in (0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, -32768, 999_999_999, -999_999_999):
        datum = encode(schema, {"m": number})
        padded = write_long(len(datum) + 3) + (b"\xff" if number < 0 else b"\0") * 4 + datum[1:]
        engine = make(schema)
        batch = engine.decode([padded] * N)
        assert batch.column("m")[0].as_py() == Decimal(number).scaleb(-2)
        assert list(engine.encode(batch)) == [datum] * N
        assert isinstance(engine.check([padded] * N), CheckedBatch)


# --- what may be given to encode -----------------------------------------------------------------------------


def test_columns_may_stand_in_any_order(make: Make) -> None:
    engine = make(SIMPLE)
    assert engine.encode(simple().select(["n", "id"])) == engine.encode(simple())


def test_columns_must_be_exactly_the_fields(make: Make) -> None:
    engine, batch = make(SIMPLE), simple()
    refused(lambda: engine.encode(batch.drop_columns(["n"])), Reason.FIELD_UNKNOWN)
    refused(lambda: engine.encode(batch.append_column("more", batch.column("n"))), Reason.FIELD_UNKNOWN)
    twice = pa.RecordBatch.from_arrays([*batch.columns, batch.column("n")], names=["id", "n", "n"])
    assert "n" in refused(lambda: engine.encode(twice), Reason.FIELD_UNKNOWN).message


def replaced(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, column)


def test_types_are_converted_where_nothing_is_lost(make: Make) -> None:
    schema = record(
        ("colour", COLOUR), ("m", MONEY), ("t", {"type": "long", "logicalType": "timestamp-micros"}), ("d", "double")
    )
    engine = make(schema)
    moment = datetime.fromisoformat("2025-08-01T00:00:00+08:00")
    exact = pa.RecordBatch.from_arrays(
        [
            pa.DictionaryArray.from_arrays(pa.array([1] * N, pa.int32()), pa.array(["red", "green", "blue"])),
            pa.array([Decimal("1.50")] * N, pa.decimal128(9, 2)),
            pa.array([moment] * N, pa.timestamp("us", "UTC")),
            pa.array([0.5] * N),
        ],
        schema=engine.schema,
    )
    wanted = engine.encode(exact)
    for name, column in {
        "colour": [
            pa.array(["green"] * N),
            pa.array(["green"] * N, pa.large_string()),
            pa.array(["green"] * N).dictionary_encode(),
        ],
        "m": [
            pa.array([Decimal("1.5")] * N, pa.decimal128(4, 1)),
            pa.array([Decimal("1.500")] * N, pa.decimal256(50, 3)),
        ],
        "t": [pa.array([moment] * N, pa.timestamp("s", "+08:00"))],
        "d": [pa.array([0.5] * N, pa.float32())],
    }.items():
        for each in column:
            assert engine.encode(replaced(exact, name, each)) == wanted, each.type


@pytest.mark.parametrize(
    ("avro_type", "column"),
    [
        ("int", pa.array([2**31] * N)),
        ("long", pa.array([2**63] * N, pa.uint64())),
        ("int", pa.array(["1"] * N)),
        ("string", pa.array([1] * N)),
        ("float", pa.array([0.1] * N)),
        (COLOUR, pa.array(["pink"] * N)),
        (COLOUR, pa.array([1] * N)),
        (MONEY, pa.array([Decimal("1.005")] * N)),
        (MONEY, pa.array([Decimal("12345678.00")] * N, pa.decimal128(20, 2))),
        ({"type": "long", "logicalType": "timestamp-micros"}, pa.array([datetime(2025, 8, 1)] * N)),  # noqa: DTZ001
        ({"type": "long", "logicalType": "local-timestamp-micros"}, pa.array([0] * N, pa.timestamp("us", "UTC"))),
        ({"type": "long", "logicalType": "timestamp-micros"}, pa.array([2**62] * N, pa.timestamp("us", "UTC"))),
        (DATE, pa.array([2_932_897] * N, pa.int32()).view(pa.date32())),
        (DATE, pa.array([-719_163] * N, pa.int32()).view(pa.date32())),
        ({"type": "int", "logicalType": "time-millis"}, pa.array([86_400_000] * N, pa.int32()).view(pa.time32("ms"))),
        ({"type": "fixed", "name": "f", "size": 4}, pa.array([b"12345"] * N, pa.binary(5))),
        (
            NAME,
            pa.array([{"family": "x", "given": "y"}] * N, pa.struct([("family", pa.string()), ("given", pa.string())])),
        ),
        ({"type": "array", "items": "long"}, pa.array([[1]] * N, pa.list_(pa.float64()))),
    ],
)
def test_a_value_that_does_not_fit_is_refused(make: Make, avro_type: Any, column: pa.Array) -> None:
    engine = make(record(("x", avro_type)))
    error = refused(lambda: engine.encode(pa.record_batch({"x": column})))
    assert error.details["field"] == "x"


REQUIRED = [
    "boolean", "int", "long", "float", "double", "bytes", "string", DATE, MONEY, MONEY_FIXED, COLOUR,
    {"type": "fixed", "name": "f", "size": 8}, {"type": "array", "items": "int"}, {"type": "map", "values": "int"},
    PART,
]  # fmt: skip


@pytest.mark.parametrize("avro_type", REQUIRED, ids=lambda each: str(each)[:40])
def test_a_null_where_none_may_be_is_refused_whatever_lies_under_it(make: Make, avro_type: Any) -> None:
    # The engine below writes the value under the null: a mask by if_else would put the plaintext on the wire.
    schema = record(("x", avro_type))
    rng = random.Random(3)
    engine = make(schema)
    batch = engine.decode([encode(schema, random_value(rng, schema)) for _ in range(N)])
    masked = batch.column("x").take(pa.array([None if row == 17 else row for row in range(N)], pa.int64()))
    error = refused(lambda: engine.encode(pa.RecordBatch.from_arrays([masked], names=["x"])))
    assert error.details == {"index": "17", "field": "x", "count": "1"}


def test_a_plaintext_under_a_null_never_reaches_the_wire(make: Make) -> None:
    secret = b"11010519491231002X"
    values = pa.array([secret.decode()] * N)
    validity = pa.py_buffer(bytes(8))
    hidden = pa.Array.from_buffers(pa.string(), N, [validity, *values.buffers()[1:]], N)
    batch = pa.record_batch({"x": hidden})
    refused(lambda: make(record(("x", "string"))).encode(batch))
    assert list(make(record(("x", ["null", "string"]))).encode(batch)) == [b"\0"] * N


def test_a_null_inside_is_refused_where_it_shows_and_ignored_where_it_is_hidden(make: Make) -> None:
    engine = make(record(("part", ["null", PART]), ("list", {"type": "array", "items": "int"}), ("u", ["int", "Part"])))
    parts = pa.array([{"a": 1, "b": "x"}, None] * (N // 2), pa.struct([("a", pa.int32()), ("b", pa.string())]))
    broken = pa.array([{"a": 1, "b": None}, None] * (N // 2), pa.struct([("a", pa.int32()), ("b", pa.string())]))
    lists, hollow = pa.array([[1, 2]] * N, pa.list_(pa.int32())), pa.array([[1, None]] * N, pa.list_(pa.int32()))

    def union(values: list[Any]) -> pa.Array:
        codes = pa.array([0] * N, pa.int8())
        part = pa.array([None] * N, parts.type)
        return pa.UnionArray.from_sparse(codes, [pa.array(values, pa.int32()), part], ["b0", "b1"], [0, 1])

    def batch(*arrays: pa.Array) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(list(arrays), names=["part", "list", "u"])

    assert len(engine.encode(batch(parts, lists, union([5] * N)))) == N
    assert refused(lambda: engine.encode(batch(broken, lists, union([5] * N)))).details["field"] == "part.b"
    assert refused(lambda: engine.encode(batch(parts, hollow, union([5] * N)))).details["field"] == "list"
    assert refused(lambda: engine.encode(batch(parts, lists, union([None] * N)))).details["field"] == "u"


def test_a_dictionary_in_another_order_is_written_by_its_texts(make: Make) -> None:
    engine = make(record(("c", COLOUR)))
    other = pa.DictionaryArray.from_arrays(pa.array([0, 1] * (N // 2), pa.int32()), pa.array(["blue", "red"]))
    assert list(engine.encode(pa.record_batch({"c": other}))) == [b"\x04", b"\x00"] * (N // 2)

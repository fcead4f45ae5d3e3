"""What every engine keeps true, demanded of both: the row engine, and the codec with its column engine."""

import json
import random
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from registry.codec import COLUMNS_FROM, Checked, CodecEngine, Engine, RowError, counts
from registry.engine import MAX_ROW_ERRORS
from registry.parsing import parse
from registry.rows import RowEngine
from schemas.errors import InvalidError, Reason
from schemas.record import Packed, key_bytes
from tests.kit.avro import POPULATION, encode, id18, population, random_datum, random_record, random_value, write_long

N = 40  # enough for columns
Make = Callable[[Any], Engine]


def rows(schema: Any) -> Engine:
    return RowEngine(parse(json.dumps(schema)))


def columns(schema: Any) -> Engine:
    engine = CodecEngine(parse(json.dumps(schema)))
    assert engine.columns is not None, engine.fallback
    return engine


@pytest.fixture(params=[rows, columns])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def record(*fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "r", "fields": [{"name": n, "type": t} for n, t in fields], **more}


def refused(call: Callable[[], Any], reason: Reason = Reason.RECORD_INVALID) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value


def errors_of(answer: Checked | list[RowError]) -> list[RowError]:
    assert isinstance(answer, list), answer
    return answer


DATE = {"type": "int", "logicalType": "date"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
MONEY_FIXED = {"type": "fixed", "name": "m", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["red", "green", "blue"]}
NAME = {"type": "record", "name": "Name", "fields": [{"name": n, "type": "string"} for n in ("given", "family")]}
PART = {"type": "record", "name": "Part", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "string"}]}

EVERYTHING = record(
    ("text", "string"),
    ("colour", COLOUR),
    ("maybe", ["null", "long"]),
    ("never", "null"),
    ("day", DATE),
    ("money", MONEY),
    ("fixed_money", MONEY_FIXED),
    ("code", {"type": "fixed", "name": "c", "size": 12}),
    ("part", ["null", PART]),
    ("tags", {"type": "array", "items": ["null", "string"]}),
    ("props", {"type": "map", "values": {"type": "array", "items": "Part"}}),
    ("either", ["int", "string", "long", "Part"]),
    ("nothing", {"type": "record", "name": "Nothing", "fields": [{"name": "x", "type": "null"}]}),
    ("ratio", "float"),
)


def everything(count: int = N) -> list[bytes]:
    rng = random.Random(7)
    return [encode(EVERYTHING, random_value(rng, EVERYTHING)) for _ in range(count)]


# --- the same bytes, the same columns ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, COLUMNS_FROM, 333])
def test_what_was_written_is_read_and_written_again(make: Make, count: int) -> None:
    engine, datums = make(EVERYTHING), everything(count)
    batch = engine.decode(datums)
    batch.validate(full=True)
    assert len(batch) == count
    assert batch.schema.equals(engine.schema)
    assert list(engine.encode(batch)) == datums
    assert engine.check(datums) == Checked(keys=[])


def test_packed_and_listed_datums_are_the_same(make: Make) -> None:
    engine, datums = make(EVERYTHING), everything()
    assert engine.encode(engine.decode(Packed.of(datums))) == Packed.of(datums)
    assert engine.check(Packed.of(datums)) == engine.check(tuple(datums)) == Checked(keys=[])


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
        assert isinstance(engine.check([padded] * N), Checked)


# --- what may be given to encode -----------------------------------------------------------------------------


def simple(count: int = N) -> pa.RecordBatch:
    return pa.record_batch(
        {"id": pa.array([f"k{i}" for i in range(count)]), "n": pa.array(range(count), pa.int32())},
    )


SIMPLE = record(("id", "string"), ("n", "int"))


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


# --- check: acceptance ---------------------------------------------------------------------------------------


def people(count: int = N) -> list[dict[str, Any]]:
    rng = random.Random(11)
    return [population(rng) for _ in range(count)]


def encoded(persons: list[dict[str, Any]]) -> list[bytes]:
    return [encode(POPULATION, person) for person in persons]


def test_a_good_batch_passes_and_gives_its_keys(make: Make) -> None:
    persons = people()
    checked = make(POPULATION).check(encoded(persons))
    assert checked == Checked(keys=[key_bytes([person["id_number"]]) for person in persons])


def test_a_key_of_several_parts_is_joined_as_the_published_language_says(make: Make) -> None:
    schema = record(("a", "string"), ("n", ["null", "long"]), ("d", DATE), ("c", COLOUR), key=["d", "a", "n", "c"])
    values = [{"a": f"王{i}", "n": (1, -i), "d": i - 20, "c": "blue"} for i in range(N)]
    checked = make(schema).check([encode(schema, value) for value in values])
    assert isinstance(checked, Checked)
    assert list(checked.keys) == [key_bytes([str(i - 20), f"王{i}", str(-i), "blue"]) for i in range(N)]


@pytest.mark.parametrize("part", [(0, None), (1, ""), (1, "a\x1fb")])
def test_a_key_part_that_is_missing_or_ambiguous_is_refused(make: Make, part: Any) -> None:
    schema = record(("a", ["null", "string"]), ("b", "string"), key=["b", "a"])
    datums = [encode(schema, {"a": (1, "x"), "b": "y"})] * N
    datums[5] = encode(schema, {"a": part, "b": "y"})
    (error,) = errors_of(make(schema).check(datums))
    assert (error.index, error.reason) == (5, Reason.RECORD_INVALID)
    assert "key" in error.message


BREAKS: dict[str, tuple[str, Any]] = {
    "a wrong check character": ("id_number", "110105194912310021"),
    "an empty name": ("full_name", ""),
    "a code not in the list": ("sex_code", "3"),
    "a phone of ten digits": ("mobile_phone", (1, "1380013800")),
    "a guardian's number": ("guardian_id_number", (1, "11010519491231002x")),
}


@pytest.mark.parametrize(("field", "value"), BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_rule_is_refused_with_row_and_field_and_without_the_value(make: Make, field: str, value: Any) -> None:
    persons = people()
    persons[3] = {**persons[3], field: value}
    persons[9] = {**persons[9], field: value}
    errors = errors_of(make(POPULATION).check(encoded(persons)))
    assert [(error.index, error.field) for error in errors] == [(3, field), (9, field)]
    text = value if isinstance(value, str) else value[1]
    assert not text or all(text not in error.message for error in errors)


def test_a_rule_is_not_looked_at_where_its_condition_does_not_hold(make: Make) -> None:
    persons = people()
    persons[3] = {**persons[3], "id_type": "passport", "id_number": "E12345678"}
    assert isinstance(make(POPULATION).check(encoded(persons)), Checked)


def test_an_early_credit_code_passes_with_a_warning(make: Make) -> None:
    schema = record(("code", "string"))
    schema["fields"][0]["check"] = "uscc"
    datums = [encode(schema, {"code": "91110000600037341L"})] * N
    datums[7] = encode(schema, {"code": "91110000600037341M"})
    checked = make(schema).check(datums)
    assert isinstance(checked, Checked)
    assert [(warning.index, warning.field) for warning in checked.warnings] == [(7, "code")]


def test_no_more_rows_are_reported_than_the_limit(make: Make) -> None:
    engine = make(POPULATION)
    broken = encoded([{**person, "full_name": "", "sex_code": "7"} for person in people(150)])
    errors = errors_of(engine.check(broken))
    assert len(errors) == MAX_ROW_ERRORS
    assert [error.index for error in errors] == sorted(error.index for error in errors)
    assert len(errors_of(engine.check([b"\xff"] * 150))) == MAX_ROW_ERRORS


TWO = record(("t", "string"), ("n", "int"), ("b", "boolean"), ("o", ["null", "long"]), ("c", COLOUR), ("m", MONEY))
GOOD = encode(TWO, {"t": "ab", "n": 1, "b": True, "o": (1, 5), "c": "red", "m": 7})

MALFORMED: dict[str, tuple[bytes, str]] = {
    "cut short": (GOOD[:-1], "m"),
    "empty": (b"", "t"),
    "bytes behind": (GOOD + b"\0", ""),
    "not UTF-8": (b"\x04\xff\xfe" + GOOD[3:], "t"),
    "a surrogate in UTF-8": (b"\x06\xed\xa0\x80" + GOOD[3:], "t"),
    "a length below 0": (b"\x03" + GOOD[1:], "t"),
    "a length of 2^50": (write_long(2**50) + GOOD[1:], "t"),
    "a length in more bytes than needed": (b"\x84\x00ab" + GOOD[3:], "t"),
    "an int beyond 32 bits": (GOOD[:3] + write_long(2**31) + GOOD[4:], "n"),
    "an int of 2^32, which wraps to 0": (GOOD[:3] + write_long(2**32) + GOOD[4:], "n"),
    "a number of eleven bytes": (GOOD[:3] + b"\x80" * 10 + b"\x01" + GOOD[4:], "n"),
    "a number beyond 64 bits": (GOOD[:3] + b"\xff" * 9 + b"\x7f" + GOOD[4:], "n"),
    "a long beyond 64 bits": (GOOD[:6] + b"\xff" * 9 + b"\x7f" + GOOD[7:], "o"),
    "a boolean of 2": (GOOD[:4] + b"\x02" + GOOD[5:], "b"),
    "a branch that does not exist": (GOOD[:5] + b"\x04" + GOOD[6:], "o"),
    "a branch below 0": (GOOD[:5] + b"\x01" + GOOD[6:], "o"),
    "a branch in more bytes than needed": (GOOD[:5] + b"\x82\x00" + GOOD[6:], "o"),
    "a symbol that does not exist": (GOOD[:7] + b"\x06" + GOOD[8:], "c"),
    "a symbol below 0": (GOOD[:7] + b"\x01" + GOOD[8:], "c"),
    "a decimal of no bytes": (GOOD[:8] + b"\x00", "m"),
    "a decimal of too many digits": (GOOD[:8] + b"\x08\x3b\x9a\xca\x00", "m"),
}


@pytest.mark.parametrize(("datum", "field"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_datum_that_is_not_exactly_avro_of_the_schema_is_refused(make: Make, datum: bytes, field: str) -> None:
    datums = [GOOD] * N
    datums[N - 2] = datum
    (error,) = errors_of(make(TWO).check(datums))
    assert (error.index, error.field, error.reason) == (N - 2, field, Reason.RECORD_INVALID)
    assert error.message.startswith("expected")


@pytest.mark.parametrize(
    "name", ["cut short", "not UTF-8", "an int beyond 32 bits", "a symbol below 0", "a boolean of 2"]
)
def test_what_cannot_be_read_is_refused_by_decode_with_row_and_field(make: Make, name: str) -> None:
    datum, field = MALFORMED[name]
    datums = [GOOD] * N
    datums[4] = datum
    assert refused(lambda: make(TWO).decode(datums)).details == {"index": "4", "field": field, "count": "1"}


LISTS = record(("l", {"type": "array", "items": "long"}), ("m", {"type": "map", "values": "long"}))


def test_arrays_and_maps_in_several_blocks_are_legal(make: Make) -> None:
    one = encode(LISTS, {"l": [1, 2, 3], "m": [("a", 1), ("b", 2)]})
    entry = b"\x02a\x02", b"\x02b\x04"
    split = b"\x02\x02" + b"\x03\x04\x04\x06" + b"\0" + b"\x01" + write_long(3) + entry[0] + b"\x02" + entry[1] + b"\0"
    engine = make(LISTS)
    assert engine.check([split] * N) == Checked(keys=[])
    assert list(engine.encode(engine.decode([split] * N))) == [one] * N


@pytest.mark.parametrize(
    "blocks",
    [
        b"\x01\x06\x02\0",  # one item, said to take three bytes: a reader that skips would read something else
        b"\x04\x02",  # no end
        write_long(2**60) + b"\x02\0",
        write_long(-(2**63)) + b"\x02\0",
        b"\x82\x00\x02\0",  # the count in more bytes than needed
    ],
)
def test_blocks_that_are_not_what_they_say_are_refused(make: Make, blocks: bytes) -> None:
    errors = errors_of(make(LISTS).check([b"\0\0"] * N + [blocks + b"\0"]))
    assert [(error.index, error.field) for error in errors] == [(N, "l")]


def test_a_recursive_record_may_not_be_deeper_than_the_limit() -> None:
    schema = record(("next", ["null", "r"]))
    engine = CodecEngine(parse(json.dumps(schema)))
    assert engine.columns is None
    assert engine.check([b"\x02" * 64 + b"\0"] * N) == Checked(keys=[])
    for depth in (66, 1_000_000):
        assert errors_of(engine.check([b"\x02" * depth + b"\0"] * N))[0].field.startswith("next")


def test_a_recursive_value_must_be_exactly_one_datum() -> None:
    engine = CodecEngine(parse(json.dumps(record(("next", ["null", "r"])))))
    batch = engine.decode([b"\x02\x02\0"])
    assert list(engine.encode(batch)) == [b"\x02\x02\0"]
    for bad in (b"", b"\x02", b"\0\0", b"\x07"):
        refused(lambda bad=bad: engine.encode(pa.record_batch({"next": pa.array([bad])})))


def test_a_batch_below_the_limit_goes_to_rows_and_one_above_to_columns() -> None:
    engine, datums = columns(SIMPLE), [encode(SIMPLE, {"id": "a", "n": 1})] * COLUMNS_FROM
    before = (counts.rows, counts.columns)
    engine.decode(datums[1:])
    engine.decode(datums)
    assert (counts.rows, counts.columns) == (before[0] + 1, before[1] + 1)


def test_a_batch_that_decodes_beyond_the_cap_is_refused() -> None:
    items = {"type": "record", "name": "q", "fields": [{"name": f"f{i}", "type": "long"} for i in range(7)]}
    schema = record(("l", {"type": "array", "items": ["null", items]}))
    datum = write_long(40_000) + bytes(40_000) + b"\0"
    with pytest.raises(InvalidError) as caught:
        columns(schema).decode([datum] * N)
    assert caught.value.reason is Reason.BATCH_TOO_LARGE


def test_schemas_without_fields_have_no_engine() -> None:
    for text in ('"string"', '{"type": "record", "name": "r", "fields": []}'):
        refused(lambda text=text: CodecEngine(parse(text)), Reason.SCHEMA_INVALID)


def test_numbers_under_nulls_are_never_looked_at(make: Make) -> None:
    engine = make(record(("d", ["null", DATE]), ("m", ["null", MONEY])))
    garbage = np.full(N * 2, 2**62, np.int64)
    validity = pa.py_buffer(bytes(8))
    batch = pa.record_batch(
        {
            "d": pa.Array.from_buffers(pa.date32(), N, [validity, pa.py_buffer(garbage)], N),
            "m": pa.Array.from_buffers(pa.decimal128(9, 2), N, [validity, pa.py_buffer(garbage)], N),
        }
    )
    assert list(engine.encode(batch)) == [b"\0\0"] * N
    if isinstance(engine, CodecEngine) and engine.columns is not None:
        assert list(engine.columns.encode(batch)) == [b"\0\0"] * N  # without handing them over


def test_a_key_may_be_long_and_of_any_script(make: Make) -> None:
    schema = record(("a", "string"), key=["a"])
    texts = ["王" * 500, "\U0001f600", id18(random.Random(1)), " "] * (N // 4)
    checked = make(schema).check([encode(schema, {"a": text}) for text in texts])
    assert isinstance(checked, Checked)
    assert list(checked.keys) == [text.encode() for text in texts]


def test_random_schemas_keep_the_contract_too(make: Make) -> None:
    kept = 0
    for seed in range(60):
        rng = random.Random(seed)
        schema = random_record(rng)
        parsed = parse(json.dumps(schema))
        if CodecEngine(parsed).columns is None:
            continue
        engine = make(schema)
        datums = [random_datum(rng, schema) for _ in range(N)]
        batch = engine.decode(datums)
        assert list(engine.encode(batch.slice(3))) == datums[3:], seed
        assert engine.check(datums) == Checked(keys=[]), seed
        kept += 1
    assert kept > 30

"""What every engine accepts of a published batch, and what it refuses."""

import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from registry.avro.parser import parse
from registry.codec.codec import COLUMNAR_MIN_RECORDS, CheckedBatch, CodecEngine
from registry.codec.engine import MAX_ROW_ERRORS, Engine
from schemas.errors import InvalidError, Reason
from schemas.record import key_bytes
from tests.kit.cases.engines import COLOUR, DATE, MONEY, SIMPLE, Make, N, columns, errors_of, record, refused, rows
from tests.kit.cases.random_avro import POPULATION, encode, id18, population, random_datum, random_record, write_long


@pytest.fixture(params=[rows, columns])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


# --- check: acceptance ---------------------------------------------------------------------------------------


def people(count: int = N) -> list[dict[str, Any]]:
    rng = random.Random(11)
    return [population(rng) for _ in range(count)]


def encoded(persons: list[dict[str, Any]]) -> list[bytes]:
    return [encode(POPULATION, person) for person in persons]


def test_a_good_batch_passes_and_gives_its_keys(make: Make) -> None:
    persons = people()
    checked = make(POPULATION).check(encoded(persons))
    assert checked == CheckedBatch(keys=[key_bytes([person["id_number"]]) for person in persons])


def test_a_key_of_several_parts_is_joined_as_the_published_language_says(make: Make) -> None:
    schema = record(("a", "string"), ("n", ["null", "long"]), ("d", DATE), ("c", COLOUR), key=["d", "a", "n", "c"])
    values = [{"a": f"王{i}", "n": (1, -i), "d": i - 20, "c": "blue"} for i in range(N)]
    checked = make(schema).check([encode(schema, value) for value in values])
    assert isinstance(checked, CheckedBatch)
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
    assert isinstance(make(POPULATION).check(encoded(persons)), CheckedBatch)


def test_an_early_credit_code_passes_with_a_warning(make: Make) -> None:
    schema = record(("code", "string"))
    schema["fields"][0]["check"] = "uscc"
    datums = [encode(schema, {"code": "91110000600037341L"})] * N
    datums[7] = encode(schema, {"code": "91110000600037341M"})
    checked = make(schema).check(datums)
    assert isinstance(checked, CheckedBatch)
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
    assert engine.check([split] * N) == CheckedBatch(keys=[])
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
    assert engine.check([b"\x02" * 64 + b"\0"] * N) == CheckedBatch(keys=[])
    for depth in (66, 1_000_000):
        assert errors_of(engine.check([b"\x02" * depth + b"\0"] * N))[0].field.startswith("next")


def test_a_recursive_value_must_be_exactly_one_datum() -> None:
    engine = CodecEngine(parse(json.dumps(record(("next", ["null", "r"])))))
    batch = engine.decode([b"\x02\x02\0"])
    assert list(engine.encode(batch)) == [b"\x02\x02\0"]
    for bad in (b"", b"\x02", b"\0\0", b"\x07"):
        refused(lambda bad=bad: engine.encode(pa.record_batch({"next": pa.array([bad])})))


def test_a_batch_below_the_limit_goes_to_rows_and_one_above_to_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, datums = columns(SIMPLE), [encode(SIMPLE, {"id": "a", "n": 1})] * COLUMNAR_MIN_RECORDS
    assert isinstance(engine, CodecEngine)
    assert engine.columns is not None
    asked: list[tuple[str, int]] = []
    for each in (engine.columns, engine.rows):

        def recorded(given: list[bytes], select: None, each: Engine = each) -> pa.RecordBatch:
            asked.append((each.name, len(given)))
            return type(each).decode(each, given, select)

        monkeypatch.setattr(each, "decode", recorded)
    engine.decode(datums[1:])
    engine.decode(datums)
    assert asked == [("rows", COLUMNAR_MIN_RECORDS - 1), ("columns", COLUMNAR_MIN_RECORDS)]


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
    assert isinstance(checked, CheckedBatch)
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
        assert engine.check(datums) == CheckedBatch(keys=[]), seed
        kept += 1
    assert kept > 30

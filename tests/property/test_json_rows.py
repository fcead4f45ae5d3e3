"""Decoded records as JSON: each value in the form of its type, none with a digit less. The oracle decodes naively."""

import base64
import json
import math
import random
import struct
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.json_rows import json_rows
from tests.kit.cases.random_avro import encode, random_record, random_value

_SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "n", "type": "long"},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 10}},
        {"name": "x", "type": ["null", "double"]},
        {"name": "m", "type": {"type": "map", "values": ["null", "long"]}},
    ],
}
_DAY = date(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the offset is written by the type
_EXACT = Context(prec=100)
_UNITS = {"millis": 1_000, "micros": 1}


def expected(avro: Any, value: Any) -> Any:  # noqa: PLR0911 - one way out a type
    """Return the JSON form of a value of `random_value`, by the table of `registry.codec.json_rows`."""
    if isinstance(avro, list):
        branch, inner = value
        return expected(avro[branch], inner)
    kind = avro if isinstance(avro, str) else avro["type"]
    logical = "" if isinstance(avro, str) else avro.get("logicalType", "")
    if logical == "decimal":
        return format(Decimal(value).scaleb(-avro.get("scale", 0), _EXACT), "f")
    if logical == "date":
        return (_DAY + timedelta(days=value)).isoformat()
    if logical.startswith("time-"):
        at = _EPOCH + timedelta(microseconds=value * _UNITS[logical.removeprefix("time-")])
        return at.time().isoformat()
    if "timestamp" in logical:
        offset, unit = ("" if logical.startswith("local") else "+00:00"), logical.rpartition("-")[2]
        if unit == "nanos":
            at = _EPOCH + timedelta(seconds=value // 10**9)
            return f"{at.isoformat()}.{value % 10**9:09}{offset}"
        return (_EPOCH + timedelta(microseconds=value * _UNITS[unit])).isoformat() + offset
    match kind:
        case "record":
            return {field["name"]: expected(field["type"], value[field["name"]]) for field in avro["fields"]}
        case "array":
            return [expected(avro["items"], each) for each in value]
        case "map":
            return {key: expected(avro["values"], each) for key, each in value}
        case "long":
            return str(value)
        case "bytes" | "fixed":
            return base64.b64encode(value).decode()
        case "float" | "double":
            (number,) = struct.unpack("<f" if kind == "float" else "<d", value)
            return number if math.isfinite(number) else str(number).replace("inf", "Infinity").replace("nan", "NaN")
    return value


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_each_value_has_the_form_of_its_type(rng: random.Random, count: int) -> None:
    schema = random_record(rng)
    values = [random_value(rng, schema) for _ in range(count)]
    texts = json_rows(engine_for(parse(json.dumps(schema))).decode([encode(schema, value) for value in values]))
    assert [json.loads(text) for text in texts] == [json.loads(json.dumps(expected(schema, value))) for value in values]


def test_the_largest_integer_a_long_decimal_and_what_is_no_number() -> None:
    value = {"n": 2**63 - 1, "d": -(10**39) - 1, "x": (1, struct.pack("<d", math.inf)), "m": [("a", (1, -(2**63)))]}
    records = engine_for(parse(json.dumps(_SCHEMA))).decode([encode(_SCHEMA, value)])
    (text,) = json_rows(records)
    assert text == (
        '{"n":"9223372036854775807","d":"-100000000000000000000000000000.0000000001","x":"Infinity",'
        '"m":{"a":"-9223372036854775808"}}'
    )

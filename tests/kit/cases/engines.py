"""Both engines under one name each, and schemas that the engine tests share."""

import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from registry.avro.parser import parse
from registry.codec.codec import CheckedBatch, CodecEngine, Engine, RowError
from registry.codec.row_engine import RowEngine
from schemas.errors import InvalidError, Reason
from tests.kit.cases.random_avro import encode, random_value

N = 40  # enough for columns
Make = Callable[[Any], Engine]


def rows(schema: Any) -> Engine:
    return RowEngine(parse(json.dumps(schema)))


def columns(schema: Any) -> Engine:
    engine = CodecEngine(parse(json.dumps(schema)))
    assert engine.columns is not None, engine.fallback
    return engine


def record(*fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "r", "fields": [{"name": n, "type": t} for n, t in fields], **more}


def refused(call: Callable[[], Any], reason: Reason = Reason.RECORD_INVALID) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value


def errors_of(answer: CheckedBatch | list[RowError]) -> list[RowError]:
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


def simple(count: int = N) -> pa.RecordBatch:
    return pa.record_batch(
        {"id": pa.array([f"k{i}" for i in range(count)]), "n": pa.array(range(count), pa.int32())},
    )


SIMPLE = record(("id", "string"), ("n", "int"))

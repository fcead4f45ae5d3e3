"""Records of a view as text: the mapping reads back what the pool delivered, or sets the row aside."""

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.mapping.contract import parse_contract
from connectors.mapping.mapping import ColumnMapping
from connectors.port import RowChunk
from connectors.sources.pool.view_texts import as_texts
from registry.avro.parser import parse
from registry.codec.codec import engine_for

_LONG = st.integers(-(2**63), 2**63 - 1)
_MICROS = st.integers(0, 999_999)
_TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001 - without a zone
_UTC = timezone(timedelta(0))
_FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": ("string", st.text(st.characters(exclude_categories=("Cs",)))),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", _LONG),
    "float": ("float", st.floats(width=32)),
    "double": ("double", st.floats()),
    "flag": ("boolean", st.booleans()),
    "raw": ("bytes", st.binary(max_size=9)),
    "four": ({"type": "fixed", "name": "Four", "size": 4}, st.binary(min_size=4, max_size=4)),
    "kind": ({"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, st.sampled_from("AB")),
    "amount": (
        {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 9},
        st.decimals("-9e20", "9e20", places=9, allow_nan=False),
    ),
    "day": ({"type": "int", "logicalType": "date"}, st.dates(date(1, 1, 1))),
    "clock": ({"type": "long", "logicalType": "time-micros"}, st.times()),
    "at": ({"type": "long", "logicalType": "timestamp-micros"}, _TIMES.map(lambda at: at.replace(tzinfo=_UTC))),
    "local": ({"type": "long", "logicalType": "local-timestamp-micros"}, _TIMES),
    "millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        _TIMES.map(lambda at: at.replace(tzinfo=_UTC, microsecond=at.microsecond // 1000 * 1000)),
    ),
}
SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "All",
        "key": ["id"],
        "fields": [
            {"name": "id", "type": "string"},
            *({"name": name, "type": ["null", kind], "default": None} for name, (kind, _) in _FIELDS.items()),
        ],
    }
)
ENGINE = engine_for(parse(SCHEMA))
MAPPING = ColumnMapping(parse_contract(1, SCHEMA), ENGINE, {}).bind(["id", *_FIELDS])
ROWS = st.fixed_dictionaries({name: st.none() | values for name, (_, values) in _FIELDS.items()})


@given(st.lists(ROWS, min_size=1, max_size=5))
@example([dict.fromkeys(_FIELDS) | {"float": each, "double": each} for each in map(float, ("nan", "inf", "-inf"))])
def test_each_value_comes_back(rows: list[dict[str, Any]]) -> None:
    stated = [{"id": str(number), **row} for number, row in enumerate(rows)]
    delivered = ENGINE.decode(list(ENGINE.encode(pa.RecordBatch.from_pylist(stated, schema=ENGINE.schema))))
    chunk = RowChunk(columns=as_texts(delivered), lines=range(len(rows)), originals=[b""] * len(rows))
    mapped = MAPPING.map(chunk)
    assert not mapped.rejects
    assert list(map(repr, mapped.batch.to_pylist())) == list(map(repr, delivered.to_pylist())), "NaN equals nothing"


def test_the_forms() -> None:
    row = {
        "id": "1",
        "text": "",
        "int": -7,
        "double": 1e-7,
        "amount": Decimal("0.000000001"),
        "raw": b"\0\xff",
        "day": date(987, 6, 5),
        "clock": time(9, 5),
        "at": datetime(2026, 1, 31, 9, 30, tzinfo=_UTC),
    }
    texts = as_texts(pa.RecordBatch.from_pylist([row], schema=ENGINE.schema))
    stated = {name: column[0].as_py() for name, column in texts.items() if column[0].is_valid}
    assert stated == {
        "id": "1",
        "text": "",
        "int": "-7",
        "double": "1e-07",
        "amount": "0.000000001",
        "raw": r"\x00ff",
        "day": "0987-06-05",
        "clock": "09:05:00.000000",
        "at": "2026-01-31 09:30:00.000000Z",
    }

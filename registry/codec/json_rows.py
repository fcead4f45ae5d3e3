"""JSON form of decoded records (RFC 8259): each row an object, of which no reader loses a digit. Pure.

    Avro                            JSON
    null, boolean, int              null, true or false, number
    long                            text in decimal: most readers keep 53 bits of a number (RFC 8259, section 6)
    float, double                   number; "NaN", "Infinity" and "-Infinity", for which JSON has no number
    decimal                         text in decimal, with all places of its scale
    string, uuid, enum              text
    bytes, fixed, duration          text in base64 (RFC 4648, section 4)
    date, time, timestamp           text (RFC 3339); timestamps with the offset +00:00, local ones without an offset,
                                    those of nanoseconds with nine digits
    record, array, map              object, array, object
    union                           the form of its branch
    recursive reference             text in base64: the Avro bytes of the value

Whether a value is a number or a text depends on its type alone, never on the value. For integers and the three words
this is the JSON mapping of Protocol Buffers.
"""

import base64
import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["json_rows"]

_Convert = Callable[[Any], Any]


def json_rows(records: pa.RecordBatch) -> list[str]:
    """Return the rows of decoded records as JSON texts, in order; members are in the order of the fields."""
    names = records.schema.names
    rows = zip(*map(_values, records.columns), strict=True)
    return [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, separators=(",", ":")) for row in rows]


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column in the form that the module states."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return _nanoseconds(column)
    nested = next((values for test, values in _NESTED if test(kind)), None)
    if nested is not None:
        return nested(column)
    values: list[Any] = column.to_pylist()
    convert = next((convert for test, convert in _SCALARS if test(kind)), None)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _nanoseconds(column: pa.Array) -> list[Any]:
    texts = pc.replace_substring(pc.cast(column.cast(pa.timestamp("ns")), pa.string()), " ", "T")
    offset = "+00:00" if column.type.tz else ""
    return [None if text is None else text + offset for text in texts.to_pylist()]


def _lists(column: pa.Array) -> list[Any]:
    return list(_parts(column, _values(column.values)))


def _maps(column: pa.Array) -> list[Any]:
    pairs = list(zip(_values(column.keys), _values(column.items), strict=True))
    return [None if part is None else dict(part) for part in _parts(column, pairs)]


def _parts(column: pa.Array, items: Sequence[Any]) -> Iterator[Sequence[Any] | None]:
    ends = column.offsets.to_pylist()
    for at, valid in enumerate(column.is_valid().to_pylist()):
        yield items[ends[at] : ends[at + 1]] if valid else None


def _structs(column: pa.Array) -> list[Any]:
    names = [field.name for field in column.type]
    if not names:
        return [{} if valid else None for valid in column.is_valid().to_pylist()]
    rows = zip(*(_values(column.field(at)) for at in range(len(names))), strict=True)
    valid = column.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if is_valid else None for is_valid, row in zip(valid, rows, strict=True)]


def _unions(column: pa.Array) -> list[Any]:
    branches = [_values(column.field(at)) for at in range(column.type.num_fields)]
    return [branches[branch][row] for row, branch in enumerate(column.type_codes.to_pylist())]


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> str:
    return format(value, "f")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _isoformat(value: date | time) -> str:
    return value.isoformat()


_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], _Convert], ...] = (
    (pa.types.is_int64, str),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_binary, _base64),
    (pa.types.is_fixed_size_binary, _base64),
    (pa.types.is_temporal, _isoformat),
)
_NESTED: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...] = (
    (pa.types.is_map, _maps),
    (pa.types.is_list, _lists),
    (pa.types.is_struct, _structs),
    (pa.types.is_union, _unions),
)

r"""Records of a view → columns of text, in the forms that `connectors.mapping.conversion` reads back exactly. Pure.

    decimal                 all its digits, without an exponent
    float, double           the shortest decimal number that is the same value; NaN, Infinity, -Infinity
    bytes, fixed            hexadecimal digits after \\x
    date, time, timestamp   ISO 8601; of UTC with Z
    record, array, map      JSON

Only a text of no characters is an empty text, which means null for all other types.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from registry.codec.json_rows import json_rows

__all__ = ["as_texts"]


def as_texts(records: pa.RecordBatch) -> dict[str, pa.StringArray]:
    """Return the columns of the records as text; null stays null."""
    return {field.name: _texts(field, column) for field, column in zip(records.schema, records.columns, strict=True)}


def _texts(field: pa.Field, column: pa.Array) -> pa.StringArray:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_cast(column.type):
        return pc.cast(column, pa.string())
    convert = next((convert for test, convert in _CONVERSIONS if test(column.type)), None)
    if convert is None:
        return _nested(field, column)
    return pa.array([None if each is None else convert(each) for each in column.to_pylist()], pa.string())


def _is_cast(kind: pa.DataType) -> bool:
    """Return whether Arrow writes values of a type in the form of the module."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_temporal(kind)
        or pa.types.is_boolean(kind)
    )


def _nested(field: pa.Field, column: pa.Array) -> pa.StringArray:
    start = len(f'{{"{field.name}":')
    rows = json_rows(pa.RecordBatch.from_arrays([column], schema=pa.schema([field])))
    return pa.array([None if (text := row[start:-1]) == "null" else text for row in rows], pa.string())


def _hexadecimal(value: bytes) -> str:
    return rf"\x{value.hex()}"


def _real(value: float) -> str:
    return repr(value) if math.isfinite(value) else _SPECIAL[repr(value)]


_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_CONVERSIONS: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[Any], str]]] = (
    (pa.types.is_floating, _real),
    (pa.types.is_decimal, lambda value: format(value, "f")),
    (pa.types.is_binary, _hexadecimal),
    (pa.types.is_fixed_size_binary, _hexadecimal),
)

"""The wire-equal schema that the column engine is given instead of the department's, and columns between the two.

The engine under `registry.codec.column_engine` never sees a department's schema. It gets one with the same bytes on
the wire and synthetic names, made of the few types that it reads fast and exactly:

    int, long, enum, date, time, timestamp   long           (so that nothing can wrap at 32 bits unseen)
    string, bytes, decimal on bytes          string         (bytes are cast to it without copying)
    fixed and decimal on fixed of 4k bytes   a record of doubles and at most one float (every bit pattern survives)
    ["null", T]                              ["null", T]
    any other union                          the same, each branch in a record of its own: [int, long] would be two
                                             branches of one type once both are long
    record, array, map                       the same, with fields of no width left out

Names, aliases, defaults and Chinese field names stop mattering, and equal shapes share one text. No such schema
exists for recursive types, empty records, unions with a branch of no width, fixed of other sizes and decimals of more
than 38 digits or 16 bytes: those stay with the row engine.

`registry.codec.from_physical` takes columns of the physical form to the logical one, `registry.codec.to_physical`
takes them back. Both raise `DoubtError` for whatever they cannot vouch for; the row engine then decides.
"""

from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry.avro.type_tree import Kind, Shape

__all__ = ["DECIMAL_BYTES", "DoubtError", "decimals_within", "integers", "physical_type", "slots_of", "whole"]

DECIMAL_BYTES = 16  # of a decimal128
_MAX_DECIMAL_DIGITS = 38


class DoubtError(Exception):
    """The fast path cannot vouch for a batch; the row engine has to look at it."""


def physical_type(shape: Shape) -> Any:
    """Return the physical Avro type of a shape as JSON, or None where there is none."""
    return _type(shape, count())


def _type(shape: Shape, numbers: "count[int]") -> Any:  # noqa: PLR0911 - one way out a kind
    match shape.kind:
        case Kind.BOOLEAN | Kind.FLOAT | Kind.DOUBLE:
            return shape.kind.value
        case Kind.INT | Kind.LONG | Kind.ENUM:
            return "long"
        case Kind.FIXED | Kind.DECIMAL if shape.size:
            return _record(numbers, slots_of(shape.size)) if _fits(shape) else None
        case Kind.STRING | Kind.BYTES | Kind.DECIMAL:
            return "string" if _fits(shape) else None
        case Kind.RECORD:
            return _record(numbers, [_type(part, numbers) for part in shape.parts if part.least])
        case Kind.ARRAY:
            items = _type(shape.parts[0], numbers)
            return items and {"type": "array", "items": items}
        case Kind.MAP:
            values = _type(shape.parts[0], numbers)
            return values and {"type": "map", "values": values}
        case Kind.OPTIONAL:
            inner = _type(shape.parts[0], numbers)
            return inner and (["null", inner] if shape.null_index == 0 else [inner, "null"])
        case Kind.UNION:
            branches = [
                "null" if part.kind is Kind.NULL else _record(numbers, [_type(part, numbers)] if part.least else [])
                for part in shape.parts
            ]
            return None if None in branches or not branches else branches
        case _:
            return None


def _fits(shape: Shape) -> bool:
    if shape.kind is Kind.DECIMAL and (shape.precision > _MAX_DECIMAL_DIGITS or shape.size > DECIMAL_BYTES):
        return False
    return shape.size % 4 == 0


def slots_of(size: int) -> list[str]:
    """Return the doubles and floats that take as many bytes on the wire as a fixed of `size` does."""
    return ["double"] * (size // 8) + ["float"] * (size % 8 // 4)


def _record(numbers: "count[int]", types: list[Any]) -> Any:
    if not types or None in types:
        return None
    fields = [{"name": f"c{index}", "type": each} for index, each in enumerate(types)]
    return {"type": "record", "name": f"r{next(numbers)}", "fields": fields}


def whole(column: pa.Array) -> pa.Array:
    """Return the column with no slice in it: the engine writes other rows' values for some sliced columns."""
    return column if _is_whole(column) else column.take(pa.array(np.arange(len(column))))


def _is_whole(column: pa.Array) -> bool:
    if column.offset:
        return False
    kind = column.type
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        children = [column.field(index) for index in range(kind.num_fields)]
        return all(len(child) == len(column) and _is_whole(child) for child in children)
    if pa.types.is_map(kind):
        return _is_whole(column.keys) and _is_whole(column.items)
    if pa.types.is_list(kind):
        return _is_whole(column.values)
    return not pa.types.is_dictionary(kind) or not column.indices.offset


def integers(column: pa.Array, kind: Any) -> npt.NDArray[Any]:
    """Return the numbers in the data buffer of a column that is no slice, those under nulls included."""
    data = column.buffers()[1]
    return np.frombuffer(data, kind, len(column)) if len(column) else np.zeros(0, kind)


def decimals_within(matrix: npt.NDArray[np.uint8], limit: int) -> bool:
    """Return whether every 16-byte number lies strictly between -limit and limit."""
    low = matrix[:, :8].copy().view("<u8")[:, 0]
    high = matrix[:, 8:].copy().view("<i8")[:, 0]
    first_high, first_low = divmod(1 - limit, 1 << 64)
    last_high, last_low = divmod(limit - 1, 1 << 64)
    above = (high > first_high) | ((high == first_high) & (low >= np.uint64(first_low)))
    below = (high < last_high) | ((high == last_high) & (low <= np.uint64(last_low)))
    return bool((above & below).all())

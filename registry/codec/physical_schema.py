"""Physical schema: wire-equal to the department's, with synthetic names and few types, for the column engine.

The library under `registry.codec.column_engine` never sees a department's schema. It gets one with the same bytes on
the wire, made of the few types that it reads fast and exactly:

    int, long, enum, date, time, timestamp   long           (so that nothing can wrap at 32 bits unseen)
    string, bytes, decimal on bytes          string         (bytes are cast to it without copying)
    fixed and decimal on fixed of 4k bytes   a record of doubles and at most one float (every bit pattern survives)
    ["null", T]                              ["null", T]
    any other union                          the same, each branch in a record of its own: [int, long] would be two
                                             branches of one type once both are long
    record, array, map                       the same, with fields of no width left out

Names, aliases, defaults and Chinese field names stop mattering, and equal type trees share one text. No such schema
exists for recursive types, empty records, unions with a branch of no width, fixed of other sizes and decimals of more
than 38 digits or 16 bytes: those are left to the row engine.

`registry.codec.from_physical` converts columns of the physical form to the logical one, `registry.codec.to_physical`
converts them back. Both raise `NotVerifiableError` for what they cannot verify; the row engine then decides.
"""

from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry.avro.type_tree import TypeKind, TypeNode

__all__ = [
    "DECIMAL_BYTES",
    "NotVerifiableError",
    "data_values",
    "decimals_within",
    "float_slots",
    "physical_type",
    "without_offsets",
]

DECIMAL_BYTES = 16  # of a decimal128
_MAX_DECIMAL_DIGITS = 38


class NotVerifiableError(Exception):
    """The fast path cannot verify a batch; the row engine has to decide."""


def physical_type(node: TypeNode) -> Any:
    """Return the physical Avro type of a type node as JSON, None where it has none."""
    return _type(node, count())


def _type(node: TypeNode, numbers: "count[int]") -> Any:  # noqa: PLR0911 - one return a kind
    match node.kind:
        case TypeKind.BOOLEAN | TypeKind.FLOAT | TypeKind.DOUBLE:
            return node.kind.value
        case TypeKind.INT | TypeKind.LONG | TypeKind.ENUM:
            return "long"
        case TypeKind.FIXED | TypeKind.DECIMAL if node.size:
            return _record(numbers, float_slots(node.size)) if _fits(node) else None
        case TypeKind.STRING | TypeKind.BYTES | TypeKind.DECIMAL:
            return "string" if _fits(node) else None
        case TypeKind.RECORD:
            return _record(numbers, [_type(part, numbers) for part in node.parts if part.min_wire_size])
        case TypeKind.ARRAY:
            items = _type(node.parts[0], numbers)
            return items and {"type": "array", "items": items}
        case TypeKind.MAP:
            values = _type(node.parts[0], numbers)
            return values and {"type": "map", "values": values}
        case TypeKind.OPTIONAL:
            inner = _type(node.parts[0], numbers)
            return inner and (["null", inner] if node.null_index == 0 else [inner, "null"])
        case TypeKind.UNION:
            branches = [
                "null"
                if part.kind is TypeKind.NULL
                else _record(numbers, [_type(part, numbers)] if part.min_wire_size else [])
                for part in node.parts
            ]
            return None if None in branches or not branches else branches
        case _:
            return None


def _fits(node: TypeNode) -> bool:
    if node.kind is TypeKind.DECIMAL and (node.precision > _MAX_DECIMAL_DIGITS or node.size > DECIMAL_BYTES):
        return False
    return node.size % 4 == 0


def float_slots(size: int) -> list[str]:
    """Return the doubles and floats that take as many bytes on the wire as a fixed of `size` does."""
    return ["double"] * (size // 8) + ["float"] * (size % 8 // 4)


def _record(numbers: "count[int]", types: list[Any]) -> Any:
    if not types or None in types:
        return None
    fields = [{"name": f"c{index}", "type": each} for index, each in enumerate(types)]
    return {"type": "record", "name": f"r{next(numbers)}", "fields": fields}


def without_offsets(column: pa.Array) -> pa.Array:
    """Return the column without offsets at any level: the library writes other rows' values for some slices."""
    return column if _has_no_offsets(column) else column.take(pa.array(np.arange(len(column))))


def _has_no_offsets(column: pa.Array) -> bool:
    if column.offset:
        return False
    kind = column.type
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        children = [column.field(index) for index in range(kind.num_fields)]
        return all(len(child) == len(column) and _has_no_offsets(child) for child in children)
    if pa.types.is_map(kind):
        return _has_no_offsets(column.keys) and _has_no_offsets(column.items)
    if pa.types.is_list(kind):
        return _has_no_offsets(column.values)
    return not pa.types.is_dictionary(kind) or not column.indices.offset


def data_values(column: pa.Array, kind: Any) -> npt.NDArray[Any]:
    """Return the numbers in the data buffer of a column without an offset, those under nulls included."""
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

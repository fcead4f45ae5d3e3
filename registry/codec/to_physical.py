"""Columns of the logical form to the physical form (`physical_schema`); refuses what the engine would write wrong.

The engine writes the value under a null where the schema has no null, and other rows' values for some slices. So a
null that could be seen is a doubt, and a column must be `whole` before it comes here.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry.avro.type_tree import Kind, Shape
from registry.codec.arrow_values import branches_of
from registry.codec.physical_schema import DECIMAL_BYTES, DoubtError, decimals_within, slots_of

__all__ = ["Lower", "lower_of"]

Lower: TypeAlias = Callable[[pa.Array, pa.BooleanArray | None], pa.Array]
"""Logical column, and which of its rows are visible through the records and unions around it (None: all) → physical
column."""


def lower_of(shape: Shape) -> Lower:
    """Compile the way from the logical to the physical form; the column given must be `whole`."""
    if shape.kind is Kind.OPTIONAL:
        return _LOWERS_OF[shape.parts[0].kind](shape.parts[0])
    lower = _LOWERS_OF[shape.kind](shape)

    def required(column: pa.Array, visible: pa.BooleanArray | None) -> pa.Array:
        # The engine does not look whether a field may be null: it writes whatever value lies under the null.
        if column.null_count and (visible is None or pc.any(pc.and_(column.is_null(), visible)).as_py()):
            raise DoubtError
        return lower(column, visible)

    return required


def _lower_same(shape: Shape) -> Lower:
    physical = {Kind.BYTES: pa.string()}.get(shape.kind)
    if physical is None:
        return lambda column, _visible: column
    return lambda column, _visible: pa.Array.from_buffers(physical, len(column), column.buffers(), column.null_count)


def _lower_integer(shape: Shape) -> Lower:
    enum = shape.kind is Kind.ENUM
    symbols = pa.array(shape.symbols, pa.string())
    width = pa.int64() if shape.kind is Kind.LONG else pa.int32()
    bounds = None if shape.bounds is None or shape.arrow == pa.int32() else shape.bounds

    def lower(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        if enum:
            if not column.dictionary.equals(symbols):
                raise DoubtError
            column = column.indices
        integers = column if column.type == width else column.view(width)
        if bounds is not None:
            ends = pc.min_max(integers)
            low, high = ends["min"].as_py(), ends["max"].as_py()
            if low is not None and (low < bounds[0] or high > bounds[1]):
                raise DoubtError
        return integers if width == pa.int64() else integers.cast(pa.int64())

    return lower


def _lower_fixed(shape: Shape) -> Lower:
    fields = _fields(shape.size)

    def lower(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        size = shape.size * len(column)
        data = column.buffers()[1]
        matrix = np.frombuffer(data, np.uint8, size) if size else np.zeros(0, np.uint8)
        return _slotted(matrix.reshape(len(column), shape.size), column, fields)

    return lower


def _fields(size: int) -> list[pa.Field]:
    types = {"double": pa.float64(), "float": pa.float32()}
    return [pa.field(f"c{index}", types[slot]) for index, slot in enumerate(slots_of(size))]


def _slotted(matrix: npt.NDArray[np.uint8], column: pa.Array, fields: list[pa.Field]) -> pa.Array:
    children, at = [], 0
    for field in fields:
        size = field.type.bit_width // 8
        data = pa.py_buffer(np.ascontiguousarray(matrix[:, at : at + size]))
        children.append(pa.Array.from_buffers(field.type, len(column), [None, data], 0))
        at += size
    valid = column.buffers()[0]
    return pa.Array.from_buffers(pa.struct(fields), len(column), [valid], column.null_count, children=children)


def _lower_decimal(shape: Shape) -> Lower:
    limit = 10**shape.precision
    fields = _fields(shape.size)

    def lower(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        rows = len(column)
        data = column.buffers()[1]
        little = np.frombuffer(data, np.uint8, rows * 16).reshape(rows, 16) if rows else np.zeros((0, 16), np.uint8)
        if column.null_count:
            little = little.copy()
            little[column.is_null().to_numpy(zero_copy_only=False)] = 0  # under a null anything may lie
        if not decimals_within(little, limit):
            raise DoubtError
        big = little[:, ::-1]
        if shape.size:
            return _slotted(big[:, DECIMAL_BYTES - shape.size :], column, fields)
        return _shortest(big, column)

    return lower


def _shortest(big: npt.NDArray[np.uint8], column: pa.Array) -> pa.Array:
    """Return big-endian numbers in the fewest bytes that hold the number and its sign."""
    rows = len(big)
    sign = np.where(big[:, :1] >= 128, 255, 0).astype(np.uint8)
    differs = big != sign
    first = np.where(differs.any(axis=1), differs.argmax(axis=1), 15)
    kept = (big[np.arange(rows), first] >= 128) == (sign[:, 0] >= 128)
    start = np.maximum(np.where(kept, first, first - 1), 0)
    within = np.arange(16)[None, :] >= start[:, None]
    if column.null_count:
        within[column.is_null().to_numpy(zero_copy_only=False)] = False
    ends = np.zeros(rows + 1, np.int32)
    np.cumsum(within.sum(axis=1), out=ends[1:])
    buffers = [column.buffers()[0], pa.py_buffer(ends), pa.py_buffer(big[within])]
    return pa.Array.from_buffers(pa.string(), rows, buffers, column.null_count)


def _seen(column: pa.Array, visible: pa.BooleanArray | None) -> pa.BooleanArray | None:
    if not column.null_count:
        return visible
    valid = column.is_valid()
    return valid if visible is None else pc.and_(valid, visible)


def _lower_record(shape: Shape) -> Lower:
    lowers = [(index, lower_of(part)) for index, part in enumerate(shape.parts) if part.least]

    def lower(column: pa.Array, visible: pa.BooleanArray | None) -> pa.Array:
        seen = _seen(column, visible)
        children = [each(column.field(index), seen) for index, each in lowers]
        struct = pa.struct([pa.field(f"c{index}", child.type) for index, child in enumerate(children)])
        valid = column.buffers()[0]
        return pa.Array.from_buffers(struct, len(column), [valid], column.null_count, children=children)

    return lower


def _lower_array(shape: Shape) -> Lower:
    item = lower_of(shape.parts[0])

    def lower(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        values = item(column.values, None)
        kind = pa.list_(pa.field("item", values.type))
        return pa.Array.from_buffers(kind, len(column), [valid, offsets], column.null_count, children=[values])

    return lower


def _lower_map(shape: Shape) -> Lower:
    value = lower_of(shape.parts[0])

    def lower(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        children = [column.keys, value(column.items, None)]
        kind = pa.map_(pa.string(), children[1].type)
        entries = pa.Array.from_buffers(
            pa.struct([kind.key_field, kind.item_field]), len(children[0]), [None], 0, children=children
        )
        return pa.Array.from_buffers(kind, len(column), [valid, offsets], column.null_count, children=[entries])

    return lower


def _lower_union(shape: Shape) -> Lower:
    lowers = [None if part.kind is Kind.NULL else lower_of(part) for part in shape.parts]

    def lower(column: pa.Array, visible: pa.BooleanArray | None) -> pa.Array:
        branches = branches_of(column)
        if len(branches) and (branches.min() < 0 or branches.max() >= len(lowers)):
            raise DoubtError
        children: list[pa.Array] = []
        for index, each in enumerate(lowers):
            if each is None:
                children.append(pa.nulls(len(column)))
                continue
            chosen = pa.array(branches == index)
            inner = each(column.field(index), chosen if visible is None else pc.and_(chosen, visible))
            children.append(
                pa.Array.from_buffers(pa.struct([pa.field("c0", inner.type)]), len(column), [None], 0, children=[inner])
            )
        kind = pa.sparse_union([pa.field(f"b{index}", child.type) for index, child in enumerate(children)])
        return pa.Array.from_buffers(kind, len(column), [None, column.buffers()[1]], 0, children=children)

    return lower


_LOWERS_OF: dict[Kind, Callable[[Shape], Lower]] = {
    Kind.BOOLEAN: _lower_same,
    Kind.FLOAT: _lower_same,
    Kind.DOUBLE: _lower_same,
    Kind.STRING: _lower_same,
    Kind.BYTES: _lower_same,
    Kind.INT: _lower_integer,
    Kind.LONG: _lower_integer,
    Kind.ENUM: _lower_integer,
    Kind.FIXED: _lower_fixed,
    Kind.DECIMAL: _lower_decimal,
    Kind.RECORD: _lower_record,
    Kind.ARRAY: _lower_array,
    Kind.MAP: _lower_map,
    Kind.UNION: _lower_union,
}

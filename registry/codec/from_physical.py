"""Columns of the physical form (`physical_schema`) to the logical form, without copying buffers where possible.

Nothing is believed that was read: strings are validated, numbers compared with their bounds. What a column's nulls
hide is never looked at.
"""

from collections.abc import Callable
from itertools import count
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from registry.avro.type_tree import Kind, Shape
from registry.codec.arrow_values import assemble
from registry.codec.datum_reader import reader_of
from registry.codec.physical_schema import DoubtError, decimals_within, integers, slots_of

__all__ = ["Lift", "constant_of", "lift_of"]

Lift: TypeAlias = Callable[[pa.Array], pa.Array]
"""Physical column → logical column."""


def lift_of(shape: Shape) -> Lift:
    """Compile the way from the physical to the logical form.

    The function raises DoubtError for bytes that are no UTF-8, numbers out of the shape's bounds, and decimals of too
    many digits or none.
    """
    if shape.kind is Kind.OPTIONAL:
        return lift_of(shape.parts[0])
    return _LIFTS_OF[shape.kind](shape)


def _lift_same(_shape: Shape) -> Lift:
    return lambda column: column


def _lift_strings(_shape: Shape) -> Lift:
    return _lift_text


def _lift_integer(shape: Shape) -> Lift:
    narrow = shape.kind is not Kind.LONG
    enum = shape.kind is Kind.ENUM
    symbols = pa.array(shape.symbols, pa.string())
    arrow = pa.int32() if enum else shape.arrow
    if shape.bounds is None:
        return (lambda column: column) if arrow == pa.int64() else (lambda column: column.view(arrow))
    low, high = shape.bounds

    def lift(column: pa.Array) -> pa.Array:
        # The slots of nulls hold 0, which lies within all bounds; if ever they did not, the row engine would decide.
        values = integers(column, np.int64)
        if len(values) and (values.min() < low or values.max() > high):
            raise DoubtError
        if not narrow:
            return column.view(arrow)
        data = pa.py_buffer(values.astype(np.int32))
        lifted = pa.Array.from_buffers(arrow, len(column), [column.buffers()[0], data], column.null_count)
        return pa.DictionaryArray.from_arrays(lifted, symbols, safe=False) if enum else lifted

    return lift


def _lift_text(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)  # the engine does not look whether it is UTF-8
    except pa.ArrowInvalid:
        raise DoubtError from None
    return column


def _lift_bytes(_shape: Shape) -> Lift:
    return lambda column: pa.Array.from_buffers(pa.binary(), len(column), column.buffers(), column.null_count)


def _lift_fixed(shape: Shape) -> Lift:
    slots = [
        (index * 8, np.dtype("<f8" if slot == "double" else "<f4")) for index, slot in enumerate(slots_of(shape.size))
    ]

    def lift(column: pa.Array) -> pa.Array:
        matrix = np.empty((len(column), shape.size), np.uint8)
        for index, (at, slot) in enumerate(slots):
            values = integers(column.field(index), slot)
            matrix[:, at : at + slot.itemsize] = values.view(np.uint8).reshape(len(column), slot.itemsize)
        return pa.Array.from_buffers(
            pa.binary(shape.size), len(column), [column.buffers()[0], pa.py_buffer(matrix)], column.null_count
        )

    return lift


def _lift_decimal(shape: Shape) -> Lift:
    limit = 10**shape.precision
    fixed = _lift_fixed(shape) if shape.size else None
    places = np.arange(15, -1, -1)  # of a little-endian 16-byte number, counted from its end

    def lift(column: pa.Array) -> pa.Array:
        if fixed is None:
            _, offsets, values = column.buffers()
            ends = np.frombuffer(offsets, np.int32, len(column) + 1).astype(np.int64)
            data = np.frombuffer(values, np.uint8) if values is not None and values.size else np.zeros(1, np.uint8)
            ends, lengths = ends[1:], np.diff(ends)
        else:
            data = np.frombuffer(fixed(column).buffers()[1], np.uint8)
            ends = np.arange(1, len(column) + 1) * shape.size
            lengths = np.full(len(column), shape.size)
        if (len(lengths) and lengths.max() > 16) or np.count_nonzero(lengths == 0) > column.null_count:
            raise DoubtError
        sign = np.where(data[np.maximum(ends - lengths, 0).clip(max=len(data) - 1)] >= 128, 255, 0).astype(np.uint8)
        from_end = places[::-1]
        within = from_end[None, :] < lengths[:, None]
        at = np.maximum(ends[:, None] - 1 - from_end[None, :], 0)
        matrix = np.where(within, data[at], sign[:, None])
        matrix[lengths == 0] = 0
        matrix = np.ascontiguousarray(matrix)
        if not decimals_within(matrix, limit):
            raise DoubtError
        return pa.Array.from_buffers(
            shape.arrow, len(column), [column.buffers()[0], pa.py_buffer(matrix)], column.null_count
        )

    return lift


def constant_of(shape: Shape) -> Callable[[int], pa.Array]:
    """Return the function that makes n slots of a shape of no width, which is left out of the physical form."""
    value = reader_of(shape)(b"")
    return lambda rows: assemble([value] * rows, shape)


def _lift_record(shape: Shape) -> Lift:
    places = count()
    lifts = [
        _lift_child(next(places), lift_of(part)) if part.least else _lift_constant(constant_of(part))
        for part in shape.parts
    ]

    def lift(column: pa.Array) -> pa.Array:
        children = [each(column) for each in lifts]
        valid = column.buffers()[0]
        return pa.Array.from_buffers(shape.arrow, len(column), [valid], column.null_count, children=children)

    return lift


def _lift_child(place: int, lift: Lift) -> Lift:
    return lambda column: lift(column.field(place))


def _lift_constant(constant: Callable[[int], pa.Array]) -> Lift:
    return lambda column: constant(len(column))


def _lift_array(shape: Shape) -> Lift:
    item = lift_of(shape.parts[0])

    def lift(column: pa.Array) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        children = [item(column.values)]
        return pa.Array.from_buffers(shape.arrow, len(column), [valid, offsets], column.null_count, children=children)

    return lift


def _lift_map(shape: Shape) -> Lift:
    value = lift_of(shape.parts[0])
    pairs = pa.struct([shape.arrow.key_field, shape.arrow.item_field])

    def lift(column: pa.Array) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        children = [_lift_text(column.keys), value(column.items)]
        entries = pa.Array.from_buffers(pairs, len(children[0]), [None], 0, children=children)
        return pa.Array.from_buffers(shape.arrow, len(column), [valid, offsets], column.null_count, children=[entries])

    return lift


def _lift_union(shape: Shape) -> Lift:
    lifts = [None if part.kind is Kind.NULL else lift_of(part) for part in shape.parts]

    def lift(column: pa.Array) -> pa.Array:
        children = [
            pa.nulls(len(column)) if each is None else each(column.field(index).field(0))
            for index, each in enumerate(lifts)
        ]
        buffers = [None, column.buffers()[1]]
        return pa.Array.from_buffers(shape.arrow, len(column), buffers, 0, children=children)

    return lift


_LIFTS_OF: dict[Kind, Callable[[Shape], Lift]] = {
    Kind.BOOLEAN: _lift_same,
    Kind.FLOAT: _lift_same,
    Kind.DOUBLE: _lift_same,
    Kind.STRING: _lift_strings,
    Kind.BYTES: _lift_bytes,
    Kind.INT: _lift_integer,
    Kind.LONG: _lift_integer,
    Kind.ENUM: _lift_integer,
    Kind.FIXED: _lift_fixed,
    Kind.DECIMAL: _lift_decimal,
    Kind.RECORD: _lift_record,
    Kind.ARRAY: _lift_array,
    Kind.MAP: _lift_map,
    Kind.UNION: _lift_union,
}

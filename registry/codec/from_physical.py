"""From the physical form: conversion of the column engine's columns to logical ones (`physical_schema`).

Buffers are not copied where possible. Nothing is trusted that was read: strings are validated, numbers compared with
their bounds. What a column's nulls hide is never looked at.
"""

from collections.abc import Callable
from itertools import count
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from registry.avro.type_tree import TypeKind, TypeNode
from registry.codec.arrow_values import values_to_arrow
from registry.codec.datum_reader import compile_reader
from registry.codec.physical_schema import NotVerifiableError, data_values, decimals_within, float_slots

__all__ = ["compile_constant", "compile_from_physical"]

FromPhysical: TypeAlias = Callable[[pa.Array], pa.Array]
"""Physical column → logical column."""


def compile_from_physical(node: TypeNode) -> FromPhysical:
    """Compile the conversion from the physical to the logical form.

    The function raises NotVerifiableError for bytes that are not UTF-8, numbers out of the type's bounds, and decimals
    of too many digits or none.
    """
    if node.kind is TypeKind.OPTIONAL:
        return compile_from_physical(node.parts[0])
    return _COMPILERS[node.kind](node)


def _compile_same(_node: TypeNode) -> FromPhysical:
    return lambda column: column


def _compile_strings(_node: TypeNode) -> FromPhysical:
    return _validated_text


def _compile_integers(node: TypeNode) -> FromPhysical:
    narrow = node.kind is not TypeKind.LONG
    enum = node.kind is TypeKind.ENUM
    symbols = pa.array(node.symbols, pa.string())
    arrow = pa.int32() if enum else node.arrow
    if node.bounds is None:
        return (lambda column: column) if arrow == pa.int64() else (lambda column: column.view(arrow))
    low, high = node.bounds

    def convert(column: pa.Array) -> pa.Array:
        # The slots of nulls hold 0, which lies within all bounds; if they did not, the row engine would decide.
        values = data_values(column, np.int64)
        if len(values) and (values.min() < low or values.max() > high):
            raise NotVerifiableError
        if not narrow:
            return column.view(arrow)
        data = pa.py_buffer(values.astype(np.int32))
        values_array = pa.Array.from_buffers(arrow, len(column), [column.buffers()[0], data], column.null_count)
        return pa.DictionaryArray.from_arrays(values_array, symbols, safe=False) if enum else values_array

    return convert


def _validated_text(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)  # the library does not check that it is UTF-8
    except pa.ArrowInvalid:
        raise NotVerifiableError from None
    return column


def _compile_bytes(_node: TypeNode) -> FromPhysical:
    return lambda column: pa.Array.from_buffers(pa.binary(), len(column), column.buffers(), column.null_count)


def _compile_fixed(node: TypeNode) -> FromPhysical:
    slots = [
        (index * 8, np.dtype("<f8" if slot == "double" else "<f4")) for index, slot in enumerate(float_slots(node.size))
    ]

    def convert(column: pa.Array) -> pa.Array:
        matrix = np.empty((len(column), node.size), np.uint8)
        for index, (at, slot) in enumerate(slots):
            values = data_values(column.field(index), slot)
            matrix[:, at : at + slot.itemsize] = values.view(np.uint8).reshape(len(column), slot.itemsize)
        return pa.Array.from_buffers(
            pa.binary(node.size), len(column), [column.buffers()[0], pa.py_buffer(matrix)], column.null_count
        )

    return convert


def _compile_decimals(node: TypeNode) -> FromPhysical:
    limit = 10**node.precision
    fixed = _compile_fixed(node) if node.size else None
    from_end = np.arange(16)  # of a little-endian 16-byte number

    def convert(column: pa.Array) -> pa.Array:
        if fixed is None:
            _, offsets, values = column.buffers()
            ends = np.frombuffer(offsets, np.int32, len(column) + 1).astype(np.int64)
            data = np.frombuffer(values, np.uint8) if values is not None and values.size else np.zeros(1, np.uint8)
            ends, lengths = ends[1:], np.diff(ends)
        else:
            data = np.frombuffer(fixed(column).buffers()[1], np.uint8)
            ends = np.arange(1, len(column) + 1) * node.size
            lengths = np.full(len(column), node.size)
        if (len(lengths) and lengths.max() > 16) or np.count_nonzero(lengths == 0) > column.null_count:
            raise NotVerifiableError
        sign = np.where(data[np.maximum(ends - lengths, 0).clip(max=len(data) - 1)] >= 128, 255, 0).astype(np.uint8)
        within = from_end[None, :] < lengths[:, None]
        at = np.maximum(ends[:, None] - 1 - from_end[None, :], 0)
        matrix = np.where(within, data[at], sign[:, None])
        matrix[lengths == 0] = 0
        matrix = np.ascontiguousarray(matrix)
        if not decimals_within(matrix, limit):
            raise NotVerifiableError
        return pa.Array.from_buffers(
            node.arrow, len(column), [column.buffers()[0], pa.py_buffer(matrix)], column.null_count
        )

    return convert


def compile_constant(node: TypeNode) -> Callable[[int], pa.Array]:
    """Return a function that builds n slots of a type of no width, which is left out of the physical form."""
    value = compile_reader(node)(b"")
    return lambda rows: values_to_arrow([value] * rows, node)


def _compile_records(node: TypeNode) -> FromPhysical:
    columns = count()
    converters = [
        _compile_child(next(columns), compile_from_physical(part))
        if part.min_wire_size
        else _compile_constant(compile_constant(part))
        for part in node.parts
    ]

    def convert(column: pa.Array) -> pa.Array:
        children = [each(column) for each in converters]
        valid = column.buffers()[0]
        return pa.Array.from_buffers(node.arrow, len(column), [valid], column.null_count, children=children)

    return convert


def _compile_child(index: int, convert: FromPhysical) -> FromPhysical:
    return lambda column: convert(column.field(index))


def _compile_constant(constant: Callable[[int], pa.Array]) -> FromPhysical:
    return lambda column: constant(len(column))


def _compile_arrays(node: TypeNode) -> FromPhysical:
    item = compile_from_physical(node.parts[0])

    def convert(column: pa.Array) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        children = [item(column.values)]
        return pa.Array.from_buffers(node.arrow, len(column), [valid, offsets], column.null_count, children=children)

    return convert


def _compile_maps(node: TypeNode) -> FromPhysical:
    value = compile_from_physical(node.parts[0])
    pairs = pa.struct([node.arrow.key_field, node.arrow.item_field])

    def convert(column: pa.Array) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        children = [_validated_text(column.keys), value(column.items)]
        entries = pa.Array.from_buffers(pairs, len(children[0]), [None], 0, children=children)
        return pa.Array.from_buffers(node.arrow, len(column), [valid, offsets], column.null_count, children=[entries])

    return convert


def _compile_unions(node: TypeNode) -> FromPhysical:
    converters = [None if part.kind is TypeKind.NULL else compile_from_physical(part) for part in node.parts]

    def convert(column: pa.Array) -> pa.Array:
        children = [
            pa.nulls(len(column)) if each is None else each(column.field(index).field(0))
            for index, each in enumerate(converters)
        ]
        buffers = [None, column.buffers()[1]]
        return pa.Array.from_buffers(node.arrow, len(column), buffers, 0, children=children)

    return convert


_COMPILERS: dict[TypeKind, Callable[[TypeNode], FromPhysical]] = {
    TypeKind.BOOLEAN: _compile_same,
    TypeKind.FLOAT: _compile_same,
    TypeKind.DOUBLE: _compile_same,
    TypeKind.STRING: _compile_strings,
    TypeKind.BYTES: _compile_bytes,
    TypeKind.INT: _compile_integers,
    TypeKind.LONG: _compile_integers,
    TypeKind.ENUM: _compile_integers,
    TypeKind.FIXED: _compile_fixed,
    TypeKind.DECIMAL: _compile_decimals,
    TypeKind.RECORD: _compile_records,
    TypeKind.ARRAY: _compile_arrays,
    TypeKind.MAP: _compile_maps,
    TypeKind.UNION: _compile_unions,
}

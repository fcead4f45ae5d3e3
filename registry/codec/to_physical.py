"""To the physical form: conversion of logical columns for the column engine (`physical_schema`).

It refuses what the library would write wrong. pyruhvro writes the value under a null where the schema has no null, and
other rows' values for some slices. So a null that would be visible is not verifiable, and a column must have no offsets
(`without_offsets`) before it comes here.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from registry.avro.type_tree import TypeKind, TypeNode
from registry.codec.arrow_values import branch_codes
from registry.codec.physical_schema import DECIMAL_BYTES, NotVerifiableError, decimals_within, float_slots

__all__ = ["compile_to_physical"]

ToPhysical: TypeAlias = Callable[[pa.Array, pa.BooleanArray | None], pa.Array]
"""Logical column, and which of its rows are visible through the records and unions around it (None: all) → physical
column."""


def compile_to_physical(node: TypeNode) -> ToPhysical:
    """Compile the conversion from the logical to the physical form, for a column `without_offsets`."""
    if node.kind is TypeKind.OPTIONAL:
        return _COMPILERS[node.parts[0].kind](node.parts[0])
    convert = _COMPILERS[node.kind](node)

    def required(column: pa.Array, visible: pa.BooleanArray | None) -> pa.Array:
        # The library does not check whether a field may be null: it writes the value under the null.
        if column.null_count and (visible is None or pc.any(pc.and_(column.is_null(), visible)).as_py()):
            raise NotVerifiableError
        return convert(column, visible)

    return required


def _compile_same(node: TypeNode) -> ToPhysical:
    physical = {TypeKind.BYTES: pa.string()}.get(node.kind)
    if physical is None:
        return lambda column, _visible: column
    return lambda column, _visible: pa.Array.from_buffers(physical, len(column), column.buffers(), column.null_count)


def _compile_integers(node: TypeNode) -> ToPhysical:
    enum = node.kind is TypeKind.ENUM
    symbols = pa.array(node.symbols, pa.string())
    width = pa.int64() if node.kind is TypeKind.LONG else pa.int32()
    bounds = None if node.bounds is None or node.arrow == pa.int32() else node.bounds

    def convert(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        if enum:
            if not column.dictionary.equals(symbols):
                raise NotVerifiableError
            column = column.indices
        integers = column if column.type == width else column.view(width)
        if bounds is not None:
            ends = pc.min_max(integers)
            low, high = ends["min"].as_py(), ends["max"].as_py()
            if low is not None and (low < bounds[0] or high > bounds[1]):
                raise NotVerifiableError
        return integers if width == pa.int64() else integers.cast(pa.int64())

    return convert


def _compile_fixed(node: TypeNode) -> ToPhysical:
    fields = _fields(node.size)

    def convert(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        size = node.size * len(column)
        data = column.buffers()[1]
        matrix = np.frombuffer(data, np.uint8, size) if size else np.zeros(0, np.uint8)
        return _as_float_slots(matrix.reshape(len(column), node.size), column, fields)

    return convert


def _fields(size: int) -> list[pa.Field]:
    types = {"double": pa.float64(), "float": pa.float32()}
    return [pa.field(f"c{index}", types[slot]) for index, slot in enumerate(float_slots(size))]


def _as_float_slots(matrix: npt.NDArray[np.uint8], column: pa.Array, fields: list[pa.Field]) -> pa.Array:
    children, at = [], 0
    for field in fields:
        size = field.type.bit_width // 8
        data = pa.py_buffer(np.ascontiguousarray(matrix[:, at : at + size]))
        children.append(pa.Array.from_buffers(field.type, len(column), [None, data], 0))
        at += size
    valid = column.buffers()[0]
    return pa.Array.from_buffers(pa.struct(fields), len(column), [valid], column.null_count, children=children)


def _compile_decimals(node: TypeNode) -> ToPhysical:
    limit = 10**node.precision
    fields = _fields(node.size)

    def convert(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        rows = len(column)
        data = column.buffers()[1]
        little = np.frombuffer(data, np.uint8, rows * 16).reshape(rows, 16) if rows else np.zeros((0, 16), np.uint8)
        if column.null_count:
            little = little.copy()
            little[column.is_null().to_numpy(zero_copy_only=False)] = 0  # the value under a null is undefined
        if not decimals_within(little, limit):
            raise NotVerifiableError
        big = little[:, ::-1]
        if node.size:
            return _as_float_slots(big[:, DECIMAL_BYTES - node.size :], column, fields)
        return _shortest(big, column)

    return convert


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


def _visible_within(column: pa.Array, visible: pa.BooleanArray | None) -> pa.BooleanArray | None:
    if not column.null_count:
        return visible
    valid = column.is_valid()
    return valid if visible is None else pc.and_(valid, visible)


def _compile_records(node: TypeNode) -> ToPhysical:
    converters = [(index, compile_to_physical(part)) for index, part in enumerate(node.parts) if part.min_wire_size]

    def convert(column: pa.Array, visible: pa.BooleanArray | None) -> pa.Array:
        seen = _visible_within(column, visible)
        children = [each(column.field(index), seen) for index, each in converters]
        struct = pa.struct([pa.field(f"c{index}", child.type) for index, child in enumerate(children)])
        valid = column.buffers()[0]
        return pa.Array.from_buffers(struct, len(column), [valid], column.null_count, children=children)

    return convert


def _compile_arrays(node: TypeNode) -> ToPhysical:
    item = compile_to_physical(node.parts[0])

    def convert(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        values = item(column.values, None)
        kind = pa.list_(pa.field("item", values.type))
        return pa.Array.from_buffers(kind, len(column), [valid, offsets], column.null_count, children=[values])

    return convert


def _compile_maps(node: TypeNode) -> ToPhysical:
    value = compile_to_physical(node.parts[0])

    def convert(column: pa.Array, _visible: pa.BooleanArray | None) -> pa.Array:
        valid, offsets = column.buffers()[:2]
        children = [column.keys, value(column.items, None)]
        kind = pa.map_(pa.string(), children[1].type)
        entries = pa.Array.from_buffers(
            pa.struct([kind.key_field, kind.item_field]), len(children[0]), [None], 0, children=children
        )
        return pa.Array.from_buffers(kind, len(column), [valid, offsets], column.null_count, children=[entries])

    return convert


def _compile_unions(node: TypeNode) -> ToPhysical:
    converters = [None if part.kind is TypeKind.NULL else compile_to_physical(part) for part in node.parts]

    def convert(column: pa.Array, visible: pa.BooleanArray | None) -> pa.Array:
        branches = branch_codes(column)
        if len(branches) and (branches.min() < 0 or branches.max() >= len(converters)):
            raise NotVerifiableError
        children: list[pa.Array] = []
        for index, each in enumerate(converters):
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

    return convert


_COMPILERS: dict[TypeKind, Callable[[TypeNode], ToPhysical]] = {
    TypeKind.BOOLEAN: _compile_same,
    TypeKind.FLOAT: _compile_same,
    TypeKind.DOUBLE: _compile_same,
    TypeKind.STRING: _compile_same,
    TypeKind.BYTES: _compile_same,
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

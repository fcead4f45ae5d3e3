"""Arrow conversion of plain values (`registry.codec.datum_reader`): to Arrow columns and back, without loss.

`values_to_arrow` builds the column of the logical Arrow type (`registry.avro.type_tree`), `values_from_arrow` returns
the values of a column. Floats pass as their bytes, so that every NaN keeps its payload; decimals as integers, so that
no context of Python's decimal module can round them.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry.avro.type_tree import TypeKind, TypeNode
from registry.codec.datum_reader import DatumError

__all__ = ["branch_codes", "values_from_arrow", "values_to_arrow"]


def values_to_arrow(values: Sequence[Any], node: TypeNode) -> pa.Array:
    """Build the column of n plain values."""
    if node.kind is TypeKind.OPTIONAL:
        node = node.parts[0]
    return _TO_ARROW[node.kind](values, node)


def _validity_bitmap(values: Sequence[Any]) -> pa.Buffer | None:
    """Return the validity bitmap of n values, None when no value is null."""
    if None not in values:
        return None
    present = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def _plain(values: Sequence[Any], node: TypeNode) -> pa.Array:
    return pa.array(values, node.arrow)


def _integers(values: Sequence[Any], node: TypeNode) -> pa.Array:
    width = pa.int32() if node.kind is TypeKind.INT else pa.int64()
    column = pa.array(values, width)
    return column if width == node.arrow else column.view(node.arrow)


def _joined(values: Sequence[Any], node: TypeNode) -> pa.Array:
    """Build a column of fixed width from the bytes of each value."""
    empty = bytes(node.arrow.bit_width // 8)
    data = pa.py_buffer(b"".join([empty if value is None else value for value in values]))
    return pa.Array.from_buffers(node.arrow, len(values), [_validity_bitmap(values), data])


def _decimals(values: Sequence[Any], node: TypeNode) -> pa.Array:
    width = node.arrow.bit_width // 8
    return _joined([None if value is None else value.to_bytes(width, "little", signed=True) for value in values], node)


def _enums(values: Sequence[Any], node: TypeNode) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(values, pa.int32()), pa.array(node.symbols, pa.string()))


def _records(values: Sequence[Any], node: TypeNode) -> pa.Array:
    rows = len(values)
    valid = _validity_bitmap(values)
    if valid is None:
        columns: list[tuple[Any, ...]] = list(zip(*values, strict=True)) if rows else [()] * len(node.parts)
        children = [values_to_arrow(column, part) for column, part in zip(columns, node.parts, strict=True)]
    else:
        # Under a null record its fields are null, nullable or not: no reader looks at them.
        children = [
            values_to_arrow([None if value is None else value[index] for value in values], part)
            for index, part in enumerate(node.parts)
        ]
    return pa.Array.from_buffers(node.arrow, rows, [valid], children=children)


def _ends(values: Sequence[Any]) -> pa.Buffer:
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum([0 if value is None else len(value) for value in values], out=ends[1:])
    return pa.py_buffer(ends)


def _arrays(values: Sequence[Any], node: TypeNode) -> pa.Array:
    items = values_to_arrow([item for value in values if value is not None for item in value], node.parts[0])
    return pa.Array.from_buffers(node.arrow, len(values), [_validity_bitmap(values), _ends(values)], children=[items])


def _maps(values: Sequence[Any], node: TypeNode) -> pa.Array:
    entries = [entry for value in values if value is not None for entry in value]
    children = [
        pa.array([key for key, _ in entries], pa.string()),
        values_to_arrow([value for _, value in entries], node.parts[0]),
    ]
    struct = pa.struct([node.arrow.key_field, node.arrow.item_field])
    pairs = pa.Array.from_buffers(struct, len(entries), [None], children=children)
    return pa.Array.from_buffers(node.arrow, len(values), [_validity_bitmap(values), _ends(values)], children=[pairs])


def _unions(values: Sequence[Any], node: TypeNode) -> pa.Array:
    # A union inside a null record has no value; branch 0 is written, which the null record hides.
    branches = np.fromiter((0 if value is None else value[0] for value in values), np.int8, len(values))
    children = [
        values_to_arrow([value[1] if value is not None and value[0] == index else None for value in values], part)
        for index, part in enumerate(node.parts)
    ]
    return pa.Array.from_buffers(node.arrow, len(values), [None, pa.py_buffer(branches)], children=children)


_TO_ARROW: Mapping[TypeKind, Callable[[Sequence[Any], TypeNode], pa.Array]] = {
    TypeKind.NULL: _plain,
    TypeKind.BOOLEAN: _plain,
    TypeKind.INT: _integers,
    TypeKind.LONG: _integers,
    TypeKind.FLOAT: _joined,
    TypeKind.DOUBLE: _joined,
    TypeKind.BYTES: _plain,
    TypeKind.STRING: _plain,
    TypeKind.ENUM: _enums,
    TypeKind.FIXED: _joined,
    TypeKind.DECIMAL: _decimals,
    TypeKind.RECORD: _records,
    TypeKind.ARRAY: _arrays,
    TypeKind.MAP: _maps,
    TypeKind.UNION: _unions,
    TypeKind.OPAQUE: _plain,
}


def values_from_arrow(column: pa.Array, node: TypeNode) -> list[Any]:
    """Return the plain values of a column of the node's logical type; the column may be a slice.

    Raises:
        DatumError: for an enum column whose dictionary is not the schema's.
    """
    if node.kind is TypeKind.OPTIONAL:
        node = node.parts[0]
    return _FROM_ARROW[node.kind](column, node)


def _present(column: pa.Array) -> list[bool]:
    flags: list[bool] = column.is_valid().to_pylist()
    return flags


def _listed(column: pa.Array, _node: TypeNode) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _listed_integers(column: pa.Array, node: TypeNode) -> list[Any]:
    return _listed(column.view(pa.int32() if node.kind is TypeKind.INT else pa.int64()), node)


def _slices(column: pa.Array, node: TypeNode) -> list[Any]:
    width = node.arrow.bit_width // 8
    data = column.buffers()[1]
    if data is None or not width:
        return [b"" if present else None for present in _present(column)]
    whole = data.slice(column.offset * width, len(column) * width).to_pybytes()
    values: list[Any] = [whole[at : at + width] for at in range(0, len(whole), width)]
    if column.null_count:
        return [value if present else None for value, present in zip(values, _present(column), strict=True)]
    return values


def _listed_decimals(column: pa.Array, node: TypeNode) -> list[Any]:
    return [None if v is None else int.from_bytes(v, "little", signed=True) for v in _slices(column, node)]


def _listed_enums(column: pa.Array, node: TypeNode) -> list[Any]:
    if column.dictionary.to_pylist() != list(node.symbols):
        raise DatumError("expected the schema's symbols as dictionary, in its order")
    return _listed(column.indices, node)


def _listed_records(column: pa.Array, node: TypeNode) -> list[Any]:
    parts = [values_from_arrow(column.field(index), part) for index, part in enumerate(node.parts)]
    values: list[Any] = list(zip(*parts, strict=True)) if parts else [()] * len(column)
    if column.null_count:
        return [value if present else None for value, present in zip(values, _present(column), strict=True)]
    return values


def _grouped(column: pa.Array, items: list[Any]) -> list[Any]:
    ends = column.offsets.to_pylist()
    values: list[Any] = [items[start:end] for start, end in pairwise(ends)]
    if column.null_count:
        return [value if present else None for value, present in zip(values, _present(column), strict=True)]
    return values


def _listed_arrays(column: pa.Array, node: TypeNode) -> list[Any]:
    return _grouped(column, values_from_arrow(column.values, node.parts[0]))


def _listed_maps(column: pa.Array, node: TypeNode) -> list[Any]:
    keys, values = column.keys.to_pylist(), values_from_arrow(column.items, node.parts[0])
    return _grouped(column, list(zip(keys, values, strict=True)))


def branch_codes(column: pa.UnionArray) -> npt.NDArray[np.int8]:
    """Return the branch of each value. pyarrow's own `type_codes` ignores the offset of a slice."""
    data = column.buffers()[1]
    return np.frombuffer(data, np.int8, len(column), column.offset) if len(column) else np.zeros(0, np.int8)


def _listed_unions(column: pa.Array, node: TypeNode) -> list[Any]:
    branches = branch_codes(column).tolist()
    parts = [values_from_arrow(column.field(index), part) for index, part in enumerate(node.parts)]
    return [(branch, parts[branch][row] if 0 <= branch < len(parts) else None) for row, branch in enumerate(branches)]


_FROM_ARROW: Mapping[TypeKind, Callable[[pa.Array, TypeNode], list[Any]]] = {
    TypeKind.NULL: _listed,
    TypeKind.BOOLEAN: _listed,
    TypeKind.INT: _listed_integers,
    TypeKind.LONG: _listed_integers,
    TypeKind.FLOAT: _slices,
    TypeKind.DOUBLE: _slices,
    TypeKind.BYTES: _listed,
    TypeKind.STRING: _listed,
    TypeKind.ENUM: _listed_enums,
    TypeKind.FIXED: _slices,
    TypeKind.DECIMAL: _listed_decimals,
    TypeKind.RECORD: _listed_records,
    TypeKind.ARRAY: _listed_arrays,
    TypeKind.MAP: _listed_maps,
    TypeKind.UNION: _listed_unions,
    TypeKind.OPAQUE: _listed,
}

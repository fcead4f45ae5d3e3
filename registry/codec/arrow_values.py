"""Plain values of a shape (`registry.codec.datum_reader`) to Arrow and back, without loss.

`assemble` builds the column of the logical Arrow type (`registry.avro.type_tree`), `take_apart` gives the values of
a column back. Floats pass as their bytes, so that every NaN keeps its payload; decimals as integers, so that no
context of Python's decimal module can round them.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry.avro.type_tree import Kind, Shape
from registry.codec.datum_reader import FlawError

__all__ = ["assemble", "branches_of", "take_apart", "validity"]


def assemble(values: Sequence[Any], shape: Shape) -> pa.Array:
    """Return the column of n plain values."""
    if shape.kind is Kind.OPTIONAL:
        shape = shape.parts[0]
    return _ASSEMBLERS[shape.kind](values, shape)


def validity(values: Sequence[Any]) -> pa.Buffer | None:
    """Return the validity bitmap of n values, None when no value is null."""
    if None not in values:
        return None
    present = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def _plain(values: Sequence[Any], shape: Shape) -> pa.Array:
    return pa.array(values, shape.arrow)


def _integers(values: Sequence[Any], shape: Shape) -> pa.Array:
    width = pa.int32() if shape.kind is Kind.INT else pa.int64()
    column = pa.array(values, width)
    return column if width == shape.arrow else column.view(shape.arrow)


def _joined(values: Sequence[Any], shape: Shape) -> pa.Array:
    """Build a column of fixed width from the bytes of each value."""
    empty = bytes(shape.arrow.bit_width // 8)
    data = pa.py_buffer(b"".join([empty if value is None else value for value in values]))
    return pa.Array.from_buffers(shape.arrow, len(values), [validity(values), data])


def _decimals(values: Sequence[Any], shape: Shape) -> pa.Array:
    width = shape.arrow.bit_width // 8
    return _joined([None if value is None else value.to_bytes(width, "little", signed=True) for value in values], shape)


def _enums(values: Sequence[Any], shape: Shape) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(values, pa.int32()), pa.array(shape.symbols, pa.string()))


def _records(values: Sequence[Any], shape: Shape) -> pa.Array:
    rows = len(values)
    valid = validity(values)
    if valid is None:
        columns: list[tuple[Any, ...]] = list(zip(*values, strict=True)) if rows else [()] * len(shape.parts)
        children = [assemble(column, part) for column, part in zip(columns, shape.parts, strict=True)]
    else:
        # Under a null record its fields are null, whether they may be or not: nobody looks there.
        children = [
            assemble([None if value is None else value[index] for value in values], part)
            for index, part in enumerate(shape.parts)
        ]
    return pa.Array.from_buffers(shape.arrow, rows, [valid], children=children)


def _ends(values: Sequence[Any]) -> pa.Buffer:
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum([0 if value is None else len(value) for value in values], out=ends[1:])
    return pa.py_buffer(ends)


def _arrays(values: Sequence[Any], shape: Shape) -> pa.Array:
    items = assemble([item for value in values if value is not None for item in value], shape.parts[0])
    return pa.Array.from_buffers(shape.arrow, len(values), [validity(values), _ends(values)], children=[items])


def _maps(values: Sequence[Any], shape: Shape) -> pa.Array:
    entries = [entry for value in values if value is not None for entry in value]
    children = [
        pa.array([key for key, _ in entries], pa.string()),
        assemble([value for _, value in entries], shape.parts[0]),
    ]
    struct = pa.struct([shape.arrow.key_field, shape.arrow.item_field])
    pairs = pa.Array.from_buffers(struct, len(entries), [None], children=children)
    return pa.Array.from_buffers(shape.arrow, len(values), [validity(values), _ends(values)], children=[pairs])


def _unions(values: Sequence[Any], shape: Shape) -> pa.Array:
    # A union inside a null record has no value; branch 0 stands in, as the null record hides it.
    branches = np.fromiter((0 if value is None else value[0] for value in values), np.int8, len(values))
    children = [
        assemble([value[1] if value is not None and value[0] == index else None for value in values], part)
        for index, part in enumerate(shape.parts)
    ]
    return pa.Array.from_buffers(shape.arrow, len(values), [None, pa.py_buffer(branches)], children=children)


_ASSEMBLERS: Mapping[Kind, Callable[[Sequence[Any], Shape], pa.Array]] = {
    Kind.NULL: _plain,
    Kind.BOOLEAN: _plain,
    Kind.INT: _integers,
    Kind.LONG: _integers,
    Kind.FLOAT: _joined,
    Kind.DOUBLE: _joined,
    Kind.BYTES: _plain,
    Kind.STRING: _plain,
    Kind.ENUM: _enums,
    Kind.FIXED: _joined,
    Kind.DECIMAL: _decimals,
    Kind.RECORD: _records,
    Kind.ARRAY: _arrays,
    Kind.MAP: _maps,
    Kind.UNION: _unions,
    Kind.OPAQUE: _plain,
}


def take_apart(column: pa.Array, shape: Shape) -> list[Any]:
    """Return the plain values of a column of the shape's logical type; the column may be a slice.

    Raises:
        FlawError: for an enum column whose dictionary is not the schema's.
    """
    if shape.kind is Kind.OPTIONAL:
        shape = shape.parts[0]
    return _TAKERS[shape.kind](column, shape)


def _present(column: pa.Array) -> list[bool]:
    flags: list[bool] = column.is_valid().to_pylist()
    return flags


def _listed(column: pa.Array, _shape: Shape) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _listed_integers(column: pa.Array, shape: Shape) -> list[Any]:
    return _listed(column.view(pa.int32() if shape.kind is Kind.INT else pa.int64()), shape)


def _slices(column: pa.Array, shape: Shape) -> list[Any]:
    width = shape.arrow.bit_width // 8
    data = column.buffers()[1]
    if data is None or not width:
        return [b"" if present else None for present in _present(column)]
    whole = data.slice(column.offset * width, len(column) * width).to_pybytes()
    values: list[Any] = [whole[at : at + width] for at in range(0, len(whole), width)]
    if column.null_count:
        return [value if present else None for value, present in zip(values, _present(column), strict=True)]
    return values


def _listed_decimals(column: pa.Array, shape: Shape) -> list[Any]:
    return [None if v is None else int.from_bytes(v, "little", signed=True) for v in _slices(column, shape)]


def _listed_enums(column: pa.Array, shape: Shape) -> list[Any]:
    if column.dictionary.to_pylist() != list(shape.symbols):
        raise FlawError("expected the schema's symbols as dictionary, in its order")
    return _listed(column.indices, shape)


def _listed_records(column: pa.Array, shape: Shape) -> list[Any]:
    parts = [take_apart(column.field(index), part) for index, part in enumerate(shape.parts)]
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


def _listed_arrays(column: pa.Array, shape: Shape) -> list[Any]:
    return _grouped(column, take_apart(column.values, shape.parts[0]))


def _listed_maps(column: pa.Array, shape: Shape) -> list[Any]:
    keys, values = column.keys.to_pylist(), take_apart(column.items, shape.parts[0])
    return _grouped(column, list(zip(keys, values, strict=True)))


def branches_of(column: pa.UnionArray) -> npt.NDArray[np.int8]:
    """Return the branch of each value. pyarrow's own `type_codes` forgets that a column may be a slice."""
    data = column.buffers()[1]
    return np.frombuffer(data, np.int8, len(column), column.offset) if len(column) else np.zeros(0, np.int8)


def _listed_unions(column: pa.Array, shape: Shape) -> list[Any]:
    branches = branches_of(column).tolist()
    parts = [take_apart(column.field(index), part) for index, part in enumerate(shape.parts)]
    return [(branch, parts[branch][row] if 0 <= branch < len(parts) else None) for row, branch in enumerate(branches)]


_TAKERS: Mapping[Kind, Callable[[pa.Array, Shape], list[Any]]] = {
    Kind.NULL: _listed,
    Kind.BOOLEAN: _listed,
    Kind.INT: _listed_integers,
    Kind.LONG: _listed_integers,
    Kind.FLOAT: _slices,
    Kind.DOUBLE: _slices,
    Kind.BYTES: _listed,
    Kind.STRING: _listed,
    Kind.ENUM: _listed_enums,
    Kind.FIXED: _slices,
    Kind.DECIMAL: _listed_decimals,
    Kind.RECORD: _listed_records,
    Kind.ARRAY: _listed_arrays,
    Kind.MAP: _listed_maps,
    Kind.UNION: _listed_unions,
    Kind.OPAQUE: _listed,
}

"""Column matching: a caller's batch to the columns that a schema wants, by name, in order, of the logical types.

Engines match columns by name, and of two of one name the last would win; a column left out would be noticed late, one
too many never. So the names must agree exactly. Types may differ where the conversion loses nothing: large or view
strings, narrower integers, decimals of other scales whose digits fit, other units of time, text for an enum. A
timestamp without a zone is never taken for one with, nor the other way round.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from registry.avro.parser import Field
from registry.avro.type_tree import TypeKind, TypeNode
from registry.codec.engine import RowError, rows_invalid_error
from schemas.errors import InvalidError, Reason

__all__ = ["match_columns", "selected_indexes"]


def match_columns(batch: pa.RecordBatch, fields: Sequence[Field]) -> list[pa.Array]:
    """Return one column a field, in order, each of the field's logical Arrow type.

    Raises:
        InvalidError: FIELD_UNKNOWN, when the batch's columns are not exactly the schema's fields; RECORD_INVALID,
            when a column cannot be brought into its field's type without loss.
    """
    stated = Counter(batch.schema.names)
    wanted = {field.name for field in fields}
    if stated.keys() != wanted or len(batch.schema.names) != len(wanted):
        missing = ", ".join(sorted(wanted - stated.keys())[:5]) or "none"
        surplus = ", ".join(sorted(str(name)[:100] for name in stated.keys() - wanted)[:5]) or "none"
        twice = ", ".join(name for name, count in stated.items() if count > 1 and name in wanted) or "none"
        raise InvalidError(
            Reason.FIELD_UNKNOWN,
            f"got columns that are not the schema's fields; expected each field once. Missing: {missing}; unknown: "
            f"{surplus}; twice: {twice}",
        )
    return [_converted(batch.column(field.name), field.type_tree, field.name) for field in fields]


def selected_indexes(fields: Sequence[Field], select: tuple[str, ...] | None) -> list[int]:
    """Return the indexes of the fields to decode, in the order wanted.

    Raises:
        InvalidError: FIELD_UNKNOWN, for a name that the schema lacks or that is named twice.
    """
    if select is None:
        return list(range(len(fields)))
    known = {field.name: index for index, field in enumerate(fields)}
    if len(set(select)) != len(select) or not known.keys() >= set(select):
        wrong = next((name for name in select if name not in known), "a name twice")
        raise InvalidError(
            Reason.FIELD_UNKNOWN,
            f"got a selection with {wrong[:100]!r}; expected different fields of the schema's {len(fields)}",
            details={"field": wrong[:100]},
        )
    return [known[name] for name in select]


def _converted(column: pa.Array, node: TypeNode, name: str) -> pa.Array:
    inner = node.parts[0] if node.kind is TypeKind.OPTIONAL else node
    if inner.kind is TypeKind.ENUM:
        return _enum(column, inner, name)
    if column.type == node.arrow or _same_structure(column.type, node.arrow):
        return column
    if types.is_null(column.type):
        return pa.nulls(len(column), node.arrow)
    if not _lossless(column.type, node.arrow):
        raise _column_invalid_error(
            name, f"a column of {column.type}; expected {node.arrow}, or a type that becomes it without loss"
        )
    try:
        return column.cast(node.arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        # Arrow's own message would hold the value that does not fit.
        raise _column_invalid_error(name, f"values of {column.type} that do not fit; expected {node.arrow}") from None


def _enum(column: pa.Array, node: TypeNode, name: str) -> pa.Array:
    symbols = pa.array(node.symbols, pa.string())
    if column.type == node.arrow and column.dictionary.equals(symbols):
        return column
    texts = column.dictionary_decode() if types.is_dictionary(column.type) else column
    if types.is_null(texts.type):
        texts = pa.nulls(len(column), pa.string())
    if not _is_text(texts.type):
        raise _column_invalid_error(
            name, f"a column of {column.type}; expected the enum's symbols as text or as a dictionary"
        )
    indexes = pc.index_in(texts.cast(pa.string()), symbols)
    unknown = np.flatnonzero(pc.and_(indexes.is_null(), texts.is_valid()).to_numpy(zero_copy_only=False))
    if len(unknown):
        message = f"expected one of the enum's {len(node.symbols)} symbols"
        first = RowError(index=int(unknown[0]), reason=Reason.RECORD_INVALID, field=name, message=message)
        raise rows_invalid_error([first], len(column))
    return pa.DictionaryArray.from_arrays(indexes, symbols)


def _same_structure(stated: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether two nested types are equal but for nullability and the names of items."""
    if types.is_map(stated) and types.is_map(wanted):
        return _same_structure(stated.key_type, wanted.key_type) and _same_structure(stated.item_type, wanted.item_type)
    if types.is_list(stated) and types.is_list(wanted):
        return _same_structure(stated.value_type, wanted.value_type)
    same_kind = (types.is_struct(stated) and types.is_struct(wanted)) or (
        types.is_union(stated)
        and types.is_union(wanted)
        and (stated.mode, stated.type_codes) == (wanted.mode, wanted.type_codes)
    )
    if not same_kind or stated.num_fields != wanted.num_fields:
        return bool(stated == wanted)
    pairs = [(stated.field(index), wanted.field(index)) for index in range(stated.num_fields)]
    return all(one.name == other.name and _same_structure(one.type, other.type) for one, other in pairs)


def _is_text(stated: pa.DataType) -> bool:
    return bool(types.is_string(stated) or types.is_large_string(stated) or types.is_string_view(stated))


def _is_bytes(stated: pa.DataType) -> bool:
    return bool(types.is_binary(stated) or types.is_large_binary(stated) or types.is_binary_view(stated))


def _lossless(stated: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a checked cast is lossless."""
    if types.is_timestamp(stated) and types.is_timestamp(wanted):
        return (stated.tz is None) == (wanted.tz is None)
    same = (
        types.is_integer,
        types.is_decimal,
        types.is_time,
        types.is_date,
        types.is_fixed_size_binary,
        _is_text,
        _is_bytes,
    )
    if any(kind(stated) and kind(wanted) for kind in same):
        return True
    return bool(types.is_floating(stated) and types.is_floating(wanted) and stated.bit_width <= wanted.bit_width)


def _column_invalid_error(name: str, got: str) -> InvalidError:
    return InvalidError(Reason.RECORD_INVALID, f"got, for the field {name}, {got}", details={"field": name})

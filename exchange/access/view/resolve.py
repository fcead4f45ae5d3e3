"""Schema resolution on columns: from the type that a version wrote to the type that the view reads.

A grant is approved once and its view has one output schema, while the resource's schema changes within its major. Each
granted field of each writer's schema is therefore converted to the type that the view has for it, by the rules of the
Avro specification ("Schema Resolution"), on whole columns:

    int → long, float, double; long → float, double; float → double; string ↔ bytes
    T → [null, T] and every other union that has a branch for T
    enum by symbols, an unknown one to the reader's default symbol
    record by the fields' names and the reader's aliases, missing ones filled, others left out; array, map inside

Where two unions differ, a value goes to the reader's branch of the same kind and name, and if there is none to the
first branch to which its type can be promoted.

Two rules are stricter than Avro's. A logical type or a decimal's precision and scale must agree, or dates would be
read as numbers. Recursive types and unions of more than 127 branches, which are columns of Avro bytes, must be equal.

A field that the writer lacks takes the reader's default, else null if it may be null; else there is no resolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from exchange.access.view.default_column import default_column
from registry.avro.parser import NO_DEFAULT
from registry.avro.type_tree import TypeKind, TypeNode
from schemas.errors import CorruptError, InvalidError, Reason

__all__ = ["AvroType", "Conversion", "default_filler", "resolve"]

Conversion: TypeAlias = Callable[[pa.Array], pa.Array]
"""Column in the writer's logical type → column in the reader's, of the same length."""

_PROMOTED: dict[TypeKind, frozenset[TypeKind]] = {  # reader's kind → writers' kinds that it also reads
    TypeKind.LONG: frozenset({TypeKind.INT}),
    TypeKind.FLOAT: frozenset({TypeKind.INT, TypeKind.LONG}),
    TypeKind.DOUBLE: frozenset({TypeKind.INT, TypeKind.LONG, TypeKind.FLOAT}),
    TypeKind.STRING: frozenset({TypeKind.BYTES}),
    TypeKind.BYTES: frozenset({TypeKind.STRING}),
}
_UNANNOTATED = {
    TypeKind.INT: pa.int32(),
    TypeKind.LONG: pa.int64(),
    TypeKind.FLOAT: pa.float32(),
    TypeKind.DOUBLE: pa.float64(),
    TypeKind.STRING: pa.string(),
    TypeKind.BYTES: pa.binary(),
}


@dataclass(frozen=True, slots=True)
class AvroType:
    """An Avro type in both of its forms: resolved Avro JSON (`registry.avro.parser.Field.type`), and its type tree."""

    avro: Any
    node: TypeNode

    def parts(self) -> list["AvroType"]:
        """Return the types inside: fields of a record, branches of a union, item of an array, value of a map."""
        match self.node.kind:
            case TypeKind.OPTIONAL:
                inner = [self.avro[1 - self.node.null_index]]
            case TypeKind.UNION:
                inner = self.avro
            case TypeKind.RECORD:
                inner = [field["type"] for field in self.avro["fields"]]
            case TypeKind.ARRAY:
                inner = [self.avro["items"]]
            case TypeKind.MAP:
                inner = [self.avro["values"]]
            case _:
                inner = []
        return [AvroType(avro, node) for avro, node in zip(inner, self.node.parts, strict=False)]

    @property
    def name(self) -> str:
        """Short name of a record, enum or fixed; empty for other types."""
        return self.avro.get("name", "").rpartition(".")[2] if isinstance(self.avro, dict) else ""


def resolve(writer: AvroType, reader: AvroType, field: str) -> Conversion:
    """Compile the resolution of one type into another.

    Args:
        writer: the type that was written.
        reader: the type to read it as.
        field: dotted path, for messages.

    Raises:
        InvalidError: SCHEMA_INCOMPATIBLE, when the reader cannot read what the writer may have written.
    """
    if _opaque(writer.node) or _opaque(reader.node):
        if _wire_form(writer.avro, {}) == _wire_form(reader.avro, {}):
            return _identity
        raise _incompatible(field, "a recursive or very wide type that changed; such a type must stay as it is")
    return _resolve(writer, reader, field)


def _resolve(writer: AvroType, reader: AvroType, field: str) -> Conversion:  # noqa: C901, PLR0911 - one return a case
    if _same_type(writer, reader):
        return _identity
    if TypeKind.UNION in (writer.node.kind, reader.node.kind):
        return _union(writer, reader, field)
    if writer.node.kind is TypeKind.OPTIONAL:
        if reader.node.kind is not TypeKind.OPTIONAL:
            raise _incompatible(field, "null, which the view's type does not hold")
        return _resolve(writer.parts()[0], reader.parts()[0], field)
    if reader.node.kind is TypeKind.OPTIONAL:
        if writer.node.kind is TypeKind.NULL:
            return lambda column: _null_column(reader.node, len(column))
        return _resolve(writer, reader.parts()[0], field)
    if writer.node.kind is reader.node.kind:
        match writer.node.kind:
            case TypeKind.ENUM:
                return _enum(writer, reader, field)
            case TypeKind.RECORD:
                return _record(writer, reader, field)
            case TypeKind.ARRAY | TypeKind.MAP:
                return _array_or_map(writer, reader, field)
    elif writer.node.kind in _PROMOTED.get(reader.node.kind, ()):
        return _promotion(writer.node, reader.node, field)
    raise _incompatible(field, f"{writer.node.kind} ({writer.node.arrow}), which is not read as {reader.node.arrow}")


def default_filler(reader: AvroType, default: Any, field: str) -> Callable[[int], pa.Array]:
    """Return the column of a field that the writer lacks, as a function of the row count.

    Args:
        reader: its type.
        default: as JSON, or NO_DEFAULT.
        field: dotted path, for messages.

    Raises:
        InvalidError: SCHEMA_INCOMPATIBLE, when there is neither a default nor null.
    """
    kind = reader.node.kind
    may_be_null = kind in (TypeKind.OPTIONAL, TypeKind.NULL) or any(
        part.kind is TypeKind.NULL for part in reader.node.parts
    )
    if default is not NO_DEFAULT:
        one = default_column(reader.avro, default)
    elif may_be_null:
        one = default_column(reader.avro, None)
    else:
        raise _incompatible(field, "nothing: the field is not there, has no default and cannot be null")
    return lambda count: one.take(pa.array(np.zeros(count, np.int32)))


def _identity(column: pa.Array) -> pa.Array:
    return column


def _same_type(writer: AvroType, reader: AvroType) -> bool:
    """Return whether columns of the two types are equal, value for value; neither holds an opaque type."""
    one, other = writer.node, reader.node
    return (
        one.kind is other.kind
        and one.arrow == other.arrow
        and one.symbols == other.symbols
        and one.names == other.names
        and all(
            _same_type(ours, theirs) and (one.kind is not TypeKind.UNION or ours.name == theirs.name)
            for ours, theirs in zip(writer.parts(), reader.parts(), strict=True)
        )
    )


def _opaque(node: TypeNode) -> bool:
    return node.kind is TypeKind.OPAQUE or any(map(_opaque, node.parts))


def _wire_form(avro: Any, names: dict[str, int]) -> Any:
    """Return what decides about the bytes of a type; names count by their order only, so that a type may be renamed."""
    if isinstance(avro, list):
        return [_wire_form(branch, names) for branch in avro]
    if not isinstance(avro, dict):
        return names.get(avro, avro)
    form = {key: avro[key] for key in ("type", "size", "symbols") if key in avro}
    if "name" in avro:
        form["name"] = names.setdefault(avro["name"], len(names))
    for key in ("items", "values"):
        if key in avro:
            form[key] = _wire_form(avro[key], names)
    if "fields" in avro:
        form["fields"] = [(field["name"], _wire_form(field["type"], names)) for field in avro["fields"]]
    return form


def _promotion(writer: TypeNode, reader: TypeNode, field: str) -> Conversion:
    if writer.arrow != _UNANNOTATED[writer.kind] or reader.arrow != _UNANNOTATED[reader.kind]:
        raise _incompatible(field, f"{writer.arrow}, which read as {reader.arrow} would change its meaning")
    target = reader.arrow
    if reader.kind is TypeKind.STRING:
        return lambda column: _text(column, field)
    if reader.kind is TypeKind.FLOAT:
        # Through double, as every engine that holds a number in a C double does: one rounding for all of them.
        return lambda column: column.cast(pa.float64(), safe=False).cast(target, safe=False)
    return lambda column: column.cast(target, safe=False)


def _text(column: pa.Array, field: str) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise CorruptError(
            Reason.RECORD_INVALID,
            f"got bytes in the field {field!r} that are no UTF-8; expected text, since the view's type is string",
            details={"field": field},
        ) from error


def _enum(writer: AvroType, reader: AvroType, field: str) -> Conversion:
    indices_by_symbol = {symbol: index for index, symbol in enumerate(reader.node.symbols)}
    otherwise = indices_by_symbol.get(reader.avro.get("default"), -1)
    table = np.array([indices_by_symbol.get(symbol, otherwise) for symbol in writer.node.symbols], np.int32)
    symbols = pa.array(reader.node.symbols, pa.string())

    def convert(column: pa.Array) -> pa.Array:
        indices = column.indices.fill_null(0)
        found = table[indices.to_numpy()]
        nulls = column.is_null().to_numpy(zero_copy_only=False)
        if (found[~nulls] < 0).any():
            raise CorruptError(
                Reason.SCHEMA_INCOMPATIBLE,
                f"got a symbol in the field {field!r} that the view's enum lacks and has no default for; ask "
                "for a new grant",
                details={"field": field},
            )
        return pa.DictionaryArray.from_arrays(pa.array(found, pa.int32(), mask=nulls), symbols)

    return convert


def _record(writer: AvroType, reader: AvroType, field: str) -> Conversion:
    written = dict(zip(writer.node.names, enumerate(writer.parts()), strict=True))
    children: list[Callable[[list[pa.Array], int], pa.Array]] = []
    for described, part in zip(reader.avro["fields"], reader.parts(), strict=True):
        path = f"{field}.{described['name']}"
        source = next(
            (written[name] for name in (described["name"], *described.get("aliases", ())) if name in written), None
        )
        if source is None:
            children.append(_from_filler(default_filler(part, described.get("default", NO_DEFAULT), path)))
        else:
            children.append(_from_child(source[0], _resolve(source[1], part, path)))
    fields = list(reader.node.arrow)

    def without_nulls(column: pa.Array) -> pa.Array:
        parts = [column.field(index) for index in range(column.type.num_fields)]
        return pa.StructArray.from_arrays([child(parts, len(column)) for child in children], fields=fields)

    def convert(column: pa.Array) -> pa.Array:
        if not column.null_count:
            return without_nulls(column)
        # Without the nulls, under which the fields hold arbitrary bytes. (`flatten` would abort on a union among them.)
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return _scatter([without_nulls(column.take(pa.array(rows)))], [rows], reader.node, len(column))

    return convert


def _from_filler(fill: Callable[[int], pa.Array]) -> Callable[[list[pa.Array], int], pa.Array]:
    return lambda _, count: fill(count)


def _from_child(index: int, convert: Conversion) -> Callable[[list[pa.Array], int], pa.Array]:
    return lambda parts, _: convert(parts[index])


def _array_or_map(writer: AvroType, reader: AvroType, field: str) -> Conversion:
    convert = _resolve(writer.parts()[0], reader.parts()[0], field)
    target = reader.node.arrow
    is_map = reader.node.kind is TypeKind.MAP

    def converted(column: pa.Array) -> pa.Array:
        nulls = column.is_null() if column.null_count else None
        if is_map:
            return pa.MapArray.from_arrays(column.offsets, column.keys, convert(column.items), type=target, mask=nulls)
        return pa.ListArray.from_arrays(column.offsets, convert(column.values), type=target, mask=nulls)

    return converted


def _union(writer: AvroType, reader: AvroType, field: str) -> Conversion:
    """Resolve where at least one side is a union of other than null and one type.

    The rows of each of the writer's branches are converted apart, since its column has no values in the rows of the
    others; each is then scattered to its rows in the reader's branch.
    """
    branches = writer.parts() if writer.node.kind is TypeKind.UNION else [writer]
    if writer.node.kind is TypeKind.OPTIONAL:
        branches = [_NULL, writer.parts()[0]]
    targets = reader.parts() if reader.node.kind is TypeKind.UNION else [reader]
    chosen = [_branch(branch, targets, field) for branch in branches]

    def convert(column: pa.Array) -> pa.Array:
        codes = _branch_indices(writer.node, column)
        type_codes = np.zeros(len(column), np.int8)
        pieces: list[tuple[list[pa.Array], list[np.ndarray[Any, Any]]]] = [([], []) for _ in targets]
        for code, (branch, (target, inner)) in enumerate(zip(branches, chosen, strict=True)):
            rows = np.flatnonzero(codes == code)
            if not len(rows):
                continue
            type_codes[rows] = target
            part = _branch_column(writer.node, column, code, branch.node)
            pieces[target][0].append(inner(part.take(pa.array(rows))))
            pieces[target][1].append(rows)
        children = [
            _scatter(arrays, rows, part.node, len(column)) for (arrays, rows), part in zip(pieces, targets, strict=True)
        ]
        if reader.node.kind is not TypeKind.UNION:
            return children[0]
        names = [f"b{index}" for index in range(len(children))]
        return pa.UnionArray.from_sparse(pa.array(type_codes, pa.int8()), children, names)

    return convert


_NULL = AvroType(
    "null", TypeNode(kind=TypeKind.NULL, arrow=pa.null(), min_wire_size=0, fixed_arrow_size=0, amplification_excess=0)
)


def _branch(branch: AvroType, targets: Sequence[AvroType], field: str) -> tuple[int, Conversion]:
    """Choose the reader's branch: the same type, else the same kind and name, else the first that reads it."""

    def preference(index: int) -> tuple[int, int]:
        target = targets[index]
        inner = target.parts()[0] if target.node.kind is TypeKind.OPTIONAL else target
        if inner.name == branch.name and _same_type(branch, inner):
            return 0, index
        return (1 if inner.name == branch.name and inner.node.kind is branch.node.kind else 2), index

    for index in sorted(range(len(targets)), key=preference):
        try:
            return index, _resolve(branch, targets[index], field)
        except InvalidError:
            continue
    raise _incompatible(field, f"a branch of type {branch.node.kind}, for which the view's type has none")


def _branch_indices(node: TypeNode, column: pa.Array) -> np.ndarray[Any, Any]:
    """Return the index of each row's branch in the writer's union, as `_union` numbers them."""
    if node.kind is TypeKind.UNION:
        return np.asarray(column.type_codes)
    if node.kind is TypeKind.OPTIONAL:
        return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.int8)
    return np.zeros(len(column), np.int8)


def _branch_column(node: TypeNode, column: pa.Array, code: int, branch: TypeNode) -> pa.Array:
    if node.kind is TypeKind.UNION:
        return column.field(code)
    return pa.nulls(len(column)) if branch.kind is TypeKind.NULL else column


def _scatter(arrays: list[pa.Array], rows: list[Any], node: TypeNode, count: int) -> pa.Array:
    """Scatter arrays to their rows; null elsewhere."""
    if not sum(map(len, arrays)):
        return _null_column(node, count)
    sources = np.full(count, -1, np.int64)
    start = 0
    for array, targets in zip(arrays, rows, strict=True):
        sources[targets] = np.arange(start, start + len(array))
        start += len(array)
    concatenated = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
    return concatenated.take(pa.array(sources, mask=sources < 0))


def _null_column(node: TypeNode, count: int) -> pa.Array:  # noqa: PLR0911 - one return a kind
    """Return a column of nulls, or of the filler of a branch without values. Enums have their symbols even there."""
    nulls = pa.array(np.ones(count, np.bool_))
    match node.kind:
        case TypeKind.ENUM:
            indices = pa.nulls(count, pa.int32())
            return pa.DictionaryArray.from_arrays(indices, pa.array(node.symbols, pa.string()))
        case TypeKind.OPTIONAL:
            return _null_column(node.parts[0], count)
        case TypeKind.RECORD:
            children = [_null_column(part, count) for part in node.parts]
            return pa.StructArray.from_arrays(children, fields=list(node.arrow), mask=nulls)
        case TypeKind.ARRAY:
            offsets = pa.array(np.zeros(count + 1, np.int32))
            return pa.ListArray.from_arrays(offsets, _null_column(node.parts[0], 0), type=node.arrow, mask=nulls)
        case TypeKind.MAP:
            offsets = pa.array(np.zeros(count + 1, np.int32))
            items = _null_column(node.parts[0], 0)
            return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), items, type=node.arrow, mask=nulls)
        case TypeKind.UNION:
            children = [_null_column(part, count) for part in node.parts]
            names = [f"b{index}" for index in range(len(children))]
            return pa.UnionArray.from_sparse(pa.array(np.zeros(count, np.int8)), children, names)
    return pa.nulls(count, node.arrow)


def _incompatible(field: str, got: str) -> InvalidError:
    return InvalidError(
        Reason.SCHEMA_INCOMPATIBLE,
        f"got a schema version that writes the field {field!r} as {got}; the grant's view cannot be made of it",
        details={"field": field},
    )

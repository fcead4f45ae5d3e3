"""A column as one version of a schema wrote it, to the same column as another version reads it.

A grant is approved once and its view has one output schema, while the resource's schema goes on changing within its
major. Each granted field of each writer's schema is therefore brought into the type that the view has for it, by the
rules of the Avro specification ("Schema Resolution"), on whole columns:

    int → long, float, double; long → float, double; float → double; string ↔ bytes
    T → [null, T] and every other union that has a branch for T
    enum by symbols, an unknown one to the reader's default symbol
    record by the fields' names and the reader's aliases, missing ones filled, others left out; array, map inside

Where the two unions differ, a value keeps its own branch: the reader's branch of the same kind and name, and only
failing that the first one to which the type can be promoted.

Two rules are stricter than Avro's. A logical type or a decimal's precision and scale must agree, or dates would be
read as numbers. Recursive types and unions of more than 127 branches, which stay in their Avro bytes, must be equal.

A field that the writer lacks takes the reader's default, else null if it may be null; else there is no resolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from exchange.access.view.default_column import Absent, constant
from registry.avro.type_tree import Kind, Shape
from schemas.errors import CorruptError, InvalidError, Reason

__all__ = ["Convert", "Typed", "missing", "resolve"]

Convert: TypeAlias = Callable[[pa.Array], pa.Array]
"""Column in the writer's logical type → column in the reader's, of the same length."""

_PROMOTED: dict[Kind, frozenset[Kind]] = {  # reader's kind → writers' kinds that it also reads
    Kind.LONG: frozenset({Kind.INT}),
    Kind.FLOAT: frozenset({Kind.INT, Kind.LONG}),
    Kind.DOUBLE: frozenset({Kind.INT, Kind.LONG, Kind.FLOAT}),
    Kind.STRING: frozenset({Kind.BYTES}),
    Kind.BYTES: frozenset({Kind.STRING}),
}
_PLAIN = {
    Kind.INT: pa.int32(),
    Kind.LONG: pa.int64(),
    Kind.FLOAT: pa.float32(),
    Kind.DOUBLE: pa.float64(),
    Kind.STRING: pa.string(),
    Kind.BYTES: pa.binary(),
}


@dataclass(frozen=True, slots=True)
class Typed:
    """A type in both of its forms: resolved Avro JSON (`registry.avro.parser.Field.type`), and its shape."""

    avro: Any
    shape: Shape

    def parts(self) -> list["Typed"]:
        """Return the types inside: fields of a record, branches of a union, item of an array, value of a map."""
        match self.shape.kind:
            case Kind.OPTIONAL:
                inner = [self.avro[1 - self.shape.null_index]]
            case Kind.UNION:
                inner = self.avro
            case Kind.RECORD:
                inner = [field["type"] for field in self.avro["fields"]]
            case Kind.ARRAY:
                inner = [self.avro["items"]]
            case Kind.MAP:
                inner = [self.avro["values"]]
            case _:
                inner = []
        return [Typed(avro, shape) for avro, shape in zip(inner, self.shape.parts, strict=False)]

    @property
    def name(self) -> str:
        """Short name of a record, enum or fixed; empty for other types."""
        return self.avro.get("name", "").rpartition(".")[2] if isinstance(self.avro, dict) else ""


def resolve(writer: Typed, reader: Typed, field: str) -> Convert:
    """Compile the resolution of one type into another.

    Args:
        writer: as it was written.
        reader: as it is wanted.
        field: dotted path, for messages.

    Raises:
        InvalidError: SCHEMA_INCOMPATIBLE, when the reader cannot read what the writer may have written.
    """
    if _opaque(writer.shape) or _opaque(reader.shape):
        if _wire(writer.avro, {}) == _wire(reader.avro, {}):
            return _same
        raise _incompatible(field, "a recursive or very wide type that changed; such a type must stay as it is")
    return _resolve(writer, reader, field)


def _resolve(writer: Typed, reader: Typed, field: str) -> Convert:  # noqa: C901, PLR0911 - one return a case
    if _alike(writer, reader):
        return _same
    if Kind.UNION in (writer.shape.kind, reader.shape.kind):
        return _unions(writer, reader, field)
    if writer.shape.kind is Kind.OPTIONAL:
        if reader.shape.kind is not Kind.OPTIONAL:
            raise _incompatible(field, "null, which the view's type does not hold")
        return _resolve(writer.parts()[0], reader.parts()[0], field)
    if reader.shape.kind is Kind.OPTIONAL:
        if writer.shape.kind is Kind.NULL:
            return lambda column: _blank(reader.shape, len(column))
        return _resolve(writer, reader.parts()[0], field)
    if writer.shape.kind is reader.shape.kind:
        match writer.shape.kind:
            case Kind.ENUM:
                return _enum(writer, reader, field)
            case Kind.RECORD:
                return _record(writer, reader, field)
            case Kind.ARRAY | Kind.MAP:
                return _repeated(writer, reader, field)
    elif writer.shape.kind in _PROMOTED.get(reader.shape.kind, ()):
        return _promotion(writer.shape, reader.shape, field)
    raise _incompatible(field, f"{writer.shape.kind} ({writer.shape.arrow}), which is not read as {reader.shape.arrow}")


def missing(reader: Typed, default: Any, field: str) -> Callable[[int], pa.Array]:
    """Return what stands for a field that the writer lacks: row count → column.

    Args:
        reader: its type.
        default: as JSON, or `constant.Absent`.
        field: dotted path, for messages.

    Raises:
        InvalidError: SCHEMA_INCOMPATIBLE, when there is neither a default nor null.
    """
    kind = reader.shape.kind
    may_be_null = kind in (Kind.OPTIONAL, Kind.NULL) or any(part.kind is Kind.NULL for part in reader.shape.parts)
    if default is not Absent:
        one = constant(reader.avro, default)
    elif may_be_null:
        one = constant(reader.avro, None)
    else:
        raise _incompatible(field, "nothing: the field is not there, has no default and cannot be null")
    return lambda count: one.take(pa.array(np.zeros(count, np.int32)))


def _same(column: pa.Array) -> pa.Array:
    return column


def _alike(writer: Typed, reader: Typed) -> bool:
    """Return whether columns of the two types mean the same, value for value; neither holds an opaque type."""
    one, other = writer.shape, reader.shape
    return (
        one.kind is other.kind
        and one.arrow == other.arrow
        and one.symbols == other.symbols
        and one.names == other.names
        and all(
            _alike(mine, theirs) and (one.kind is not Kind.UNION or mine.name == theirs.name)
            for mine, theirs in zip(writer.parts(), reader.parts(), strict=True)
        )
    )


def _opaque(shape: Shape) -> bool:
    return shape.kind is Kind.OPAQUE or any(map(_opaque, shape.parts))


def _wire(avro: Any, names: dict[str, int]) -> Any:
    """Return what of a type decides about its bytes; names count by their order only, so that a type may be renamed."""
    if isinstance(avro, list):
        return [_wire(branch, names) for branch in avro]
    if not isinstance(avro, dict):
        return names.get(avro, avro)
    kept = {key: avro[key] for key in ("type", "size", "symbols") if key in avro}
    if "name" in avro:
        kept["name"] = names.setdefault(avro["name"], len(names))
    for key in ("items", "values"):
        if key in avro:
            kept[key] = _wire(avro[key], names)
    if "fields" in avro:
        kept["fields"] = [(field["name"], _wire(field["type"], names)) for field in avro["fields"]]
    return kept


def _promotion(writer: Shape, reader: Shape, field: str) -> Convert:
    if writer.arrow != _PLAIN[writer.kind] or reader.arrow != _PLAIN[reader.kind]:
        raise _incompatible(field, f"{writer.arrow}, which read as {reader.arrow} would change its meaning")
    target = reader.arrow
    if reader.kind is Kind.STRING:
        return lambda column: _text(column, field)
    if reader.kind is Kind.FLOAT:
        # By way of double, as every engine that holds a number in a C double does: one rounding for all of them.
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


def _enum(writer: Typed, reader: Typed, field: str) -> Convert:
    places = {symbol: place for place, symbol in enumerate(reader.shape.symbols)}
    otherwise = places.get(reader.avro.get("default"), -1)
    table = np.array([places.get(symbol, otherwise) for symbol in writer.shape.symbols], np.int32)
    symbols = pa.array(reader.shape.symbols, pa.string())

    def convert(column: pa.Array) -> pa.Array:
        indices = column.indices.fill_null(0)
        found = table[indices.to_numpy()]
        gone = column.is_null().to_numpy(zero_copy_only=False)
        if (found[~gone] < 0).any():
            raise CorruptError(
                Reason.SCHEMA_INCOMPATIBLE,
                f"got a symbol in the field {field!r} that the view's enum lacks and has no default for; the grant "
                "must be approved anew",
                details={"field": field},
            )
        return pa.DictionaryArray.from_arrays(pa.array(found, pa.int32(), mask=gone), symbols)

    return convert


def _record(writer: Typed, reader: Typed, field: str) -> Convert:
    written = dict(zip(writer.shape.names, enumerate(writer.parts()), strict=True))
    children: list[Callable[[list[pa.Array], int], pa.Array]] = []
    for described, part in zip(reader.avro["fields"], reader.parts(), strict=True):
        path = f"{field}.{described['name']}"
        source = next(
            (written[name] for name in (described["name"], *described.get("aliases", ())) if name in written), None
        )
        if source is None:
            children.append(_filled(missing(part, described.get("default", Absent), path)))
        else:
            children.append(_taken(source[0], _resolve(source[1], part, path)))
    fields = list(reader.shape.arrow)

    def whole(column: pa.Array) -> pa.Array:
        parts = [column.field(place) for place in range(column.type.num_fields)]
        return pa.StructArray.from_arrays([child(parts, len(column)) for child in children], fields=fields)

    def convert(column: pa.Array) -> pa.Array:
        if not column.null_count:
            return whole(column)
        # Apart from the nulls, under which the fields hold anything. (`flatten` would abort on a union among them.)
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return _placed([whole(column.take(pa.array(rows)))], [rows], reader.shape, len(column))

    return convert


def _filled(fill: Callable[[int], pa.Array]) -> Callable[[list[pa.Array], int], pa.Array]:
    return lambda _, count: fill(count)


def _taken(place: int, convert: Convert) -> Callable[[list[pa.Array], int], pa.Array]:
    return lambda parts, _: convert(parts[place])


def _repeated(writer: Typed, reader: Typed, field: str) -> Convert:
    convert = _resolve(writer.parts()[0], reader.parts()[0], field)
    target = reader.shape.arrow
    is_map = reader.shape.kind is Kind.MAP

    def converted(column: pa.Array) -> pa.Array:
        gone = column.is_null() if column.null_count else None
        if is_map:
            return pa.MapArray.from_arrays(column.offsets, column.keys, convert(column.items), type=target, mask=gone)
        return pa.ListArray.from_arrays(column.offsets, convert(column.values), type=target, mask=gone)

    return converted


def _unions(writer: Typed, reader: Typed, field: str) -> Convert:
    """Resolve where at least one side is a union of other than null and one type.

    The rows of each of the writer's branches are converted apart, for what stands under the rows of the others is
    no value; each then goes to its place in the reader's branch.
    """
    branches = writer.parts() if writer.shape.kind is Kind.UNION else [writer]
    if writer.shape.kind is Kind.OPTIONAL:
        branches = [_NULL, writer.parts()[0]]
    targets = reader.parts() if reader.shape.kind is Kind.UNION else [reader]
    chosen = [_branch(branch, targets, field) for branch in branches]

    def convert(column: pa.Array) -> pa.Array:
        codes = _codes(writer.shape, column)
        places = np.zeros(len(column), np.int8)
        pieces: list[tuple[list[pa.Array], list[np.ndarray[Any, Any]]]] = [([], []) for _ in targets]
        for code, (branch, (target, inner)) in enumerate(zip(branches, chosen, strict=True)):
            rows = np.flatnonzero(codes == code)
            if not len(rows):
                continue
            places[rows] = target
            part = _part(writer.shape, column, code, branch.shape)
            pieces[target][0].append(inner(part.take(pa.array(rows))))
            pieces[target][1].append(rows)
        children = [
            _placed(arrays, rows, part.shape, len(column)) for (arrays, rows), part in zip(pieces, targets, strict=True)
        ]
        if reader.shape.kind is not Kind.UNION:
            return children[0]
        names = [f"b{place}" for place in range(len(children))]
        return pa.UnionArray.from_sparse(pa.array(places, pa.int8()), children, names)

    return convert


_NULL = Typed("null", Shape(kind=Kind.NULL, arrow=pa.null(), least=0, hollow=0, excess=0))


def _branch(branch: Typed, targets: Sequence[Typed], field: str) -> tuple[int, Convert]:
    """Choose the reader's branch: the same type, else the same kind and name, else the first that reads it."""

    def order(place: int) -> tuple[int, int]:
        target = targets[place]
        inner = target.parts()[0] if target.shape.kind is Kind.OPTIONAL else target
        if inner.name == branch.name and _alike(branch, inner):
            return 0, place
        return (1 if inner.name == branch.name and inner.shape.kind is branch.shape.kind else 2), place

    for place in sorted(range(len(targets)), key=order):
        try:
            return place, _resolve(branch, targets[place], field)
        except InvalidError:
            continue
    raise _incompatible(field, f"a branch of type {branch.shape.kind}, for which the view's type has none")


def _codes(shape: Shape, column: pa.Array) -> np.ndarray[Any, Any]:
    """Return each row's branch in the writer's union, as `_unions` counts them."""
    if shape.kind is Kind.UNION:
        return np.asarray(column.type_codes)
    if shape.kind is Kind.OPTIONAL:
        return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.int8)
    return np.zeros(len(column), np.int8)


def _part(shape: Shape, column: pa.Array, code: int, branch: Shape) -> pa.Array:
    if shape.kind is Kind.UNION:
        return column.field(code)
    return pa.nulls(len(column)) if branch.kind is Kind.NULL else column


def _placed(arrays: list[pa.Array], rows: list[Any], shape: Shape, count: int) -> pa.Array:
    """Scatter arrays to their rows; null elsewhere."""
    if not sum(map(len, arrays)):
        return _blank(shape, count)
    where = np.full(count, -1, np.int64)
    start = 0
    for array, places in zip(arrays, rows, strict=True):
        where[places] = np.arange(start, start + len(array))
        start += len(array)
    whole = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
    return whole.take(pa.array(where, mask=where < 0))


def _blank(shape: Shape, count: int) -> pa.Array:  # noqa: PLR0911 - one return a kind
    """Return a column of nulls, or of whatever stands in an unused slot. Enums have their symbols even there."""
    gone = pa.array(np.ones(count, np.bool_))
    match shape.kind:
        case Kind.ENUM:
            indices = pa.nulls(count, pa.int32())
            return pa.DictionaryArray.from_arrays(indices, pa.array(shape.symbols, pa.string()))
        case Kind.OPTIONAL:
            return _blank(shape.parts[0], count)
        case Kind.RECORD:
            children = [_blank(part, count) for part in shape.parts]
            return pa.StructArray.from_arrays(children, fields=list(shape.arrow), mask=gone)
        case Kind.ARRAY:
            offsets = pa.array(np.zeros(count + 1, np.int32))
            return pa.ListArray.from_arrays(offsets, _blank(shape.parts[0], 0), type=shape.arrow, mask=gone)
        case Kind.MAP:
            offsets = pa.array(np.zeros(count + 1, np.int32))
            items = _blank(shape.parts[0], 0)
            return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), items, type=shape.arrow, mask=gone)
        case Kind.UNION:
            children = [_blank(part, count) for part in shape.parts]
            names = [f"b{place}" for place in range(len(children))]
            return pa.UnionArray.from_sparse(pa.array(np.zeros(count, np.int8)), children, names)
    return pa.nulls(count, shape.arrow)


def _incompatible(field: str, got: str) -> InvalidError:
    return InvalidError(
        Reason.SCHEMA_INCOMPATIBLE,
        f"got a schema version that writes the field {field!r} as {got}; the grant's view cannot be made of it",
        details={"field": field},
    )

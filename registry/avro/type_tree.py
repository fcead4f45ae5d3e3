"""Type tree of an Avro type: its size on the wire, its Arrow type, its size in memory.

`compile_type` turns resolved Avro JSON (`registry.avro.parser`) into a tree of `TypeNode`; both engines are compiled
from it. The logical Arrow type of each Avro type, which `arrow_type` returns:

    null                                  null
    boolean, long, float, double          bool, int64, float, double
    int                                   int32
    string, uuid                          string
    bytes, big-decimal                    binary
    fixed(n), duration, uuid(fixed)       fixed_size_binary[n]
    enum                                  dictionary<int32, string>, its symbols in the schema's order
    decimal(p, s) on bytes or fixed       decimal128(p, s), decimal256 beyond 38 digits; beyond 76 as bytes or fixed
    date                                  date32
    time-millis, time-micros              time32[ms], time64[us]
    timestamp-millis, -micros, -nanos     timestamp[ms | us | ns, UTC]
    local-timestamp-…                     timestamp[ms | us | ns] without a zone
    record                                struct, its fields in order
    array                                 list<item>
    map                                   map<string, value>, entries in the order of the wire
    ["null", T] or [T, "null"]            T, nullable
    any other union                       sparse_union, one child `b<i>` a branch
    a recursive reference                 binary: the Avro bytes of the referenced value
    a union of more than 127 branches     binary: the Avro bytes of the value

Dates and times must lie in the years 1 to 9999 and within one day: a value that no calendar holds would stop every
consumer that reads it, so no engine reads or writes one.

A record type that contains itself without a union with null, an array or a map in between is non-terminating: it is
infinitely recursive, has no value, and a reader of it would never return. Its tree can be built all the same, since
such a schema may be registered and compared; `require_terminating` refuses it wherever records are read or written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

import pyarrow as pa

from schemas.errors import InvalidError, Reason

__all__ = [
    "MAX_AMPLIFICATION",
    "MAX_DECIMAL_DIGITS",
    "TypeKind",
    "TypeNode",
    "arrow_type",
    "compile_type",
    "require_terminating",
]

MAX_AMPLIFICATION = 64
"""Bytes of Arrow that one byte of Avro may become in anything that repeats without bound."""

MAX_FIXED_BYTES = 6_400
"""Most bytes of Arrow for a record without any content: 64 MB, the cap of a decoded batch, over 10,000 records."""

MAX_DECIMAL_DIGITS = 76
"""Most digits of a decimal that Arrow holds as a number: 256 bits."""

MAX_BRANCHES = 127  # Arrow's type ids are signed bytes

_EPOCH_DAY_1 = -719_162  # 0001-01-01
_EPOCH_DAY_LAST = 2_932_896  # 9999-12-31
_DAY = 86_400

_INT = (-(2**31), 2**31 - 1)
_BOUNDS: Mapping[str, tuple[int, int]] = {
    "date": (_EPOCH_DAY_1, _EPOCH_DAY_LAST),
    "time-millis": (0, _DAY * 1_000 - 1),
    "time-micros": (0, _DAY * 1_000_000 - 1),
    "timestamp-millis": (_EPOCH_DAY_1 * _DAY * 1_000, (_EPOCH_DAY_LAST + 1) * _DAY * 1_000 - 1),
    "timestamp-micros": (_EPOCH_DAY_1 * _DAY * 1_000_000, (_EPOCH_DAY_LAST + 1) * _DAY * 1_000_000 - 1),
}

_LOGICAL: Mapping[tuple[str, str], pa.DataType] = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}


class TypeKind(StrEnum):
    """Kind of a type node, as far as reading and writing differ."""

    NULL = "null"
    BOOLEAN = "boolean"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    BYTES = "bytes"
    STRING = "string"
    ENUM = "enum"
    FIXED = "fixed"
    DECIMAL = "decimal"
    RECORD = "record"
    ARRAY = "array"
    MAP = "map"
    OPTIONAL = "optional"
    UNION = "union"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TypeNode:
    """One node of a type.

    Attributes:
        kind: its kind.
        arrow: its logical Arrow type.
        names: the fields' names of a record.
        parts: the fields of a record, the branches of a union, the item of an array, the value of a map, the other
            branch of an optional, the branches of an opaque union.
        bounds: lowest and highest integer, of int, long, enum and their logical types; None where every 64-bit
            integer is one.
        symbols: of an enum.
        size: bytes of a fixed (or of a decimal on fixed), 0 elsewhere.
        precision, scale: of a decimal.
        null_index: the branch that is null, of an optional.
        record_name: full name of the record: of a record, its own; of an opaque reference, the record referred to;
            empty for an opaque union.
        min_wire_size: fewest bytes that a value takes on the wire; infinite for a non-terminating record, and for a
            part of a record that terminates only if an enclosing type does.
        fixed_arrow_size: bytes of Arrow that an empty slot takes.
        amplification_excess: the most bytes of Arrow that a value takes beyond MAX_AMPLIFICATION times its bytes on the
            wire. Above 0, repeating the value amplifies more than is allowed.
        unresolved_recursion: enclosing records that must terminate for this value to terminate: full name → dotted path
            of the field that refers to it.
        non_terminating_field: dotted path of the first field through which a record contains itself infinitely, empty
            where every value terminates. Nothing may be read or written with such a type.
    """

    kind: TypeKind
    arrow: pa.DataType
    names: tuple[str, ...] = ()
    parts: tuple["TypeNode", ...] = ()
    bounds: tuple[int, int] | None = None
    symbols: tuple[str, ...] = ()
    size: int = 0
    precision: int = 0
    scale: int = 0
    null_index: int = 0
    record_name: str = ""
    min_wire_size: float
    fixed_arrow_size: float
    amplification_excess: float
    unresolved_recursion: Mapping[str, str] = field(default_factory=dict)
    non_terminating_field: str = ""

    @property
    def nullable(self) -> bool:
        """Whether a column of this type may hold nulls."""
        return self.kind is TypeKind.OPTIONAL or self.kind is TypeKind.NULL


def arrow_type(avro_type: object) -> pa.DataType:
    """Return the logical Arrow type of a resolved Avro type (see the table above).

    Args:
        avro_type: the type as JSON, as `registry.avro.parser.Field.type` holds it.

    Raises:
        InvalidError: SCHEMA_UNSAFE, see `compile_type`.
    """
    return compile_type(avro_type).arrow


def compile_type(avro_type: object, path: str = "", *, allow_non_terminating: bool = False) -> TypeNode:
    """Compile a resolved Avro type.

    Args:
        avro_type: the type as JSON; named types in full at every use, a bare name only where it refers to a record
            that encloses it.
        path: dotted path of the field, for messages.
        allow_non_terminating: also compile an infinitely recursive record: to describe and compare it, never to read or
            write with it.

    Raises:
        InvalidError: SCHEMA_UNSAFE, naming the field, when some bytes of Avro would become too many of Arrow, when
            an array's items or a map's values take no bytes, or when a record is infinitely recursive.
    """
    node = _compile(avro_type, path)
    if not allow_non_terminating:
        require_terminating(node)
    return node


def require_terminating(node: TypeNode) -> None:
    """Refuse to read or write with a type that contains a non-terminating record.

    Raises:
        InvalidError: SCHEMA_UNSAFE, naming the field.
    """
    if node.non_terminating_field:
        raise InvalidError(
            Reason.SCHEMA_UNSAFE,
            f"got a record at the field {node.non_terminating_field} that contains itself without end; expected a "
            "union with null, an array or a map in between, for nothing can be read or written with it",
            details={"field": node.non_terminating_field},
        )


def _primitive(
    kind: TypeKind, arrow: pa.DataType, min_wire_size: int, fixed_arrow_size: float, **more: Any
) -> TypeNode:
    amplification_excess = fixed_arrow_size - MAX_AMPLIFICATION * min_wire_size
    return TypeNode(
        kind=kind,
        arrow=arrow,
        min_wire_size=min_wire_size,
        fixed_arrow_size=fixed_arrow_size,
        amplification_excess=amplification_excess,
        **more,
    )


_PRIMITIVES: Mapping[str, TypeNode] = {
    "null": _primitive(TypeKind.NULL, pa.null(), 0, 0),
    "boolean": _primitive(TypeKind.BOOLEAN, pa.bool_(), 1, 1),
    "int": _primitive(TypeKind.INT, pa.int32(), 1, 8, bounds=_INT),
    "long": _primitive(TypeKind.LONG, pa.int64(), 1, 8),
    "float": _primitive(TypeKind.FLOAT, pa.float32(), 4, 4),
    "double": _primitive(TypeKind.DOUBLE, pa.float64(), 8, 8),
    "bytes": _primitive(TypeKind.BYTES, pa.binary(), 1, 4),
    "string": _primitive(TypeKind.STRING, pa.string(), 1, 4),
}


def _compile(avro_type: Any, path: str) -> TypeNode:
    if isinstance(avro_type, str):
        primitive = _PRIMITIVES.get(avro_type)
        return primitive or _opaque(avro_type, (), inf, unresolved_recursion={avro_type: path})
    if isinstance(avro_type, list):
        return _union(avro_type, path)
    return _compound(avro_type, path)


def _compound(avro_type: Mapping[str, Any], path: str) -> TypeNode:  # noqa: PLR0911 - one return a kind of type
    name = avro_type["type"]
    logical = avro_type.get("logicalType")
    match name:
        case "record" | "error":
            return _record(avro_type, path)
        case "array":
            return _array(avro_type["items"], path)
        case "map":
            return _map(avro_type["values"], path)
        case "enum":
            symbols = tuple(avro_type["symbols"])
            arrow = pa.dictionary(pa.int32(), pa.string())
            return _primitive(TypeKind.ENUM, arrow, 1, 8, symbols=symbols, bounds=(0, len(symbols) - 1))
        case "fixed" | "bytes" if logical == "decimal" and avro_type["precision"] <= MAX_DECIMAL_DIGITS:
            return _decimal(avro_type)
        case "fixed":
            size = avro_type["size"]
            return _primitive(TypeKind.FIXED, pa.binary(size), size, size, size=size)
        case _:
            plain = _PRIMITIVES[name]
            known = _LOGICAL.get((name, logical or ""))
            if known is None:
                return plain
            bounds = _BOUNDS.get(str(logical).removeprefix("local-"))
            return _primitive(plain.kind, known, 1, 8, bounds=bounds)


def _record(avro_type: Mapping[str, Any], path: str) -> TypeNode:
    record_name = avro_type["name"]
    fields = avro_type["fields"]
    names = tuple(field["name"] for field in fields)
    parts = tuple(_compile(field["type"], _join(path, field["name"])) for field in fields)
    min_wire_size = sum(part.min_wire_size for part in parts)
    unresolved_recursion = _merged_recursion(parts)
    non_terminating_field = _non_terminating_field(parts) or unresolved_recursion.pop(record_name, "")
    arrow = pa.struct([pa.field(n, p.arrow, p.nullable) for n, p in zip(names, parts, strict=True)])
    return TypeNode(
        kind=TypeKind.RECORD,
        arrow=arrow,
        names=names,
        parts=parts,
        record_name=record_name,
        min_wire_size=min_wire_size,
        fixed_arrow_size=sum(part.fixed_arrow_size for part in parts),
        amplification_excess=sum(part.amplification_excess for part in parts),
        unresolved_recursion=unresolved_recursion,
        non_terminating_field=non_terminating_field,
    )


def _array(items: Any, path: str) -> TypeNode:
    item = _compile(items, path)
    _require_repeatable(item, item.min_wire_size, item.amplification_excess, path)
    arrow = pa.list_(pa.field("item", item.arrow, item.nullable))
    return _primitive(TypeKind.ARRAY, arrow, 1, 4, parts=(item,), non_terminating_field=item.non_terminating_field)


def _map(values: Any, path: str) -> TypeNode:
    value = _compile(values, path)
    # A key takes at least one byte, so a value of no bytes could not loop forever; it is refused all the same,
    # since no reader needs it and a rule without an exception is easier to remember.
    _require_repeatable(
        value, value.min_wire_size, value.amplification_excess + _PRIMITIVES["string"].amplification_excess, path
    )
    arrow = pa.map_(pa.string(), pa.field("value", value.arrow, value.nullable))
    return _primitive(TypeKind.MAP, arrow, 1, 4, parts=(value,), non_terminating_field=value.non_terminating_field)


def _union(branches: list[Any], path: str) -> TypeNode:
    if len(branches) == 2 and isinstance(branches[0], str) and isinstance(branches[1], str):
        known = _OPTIONALS.get((branches[0], branches[1]))
        if known is not None:
            return known
    parts = tuple(_compile(branch, path) for branch in branches)
    kinds = [part.kind for part in parts]
    if len(parts) == 2 and kinds.count(TypeKind.NULL) == 1:
        null_index = kinds.index(TypeKind.NULL)
        return _optional(parts[1 - null_index], null_index)
    min_wire_size = 1 + min((part.min_wire_size for part in parts), default=inf)
    # One branch that terminates is enough for the value to terminate. Otherwise every branch counts as needed: that
    # refuses every non-terminating type.
    unresolved_recursion = _merged_recursion(parts) if all(part.unresolved_recursion for part in parts) else {}
    if len(parts) > MAX_BRANCHES:
        return _opaque("", parts, min_wire_size, unresolved_recursion=unresolved_recursion)
    arrow = pa.sparse_union([pa.field(f"b{index}", part.arrow) for index, part in enumerate(parts)])
    fixed_arrow_size = 1 + sum(part.fixed_arrow_size for part in parts)
    return TypeNode(
        kind=TypeKind.UNION,
        arrow=arrow,
        parts=parts,
        min_wire_size=min_wire_size,
        fixed_arrow_size=fixed_arrow_size,
        amplification_excess=max(
            (fixed_arrow_size - part.fixed_arrow_size + part.amplification_excess for part in parts), default=0
        )
        - MAX_AMPLIFICATION,
        unresolved_recursion=unresolved_recursion,
        non_terminating_field=_non_terminating_field(parts),
    )


def _non_terminating_field(parts: Sequence[TypeNode]) -> str:
    return next((part.non_terminating_field for part in parts if part.non_terminating_field), "")


def _optional(inner: TypeNode, null_index: int) -> TypeNode:
    return TypeNode(
        kind=TypeKind.OPTIONAL,
        arrow=inner.arrow,
        parts=(inner,),
        null_index=null_index,
        min_wire_size=1,
        fixed_arrow_size=inner.fixed_arrow_size,
        amplification_excess=max(inner.fixed_arrow_size, inner.amplification_excess) - MAX_AMPLIFICATION,
        non_terminating_field=inner.non_terminating_field,
    )


# Most fields are one of these.
_OPTIONALS: Mapping[tuple[str, str], TypeNode] = {
    (("null", name), (name, "null"))[null_index]: _optional(inner, null_index)
    for name, inner in _PRIMITIVES.items()
    if name != "null"
    for null_index in (0, 1)
}


def _merged_recursion(parts: Sequence[TypeNode]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for part in parts:
        for record_name, path in part.unresolved_recursion.items():
            merged.setdefault(record_name, path)
    return merged


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _opaque(
    record_name: str, parts: tuple[TypeNode, ...], min_wire_size: float, *, unresolved_recursion: Mapping[str, str]
) -> TypeNode:
    # The union, array or map that ends a recursion takes a byte of its own, so the excess is that of bytes.
    plain = _PRIMITIVES["bytes"]
    return TypeNode(
        kind=TypeKind.OPAQUE,
        arrow=pa.binary(),
        parts=parts,
        record_name=record_name,
        min_wire_size=min_wire_size,
        fixed_arrow_size=plain.fixed_arrow_size,
        amplification_excess=plain.amplification_excess,
        unresolved_recursion=unresolved_recursion,
        non_terminating_field=_non_terminating_field(parts),
    )


def _decimal(avro_type: Mapping[str, Any]) -> TypeNode:
    precision, scale = avro_type["precision"], avro_type.get("scale", 0)
    arrow = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    size = avro_type.get("size", 0)
    min_wire_size = size or 1
    return _primitive(
        TypeKind.DECIMAL, arrow, min_wire_size, arrow.bit_width // 8, size=size, precision=precision, scale=scale
    )


def _require_repeatable(item: TypeNode, min_wire_size: float, amplification_excess: float, path: str) -> None:
    if min_wire_size == 0:
        raise InvalidError(
            Reason.SCHEMA_UNSAFE,
            f"got items or values of the field {path or '(the top)'} that take no bytes; expected at least one, since "
            "a count of 2^60 would be read without end",
            details={"field": path},
        )
    if amplification_excess > 0:
        raise InvalidError(
            Reason.SCHEMA_UNSAFE,
            f"got items or values of the field {path or '(the top)'} of which one byte of Avro can become more than "
            f"{MAX_AMPLIFICATION} of Arrow (an empty one takes {item.fixed_arrow_size:.0f}); expected fewer fields in "
            "an optional or union branch, or the fields on their own",
            details={"field": path},
        )

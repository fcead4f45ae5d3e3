"""The shape of an Avro type: what a value of it looks like on the wire, in Arrow and in memory.

`shape_of` turns resolved Avro JSON (`registry.avro.parser`) into a tree of `Shape`; both engines are compiled from it.
The logical Arrow type of each Avro type, which `arrow_type` gives:

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

A record that holds itself with nothing in between that could end it has no value, and a reader of it never returns. Its
shape exists all the same, since such a schema may be registered and compared; `refuse_endless` keeps it from everything
that reads or writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

import pyarrow as pa

from schemas.errors import InvalidError, Reason

__all__ = ["MAX_AMPLIFICATION", "Kind", "Shape", "arrow_type", "refuse_endless", "shape_of"]

MAX_AMPLIFICATION = 64
"""Bytes of Arrow that one byte of Avro may become in anything that repeats without bound."""

MAX_FIXED_BYTES = 6_400
"""Bytes of Arrow that a record may take without any content: 64 MB, the cap of a decoded batch, over 10,000 records."""

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


class Kind(StrEnum):
    """What a shape is, as far as reading and writing differ."""

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
class Shape:
    """One node of a type.

    Attributes:
        kind: see Kind.
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
        target: full name of the record: of a record, its own; of an opaque reference, the record referred to;
            empty for an opaque union.
        least: fewest bytes that a value takes on the wire; infinite for a record that can never end, and for a part of
            a record that only what is around it can end.
        hollow: bytes of Arrow that an empty slot takes.
        excess: the most bytes of Arrow that a value takes beyond MAX_AMPLIFICATION times its bytes on the wire.
            Above 0, repeating the value amplifies more than is allowed.
        pending: of a value that ends only if enclosing records do, their full names, and the field of each within.
        endless: dotted path of the first field within by which a record holds itself without end, empty where every
            value ends. Nothing may be read or written with such a shape.
    """

    kind: Kind
    arrow: pa.DataType
    names: tuple[str, ...] = ()
    parts: tuple["Shape", ...] = ()
    bounds: tuple[int, int] | None = None
    symbols: tuple[str, ...] = ()
    size: int = 0
    precision: int = 0
    scale: int = 0
    null_index: int = 0
    target: str = ""
    least: float
    hollow: float
    excess: float
    pending: Mapping[str, str] = field(default_factory=dict)
    endless: str = ""

    @property
    def nullable(self) -> bool:
        """Whether a column of this shape may hold nulls."""
        return self.kind is Kind.OPTIONAL or self.kind is Kind.NULL


def arrow_type(avro_type: object) -> pa.DataType:
    """Return the logical Arrow type of a resolved Avro type (see the table above).

    Args:
        avro_type: the type as JSON, as `registry.avro.parser.Field.type` holds it.

    Raises:
        InvalidError: SCHEMA_UNSAFE, see `shape_of`.
    """
    return shape_of(avro_type).arrow


def shape_of(avro_type: object, path: str = "", *, endless: bool = False) -> Shape:
    """Compile a resolved Avro type.

    Args:
        avro_type: the type as JSON; named types in full at every use, a bare name only where it refers to a record
            that encloses it.
        path: dotted path of the field, for messages.
        endless: also give the shape of a record that holds itself without end: to describe and compare it, never to
            read or write with it.

    Raises:
        InvalidError: SCHEMA_UNSAFE, naming the field, when some bytes of Avro would become too many of Arrow, when
            an array's items or a map's values take no bytes, or when a record contains itself and never ends.
    """
    shape = _shape(avro_type, path)
    if not endless:
        refuse_endless(shape)
    return shape


def refuse_endless(shape: Shape) -> None:
    """Refuse to read or write with a shape of which some value never ends.

    Raises:
        InvalidError: SCHEMA_UNSAFE, naming the field.
    """
    if shape.endless:
        raise InvalidError(
            Reason.SCHEMA_UNSAFE,
            f"got a record at the field {shape.endless} that holds itself without end; expected a union with null, an "
            "array or a map in between, for nothing can be read or written with it",
            details={"field": shape.endless},
        )


def _primitive(kind: Kind, arrow: pa.DataType, least: int, hollow: float, **more: Any) -> Shape:
    excess = hollow - MAX_AMPLIFICATION * least
    return Shape(kind=kind, arrow=arrow, least=least, hollow=hollow, excess=excess, **more)


_PRIMITIVES: Mapping[str, Shape] = {
    "null": _primitive(Kind.NULL, pa.null(), 0, 0),
    "boolean": _primitive(Kind.BOOLEAN, pa.bool_(), 1, 1),
    "int": _primitive(Kind.INT, pa.int32(), 1, 8, bounds=_INT),
    "long": _primitive(Kind.LONG, pa.int64(), 1, 8),
    "float": _primitive(Kind.FLOAT, pa.float32(), 4, 4),
    "double": _primitive(Kind.DOUBLE, pa.float64(), 8, 8),
    "bytes": _primitive(Kind.BYTES, pa.binary(), 1, 4),
    "string": _primitive(Kind.STRING, pa.string(), 1, 4),
}


def _shape(avro_type: Any, path: str) -> Shape:
    if isinstance(avro_type, str):
        primitive = _PRIMITIVES.get(avro_type)
        return primitive or _opaque(avro_type, (), inf, pending={avro_type: path})
    if isinstance(avro_type, list):
        return _union(avro_type, path)
    return _compound(avro_type, path)


def _compound(avro_type: Mapping[str, Any], path: str) -> Shape:  # noqa: PLR0911 - one way out a kind of type
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
            return _primitive(Kind.ENUM, arrow, 1, 8, symbols=symbols, bounds=(0, len(symbols) - 1))
        case "fixed" | "bytes" if logical == "decimal" and avro_type["precision"] <= 76:
            return _decimal(avro_type)
        case "fixed":
            size = avro_type["size"]
            return _primitive(Kind.FIXED, pa.binary(size), size, size, size=size)
        case _:
            plain = _PRIMITIVES[name]
            known = _LOGICAL.get((name, logical or ""))
            if known is None:
                return plain
            bounds = _BOUNDS.get(str(logical).removeprefix("local-"))
            return _primitive(plain.kind, known, 1, 8, bounds=bounds)


def _record(avro_type: Mapping[str, Any], path: str) -> Shape:
    target = avro_type["name"]
    fields = avro_type["fields"]
    names = tuple(field["name"] for field in fields)
    parts = tuple(_shape(field["type"], _join(path, field["name"])) for field in fields)
    least = sum(part.least for part in parts)
    pending = _merged(parts)
    endless = _endless(parts) or pending.pop(target, "")
    arrow = pa.struct([pa.field(n, p.arrow, p.nullable) for n, p in zip(names, parts, strict=True)])
    return Shape(
        kind=Kind.RECORD,
        arrow=arrow,
        names=names,
        parts=parts,
        target=target,
        least=least,
        hollow=sum(part.hollow for part in parts),
        excess=sum(part.excess for part in parts),
        pending=pending,
        endless=endless,
    )


def _array(items: Any, path: str) -> Shape:
    item = _shape(items, path)
    _repeatable(item, item.least, item.excess, path)
    arrow = pa.list_(pa.field("item", item.arrow, item.nullable))
    return _primitive(Kind.ARRAY, arrow, 1, 4, parts=(item,), endless=item.endless)


def _map(values: Any, path: str) -> Shape:
    value = _shape(values, path)
    # A key takes at least one byte, so a value of none could not loop without end; it is refused all the same,
    # since no reader needs it and the rule is easier to keep in mind without an exception.
    _repeatable(value, value.least, value.excess + _PRIMITIVES["string"].excess, path)
    arrow = pa.map_(pa.string(), pa.field("value", value.arrow, value.nullable))
    return _primitive(Kind.MAP, arrow, 1, 4, parts=(value,), endless=value.endless)


def _union(branches: list[Any], path: str) -> Shape:
    if len(branches) == 2 and isinstance(branches[0], str) and isinstance(branches[1], str):
        known = _OPTIONALS.get((branches[0], branches[1]))
        if known is not None:
            return known
    parts = tuple(_shape(branch, path) for branch in branches)
    kinds = [part.kind for part in parts]
    if len(parts) == 2 and kinds.count(Kind.NULL) == 1:
        null_index = kinds.index(Kind.NULL)
        return _optional(parts[1 - null_index], null_index)
    least = 1 + min((part.least for part in parts), default=inf)
    # With one branch that ends, the value may; else each is taken to be needed, which refuses no less than is endless.
    pending = _merged(parts) if all(part.pending for part in parts) else {}
    if len(parts) > MAX_BRANCHES:
        return _opaque("", parts, least, pending=pending)
    arrow = pa.sparse_union([pa.field(f"b{index}", part.arrow) for index, part in enumerate(parts)])
    hollow = 1 + sum(part.hollow for part in parts)
    return Shape(
        kind=Kind.UNION,
        arrow=arrow,
        parts=parts,
        least=least,
        hollow=hollow,
        excess=max((hollow - part.hollow + part.excess for part in parts), default=0) - MAX_AMPLIFICATION,
        pending=pending,
        endless=_endless(parts),
    )


def _endless(parts: Sequence[Shape]) -> str:
    return next((part.endless for part in parts if part.endless), "")


def _optional(inner: Shape, null_index: int) -> Shape:
    return Shape(
        kind=Kind.OPTIONAL,
        arrow=inner.arrow,
        parts=(inner,),
        null_index=null_index,
        least=1,
        hollow=inner.hollow,
        excess=max(inner.hollow, inner.excess) - MAX_AMPLIFICATION,
        endless=inner.endless,
    )


# Most fields are one of these.
_OPTIONALS: Mapping[tuple[str, str], Shape] = {
    (("null", name), (name, "null"))[null_index]: _optional(inner, null_index)
    for name, inner in _PRIMITIVES.items()
    if name != "null"
    for null_index in (0, 1)
}


def _merged(parts: Sequence[Shape]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for part in parts:
        for target, path in part.pending.items():
            merged.setdefault(target, path)
    return merged


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _opaque(target: str, parts: tuple[Shape, ...], least: float, *, pending: Mapping[str, str]) -> Shape:
    # The union, array or map that makes a recursive value end takes a byte of its own, so its excess is that of bytes.
    plain = _PRIMITIVES["bytes"]
    return Shape(
        kind=Kind.OPAQUE,
        arrow=pa.binary(),
        parts=parts,
        target=target,
        least=least,
        hollow=plain.hollow,
        excess=plain.excess,
        pending=pending,
        endless=_endless(parts),
    )


def _decimal(avro_type: Mapping[str, Any]) -> Shape:
    precision, scale = avro_type["precision"], avro_type.get("scale", 0)
    arrow = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    size = avro_type.get("size", 0)
    least = size or 1
    return _primitive(Kind.DECIMAL, arrow, least, arrow.bit_width // 8, size=size, precision=precision, scale=scale)


def _repeatable(item: Shape, least: float, excess: float, path: str) -> None:
    if least == 0:
        raise InvalidError(
            Reason.SCHEMA_UNSAFE,
            f"got items or values of the field {path or '(the top)'} that take no bytes; expected at least one, since "
            "a count of 2^60 would be read without end",
            details={"field": path},
        )
    if excess > 0:
        raise InvalidError(
            Reason.SCHEMA_UNSAFE,
            f"got items or values of the field {path or '(the top)'} of which one byte of Avro can become more than "
            f"{MAX_AMPLIFICATION} of Arrow (an empty one takes {item.hollow:.0f}); expected fewer fields in an "
            "optional or union branch, or the fields on their own",
            details={"field": path},
        )

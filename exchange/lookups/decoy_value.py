"""Decoy: a datum of a schema that says nothing; it goes through a view in the place of an absent record. Pure."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from registry.avro.parser import parse
from registry.avro.type_tree import TypeKind, TypeNode
from registry.codec.datum_writer import compile_writer
from schemas.record import frame

__all__ = ["decoy_value"]


@lru_cache(maxsize=64)
def decoy_value(schema_id: int, text: str) -> bytes:
    """Return a framed value of a schema: null wherever it may be, and otherwise nothing or zero."""
    tree = parse(text).type_tree
    return frame(schema_id, compile_writer(tree)(_plain(tree)))


def _plain(node: TypeNode) -> Any:
    return _PLAIN[node.kind](node)


_PLAIN: Final[Mapping[TypeKind, Callable[[TypeNode], Any]]] = {
    TypeKind.NULL: lambda _: None,
    TypeKind.BOOLEAN: lambda _: False,
    TypeKind.INT: lambda _: 0,
    TypeKind.LONG: lambda _: 0,
    TypeKind.ENUM: lambda _: 0,
    TypeKind.FLOAT: lambda _: bytes(4),
    TypeKind.DOUBLE: lambda _: bytes(8),
    TypeKind.BYTES: lambda _: b"",
    TypeKind.STRING: lambda _: "",
    TypeKind.FIXED: lambda node: bytes(node.size),
    TypeKind.DECIMAL: lambda _: 0,
    TypeKind.RECORD: lambda node: [_plain(part) for part in node.parts],
    TypeKind.ARRAY: lambda _: [],
    TypeKind.MAP: lambda _: [],
    TypeKind.OPTIONAL: lambda _: None,
    TypeKind.UNION: lambda node: (0, _plain(node.parts[0])),
}

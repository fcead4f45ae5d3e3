"""Random values of a type, for the self-test of the column engine.

The values are plain (`registry.codec.datum_reader`). Edge cases are frequent: the ends of every range, empty and long
texts, NaN of unusual payloads, numbers at each length of the wire.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from registry.avro.type_tree import TypeKind, TypeNode

__all__ = ["sample_value"]

_TEXTS = ("", "0", "王小明", "\x00\x7f", "é" * 40, "110105194912310021", "\U0001f600")
_FLOATS = (b"\0\0\0\0", b"\x01\0\x80\x7f", b"\x01\0\xc0\x7f", b"\0\0\x80\xff", b"\0\0\0\x80")
_DOUBLES = (
    bytes(8),
    b"\x01\0\0\0\0\0\xf0\x7f",
    b"\x01\0\0\0\0\0\xf8\x7f",
    b"\0\0\0\0\0\0\xf0\xff",
    b"\0" * 7 + b"\x80",
)
_MOST_ITEMS = 3
_SHALLOW = 8  # nesting from which collections are empty, so that a value stays small


def sample_value(node: TypeNode, rng: random.Random, depth: int = 0) -> Any:
    """Return a random value; the type must have no recursive reference."""
    return _SAMPLES[node.kind](node, rng, depth)


def _integer(node: TypeNode, rng: random.Random, _depth: int) -> int:
    low, high = node.bounds or (-(2**63), 2**63 - 1)
    near = (-1 << rng.randint(0, 62)) if rng.random() < 0.5 else (1 << rng.randint(0, 62))
    value = rng.choice((low, high, 0, near, rng.randint(low, high)))
    return min(max(value, low), high)


def _bytes(_node: TypeNode, rng: random.Random, _depth: int) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 9, 70)))


def _text(_node: TypeNode, rng: random.Random, _depth: int) -> str:
    return rng.choice(_TEXTS)


def _decimal(node: TypeNode, rng: random.Random, _depth: int) -> int:
    limit = 10 ** rng.randint(0, node.precision)
    return rng.choice((1 - limit, limit - 1, rng.randint(1 - limit, limit - 1)))


def _record(node: TypeNode, rng: random.Random, depth: int) -> list[Any]:
    return [sample_value(part, rng, depth + 1) for part in node.parts]


def _array(node: TypeNode, rng: random.Random, depth: int) -> list[Any]:
    items = 0 if depth > _SHALLOW else rng.randint(0, _MOST_ITEMS)
    return [sample_value(node.parts[0], rng, depth + 1) for _ in range(items)]


def _map(node: TypeNode, rng: random.Random, depth: int) -> list[tuple[str, Any]]:
    return [(rng.choice(_TEXTS), value) for value in _array(node, rng, depth)]


def _optional(node: TypeNode, rng: random.Random, depth: int) -> Any:
    return None if rng.random() < 0.4 else sample_value(node.parts[0], rng, depth + 1)


def _union(node: TypeNode, rng: random.Random, depth: int) -> tuple[int, Any]:
    branch = rng.randrange(len(node.parts))
    return branch, sample_value(node.parts[branch], rng, depth + 1)


_SAMPLES: Mapping[TypeKind, Callable[[TypeNode, random.Random, int], Any]] = {
    TypeKind.NULL: lambda _node, _rng, _depth: None,
    TypeKind.BOOLEAN: lambda _node, rng, _depth: rng.random() < 0.5,
    TypeKind.INT: _integer,
    TypeKind.LONG: _integer,
    TypeKind.ENUM: _integer,
    TypeKind.FLOAT: lambda _node, rng, _depth: rng.choice((*_FLOATS, rng.randbytes(4))),
    TypeKind.DOUBLE: lambda _node, rng, _depth: rng.choice((*_DOUBLES, rng.randbytes(8))),
    TypeKind.BYTES: _bytes,
    TypeKind.STRING: _text,
    TypeKind.FIXED: lambda node, rng, _depth: rng.randbytes(node.size),
    TypeKind.DECIMAL: _decimal,
    TypeKind.RECORD: _record,
    TypeKind.ARRAY: _array,
    TypeKind.MAP: _map,
    TypeKind.OPTIONAL: _optional,
    TypeKind.UNION: _union,
}

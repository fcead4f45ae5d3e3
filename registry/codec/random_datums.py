"""Random values of a shape, for the self-test by which the column engine earns a schema's trust.

The values are plain (`registry.codec.datum_reader`). Edges come often: the ends of every range, empty and long
texts, NaN of odd payloads, numbers at each length of the wire.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from registry.avro.type_tree import Kind, Shape

__all__ = ["sample"]

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
_SHALLOW = 8  # levels below which collections stay empty, so that a value stays small


def sample(shape: Shape, rng: random.Random, depth: int = 0) -> Any:
    """Return a random value; recursive references must not occur in the shape."""
    return _SAMPLES[shape.kind](shape, rng, depth)


def _integer(shape: Shape, rng: random.Random, _depth: int) -> int:
    low, high = shape.bounds or (-(2**63), 2**63 - 1)
    near = (-1 << rng.randint(0, 62)) if rng.random() < 0.5 else (1 << rng.randint(0, 62))
    value = rng.choice((low, high, 0, near, rng.randint(low, high)))
    return min(max(value, low), high)


def _bytes(_shape: Shape, rng: random.Random, _depth: int) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 9, 70)))


def _text(_shape: Shape, rng: random.Random, _depth: int) -> str:
    return rng.choice(_TEXTS)


def _decimal(shape: Shape, rng: random.Random, _depth: int) -> int:
    limit = 10 ** rng.randint(0, shape.precision)
    return rng.choice((1 - limit, limit - 1, rng.randint(1 - limit, limit - 1)))


def _record(shape: Shape, rng: random.Random, depth: int) -> list[Any]:
    return [sample(part, rng, depth + 1) for part in shape.parts]


def _array(shape: Shape, rng: random.Random, depth: int) -> list[Any]:
    items = 0 if depth > _SHALLOW else rng.randint(0, _MOST_ITEMS)
    return [sample(shape.parts[0], rng, depth + 1) for _ in range(items)]


def _map(shape: Shape, rng: random.Random, depth: int) -> list[tuple[str, Any]]:
    return [(rng.choice(_TEXTS), value) for value in _array(shape, rng, depth)]


def _optional(shape: Shape, rng: random.Random, depth: int) -> Any:
    return None if rng.random() < 0.4 else sample(shape.parts[0], rng, depth + 1)


def _union(shape: Shape, rng: random.Random, depth: int) -> tuple[int, Any]:
    branch = rng.randrange(len(shape.parts))
    return branch, sample(shape.parts[branch], rng, depth + 1)


_SAMPLES: Mapping[Kind, Callable[[Shape, random.Random, int], Any]] = {
    Kind.NULL: lambda _shape, _rng, _depth: None,
    Kind.BOOLEAN: lambda _shape, rng, _depth: rng.random() < 0.5,
    Kind.INT: _integer,
    Kind.LONG: _integer,
    Kind.ENUM: _integer,
    Kind.FLOAT: lambda _shape, rng, _depth: rng.choice((*_FLOATS, rng.randbytes(4))),
    Kind.DOUBLE: lambda _shape, rng, _depth: rng.choice((*_DOUBLES, rng.randbytes(8))),
    Kind.BYTES: _bytes,
    Kind.STRING: _text,
    Kind.FIXED: lambda shape, rng, _depth: rng.randbytes(shape.size),
    Kind.DECIMAL: _decimal,
    Kind.RECORD: _record,
    Kind.ARRAY: _array,
    Kind.MAP: _map,
    Kind.OPTIONAL: _optional,
    Kind.UNION: _union,
}

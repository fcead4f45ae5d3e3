"""Default values of fields: whether a default fits its type. Closes a gap of Apache Avro's own parser. Pure.

Avro 1.12, "Complex Types, Records": the default of a union is a value of any of its branches; bytes and fixed are
written as text in which U+0000 to U+00FF represent the bytes 0 to 255.
"""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["default_fits"]


def default_fits(avro_type: Any, value: Any, enclosing: Mapping[str, Any] | None = None) -> bool:  # noqa: PLR0911 - one return a type
    """Return whether a default, as JSON, is a value of a resolved type.

    Args:
        avro_type: the type, resolved (see `registry.avro.parser.Field.type`).
        value: the default.
        enclosing: records around the type by full name, to which bare names refer.
    """
    named = enclosing or {}
    if isinstance(avro_type, list):
        return any(default_fits(branch, value, named) for branch in avro_type)
    if isinstance(avro_type, str):
        # A bare name refers to a record that is still being defined: its default is known to be an object, no more.
        return default_fits(named[avro_type], value, named) if avro_type in named else _simple(avro_type, value)
    kind = avro_type["type"]
    match kind:
        case "enum":
            return value in avro_type["symbols"]
        case "fixed":
            return _is_bytes(value) and len(value) == avro_type["size"]
        case "array":
            return isinstance(value, list) and all(default_fits(avro_type["items"], each, named) for each in value)
        case "map":
            return isinstance(value, dict) and all(
                default_fits(avro_type["values"], each, named) for each in value.values()
            )
        case "record" | "error":
            if not isinstance(value, dict):
                return False
            inner = {**named, avro_type["name"]: avro_type}
            return all(
                default_fits(field["type"], value[field["name"]], inner)
                if field["name"] in value
                else "default" in field
                for field in avro_type["fields"]
            )
        case _:
            return _simple(kind, value)


def _simple(kind: str, value: Any) -> bool:
    fits = _SIMPLE.get(kind)
    # Any other name is that of a record that is still being defined.
    return fits(value) if fits else isinstance(value, dict)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, str) and all(ord(character) < 256 for character in value)


_SIMPLE: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int and -(2**31) <= value < 2**31,
    "long": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "float": lambda value: type(value) in {int, float},
    "double": lambda value: type(value) in {int, float},
    "string": lambda value: isinstance(value, str),
    "bytes": _is_bytes,
}

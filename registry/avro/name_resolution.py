"""Name resolution: schema JSON that Apache Avro accepted, with every type name replaced by its definition.

A resolved type is self-contained: a named type is written in full at every use, under its full name; a bare name is
left only where a record refers to one that encloses it. That can grow exponentially (each record using the one before
it twice doubles it), so the growth is bounded before it happens. Resolution also closes the gaps of Apache Avro's
parser: invalid decimals, names and aliases outside the grammar, defaults that do not fit.
"""

import re
from collections.abc import Mapping
from typing import Any

from registry.avro.defaults import default_fits
from schemas.errors import InvalidError, Reason

__all__ = ["MAX_DEPTH", "MAX_NODES", "MAX_TEXT_BYTES", "Resolver", "schema_invalid", "schema_unsafe", "unwrapped"]

MAX_TEXT_BYTES = 1024 * 1024
MAX_DEPTH = 64  # of brackets in the text, and of types within types once names are resolved
MAX_NODES = 20_000  # types and branches once every name is resolved
MAX_LISTED = 1_000_000  # symbols and aliases, likewise

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED = frozenset({"record", "error", "enum", "fixed"})


def schema_invalid(message: str, field: str = "") -> InvalidError:
    """Return the error for a text that is not a schema; `field` is the dotted path of what is wrong."""
    return InvalidError(Reason.SCHEMA_INVALID, message, details={"field": field} if field else None)


def schema_unsafe(message: str, field: str = "") -> InvalidError:
    """Return the error for a schema that would exhaust its reader."""
    return InvalidError(Reason.SCHEMA_UNSAFE, message, details={"field": field} if field else None)


def unwrapped(data: Mapping[str, Any]) -> Any:
    """Return the type inside a type wrapped once more (`{"type": {"type": "int"}}`), None for any other."""
    return data["type"] if "name" not in data and isinstance(data.get("type"), dict | list) else None


class Resolver:
    """Name resolver, bounded by MAX_NODES, which also closes the gaps of Apache Avro's parser."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._named: dict[str, tuple[dict[str, Any], str]] = {}  # full name → definition, namespace inside it
        self._nodes = 0
        self._listed = 0

    def resolve(  # noqa: PLR0911 - one return a kind of type
        self, data: Any, namespace: str, enclosing: tuple[str, ...], path: str, depth: int = 1
    ) -> Any:
        """Resolve one type that Apache Avro accepted; `enclosing` are the named types around it."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise schema_unsafe(
                f"got a schema that grows beyond {MAX_NODES} types or {MAX_DEPTH} levels once its names are "
                f"resolved, at the field {path or '(the top)'}; expected fewer uses of the same names",
                path,
            )
        if isinstance(data, str):
            return data if data in _PRIMITIVES else self._reference(data, namespace, enclosing, path, depth)
        if isinstance(data, list):
            return [self.resolve(branch, namespace, enclosing, path, depth + 1) for branch in data]
        inner = unwrapped(data)
        if inner is not None:
            return self.resolve(inner, namespace, enclosing, path, depth)
        kind = data["type"]
        if kind in _NAMED:
            full = _full_name(data["name"], data.get("namespace", namespace))
            self._named[full] = (data, full.rpartition(".")[0])
            return self._definition(full, enclosing, path, depth)
        if kind == "array":
            return data | {"items": self.resolve(data["items"], namespace, enclosing, path, depth + 1)}
        if kind == "map":
            return data | {"values": self.resolve(data["values"], namespace, enclosing, path, depth + 1)}
        if kind not in _PRIMITIVES:  # {"type": "Name"} is a reference as well
            return self._reference(kind, namespace, enclosing, path, depth)
        data = self._logical(data, path)
        return data if len(data) > 1 else kind

    def _reference(self, name: str, namespace: str, enclosing: tuple[str, ...], path: str, depth: int) -> Any:
        full = _full_name(name, namespace)
        if full not in self._named:
            raise schema_invalid(
                f"got the type {name[:100]!r} at the field {path or '(the top)'}; expected one defined", path
            )
        return full if full in enclosing else self._definition(full, enclosing, path, depth)

    def _definition(self, full: str, enclosing: tuple[str, ...], path: str, depth: int) -> dict[str, Any]:
        data, namespace = self._named[full]
        self._listed += sum(len(data[key]) for key in ("symbols", "aliases") if isinstance(data.get(key), list))
        if self._listed > MAX_LISTED:
            raise schema_unsafe(
                f"got a schema of more than {MAX_LISTED} symbols and aliases once its names are resolved, at the field "
                f"{path or '(the top)'}; expected fewer uses of the same names",
                path,
            )
        resolved = {name: value for name, value in data.items() if name != "namespace"} | {"name": full}
        if self._strict:
            _check_names(full, data.get("aliases", []), _FULL_NAME, path)
        if "fields" not in data:
            _check_size(data.get("size", 0), path)
            return self._logical(resolved, path)
        fields = []
        for field in data["fields"]:
            here = f"{path}.{field['name']}" if path else field["name"]
            resolved_field = field | {
                "type": self.resolve(field["type"], namespace, (*enclosing, full), here, depth + 1),
            }
            if self._strict:
                _check_names(field["name"], field.get("aliases", []), _NAME, here)
                if path and {"check", "codes"}.intersection(field):
                    raise schema_invalid(
                        f"got a check of the field {here}, inside another; expected checks on the record's own fields",
                        here,
                    )
                if "default" in field and not default_fits(resolved_field["type"], field["default"]):
                    raise schema_invalid(
                        f"got a default of the field {here} that does not fit its type; expected a value of one of "
                        "its types, bytes and fixed as text of U+0000 to U+00FF",
                        here,
                    )
            fields.append(resolved_field)
        return resolved | {"fields": fields}

    def _logical(self, data: dict[str, Any], path: str) -> dict[str, Any]:
        """Return the type with its logical type if that is valid; an unknown one is ignored (Avro 1.12)."""
        if data.get("logicalType") != "decimal":
            return data
        flaw = _decimal_flaw(data)
        if not flaw:
            return data
        if self._strict:
            raise schema_invalid(f"got an invalid decimal at the field {path or '(the top)'}: {flaw}", path)
        return {name: value for name, value in data.items() if name != "logicalType"}


def _full_name(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _check_size(size: Any, path: str) -> None:
    if type(size) is not int or not 0 <= size <= MAX_TEXT_BYTES:
        raise schema_invalid(f"got a fixed of {str(size)[:20]} bytes at the field {path}; expected 0 to 2^20", path)


def _check_names(name: str, aliases: Any, grammar: re.Pattern[str], path: str) -> None:
    listed = aliases if isinstance(aliases, list) else [None]
    for each in (name, *listed):
        if not isinstance(each, str) or not (
            grammar.fullmatch(each) or (each in listed and _FULL_NAME.fullmatch(each))
        ):
            raise schema_invalid(
                f"got the name or alias {str(each)[:100]!r} at the field {path or '(the top)'}; expected letters, "
                "digits and _, not beginning with a digit",
                path,
            )


def _decimal_flaw(data: Mapping[str, Any]) -> str:
    precision, scale = data.get("precision"), data.get("scale", 0)
    if type(precision) is not int or precision < 1:
        return "expected a precision of 1 or more"
    if type(scale) is not int or not 0 <= scale <= precision:
        return "expected a scale from 0 to the precision"
    if data["type"] == "fixed":
        most = len(str(2 ** (8 * min(data["size"], 1_000) - 1))) - 1 if data["size"] else 0
        if precision > most:
            return f"expected a precision of at most {most} in {data['size']} bytes"
    elif data["type"] != "bytes":
        return "expected bytes or fixed below it"
    return ""

"""Admission rules for new schemas: numbers that double holds, and what every connector and target can hold. Pure.

Two sets, beyond those of `registry.avro.parser`, which also reads schemas that were registered before a rule was made:

    numbers       of any schema: no number out of range of double (it would be written as Infinity, which is no
                  JSON), no default out of range of its type
    publishable   of a published resource's schema: decimals of at most 76 digits, the most that Arrow has; no field
                  with the name of a column that connectors add; no two fields whose names differ in case alone, which
                  are one column in most databases
"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from registry.avro.parser import NO_DEFAULT, Field, ParsedSchema
from registry.avro.type_tree import MAX_DECIMAL_DIGITS
from schemas.errors import InvalidError, Reason

__all__ = ["RESERVED_FIELDS", "find_unpublishable", "require_numbers_in_range", "require_publishable"]

RESERVED_FIELDS = frozenset({"_record_key", "_recorded_at", "_deleted_at", "_operation"})
"""Columns that connectors add to the fields of a record, in tables and files. Compare them in lower case."""

_FLOAT_END = 3.4028235677973366e38  # half a step above the largest 32-bit number: from there on it rounds to infinity


def require_numbers_in_range(parsed: ParsedSchema) -> None:
    """Check the numbers of a schema, in defaults and in any other attribute.

    Raises:
        InvalidError: SCHEMA_INVALID; `details["field"]` names the field whose default it is, if it is one.
    """
    for path, field in _fields(parsed.fields):
        kind = _overflown(field["type"], field.get("default"))
        if kind:
            raise _out_of_range(f"a default of the field {path}", kind, path)
    if not all(math.isfinite(number) for number in _floats(parsed.json)):
        raise _out_of_range("a number", "double", "")


def find_unpublishable(parsed: ParsedSchema) -> list[tuple[str, str]]:
    """Return what keeps a schema from being that of a published resource: (dotted path of the field, message)."""
    found = []
    by_name: dict[str, str] = {}
    for field in parsed.fields:
        name = field.name.lower()
        if name in RESERVED_FIELDS:
            found.append((field.name, "got the name of a column that connectors add to each record; expected another"))
        elif name in by_name:
            found.append(
                (field.name, f"got a name that differs from {by_name[name]} in case alone; expected another name")
            )
        by_name[name] = field.name
    for path, field_ in _fields(parsed.fields):
        for decimal in _decimals(field_["type"]):
            if decimal["precision"] > MAX_DECIMAL_DIGITS:
                message = f"got a decimal of {decimal['precision']} digits; expected {MAX_DECIMAL_DIGITS} at most"
                found.append((path, message))
    return found


def require_publishable(parsed: ParsedSchema) -> None:
    """Check that a schema can be that of a published resource.

    Raises:
        InvalidError: SCHEMA_INVALID, naming each field.
    """
    found = find_unpublishable(parsed)
    if found:
        listed = "; ".join(f"{path}: {message}" for path, message in found)
        raise InvalidError(
            Reason.SCHEMA_INVALID, f"the schema cannot be published: {listed}", details={"field": found[0][0]}
        )


def _out_of_range(what: str, kind: str, path: str) -> InvalidError:
    most = 3.4028235e38 if kind == "float" else sys.float_info.max
    return InvalidError(
        Reason.SCHEMA_INVALID,
        f"got {what} that is out of range of {kind}; expected at most {most} in size",
        details={"field": path} if path else None,
    )


def _fields(fields: Sequence[Field]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every field of the record and of records within it, as JSON with its resolved type, and its path."""
    for field in fields:
        default = {} if field.default is NO_DEFAULT else {"default": field.default}
        yield from _within(field.name, {"type": field.type, **default})


def _within(path: str, field: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, field
    todo = [field["type"]]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict) and "fields" in node:
            for inner in node["fields"]:
                yield from _within(f"{path}.{inner['name']}", inner)
        elif isinstance(node, dict):
            todo += [node[key] for key in ("items", "values") if key in node]


def _decimals(avro_type: Any) -> Iterator[dict[str, Any]]:
    """Return the decimals of a type, without those of fields within it."""
    if isinstance(avro_type, list):
        for branch in avro_type:
            yield from _decimals(branch)
    elif isinstance(avro_type, dict) and "fields" not in avro_type:
        if avro_type.get("logicalType") == "decimal":
            yield avro_type
        for key in ("items", "values"):
            if key in avro_type:
                yield from _decimals(avro_type[key])


def _overflown(avro_type: Any, default: Any) -> str:
    """Return the type of a default that is too large a number for it: `float`, `double`; empty for any other."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return ""
    branches = avro_type if isinstance(avro_type, list) else [avro_type]
    kinds = {each["type"] if isinstance(each, dict) else each for each in branches}
    if "double" in kinds:
        return "double" if abs(default) > sys.float_info.max else ""
    return "float" if "float" in kinds and abs(default) >= _FLOAT_END else ""


def _floats(value: Any) -> Iterator[float]:
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, float):
            yield each
        elif isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list):
            todo += each

"""Compatibility of schema versions: may records written under one be read under another? Pure: texts in, findings out.

Seven levels, Confluent's: which of the two is new, and how many earlier versions count.

    NONE                                      no check
    BACKWARD   FORWARD   FULL                 the new schema reads the latest version's records; the latest version
                                              reads the new schema's; both
    BACKWARD_TRANSITIVE   FORWARD_TRANSITIVE  the same against every version
    FULL_TRANSITIVE

The verdict is that of Apache Avro's own checker (`avro.compatibility`: Avro specification, "Schema Resolution").
It collects messages and locations in two unordered sets, so a user learns that something is wrong, but not where. So
the conflicts are explained by our own comparison (`registry.avro.reader_writer`), which names version, JSON path and
reason; a test requires the same verdict of both, and where they should ever differ the library's counts.

The strict rule goes beyond Avro. Logical types do not take part in resolution: a decimal whose scale changes from
2 to 4, or a timestamp that turns from milliseconds into microseconds, is "compatible", and every stored amount
is silently a hundredth of what it was. With `strict` such a change is a conflict.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import Schema, make_avsc_object

from registry.avro.compatibility_level import Compatibility, Direction
from registry.avro.parser import PrimitiveFirstNames
from registry.avro.reader_writer import NAMED_TYPES, NamedTypes, ReadConflict, explain_conflicts, full_alias
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = [
    "RESERVED_FIELD",
    "Compatibility",
    "Direction",
    "Incompatibility",
    "find_incompatibilities",
    "read_conflicts",
    "require_compatible",
]

RESERVED_FIELD = "reserved_field"
"""Kind of an incompatibility with the metadata of a version, not with its records."""

_CACHED = 2048  # parsed schemas; some 20 kB each for twenty fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Incompatibility:
    """One reason why two versions are incompatible.

    Attributes:
        version: number of the earlier version.
        direction: which of the two cannot read the other's records.
        at: JSON path in the schema that reads, such as `$.fields[3].type`; field: its dotted name, "" at the top.
        kind: name of the rule: one of avro's (`type_mismatch` …), `reinterpretation` or RESERVED_FIELD.
        detail: got and expected. library: the message of Avro's own checker.
    """

    version: int
    direction: Direction
    at: str
    field: str
    kind: str
    detail: str
    library: str

    def __str__(self) -> str:
        if self.kind == RESERVED_FIELD:
            return self.detail
        if self.direction is Direction.BACKWARD:
            what = f"the new schema cannot read records of version {self.version}: at {self.at} of the new schema"
        else:
            what = (
                f"version {self.version} cannot read records of the new schema: at {self.at} of version {self.version}"
            )
        return f"{what}{f' ({self.field})' if self.field else ''}: {self.detail}"


def find_incompatibilities(
    new: str, earlier: Sequence[tuple[int, str]], level: Compatibility, *, strict: bool = False
) -> list[Incompatibility]:
    """Compare a new schema with the earlier versions that the level names.

    Args:
        new: text of the new schema, already validated.
        earlier: (version number, text) of every live version, in ascending order.
        level: what is required.
        strict: also find logical types that change their meaning.

    Returns:
        Every incompatibility; empty when the level holds.

    Raises:
        InvalidError: SCHEMA_INVALID, for a text that Avro's library cannot read.
    """
    chosen = earlier if level.transitive else earlier[-1:]
    found: list[Incompatibility] = []
    for number, text in reversed(chosen):
        for direction in level.directions:
            reader, writer = (new, text) if direction is Direction.BACKWARD else (text, new)
            found += [
                Incompatibility(
                    version=number,
                    direction=direction,
                    at=item.at,
                    field=item.field,
                    kind=item.kind,
                    detail=item.detail,
                    library=item.library,
                )
                for item in read_conflicts(reader, writer, strict=strict)
            ]
    return found


def read_conflicts(reader: str, writer: str, *, strict: bool = False) -> list[ReadConflict]:
    """Return every conflict that keeps *reader* from reading what *writer* wrote; empty when it can.

    Raises:
        InvalidError: SCHEMA_INVALID, for a text that Avro's library cannot read.
    """
    if reader == writer:
        return []
    left, right = _parsed(reader), _parsed(writer)
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(left.avro, right.avro)
    refused = result.compatibility is SchemaCompatibilityType.incompatible
    if not refused and not strict:
        return []  # the comparison would only explain
    found = explain_conflicts(left.named, right.named)
    hard = [item for item in found if item.kind != "reinterpretation"]
    if refused and not hard:
        text = ", ".join(sorted(result.messages)) or "incompatible"
        kind = result.incompatibilities[0].value if result.incompatibilities else "incompatible"
        hard = [ReadConflict(at="$", field="", kind=kind, detail=text, library=text)]
    soft = [item for item in found if item.kind == "reinterpretation"] if strict else []
    return [*(hard if refused else ()), *soft]


def require_compatible(found: Sequence[Incompatibility], level: Compatibility) -> None:
    """Raise unless the list of incompatibilities is empty.

    Raises:
        ConflictError: SCHEMA_INCOMPATIBLE, naming level, versions, JSON paths and reasons.
    """
    if found:
        raise ConflictError(
            Reason.SCHEMA_INCOMPATIBLE,
            f"Schema being registered is incompatible with an earlier schema; compatibility level {level}: "
            + "; ".join(str(item) for item in found),
            details={"level": level, "library": ", ".join(sorted({item.library for item in found}))},
        )


@dataclass(frozen=True, slots=True)
class _Parsed:
    avro: Schema
    named: NamedTypes


@lru_cache(maxsize=_CACHED)
def _parsed(text: str) -> _Parsed:
    try:
        node = json.loads(text)
        # Logical types take no part in resolution, and the library warns of unknown ones.
        schema = make_avsc_object(
            _bare(_with_full_aliases(node, "")), PrimitiveFirstNames(validate_names=False), validate_names=False
        )
    except (ValueError, RecursionError, AvroException, AttributeError, KeyError, TypeError) as error:
        raise InvalidError(
            Reason.SCHEMA_INVALID, f"Avro's library cannot read the schema ({type(error).__name__})"
        ) from error
    return _Parsed(schema, NamedTypes.of(node))


def _with_full_aliases(node: Any, namespace: str) -> Any:
    """Return the schema with its types' aliases as full names: a relative alias is in the namespace of its name.

    Source: Avro 1.12, "Aliases": a type named a.b with the aliases "c" and "x.y" has the aliases a.c and x.y. Avro's
    Python library compares them as they are written.
    """
    if isinstance(node, list):
        return [_with_full_aliases(branch, namespace) for branch in node]
    if not isinstance(node, dict):
        return node
    full = dict(node)
    if node.get("type") in NAMED_TYPES:
        name = str(node["name"])
        namespace = name.rpartition(".")[0] if "." in name else str(node.get("namespace", namespace) or "")
        if namespace and isinstance(node.get("aliases"), list):
            full["aliases"] = [full_alias(str(each), namespace) for each in node["aliases"]]
        if "fields" in node:
            full["fields"] = [
                {**field, "type": _with_full_aliases(field["type"], namespace)} for field in node["fields"]
            ]
        return full
    for key in ("type", "items", "values"):
        if key in node:
            full[key] = _with_full_aliases(node[key], namespace)
    return full


def _bare(node: Any) -> Any:
    """Drop the logical types of types only: a default may hold a key of that name."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    bare = {key: value for key, value in node.items() if key != "logicalType"}
    for key in ("type", "items", "values"):
        if key in bare:
            bare[key] = _bare(bare[key])
    if isinstance(bare.get("fields"), list):
        bare["fields"] = [_bare(field) for field in bare["fields"]]
    return bare

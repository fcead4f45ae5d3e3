"""Fields of a schema at any depth, in order. Pure.

A field of a nested record is named by a dotted path (`holder.name`) that passes through arrays, maps and unions. Named
types are resolved first, so a record that is used twice has its fields twice, once below each use, and so has one that
comes from another subject's schema. A recursive reference is not followed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.avro.parser import NO_DEFAULT, Field, ParsedSchema

__all__ = ["FieldNode", "all_fields", "resolved_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNode:
    """One field at its path.

    Attributes:
        path: dotted names from the outermost record down. name: the last of them.
        parent: path of the field that holds its record, with a dot behind; empty at the top.
        depth: 0 at the top. index: position among its record's fields, from 0.
        aliases: dotted paths under which earlier versions may know it.
        node: the field as JSON, its type resolved.
    """

    path: str
    name: str
    parent: str
    depth: int
    index: int
    aliases: tuple[str, ...]
    node: Mapping[str, Any]


def all_fields(schema: ParsedSchema) -> list[FieldNode]:
    """Return every field; none for a schema that is not a record."""
    return list(_field_nodes(resolved_json(schema), "", 0))


def resolved_json(schema: ParsedSchema) -> dict[str, Any]:
    """Return a record schema as one JSON document in which every named type is written in full.

    For a schema that is not a record: a record without a name and without fields.
    """
    doc = schema.json.get("doc") if isinstance(schema.json, dict) else None
    return {
        "type": "record",
        "name": schema.fullname,
        **({"doc": doc} if isinstance(doc, str) else {}),
        **schema.attributes,
        "fields": [_declared(field) for field in schema.fields],
    }


def _declared(field: Field) -> dict[str, Any]:
    node: dict[str, Any] = {"name": field.name, **field.attributes, "type": field.type}
    if field.aliases:
        node["aliases"] = list(field.aliases)
    if field.doc:
        node["doc"] = field.doc
    if field.default is not NO_DEFAULT:
        node["default"] = field.default
    return node


def _field_nodes(record: Mapping[str, Any], parent: str, depth: int) -> Iterator[FieldNode]:
    for index, node in enumerate(record["fields"]):
        path = parent + node["name"]
        aliases = tuple(parent + alias for alias in node.get("aliases", ()))
        yield FieldNode(
            path=path, name=node["name"], parent=parent, depth=depth, index=index, aliases=aliases, node=node
        )
        for inner in _records(node["type"]):
            yield from _field_nodes(inner, f"{path}.", depth + 1)


def _records(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, list):
        for branch in node:
            yield from _records(branch)
    elif isinstance(node, dict):
        kind = node["type"]
        if kind in ("record", "error"):
            yield node
        elif kind in ("array", "map"):
            yield from _records(node["items" if kind == "array" else "values"])
        elif isinstance(kind, (dict, list)):
            yield from _records(kind)

"""Fingerprint of a schema content: SHA-256 of a canonical form, the key that decides whether two are the same. Pure.

The Parsing Canonical Form of the Avro specification drops what a reader of bytes does not need: labels, levels, masks,
defaults. The pool needs those, so this canonical form keeps every attribute, and ignores only

    white space and the order of attributes         {"name": "A", "type": …}  =  {"type": …, "name": "A"}
    a type written long or short                    {"type": "int"}           =  "int"
    a namespace written apart or in the name        "name": "b", "namespace": "a"  =  "name": "a.b"
    `order: ascending`, which is the default; attributes that have no meaning on their type

The content's key covers references, metadata and rules too; the schema's fingerprint leaves metadata and rules out. The
order of fields, symbols and branches has a meaning and is kept.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from registry.subjects.model import Content

__all__ = [
    "NAMED",
    "canonical_schema_text",
    "canonical_text",
    "canonicalize",
    "content_key",
    "content_key_of",
    "fingerprint_of",
    "guid",
]

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
NAMED = ("record", "error", "enum", "fixed")
"""Avro types that have a name."""

_ATTRIBUTES = {  # Avro's own attributes, and the types on which they have a meaning
    "name": NAMED,
    "namespace": (),  # folded into the name
    "aliases": NAMED,
    "fields": ("record", "error"),
    "symbols": ("enum",),
    "default": ("enum",),
    "items": ("array",),
    "values": ("map",),
    "size": ("fixed",),
}


def canonical_text(schema: Any) -> str:
    """Return the canonical form of a valid Avro schema.

    Args:
        schema: the schema as parsed JSON.
    """
    return _json(canonicalize(schema))


def canonicalize(schema: Any) -> Any:
    """Return a valid Avro schema's canonical form as parsed JSON, with full names.

    Args:
        schema: the schema as parsed JSON.
    """
    return _type(schema, "")


def content_key(content: Content, schema: Any) -> bytes:
    """Return the key that identifies a content: 32 bytes.

    Args:
        content: text, type, references, metadata and rules.
        schema: the text as parsed JSON; for another type than Avro, its canonical form by
            `registry.avro.schema_types`.
    """
    return content_key_of(canonical_schema_text(content, schema), content)


def canonical_schema_text(content: Content, schema: Any) -> str:
    """Return the canonical form of a content without its metadata and rules: a JSON list."""
    # With the schema's id: after a purge another schema may be registered under the same subject and number.
    references = [[item.name, item.subject, item.version, item.schema_id] for item in content.references]
    return _json([content.schema_type, _type(schema, "") if content.schema_type == "AVRO" else schema, references])


def fingerprint_of(canonical: str) -> bytes:
    """Return the schema fingerprint of a content, 32 bytes, from its `canonical_schema_text`."""
    return _digest(canonical)


def content_key_of(canonical: str, content: Content) -> bytes:
    """Return a content's key, as `content_key` does, from its `canonical_schema_text`, metadata and rules."""
    if content.metadata is None and content.rule_set is None:
        return _digest(f"{canonical[:-1]},null,null]")
    metadata = None if content.metadata is None else json.loads(content.metadata)
    rules = None if content.rule_set is None else json.loads(content.rule_set)
    return _digest(f"{canonical[:-1]},{_json(metadata)},{_json(rules)}]")


def guid(key: bytes) -> str:
    """Return a content's key as the UUID that Confluent's clients may put into a record's header."""
    return str(uuid.UUID(bytes=key[:16]))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def _type(node: Any, namespace: str) -> Any:
    if isinstance(node, str):
        return node if node in _PRIMITIVES or "." in node or not namespace else f"{namespace}.{node}"
    if isinstance(node, list):
        return [_type(branch, namespace) for branch in node]
    kind = node["type"]
    if not isinstance(kind, str):
        rest = {key: value for key, value in node.items() if key != "type" and key not in _ATTRIBUTES}
        return {**rest, "type": _type(kind, namespace)} if rest else _type(kind, namespace)
    plain = {key: value for key, value in node.items() if kind in _ATTRIBUTES.get(key, (kind,))}
    if kind in NAMED:
        plain["name"], namespace = _full_name(node, namespace)
        if "aliases" in plain:
            plain["aliases"] = [_qualified(alias, namespace) for alias in plain["aliases"]]
        if "fields" in plain:
            plain["fields"] = [_field(field, namespace) for field in plain["fields"]]
    elif kind == "array":
        plain["items"] = _type(plain["items"], namespace)
    elif kind == "map":
        plain["values"] = _type(plain["values"], namespace)
    else:
        plain["type"] = _type(kind, namespace)
    return plain["type"] if len(plain) == 1 else plain


def _field(field: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    plain = {key: value for key, value in field.items() if (key, value) != ("order", "ascending")}
    plain["type"] = _type(field["type"], namespace)
    return plain


def _full_name(node: Mapping[str, Any], namespace: str) -> tuple[str, str]:
    name: str = node["name"]
    if "." not in name:
        name = _qualified(name, node.get("namespace", namespace) or "")
    return name, name.rpartition(".")[0]


def _qualified(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"

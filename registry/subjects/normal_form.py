"""Normal form of a content: one text for all notations of the same schema (`normalize`). Pure.

`registry.subjects.fingerprint` ignores white space, the order of attributes, types written long or short and namespaces
written apart: such texts have one id, and each version keeps its own text. The normal form is a text, which is
registered where `normalize` is requested. It also drops or orders

    aliases             a set: sorted, each once; an empty list is dropped
    a scale of 0        on a decimal: the default
    an empty `doc`      without meaning
    references          sorted, each once; their versions are always numbers, also where `latest` was written

Types are not moved: a referenced one is not inlined, because the reference prevents its deletion. Nothing that a
reader, a grant or the classification uses is changed; the order of fields, symbols and branches has a meaning.
Confluent's registry drops the same (`AvroSchemaUtils.toNormalizedString`), and writes the attributes in another order.
JSON schemas are written with their members sorted; a .proto text is not changed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from registry.avro.schema_types import EXACT_NUMBER_MARK, SchemaType
from registry.subjects.fingerprint import NAMED, canonicalize
from registry.subjects.model import Content

__all__ = ["normalized"]


def normalized(content: Content, schema: Any) -> Content:
    """Return a content in its normal form.

    Args:
        content: checked, its references resolved.
        schema: its text as parsed JSON; of another kind than Avro, its canonical form.
    """
    text = content.text
    if content.kind == SchemaType.AVRO:
        text = _text(_type(canonicalize(schema), ""))
    elif content.kind == SchemaType.JSON:
        text = re.sub(f'"{EXACT_NUMBER_MARK}([^"]*)"', r"\1", _text(schema))
    listed = sorted(set(content.references), key=lambda item: (item.name, item.subject, item.version))
    return replace(content, text=text, references=tuple(listed))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _type(node: Any, namespace: str) -> Any:
    """Return a canonical type in its normal form; *namespace* is the enclosing one."""
    if isinstance(node, list):
        return [_type(branch, namespace) for branch in node]
    if isinstance(node, str):
        return node
    plain = _without_defaults(node)
    if node.get("logicalType") == "decimal" and node["type"] in ("bytes", "fixed") and _is_zero(plain.get("scale")):
        del plain["scale"]
    if node["type"] in NAMED:
        own = node["name"].rpartition(".")[0]
        if not own and namespace:
            plain["namespace"] = ""  # else it would inherit the enclosing one
        if "fields" in node:
            plain["fields"] = [
                _without_defaults(field) | {"type": _type(field["type"], own)} for field in node["fields"]
            ]
        return plain
    for key in ("type", "items", "values"):
        if key in plain:
            plain[key] = _type(plain[key], namespace)
    return plain["type"] if len(plain) == 1 else plain


def _is_zero(scale: Any) -> bool:
    """Return whether a scale is the number 0: 0.0 is no valid scale, and leaving it out would make the decimal one."""
    return type(scale) is int and scale == 0


def _without_defaults(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a type or a field without attributes that have no meaning."""
    plain = dict(node)
    if not plain.get("doc", True):
        del plain["doc"]
    aliases = plain.get("aliases")
    if isinstance(aliases, list) and all(isinstance(one, str) for one in aliases):
        plain["aliases"] = sorted(set(aliases))
    if aliases == []:
        del plain["aliases"]
    return plain

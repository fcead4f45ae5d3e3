"""Normal form of a content: one text for contents that mean the same and are written differently. Pure.

`registry.subjects.fingerprint` already ignores white space, the order of attributes, types written long or short and
namespaces written apart: such texts have one id, and each keeps its own text. The normal form goes further, and its
text is registered if `normalize` is requested. In addition it drops or orders

    aliases             a set: sorted, each once; an empty list is none
    a scale of 0        on a decimal: the default
    an empty `doc`      has no meaning
    references          sorted, each once; their versions are numbers, also if `latest` was submitted

A referenced type is not inlined, since the reference protects it from deletion. Nothing that a reader, a grant or the
classification needs is changed; the order of fields, symbols and branches has a meaning. Confluent's registry drops the
same (`AvroSchemaUtils.toNormalizedString`), and writes the attributes in another order. JSON schemas are written with
their members sorted; a .proto text is kept unchanged.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from registry.avro.schema_types import EXACT_NUMBER_MARK, SchemaType
from registry.subjects.fingerprint import NAMED, canonicalize
from registry.subjects.model import Content

__all__ = ["to_normal_form"]


def to_normal_form(content: Content, schema: Any) -> Content:
    """Return a content in its normal form.

    Args:
        content: validated, its references resolved.
        schema: its text as parsed JSON; for another type than Avro, its canonical form.
    """
    text = content.text
    if content.schema_type == SchemaType.AVRO:
        text = _text(_type(canonicalize(schema), ""))
    elif content.schema_type == SchemaType.JSON:
        text = re.sub(f'"{EXACT_NUMBER_MARK}([^"]*)"', r"\1", _text(schema))
    listed = sorted(set(content.references), key=lambda item: (item.name, item.subject, item.version))
    return replace(content, text=text, references=tuple(listed))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _type(node: Any, namespace: str) -> Any:
    """Return a canonical type in its normal form; *namespace* is that of the enclosing type."""
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
            plain["namespace"] = ""  # otherwise it would inherit the enclosing one
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
    """Return whether a scale is the integer 0: 0.0 is invalid, and dropping it would make the decimal valid."""
    return type(scale) is int and scale == 0


def _without_defaults(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a type or a field without attributes that have no effect, and its aliases sorted."""
    plain = dict(node)
    if not plain.get("doc", True):
        del plain["doc"]
    aliases = plain.get("aliases")
    if isinstance(aliases, list) and all(isinstance(one, str) for one in aliases):
        plain["aliases"] = sorted(set(aliases))
    if aliases == []:
        del plain["aliases"]
    return plain

"""Inlining of references: an Avro schema that uses types of other schemas becomes self-contained. Pure.

Each named type is written out at its first use, and by name afterwards, so the result is no longer than its parts
together.
"""

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["inline_references"]

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED = frozenset({"record", "error", "enum", "fixed"})


def inline_references(text: str, references: Sequence[str]) -> str:
    """Return a schema with the types of its references written into it.

    Args:
        text: the schema as JSON, already validated together with its references.
        references: texts of the referenced schemas, each before those that need it.
    """
    if not references:
        return text
    known: dict[str, Any] = {}
    for one in references:
        _collect_definitions(json.loads(one), "", known)
    return json.dumps(_Inliner(known).write(json.loads(text), ""), ensure_ascii=False)


def _collect_definitions(node: Any, namespace: str, known: dict[str, Any]) -> None:
    if isinstance(node, list):
        for branch in node:
            _collect_definitions(branch, namespace, known)
    if not isinstance(node, dict):
        return
    if node.get("type") in _NAMED:
        full = _full(node["name"], node.get("namespace", namespace) or "")
        namespace = full.rpartition(".")[0]
        known.setdefault(full, {**node, "name": full})
        known[full].pop("namespace", None)
        for field in node.get("fields", ()):
            _collect_definitions(field["type"], namespace, known)
    for key in ("type", "items", "values"):
        if isinstance(node.get(key), dict | list):
            _collect_definitions(node[key], namespace, known)


class _Inliner:
    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known
        self._written: set[str] = set()

    def write(self, node: Any, namespace: str) -> Any:
        if isinstance(node, str):
            return self._name(node, namespace)
        if isinstance(node, list):
            return [self.write(branch, namespace) for branch in node]
        kind = node["type"]
        if kind in _NAMED:
            return self._definition(node, namespace)
        written = dict(node)
        for key in ("items", "values"):
            if key in node and kind in ("array", "map"):
                written[key] = self.write(node[key], namespace)
        if not isinstance(kind, str):
            written["type"] = self.write(kind, namespace)
        elif kind not in _PRIMITIVES and kind not in ("array", "map"):
            found = self._name(kind, namespace)
            return {**found, **{key: value for key, value in node.items() if key != "type"}} if found != kind else node
        return written

    def _definition(self, node: dict[str, Any], namespace: str) -> Any:
        full = _full(node["name"], node.get("namespace", namespace) or "")
        self._written.add(full)
        written = dict(node)
        inner = full.rpartition(".")[0]
        if "fields" in node:
            written["fields"] = [{**field, "type": self.write(field["type"], inner)} for field in node["fields"]]
        return written

    def _name(self, name: str, namespace: str) -> Any:
        full = _full(name, namespace)
        if name in _PRIMITIVES or full in self._written:
            return name
        # Written under its full name; the surrounding namespace must not apply to it.
        definition = self._known.get(full)
        if definition is None:
            return name
        return self._definition({"namespace": "", **definition} if "." not in full else definition, "")


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"

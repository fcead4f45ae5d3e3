"""Schema diff: what changed between two versions, and what each change means for readers. Pure.

A text comparison shows lines; this one shows meanings. Fields are matched by dotted path, and by alias where a field
was renamed, so that a renaming is one change and not a removal and an addition. Each change says

    what        field added | removed | renamed | type | default | level | personal | sensitive | mask | tags | key | …
    readers     who has to move first: whether the new schema reads the records written so far, and whether readers with
                the old schema read the records written from now on
    approval    whether it lowers a classification, so that a second person must agree
                (`registry.governance.classification`)

The effect on readers is not derived from the kind of change. Both schemas are compared as reader and writer in both
directions (`registry.avro.compatibility.read_conflicts`), and each conflict is attributed to the change of its field; a
conflict where nothing changed by name (a record's own name) becomes a change of its own. So no incompatibility is ever
missing from the list, which a test shows for random pairs of schemas.

The effect on grants is in `registry.reports.grant_impact`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from registry.avro.compatibility import read_conflicts
from registry.avro.fields import FieldNode, all_fields, resolved_json
from registry.avro.parser import ParsedSchema
from registry.avro.reader_writer import ReadConflict
from registry.avro.type_names import type_name
from registry.governance import classification
from registry.governance.tags import tagged_entities
from schemas.canonical import Json

__all__ = ["ChangeKind", "ReaderImpact", "SchemaChange", "diff"]


class ChangeKind(StrEnum):
    """Kind of a change."""

    ADDED = "field added"
    REMOVED = "field removed"
    RENAMED = "field renamed"
    MOVED = "field moved"
    TYPE = "type"
    DEFAULT = "default"
    LABEL = "label"
    LEVEL = "level"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"
    MASK = "mask"
    TAGS = "tags"
    CHECK = "check"
    CODES = "codes"
    KEY = "key"
    NAME = "name"
    DOC = "description"
    ATTRIBUTE = "attribute"


class ReaderImpact(StrEnum):
    """Impact of a change on readers, and who moves first."""

    UNTOUCHED = "untouched"  # records look and mean the same
    BOTH = "both read on"  # the new schema reads old records, and the old one new records
    READERS_FIRST = "readers first"  # the new schema reads old records; the old one does not read new ones
    WRITERS_FIRST = "writers first"  # the old schema reads new records; the new one does not read old ones
    BROKEN = "broken"  # neither: a new major


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """One change between two versions of a schema.

    Attributes:
        kind: what changed. path: dotted name of the field in the new schema (in the old one, for a removed field);
            empty for the record itself.
        was: the field's path in the old schema, where it had another name; else equal to `path`.
        zh: the field's Chinese label. before, after: the two states as text; empty for none.
        readers: impact on readers. because: the conflicts, as text; empty where there are none.
        approval: it lowers a classification.
    """

    kind: ChangeKind
    path: str
    was: str
    zh: str
    before: str
    after: str
    readers: ReaderImpact = ReaderImpact.UNTOUCHED
    because: tuple[str, ...] = ()
    approval: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "kind": self.kind.value,
            "path": self.path,
            "was": self.was,
            "zh": self.zh,
            "before": self.before,
            "after": self.after,
            "readers": self.readers.value,
            "because": list(self.because),
            "approval": self.approval,
        }


_ATTRIBUTE_KINDS = {  # attribute → kind of a change that does not concern the bytes
    "zh": ChangeKind.LABEL,
    "level": ChangeKind.LEVEL,
    "personal": ChangeKind.PERSONAL,
    "sensitive": ChangeKind.SENSITIVE,
    "mask": ChangeKind.MASK,
    "check": ChangeKind.CHECK,
    "codes": ChangeKind.CODES,
    "doc": ChangeKind.DOC,
}
_COMPARED_ELSEWHERE = frozenset(
    {"name", "type", "default", "aliases", "fields", "namespace", "items", "values", "symbols", "confluent:tags"}
)
_FIELD_KINDS = frozenset({ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.RENAMED})
_IMPACTS = {  # conflicts of (the new schema as reader, the old schema as reader)
    (False, False): ReaderImpact.BOTH,
    (False, True): ReaderImpact.READERS_FIRST,
    (True, False): ReaderImpact.WRITERS_FIRST,
    (True, True): ReaderImpact.BROKEN,
}


def diff(
    old: ParsedSchema,
    new: ParsedSchema,
    *,
    strict: bool = True,
    metadata: tuple[str | None, str | None] = (None, None),
) -> list[SchemaChange]:
    """Return what changed, in the order of the new schema's fields, removed ones at the end.

    Args:
        old: as it is registered.
        new: as it would follow.
        strict: a logical type that changes its meaning counts as a conflict.
        metadata: of both, from which tags come beside those in the schemas.
    """
    return _Comparison(old, new, strict=strict, metadata=metadata).changes()


class _Comparison:
    def __init__(
        self, old: ParsedSchema, new: ParsedSchema, *, strict: bool, metadata: tuple[str | None, str | None]
    ) -> None:
        self._old, self._new = old, new
        self._before, self._after = _by_path(old), _by_path(new)
        self._former = {
            field.path: next((path for path in paths if path in self._before), None)
            for field, paths in classification.former_paths(self._after.values(), self._before)
        }
        self._tags = _tags(old, metadata[0]), _tags(new, metadata[1])
        self._backward = _grouped(read_conflicts(new.text, old.text, strict=strict))
        self._forward = _grouped(read_conflicts(old.text, new.text, strict=strict))
        before, after = (
            classification.read_classification(resolved_json(old))[0],
            classification.read_classification(resolved_json(new))[0],
        )
        self._lowered = _lowered(before, after)
        self._classified = _effective(before), _effective(after)

    def changes(self) -> list[SchemaChange]:
        found = list(self._record())
        matched: set[str] = set()
        for path, field in self._after.items():
            was = self._former[path]
            if was is None:
                found.append(self._with_impact(self._change(ChangeKind.ADDED, path, path, "", _summary(field.node))))
                continue
            matched.add(was)
            found += self._field(path, was)
        for path, field in self._before.items():
            if path not in matched:
                found.append(self._with_impact(self._change(ChangeKind.REMOVED, path, path, _summary(field.node), "")))
        return [*found, *self._unexplained()]

    def _record(self) -> Iterator[SchemaChange]:
        for kind, before, after in (
            (ChangeKind.NAME, self._old.fullname, self._new.fullname),
            (ChangeKind.KEY, ", ".join(self._old.key), ", ".join(self._new.key)),
        ):
            if before != after:
                change = self._change(kind, "", "", before, after)
                yield self._with_impact(change) if kind is ChangeKind.NAME else change
        before_attributes = {**self._old.attributes, "doc": _doc(self._old)}
        after_attributes = {**self._new.attributes, "doc": _doc(self._new)}
        skip = {"key", *classification.INHERITED}  # inherited attributes are compared at the fields
        yield from self._attributes("", "", before_attributes, after_attributes, skip)
        yield from self._changed_tags("", "")
        if not self._before and not self._after and self._old.json != self._new.json:
            before, after = type_name(self._old.json), type_name(self._new.json)
            yield self._with_impact(self._change(ChangeKind.TYPE, "", "", before, after))

    def _field(self, path: str, was: str) -> Iterator[SchemaChange]:
        old, new = self._before[was], self._after[path]
        if path.rpartition(".")[2] != was.rpartition(".")[2]:
            yield self._with_impact(self._change(ChangeKind.RENAMED, path, was, was, path))
        elif old.index != new.index and old.parent == new.parent and not self._shifted(old.parent):
            yield self._change(ChangeKind.MOVED, path, was, f"place {old.index + 1}", f"place {new.index + 1}")
        before, after = _type_text(old.node["type"]), _type_text(new.node["type"])
        if before != after:
            yield self._with_impact(self._change(ChangeKind.TYPE, path, was, before, after))
        if _default(old.node) != _default(new.node):
            change = self._change(ChangeKind.DEFAULT, path, was, _default(old.node), _default(new.node))
            yield replace(change, readers=ReaderImpact.BOTH)
        yield from self._attributes(
            path,
            was,
            {**old.node, **self._classified[0].get(was, {})},
            {**new.node, **self._classified[1].get(path, {})},
            {"tags"},
        )
        yield from self._changed_tags(path, was)

    def _changed_tags(self, path: str, was: str) -> Iterator[SchemaChange]:
        """Compare the tags of a field, and those of the records that it holds."""
        for of_record in (False, True):
            before, after = self._tags[0].get((was, of_record), set()), self._tags[1].get((path, of_record), set())
            if before != after:
                texts = (_listed(before, of_record=of_record), _listed(after, of_record=of_record))
                yield self._change(ChangeKind.TAGS, path, was, *texts, approval=not before <= after)

    def _shifted(self, parent: str) -> bool:
        """Return whether fields of a record changed position only because others were added or removed."""
        before = [path for path, field in self._before.items() if field.parent == parent and path in self._after]
        after = [path for path, field in self._after.items() if field.parent == parent and path in self._before]
        return before == after

    def _attributes(
        self, path: str, was: str, old: Mapping[str, Any], new: Mapping[str, Any], skip: set[str] | None = None
    ) -> Iterator[SchemaChange]:
        for name in sorted((old.keys() | new.keys()) - _COMPARED_ELSEWHERE - (skip or set())):
            before, after = _text(old.get(name)), _text(new.get(name))
            if before == after:
                continue
            kind = _ATTRIBUTE_KINDS.get(name, ChangeKind.ATTRIBUTE)
            if kind is ChangeKind.ATTRIBUTE:
                before, after = (f"{name} {each}" if each else "" for each in (before, after))
            yield self._change(kind, path, was, before, after, approval=(path, kind.value) in self._lowered)

    def _change(
        self, kind: ChangeKind, path: str, was: str, before: str, after: str, *, approval: bool = False
    ) -> SchemaChange:
        field = self._before.get(path) if kind is ChangeKind.REMOVED else self._after.get(path)
        zh = field.node.get("zh", "") if field is not None else ""
        return SchemaChange(kind=kind, path=path, was=was, zh=str(zh), before=before, after=after, approval=approval)

    def _with_impact(self, change: SchemaChange) -> SchemaChange:
        """Attribute the conflicts of both directions at a field to its change, once."""
        missing = change.kind in _FIELD_KINDS
        backward = self._backward.pop((change.path, missing), [])
        forward = self._forward.pop((change.was, missing), [])
        because = [f"the new schema does not read old records: {item.detail}" for item in backward]
        because += [f"the old schema does not read new records: {item.detail}" for item in forward]
        readers = _IMPACTS[bool(backward), bool(forward)]
        return replace(change, readers=readers, because=tuple(dict.fromkeys(because)))

    def _unexplained(self) -> Iterator[SchemaChange]:
        """Return a change for each conflict that no change so far explains."""
        for path, missing in dict.fromkeys((*self._backward, *self._forward)):
            kind = ChangeKind.REMOVED if missing else ChangeKind.TYPE if path else ChangeKind.NAME
            yield self._with_impact(self._change(kind, path, path, "", ""))


def _by_path(schema: ParsedSchema) -> dict[str, FieldNode]:
    return {member.path: member for member in all_fields(schema)}


def _tags(schema: ParsedSchema, metadata: str | None) -> dict[tuple[str, bool], set[str]]:
    """Return tags by path, and by whether they are a record's."""
    found: dict[tuple[str, bool], set[str]] = {}
    for entity in tagged_entities(schema, metadata):
        found.setdefault((entity.path, entity.record), set()).update(entity.tags)
    return found


def _listed(tags: set[str], *, of_record: bool) -> str:
    return f"{'record: ' if of_record and tags else ''}{', '.join(sorted(tags))}"


def _grouped(found: list[ReadConflict]) -> dict[tuple[str, bool], list[ReadConflict]]:
    """Group conflicts by field, and by whether the field itself is missing."""
    paths: dict[tuple[str, bool], list[ReadConflict]] = {}
    for item in found:
        paths.setdefault((item.field, item.kind == "reader_field_missing_default_value"), []).append(item)
    return paths


def _lowered(
    before: list[classification.ClassifiedField], after: list[classification.ClassifiedField]
) -> set[tuple[str, str]]:
    """Return (path, attribute) of what the new schema lowers."""
    return {
        (finding.path, attribute)
        for finding in classification.find_lowered(after, before)
        for attribute in classification.INHERITED
        if f'"{attribute}"' in finding.message
    }


def _effective(fields: list[classification.ClassifiedField]) -> dict[str, dict[str, str]]:
    """Return each field's effective classification, inherited attributes included."""
    return {
        field.path: {
            "level": field.level.name,
            "personal": field.personal,
            "sensitive": field.sensitive,
            "mask": field.mask,
        }
        for field in fields
    }


def _type_text(node: Any) -> str:
    """Return the name of a type such that different types differ, except inside nested records."""
    if isinstance(node, list):
        return " | ".join(_type_text(branch) for branch in node)
    if isinstance(node, dict) and node["type"] == "enum":
        default = f", else {node['default']}" if "default" in node else ""
        return f"enum {node['name']} of {', '.join(node['symbols'])}{default}"
    if isinstance(node, dict) and node["type"] in ("array", "map"):
        inner = _type_text(node["items" if node["type"] == "array" else "values"])
        return f"{'list' if node['type'] == 'array' else 'map'} of {inner}"
    if isinstance(node, dict) and node["type"] in ("record", "error", "fixed"):
        return f"{type_name(node)} {node['name']}" if node["type"] == "fixed" else f"record {node['name']}"
    if isinstance(node, dict) and isinstance(node["type"], str) and node.get("logicalType"):
        return f"{type_name(node)} ({node['type']})"
    return type_name(node)


def _summary(node: Mapping[str, Any]) -> str:
    parts = [_type_text(node["type"])]
    if "default" in node:
        parts.append(f"default {_text(node['default']) or 'null'}")
    parts += [f"{name} {node[name]}" for name in ("level", "personal", "sensitive", "mask") if name in node]
    return ", ".join(parts)


def _default(node: Mapping[str, Any]) -> str:
    return "" if "default" not in node else (_text(node["default"]) or "null")


def _doc(schema: ParsedSchema) -> str:
    return str(schema.json.get("doc", "")) if isinstance(schema.json, dict) else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

"""What changed between two versions of a schema, and what each change means for whoever reads. Pure.

A text comparison shows lines; this shows meanings. Fields are matched by dotted path, and by alias where a field was
renamed, so that a renaming is one change and not a removal and an addition. Each change says

    what        field added | removed | renamed | type | default | level | personal | sensitive | mask | key | …
    readers     who has to move first: whether the new schema reads what is written already, and whether readers with
                the old schema read what will be written
    approval    whether it takes a classification back, so that a second person must agree
    (`registry.governance.classification`)

The word on readers is not judged from the kind of change. Both schemas are compared as reader and writer in both
directions (`registry.avro.compatibility.can_read`), and what is found at a field is laid to that field's change;
what is found where nothing changed by name (a record's own name) becomes a change of its own. So no incompatibility
is ever missing from the list, which a test holds for random pairs of schemas.

What a change does to grants says `registry.reports.grant_impact`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from registry.avro.compatibility import can_read
from registry.avro.fields import Member, members, resolved
from registry.avro.parser import ParsedSchema
from registry.avro.reader_writer import Difference
from registry.avro.type_names import type_text
from registry.governance import classification
from schemas.canonical import Json

__all__ = ["Change", "Kind", "Readers", "diff"]


class Kind(StrEnum):
    """What changed."""

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
    CHECK = "check"
    CODES = "codes"
    KEY = "key"
    NAME = "name"
    DOC = "description"
    ATTRIBUTE = "attribute"


class Readers(StrEnum):
    """What a change means for readers, and who moves first."""

    UNTOUCHED = "untouched"  # records look and mean the same
    BOTH = "both read on"  # the new schema reads old records, and the old one new records
    READERS_FIRST = "readers first"  # the new schema reads old records; the old one does not read new ones
    WRITERS_FIRST = "writers first"  # the old schema reads new records; the new one does not read old ones
    BROKEN = "broken"  # neither: a new major


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change.

    Attributes:
        kind: what changed. path: dotted name of the field in the new schema (in the old one, for a removed field);
            empty for the record itself.
        was: the field's path in the old schema, where it had another name; else equal to `path`.
        zh: the field's Chinese label. before, after: the two states in words; empty for none.
        readers: what it means for readers. because: in words, what a reader cannot do; empty where it can.
        approval: it takes back what the classification said.
    """

    kind: Kind
    path: str
    was: str
    zh: str
    before: str
    after: str
    readers: Readers = Readers.UNTOUCHED
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


_PLAIN = {  # attribute → kind, where the change has no meaning for the bytes
    "zh": Kind.LABEL,
    "level": Kind.LEVEL,
    "personal": Kind.PERSONAL,
    "sensitive": Kind.SENSITIVE,
    "mask": Kind.MASK,
    "check": Kind.CHECK,
    "codes": Kind.CODES,
    "doc": Kind.DOC,
}
_OTHERWISE_SHOWN = frozenset(
    {"name", "type", "default", "aliases", "fields", "namespace", "items", "values", "symbols"}
)
_COMING_AND_GOING = frozenset({Kind.ADDED, Kind.REMOVED, Kind.RENAMED})
_VERDICTS = {  # something found against (the new schema as reader, the old schema as reader)
    (False, False): Readers.BOTH,
    (False, True): Readers.READERS_FIRST,
    (True, False): Readers.WRITERS_FIRST,
    (True, True): Readers.BROKEN,
}


def diff(old: ParsedSchema, new: ParsedSchema, *, strict: bool = True) -> list[Change]:
    """Return what changed, in the order of the new schema's fields, removed ones at the end.

    Args:
        old: as it is registered.
        new: as it would follow.
        strict: a logical type that changes its meaning counts as unreadable.
    """
    return _Comparison(old, new, strict=strict).changes()


class _Comparison:
    def __init__(self, old: ParsedSchema, new: ParsedSchema, *, strict: bool) -> None:
        self._old, self._new = old, new
        self._before, self._after = _by_member(old), _by_member(new)
        self._backward = _by_path(can_read(new.text, old.text, strict=strict))
        self._forward = _by_path(can_read(old.text, new.text, strict=strict))
        before, after = classification.examine(resolved(old))[0], classification.examine(resolved(new))[0]
        self._lowered = _lowered(before, after)
        self._classified = _in_force(before), _in_force(after)

    def changes(self) -> list[Change]:
        found = list(self._record())
        matched: set[str] = set()
        for path, field in self._after.items():
            was = self._former(path, field)
            if was is None:
                found.append(self._effect(self._change(Kind.ADDED, path, path, "", _summary(field.node))))
                continue
            matched.add(was)
            found += self._field(path, was)
        for path, field in self._before.items():
            if path not in matched:
                found.append(self._effect(self._change(Kind.REMOVED, path, path, _summary(field.node), "")))
        return [*found, *self._unexplained()]

    def _former(self, path: str, field: Member) -> str | None:
        """Find the field's path in the old schema: its own, else that of an alias."""
        return next((each for each in (path, *field.aliases) if each in self._before), None)

    def _record(self) -> Iterator[Change]:
        for kind, before, after in (
            (Kind.NAME, self._old.fullname, self._new.fullname),
            (Kind.KEY, ", ".join(self._old.key), ", ".join(self._new.key)),
        ):
            if before != after:
                change = self._change(kind, "", "", before, after)
                yield self._effect(change) if kind is Kind.NAME else change
        before_attributes = {**self._old.attributes, "doc": _doc(self._old)}
        after_attributes = {**self._new.attributes, "doc": _doc(self._new)}
        skip = {"key", *classification.INHERITED}  # what fields inherit shows at the fields
        yield from self._attributes("", "", before_attributes, after_attributes, skip)
        if not self._before and not self._after and self._old.json != self._new.json:
            before, after = type_text(self._old.json), type_text(self._new.json)
            yield self._effect(self._change(Kind.TYPE, "", "", before, after))

    def _field(self, path: str, was: str) -> Iterator[Change]:
        old, new = self._before[was], self._after[path]
        if path.rpartition(".")[2] != was.rpartition(".")[2]:
            yield self._effect(self._change(Kind.RENAMED, path, was, was, path))
        elif old.index != new.index and old.parent == new.parent and not self._shifted(old.parent):
            yield self._change(Kind.MOVED, path, was, f"place {old.index + 1}", f"place {new.index + 1}")
        before, after = _type_words(old.node["type"]), _type_words(new.node["type"])
        if before != after:
            yield self._effect(self._change(Kind.TYPE, path, was, before, after))
        if _default(old.node) != _default(new.node):
            change = self._change(Kind.DEFAULT, path, was, _default(old.node), _default(new.node))
            yield replace(change, readers=Readers.BOTH)
        yield from self._attributes(
            path,
            was,
            {**old.node, **self._classified[0].get(was, {})},
            {**new.node, **self._classified[1].get(path, {})},
        )

    def _shifted(self, parent: str) -> bool:
        """Return whether the fields of a record changed places only because others came or went."""
        before = [path for path, field in self._before.items() if field.parent == parent and path in self._after]
        after = [path for path, field in self._after.items() if field.parent == parent and path in self._before]
        return before == after

    def _attributes(
        self, path: str, was: str, old: Mapping[str, Any], new: Mapping[str, Any], skip: set[str] | None = None
    ) -> Iterator[Change]:
        for name in sorted((old.keys() | new.keys()) - _OTHERWISE_SHOWN - (skip or set())):
            before, after = _words(old.get(name)), _words(new.get(name))
            if before == after:
                continue
            kind = _PLAIN.get(name, Kind.ATTRIBUTE)
            if kind is Kind.ATTRIBUTE:
                before, after = (f"{name} {each}" if each else "" for each in (before, after))
            yield self._change(kind, path, was, before, after, approval=(path, kind.value) in self._lowered)

    def _change(self, kind: Kind, path: str, was: str, before: str, after: str, *, approval: bool = False) -> Change:
        field = self._before.get(path) if kind is Kind.REMOVED else self._after.get(path)
        zh = field.node.get("zh", "") if field is not None else ""
        return Change(kind=kind, path=path, was=was, zh=str(zh), before=before, after=after, approval=approval)

    def _effect(self, change: Change) -> Change:
        """Lay what the two directions found at a field to its change, once."""
        lacking = change.kind in _COMING_AND_GOING
        backward = self._backward.pop((change.path, lacking), [])
        forward = self._forward.pop((change.was, lacking), [])
        because = [f"the new schema does not read old records: {item.detail}" for item in backward]
        because += [f"the old schema does not read new records: {item.detail}" for item in forward]
        readers = _VERDICTS[bool(backward), bool(forward)]
        return replace(change, readers=readers, because=tuple(dict.fromkeys(because)))

    def _unexplained(self) -> Iterator[Change]:
        """Return a change for each place where reading fails and that no change before named."""
        for path, lacking in dict.fromkeys((*self._backward, *self._forward)):
            kind = Kind.REMOVED if lacking else Kind.TYPE if path else Kind.NAME
            yield self._effect(self._change(kind, path, path, "", ""))


def _by_member(schema: ParsedSchema) -> dict[str, Member]:
    return {member.path: member for member in members(schema)}


def _by_path(found: list[Difference]) -> dict[tuple[str, bool], list[Difference]]:
    """Sort what was found by field, and by whether the field itself is lacking."""
    paths: dict[tuple[str, bool], list[Difference]] = {}
    for item in found:
        paths.setdefault((item.field, item.kind == "reader_field_missing_default_value"), []).append(item)
    return paths


def _lowered(before: list[classification.Labelled], after: list[classification.Labelled]) -> set[tuple[str, str]]:
    """Return (path, attribute) of what the new schema takes back."""
    return {
        (finding.path, word)
        for finding in classification.lowered(after, before)
        for word in classification.INHERITED
        if f'"{word}"' in finding.message
    }


def _in_force(fields: list[classification.Labelled]) -> dict[str, dict[str, str]]:
    """Return each field's classification as it is in force, with what it inherits."""
    return {
        field.path: {
            "level": field.level.name,
            "personal": field.personal,
            "sensitive": field.sensitive,
            "mask": field.mask,
        }
        for field in fields
    }


def _type_words(node: Any) -> str:
    """Return a type in words that tell apart whatever differs, but not what stands inside nested records."""
    if isinstance(node, list):
        return " | ".join(_type_words(branch) for branch in node)
    if isinstance(node, dict) and node["type"] == "enum":
        default = f", else {node['default']}" if "default" in node else ""
        return f"enum {node['name']} of {', '.join(node['symbols'])}{default}"
    if isinstance(node, dict) and node["type"] in ("array", "map"):
        inner = _type_words(node["items" if node["type"] == "array" else "values"])
        return f"{'list' if node['type'] == 'array' else 'map'} of {inner}"
    if isinstance(node, dict) and node["type"] in ("record", "error", "fixed"):
        return f"{type_text(node)} {node['name']}" if node["type"] == "fixed" else f"record {node['name']}"
    if isinstance(node, dict) and isinstance(node["type"], str) and node.get("logicalType"):
        return f"{type_text(node)} ({node['type']})"
    return type_text(node)


def _summary(node: Mapping[str, Any]) -> str:
    words = [_type_words(node["type"])]
    if "default" in node:
        words.append(f"default {_words(node['default']) or 'null'}")
    words += [f"{name} {node[name]}" for name in ("level", "personal", "sensitive", "mask") if name in node]
    return ", ".join(words)


def _default(node: Mapping[str, Any]) -> str:
    return "" if "default" not in node else (_words(node["default"]) or "null")


def _doc(schema: ParsedSchema) -> str:
    return str(schema.json.get("doc", "")) if isinstance(schema.json, dict) else ""


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

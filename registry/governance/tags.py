"""Tags of a schema's records and fields: where they are, how they are edited, which a later version drops. Pure.

A tag is Confluent's (`"confluent:tags": ["PII"]`), inline at a record or a field, or in the metadata by a path pattern
(`{"tags": {"**.ssn": ["PII"]}}`). Policies are attached to tags, so they classify: under a subject whose fields must be
classified, a tag that an earlier version has is dropped only with an approval, in whatever form it was stated.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.avro.fields import resolved_json
from registry.avro.name_resolution import schema_invalid
from registry.avro.parser import ParsedSchema, load_json
from registry.governance.classification import former_paths
from schemas.errors import InvalidError, Reason

__all__ = [
    "TagEdit",
    "TaggedEntity",
    "dropped_tags",
    "edit_tags",
    "find_tags",
    "parse_tag_edits",
    "tagged_entities",
]

_INLINE = "confluent:tags"
_FIELD_TAGS = (_INLINE, "tags")  # of a field
_ENTITY_TYPES = ("sr_record", "sr_field")


@dataclass(frozen=True, slots=True)
class TagEdit:
    """Tags to add to a record or a field, or to remove from it.

    Attributes:
        path: the full name of a record, with the name of a field behind it.
        kind: sr_record or sr_field. tags: at least one.
    """

    path: str
    kind: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedEntity:
    """Tags of one field at its path, or of the record that it holds.

    Attributes:
        path: dotted names from the outermost record down; empty for that record. record: whether the tags are those of
            the record there.
        aliases: dotted paths that its own aliases give it.
        tags: sorted.
    """

    path: str
    record: bool
    aliases: tuple[str, ...]
    tags: tuple[str, ...]

    def __str__(self) -> str:
        return f"the record {self.path and f'in {self.path}'}".rstrip() if self.record else self.path


def parse_tag_edits(value: Any, name: str) -> tuple[TagEdit, ...]:
    """Parse `schemaTagsToAdd` or `schemaTagsToRemove`.

    Args:
        value: a list of `{"schemaEntity": {"entityPath", "entityType"}, "tags": […]}`, or None.
        name: of the member, for messages.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    try:
        return tuple(_tag_edit(item) for item in value or ())
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f'got "{name}" of another form; expected [{{"schemaEntity": {{"entityPath": "ns.Record.field", '
            '"entityType": "sr_field" or "sr_record"}, "tags": ["…"]}]',
        ) from error


def _tag_edit(item: Any) -> TagEdit:
    entity, tags = item["schemaEntity"], item["tags"]
    path, kind = entity["entityPath"], entity["entityType"]
    known = item.keys() == {"schemaEntity", "tags"} and entity.keys() == {"entityPath", "entityType"}
    listed = isinstance(tags, list) and bool(tags) and all(isinstance(tag, str) and tag for tag in tags)
    if not (known and listed and isinstance(path, str) and kind in _ENTITY_TYPES):
        raise ValueError
    return TagEdit(path, kind, tuple(tags))


def edit_tags(text: str, add: Sequence[TagEdit], remove: Sequence[TagEdit]) -> str:
    """Return the text of an Avro schema with tags added and removed inline, as Confluent's registry does.

    Raises:
        InvalidError: SCHEMA_INVALID, for an entity that is not there, or a text that is no schema; SCHEMA_UNSAFE.
    """
    if not (add or remove):
        return text
    try:
        node = load_json(text)
        entities = {(path, kind): found for path, kind, found in _entities(node, "")}
        for edits, change in ((add, _with_tags), (remove, _without_tags)):
            for edit in edits:
                found = entities.get((edit.path, edit.kind))
                if found is None:
                    raise schema_invalid(
                        f"got tags for {edit.path[:100]!r} ({edit.kind}), which the schema does not define; expected a "
                        "record's full name, or that of its field"
                    )
                change(found, edit.tags)
    except (KeyError, TypeError, AttributeError) as error:
        raise schema_invalid(f"got a text that is no Avro schema ({type(error).__name__})") from error
    return json.dumps(node, ensure_ascii=False)


def _with_tags(node: dict[str, Any], tags: Sequence[str]) -> None:
    node[_INLINE] = list(dict.fromkeys([*_texts(node.get(_INLINE)), *tags]))


def _without_tags(node: dict[str, Any], tags: Sequence[str]) -> None:
    left = [tag for tag in _texts(node.get(_INLINE)) if tag not in tags]
    node.pop(_INLINE, None)
    if left:
        node[_INLINE] = left


def find_tags(text: str, metadata: str | None, wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records and fields of an Avro schema that have one of the tags wanted, `*` = any, in Confluent's form.

    Types of other subjects are not searched; named types are where they are defined.
    """
    sought = set(wanted)
    patterns = _patterns(metadata)
    found = []
    for path, kind, node in _entities(json.loads(text), ""):
        tags = list(dict.fromkeys([*_texts(node.get(_INLINE)), *_by_pattern(patterns, {path})]))
        if tags and ("*" in sought or sought & set(tags)):
            found.append({"schemaEntity": {"entityPath": path, "entityType": kind}, "tags": tags})
    return found


def tagged_entities(parsed: ParsedSchema, metadata: str | None) -> list[TaggedEntity]:
    """Return the tags of every field at any depth and of every record, inline and from the metadata.

    A record that is used twice is there at each use, and so is one of another subject's schema.
    """
    return list(_tagged(resolved_json(parsed), _patterns(metadata), parsed.fullname, "", ()))


def dropped_tags(new: Iterable[TaggedEntity], earlier: Iterable[tuple[int, Iterable[TaggedEntity]]]) -> list[str]:
    """Compare a new version's tags with those of every earlier one.

    A renamed field is matched by its alias, so that a new name does not hide a tag.

    Returns:
        What the new version drops, as texts that name version, entity and tag.
    """
    current = list(new)
    findings = []
    for number, old in earlier:
        before: dict[tuple[str, bool], set[str]] = {}
        for entity in old:
            before.setdefault((entity.path, entity.record), set()).update(entity.tags)
        for entity, paths in former_paths(current, {path for path, _ in before}):
            was = {tag for path in paths for tag in before.get((path, entity.record), ())}
            gone = sorted(was - set(entity.tags))
            findings += [f"version {number}: the tag {tag!r} of {entity} is dropped" for tag in gone]
    return findings


def _path_matches(pattern: str, path: str) -> bool:
    """Return whether a path matches a pattern: `*` matches one name, `**` any number of them."""
    wanted, names = pattern.split("."), path.split(".")
    ends = {0}
    for word in wanted:
        if word == "**":
            ends = set(range(min(ends), len(names) + 1)) if ends else set()
        else:
            ends = {at + 1 for at in ends if at < len(names) and word in ("*", names[at])}
    return len(names) in ends


def _tagged(
    record: Mapping[str, Any], patterns: Mapping[str, Sequence[str]], root: str, path: str, aliases: tuple[str, ...]
) -> Iterator[TaggedEntity]:
    """Walk a record whose named types are resolved; *path*, *aliases*: of the field that holds it."""
    full = str(record["name"])
    tags = {*_texts(record.get(_INLINE)), *_by_pattern(patterns, {full})}
    yield TaggedEntity(path=path, record=True, aliases=aliases, tags=tuple(sorted(tags)))
    for field in record["fields"]:
        name = field["name"]
        inner, former = _below(path, name), tuple(_below(path, alias) for alias in field.get("aliases", ()))
        names = {inner} | {_below(owner, inner) for owner in (root, _short(root))}
        names |= {_below(owner, name) for owner in (full, _short(full))}
        tags = {tag for word in _FIELD_TAGS for tag in _texts(field.get(word))} | {*_by_pattern(patterns, names)}
        yield TaggedEntity(path=inner, record=False, aliases=former, tags=tuple(sorted(tags)))
        for one in _records(field["type"]):
            yield from _tagged(one, patterns, root, inner, former)


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


def _entities(node: Any, namespace: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return (path, type, node) of each record and field that a schema's own JSON defines."""
    if isinstance(node, list):
        for branch in node:
            yield from _entities(branch, namespace)
    if not isinstance(node, dict):
        return
    if node.get("type") in ("record", "error"):
        name = node["name"]
        outer = node.get("namespace", namespace) or ""
        full = name if "." in name else _below(outer, name)
        yield full, "sr_record", node
        for field in node["fields"]:
            yield f"{full}.{field['name']}", "sr_field", field
            yield from _entities(field["type"], full.rpartition(".")[0])
        return
    for key in ("type", "items", "values"):
        if isinstance(node.get(key), dict | list):
            yield from _entities(node[key], namespace)


def _patterns(metadata: str | None) -> Mapping[str, list[str]]:
    found: Mapping[str, list[str]] = (json.loads(metadata) if metadata else {}).get("tags") or {}
    return found


def _by_pattern(patterns: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    listed = [*names]
    return [
        tag
        for pattern, tags in patterns.items()
        if any(_path_matches(pattern, name) for name in listed)
        for tag in tags
    ]


def _below(outer: str, name: str) -> str:
    return f"{outer}.{name}" if outer else name


def _short(full: str) -> str:
    return full.rpartition(".")[2]


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

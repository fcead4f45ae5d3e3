"""Response bodies: versions, contents and their tags as Confluent's clients read them. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from registry.avro.schema_types import SchemaType
from registry.subjects.content_json import content_json
from registry.subjects.data_contracts import path_matches
from registry.subjects.model import Content
from registry.subjects.versions import RegisteredVersion

__all__ = ["page", "registration_json", "tags_of", "version_json"]


_T = TypeVar("_T")


def version_json(found: RegisteredVersion, *, details: bool = False) -> dict[str, Any]:
    """Return a version with its content.

    Args:
        found: the version.
        details: also what Confluent's older clients do not know, and fail on.
    """
    answer = {"subject": found.subject, "version": found.number, "id": found.schema_id} | content_json(found.content)
    if details:
        answer["guid"] = found.guid
        if found.deleted:
            answer["deleted"] = True
    return answer


def registration_json(found: RegisteredVersion) -> dict[str, Any]:
    """Return what a registration answers beside the id; the schema is unchanged, so the caller has it."""
    answer = content_json(found.content) | {"version": found.number, "guid": found.guid}
    del answer["schema"]
    return answer


def page(items: list[_T], offset: int, limit: int) -> list[_T]:
    """Return a page of a list; a negative limit means the rest."""
    start = max(offset, 0)
    return items[start:] if limit < 0 else items[start : start + limit]


def tags_of(content: Content, wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records and fields of an Avro schema that carry one of the tags wanted, `*` = any.

    Tags stand in the schema (`confluent:tags`) or in its metadata, by the path of the field.
    """
    if content.schema_type != SchemaType.AVRO:
        return []
    sought = set(wanted)
    beside: Mapping[str, list[str]] = (json.loads(content.metadata) if content.metadata else {}).get("tags") or {}
    found = []
    for path, kind, inline in _tagged(json.loads(content.text), ""):
        outer = [tag for pattern, tags in beside.items() if path_matches(pattern, path) for tag in tags]
        tags = list(dict.fromkeys([*inline, *outer]))
        if tags and ("*" in sought or sought & set(tags)):
            found.append({"schemaEntity": {"entityPath": path, "entityType": kind}, "tags": tags})
    return found


def _tagged(node: Any, namespace: str) -> Iterator[tuple[str, str, list[str]]]:
    if isinstance(node, list):
        for branch in node:
            yield from _tagged(branch, namespace)
    if not isinstance(node, dict):
        return
    if node.get("type") in ("record", "error"):
        name = node["name"]
        outer = node.get("namespace", namespace) or ""
        full = name if "." in name or not outer else f"{outer}.{name}"
        yield full, "sr_record", _texts(node.get("confluent:tags"))
        for field in node["fields"]:
            yield f"{full}.{field['name']}", "sr_field", _texts(field.get("confluent:tags"))
            yield from _tagged(field["type"], full.rpartition(".")[0])
        return
    for key in ("type", "items", "values"):
        if isinstance(node.get(key), dict | list):
            yield from _tagged(node[key], namespace)


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

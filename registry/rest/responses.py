"""Response bodies: versions and contents as Confluent's clients read them. Pure."""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from registry.avro.schema_types import SchemaType
from registry.governance.tags import find_tags
from registry.subjects.content_json import content_json
from registry.subjects.model import Content
from registry.subjects.versions import RegisteredVersion

__all__ = ["MAX_PAGE", "page", "registration_json", "tags_of", "version_json"]


MAX_PAGE: Final = 20_000
"""Items of a page, as in Confluent's registry (`subject.search.default.limit`)."""
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
    """Return a page of a list; a negative limit means the rest, and no page has more than MAX_PAGE items."""
    start = max(offset, 0)
    return items[start : start + (MAX_PAGE if limit < 0 else min(limit, MAX_PAGE))]


def tags_of(content: Content, wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Return where a schema has one of the tags wanted, `*` = any; nowhere for another type than Avro."""
    is_avro = content.schema_type == SchemaType.AVRO
    return find_tags(content.text, content.metadata, wanted) if is_avro else []

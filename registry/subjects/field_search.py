"""Field search: fields with a tag, a level or a direct identifier, over the latest version of every subject.

The fields of a schema id never change, so they are read once for each id and cached; a search then iterates over the
list of subjects. Tags are found inline and in the metadata (`registry.governance.tags`).
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from registry.avro.fields import all_fields, resolved_json
from registry.avro.parser import ParsedSchema
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader
from registry.governance import classification
from registry.governance.tags import tagged_entities
from registry.subjects import contexts
from registry.subjects.lookup import SchemaLookup
from schemas.access import Level
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["FieldMatch", "FieldQuery", "FieldSearch", "describe_fields"]

_CACHED_IDS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldQuery:
    """Search criteria; None does not restrict.

    Attributes:
        tag: a tag that the field has. personal: N, P or D. sensitive: N, s or S. mask: its rule.
        level: the lowest one. prefix: of the subject's name; by default every context.
    """

    tag: str | None = None
    personal: str | None = None
    sensitive: str | None = None
    mask: str | None = None
    level: Level | None = None
    prefix: str = contexts.ALL_CONTEXTS

    @classmethod
    def parse(cls, level: str | None = None, **words: Any) -> "FieldQuery":
        """Parse the criteria of a request.

        Raises:
            InvalidError: REQUEST_INVALID, a word that is not in the vocabulary.
        """
        for name, vocabulary in (
            ("personal", classification.PERSONAL),
            ("sensitive", classification.SENSITIVE),
            ("mask", classification.MASKS),
        ):
            if words.get(name) is not None and words[name] not in vocabulary:
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"got {str(words[name])[:40]!r} for {name}; expected one of {', '.join(vocabulary)}",
                )
        if level is not None and level not in Level.__members__:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got the level {level[:40]!r}; expected one of {', '.join(Level.__members__)}"
            )
        return cls(level=None if level is None else Level[level], **words)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMatch:
    """Field as a search result; level, personal, sensitive and mask are "" if it is not classified."""

    path: str
    zh: str
    level: str
    personal: str
    sensitive: str
    mask: str
    tags: tuple[str, ...]

    def matches(self, query: FieldQuery) -> bool:
        """Return whether it meets the criteria of a query."""
        return (
            (query.tag is None or query.tag in self.tags)
            and query.personal in (None, self.personal)
            and query.sensitive in (None, self.sensitive)
            and query.mask in (None, self.mask)
            and (query.level is None or (self.level != "" and Level[self.level] >= query.level))
        )

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "field": self.path,
            "zh": self.zh,
            "level": self.level,
            "personal": self.personal,
            "sensitive": self.sensitive,
            "mask": self.mask,
            "tags": list(self.tags),
        }


class FieldSearch:
    """Service that searches fields, with a cache of the fields of schema ids. Thread-safe.

    Args:
        lookup: finds schemas.
    """

    def __init__(self, lookup: SchemaLookup) -> None:
        self._lookup = lookup
        self._cache: dict[int, tuple[FieldMatch, ...]] = {}
        self._lock = threading.Lock()

    def find(self, reader: Reader, query: FieldQuery) -> Iterator[tuple[str, int, int, FieldMatch]]:
        """Return (subject, version, id, field) of the latest versions, by subject and in the schema's order."""
        for version in self._lookup.all_versions(reader, query.prefix, latest_only=True):
            for field in self._fields(reader, version.schema_id):
                if field.matches(query):
                    yield version.subject, version.number, version.schema_id, field

    def _fields(self, reader: Reader, schema_id: int) -> tuple[FieldMatch, ...]:
        cached = self._cache.get(schema_id)
        if cached is not None:
            return cached
        content = self._lookup.by_id(reader, schema_id).content
        found: tuple[FieldMatch, ...] = ()
        if content.schema_type == SchemaType.AVRO:
            found = describe_fields(self._lookup.parsed_for_comparison(reader, schema_id), content.metadata)
        with self._lock:
            if len(self._cache) >= _CACHED_IDS:
                self._cache.clear()
            self._cache[schema_id] = found
        return found


def describe_fields(parsed: ParsedSchema, metadata: str | None = None) -> tuple[FieldMatch, ...]:
    """Return the fields of a schema with their classification and tags."""
    classified = {field.path: field for field in classification.read_classification(resolved_json(parsed))[0]}
    tags: dict[str, set[str]] = {}
    for entity in tagged_entities(parsed, metadata):
        if not entity.record:
            tags.setdefault(entity.path, set()).update(entity.tags)
    found = []
    for member in all_fields(parsed):
        known = classified.get(member.path)
        found.append(
            FieldMatch(
                path=member.path,
                zh=str(member.node.get("zh", "")),
                level=known.level.name if known else "",
                personal=known.personal if known else "",
                sensitive=known.sensitive if known else "",
                mask=known.mask if known else "",
                tags=tuple(sorted(tags[member.path])),
            )
        )
    return tuple(found)

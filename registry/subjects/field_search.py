"""Field search: the fields with a tag, a level or a direct identifier, in the latest version of every subject.

The fields of a schema never change, so they are read once for each id and cached; a search then iterates over the list
of subjects. Tags are Confluent's, and a field may have them in two ways: inline (`"confluent:tags": ["PII"]`), or by a
path pattern in the metadata (`{"tags": {"**.ssn": ["PII"]}}`), where `*` is one name and `**` any number of them.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.avro.fields import all_fields, resolved_json
from registry.avro.parser import ParsedSchema
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader
from registry.governance import classification
from registry.subjects import contexts
from registry.subjects.data_contracts import path_matches
from registry.subjects.lookup import SchemaLookup
from schemas.access import Level
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["FieldMatch", "FieldQuery", "FieldSearch", "describe_fields"]

_CACHE_SIZE = 20_000  # ids whose fields are cached
_INLINE = ("confluent:tags", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldQuery:
    """A query; None does not restrict.

    Attributes:
        tag: a tag that the field has. personal: N, P or D. sensitive: N, s or S. mask: its rule.
        level: at least this one. prefix: of the subject's name; every context if not given.
    """

    tag: str | None = None
    personal: str | None = None
    sensitive: str | None = None
    mask: str | None = None
    level: Level | None = None
    prefix: str = contexts.EVERY

    @classmethod
    def read(cls, level: str | None = None, **values: Any) -> "FieldQuery":
        """Read a query's parameters.

        Raises:
            InvalidError: REQUEST_INVALID, a value outside the vocabulary.
        """
        for name, known in (
            ("personal", classification.PERSONAL),
            ("sensitive", classification.SENSITIVE),
            ("mask", classification.MASKS),
        ):
            if values.get(name) is not None and values[name] not in known:
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"got {str(values[name])[:40]!r} for {name}; expected one of {', '.join(known)}",
                )
        if level is not None and level not in Level.__members__:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got the level {level[:40]!r}; expected one of {', '.join(Level.__members__)}"
            )
        return cls(level=None if level is None else Level[level], **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMatch:
    """One field; level, personal, sensitive and mask are "" where it is not classified."""

    path: str
    zh: str
    level: str
    personal: str
    sensitive: str
    mask: str
    tags: tuple[str, ...]

    def matches(self, query: FieldQuery) -> bool:
        """Return whether it matches a query."""
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
    """Searches the fields of registered schemas. Thread-safe.

    Args:
        lookup: finds the schemas.
    """

    def __init__(self, lookup: SchemaLookup) -> None:
        self._lookup = lookup
        self._cached: dict[int, tuple[FieldMatch, ...]] = {}
        self._lock = threading.Lock()

    def find(self, reader: Reader, query: FieldQuery) -> Iterator[tuple[str, int, int, FieldMatch]]:
        """Return (subject, version, id, field) of the latest versions, by subject and in the schema's order."""
        for version in self._lookup.all_versions(reader, query.prefix, latest_only=True):
            for field in self._fields_of(reader, version.schema_id):
                if field.matches(query):
                    yield version.subject, version.number, version.schema_id, field

    def _fields_of(self, reader: Reader, schema_id: int) -> tuple[FieldMatch, ...]:
        cached = self._cached.get(schema_id)
        if cached is not None:
            return cached
        content = self._lookup.by_id(reader, schema_id).content
        found: tuple[FieldMatch, ...] = ()
        if content.kind == SchemaType.AVRO:
            found = describe_fields(self._lookup.parsed_for_comparison(reader, schema_id), content.metadata)
        with self._lock:
            if len(self._cached) >= _CACHE_SIZE:
                self._cached.clear()
            self._cached[schema_id] = found
        return found


def describe_fields(parsed: ParsedSchema, metadata: str | None = None) -> tuple[FieldMatch, ...]:
    """Return a schema's fields, with classification and tags."""
    classified = {field.path: field for field in classification.read_classification(resolved_json(parsed))[0]}
    patterns: Mapping[str, list[str]] = (json.loads(metadata).get("tags") or {}) if metadata else {}
    short = parsed.fullname.rpartition(".")[2]
    found = []
    for member in all_fields(parsed):
        known = classified.get(member.path)
        names = {member.path, f"{parsed.fullname}.{member.path}", f"{short}.{member.path}"}
        tags = {str(tag) for word in _INLINE for tag in _listed(member.node.get(word))}
        for pattern, listed in patterns.items():
            if any(path_matches(pattern, name) for name in names):
                tags.update(map(str, listed))
        found.append(
            FieldMatch(
                path=member.path,
                zh=str(member.node.get("zh", "")),
                level=known.level.name if known else "",
                personal=known.personal if known else "",
                sensitive=known.sensitive if known else "",
                mask=known.mask if known else "",
                tags=tuple(sorted(tags)),
            )
        )
    return tuple(found)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

"""Schema lookup: by id (cached), by GUID, by subject and version.

Lookup by content is in `registry.subjects.registration`, since it reads a submission by the same rules.

An id belongs to a content, not to a subject: the same content under two subjects has one id, and it has the same one
after every deletion, re-registration and restore. So the id in a record's frame never comes to identify another schema,
and it remains readable by id after its last version was deleted: records outlive registrations.

Views. The records that a grant delivers are framed with a schema of their own, under the subject `view.<grant>.v<n>`.
Those subjects are not listed, have one version each, and are not compared. Only `Registration.register_view` creates
them.
"""

import threading
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from registry.avro.fields import resolved_json
from registry.avro.inlining import inline_references
from registry.avro.name_resolution import MAX_TEXT_BYTES, schema_invalid, schema_unsafe
from registry.avro.parser import ParsedSchema, parse
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.governance import classification
from registry.governance.classification import ClassifiedField
from registry.subjects import contexts
from registry.subjects.data_contracts import properties_of
from registry.subjects.model import SchemaReference, StoredSchema, StoredVersion
from registry.subjects.store import SubjectReader
from registry.subjects.versions import RegisteredVersion, select_version, unknown_subject, with_text
from schemas.errors import InvalidError, Reason

__all__ = ["MAX_REFERENCES", "SchemaLookup"]

_T = TypeVar("_T")
MAX_REFERENCES = 200  # of a schema and of those that it needs, together
_CACHED_SCHEMAS = 10_000  # they never change
_CACHED_TEXTS = 2_000  # of schemas with their references inlined


class _CommittedCache(Generic[_T]):
    """Cache by id of what is committed. Thread-safe.

    What a unit of work reads may be its own, and never be committed: its id could then come to stand for something
    else. So it is cached for that unit of work alone, and for all once it is committed.

    Args:
        most: entries; beyond it the cache begins again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._committed: dict[int, _T] = {}
        self._uncommitted: WeakKeyDictionary[UnitOfWork, dict[int, _T]] = WeakKeyDictionary()

    def get(self, reader: Reader, schema_id: int) -> _T | None:
        """Return what is cached for an id, as a reader may see it."""
        found = self._committed.get(schema_id)
        if found is None and isinstance(reader, UnitOfWork):
            with self._lock:
                return self._uncommitted.get(reader, {}).get(schema_id)
        return found

    def put(self, reader: Reader, schema_id: int, value: _T) -> None:
        """Cache what a reader has read."""
        if not isinstance(reader, UnitOfWork):
            self._add({schema_id: value})
            return
        with self._lock:
            first = reader not in self._uncommitted
            values = self._uncommitted.setdefault(reader, {})
            values[schema_id] = value
        if first:
            reader.on_commit(partial(self._add, values))

    def _add(self, values: Mapping[int, _T]) -> None:
        with self._lock:
            if len(self._committed) + len(values) > self._most:
                self._committed.clear()
            self._committed.update(values)


class SchemaLookup:
    """Service that finds schemas and versions, with a cache of schemas by id. Thread-safe.

    Args:
        store: of subjects.
    """

    def __init__(self, store: SubjectReader) -> None:
        self._store = store
        self._schemas: _CommittedCache[StoredSchema] = _CommittedCache(_CACHED_SCHEMAS)
        self._inlined_texts: _CommittedCache[str] = _CommittedCache(_CACHED_TEXTS)

    # --- by id -------------------------------------------------------------------------------------------------

    def by_id(self, reader: Reader, schema_id: int) -> StoredSchema:
        """Return the schema of an id, with the text first submitted for it.

        Raises:
            InvalidError: SCHEMA_UNKNOWN, for an id that was never assigned.
        """
        cached = self._schemas.get(reader, schema_id)
        if cached is not None:
            return cached
        schema = self._store.schema(reader, schema_id) if 0 < schema_id < 2**31 else None
        if schema is None:
            raise InvalidError(
                Reason.SCHEMA_UNKNOWN, f"no schema has the id {schema_id}", details={"schema": str(schema_id)}
            )
        self._schemas.put(reader, schema_id, schema)
        return schema

    def by_guid(self, reader: Reader, guid: str) -> StoredSchema:
        """Return the schema of a GUID.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        try:
            schema = self._store.schema_by_guid(reader, uuid.UUID(guid).bytes)
        except ValueError:
            schema = None
        if schema is None:
            raise InvalidError(Reason.SCHEMA_UNKNOWN, "no schema has this GUID", details={"schema": guid[:40]})
        return schema

    def highest_id(self, reader: Reader) -> int:
        """Return the highest id of a schema; 0 without any."""
        return self._store.highest_id(reader)

    def parsed_by_id(self, reader: Reader, schema_id: int) -> ParsedSchema:
        """Return the parsed schema of an id, its references inlined, to read or write records with.

        Raises:
            InvalidError: SCHEMA_UNKNOWN; SCHEMA_INVALID, for a schema that is not Avro; SCHEMA_UNSAFE, for one that
                is infinitely recursive.
        """
        return self._parsed(reader, schema_id)

    def parsed_for_comparison(self, reader: Reader, schema_id: int) -> ParsedSchema:
        """Return the parsed schema of an id, to search and compare it; it may be infinitely recursive.

        Raises:
            InvalidError: SCHEMA_UNKNOWN; SCHEMA_INVALID, for a schema that is not Avro.
        """
        return self._parsed(reader, schema_id, allow_non_terminating=True)

    def inlined_text(self, reader: Reader, schema_id: int) -> str:
        """Return the text of an id with its references inlined.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        cached = self._inlined_texts.get(reader, schema_id)
        if cached is not None:
            return cached
        content = self.by_id(reader, schema_id).content
        if not content.references or content.schema_type != SchemaType.AVRO:
            return content.text
        text = inline_references(content.text, self.reference_texts(reader, content.references))
        self._inlined_texts.put(reader, schema_id, text)
        return text

    def _parsed(self, reader: Reader, schema_id: int, *, allow_non_terminating: bool = False) -> ParsedSchema:
        content = self.by_id(reader, schema_id).content
        if content.schema_type != SchemaType.AVRO:
            raise schema_invalid(f"the schema {schema_id} is of the type {content.schema_type}; expected AVRO")
        text = self.inlined_text(reader, schema_id)
        try:
            return parse(text, allow_non_terminating=allow_non_terminating)
        except InvalidError:  # registered under a subject that does not validate new schemas
            return parse(text, strict=False, allow_non_terminating=allow_non_terminating)

    def reference_texts(self, reader: Reader, references: tuple[SchemaReference, ...]) -> tuple[str, ...]:
        """Return the texts of all referenced schemas, directly or indirectly, each before those that need it.

        Raises:
            InvalidError: SCHEMA_INVALID, for a reference to another type than Avro; SCHEMA_UNSAFE, for too many.
        """
        order: dict[int, str] = {}
        size = 0
        todo = [(item.schema_id, False) for item in reversed(references)]
        while todo:
            schema_id, expanded = todo.pop()
            if schema_id in order:
                continue
            content = self.by_id(reader, schema_id).content
            if content.schema_type != SchemaType.AVRO:
                raise schema_invalid(f"got a reference to a schema of the type {content.schema_type}; expected AVRO")
            if expanded:
                order[schema_id] = content.text
                size += len(content.text)
                if len(order) > MAX_REFERENCES or size > MAX_TEXT_BYTES:
                    raise schema_unsafe(
                        f"got a schema that needs more than {MAX_REFERENCES} others, or {MAX_TEXT_BYTES} "
                        "characters of them; expected fewer"
                    )
            else:
                todo.append((schema_id, True))
                todo += [(item.schema_id, False) for item in reversed(content.references)]
        return tuple(order.values())

    def referenced_subjects(self, reader: Reader, references: Iterable[SchemaReference]) -> list[str]:
        """Return the subjects that references name, directly or indirectly, sorted."""
        seen: set[int] = set()
        names: set[str] = set()
        todo = [*references]
        while todo:
            item = todo.pop()
            names.add(item.subject)
            if item.schema_id not in seen:  # by id: two versions of a subject may have different references
                seen.add(item.schema_id)
                todo += self.by_id(reader, item.schema_id).content.references
        return sorted(names)

    def versions_by_schema_id(self, reader: Reader, schema_id: int, *, deleted: bool = False) -> list[StoredVersion]:
        """Return the versions that have a schema's id, by subject and number.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        self.by_id(reader, schema_id)
        return [
            version
            for version in self._store.versions_by_schema_id(reader, schema_id)
            if deleted or not version.deleted
        ]

    # --- by subject --------------------------------------------------------------------------------------------

    def version(self, reader: Reader, subject: str, number: int | None, *, deleted: bool = False) -> RegisteredVersion:
        """Return a version with its content and its own text.

        Args:
            reader: to read with.
            subject: of the version.
            number: from 1; None = the latest that is not deleted.
            deleted: also find softly deleted ones.

        Raises:
            InvalidError: SUBJECT_UNKNOWN or VERSION_UNKNOWN.
        """
        found = self._store.version(reader, subject, number) if number is not None or not deleted else None
        if found is not None and (deleted or not found[0].deleted):
            version, text = found
            return RegisteredVersion.of(version, with_text(self.by_id(reader, version.schema_id).content, text))
        return self._load(reader, select_version(self.stored_versions(reader, subject, deleted=deleted), number))

    def version_numbers(
        self, reader: Reader, subject: str, *, deleted: bool = False, deleted_only: bool = False
    ) -> list[int]:
        """Return a subject's version numbers in ascending order.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        return [
            item.number for item in self.stored_versions(reader, subject, deleted=deleted, deleted_only=deleted_only)
        ]

    def stored_versions(
        self, reader: Reader, subject: str, *, deleted: bool = False, deleted_only: bool = False
    ) -> list[StoredVersion]:
        """Return a subject's versions in ascending order.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        found = [
            version
            for version in self._store.versions(reader, subject)
            if deleted or deleted_only or not version.deleted
        ]
        if not found:
            raise unknown_subject(subject)
        return [version for version in found if version.deleted or not deleted_only]

    def subjects(
        self, reader: Reader, prefix: str = contexts.ALL_CONTEXTS, *, deleted: bool = False, deleted_only: bool = False
    ) -> list[str]:
        """Return the names of subjects that have versions, sorted, without views."""
        return [
            name
            for name, live in self._store.subjects(reader)
            if contexts.matches(name, prefix) and (not live if deleted_only else live or deleted)
        ]

    def context_names(self, reader: Reader) -> list[str]:
        """Return the contexts that have subjects, and the default one, sorted."""
        return sorted({contexts.DEFAULT, *(contexts.split(name).context for name, _ in self._store.subjects(reader))})

    def all_versions(
        self, reader: Reader, prefix: str = contexts.ALL_CONTEXTS, *, deleted: bool = False, latest_only: bool = False
    ) -> list[StoredVersion]:
        """Return every version of the subjects that match a prefix, by subject and number."""
        found = [
            item
            for item in self._store.all_versions(reader)
            if (deleted or not item.deleted) and contexts.matches(item.subject, prefix)
        ]
        if not latest_only:
            return found
        return list({item.subject: item for item in found}.values())

    def with_texts(self, reader: Reader, versions: Iterable[StoredVersion]) -> list[RegisteredVersion]:
        """Return versions with their contents and their own texts."""
        return [self._load(reader, version) for version in versions]

    def referrer_ids(self, reader: Reader, subject: str, number: int, *, deleted: bool = False) -> list[int]:
        """Return the ids of schemas that refer to a version, ascending."""
        found = self._store.referrers(reader, subject, number)
        return sorted({item.schema_id for item in found if deleted or not item.deleted})

    def version_with_properties(
        self, reader: Reader, subject: str, wanted: Mapping[str, str], *, deleted: bool = False
    ) -> RegisteredVersion:
        """Return the latest version whose metadata has these properties.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN, when no version has them.
        """
        for version in reversed(self.stored_versions(reader, subject, deleted=deleted)):
            found = properties_of(self.by_id(reader, version.schema_id).content.metadata)
            if wanted.items() <= found.items():
                return self._load(reader, version)
        raise InvalidError(
            Reason.VERSION_UNKNOWN, "no version's metadata has these properties", details={"version": "latest"}
        )

    # --- classification ----------------------------------------------------------------------------------------

    def classification(self, reader: Reader, subject: str, number: int | None = None) -> list[ClassifiedField]:
        """Return the classification of every field of a version; None = the latest.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN; SCHEMA_UNCLASSIFIED; SCHEMA_UNSAFE, no record can have it.
        """
        parsed = self.parsed_by_id(reader, self.version(reader, subject, number).schema_id)
        return classification.require_classification(resolved_json(parsed) if parsed.fullname else parsed.json)

    def full_classification(self, reader: Reader, subject: str) -> list[ClassifiedField]:
        """Return the classification of the fields of every live version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNCLASSIFIED, when a version is incomplete; SCHEMA_UNSAFE, when no
                record can have one of them: such a resource is not published.
        """
        numbers = self.version_numbers(reader, subject)
        return [field for number in numbers for field in self.classification(reader, subject, number)]

    def require_subject(self, reader: Reader, subject: str, *, deleted: bool) -> None:
        """Check that a subject has versions.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        if self._store.version(reader, subject, None) is None:
            self.stored_versions(reader, subject, deleted=deleted)

    def _load(self, reader: Reader, version: StoredVersion) -> RegisteredVersion:
        content = self.by_id(reader, version.schema_id).content
        text = self._store.version_text(reader, version.subject, version.number)
        return RegisteredVersion.of(version, content if text is None else with_text(content, text))

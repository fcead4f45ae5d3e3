"""In-memory adapter of the store of subjects: the same contract as the PostgreSQL adapter, for tests.

One lock over everything gives serializable isolation; a rolled-back change restores a copy made before it. Ids that
were assigned in a rolled-back change are assigned again to the next content.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.subjects.model import Content, Settings, StoredSchema, StoredVersion
from registry.subjects.store import SubjectChange, SubjectReader, SubjectWriter, require_same_content
from schemas.errors import ConflictError, Reason

__all__ = ["MemorySubjects"]


class _State:
    """State of the store: what the tables hold in PostgreSQL."""

    def __init__(self) -> None:
        self.schemas: dict[int, StoredSchema] = {}
        self.last_id = 0
        self.ids: dict[bytes, int] = {}
        self.versions: dict[str, dict[int, tuple[StoredVersion, str]]] = {}
        self.settings: dict[str, Settings] = {}
        self.hidden: set[str] = set()

    def copy(self) -> "_State":
        """Return a copy, for a rollback."""
        copied = _State()
        copied.schemas, copied.last_id, copied.ids = dict(self.schemas), self.last_id, dict(self.ids)
        copied.versions = {name: dict(versions) for name, versions in self.versions.items()}
        copied.settings, copied.hidden = dict(self.settings), set(self.hidden)
        return copied

    def ordered(self, subject: str) -> list[StoredVersion]:
        """Return a subject's versions in ascending order."""
        versions = self.versions.get(subject, {})
        return [versions[number][0] for number in sorted(versions)]


class MemorySubjects(SubjectReader, SubjectWriter):
    """Subjects, schemas, versions and settings in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._state = _State()

    @contextmanager
    @override
    def change(
        self,
        work: UnitOfWork,
        subject: str,
        *,
        hidden: bool = False,
        scopes: Sequence[str] = (),
        also: Sequence[str] = (),
    ) -> Iterator["_Change"]:
        del also  # one lock covers everything
        with self._lock:
            state = self._state
            before = state.copy()
            on_rollback(work, lambda: self._restore(before))
            if subject not in state.versions and hidden:
                state.hidden.add(subject)
            yield _Change(state, subject, {name: state.settings[name] for name in scopes if name in state.settings})

    def _restore(self, state: _State) -> None:
        with self._lock:
            self._state = state

    @override
    def schema(self, reader: Reader, schema_id: int) -> StoredSchema | None:
        with self._lock:
            return self._state.schemas.get(schema_id)

    @override
    def schema_by_guid(self, reader: Reader, prefix: bytes) -> StoredSchema | None:
        with self._lock:
            return next((found for found in self._state.schemas.values() if found.key.startswith(prefix)), None)

    @override
    def highest_id(self, reader: Reader) -> int:
        with self._lock:
            return max(self._state.schemas, default=0)

    @override
    def version(self, reader: Reader, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        with self._lock:
            found = self._state.versions.get(subject, {})
            live = [key for key, (version, _) in found.items() if not version.deleted]
            wanted = max(live, default=0) if number is None else number
            return found.get(wanted)

    @override
    def all_versions(self, reader: Reader) -> list[StoredVersion]:
        with self._lock:
            names = sorted(set(self._state.versions) - self._state.hidden)
            return [version for name in names for version in self._state.ordered(name)]

    @override
    def referrers(self, reader: Reader, subject: str, number: int | None = None) -> list[StoredVersion]:
        with self._lock:
            referring = {
                schema.id
                for schema in self._state.schemas.values()
                for item in schema.content.references
                if item.subject == subject and number in (None, item.version)
            }
            return [
                version
                for name in sorted(self._state.versions)
                for version in self._state.ordered(name)
                if version.schema_id in referring
            ]

    @override
    def versions_by_fingerprint(
        self, reader: Reader, subject: str, fingerprint: bytes
    ) -> list[tuple[StoredVersion, str]]:
        with self._lock:
            versions = self._state.versions.get(subject, {})
            return [versions[number] for number in sorted(versions) if versions[number][0].fingerprint == fingerprint]

    @override
    def versions(self, reader: Reader, subject: str) -> list[StoredVersion]:
        with self._lock:
            return self._state.ordered(subject)

    @override
    def version_text(self, reader: Reader, subject: str, number: int) -> str | None:
        with self._lock:
            version = self._state.versions.get(subject, {}).get(number)
            return version[1] if version else None

    @override
    def versions_by_schema_id(self, reader: Reader, schema_id: int) -> list[StoredVersion]:
        with self._lock:
            return [
                version
                for subject in sorted(self._state.versions)
                for version in self.versions(reader, subject)
                if version.schema_id == schema_id
            ]

    @override
    def subjects(self, reader: Reader) -> list[tuple[str, bool]]:
        with self._lock:
            return [
                (subject, any(not version.deleted for version, _ in versions.values()))
                for subject, versions in sorted(self._state.versions.items())
                if versions and subject not in self._state.hidden
            ]

    @override
    def settings(self, reader: Reader, subject: str) -> Settings:
        with self._lock:
            return self._state.settings.get(subject, Settings())

    @override
    def settings_of(self, reader: Reader, names: Sequence[str]) -> Mapping[str, Settings]:
        with self._lock:
            return {name: self._state.settings[name] for name in names if name in self._state.settings}

    @override
    def all_settings(self, reader: Reader) -> Mapping[str, Settings]:
        with self._lock:
            return {name: found for name, found in self._state.settings.items() if found != Settings()}

    @override
    def configurations(self, reader: Reader) -> Mapping[str, Settings]:
        return {name: found for name, found in self.all_settings(reader).items() if found.config is not None}


class _Change(SubjectChange):
    def __init__(self, state: _State, subject: str, scopes: Mapping[str, Settings]) -> None:
        self._state = state
        self._subject = subject
        self._scopes = scopes
        self._versions = state.versions.setdefault(subject, {})

    def versions(self) -> list[StoredVersion]:
        return self._state.ordered(self._subject)

    def settings(self) -> Settings:
        return self._state.settings.get(self._subject, Settings())

    def scope_settings(self) -> Mapping[str, Settings]:
        return self._scopes

    def import_content(self, schema_id: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        stored = self._state.schemas.get(schema_id)
        if stored is not None:
            require_same_content(stored, key)
            return stored
        self._state.last_id = max(self._state.last_id, schema_id)
        return self._store(schema_id, key, fingerprint, content)

    def add_content(self, number: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        state = self._state
        if key not in state.ids:
            state.last_id += 1
            schema = self._store(state.last_id, key, fingerprint, content)
        else:
            schema = state.schemas[state.ids[key]]
        self.add_version(number, schema, content.text)
        return schema

    def _store(self, schema_id: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        schema = StoredSchema(id=schema_id, key=key, fingerprint=fingerprint, content=content, origin=self._subject)
        self._state.schemas[schema_id] = schema
        self._state.ids.setdefault(key, schema_id)
        return schema

    def add_version(self, number: int, schema: StoredSchema, text: str) -> None:
        if number in self._versions:
            raise ConflictError(
                Reason.VERSION_CONFLICT, f"version {number} of the subject exists; read its versions again"
            )
        version = StoredVersion(
            subject=self._subject,
            number=number,
            schema_id=schema.id,
            key=schema.key,
            fingerprint=schema.fingerprint,
            deleted=False,
        )
        self._versions[number] = (version, text)

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            version, text = self._versions[number]
            self._versions[number] = (replace(version, deleted=True), text)

    def purge(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self._versions[number]

    def configure(self, settings: Settings) -> None:
        self._state.settings[self._subject] = settings

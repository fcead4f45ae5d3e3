"""Transactional outbox: each change of the registry also writes the records for a topic of schemas.

    change ──┬── registry's tables      one transaction
             └── outbox ── topic        later, in order, at least once

A record is stored if and only if its change is. The records of a subject are in the order of its changes, since the
subject is locked while they are numbered; records of two subjects have no order. Sending a record twice changes nothing
on a compacted topic.

The records are those of `registry.schemas_topic.records`. A purged version leaves a record that reserves its id, and a
view, which is not listed, has only such a record.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.schemas_topic.records import (
    Record,
    Version,
    config_record,
    mode_record,
    reserved_id,
    schema_key,
    schema_record,
)
from registry.subjects.content_json import content_json
from registry.subjects.model import Content, Settings, StoredSchema, StoredVersion
from registry.subjects.store import SubjectChange, SubjectReader, SubjectWriter

__all__ = ["MemoryOutbox", "Outbox", "OutboxWriter", "snapshot_records"]


class Outbox(Protocol):
    """Port: stores records until they are sent."""

    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        """Add records, in the transaction of the change that they describe."""
        ...

    def pending(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        """Return the oldest records with their numbers."""
        ...

    def remove(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        """Remove records that were sent."""
        ...


class MemoryOutbox(Outbox):
    """In-memory adapter, for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[int, Record] = {}
        self._last_number = 0

    @override
    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        with self._lock:
            before = dict(self._pending)
            on_rollback(work, lambda: self._restore(before))
            for record in records:
                self._last_number += 1
                self._pending[self._last_number] = record

    def _restore(self, pending: dict[int, Record]) -> None:
        with self._lock:
            self._pending = pending

    @override
    def pending(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        with self._lock:
            return sorted(self._pending.items())[:limit]

    @override
    def remove(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        with self._lock:
            before = dict(self._pending)
            on_rollback(work, lambda: self._restore(before))
            for number in numbers:
                self._pending.pop(number, None)


class OutboxWriter(SubjectWriter):
    """Subject writer that also appends the records of each change to an outbox, in the same transaction.

    Args:
        reader, writer: of the store of subjects.
        outbox: in the same database.
    """

    def __init__(self, reader: SubjectReader, writer: SubjectWriter, outbox: Outbox) -> None:
        self._reader = reader
        self._writer = writer
        self._outbox = outbox

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
    ) -> Iterator[SubjectChange]:
        with self._writer.change(work, subject, hidden=hidden, scopes=scopes, also=also) as change:
            recorded = _RecordedChange(change, work, self._reader, subject, hidden=hidden)
            yield recorded
            if recorded.records:
                self._outbox.append(work, recorded.records)


def snapshot_records(store: SubjectReader, reader: Reader) -> Iterator[Record]:
    """Return the whole registry as records, for a topic that is empty.

    The caller locks the tables, so that nothing changes meanwhile.
    """
    for subject, settings in sorted(store.all_settings(reader).items()):
        yield from _settings_records(subject, Settings(), settings)
    with_version: set[int] = set()
    for version in store.all_versions(reader):
        schema = store.schema(reader, version.schema_id)
        text = store.version_text(reader, version.subject, version.number)
        if schema is not None:
            with_version.add(version.schema_id)
            yield schema_record(_version(version, schema.content, text))
    for schema_id in range(1, store.highest_id(reader) + 1):
        schema = None if schema_id in with_version else store.schema(reader, schema_id)
        if schema is not None:
            yield _reserving(schema)


class _RecordedChange(SubjectChange):
    """Change that collects its records."""

    def __init__(
        self, change: SubjectChange, work: UnitOfWork, store: SubjectReader, subject: str, *, hidden: bool
    ) -> None:
        self.records: list[Record] = []
        self._change = change
        self._work = work
        self._store = store
        self._subject = subject
        self._hidden = hidden

    def versions(self) -> list[StoredVersion]:
        return self._change.versions()

    def settings(self) -> Settings:
        return self._change.settings()

    def scope_settings(self) -> Mapping[str, Settings]:
        return self._change.scope_settings()

    def import_content(self, schema_id: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        return self._change.import_content(schema_id, key, shape, content)

    def add_content(self, number: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        schema = self._change.add_content(number, key, shape, content)
        self._append(number, schema, content.text)
        return schema

    def add_version(self, number: int, schema: StoredSchema, text: str) -> None:
        self._change.add_version(number, schema, text)
        self._append(number, schema, text)

    def _append(self, number: int, schema: StoredSchema, text: str) -> None:
        if self._hidden:
            self.records.append(_reserving(schema))
            return
        version = StoredVersion(
            subject=self._subject,
            number=number,
            schema_id=schema.id,
            key=schema.key,
            fingerprint=schema.fingerprint,
            deleted=False,
        )
        self.records.append(schema_record(_version(version, schema.content, text)))

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        chosen = list(numbers)
        self._change.mark_deleted(chosen)
        for number in chosen:
            found = self._store.version(self._work, self._subject, number)
            schema = None if found is None else self._store.schema(self._work, found[0].schema_id)
            if found is not None and schema is not None:
                self.records.append(schema_record(_version(found[0], schema.content, found[1], deleted=True)))

    def purge(self, numbers: Iterable[int]) -> None:
        chosen = set(numbers)
        purged = [version for version in self._change.versions() if version.number in chosen]
        self._change.purge(chosen)
        for version in purged:
            self.records.append(Record(schema_key(self._subject, version.number), None))
            schema = self._store.schema(self._work, version.schema_id)
            if schema is not None:
                self.records.append(_reserving(schema))

    def configure(self, settings: Settings) -> None:
        before = self._change.settings()
        self._change.configure(settings)
        self.records += _settings_records(self._subject, before, settings)


def _settings_records(subject: str, before: Settings, after: Settings) -> Iterator[Record]:
    if before.config != after.config:
        yield config_record(subject, json.loads(after.config) if after.config else None)
    if before.mode != after.mode:
        yield mode_record(subject, after.mode)


def _version(version: StoredVersion, content: Content, text: str | None, *, deleted: bool | None = None) -> Version:
    body = content_json(content)
    del body["schema"]
    return Version(
        subject=version.subject,
        number=version.number,
        schema_id=version.schema_id,
        schema=content.text if text is None else text,
        rest=body,
        deleted=version.deleted if deleted is None else deleted,
    )


def _reserving(schema: StoredSchema) -> Record:
    stored = StoredVersion(
        subject="",
        number=1,
        schema_id=schema.id,
        key=schema.key,
        fingerprint=schema.fingerprint,
        deleted=True,
    )
    return schema_record(reserved_id(schema.id, _version(stored, schema.content, None)))

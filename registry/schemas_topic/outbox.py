"""Transactional outbox: each change of the registry as records, stored in its own transaction, for the schemas topic.

    change ──┬── registry's tables      one transaction
             └── outbox ── topic        later, in order, at least once

A record is stored exactly if its change is: the topic shows nothing that did not happen, and misses nothing that did.
The order of a subject's records is that of its changes, because its lock is held while they are numbered; the records
of two subjects have no order. Sending one twice changes nothing on a compacted topic.

The records are those of `registry.schemas_topic.records`. The id of a purged version stays reserved there, and a view,
which is not listed, appears by its id only.
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
from registry.subjects.store import Change, SubjectReader, SubjectWriter

__all__ = ["MemoryOutbox", "Outbox", "OutboxWriter", "snapshot_records"]


class Outbox(Protocol):
    """Stores records until they are sent."""

    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        """Add records, within the transaction of the change that they describe."""
        ...

    def waiting(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        """Return the oldest records, with their numbers."""
        ...

    def sent(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        """Delete records that are on the topic."""
        ...


class MemoryOutbox(Outbox):
    """In-memory adapter: an outbox for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[int, Record] = {}
        self._last = 0

    @override
    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        with self._lock:
            before = dict(self._records)
            on_rollback(work, lambda: self._restore(before))
            for record in records:
                self._last += 1
                self._records[self._last] = record

    def _restore(self, records: dict[int, Record]) -> None:
        with self._lock:
            self._records = records

    @override
    def waiting(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        with self._lock:
            return sorted(self._records.items())[:limit]

    @override
    def sent(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        with self._lock:
            before = dict(self._records)
            on_rollback(work, lambda: self._restore(before))
            for number in numbers:
                self._records.pop(number, None)


class OutboxWriter(SubjectWriter):
    """A subject writer that also writes each change into an outbox, in the same transaction.

    Args:
        reader, writer: where subjects are stored.
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
    ) -> Iterator[Change]:
        with self._writer.change(work, subject, hidden=hidden, scopes=scopes, also=also) as change:
            recorded = _RecordedChange(change, work, self._reader, subject, hidden=hidden)
            yield recorded
            if recorded.records:
                self._outbox.append(work, recorded.records)


def snapshot_records(store: SubjectReader, reader: Reader) -> Iterator[Record]:
    """Return everything that a registry contains as records, to fill an empty topic.

    Nothing may change meanwhile: the caller has locked the tables.
    """
    for subject, settings in sorted(store.all_settings(reader).items()):
        yield from _settings_records(subject, Settings(), settings)
    listed: set[int] = set()
    for version in store.all_versions(reader):
        schema = store.schema(reader, version.schema_id)
        text = store.text(reader, version.subject, version.number)
        if schema is not None:
            listed.add(version.schema_id)
            yield schema_record(_version(version, schema.content, text))
    for schema_id in range(1, store.highest_id(reader) + 1):
        schema = None if schema_id in listed else store.schema(reader, schema_id)
        if schema is not None:
            yield _reserved(schema)


class _RecordedChange(Change):
    """A change that also builds the records of its effects."""

    def __init__(self, change: Change, work: UnitOfWork, store: SubjectReader, subject: str, *, hidden: bool) -> None:
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

    def scopes(self) -> Mapping[str, Settings]:
        return self._change.scopes()

    def restore(self, schema_id: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        return self._change.restore(schema_id, key, shape, content)

    def put(self, number: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        schema = self._change.put(number, key, shape, content)
        self._record_version(number, schema, content.text)
        return schema

    def add(self, number: int, schema: StoredSchema, text: str) -> None:
        self._change.add(number, schema, text)
        self._record_version(number, schema, text)

    def _record_version(self, number: int, schema: StoredSchema, text: str) -> None:
        if self._hidden:
            self.records.append(_reserved(schema))
            return
        version = StoredVersion(
            subject=self._subject,
            number=number,
            schema_id=schema.id,
            key=schema.key,
            shape=schema.shape,
            deleted=False,
        )
        self.records.append(schema_record(_version(version, schema.content, text)))

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        deleted = list(numbers)
        self._change.mark_deleted(deleted)
        for number in deleted:
            found = self._store.version(self._work, self._subject, number)
            schema = None if found is None else self._store.schema(self._work, found[0].schema_id)
            if found is not None and schema is not None:
                self.records.append(schema_record(_version(found[0], schema.content, found[1], deleted=True)))

    def purge(self, numbers: Iterable[int]) -> None:
        purged = set(numbers)
        versions = [version for version in self._change.versions() if version.number in purged]
        self._change.purge(purged)
        for version in versions:
            self.records.append(Record(schema_key(self._subject, version.number), None))
            schema = self._store.schema(self._work, version.schema_id)
            if schema is not None:
                self.records.append(_reserved(schema))

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


def _reserved(schema: StoredSchema) -> Record:
    stored = StoredVersion(subject="", number=1, schema_id=schema.id, key=schema.key, shape=schema.shape, deleted=True)
    return schema_record(reserved_id(schema.id, _version(stored, schema.content, None)))

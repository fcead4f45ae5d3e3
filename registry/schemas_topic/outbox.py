"""Every change of the registry goes, in its own transaction, into an outbox too; from there onto a topic of schemas.

    change ──┬── registry's tables      one transaction
             └── outbox ── topic        later, in order, at least once

A record is written because the change was, and never without it: nothing is told that did not happen, and nothing that
happened is kept back. The order of a subject's records is that of its changes, for its lock is held while they are
numbered; two subjects owe each other no order. Sending one twice changes nothing on a compacted topic.

The records are those of `registry.schemas_topic.records`. A purged version leaves its id behind there, and a view,
which no list shows, is told by its id alone.
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
    kept_id,
    mode_record,
    schema_key,
    schema_record,
)
from registry.subjects.content_json import content_json
from registry.subjects.model import Content, Settings, StoredSchema, StoredVersion
from registry.subjects.store import Change, SubjectReader, SubjectWriter

__all__ = ["MemoryOutbox", "Outbox", "OutboxWriter", "snapshot_records"]


class Outbox(Protocol):
    """Keeps records until they are sent."""

    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        """Add records, within the transaction of the change that they describe."""
        ...

    def waiting(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        """Return the oldest records with their numbers."""
        ...

    def sent(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        """Forget records that are on the topic."""
        ...


class MemoryOutbox(Outbox):
    """In-memory adapter: an outbox for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Record] = {}
        self._last = 0

    @override
    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        with self._lock:
            before = dict(self._waiting)
            on_rollback(work, lambda: self._restore(before))
            for record in records:
                self._last += 1
                self._waiting[self._last] = record

    def _restore(self, waiting: dict[int, Record]) -> None:
        with self._lock:
            self._waiting = waiting

    @override
    def waiting(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        with self._lock:
            return sorted(self._waiting.items())[:limit]

    @override
    def sent(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        with self._lock:
            before = dict(self._waiting)
            on_rollback(work, lambda: self._restore(before))
            for number in numbers:
                self._waiting.pop(number, None)


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
    """Return everything that a registry holds as records: what a topic that is empty begins with.

    Nothing may change meanwhile; the caller holds the tables.
    """
    for subject, settings in sorted(store.configured(reader).items()):
        yield from _settings_records(subject, Settings(), settings)
    told: set[int] = set()
    for version in store.listed(reader):
        schema = store.schema(reader, version.schema_id)
        text = store.text(reader, version.subject, version.number)
        if schema is not None:
            told.add(version.schema_id)
            yield schema_record(_version(version, schema.content, text))
    for schema_id in range(1, store.highest_id(reader) + 1):
        schema = None if schema_id in told else store.schema(reader, schema_id)
        if schema is not None:
            yield _kept(schema)


class _RecordedChange(Change):
    """A change that records what it does."""

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
        self._note(number, schema, content.text)
        return schema

    def add(self, number: int, schema: StoredSchema, text: str) -> None:
        self._change.add(number, schema, text)
        self._note(number, schema, text)

    def _note(self, number: int, schema: StoredSchema, text: str) -> None:
        if self._hidden:
            self.records.append(_kept(schema))
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
        chosen = list(numbers)
        self._change.mark_deleted(chosen)
        for number in chosen:
            found = self._store.held(self._work, self._subject, number)
            schema = None if found is None else self._store.schema(self._work, found[0].schema_id)
            if found is not None and schema is not None:
                self.records.append(schema_record(_version(found[0], schema.content, found[1], deleted=True)))

    def purge(self, numbers: Iterable[int]) -> None:
        chosen = set(numbers)
        gone = [version for version in self._change.versions() if version.number in chosen]
        self._change.purge(chosen)
        for version in gone:
            self.records.append(Record(schema_key(self._subject, version.number), None))
            schema = self._store.schema(self._work, version.schema_id)
            if schema is not None:
                self.records.append(_kept(schema))

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


def _kept(schema: StoredSchema) -> Record:
    stored = StoredVersion(subject="", number=1, schema_id=schema.id, key=schema.key, shape=schema.shape, deleted=True)
    return schema_record(kept_id(schema.id, _version(stored, schema.content, None)))

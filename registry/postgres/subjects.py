"""PostgreSQL adapter of the subject store: any number of processes assign ids, without a leader.

A registration is one transaction. The subject's row is its lock (`SELECT … FOR UPDATE`), so registrations of one
subject queue, and those of others do not wait. The unique content key decides which transaction assigns an id: of two
with the same new content at the same time, the second waits for the first at the unique index and then reads what it
stored. A transaction takes one subject's lock and then one key, and none with a key waits for a subject: there is no
deadlock.

The transaction is the caller's: an audit entry and the change that it describes become durable together.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from registry.database.prepared_statement import PreparedStatement
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.postgres import statements
from registry.postgres.tables import reference, schema, subject, version
from registry.subjects.model import Content, Reference, Settings, StoredSchema, StoredVersion
from registry.subjects.store import Change, SubjectReader, SubjectWriter, require_same_content
from schemas.errors import ConflictError, Reason, UnavailableError

__all__ = ["PostgresSubjects"]

_ATTEMPTS = 5


class PostgresSubjects(SubjectReader, SubjectWriter):
    """Subjects, schemas, versions and settings in the tables of `registry.postgres.tables`."""

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
        connection = connection_of(work)
        if also:
            connection.execute(statements.LOCK_ALL, {"names": sorted({subject, *also})})
        mine, others = _lock(connection, subject, hidden=hidden, scopes=[one for one in scopes if one != subject])
        yield _Change(connection, subject, mine, others)

    @override
    def schema(self, reader: Reader, schema_id: int) -> StoredSchema | None:
        return self._schema(reader, statements.SCHEMA, {"id": schema_id})

    @override
    def by_guid(self, reader: Reader, prefix: bytes) -> StoredSchema | None:
        return self._schema(
            reader, statements.BY_GUID, {"least": prefix, "most": prefix + b"\xff" * (32 - len(prefix))}
        )

    @override
    def highest_id(self, reader: Reader) -> int:
        return connection_of(reader).execute(sa.select(sa.func.max(schema.c.id))).scalar_one() or 0

    @override
    def version(self, reader: Reader, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        if number is None:
            wanted, values = statements.LATEST, dict[str, Any](name=subject)
        else:
            wanted, values = statements.NUMBERED, {"name": subject, "number": number}
        row = wanted.one_or_none(connection_of(reader), values)
        return None if row is None else (_version(row), row.text)

    @override
    def all_versions(self, reader: Reader) -> list[StoredVersion]:
        return self._versions(reader, statements.LISTED, {})

    @override
    def referrers(self, reader: Reader, subject: str, number: int | None = None) -> list[StoredVersion]:
        return self._versions(reader, statements.REFERRERS, {"name": subject, "number": number})

    @override
    def by_shape(self, reader: Reader, subject: str, shape: bytes) -> list[tuple[StoredVersion, str]]:
        rows = statements.BY_SHAPE.execute(connection_of(reader), {"name": subject, "shape": shape})
        return [(_version(row), row.text) for row in rows]

    @override
    def versions(self, reader: Reader, subject: str) -> list[StoredVersion]:
        return self._versions(reader, statements.VERSIONS, {"name": subject})

    @override
    def text(self, reader: Reader, subject: str, number: int) -> str | None:
        row = statements.TEXT.one_or_none(connection_of(reader), {"name": subject, "number": number})
        return None if row is None else row.text

    @override
    def uses(self, reader: Reader, schema_id: int) -> list[StoredVersion]:
        return self._versions(reader, statements.USES, {"id": schema_id})

    @override
    def subjects(self, reader: Reader) -> list[tuple[str, bool]]:
        listed = (
            sa.select(version.c.subject, sa.func.bool_or(~version.c.deleted))
            .join(subject, subject.c.name == version.c.subject)
            .where(~subject.c.hidden)
            .group_by(version.c.subject)
            # By bytes, as the in-memory adapter sorts, independent of the database's collation.
            .order_by(sa.collate(version.c.subject, "C"))
        )
        return [(name, live) for name, live in connection_of(reader).execute(listed)]

    @override
    def settings(self, reader: Reader, subject: str) -> Settings:
        return self.settings_of(reader, [subject]).get(subject, Settings())

    @override
    def settings_of(self, reader: Reader, names: Sequence[str]) -> Mapping[str, Settings]:
        return {
            row.name: Settings(row.config, row.mode)
            for row in connection_of(reader).execute(statements.SETTINGS, {"names": [*names]})
        }

    @override
    def all_settings(self, reader: Reader) -> Mapping[str, Settings]:
        found = sa.select(subject.c.name, subject.c.config, subject.c.mode).where(
            subject.c.config.is_not(None) | subject.c.mode.is_not(None)
        )
        return {row.name: Settings(row.config, row.mode) for row in connection_of(reader).execute(found)}

    def _schema(self, reader: Reader, statement: PreparedStatement, values: Mapping[str, Any]) -> StoredSchema | None:
        row = statement.one_or_none(connection_of(reader), values)
        return None if row is None else _schema(row)

    def _versions(self, reader: Reader, statement: PreparedStatement, values: Mapping[str, Any]) -> list[StoredVersion]:
        return [_version(row) for row in statement.execute(connection_of(reader), values)]


def _lock(
    connection: sa.Connection, name: str, *, hidden: bool, scopes: Sequence[str]
) -> tuple[Settings | None, Mapping[str, Settings]]:
    """Lock a subject; return its settings, None if it is new, and those of the outer scopes."""
    values = {"name": name, "hidden": hidden, "scopes": [*scopes]}
    while True:
        rows = statements.LOCK.execute(connection, values)
        others = {row.name: Settings(row.config, row.mode) for row in rows if row.kind == "scope"}
        for row in rows:
            if row.kind != "scope":
                return (None if row.kind == "made" else Settings(row.config, row.mode)), others
        # Another transaction inserted the subject while this one waited for it: the next statement sees it.


class _Change(Change):
    def __init__(
        self, connection: sa.Connection, name: str, settings: Settings | None, scopes: Mapping[str, Settings]
    ) -> None:
        self._connection = connection
        self._name = name
        self._new = settings is None
        self._settings = settings or Settings()
        self._scopes = scopes

    def versions(self) -> list[StoredVersion]:
        if self._new:  # inserted by this transaction: no other one can have added versions
            return []
        return [_version(row) for row in statements.VERSIONS.execute(self._connection, {"name": self._name})]

    def settings(self) -> Settings:
        return self._settings

    def scopes(self) -> Mapping[str, Settings]:
        return self._scopes

    def put(self, number: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        values = {**self._values(key, shape, content), "number": number}
        for _ in range(_ATTEMPTS):
            row = statements.PUT.one_or_none(self._connection, values)
            if row is not None:
                if not row.added:
                    raise _taken(number)
                self._new = False
                if row.made:
                    self._add_references(row.id, content)
                    return StoredSchema(id=row.id, key=key, shape=shape, content=content, origin=self._name)
                found = statements.SCHEMA.one_or_none(self._connection, {"id": row.id})
                return _schema(found)
            # Another transaction has just stored the content, or an import the id: retry, after the highest id.
            self._connection.execute(statements.SKIP_TAKEN)
        raise UnavailableError(Reason.OVERLOADED, "no free id was found in time; try again", retry_after=1.0)

    def restore(self, schema_id: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        self._connection.execute(statements.RESERVE, {"id": schema_id})
        values = {**self._values(key, shape, content), "id": schema_id}
        # Twice: if another transaction assigns the content an id meanwhile, this id becomes a second one.
        for _ in range(2):
            if self._connection.execute(statements.RESTORE, values).one_or_none() is not None:
                self._add_references(schema_id, content)
                return StoredSchema(id=schema_id, key=key, shape=shape, content=content, origin=self._name)
            stored = statements.SCHEMA.one_or_none(self._connection, {"id": schema_id})
            if stored is not None:
                found = _schema(stored)
                require_same_content(found, key)
                return found
        raise UnavailableError(Reason.OVERLOADED, "the id could not be stored; try again", retry_after=1.0)

    def add(self, number: int, schema: StoredSchema, text: str) -> None:
        new = {"subject": self._name, "number": number, "schema_id": schema.id, "text": text}
        if not statements.ADD.execute(self._connection, new):
            raise _taken(number)
        self._new = False

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        self._connection.execute(
            sa.update(version)
            .where(version.c.subject == self._name, version.c.number.in_(list(numbers)))
            .values(deleted=True)
        )

    def purge(self, numbers: Iterable[int]) -> None:
        self._connection.execute(
            sa.delete(version).where(version.c.subject == self._name, version.c.number.in_(list(numbers)))
        )

    def configure(self, settings: Settings) -> None:
        self._connection.execute(
            sa.update(subject).where(subject.c.name == self._name).values(config=settings.config, mode=settings.mode)
        )
        self._settings = settings

    def _values(self, key: bytes, shape: bytes, content: Content) -> dict[str, Any]:
        return {
            "key": key,
            "shape": shape,
            "kind": content.kind,
            "text": content.text,
            "references": json.dumps(
                [[item.name, item.subject, item.version, item.target] for item in content.references],
                ensure_ascii=False,
            )
            if content.references
            else "[]",
            "metadata": content.metadata,
            "rule_set": content.rule_set,
            "origin": self._name,
        }

    def _add_references(self, schema_id: int, content: Content) -> None:
        pointed = {(item.subject, item.version) for item in content.references}
        if pointed:
            rows = [{"schema_id": schema_id, "subject": name, "version": number} for name, number in sorted(pointed)]
            self._connection.execute(sa.insert(reference), rows)


def _taken(number: int) -> ConflictError:
    return ConflictError(Reason.VERSION_CONFLICT, f"version {number} of the subject exists; read its versions again")


def _schema(row: Any) -> StoredSchema:
    content = Content(
        kind=row.kind,
        text=row.text,
        references=tuple(Reference(*item) for item in json.loads(row.reference_list)),
        metadata=row.metadata,
        rule_set=row.rule_set,
    )
    return StoredSchema(id=row.id, key=bytes(row.key), shape=bytes(row.shape), content=content, origin=row.origin)


def _version(row: Any) -> StoredVersion:
    return StoredVersion(
        subject=row.subject,
        number=row.number,
        schema_id=row.schema_id,
        key=bytes(row.key),
        shape=bytes(row.shape),
        deleted=row.deleted,
    )

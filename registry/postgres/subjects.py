"""PostgreSQL adapter of the store of subjects: assigns ids from any number of processes, without a leader election.

One transaction for each registration. The subject's row is its lock (`SELECT … FOR UPDATE`), so registrations of one
subject queue, and those of others do not wait. The unique content key decides which transaction assigns an id: of two
that insert the same new content concurrently, the second waits for the first at the unique index and then reads what it
stored. A transaction takes one subject's lock and one key, in this order, and none that holds a key waits for a
subject: no deadlock.

The transaction is the caller's: an audit entry and the change that it describes become durable together.

Every row carries a tag (`registry.database.row_tags`). A row that the pool did not write is refused; it is never left
out of a list of versions, since compatibility is decided on all of them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from registry.database.prepared_statement import PreparedStatement
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.postgres import statements
from registry.postgres.tables import reference, schema, subject, version
from registry.subjects.model import Content, SchemaReference, Settings, StoredSchema, StoredVersion
from registry.subjects.store import SubjectChange, SubjectReader, SubjectWriter, require_same_content
from schemas.errors import ConflictError, Reason, UnavailableError

__all__ = ["PostgresSubjects"]

_ATTEMPTS = 5


class PostgresSubjects(SubjectReader, SubjectWriter):
    """Store of subjects, schemas, versions and settings in the tables of `registry.postgres.tables`.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

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
            connection.execute(statements.LOCK_SUBJECTS, {"names": sorted({subject, *also})})
        scopes = [one for one in scopes if one != subject]
        own, others = _lock(self._tags, work, subject, hidden=hidden, scopes=scopes)
        yield _Change(self._tags, work, subject, own, others)

    @override
    def schema(self, reader: Reader, schema_id: int) -> StoredSchema | None:
        return self._schema(reader, statements.SCHEMA, {"id": schema_id})

    @override
    def schema_by_guid(self, reader: Reader, prefix: bytes) -> StoredSchema | None:
        return self._schema(
            reader, statements.SCHEMA_BY_GUID, {"lowest": prefix, "highest": prefix + b"\xff" * (32 - len(prefix))}
        )

    @override
    def highest_id(self, reader: Reader) -> int:
        return connection_of(reader).execute(sa.select(sa.func.max(schema.c.id))).scalar_one() or 0

    @override
    def version(self, reader: Reader, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        if number is None:
            statement, values = statements.LATEST_VERSION, dict[str, Any](name=subject)
        else:
            statement, values = statements.VERSION, {"name": subject, "number": number}
        row = statement.one_or_none(connection_of(reader), values)
        return None if row is None else (self._version(row), row.text)

    @override
    def all_versions(self, reader: Reader) -> list[StoredVersion]:
        return self._versions(reader, statements.ALL_VERSIONS, {})

    @override
    def referrers(self, reader: Reader, subject: str, number: int | None = None) -> list[StoredVersion]:
        return self._versions(reader, statements.REFERRERS, {"name": subject, "number": number})

    @override
    def versions_by_fingerprint(
        self, reader: Reader, subject: str, fingerprint: bytes
    ) -> list[tuple[StoredVersion, str]]:
        rows = statements.VERSIONS_BY_FINGERPRINT.execute(
            connection_of(reader), {"name": subject, "fingerprint": fingerprint}
        )
        return [(self._version(row), row.text) for row in rows]

    @override
    def versions(self, reader: Reader, subject: str) -> list[StoredVersion]:
        return self._versions(reader, statements.VERSIONS, {"name": subject})

    @override
    def version_text(self, reader: Reader, subject: str, number: int) -> str | None:
        row = statements.VERSION_TEXT.one_or_none(connection_of(reader), {"name": subject, "number": number})
        if row is None:
            return None
        text: str = self._tags.checked(version, row)["text"]
        return text

    @override
    def versions_by_schema_id(self, reader: Reader, schema_id: int) -> list[StoredVersion]:
        return self._versions(reader, statements.VERSIONS_BY_SCHEMA_ID, {"id": schema_id})

    @override
    def subjects(self, reader: Reader) -> list[tuple[str, bool]]:
        statement = (
            sa.select(version.c.subject, sa.func.bool_or(~version.c.deleted))
            .join(subject, subject.c.name == version.c.subject)
            .where(~subject.c.hidden)
            .group_by(version.c.subject)
            # By code points, as the in-memory adapter sorts, whatever the database's collation.
            .order_by(sa.collate(version.c.subject, "C"))
        )
        return [(name, live) for name, live in connection_of(reader).execute(statement)]

    @override
    def settings(self, reader: Reader, subject: str) -> Settings:
        return self.settings_of(reader, [subject]).get(subject, Settings())

    @override
    def settings_of(self, reader: Reader, names: Sequence[str]) -> Mapping[str, Settings]:
        rows = connection_of(reader).execute(statements.SETTINGS, {"names": [*names]})
        return self._settings(rows)

    @override
    def all_settings(self, reader: Reader) -> Mapping[str, Settings]:
        return self._settings(connection_of(reader).execute(sa.select(subject)))

    @override
    def configurations(self, reader: Reader) -> Mapping[str, Settings]:
        return self._settings(connection_of(reader).execute(sa.select(subject).where(subject.c.config.is_not(None))))

    def _settings(self, rows: Iterable[Any]) -> Mapping[str, Settings]:
        checked = (self._tags.checked(subject, row) for row in rows)
        found = {row["name"]: Settings(row["config"], row["mode"]) for row in checked}
        return {name: one for name, one in found.items() if one != Settings()}

    def _schema(self, reader: Reader, statement: PreparedStatement, values: Mapping[str, Any]) -> StoredSchema | None:
        row = statement.one_or_none(connection_of(reader), values)
        return None if row is None else _schema(self._tags.checked(schema, row))

    def _versions(self, reader: Reader, statement: PreparedStatement, values: Mapping[str, Any]) -> list[StoredVersion]:
        return [self._version(row) for row in statement.execute(connection_of(reader), values)]

    def _version(self, row: Any) -> StoredVersion:
        return _version(self._tags.checked(version, row))


def _lock(
    tags: RowTags, work: UnitOfWork, name: str, *, hidden: bool, scopes: Sequence[str]
) -> tuple[Settings | None, Mapping[str, Settings]]:
    """Lock a subject; return its settings, None for a subject that is new, and those of the scopes around it."""
    new = tags.new(subject, {"name": name, "hidden": hidden})
    values = {**new, "scopes": [*scopes]}
    while True:
        rows = statements.LOCK_SUBJECT.execute(connection_of(work), values)
        checked = [(row.kind, tags.checked(subject, row)) for row in rows]
        others = {row["name"]: Settings(row["config"], row["mode"]) for kind, row in checked if kind == "scope"}
        for kind, row in checked:
            if kind == "created":
                tags.note_new(work, subject, new)
                return None, others
            if kind != "scope":
                return Settings(row["config"], row["mode"]), others
        # Another transaction created the subject while this statement waited for it: the next statement sees it.


class _Change(SubjectChange):
    def __init__(
        self,
        tags: RowTags,
        work: UnitOfWork,
        name: str,
        settings: Settings | None,
        scopes: Mapping[str, Settings],
    ) -> None:
        self._tags = tags
        self._work = work
        self._connection = connection_of(work)
        self._name = name
        self._new = settings is None
        self._settings = settings or Settings()
        self._scopes = scopes

    def versions(self) -> list[StoredVersion]:
        if self._new:  # created in this transaction, so that no other can have added versions
            return []
        rows = statements.VERSIONS.execute(self._connection, {"name": self._name})
        return [_version(self._tags.checked(version, row)) for row in rows]

    def settings(self) -> Settings:
        return self._settings

    def scope_settings(self) -> Mapping[str, Settings]:
        return self._scopes

    def add_content(self, number: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        stored = self._columns(key, fingerprint, content)
        row_version = self._tags.new(schema, stored)["row_version"]
        values = self._values(stored, number, row_version)
        for _ in range(_ATTEMPTS):
            row = statements.ADD_CONTENT.one_or_none(self._connection, values)
            if row is not None:
                if not row.added:
                    raise _version_exists(number)
                self._new = False
                new = {**stored, "id": row.id, "row_version": row_version} if row.created else None
                self._tag(row.id, new, self._version_row(number, row.id, key, fingerprint, content.text), row_version)
                if row.created:
                    self._add_references(row.id, content)
                    return StoredSchema(id=row.id, key=key, fingerprint=fingerprint, content=content, origin=self._name)
                found = statements.SCHEMA.one_or_none(self._connection, {"id": row.id})
                return _schema(self._tags.checked(schema, found))
            # Another transaction has just stored the content, or an import the next id: retry with an unused id.
            self._connection.execute(statements.SKIP_USED_IDS)
        raise UnavailableError(Reason.OVERLOADED, "no free id was found in time; try again", retry_after=1.0)

    def import_content(self, schema_id: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        self._connection.execute(statements.RESERVE_ID, {"id": schema_id})
        new = self._tags.new(schema, {**self._columns(key, fingerprint, content), "id": schema_id})
        # Twice: if another transaction assigns the content an id at this moment, this id becomes its second one.
        for _ in range(2):
            if self._connection.execute(statements.IMPORT_CONTENT, new).one_or_none() is not None:
                self._tags.note_new(self._work, schema, new)
                self._add_references(schema_id, content)
                return StoredSchema(id=schema_id, key=key, fingerprint=fingerprint, content=content, origin=self._name)
            row = statements.SCHEMA.one_or_none(self._connection, {"id": schema_id})
            if row is not None:
                stored = _schema(self._tags.checked(schema, row))
                require_same_content(stored, key)
                return stored
        raise UnavailableError(Reason.OVERLOADED, "the id could not be kept; try again", retry_after=1.0)

    def add_version(self, number: int, schema: StoredSchema, text: str) -> None:
        new = self._tags.new(version, self._version_row(number, schema.id, schema.key, schema.fingerprint, text))
        if not statements.ADD_VERSION.execute(self._connection, new):
            raise _version_exists(number)
        self._tags.note_new(self._work, version, new)
        self._new = False

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        self._tags.change(self._work, version, self._numbered(numbers), {"deleted": True})

    def purge(self, numbers: Iterable[int]) -> None:
        self._tags.delete(self._work, version, self._numbered(numbers))

    def configure(self, settings: Settings) -> None:
        values = {"config": settings.config, "mode": settings.mode}
        self._tags.change(self._work, subject, subject.c.name == self._name, values)
        self._settings = settings

    def _numbered(self, numbers: Iterable[int]) -> sa.ColumnElement[bool]:
        return (version.c.subject == self._name) & version.c.number.in_(list(numbers))

    def _version_row(self, number: int, schema_id: int, key: bytes, fingerprint: bytes, text: str) -> dict[str, Any]:
        return {
            "subject": self._name,
            "number": number,
            "schema_id": schema_id,
            "text": text,
            "deleted": False,
            "key": key,
            "shape": fingerprint,
        }

    def _tag(
        self, schema_id: int, new: Mapping[str, Any] | None, version_row: Mapping[str, Any], row_version: int
    ) -> None:
        """Tag a version, and its schema if that is new: both were inserted in this transaction, without their tags."""
        added = {**version_row, "row_version": row_version}
        added["tag"] = self._tags.tag(version, added)
        created = None if new is None else {**new, "tag": self._tags.tag(schema, new)}
        statements.TAG_CONTENT.execute(
            self._connection,
            {
                "id": schema_id,
                "schema_tag": None if created is None else created["tag"],
                "subject": self._name,
                "number": added["number"],
                "version_tag": added["tag"],
            },
        )
        if created is not None:
            self._tags.note_new(self._work, schema, created)
        self._tags.note_new(self._work, version, added)

    def _columns(self, key: bytes, fingerprint: bytes, content: Content) -> dict[str, Any]:
        """Return the columns of a schema's row but its id."""
        references = [[item.name, item.subject, item.version, item.schema_id] for item in content.references]
        return {
            "key": key,
            "shape": fingerprint,
            "kind": content.schema_type,
            "text": content.text,
            "reference_list": json.dumps(references, ensure_ascii=False),
            "metadata": content.metadata,
            "rule_set": content.rule_set,
            "origin": self._name,
        }

    @staticmethod
    def _values(stored: Mapping[str, Any], number: int, row_version: int) -> dict[str, Any]:
        return {
            "key": stored["key"],
            "fingerprint": stored["shape"],
            "schema_type": stored["kind"],
            "text": stored["text"],
            "references": stored["reference_list"],
            "metadata": stored["metadata"],
            "rule_set": stored["rule_set"],
            "origin": stored["origin"],
            "number": number,
            "row_version": row_version,
        }

    def _add_references(self, schema_id: int, content: Content) -> None:
        targets = {(item.subject, item.version) for item in content.references}
        if targets:
            rows = [{"schema_id": schema_id, "subject": name, "version": number} for name, number in sorted(targets)]
            self._connection.execute(sa.insert(reference), rows)


def _version_exists(number: int) -> ConflictError:
    return ConflictError(Reason.VERSION_CONFLICT, f"version {number} of the subject exists; read its versions again")


def _schema(row: Mapping[str, Any]) -> StoredSchema:
    content = Content(
        schema_type=row["kind"],
        text=row["text"],
        references=tuple(SchemaReference(*item) for item in json.loads(row["reference_list"])),
        metadata=row["metadata"],
        rule_set=row["rule_set"],
    )
    return StoredSchema(
        id=row["id"], key=bytes(row["key"]), fingerprint=bytes(row["shape"]), content=content, origin=row["origin"]
    )


def _version(row: Mapping[str, Any]) -> StoredVersion:
    return StoredVersion(
        subject=row["subject"],
        number=row["number"],
        schema_id=row["schema_id"],
        key=bytes(row["key"]),
        fingerprint=bytes(row["shape"]),
        deleted=row["deleted"],
    )

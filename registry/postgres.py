"""The registry's subjects in PostgreSQL: ids without an election, from any number of processes.

One transaction a registration. The subject's row is its lock (`SELECT … FOR UPDATE`), so registrations of one
subject queue, and those of others do not wait. The unique content key decides who gives an id: of two
transactions that bring the same new content at the same time, the second waits for the first at the unique
index and then reads what it stored. A transaction takes one subject's lock and one key, in this order, and
nobody who holds a key wants a subject: there is no deadlock.

`joining` lets another transaction carry the changes, so that an audit entry and what it tells of become durable
together.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import postgresql

from registry.store import Content, Reference, Settings, StoredSchema, StoredVersion
from registry.tables import schema, subject, version
from schemas.errors import ConflictError, Reason, UnavailableError

__all__ = ["PostgresSubjects", "joining", "transaction"]

_joined: ContextVar[sa.Connection | None] = ContextVar("registry_joined_transaction", default=None)

_VERSIONS = (
    sa.select(version.c.subject, version.c.number, version.c.schema_id, schema.c.key, schema.c.shape, version.c.deleted)
    .join(schema, schema.c.id == version.c.schema_id)
    .order_by(version.c.subject, version.c.number)
)


@contextmanager
def joining(connection: sa.Connection) -> Iterator[None]:
    """Let every change of the registry's stores, in this thread or task, be part of an open transaction.

    Whoever opened the transaction commits it. Until then the subject stays locked.
    """
    token = _joined.set(connection)
    try:
        yield
    finally:
        _joined.reset(token)


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give the joined transaction's connection, or one in a transaction of its own.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, DISK_FULL, or OUTCOME_UNKNOWN for a commit that did not answer.
    """
    outer = _joined.get()
    if outer is not None:
        yield outer
        return
    committing = False
    try:
        with engine.connect() as connection:
            opened = connection.begin()
            yield connection
            committing = True
            opened.commit()
    except sa_exc.DBAPIError as error:
        if committing:
            raise UnavailableError(
                Reason.OUTCOME_UNKNOWN,
                "the connection to PostgreSQL was lost during a commit; repeat the call, it is idempotent",
            ) from error
        raise _unavailable(error) from error


class PostgresSubjects:
    """See `registry.store.SubjectStore`.

    Args:
        engine: connections to a database with the tables of `registry.tables`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def change(self, name: str, *, hidden: bool = False) -> Iterator["_Change"]:
        """See `SubjectStore.change`."""
        # Joined, so that what is read on the way takes no second connection: with many threads that would exhaust
        # the pool while each of them waits for the others.
        with transaction(self._engine) as connection, joining(connection):
            new = postgresql.insert(subject).values(name=name, hidden=hidden).on_conflict_do_nothing()
            connection.execute(new)
            row = connection.execute(
                sa.select(subject.c.config, subject.c.mode).where(subject.c.name == name).with_for_update()
            ).one()
            yield _Change(connection, name, Settings(row.config, row.mode))

    def schema(self, schema_id: int) -> StoredSchema | None:
        """See `SubjectStore.schema`."""
        with transaction(self._engine) as connection:
            row = connection.execute(sa.select(schema).where(schema.c.id == schema_id)).one_or_none()
        return None if row is None else _schema(row)

    def by_shape(self, name: str, shape: bytes) -> list[StoredVersion]:
        """See `SubjectStore.by_shape`."""
        return self._versions(_VERSIONS.where(version.c.subject == name, schema.c.shape == shape))

    def versions(self, name: str) -> list[StoredVersion]:
        """See `SubjectStore.versions`."""
        return self._versions(_VERSIONS.where(version.c.subject == name))

    def text(self, name: str, number: int) -> str | None:
        """See `SubjectStore.text`."""
        found = sa.select(version.c.text).where(version.c.subject == name, version.c.number == number)
        with transaction(self._engine) as connection:
            return connection.execute(found).scalar_one_or_none()

    def uses(self, schema_id: int) -> list[StoredVersion]:
        """See `SubjectStore.uses`."""
        return self._versions(_VERSIONS.where(version.c.schema_id == schema_id))

    def subjects(self) -> list[tuple[str, bool]]:
        """See `SubjectStore.subjects`."""
        listed = (
            sa.select(version.c.subject, sa.func.bool_or(~version.c.deleted))
            .join(subject, subject.c.name == version.c.subject)
            .where(~subject.c.hidden)
            .group_by(version.c.subject)
            # By bytes, as the twin sorts, whatever the database's collation.
            .order_by(sa.collate(version.c.subject, "C"))
        )
        with transaction(self._engine) as connection:
            return [(name, live) for name, live in connection.execute(listed)]

    def settings(self, name: str) -> Settings:
        """See `SubjectStore.settings`."""
        found = sa.select(subject.c.config, subject.c.mode).where(subject.c.name == name)
        with transaction(self._engine) as connection:
            row = connection.execute(found).one_or_none()
        return Settings() if row is None else Settings(row.config, row.mode)

    def _versions(self, statement: sa.Select[Any]) -> list[StoredVersion]:
        with transaction(self._engine) as connection:
            return [_version(row) for row in connection.execute(statement)]


class _Change:
    """See `registry.store.Change`."""

    def __init__(self, connection: sa.Connection, name: str, settings: Settings) -> None:
        self._connection = connection
        self._name = name
        self._settings = settings

    def versions(self) -> list[StoredVersion]:
        mine: sa.Select[Any] = _VERSIONS.where(version.c.subject == self._name)
        return [_version(row) for row in self._connection.execute(mine)]

    def settings(self) -> Settings:
        return self._settings

    def intern(self, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        found = sa.select(schema).where(schema.c.key == key)
        row = self._connection.execute(found).one_or_none()
        if row is None:
            new = postgresql.insert(schema).values(
                key=key,
                shape=shape,
                kind=content.kind,
                text=content.text,
                reference_list=json.dumps([[item.name, item.subject, item.version] for item in content.references]),
                metadata=content.metadata,
                rule_set=content.rule_set,
                origin=self._name,
            )
            self._connection.execute(new.on_conflict_do_nothing(index_elements=[schema.c.key]))
            # Read committed: a content that another transaction has just stored is seen by this statement.
            row = self._connection.execute(found).one()
        return _schema(row)

    def add(self, number: int, schema: StoredSchema, text: str) -> None:
        new = postgresql.insert(version).values(
            subject=self._name, number=number, schema_id=schema.id, text=text, deleted=False
        )
        added = self._connection.execute(new.on_conflict_do_nothing().returning(version.c.number))
        if added.one_or_none() is None:
            raise ConflictError(
                Reason.VERSION_CONFLICT, f"version {number} of the subject exists; read its versions again"
            )

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


def _schema(row: sa.Row[Any]) -> StoredSchema:
    content = Content(
        kind=row.kind,
        text=row.text,
        references=tuple(Reference(*item) for item in json.loads(row.reference_list)),
        metadata=row.metadata,
        rule_set=row.rule_set,
    )
    return StoredSchema(id=row.id, key=bytes(row.key), shape=bytes(row.shape), content=content, origin=row.origin)


def _version(row: sa.Row[Any]) -> StoredVersion:
    return StoredVersion(
        subject=row.subject,
        number=row.number,
        schema_id=row.schema_id,
        key=bytes(row.key),
        shape=bytes(row.shape),
        deleted=row.deleted,
    )


def _unavailable(error: sa_exc.DBAPIError) -> Exception:
    code = getattr(error.orig, "pgcode", None) or ""
    if code.startswith("53"):  # insufficient resources: 53100 disk full, 53200 out of memory
        return UnavailableError(Reason.DISK_FULL, "PostgreSQL has no room left; nothing was stored", retry_after=10.0)
    if error.connection_invalidated or isinstance(error, sa_exc.OperationalError) or code.startswith(("57P", "08")):
        return UnavailableError(
            Reason.DATABASE_UNAVAILABLE, "PostgreSQL does not answer; nothing was stored", retry_after=1.0
        )
    return error

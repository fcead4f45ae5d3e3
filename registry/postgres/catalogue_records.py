"""PostgreSQL adapter of catalogue records: the current version of each, and every version in a second table.

Every row carries a tag (`registry.database.row_tags`); a list names a row without its own as damaged, and reports it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from registry.catalogue.record import CatalogueRecord
from registry.catalogue.record_json import record_document, record_from_document
from registry.catalogue.store import RecordQuery, RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.directory.store import stale_version
from registry.postgres.tables import catalogue_record, catalogue_record_version
from schemas.errors import InvalidError
from schemas.names import Topic

__all__ = ["PostgresRecords"]

_LOCK_CODES: Final = sa.text("SELECT pg_advisory_xact_lock(1127301985)")
"""An advisory lock, released when the transaction ends; no other code uses this number."""


class PostgresRecords(RecordStore):
    """Store of catalogue records in PostgreSQL.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def save(self, work: UnitOfWork, record: CatalogueRecord) -> None:
        key = {"name": str(record.topic.name), "major": record.topic.major}
        body = json.dumps(record_document(record), ensure_ascii=False)
        columns = {"version": record.version, "state": str(record.state), "provider": record.provider, "body": body}
        if record.version == 1:
            row = self._tags.new(catalogue_record, {**key, **columns})
            new = postgresql.insert(catalogue_record).values(row).on_conflict_do_nothing()
            saved = connection_of(work).execute(new.returning(catalogue_record.c.version)).first() is not None
            if saved:
                self._tags.note_new(work, catalogue_record, row)
        else:
            current = _key_is(catalogue_record, record.topic) & (catalogue_record.c.version == record.version - 1)
            saved = len(self._tags.change(work, catalogue_record, current, columns)) == 1
        if not saved:
            raise stale_version("catalogue record", record.version - 1)
        self._tags.insert(work, catalogue_record_version, {**key, "version": record.version, "body": body})

    @override
    def lock(self, work: UnitOfWork, topic: Topic) -> CatalogueRecord | None:
        return self._one(work, sa.select(catalogue_record).where(_key_is(catalogue_record, topic)).with_for_update())

    @override
    def lock_codes(self, work: UnitOfWork) -> None:
        connection_of(work).execute(_LOCK_CODES)

    @override
    def get(self, reader: Reader, topic: Topic) -> CatalogueRecord | None:
        return self._one(reader, sa.select(catalogue_record).where(_key_is(catalogue_record, topic)))

    def _one(self, reader: Reader, statement: sa.Select[Any]) -> CatalogueRecord | None:
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _record(self._tags.checked(catalogue_record, row))

    @override
    def version(self, reader: Reader, topic: Topic, version: int) -> CatalogueRecord | None:
        table = catalogue_record_version
        statement = sa.select(table).where(_key_is(table, topic), table.c.version == version)
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _record(self._tags.checked(table, row))

    @override
    def versions(
        self, reader: Reader, topic: Topic, *, after: int = 0, limit: int = 1_000
    ) -> Sequence[CatalogueRecord | DamagedRow]:
        table = catalogue_record_version
        statement = (
            sa.select(table)
            .where(_key_is(table, topic), table.c.version > after)
            .order_by(table.c.version)
            .limit(limit)
        )
        rows = connection_of(reader).execute(statement)
        return self._tags.listed(table, rows, _record, lambda row: DamagedRow.of(version=str(row["version"])))

    @override
    def page(self, reader: Reader, query: RecordQuery) -> Sequence[CatalogueRecord | DamagedRow]:
        table = catalogue_record
        wanted = []
        if query.provider is not None:
            wanted.append(table.c.provider == query.provider)
        if query.state is not None:
            wanted.append(table.c.state == str(query.state))

        def read(key: tuple[str, int], most: int) -> Sequence[Any]:
            behind = sa.tuple_(table.c.name, table.c.major) > sa.tuple_(sa.literal(key[0]), sa.literal(key[1]))
            statement = sa.select(table).where(*wanted, behind).order_by(table.c.name, table.c.major).limit(most)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> list[CatalogueRecord | DamagedRow]:
            return self._tags.listed(table, rows, _record, _damaged)

        first = ("", 0) if query.after is None else (str(query.after.name), query.after.major)
        return collect(read, keep, lambda row: (str(row.name), int(row.major)), after=first, limit=query.limit)


def _key_is(table: sa.Table, topic: Topic) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.name == str(topic.name), table.c.major == topic.major)


def _record(row: Mapping[str, Any]) -> CatalogueRecord:
    return record_from_document(json.loads(row["body"]))


def _damaged(row: Mapping[str, Any]) -> DamagedRow | None:
    try:
        topic = Topic.parse(f"{row['name']}.v{row['major']}")
    except InvalidError:  # no name that the pool would make
        return None
    return DamagedRow.of(topic=topic)

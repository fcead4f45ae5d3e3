"""PostgreSQL adapters of the directory: the current version of each document, and every version in a second table.

Every row carries a tag (`registry.database.row_tags`); a list names a row without its own as damaged, and reports it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.directory.model import (
    PUBLIC_STATES,
    CatalogueEntry,
    Department,
    DepartmentKind,
    DepartmentStatus,
    EntryState,
    GovernmentLevel,
    KeptHistory,
    ShareType,
    Zone,
)
from registry.directory.store import CatalogueStore, DepartmentStore, stale_version
from registry.postgres.tables import catalogue, catalogue_version, department, department_version
from schemas.access import Level
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import ResourceName, Topic

__all__ = ["PostgresCatalogue", "PostgresDepartments"]


_DEPARTMENTS_AFTER = sa.text("SELECT * FROM registry_department WHERE id > :after ORDER BY id LIMIT :most")
_DEPARTMENTS_OF = sa.text("SELECT * FROM registry_department WHERE id = ANY(:ids)")
_MERGED_INTO = sa.text("SELECT * FROM registry_department WHERE body::jsonb ->> 'successor' = ANY(:ids)")
_LOCK_HIERARCHY = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('registry_department.parent', 0))")
_ENTRIES_AFTER = sa.text(
    "SELECT * FROM registry_catalogue WHERE (name, major) > (:name, :major) ORDER BY name, major LIMIT :most"
)
_VISIBLE_AFTER = sa.text(
    "SELECT * FROM registry_catalogue WHERE (name, major) > (:name, :major)"
    " AND (state = ANY(:public) OR provider = :viewer) ORDER BY name, major LIMIT :most"
)


class PostgresDepartments(DepartmentStore):
    """Department store in PostgreSQL.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def save(self, work: UnitOfWork, value: Department, at: datetime) -> None:
        ends = None if value.contract_ends is None else value.contract_ends.isoformat()
        body = json.dumps(asdict(value) | {"contract_ends": ends}, ensure_ascii=False)
        columns = {"version": value.version, "uscc": value.uscc, "body": body}
        connection = connection_of(work)
        taken = sa.select(department.c.id).where(department.c.uscc == value.uscc, department.c.id != value.id)
        # Of two transactions with the same code, the second waits at the unique index below.
        if connection.execute(taken).first() is not None:
            raise _uscc_exists()
        if value.version == 1:
            row = self._tags.new(department, {"id": value.id, **columns})
            new = postgresql.insert(department).values(row).on_conflict_do_nothing()
            if connection.execute(new.returning(department.c.id)).first() is None:
                existing = connection.execute(sa.select(department.c.id).where(department.c.id == value.id)).first()
                raise stale_version("department", 0) if existing else _uscc_exists()
            self._tags.note_new(work, department, row)
        else:
            current = (department.c.id == value.id) & (department.c.version == value.version - 1)
            try:
                with connection.begin_nested():
                    count = len(self._tags.change(work, department, current, columns))
            except sa.exc.IntegrityError as error:
                raise _uscc_exists() from error
            if count != 1:
                raise stale_version("department", value.version - 1)
        version = {"id": value.id, "version": value.version, "body": body, "at": at}
        self._tags.insert(work, department_version, version)

    @override
    def lock_hierarchy(self, work: UnitOfWork) -> None:
        connection_of(work).execute(_LOCK_HIERARCHY)

    @override
    def get(self, reader: Reader, department_id: str) -> Department | None:
        statement = sa.select(department).where(department.c.id == department_id)
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _department(self._tags.checked(department, row)["body"])

    @override
    def some(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        rows = connection_of(reader).execute(_DEPARTMENTS_OF, {"ids": list(department_ids)})
        return [_department(row["body"]) for row in self._tags.valid(department, rows)]

    @override
    def merged_into(self, reader: Reader, department_ids: Collection[str]) -> list[Department]:
        rows = connection_of(reader).execute(_MERGED_INTO, {"ids": list(department_ids)})
        return [_department(row["body"]) for row in self._tags.valid(department, rows)]

    @override
    def all(self, reader: Reader) -> list[Department]:
        rows = connection_of(reader).execute(sa.select(department))
        found = [_department(row["body"]) for row in self._tags.valid(department, rows)]
        return sorted(found, key=lambda item: (item.short_name, item.id))

    @override
    def page(self, reader: Reader, *, after: str, limit: int) -> list[Department | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            return connection_of(reader).execute(_DEPARTMENTS_AFTER, {"after": key, "most": most}).all()

        def keep(rows: Sequence[Any]) -> list[Department | DamagedRow]:
            return self._tags.listed(
                department, rows, lambda row: _department(row["body"]), lambda row: DamagedRow.of(id=row["id"])
            )

        return collect(read, keep, lambda row: str(row.id), after=after, limit=limit)

    @override
    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        statement = (
            sa.select(department_version)
            .where(department_version.c.id == department_id)
            .order_by(department_version.c.version)
        )
        rows = connection_of(reader).execute(statement)
        return [(row["at"], _department(row["body"])) for row in self._tags.valid(department_version, rows)]


class PostgresCatalogue(CatalogueStore):
    """Catalogue store in PostgreSQL.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def save(self, work: UnitOfWork, entry: CatalogueEntry, at: datetime) -> None:
        body = json.dumps(asdict(entry) | {"level": entry.level.name}, ensure_ascii=False)
        key = {"name": str(entry.topic.name), "major": entry.topic.major}
        columns = {
            "version": entry.version,
            "state": str(entry.state),
            "provider": entry.provider,
            "body": body,
        }
        if entry.version == 1:
            row = self._tags.new(catalogue, {**key, **columns})
            new = postgresql.insert(catalogue).values(row).on_conflict_do_nothing()
            saved = connection_of(work).execute(new.returning(catalogue.c.version)).first() is not None
            self._tags.note_new(work, catalogue, row)
        else:
            current = _key_is(entry.topic) & (catalogue.c.version == entry.version - 1)
            saved = len(self._tags.change(work, catalogue, current, columns)) == 1
        if not saved:
            raise stale_version("entry", entry.version - 1)
        self._tags.insert(work, catalogue_version, {**key, "version": entry.version, "body": body, "at": at})

    @override
    def get(self, reader: Reader, topic: Topic) -> CatalogueEntry | None:
        row = connection_of(reader).execute(sa.select(catalogue).where(_key_is(topic))).one_or_none()
        return None if row is None else _entry(self._tags.checked(catalogue, row)["body"])

    @override
    def all(self, reader: Reader) -> list[CatalogueEntry]:
        rows = connection_of(reader).execute(sa.select(catalogue))
        found = [_entry(row["body"]) for row in self._tags.valid(catalogue, rows)]
        return sorted(found, key=lambda entry: entry.topic)

    @override
    def page(
        self, reader: Reader, *, after: Topic | None, limit: int, viewer: str | None = None
    ) -> list[CatalogueEntry | DamagedRow]:
        seen = {} if viewer is None else {"public": sorted(PUBLIC_STATES), "viewer": viewer}

        def read(key: tuple[str, int], most: int) -> Sequence[Any]:
            parameters = {"name": key[0], "major": key[1], "most": most, **seen}
            return connection_of(reader).execute(_VISIBLE_AFTER if seen else _ENTRIES_AFTER, parameters).all()

        def keep(rows: Sequence[Any]) -> list[CatalogueEntry | DamagedRow]:
            return self._tags.listed(catalogue, rows, lambda row: _entry(row["body"]), _damaged_entry)

        first = ("", 0) if after is None else (str(after.name), after.major)
        return collect(read, keep, lambda row: (str(row.name), int(row.major)), after=first, limit=limit)

    @override
    def provided_by(self, reader: Reader, department_id: str) -> list[Topic]:
        statement = sa.select(catalogue.c.name, catalogue.c.major).where(catalogue.c.provider == department_id)
        found = connection_of(reader).execute(statement)
        return sorted(Topic(ResourceName(name), major) for name, major in found)

    @override
    def history(self, reader: Reader, topic: Topic) -> list[tuple[datetime, CatalogueEntry]]:
        statement = (
            sa.select(catalogue_version)
            .where(catalogue_version.c.name == str(topic.name), catalogue_version.c.major == topic.major)
            .order_by(catalogue_version.c.version)
        )
        rows = connection_of(reader).execute(statement)
        return [(row["at"], _entry(row["body"])) for row in self._tags.valid(catalogue_version, rows)]


def _key_is(topic: Topic) -> sa.ColumnElement[bool]:
    return sa.and_(catalogue.c.name == str(topic.name), catalogue.c.major == topic.major)


def _damaged_entry(row: Mapping[str, Any]) -> DamagedRow | None:
    try:
        topic = Topic.parse(f"{row['name']}.v{row['major']}")
    except InvalidError:  # no name that the pool would make
        return None
    return DamagedRow.of(topic=topic)


def _uscc_exists() -> ConflictError:
    return ConflictError(Reason.ALREADY_EXISTS, "a department with this credit code is registered already")


def _department(body: str) -> Department:
    values: dict[str, Any] = json.loads(body)
    values["level"] = GovernmentLevel(values["level"])
    values["zone"] = Zone(values["zone"])
    values["status"] = DepartmentStatus(values["status"])
    if "kinds" in values:  # a department of an earlier version has none of the members that came later
        values["kinds"] = tuple(map(DepartmentKind, values["kinds"]))
    if values.get("contract_ends") is not None:
        values["contract_ends"] = datetime.fromisoformat(values["contract_ends"])
    return Department(**values)


def _entry(body: str) -> CatalogueEntry:
    values: dict[str, Any] = json.loads(body)
    values["topic"] = Topic(ResourceName(values["topic"]["name"]), values["topic"]["major"])
    values["share_type"] = ShareType(values["share_type"])
    values["level"] = Level[values["level"]]
    values["state"] = EntryState(values["state"])
    values["zone"] = Zone(values["zone"])
    values["history"] = KeptHistory(**values.get("history", {}))  # an entry of an earlier version keeps all
    return CatalogueEntry(**values)

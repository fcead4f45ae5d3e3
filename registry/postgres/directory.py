"""PostgreSQL adapters of the directory: the current version of each document, and every version in a second table."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.directory.model import (
    CatalogueEntry,
    Department,
    DepartmentStatus,
    EntryState,
    GovernmentLevel,
    ShareType,
)
from registry.directory.store import CatalogueStore, DepartmentStore, stale_version
from registry.postgres.tables import catalogue, catalogue_version, department, department_version
from schemas.access import Level
from schemas.errors import ConflictError, Reason
from schemas.names import ResourceName, Topic

__all__ = ["PostgresCatalogue", "PostgresDepartments"]


class PostgresDepartments(DepartmentStore):
    """Department store in PostgreSQL."""

    @override
    def save(self, work: UnitOfWork, value: Department, at: datetime) -> None:
        body = json.dumps(asdict(value), ensure_ascii=False)
        columns = {"version": value.version, "uscc": value.uscc, "body": body}
        connection = connection_of(work)
        taken = sa.select(department.c.id).where(department.c.uscc == value.uscc, department.c.id != value.id)
        # Of two transactions with the same code, the second waits at the unique index below.
        if connection.execute(taken).first() is not None:
            raise _uscc_exists()
        if value.version == 1:
            new = postgresql.insert(department).values(id=value.id, **columns).on_conflict_do_nothing()
            if connection.execute(new.returning(department.c.id)).first() is None:
                existing = connection.execute(sa.select(department.c.id).where(department.c.id == value.id)).first()
                raise stale_version("department", 0) if existing else _uscc_exists()
        else:
            changed = sa.update(department).where(
                department.c.id == value.id, department.c.version == value.version - 1
            )
            try:
                with connection.begin_nested():
                    count = connection.execute(changed.values(columns)).rowcount
            except sa.exc.IntegrityError as error:
                raise _uscc_exists() from error
            if count != 1:
                raise stale_version("department", value.version - 1)
        connection.execute(sa.insert(department_version).values(id=value.id, version=value.version, body=body, at=at))

    @override
    def get(self, reader: Reader, department_id: str) -> Department | None:
        statement = sa.select(department.c.body).where(department.c.id == department_id)
        body = connection_of(reader).execute(statement).scalar_one_or_none()
        return None if body is None else _department(body)

    @override
    def all(self, reader: Reader) -> list[Department]:
        connection = connection_of(reader)
        found = [_department(row.body) for row in connection.execute(sa.select(department.c.body))]
        return sorted(found, key=lambda item: (item.short_name, item.id))

    @override
    def history(self, reader: Reader, department_id: str) -> list[tuple[datetime, Department]]:
        statement = (
            sa.select(department_version.c.at, department_version.c.body)
            .where(department_version.c.id == department_id)
            .order_by(department_version.c.version)
        )
        connection = connection_of(reader)
        return [(at, _department(body)) for at, body in connection.execute(statement)]


class PostgresCatalogue(CatalogueStore):
    """Catalogue store in PostgreSQL."""

    @override
    def save(self, work: UnitOfWork, entry: CatalogueEntry, at: datetime) -> None:
        body = json.dumps(asdict(entry) | {"level": entry.level.name}, ensure_ascii=False)
        key = {"name": str(entry.topic.name), "major": entry.topic.major}
        columns = {"version": entry.version, "state": entry.state, "provider": entry.provider, "body": body}
        connection = connection_of(work)
        if entry.version == 1:
            new = postgresql.insert(catalogue).values(**key, **columns).on_conflict_do_nothing()
            saved = connection.execute(new.returning(catalogue.c.version)).first() is not None
        else:
            changed = sa.update(catalogue).where(_key_is(entry.topic), catalogue.c.version == entry.version - 1)
            saved = connection.execute(changed.values(columns)).rowcount == 1
        if not saved:
            raise stale_version("entry", entry.version - 1)
        connection.execute(sa.insert(catalogue_version).values(**key, version=entry.version, body=body, at=at))

    @override
    def get(self, reader: Reader, topic: Topic) -> CatalogueEntry | None:
        connection = connection_of(reader)
        body = connection.execute(sa.select(catalogue.c.body).where(_key_is(topic))).scalar_one_or_none()
        return None if body is None else _entry(body)

    @override
    def all(self, reader: Reader) -> list[CatalogueEntry]:
        connection = connection_of(reader)
        found = [_entry(row.body) for row in connection.execute(sa.select(catalogue.c.body))]
        return sorted(found, key=lambda entry: entry.topic)

    @override
    def history(self, reader: Reader, topic: Topic) -> list[tuple[datetime, CatalogueEntry]]:
        statement = (
            sa.select(catalogue_version.c.at, catalogue_version.c.body)
            .where(catalogue_version.c.name == str(topic.name), catalogue_version.c.major == topic.major)
            .order_by(catalogue_version.c.version)
        )
        connection = connection_of(reader)
        return [(at, _entry(body)) for at, body in connection.execute(statement)]


def _key_is(topic: Topic) -> sa.ColumnElement[bool]:
    return sa.and_(catalogue.c.name == str(topic.name), catalogue.c.major == topic.major)


def _uscc_exists() -> ConflictError:
    return ConflictError(Reason.ALREADY_EXISTS, "a department with this credit code is registered already")


def _department(body: str) -> Department:
    values: dict[str, Any] = json.loads(body)
    values["level"] = GovernmentLevel(values["level"])
    values["status"] = DepartmentStatus(values["status"])
    return Department(**values)


def _entry(body: str) -> CatalogueEntry:
    values: dict[str, Any] = json.loads(body)
    values["topic"] = Topic(ResourceName(values["topic"]["name"]), values["topic"]["major"])
    values["share_type"] = ShareType(values["share_type"])
    values["level"] = Level[values["level"]]
    values["state"] = EntryState(values["state"])
    return CatalogueEntry(**values)

"""The registry's services over a store, for the contract tests of all; each call is a transaction of its own."""

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import GeneratorType
from typing import Any

import pytest
import sqlalchemy as sa

from registry.avro.compatibility import Compatibility
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.memory import MemoryCatalogue, MemoryDepartments
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from registry.postgres.subjects import PostgresSubjects
from registry.schemas_topic.outbox import Outbox, OutboxWriter
from registry.subjects.configuration import Configuration
from registry.subjects.deletion import Deletion
from registry.subjects.lookup import SchemaLookup
from registry.subjects.memory import MemorySubjects
from registry.subjects.model import Content
from registry.subjects.registration import Registration
from registry.subjects.services import SubjectServices
from schemas.errors import PoolError, Reason
from schemas.names import ResourceName, Topic
from tests.kit.row_tags import row_tags

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TOPIC = Topic(ResourceName("population"), 1)
USCC = "11520000000000019J"
OTHER_USCC = "11520000000000027D"


class Committing:
    """A store or a service whose methods get the unit of work or the reader that they ask for, one for each call."""

    def __init__(self, part: Any, database: Database) -> None:
        self.part = part
        self.database = database

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.part, name)
        first = next(iter(inspect.signature(method).parameters), "") if callable(method) else ""
        if first not in {"work", "reader"}:
            return method
        open_ = self.database.begin if first == "work" else self.database.read

        @contextmanager
        def block(*arguments: Any, **named: Any) -> Iterator[Any]:
            with open_() as within, method(within, *arguments, **named) as opened:
                yield opened

        def call(*arguments: Any, **named: Any) -> Any:
            with open_() as within:
                found = method(within, *arguments, **named)
                return list(found) if isinstance(found, GeneratorType) else found

        return block if name == "change" and not isinstance(self.part, Catalogue) else call


class Store(Committing):
    """A store of subjects. *writer*: what changes go through, where it is not the store itself."""

    def __init__(self, part: Any, database: Database, writer: Any = None) -> None:
        super().__init__(part, database)
        self.writer = part if writer is None else writer

    def __getattr__(self, name: str) -> Any:
        if name == "change":
            return Committing(self.writer, self.database).change
        return super().__getattr__(name)


def memory_store() -> Store:
    return Store(MemorySubjects(), MemoryDatabase())


def postgres_store(engine: sa.Engine, autocommit: sa.Engine | None = None) -> Store:
    return Store(PostgresSubjects(row_tags()), PostgresDatabase(engine, autocommit))


def with_outbox(store: Store, outbox: Outbox) -> Store:
    return Store(store.part, store.database, OutboxWriter(store.part, store.part, outbox))


class Subjects:
    """All services of the subjects over a store, as one object."""

    def __init__(
        self,
        store: Store,
        *,
        governed: Callable[[str], bool] = lambda _: False,
        level: Compatibility = Compatibility.BACKWARD,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> None:
        self.store = store
        self.database = store.database
        configuration = Configuration(
            store.part, store.writer, level=level, **({} if clock is None else {"clock": clock})
        )
        lookup = SchemaLookup(store.part)

        def asked(_: object, subject: str) -> bool:
            return governed(subject)

        self.services = SubjectServices(
            lookup=lookup,
            registration=Registration(store.part, store.writer, lookup, configuration, governed=asked, **options),
            deletion=Deletion(store.part, store.writer, configuration, governed=asked),
            configuration=configuration,
        )
        self.configuration: Any = Committing(configuration, self.database)

    def __getattr__(self, name: str) -> Any:
        services = self.services
        for part in (services.lookup, services.registration, services.deletion):
            if hasattr(part, name):
                return getattr(Committing(part, self.database), name)
        raise AttributeError(name)


@dataclass
class Stores:
    subjects: Store
    departments: Committing
    catalogue: Committing


def memory_stores() -> Stores:
    store = memory_store()
    return Stores(store, Committing(MemoryDepartments(), store.database), Committing(MemoryCatalogue(), store.database))


def postgres_stores(engine: sa.Engine) -> Stores:
    store = postgres_store(engine)
    departments, catalogue = PostgresDepartments(row_tags()), PostgresCatalogue(row_tags())
    return Stores(store, Committing(departments, store.database), Committing(catalogue, store.database))


def service(stores: Stores, level: Compatibility = Compatibility.BACKWARD, *, strict: bool = False) -> Subjects:
    catalogue = directory(stores)[1]
    return Subjects(
        stores.subjects,
        level=level,
        governed=catalogue.governs,
        other_majors=catalogue.part.other_majors,
        strict=strict,
    )


def directory(stores: Stores) -> tuple[Any, Any]:
    ids = (f"0195-{number:04d}" for number in range(1000))
    database = stores.departments.database
    departments = Departments(stores.departments.part, clock=lambda: AT, new_id=lambda: next(ids))
    catalogue = Catalogue(stores.catalogue.part, departments, clock=lambda: AT)
    return Committing(departments, database), Committing(catalogue, database)


def record(*fields: str, name: str = "R") -> Content:
    listed = [{"name": field, "type": ["null", "string"], "default": None} for field in fields]
    return Content(text=json.dumps({"type": "record", "name": name, "fields": listed}))


def refused(reason: Reason, act: Callable[[], object]) -> PoolError:
    with pytest.raises(PoolError) as caught:
        act()
    assert caught.value.reason is reason
    return caught.value


# --- ids -------------------------------------------------------------------------------------------------------

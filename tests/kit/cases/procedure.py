"""A procedure of catalogue entries over one kind of store, and the people who act in it, for tests."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa

from registry.catalogue.element_store import ElementStore, MemoryElements
from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.memory import MemoryRecords
from registry.catalogue.procedure import Procedure, Step
from registry.catalogue.record import CatalogueRecord
from registry.catalogue.search import MemorySearch, SearchIndex
from registry.catalogue.store import RecordStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.memory import MemoryCatalogue, MemoryDepartments
from registry.directory.model import CatalogueEntry, GovernmentLevel
from registry.governance.classification import ClassifiedField
from registry.postgres.catalogue_records import PostgresRecords
from registry.postgres.catalogue_search import PostgresSearch
from registry.postgres.data_elements import PostgresElements
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from schemas.access import Actor, ActorKind, Level, Role
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.cases.catalogue import metadata
from tests.kit.cases.registry import AT, OTHER_USCC, TOPIC, USCC
from tests.kit.row_tags import row_tags

E, S = EntryEvent, ProcedureState
POLICE, LABOUR = "0195-0000", "0195-0001"
PERSONS = {"editor": "1", "editor-2": "2", "head": "3", "authority": "4", "authority-2": "5", "of-labour": "6"}
EDITOR = Actor(kind=ActorKind.HUMAN, id="editor", department=POLICE, role=Role.CATALOGUE_EDITOR)
HEAD = Actor(kind=ActorKind.HUMAN, id="head", department=POLICE, role=Role.SHARING_OFFICE_HEAD)
AUTHORITY = Actor(kind=ActorKind.HUMAN, id="authority", department="", role=Role.DATA_AUTHORITY)
AUTHORITY_2 = replace(AUTHORITY, id="authority-2")
OF_LABOUR = Actor(kind=ActorKind.HUMAN, id="of-labour", department=LABOUR, role=Role.SHARING_OFFICE_HEAD)
FILED: dict[str, Any] = {"reason": "职责调整", "filing": "备案〔2026〕1号"}


@dataclass
class Room:
    """A procedure over one kind of store; each call is a transaction of its own."""

    database: Database
    catalogue: Catalogue
    procedure: Procedure
    departments: Departments
    elements: ElementStore
    search: SearchIndex
    entries: int = 0

    def describe(self, topic: Topic = TOPIC, actor: Actor = EDITOR, **changes: Any) -> CatalogueRecord:
        self.entries += 1
        with self.database.begin() as work:
            return self.procedure.describe(
                work,
                topic,
                metadata(**changes),
                provider=actor.department,
                actor=actor,
                at=AT,
                entry_id=f"entry-{self.entries}",
            )

    def apply(self, event: EntryEvent, actor: Actor, topic: Topic = TOPIC, **given: Any) -> CatalogueRecord:
        self.entries += 1
        persons = given.pop("persons", PERSONS)
        step = Step(event=event, actor=actor, at=AT, entry_id=f"entry-{self.entries}", persons=persons, **given)
        with self.database.begin() as work:
            if event is E.CHANGE and self.procedure.store.get(work, topic) is None:
                return self.procedure.open_update(work, topic, step)
            return self.procedure.apply(work, topic, step)

    def published(self) -> CatalogueRecord:
        self.describe()
        self.apply(E.SUBMIT, EDITOR)
        self.apply(E.APPROVE, HEAD)
        return self.apply(E.PUBLISH, AUTHORITY)

    def record(self, topic: Topic = TOPIC) -> CatalogueRecord:
        with self.database.read() as reader:
            return self.procedure.get(reader, topic)

    def entry(self, topic: Topic = TOPIC) -> CatalogueEntry:
        with self.database.read() as reader:
            return self.catalogue.get(reader, topic)

    def versions(self, topic: Topic = TOPIC) -> list[CatalogueRecord]:
        with self.database.read() as reader:
            return [one for one in self.procedure.store.versions(reader, topic) if not isinstance(one, DamagedRow)]


def room(engine: sa.Engine | None = None) -> Room:
    database: Database
    store: RecordStore
    elements: ElementStore
    if engine is None:
        database, store, elements = MemoryDatabase(), MemoryRecords(), MemoryElements()
        of_departments, of_entries = MemoryDepartments(), MemoryCatalogue()
    else:
        database, store = PostgresDatabase(engine), PostgresRecords(row_tags())
        elements = PostgresElements(row_tags())
        of_departments, of_entries = PostgresDepartments(row_tags()), PostgresCatalogue(row_tags())  # type: ignore[assignment]
    ids = iter((POLICE, LABOUR))
    departments = Departments(of_departments, clock=lambda: AT, new_id=lambda: next(ids))
    search: SearchIndex = MemorySearch() if engine is None else PostgresSearch()
    catalogue = Catalogue(of_entries, departments, clock=lambda: AT, on_saved=search.index_entry)
    with database.begin() as work:
        for uscc, name in ((USCC, "公安局"), (OTHER_USCC, "人社局")):
            departments.register(
                work, uscc=uscc, name=name, short_name=name, level=GovernmentLevel.CITY, division_code="330100"
            )
    highest = ClassifiedField(
        path="id_number", at="$.fields[0]", zh="证件号码", level=Level.G4, personal="D", sensitive="s", mask="none"
    )
    procedure = Procedure(store, catalogue, lambda _reader, _subject: [highest], elements, search)
    return Room(database, catalogue, procedure, departments, elements, search)


def refused(reason: Reason, act: Callable[[], object]) -> PoolError:
    with pytest.raises(PoolError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value

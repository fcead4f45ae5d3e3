"""The stores of the registry, in memory and in PostgreSQL."""

from collections.abc import Iterator

import pytest

from registry.directory.memory import MemoryCatalogue, MemoryDepartments
from registry.postgres import tables
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from registry.postgres.subjects import PostgresSubjects
from registry.subjects.lookup import Subjects
from registry.subjects.memory import MemorySubjects
from tests.kit.cases.registry import Stores, service


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "memory":
        yield Stores(MemorySubjects(), MemoryDepartments(), MemoryCatalogue())
        return
    engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield Stores(PostgresSubjects(engine), PostgresDepartments(engine), PostgresCatalogue(engine))


@pytest.fixture
def subjects(stores: Stores) -> Subjects:
    return service(stores)

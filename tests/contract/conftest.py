"""The stores of the registry, in memory and in PostgreSQL."""

from collections.abc import Iterator

import pytest

from registry import tables
from registry.memory import MemoryCatalogue, MemoryDepartments, MemorySubjects
from registry.postgres import PostgresSubjects
from registry.postgres_directory import PostgresCatalogue, PostgresDepartments
from registry.subjects import Subjects
from tests.kit.registry import Stores, service


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

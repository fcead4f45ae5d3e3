"""The stores of the registry, in memory and in PostgreSQL."""

from collections.abc import Iterator

import pytest

from registry.postgres import tables
from tests.kit.cases.registry import Stores, Subjects, memory_stores, postgres_stores, service


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "memory":
        yield memory_stores()
        return
    engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield postgres_stores(engine)


@pytest.fixture
def subjects(stores: Stores) -> Subjects:
    return service(stores)

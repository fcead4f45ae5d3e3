from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.kit import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    with postgres.cluster() as url:
        yield url


@pytest.fixture
def database(postgres_server: sa.URL) -> Iterator[sa.URL]:
    with postgres.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def engine(database: sa.URL) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database)
    yield engine
    engine.dispose()

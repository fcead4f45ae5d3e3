from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

# Suites and kits assert too; said before the first of them is imported.
pytest.register_assert_rewrite("tests.kit", "tests.contract", "tests.torture")

from registry.database.connection_pool import connect  # noqa: E402
from tests.kit.world import postgres  # noqa: E402

if TYPE_CHECKING:
    from tests.kit.world.kafka import Node


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
    engine = connect(database, connections=15)  # as the pool does
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def kafka_node() -> Iterator["Node"]:
    """One real Kafka with mutual TLS and the shipped access rules, for all tests that leave it as they found it."""
    from tests.kit.world import kafka  # the two Kafka libraries take a while to import, and most tests need neither

    with kafka.node() as node:
        yield node

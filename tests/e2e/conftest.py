"""The end-to-end tests run on both brokers; only pool.toml differs."""

from collections.abc import Iterator

import pytest

from tests.kit.world.kafka import Node
from tests.kit.world.world import World


def kafka_section(node: Node) -> str:
    """Return the part of pool.toml that puts the records into this Kafka."""
    gateway = node.gateway
    return (
        f'[broker]\nkind = "kafka"\nbootstrap = "{node.bootstrap}"\nauthority = "{gateway.ca}"\n'
        f'certificate = "{gateway.certificate}"\nkey = "{gateway.key}"\nreplication = 1\n'
    )


@pytest.fixture(scope="package")
def postgres_world() -> Iterator[World]:
    """A running pool with its records in PostgreSQL, for all tests here: each has departments and topics of its own."""
    with World.start() as world:
        yield world


@pytest.fixture(scope="package")
def kafka_world(kafka_node: Node) -> Iterator[World]:
    """A running pool with its records in Kafka, for all tests here."""
    with World.start(kafka_section(kafka_node)) as world:
        yield world


@pytest.fixture(
    scope="package", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)], ids=["postgres", "kafka"]
)
def world(request: pytest.FixtureRequest) -> World:
    """Each of the two in turn."""
    world: World = request.getfixturevalue(f"{request.param}_world")
    return world

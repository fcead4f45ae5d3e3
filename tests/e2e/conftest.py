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


@pytest.fixture(
    scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)], ids=["postgres", "kafka"]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A running pool with its records in PostgreSQL, and one with them in Kafka."""
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    with World.start(extra) as world:
        yield world

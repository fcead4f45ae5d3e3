"""A pool that a third department attacks, while a provider publishes and a consumer draws beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import psutil

from exchange.client import Identity, PoolClient
from exchange.demo.people import persons
from schemas import library
from schemas.names import Topic
from tests.kit.patience import PATIENCE
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World, in_clear

__all__ = ["TOPIC", "AttackedPool"]

TOPIC = Topic.parse("population.v1")


@dataclass
class AttackedPool:
    """A running pool with a provider, a consumer, and a third department, which attacks."""

    world: World
    provider: Office
    attacker: Office
    source: Identity
    publisher: PoolClient
    consumer: PoolClient
    lane: Publisher
    grant: str
    schema_id: int
    position: bytes = b""
    identities: dict[str, Identity] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def start(cls, extra: str) -> Iterator[Self]:
        """Start one with these lines in its pool.toml; one record has been published and drawn."""
        with World.start(extra) as world:
            provider, consumer, attacker = map(world.department, ("公安局", "人社局", "城管局"))
            provider.offer(str(TOPIC), library.text("population"))
            grant = consumer.request(str(TOPIC), ["full_name"], **in_clear("full_name"))
            provider.approve(grant)
            source, sink = provider.enrol("source"), consumer.enrol("sink")
            lane = Publisher(source.pool_id, source.department, source.connector, str(TOPIC), source.signing_key)
            with world.client(source) as publisher, world.client(sink) as drawing:
                schema_id, _ = publisher.schema(TOPIC)
                made = cls(world, provider, attacker, source, publisher, drawing, lane, grant, schema_id)
                made.exchange()
                yield made

    def exchange(self) -> None:
        """Publish a record and draw it, as the two departments beside the attacker do."""
        values = framed(self.schema_id, library.text("population"), [next(iter(persons(1)))])
        assert len(list(self.publisher.publish(TOPIC, [self.lane.batch(values)]))) == 1
        result = self.consumer.fetch(
            self.grant, position=self.position, purpose="eligibility", case="STANDING-1", wait=PATIENCE / 4
        )
        assert len(result.record_keys) == 16  # of one record
        self.position = result.next_position

    def identity(self, connector: str) -> Identity:
        """Return a connector of the attacker; enrolled at the first call."""
        if connector not in self.identities:
            self.identities[connector] = self.attacker.enrol(connector)
        return self.identities[connector]

    @property
    def gateway(self) -> psutil.Process:
        """The gateway's process."""
        assert self.world.process is not None
        return psutil.Process(self.world.process.pid)

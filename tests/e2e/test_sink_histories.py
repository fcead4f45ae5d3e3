"""A target equals its source, whatever the history of each key was, and every replay brings the same.

Records are published, and drawn into a table by the connector's subscriber, in turn and in pieces. In between the
target is set back to a copy, as after a loss of the consumer's disk.
"""

import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.sinks.sql import SqlSink
from connectors.state.ledger import Ledger
from connectors.subscribing.subscriber import Subscriber, SubscriptionConfig
from exchange.client import FetchResult
from tests.contract.pool_suite import BEGINNING, CASE, PURPOSE, Consumer, Resource, Row
from tests.contract.test_pool import Served
from tests.kit.share import count, random_of
from tests.kit.world.department import now
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(7_200)]

KEYS = count(10_000, 120)
ROUNDS = count(40, 6)
GRANTED = "d1"


class Source:
    """A department's table, and what of it a grant of one district should show."""

    def __init__(self, resource: Resource, draw: random.Random) -> None:
        self.resource = resource
        self.draw = draw
        self.rows: dict[str, Row] = {}

    def change(self) -> None:
        """Publish changes of a random part of the keys: new, moved, changed, void, void again, back again."""
        keys = self.draw.sample([f"p{number}" for number in range(KEYS)], max(KEYS // 3, 1))
        while keys:
            size = self.draw.randrange(1, 900)
            some, keys = keys[:size], keys[size:]
            voids = [key for key in some if self.draw.random() < 0.2]
            people = [
                {"id": key, "district": f"d{self.draw.randrange(3)}", "age": self.draw.randrange(100)}
                for key in some
                if key not in voids
            ]
            batches = [self.resource.batch(people)] if people else []
            batches += [self.resource.voids(*voids)] if voids else []
            self.resource.publish(*batches)
            self.rows |= {str(row["id"]): row for row in people}
            for key in voids:
                self.rows.pop(key, None)

    def shown(self) -> set[tuple[str, int]]:
        return {(str(row["id"]), row["age"]) for row in self.rows.values() if row["district"] == GRANTED}


class Target:
    """A table of a consumer, its ledger, and copies of both."""

    def __init__(self, folder: Path, consumer: Consumer, draw: random.Random) -> None:
        self.folder, self.consumer, self.draw = folder, consumer, draw
        self.live, self.copy = folder / "live", folder / "copy"
        self.live.mkdir()

    def subscribe(self) -> None:
        rows = self.draw.choice((7, 100, 5_000))
        sink = SqlSink(
            sa.make_url(f"sqlite:///{self.live / 'target.db'}"), "people", self.consumer.grant_id, create_table=True
        )
        ledger = Ledger(self.live / "ledger.db", clock=now)
        try:
            Subscriber(
                SubscriptionConfig(grant=self.consumer.grant_id, purpose=PURPOSE, case=CASE, batch_rows=rows),
                sink,
                self.consumer.pool,
                ledger,
                stop=threading.Event(),
            ).run(once=True)
        finally:
            sink.close()
            ledger.close()

    def keep(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.live, self.copy)

    def set_back(self) -> None:
        if self.copy.exists():
            shutil.rmtree(self.live)
            shutil.copytree(self.copy, self.live)

    def rows(self) -> set[tuple[str, int]]:
        with closing(sqlite3.connect(self.live / "target.db")) as connection:
            return set(connection.execute("SELECT id, age FROM people WHERE _deleted_at IS NULL"))


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Served]:
    rig = Served(world)
    yield rig
    rig.close()


def replay(consumer: Consumer) -> list[tuple[bytes, bytes, int]]:
    """Return every record from the beginning, in an order that does not depend on the answers' sizes."""
    position, records = BEGINNING, []
    while True:
        answer: FetchResult = consumer.fetch(position, max_records=900)
        records += list(zip(answer.keys(), answer.values, answer.times(), strict=True))
        if answer.caught_up:
            return records
        position = answer.next_position


@pytest.mark.counted
def test_the_target_equals_the_source_and_replays_are_equal(served: Served, tmp_path: Path) -> None:
    draw = random_of("sink histories")
    resource = Resource(served)
    consumer = resource.granted("id", "age", district=GRANTED)
    source, target = Source(resource, draw), Target(tmp_path, consumer, draw)
    for step in range(ROUNDS):
        source.change()
        if step % 4 == 3:
            target.set_back()
        if step % 2:
            target.subscribe()
            assert target.rows() == source.shown()
        if step % 6 == 1:
            target.keep()
    target.subscribe()
    assert target.rows() == source.shown()
    first, second = replay(consumer), replay(consumer)
    by_key: list[dict[bytes, list[tuple[bytes, int]]]] = [{}, {}]
    for found, records in zip(by_key, (first, second), strict=True):
        for key, value, time in records:
            found.setdefault(key, []).append((value, time))
    assert by_key[0] == by_key[1]
    standing = {key for key, events in by_key[0].items() if events[-1][0]}
    assert len(standing) == len(source.shown()), "and a replay into an empty table ends with the same keys"

"""Random grants and random records, through the served pool: what comes is what the grant gives, and nothing beyond.

A naive model says, key by key, which records and withdrawals each fetch has to bring. Everything that a consumer can
see is kept: answers as bytes, positions, errors, the entries shown to its department, the metrics. What no grant of its
department gives holds a canary, a text that is then looked for in all of it.
"""

import json
import random
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from exchange.identity.pseudonyms import Pseudonyms
from exchange.identity.secrets import FileSecrets
from schemas.errors import PoolError
from schemas.record import key_bytes
from tests.attack.test_hidden_rows import offsets_in
from tests.contract.pool_suite import BEGINNING, WIDER, Consumer, Resource, Row
from tests.contract.test_pool import Served
from tests.e2e.conftest import kafka_section
from tests.kit.share import count, random_of
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(7_200)]

TOPICS = count(20, 1)
GRANTS = count(20, 5)  # of each topic
RECORDS = count(2_500, 500)  # at least, on each topic: 1,000,000 pairs in the full run
FIELDS = ("id", "district", "age")
CANARY = "canary-"


@pytest.fixture(scope="module", params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    extra = kafka_section(request.getfixturevalue("kafka_node")) if request.param == "kafka" else ""
    with World.start(extra) as world:
        rig = Served(world)
        yield rig
        rig.close()


class History:
    """A topic's records, by key, as their provider knows them; None is a void."""

    def __init__(self, served: Served, draw: random.Random) -> None:
        self.draw = draw
        self.resource = Resource(served)
        served.evolve(self.resource.topic, WIDER)
        self.resource.schema_id, self.resource.text = served.provider.pool.schema(self.resource.topic)
        self.records: dict[str, list[Row | None]] = {}
        self.size = 0

    def publish(self) -> None:
        keys = [f"{CANARY}{number}" for number in range(RECORDS // 5)]
        people: list[Row] = [
            {
                "id": self.draw.choice(keys),
                "district": f"d{self.draw.randrange(4)}",
                "age": self.draw.choice((None, *range(0, 90, 10))),
                "note": CANARY * self.draw.randrange(1, 9),
            }
            for _ in range(self.draw.randrange(1, RECORDS // 4))
        ]
        self.resource.publish(self.resource.batch(people))
        for row in people:
            self.records.setdefault(row["id"], []).append(row)
        voids = self.draw.sample(keys, self.draw.randrange(1, max(len(keys) // 10, 2)))
        self.resource.publish(self.resource.voids(*voids))
        for key in voids:
            self.records.setdefault(key, []).append(None)
        self.size += len(people) + len(voids)


class Model:
    """One grant: what its next fetch to the end has to bring, by key."""

    def __init__(self, history: History, served: Served, draw: random.Random) -> None:
        self.history, self.draw = history, draw
        self.fields = tuple(name for name in FIELDS if draw.random() < 0.6) or ("age",)
        self.districts = draw.sample([f"d{number}" for number in range(4)], draw.randrange(1, 3))
        self.filtered = draw.random() < 0.8
        terms: dict[str, Any] = {}
        if self.filtered:
            terms["row_filter"] = {"op": "in", "field": "district", "values": self.districts}
        self.grant_id = served.request(history.resource.topic, self.fields, **terms)
        served.approve(self.grant_id)
        self.consumer = Consumer(served.consumer.pool, self.grant_id)
        self.position = BEGINNING
        self.read: dict[str, int] = {}
        self.shown: dict[str, bool] = {}

    def expected(self) -> dict[str, list[Row | None]]:
        """Return the records and withdrawals (None) of each key from the position on."""
        found = {key: self._events(key, records) for key, records in self.history.records.items()}
        return {key: events for key, events in found.items() if events}

    def _events(self, key: str, records: list[Row | None]) -> list[Row | None]:
        retracted = max((index for index, row in enumerate(records) if row is None), default=-1)
        events: list[Row | None] = []
        for index in range(self.read.get(key, 0), len(records)):
            row = records[index]
            matches = row is not None and (not self.filtered or row["district"] in self.districts)
            if matches and index > retracted and row is not None:
                events.append({name: row[name] for name in self.fields})
                self.shown[key] = True
            elif self.shown.get(key, False) if self.filtered else row is None:
                events.append(None)
                self.shown[key] = False
        self.read[key] = len(records)
        return events

    def fetch(self, seen: list[bytes]) -> dict[bytes, list[Row | None]]:
        """Fetch to the end, in answers of any size; keep what was seen."""
        found: dict[bytes, list[Row | None]] = {}
        caught_up = False
        while not caught_up:
            bounds = {
                "max_records": self.draw.choice((1, 3, 200, 10_000)),
                "max_bytes": self.draw.choice((60, 4 << 20)),
            }
            if self.draw.random() < 0.7:
                bounds = {"max_records": 10_000}
            answer = self.consumer.fetch(self.position, **bounds)
            assert not offsets_in(answer.next_position)
            for key, row in self.consumer.decode(answer):
                found.setdefault(key, []).append(row)
            assert len(answer.keys()) == len(answer.times()) == len(answer.values)
            assert answer.caught_up or len(answer.values), "an answer that has not caught up holds something"
            if "id" not in self.fields:
                seen.append(answer.values.values)
            seen += [answer.next_position, answer.record_keys, answer.recorded_at, answer.entry_id.encode()]
            self.position, caught_up = answer.next_position, answer.caught_up
        return found

    def provoke(self, seen: list[bytes]) -> None:
        """Call in ways that are refused; keep what the errors say."""
        for call in (
            lambda: self.consumer.fetch(self.position[:-1] + bytes([self.position[-1] ^ 1])),
            lambda: self.consumer.fetch(b"\x01" * 83),
            lambda: self.consumer.fetch(self.position, purpose="other"),
            lambda: self.consumer.commit(BEGINNING),
        ):
            with pytest.raises(PoolError) as refused:
                call()
            seen.append(f"{refused.value.message} {dict(refused.value.details)}".encode())


@pytest.mark.counted
def test_nothing_beyond_the_grant_leaves(served: Served) -> None:
    draw, pairs = random_of("beyond the grant"), 0
    world = served._world
    pseudonyms = Pseudonyms(FileSecrets.open(world.data / "secrets"))
    officer = served._labour.account("security_officer")
    for _ in range(TOPICS):
        history, seen = History(served, draw), list[bytes]()
        models = [Model(history, served, draw) for _ in range(GRANTS)]
        topic = history.resource.topic
        while history.size < RECORDS:
            history.publish()
            for model in models:
                if draw.random() < 0.6 or history.size >= RECORDS:
                    expected, found = model.expected(), model.fetch(seen)
                    keys = pseudonyms.pseudonyms(topic, [key_bytes([key]) for key in expected])
                    names = [pseudonyms.record_keys(model.grant_id, [key]) for key in keys]
                    assert found == dict(zip(names, expected.values(), strict=True))
        for model in models:
            model.provoke(seen)
            entries = officer.get("/audit/entries", {"grant": model.grant_id, "limit": 1_000})
            for entry in entries:
                shown = entry["entry"].get("data", {})
                assert not {"from", "to", "at", "delivered", "withdrawn", "runs"} & set(shown), entry
            seen.append(json.dumps(entries, ensure_ascii=False).encode())
        with urllib.request.urlopen(f"http://{world.addresses['metrics']}/metrics") as answer:
            seen.append(answer.read())
        assert not [each for each in seen if CANARY.encode() in each]
        pairs += history.size * GRANTS
    assert pairs >= TOPICS * GRANTS * RECORDS

"""Drawing over random pools: golden records equal a naive fold of all that was published, whatever happened on the way.

Records of three departments about a few persons are drawn in fetches of random sizes, in a random order of resources,
with the worker killed at any of its failpoints. The twin that says what must stand at the end is
`tests.kit.cases.naive_hub`, which knows neither fold nor rules of the hub.
"""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.hub.fold.golden import Provenance
from exchange.hub.fold.identity import Handle
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.hub.store.tables import metadata
from registry.database.unit_of_work import PostgresDatabase
from schemas import failpoints
from schemas.record import Operation
from tests.kit import share
from tests.kit.cases.hub_claims import document
from tests.kit.cases.hub_drawing import NOW, TOPICS, Hub, number, publish_some
from tests.kit.cases.naive_hub import naive_golden
from tests.kit.row_tags import row_tags
from tests.kit.twins.hub_pool import MemoryPool

RUNS = share.count(2_000, 40)
KILLED = share.count(1_000, 60)
PERSONS = 3
WITHOUT_SETS = {"titles": {"rule": "newest", "order": ["population.v1", "marriages.v1", "insured.v2"]}}
"""Rules under which a batch can be laid over more records: of a set nothing is decided without its claims."""
POINTS = tuple(sorted(name for name in failpoints.NAMES if name.startswith("hub_")))

pytestmark = pytest.mark.counted


class KilledError(BaseException):
    """Ends a step at a failpoint, as SIGKILL ends its process."""


def naive(pool: MemoryPool, hub: Hub) -> tuple[dict[int, dict[str, Any]], set[Any]]:
    """Return values and sources of each person's fields, and all conflicts, from the published records alone."""
    records: dict[int, list[dict[str, Any]]] = {person: [] for person in range(PERSONS)}
    decode = hub.step(TOPICS[0])._codec.decode
    for at, topic in enumerate(TOPICS[:3], 1):
        # Resources are numbered in the order of their names.
        code = sorted(TOPICS).index(topic) + 1
        persons: dict[bytes, set[int]] = {}
        for one in sorted(pool.records(topic), key=lambda each: (each.partition, each.offset)):
            (values,) = decode([one.value])
            row = {
                "place": (code, 1, one.partition, one.offset), "resource": topic, "number": code, "generation": 1,
                "partition": one.partition, "offset": one.offset, "item": one.item,
                "op": one.operation.name.lower(), "recorded_at": one.recorded_at, "valid_from": one.valid_from,
                "valid_to": one.valid_to, "values": values,
            }  # fmt: skip
            had = persons.setdefault(one.item, set())
            if values is None:
                for person in had:
                    records[person].append(row)
                continue
            person = next(each for each in range(PERSONS) if number(each) == values["id_number"])
            since = one.recorded_at if one.valid_from is None else one.valid_from
            for former in had - {person}:
                void = {"op": "void", "valid_from": None if row["op"] == "correct" else since, "values": None}
                records[former].append({**row, **void})
            records[person].append(row)
            had.add(person)
        assert at
    found, conflicts = {}, set()
    for person, own in records.items():
        if own:
            found[person], contradictions = naive_golden(document(**hub.fields), own, NOW)
            conflicts |= {(hub.handle(person), *one) for one in contradictions}
    return found, conflicts


def shown(hub: Hub, person: int) -> dict[str, Any] | None:
    """Return values with the places of their sources, as the naive twin says them; None without a record."""
    row = hub.golden(hub.handle(person)).get(hub.handle(person))
    if row is None:
        return None
    _, values, prov = row
    assert values is not None
    assert isinstance(prov, Provenance)
    found: dict[str, Any] = {}
    for (name, value), (source, _) in zip(sorted(values.items()), prov.fields, strict=True):
        if isinstance(value, list):
            found[name] = [(one["value"], tuple(prov.sources[one["source"]].position)) for one in value]
        else:
            found[name] = None if source is None else (value, tuple(prov.sources[source].position))
    return found


def agrees_with_the_naive_twin(pool: MemoryPool, hub: Hub) -> None:
    expected, conflicts = naive(pool, hub)
    for person in range(PERSONS):
        assert shown(hub, person) == expected.get(person), person
    handles = [hub.handle(person) for person in range(PERSONS)]
    assert hub.state(handles)["conflicts"] == conflicts


def everyone(hub: Hub) -> list[Handle]:
    return [hub.handle(person, kind) for person in range(PERSONS) for kind in ("ric18", "foreign_pr")]


def test_golden_records_are_a_naive_fold_of_what_was_published() -> None:
    chance = share.random_of("drawing")
    laid = folded = 0
    for _ in range(RUNS):
        pool = MemoryPool(chance)
        publish_some(pool, chance, chance.randrange(1, 16), PERSONS)
        hub = Hub.new(pool, **chance.choice(({}, WITHOUT_SETS)))
        results = hub.draw_all(chance)
        publish_some(pool, chance, chance.randrange(1, 8), PERSONS)
        results += hub.draw_all(chance)
        agrees_with_the_naive_twin(pool, hub)
        laid += sum(one.laid for one in results)
        folded += sum(one.subjects - one.laid for one in results)
    assert laid > RUNS // 4, "some are decided without their claims"
    assert folded > RUNS, "others are not"


def test_any_interleaving_and_a_hub_made_again_give_the_same_end() -> None:
    chance = share.random_of("interleaving")
    joined = 0
    for _ in range(RUNS // 2):
        pool = MemoryPool(chance)
        publish_some(pool, chance, 14, PERSONS, linked=True)
        first = Hub.new(pool)
        first.draw_all(chance)
        again = replace(Hub.new(pool), keys=first.keys)
        again.draw_all(chance)
        assert first.state(everyone(first)) == again.state(everyone(first))
        joined += any(isinstance(row[2], bytes) for row in first.golden(*everyone(first)).values())
    assert joined, "no two numbers were ever joined"


def test_killed_at_any_place_it_ends_like_an_undisturbed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = share.random_of("killed steps")
    died: Counter[str] = Counter()
    for _ in range(KILLED):
        pool = MemoryPool(chance)
        publish_some(pool, chance, 12, PERSONS, linked=True)
        hub = Hub.new(pool)
        kill_while_drawing(hub, chance, died, monkeypatch)
        undisturbed = replace(Hub.new(pool), keys=hub.keys)
        undisturbed.draw_all()
        assert hub.state(everyone(hub)) == undisturbed.state(everyone(hub))
    assert set(died) == set(POINTS), "it died at each of the places"


def kill_while_drawing(hub: Hub, chance: random.Random, died: Counter[str], patch: pytest.MonkeyPatch) -> None:
    def reached(name: str) -> None:
        if chance.random() < 0.1:
            died[name] += 1
            raise KilledError

    patch.setattr(failpoints, "reached", reached)
    while True:
        try:
            hub.draw_all(chance)
            break
        except KilledError:
            continue
    patch.undo()


@pytest.mark.postgres
def test_on_postgresql_it_ends_as_in_memory_killed_or_not(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = share.random_of("postgresql")
    metadata.create_all(engine)
    died: Counter[str] = Counter()
    for _ in range(share.count(40, 4)):
        with engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
        pool = MemoryPool(chance)
        publish_some(pool, chance, 20, PERSONS, linked=True)
        hub = Hub.new(pool, store=PostgresHub(row_tags()), rules=PostgresRules(row_tags()), db=PostgresDatabase(engine))
        kill_while_drawing(hub, chance, died, monkeypatch)
        undisturbed = replace(Hub.new(pool), keys=hub.keys)
        undisturbed.draw_all()
        assert hub.state(everyone(hub)) == undisturbed.state(everyone(hub))
    assert died


def test_the_pool_that_is_drawn_has_what_is_rare() -> None:
    chance = share.random_of("rare records")
    pool = MemoryPool(chance)
    publish_some(pool, chance, 400, PERSONS, linked=True)
    kinds = Counter(one.operation for topic in TOPICS for one in pool.records(topic))
    assert kinds.keys() == set(Operation)

"""SIGKILL at any point of a table's passes, of polls by a cursor, and of the sink: the target ends equal to the table.

The points are drawn with the seed of the run, which pytest prints; `--seed` sees the same ones again.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.kit.share import count, random_of
from tests.kit.twins.pool_twin import CONSUMER
from tests.kit.twins.pool_twin_process import Killer, TwinServer, draw, publish_table
from tests.kit.world.changing_tables import execute, query
from tests.kit.world.cursor_table import CursorTable

pytestmark = pytest.mark.postgres

KILLED = -9


@pytest.fixture
def table(tmp_path: Path, database: sa.URL) -> CursorTable:
    execute(database, "CREATE TABLE item (id bigint PRIMARY KEY, name text, at timestamptz DEFAULT now())")
    made = CursorTable(tmp_path, database)
    made.department.twin.grant("g-1", "item.v1", ("id", "name"), lambda _: True)
    return made


@pytest.fixture
def server(table: CursorTable, tmp_path: Path) -> Iterator[TwinServer]:
    department = table.department
    made = TwinServer(department.twin, tmp_path, department.twin.client("d-1", "drop", department.key))
    yield made
    made.close()


def killers(seed: random.Random) -> Iterator[Killer]:
    """Points of death: one of the first calls for certain, then two in three at a call, one in three at some moment."""
    yield Killer(at_call=seed.randint(1, 3), before=True)
    while True:
        yield _anywhere(seed)


def _anywhere(seed: random.Random) -> Killer:
    if seed.random() < 2 / 3:
        return Killer(at_call=seed.randint(1, 10), before=seed.random() < 0.5)
    return Killer(after_seconds=seed.uniform(0.02, 0.5))


def change(table: CursorTable, seed: random.Random, numbers: Iterator[int]) -> None:
    """Commit some transactions; every version of a row has a name of its own."""
    for _ in range(seed.randint(1, 4)):
        statements = [
            f"INSERT INTO item VALUES ({seed.randint(1, 80)}, '{next(numbers)}') "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, at = now()"
            for _ in range(seed.randint(1, 15))
        ]
        statements.append(f"DELETE FROM item WHERE id = {seed.randint(1, 80)}")
        execute(table.url, f"BEGIN; {'; '.join(statements)}; COMMIT")


@pytest.mark.parametrize("mode", ["snapshot", "incremental"])
def test_killed_anywhere_the_target_ends_equal_to_the_table(
    table: CursorTable, server: TwinServer, mode: str, tmp_path: Path
) -> None:
    seed = random_of(f"tables killed {mode}")
    numbers = iter(range(1, 1_000_000))
    department = table.department
    url = table.url.render_as_string(hide_password=False)
    provider, consumer = server.client, department.twin.client(CONSUMER, "sink", department.key)
    died = {"source": 0, "sink": 0}

    def publish(how: str, point: Killer | None = None) -> int:
        server.client = provider
        code = server.run(publish_table, str(tmp_path), url, department.key.private_bytes_raw(), how, killer=point)
        assert code in (0, KILLED), f"the connector ended with {code}"
        died["source"] += code == KILLED
        return code

    def fetch(point: Killer | None = None) -> int:
        server.client = consumer
        code = server.run(draw, str(tmp_path), url, killer=point)
        assert code in (0, KILLED), f"the sink ended with {code}"
        died["sink"] += code == KILLED
        return code

    sources, sinks = killers(seed), killers(seed)
    for _ in range(count(25, 5)):
        change(table, seed, numbers)
        publish(mode, next(sources))
        fetch(next(sinks))
    assert publish(mode) == 0
    assert publish("snapshot" if mode == "snapshot" else "whole") == 0
    assert fetch() == 0
    assert died["source"], "nothing was killed: the test shows nothing"
    assert died["sink"], "nothing was killed: the test shows nothing"
    assert table.state() == table.rows()
    target = query(table.url, "SELECT id, name FROM household WHERE _deleted_at IS NULL ORDER BY id")
    assert target == query(table.url, "SELECT id, name FROM item ORDER BY id")
    sent = [(each.value["id"], each.value["name"]) for each in department.twin.records("item.v1") if each.value]
    assert len(sent) == len(set(sent)), "a version was published twice"

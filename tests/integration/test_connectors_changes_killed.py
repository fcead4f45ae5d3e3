"""SIGKILL at any point of snapshot, hand-over and log: the pool ends equal to the table, nothing twice.

The points are drawn with the seed of the run, which pytest prints; `--seed` sees the same ones again.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.kit.patience import wait_for
from tests.kit.share import count, random_of
from tests.kit.twins.pool_twin_process import Killer, TwinServer, publish_changes
from tests.kit.world import postgres
from tests.kit.world.changing_tables import SLOT, ChangingTables, execute, query, slots

pytestmark = pytest.mark.postgres

KILLED = -9


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[ChangingTables]:
    with postgres.logical_cluster() as server, postgres.fresh_database(server) as url:
        execute(url, "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount bigint)")
        execute(url, "ALTER TABLE item REPLICA IDENTITY FULL", "CREATE PUBLICATION pool FOR TABLE item")
        yield ChangingTables(tmp_path, url)
        for name in slots(url):
            execute(url, f"SELECT pg_drop_replication_slot('{name}')")


def killers(seed: random.Random) -> Iterator[Killer]:
    while True:
        if seed.random() < 2 / 3:
            yield Killer(at_call=seed.randint(1, 12), before=seed.random() < 0.5)
        else:
            yield Killer(after_seconds=seed.uniform(0.05, 1.2))


def change(url: sa.URL, seed: random.Random, expected: list[tuple[int, int]], numbers: Iterator[int]) -> None:
    """Commit some transactions; note each version of each row that was committed, in order."""
    for _ in range(seed.randint(1, 4)):
        statements = []
        for _ in range(seed.randint(1, 15)):
            key, number = seed.randint(1, 60), next(numbers)
            statements.append(
                f"INSERT INTO item VALUES ({key}, 'n', {number}) ON CONFLICT (id) DO UPDATE SET amount = {number}"
            )
            expected.append((key, number))
        statements.append(f"DELETE FROM item WHERE id = {seed.randint(1, 60)}")
        execute(url, f"BEGIN; {'; '.join(statements)}; COMMIT")


def test_killed_anywhere_each_change_is_published_once(tables: ChangingTables) -> None:
    seed = random_of("changes killed")
    numbers = iter(range(1, 1_000_000))
    committed: list[tuple[int, int]] = []
    change(tables.url, seed, committed, numbers)
    server = TwinServer(tables.twin, tables.folder, tables.twin.client("d-1", "changes", tables.key))
    arguments = (str(tables.folder), tables.url.render_as_string(hide_password=False), tables.key.private_bytes_raw())
    deaths, died, by_log = killers(seed), 0, 0
    try:
        for _ in range(2):  # the first time through snapshot and hand-over, the second time in the log
            for _ in range(count(50, 8)):
                code = server.run(publish_changes, *arguments, killer=next(deaths))
                assert code in (0, KILLED), f"the connector ended with {code}"
                died += code == KILLED
                assert set(slots(tables.url)) <= {SLOT}
                change(tables.url, seed, committed, numbers)
            assert server.run(publish_changes, *arguments) == 0
            by_log = by_log or len(committed)
    finally:
        server.close()
    assert died, "nothing was killed: the test shows nothing"
    rows = query(tables.url, "SELECT id, amount FROM item")
    assert {key: record["amount"] for key, record in tables.state().items()} == {str(key): n for key, n in rows}
    sent = [(each.value["id"], each.value["amount"]) for each in tables.twin.records("item.v1") if each.value]
    assert len(sent) == len(set(sent)), "a version was published twice"
    later = set(committed[by_log:])
    assert [version for version in sent if version in later] == committed[by_log:], (
        "a version is missing, or out of order"
    )
    assert slots(tables.url) == [SLOT]


@pytest.mark.parametrize("call", [7, 9])
def test_killed_in_the_snapshot_it_begins_again_and_sends_the_rest(tables: ChangingTables, call: int) -> None:
    execute(tables.url, "INSERT INTO item SELECT n, 'n', n FROM generate_series(1, 60) n")
    server = TwinServer(tables.twin, tables.folder, tables.twin.client("d-1", "changes", tables.key))
    arguments = (str(tables.folder), tables.url.render_as_string(hide_password=False), tables.key.private_bytes_raw())
    try:
        assert server.run(publish_changes, *arguments, killer=Killer(at_call=call)) == KILLED
        acknowledged = len(tables.twin.records("item.v1"))
        assert 0 < acknowledged < 60
        assert slots(tables.url) == []
        everything = "SELECT slot_name FROM pg_replication_slots"
        wait_for(lambda: not query(tables.url, everything), "the temporary slot ends")
        execute(tables.url, "UPDATE item SET amount = 0 WHERE id = 60", "DELETE FROM item WHERE id = 1")
        assert server.run(publish_changes, *arguments) == 0
    finally:
        server.close()
    rows = query(tables.url, "SELECT id, amount FROM item")
    assert {key: record["amount"] for key, record in tables.state().items()} == {str(key): n for key, n in rows}
    sent = [(each.value["id"], each.value["amount"]) for each in tables.twin.records("item.v1") if each.value]
    assert len(sent) == len(set(sent))
    assert slots(tables.url) == [SLOT]

"""SIGKILL at any point: nothing is lost, nothing stands twice, and a target's rows and position are of one moment.

The points are drawn with the seed of the run, which pytest prints; `--seed` sees the same ones again.
"""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.publishing.outbox import OutboundRecord, Outbox, RecordGroup, SourcePosition
from connectors.state.ledger import LaneCheckpoint, Ledger
from schemas.errors import ConflictError, Reason
from schemas.record import NO_ROOT, KeyOccurrence, Operation
from tests.kit.share import random_of
from tests.kit.twins.pool_twin import CONSUMER, POOL_ID, PoolTwin, offset_of
from tests.kit.twins.pool_twin_process import Killer, TwinServer, draw, publish
from tests.kit.world.department import TOPIC, Department, now, row, rows

KILLED = -9
State = dict[str, str | None]


@pytest.fixture
def seed() -> random.Random:
    return random_of("connectors killed")


@pytest.fixture
def department(tmp_path: Path) -> Department:
    return Department(tmp_path)


@pytest.fixture
def server(department: Department, tmp_path: Path) -> Iterator[TwinServer]:
    made = TwinServer(department.twin, tmp_path, department.twin.client("d-1", "drop", department.key))
    yield made
    made.close()


def killers(seed: random.Random, calls: int) -> Iterator[Killer]:
    """Points of death: one of the first calls for certain, then two in three at a call, one in three at some moment."""
    yield Killer(at_call=seed.randint(1, 3), before=True)
    while True:
        if seed.random() < 2 / 3:
            yield Killer(at_call=seed.randint(1, calls), before=seed.random() < 0.5)
        else:
            yield Killer(after_seconds=seed.uniform(0.01, 0.4))


def until_done(
    server: TwinServer,
    target: Any,
    arguments: tuple[Any, ...],
    deaths: Iterator[Killer],
    kills: int,
    after_each: Callable[[int], None] = lambda _: None,
) -> int:
    """Kill so many times, or until it is done before; then let it end."""
    died = 0
    for _ in range(kills):
        code = server.run(target, *arguments, killer=next(deaths))
        assert code in (0, KILLED), f"a connector ended with {code}"
        died += code == KILLED
        after_each(died)
    assert server.run(target, *arguments) == 0
    after_each(died)
    return died


def secret(department: Department) -> bytes:
    return department.key.private_bytes_raw()


def test_a_source_that_is_killed_publishes_each_change_once(
    department: Department, server: TwinServer, tmp_path: Path, seed: random.Random
) -> None:
    """The twin refuses another digest under a known sequence, so every batch that is sent again is the same bytes."""
    deaths = killers(seed, 20)
    arguments = (str(tmp_path), secret(department))
    died = 0
    department.put(rows(90))
    died += until_done(server, publish, arguments, deaths, 8)
    department.put([*(row(number, "2.00") for number in range(30)), *rows(80)[30:]])
    died += until_done(server, publish, arguments, deaths, 6)
    assert died, "nothing was killed: the test shows nothing"
    records = department.twin.records(TOPIC)
    assert Counter(each.mark.operation for each in records) == {Operation.UPSERT: 120, Operation.VOID: 10}
    assert len(department.state()) == 80
    (lane,) = department.twin.lanes.values()
    assert sorted(lane.receipts) == list(range(1, lane.sequence + 1))


def test_a_source_that_changes_while_its_connector_is_dead_is_followed(
    department: Department, server: TwinServer, tmp_path: Path, seed: random.Random
) -> None:
    """What was signed before the change is sent as it was; a batch made again would not be the one the pool has."""
    amounts = dict.fromkeys(range(90), "1.00")

    def change(_: int) -> None:
        for number in seed.sample(range(90), 5):
            amounts[number] = f"{seed.randint(1, 400)}.00"
        department.put([row(number, amount) for number, amount in amounts.items()])

    change(0)
    until_done(server, publish, (str(tmp_path), secret(department)), killers(seed, 20), 14, change)
    assert server.run(publish, str(tmp_path), secret(department)) == 0
    state = department.state()
    assert {key: str(record["amount"]) for key, record in state.items()} == {
        f"{number:04d}": amount for number, amount in amounts.items()
    }
    seen = [each.mark.seen for each in department.twin.records(TOPIC)]
    assert KeyOccurrence.UNKNOWN not in seen, "the ledger was there all the time, and explains what the pool has"
    assert seen.count(KeyOccurrence.FIRST) == 90


def test_a_source_that_is_killed_and_loses_its_ledger_ends_equal(
    department: Department, server: TwinServer, tmp_path: Path, seed: random.Random
) -> None:
    deaths = killers(seed, 20)

    def lose(died: int) -> None:
        if died and died % 3 == 0 and department.ledger_file.exists():
            department.lose_ledger()

    for amount in ("1.00", "2.00"):
        department.put(rows(90, amount=amount))
        until_done(server, publish, (str(tmp_path), secret(department)), deaths, 8, lose)
        assert len(department.state()) == 90
        assert {str(record["amount"]) for record in department.state().values()} == {amount}


def _publish_history(department: Department) -> None:
    """Some versions of some records, with voids and with records that leave the consumer's filter."""
    department.limits = department.limits.__class__(batch_rows=11, accept_deletes=True)
    for content in (
        rows(60),
        [*(row(number, note="b") for number in range(40)), *(row(number, "9.00") for number in range(40, 60))],
        [*(row(number, note="c") for number in range(20)), *rows(75)[50:]],
    ):
        department.put(content)
        department.publish()
    department.twin.grant("g-1", TOPIC, ("id", "note"), lambda record: record["amount"] < 5)


def _state_at(twin: PoolTwin, position: bytes) -> dict[str, str | None]:
    """What a consumer that has everything up to a position holds: id → note."""
    end = offset_of("g-1", position) if position else 0
    state: dict[str, str | None] = {}
    for each in twin.records(TOPIC)[:end]:
        if each.value is not None and each.value["amount"] < 5:
            state[each.key.decode()] = each.value["note"]
        else:
            state.pop(each.key.decode(), None)
    return state


def _sql(url: sa.URL) -> tuple[bytes, State]:
    engine = sa.create_engine(url)
    try:
        if not sa.inspect(engine).has_table("household"):
            return b"", {}
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT position FROM pool_positions").scalar()
            stored = connection.exec_driver_sql("SELECT id, note FROM household WHERE _deleted_at IS NULL").all()
            return base64.b64decode(found or ""), dict(map(tuple, stored))
    finally:
        engine.dispose()


def _parts(folder: Path) -> tuple[bytes, State]:
    """What a reader of manifests sees."""
    state: dict[str, dict[str, Any]] = {}
    told: dict[str, Any] = {"after": ""}
    for manifest in sorted(folder.glob("*.manifest.json")):
        told = json.loads(manifest.read_text())
        for line in (folder / told["file"]).read_text().splitlines():
            record = json.loads(line)
            state.pop(record["_record_key"], None)
            if record["_operation"] == "upsert":
                state[record["_record_key"]] = record
    return base64.b64decode(told["after"]), {each["id"]: each["note"] for each in state.values()}


def _sink_survives(
    department: Department,
    server: TwinServer,
    tmp_path: Path,
    seed: random.Random,
    form: str,
    look: Callable[[], tuple[bytes, State]],
) -> None:
    server.client = department.twin.client(CONSUMER, "sink", department.key)
    _publish_history(department)
    looks = 0

    def consistent(_: int) -> None:
        nonlocal looks
        position, held = look()
        assert held == _state_at(department.twin, position), "rows and position are of different moments"
        looks += bool(position)

    died = until_done(server, draw, (str(tmp_path), form), killers(seed, 34), 10, consistent)
    position, held = look()
    assert held == _state_at(department.twin, position)
    assert offset_of("g-1", position) == len(department.twin.records(TOPIC))
    assert died
    assert looks > 1


def test_a_sqlite_target_s_rows_and_position_are_of_one_moment(
    department: Department, server: TwinServer, tmp_path: Path, seed: random.Random
) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path / 'target.db'}")
    _sink_survives(department, server, tmp_path, seed, str(url), lambda: _sql(url))


@pytest.mark.postgres
def test_a_postgres_target_s_rows_and_position_are_of_one_moment(
    department: Department, server: TwinServer, tmp_path: Path, seed: random.Random, database: sa.URL
) -> None:
    form = database.render_as_string(hide_password=False)
    _sink_survives(department, server, tmp_path, seed, form, lambda: _sql(database))


def test_a_folder_s_parts_are_whole_and_in_order(
    department: Department, server: TwinServer, tmp_path: Path, seed: random.Random
) -> None:
    _sink_survives(department, server, tmp_path, seed, "jsonl", lambda: _parts(tmp_path / "out"))


def test_the_twin_would_notice_another_digest(department: Department) -> None:
    """The control: the same sequence with other rows, well signed, is refused."""
    department.put(rows(20))
    department.publish()
    (lane,) = department.twin.lanes
    ledger = Ledger(department.folder / "other.sqlite3", clock=now)
    ledger.reset_to(LaneCheckpoint(sequence=0, root=NO_ROOT, position=b"", complete=True))
    outbox = Outbox(ledger, POOL_ID, lane, department.key.sign)
    record = OutboundRecord(0x23, b"0001", b"", b"", 0, b"")
    outbox.set_supply(iter([RecordGroup(records=[record], position=SourcePosition(), scope=0)]))
    (batch,) = outbox.stream()
    with pytest.raises(ConflictError) as error:
        department.twin.client("d-1", "drop", department.key).take(lane.topic, batch)
    assert error.value.reason is Reason.SEQUENCE_CONFLICT
    ledger.close()

"""Another pool's records into this one: exactly once over crashes, withdrawals, provenance, a restored pool."""

import json
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.mapping.mapping import Column
from connectors.port import ChangePosition
from connectors.publishing.change_table import ChangePublication
from connectors.publishing.changes import ChangePublisher
from connectors.publishing.outbox import SourcePosition
from connectors.publishing.publication import Limits, Publication
from connectors.sources.pool.provenance import Origin
from connectors.state.ledger import Ledger, RunReport
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.names import Topic
from schemas.record import Operation
from tests.kit.share import random_of
from tests.kit.twins.pool_twin import POOL_ID, PROVIDER, PoolTwin
from tests.kit.world.department import now
from tests.kit.world.other_pool import GRANT, OtherPool
from tests.kit.world.other_pool import TOPIC as THERE

HERE = "item-here.v1"
_TEXT = ["null", "string"]
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Item",
    "key": ["id"],
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "name", "type": _TEXT, "default": None},
        {"name": "came_from", "type": _TEXT, "default": None},
        {"name": "provided_by", "type": _TEXT, "default": None},
        {"name": "first_as", "type": _TEXT, "default": None},
    ],
}
COLUMNS = {
    "_source_pool": Column(target="came_from"),
    "_source_department": Column(target="provided_by"),
    "_source_resource": Column(target="first_as"),
}
STATED = {"came_from": POOL_ID, "provided_by": PROVIDER, "first_as": THERE}


class Bridge:
    """A connector between the two pools; each `publish` is a process of its own."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        self.other = OtherPool(("id", "name"))
        self.here = PoolTwin()
        self.here.publish_schema(HERE, SCHEMA)
        self.columns = dict(COLUMNS)
        self.key = Ed25519PrivateKey.generate()
        self.limits = Limits(give_up_after=20, backoff=0.001, batch_rows=40, **limits)
        self.said: list[str] = []
        self.clock: Callable[[], datetime] = now
        self.stop = threading.Event()

    @property
    def journal(self) -> Path:
        return self.folder / "journal.drawn"

    def publish(self, *, resnapshot: Collection[str] = (), batch_rows: int = 5_000) -> list[RunReport]:
        with ExitStack() as opened:
            ledger = opened.enter_context(closing(Ledger(self.folder / "ledger.sqlite3", clock=self.clock)))
            source = opened.enter_context(
                closing(self.other.source(self.journal, batch_rows=batch_rows, stop=self.stop))
            )
            publication = Publication(topic=Topic.parse(HERE), columns=self.columns)
            publisher = ChangePublisher(
                [ChangePublication(table=GRANT, publication=publication, ledger=ledger, limits=self.limits)],
                source,
                self.here.client(PROVIDER, "bridge", self.key),
                sign=self.key.sign,
                stop=self.stop,
                notify=self.said.append,
                clock=self.clock,
            )
            return publisher.run(once=True, resnapshot=resnapshot)

    def state(self) -> dict[str, Any]:
        return {key.decode(): value for key, value in self.here.state(HERE).items()}

    def expected(self) -> dict[str, Any]:
        return {key.decode(): {**value, **STATED} for key, value in self.other.twin.state(THERE).items()}

    def positions(self) -> list[bytes]:
        (lane,) = self.here.lanes.values()
        return [receipt.source_position for _, receipt in sorted(lane.receipts.items())]


@pytest.fixture
def bridge(tmp_path: Path) -> Bridge:
    return Bridge(tmp_path)


def put(*rows: tuple[str, str | None]) -> list[tuple[str, dict[str, Any]]]:
    return [("put", {"id": key, "name": name}) for key, name in rows]


def test_what_a_grant_delivers_is_published_with_its_provenance(bridge: Bridge) -> None:
    bridge.other.commit(*put(*((str(number), f"人{number}") for number in range(100))))
    snapshot, stream = bridge.publish()
    assert (snapshot.published, stream.read) == (100, 0)
    bridge.other.commit(*put(("100", "𠮷"), ("1", None)))
    bridge.other.commit(("delete", {"id": "2"}))
    (report,) = bridge.publish()
    assert (report.published, report.voided, report.unchanged) == (2, 1, 0)
    assert bridge.state() == bridge.expected()
    # Each batch says by its receipt which release of the other pool it is.
    positions = bridge.positions()
    assert [SourcePosition.parse(each) is not None for each in positions] == [True] * 3 + [False] * 2
    assert len({each[1:17] for each in positions[:3]}) == 1, "the entry of the last release of the snapshot"
    origins = [Origin.parse(change.origin) for each in positions if (change := ChangePosition.parse(each))]
    assert [(origin.grant, origin.pool) for origin in origins if origin] == [(GRANT, POOL_ID)] * 2
    assert len({origin.entry for origin in origins if origin}) == 2, "one release, one batch"
    assert all(len(each) <= 128 for each in positions)
    assert bridge.other.twin.grants[GRANT].committed, "it is acknowledged to the other pool"
    assert bridge.publish()[0].read == 0


def test_a_withdrawal_deletes_the_key_and_leaves_nothing_of_it_here(bridge: Bridge) -> None:
    bridge.other.commit(*put(("1", "erased there"), ("2", "b")))
    bridge.publish()
    bridge.other.commit(*put(("1", "erased there again")))
    bridge.other.commit(("delete", {"id": "1"}))
    bridge.publish()
    assert bridge.state().keys() == {"2"}
    last = bridge.here.records(HERE)[-1]
    assert (last.key, last.mark.operation, last.value) == (b"1", Operation.VOID, None)
    kept = b"".join(each.read_bytes() for each in bridge.folder.glob("journal.drawn*"))
    assert b"erased there" not in kept


def test_a_row_that_leaves_the_grant_is_deleted(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    bridge.other.twin.grants[GRANT].rows = lambda row: row["name"] != "hidden"
    bridge.other.commit(*put(("1", "a"), ("2", "hidden"), ("3", "c")))
    bridge.publish()
    assert bridge.state().keys() == {"1", "3"}
    bridge.other.commit(*put(("1", "hidden"), ("2", "shown"), ("3", "d")))
    bridge.other.commit(("delete", {"id": "2"}), ("delete", {"id": "9"}))
    bridge.publish()
    assert bridge.state().keys() == {"3"}


def test_a_record_whose_key_here_changes_replaces_the_old_key(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    bridge.columns = {"id": Column(exclude=True), "name": Column(target="id"), **COLUMNS}
    bridge.other.commit(*put(("1", "a"), ("2", "b")))
    bridge.publish()
    bridge.other.commit(*put(("1", "c")))
    bridge.publish()
    assert bridge.state().keys() == {"b", "c"}
    bridge.other.commit(("delete", {"id": "1"}))
    bridge.publish()
    assert bridge.state().keys() == {"b"}


def test_the_record_key_of_the_grant_can_be_the_key_here(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    bridge.columns = {"id": Column(exclude=True), "_record_key": Column(target="id"), **COLUMNS}
    bridge.other.commit(*put(("1", "a"), ("2", "b")))
    bridge.publish()
    assert {len(key) for key in bridge.state()} == {32}
    bridge.other.commit(("delete", {"id": "1"}))
    bridge.publish()
    assert [each["name"] for each in bridge.state().values()] == ["b"]


def test_a_restored_pool_is_drawn_from_the_beginning_and_what_it_lost_is_deleted(bridge: Bridge) -> None:
    bridge.other.commit(*put(("1", "a"), ("2", "b"), ("3", "c")))
    backup = bridge.other.twin.back_up()
    bridge.publish()
    bridge.other.commit(*put(("4", "lost"), ("1", "lost")))
    bridge.publish()
    assert bridge.state().keys() == {"1", "2", "3", "4"}
    bridge.other.restore(backup)
    bridge.publish()
    assert bridge.state() == bridge.expected()
    assert any("restored" in text for text in bridge.said)


@pytest.mark.parametrize("changed", [False, True])
def test_a_lost_journal_is_drawn_again_and_what_is_there_is_not_published_twice(
    bridge: Bridge, *, changed: bool
) -> None:
    bridge.other.commit(*put(("1", "a"), ("2", "b")))
    bridge.publish()
    bridge.other.commit(*put(("3", "c")))
    bridge.publish()
    for each in bridge.folder.glob("journal.drawn*"):
        each.unlink()
    before = len(bridge.here.records(HERE))
    if changed:
        bridge.other.commit(("delete", {"id": "1"}), *put(("4", "d")))
    bridge.publish()
    assert bridge.state() == bridge.expected()
    assert len(bridge.here.records(HERE)) == before + 2 * changed
    bridge.other.commit(*put(("5", "e")))
    bridge.publish()
    assert bridge.state() == bridge.expected()


def test_a_grant_that_delivers_nothing_any_more_does_not_empty_the_resource_here(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    bridge.other.commit(*put(*((str(number), "x") for number in range(50))))
    bridge.publish()
    bridge.other.twin.grants[GRANT].rows = lambda _: False
    bridge.columns["name"] = Column(trim=True)  # another mapping: the grant is drawn whole
    with pytest.raises(InvalidError) as stopped:
        bridge.publish()
    assert stopped.value.reason is Reason.DELETE_GUARD
    assert len(bridge.state()) == 50


def test_a_drawing_that_is_stopped_goes_on_with_the_next_run(bridge: Bridge) -> None:
    for number in range(10):
        bridge.other.commit(*put((str(number), "x")))
    drawn: list[str] = []

    def stop_at(point: str) -> None:
        if point == "after fetch":
            drawn.append(point)
            if len(drawn) == 4:
                bridge.stop.set()

    bridge.other.twin.fail = stop_at
    assert bridge.publish() == []
    assert len(drawn) == 4
    bridge.stop.clear()
    assert bridge.publish()[0].published == 10
    assert len(drawn) == 11, "six more releases for the state, and one that finds nothing after it"
    assert bridge.state() == bridge.expected()


def test_a_pool_that_does_not_say_which_release_it_was_is_not_believed(bridge: Bridge) -> None:
    bridge.other.commit(*put(("1", "a")))
    bridge.other.entry = "no-uuid"
    with pytest.raises(CorruptError):
        bridge.publish()
    bridge.other.entry = ""
    bridge.other.pool_id = "p" * 55
    with pytest.raises(InvalidError) as refused:
        bridge.publish()
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert HERE not in bridge.here.topics or not bridge.here.records(HERE)


class Died(BaseException):
    """The process ended here."""


def dying(chance: Callable[[], bool]) -> Callable[[str], None]:
    def fail(_: str) -> None:
        if chance():
            raise Died

    return fail


def test_over_crashes_anywhere_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    seed = random_of("bridge")
    bridge = Bridge(tmp_path, accept_deletes=True)
    deaths = 0

    def run() -> None:
        nonlocal deaths
        for _ in range(200):
            bridge.other.twin.fail = bridge.here.fail = dying(lambda: seed.random() < 0.06)
            try:
                bridge.publish(batch_rows=seed.choice((7, 50)))
            except Died:
                deaths += 1
            else:
                return
            finally:
                bridge.other.twin.fail = bridge.here.fail = lambda _: None
        raise AssertionError("it never came through")

    numbers = iter(range(100_000))
    for _ in range(12):
        for _ in range(seed.randrange(4)):
            known = sorted(each.decode() for each in bridge.other.twin.state(THERE))
            changes = put(*((str(next(numbers)), "new") for _ in range(seed.randrange(30))))
            if known:
                changes += put(*((key, f"v{next(numbers)}") for key in seed.sample(known, min(5, len(known)))))
                changes += [("delete", {"id": key}) for key in seed.sample(known, min(3, len(known)))]
            bridge.other.commit(*changes)
        run()
        assert bridge.state() == bridge.expected()
    assert deaths > 10, "nothing died: the test shows nothing"
    seen: dict[bytes, Any] = {}
    for each in bridge.here.records(HERE):
        assert json.dumps(seen.get(each.key)) != json.dumps(each.value), "a record came twice"
        seen[each.key] = each.value

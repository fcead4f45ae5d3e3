"""What the audit stores promise, on every adapter."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.ledger import AuditLedger
from exchange.audit.store import CheckpointRow, EntryParty, EntryQuery, SigningState, TailQuery
from registry.database.unit_of_work import connection_of
from schemas.access import Action
from schemas.audit import MAX_LEAF_BYTES, AuditEntry, Decision, from_leaf, to_leaf
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, UnavailableError
from schemas.merkle import leaf_hash
from schemas.names import Lane
from tests.kit.cases.audit import (
    CONSUMER,
    LANE,
    PROVIDER,
    START,
    AuditWorld,
    memory_world,
    postgres_world,
    receipt_for,
    stored_keys,
)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def world(request: pytest.FixtureRequest) -> Iterator[AuditWorld]:
    if request.param == "memory":
        yield memory_world()
    else:
        with postgres_world(request.getfixturevalue("engine")) as world:
            yield world


OWNED = frozenset({"population.v1", "nothing.v1"})


def stored(world: AuditWorld) -> list[AuditEntry]:
    """All entries in the order of the log, which they get their places in now."""
    while world.log.assign_indexes(1000):
        pass
    with world.log.placed(0) as leaves:
        return [from_leaf(one.leaf) for one in leaves]


def test_an_entry_is_stored_as_its_leaf_and_nothing_is_lost(world: AuditWorld) -> None:
    entry = world.make.fetch(0, 250)
    [digest] = world.write(world.ledger(), entry)
    [found] = world.entries.find(EntryQuery())
    back = from_leaf(found.leaf)
    assert leaf_hash(found.leaf) == found.leaf_hash == digest
    assert (back.gateway, back.counter) == ("gw0#1", 1)
    assert to_leaf(back) == found.leaf
    for field in ("pool", "id", "at", "actor", "action", "resource", "grant", "purpose", "case", "flow", "data"):
        assert getattr(back, field) == getattr(entry, field)


def test_numbers_of_a_sequence_have_no_gap_though_transactions_fail(world: AuditWorld) -> None:
    ledger = world.ledger()
    for k in range(20):
        with contextlib.suppress(KeyError), world.db.begin() as work:
            ledger.write(work, [world.make.make(), world.make.make()])
            if k % 3 == 1:
                raise KeyError
    assert [entry.counter for entry in stored(world)] == list(range(1, 27))


def test_an_entry_rolled_back_has_never_been(world: AuditWorld) -> None:
    entry = world.make.publish(1)
    ledger = world.ledger()
    with contextlib.suppress(KeyError), world.db.begin() as work:
        [digest] = ledger.write(work, [entry])
        world.receipts.put(work, [(receipt_for(entry, digest), [bytes(16)])])
        raise KeyError
    assert world.entries.find(EntryQuery()) == []
    assert world.log.assign_indexes(10) == 0
    with world.db.begin() as work:
        assert world.receipts.get(work, LANE, 1) is None
        assert world.receipts.last_sequences(work) == {}
    world.write(ledger, entry)
    assert [one.counter for one in stored(world)] == [1]


def test_processes_count_apart_and_a_name_serves_one_start(world: AuditWorld) -> None:
    world.write(world.ledger(), world.make.make())
    world.write(world.ledger(), world.make.make())
    assert [(entry.gateway, entry.counter) for entry in stored(world)] == [("gw0#1", 1), ("gw1#1", 1)]
    with pytest.raises(ConflictError) as caught:
        AuditLedger(world.entries, process="gw0").open(world.db)
    assert caught.value.reason is Reason.ALREADY_EXISTS


def test_a_process_without_sequences_cannot_write(world: AuditWorld) -> None:
    with pytest.raises(CorruptError), world.db.begin() as work:
        AuditLedger(world.entries, process="unheard-of").write(work, [world.make.make()])


def test_an_id_stands_once(world: AuditWorld) -> None:
    entry = world.make.make()
    ledger = world.ledger()
    world.write(ledger, entry)
    with pytest.raises(ConflictError):
        world.write(ledger, entry)
    assert len(world.entries.find(EntryQuery())) == 1


def test_a_process_whose_opening_failed_does_not_count_until_it_is_opened(world: AuditWorld) -> None:
    ledger = AuditLedger(world.entries, process="late")

    def open_in_vain() -> None:
        with world.db.begin() as work:
            world.entries.open_sequences(work, "late")
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            open_in_vain()
        with pytest.raises(CorruptError, match="open its ledger"):
            world.write(ledger, world.make.make())
    ledger.open(world.db)
    world.write(ledger, world.make.make())
    assert [(one.gateway, one.counter) for one in stored(world)] == [("late#1", 1)]


@pytest.mark.parametrize("count", [1, 3])
def test_entries_that_go_with_the_commit_are_there_after_it(world: AuditWorld, count: int) -> None:
    ledger = world.ledger()
    for _ in range(2):
        with world.db.begin() as work:
            hashes = ledger.write(work, [world.make.make() for _ in range(count)], last=True)
        assert {found.leaf_hash for found in world.entries.find(EntryQuery(limit=count))} == set(hashes)
    assert [entry.counter for entry in stored(world)] == list(range(1, 2 * count + 1))


def test_an_entry_that_goes_with_the_commit_and_is_refused_takes_the_act_with_it(world: AuditWorld) -> None:
    entry, publication = world.make.make(), world.make.publish(1)
    ledger = world.ledger()
    [digest] = world.write(ledger, entry)

    def publish() -> None:
        with world.db.begin() as work:
            world.receipts.put(work, [(receipt_for(publication, digest), [])])
            ledger.write(work, [entry], last=True)

    with pytest.raises(ConflictError) as caught:
        publish()
    assert caught.value.reason is Reason.ALREADY_EXISTS
    with world.db.begin() as work:
        assert world.receipts.last_sequences(work) == {}
    world.write(ledger, world.make.make())
    assert [one.counter for one in stored(world)] == [1, 2]


def test_an_entry_that_goes_with_the_commit_is_taken_back_with_the_act(world: AuditWorld) -> None:
    ledger = world.ledger()
    with contextlib.suppress(KeyError), world.db.begin() as work:
        ledger.write(work, [world.make.make()], last=True)
        raise KeyError
    assert world.entries.find(EntryQuery()) == []
    world.write(ledger, world.make.make())
    assert [one.counter for one in stored(world)] == [1]


def test_an_entry_too_long_for_a_leaf_is_refused_and_leaves_no_gap(world: AuditWorld) -> None:
    ledger = world.ledger()
    with pytest.raises(InvalidError):
        world.write(ledger, world.make.make(data={"note": "x" * MAX_LEAF_BYTES}))
    world.write(ledger, world.make.make())
    assert [entry.counter for entry in stored(world)] == [1]


def test_side_by_side_every_sequence_is_without_a_gap(world: AuditWorld) -> None:
    ledger = world.ledger()
    make = threading.Lock()

    def some(seed: int) -> None:
        for k in range(15):
            with make:
                entry = world.make.make()
            with contextlib.suppress(KeyError), world.db.begin() as work:
                ledger.write(work, [entry])
                if (seed + k) % 5 == 0:
                    raise KeyError

    with ThreadPoolExecutor(5) as threads:
        for done in [threads.submit(some, seed) for seed in range(5)]:
            done.result(timeout=60)
    seen: dict[str, list[int]] = {}
    for entry in stored(world):
        seen.setdefault(entry.gateway, []).append(entry.counter)
    assert sum(map(len, seen.values())) == 60
    # Also in the log's order: a verifier needs to remember one number a sequence.
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())


def test_places_are_given_once_and_in_order(world: AuditWorld) -> None:
    ledger = world.ledger()
    world.write(ledger, *[world.make.make() for _ in range(7)])
    assert (world.log.backlog().count, world.log.backlog().oldest) == (7, START + 1000)
    assert world.log.assign_indexes(5) == 5
    assert world.log.assign_indexes(5) == 2
    assert world.log.assign_indexes(5) == 0
    assert (world.log.backlog().count, world.log.backlog().oldest) == (0, None)
    with world.log.placed(0) as leaves:
        first = list(leaves)
    assert [one.index for one in first] == list(range(7))
    world.write(ledger, world.make.make())
    world.log.assign_indexes(5)
    with world.log.placed(0) as leaves:
        assert list(leaves)[:7] == first
    with world.log.placed(2, 4) as leaves:
        assert [one.index for one in leaves] == [2, 3]


def test_an_entry_committed_late_still_gets_its_place(world: AuditWorld) -> None:
    """Transactions commit in another order than they began in: an entry is never skipped for being old."""
    ledger = world.ledger()
    late, early = world.make.make(), world.make.make()
    world.write(ledger, early)
    world.log.assign_indexes(10)
    world.write(ledger, late)
    assert world.log.assign_indexes(10) == 1
    assert world.log.index_of(late.id) == 1
    waiting = world.make.make()
    world.write(ledger, waiting)
    assert world.log.index_of(waiting.id) is None
    for unknown in ("01935f1e-0000-7000-8000-000000000000", "no id", ""):
        with pytest.raises(InvalidError, match="no entry"):
            world.log.index_of(unknown)
        assert world.entries.find(EntryQuery(entry=unknown)) == []


def test_a_checkpoint_of_a_size_stands_once(world: AuditWorld) -> None:
    assert world.log.latest_checkpoint() is None
    row = CheckpointRow(size=3, root=bytes(32), note="a\n", at=START)
    assert world.log.put_checkpoint(row) == row
    again = CheckpointRow(size=3, root=bytes(32), note="b\n", at=START + 1)
    assert world.log.put_checkpoint(again) == row
    larger = CheckpointRow(size=5, root=bytes(32), note="c\n", at=START + 2)
    world.log.put_checkpoint(larger)
    assert world.log.latest_checkpoint() == larger
    with pytest.raises(CorruptError) as caught:
        world.log.put_checkpoint(CheckpointRow(size=3, root=b"\1" * 32, note="d\n", at=START))
    assert caught.value.reason is Reason.LOG_CORRUPT
    assert world.log.put_checkpoint(again) == row


def test_an_entry_is_covered_by_the_first_checkpoint_behind_it(world: AuditWorld) -> None:
    rows = [CheckpointRow(size=size, root=bytes(32), note=f"{size}", at=START) for size in (2, 5, 9)]
    for row in rows:
        world.log.put_checkpoint(row)
    covering = [world.log.covering_checkpoint(index) for index in (0, 1, 2, 4, 5, 8)]
    assert covering == [rows[0], rows[0], rows[1], rows[1], rows[2], rows[2]]
    assert world.log.covering_checkpoint(9) is None


def test_no_places_are_given_once_placed_entries_are_missing(world: AuditWorld) -> None:
    world.write(world.ledger(), world.make.make(), world.make.make())
    world.log.assign_indexes(10)
    world.log.put_checkpoint(CheckpointRow(size=3, root=bytes(32), note="x\n", at=START))
    with pytest.raises(CorruptError):
        world.log.assign_indexes(10)


def test_receipts_are_found_by_lane_and_sequence(world: AuditWorld) -> None:
    ledger = world.ledger()
    other = Lane.parse(f"{PROVIDER}/second-drop/population.v1")
    first, second, third = world.make.publish(1), world.make.publish(2), world.make.publish(7, lane=other)
    hashes = world.write(ledger, first, second, third)
    with world.db.begin() as work:
        assert world.receipts.get(work, LANE, 1) == receipt_for(first, hashes[0])
        assert world.receipts.get(work, LANE, 3) is None
        assert world.receipts.last(work, LANE) == receipt_for(second, hashes[1])
        assert world.receipts.last(work, Lane.parse(f"{PROVIDER}/none/population.v1")) is None
        assert world.receipts.last_sequences(work) == {LANE: 2, other: 7}
    with pytest.raises(ConflictError), world.db.begin() as work:
        world.receipts.put(work, [(receipt_for(world.make.publish(2), hashes[1]), [])])


def test_of_receipts_one_of_which_is_known_none_is_stored(world: AuditWorld) -> None:
    ledger = world.ledger()
    known, new, newer = (world.make.publish(number) for number in (1, 2, 3))
    with world.db.begin() as work:
        [digest] = ledger.write(work, [known])
        world.receipts.put(work, [(receipt_for(known, digest), [])])

    def put_both() -> None:
        with world.db.begin() as work:
            hashes = ledger.write(work, [new, newer])
            again = replace(receipt_for(newer, hashes[1]), sequence=receipt_for(known, digest).sequence)
            world.receipts.put(work, [(receipt_for(new, hashes[0]), []), (again, [])])

    with pytest.raises(ConflictError, match="has a receipt"):
        put_both()
    with world.db.begin() as work:
        assert world.receipts.last_sequences(work) == {
            receipt_for(known, digest).lane: receipt_for(known, digest).sequence
        }


def test_pseudonyms_are_forgotten_and_the_receipt_stays(world: AuditWorld) -> None:
    entry = world.make.publish(1)
    [digest] = world.write(world.ledger(), entry)
    with world.db.begin() as work:
        assert world.receipts.prune_keys(work, entry.at) == 0
        assert stored_keys(world, work, 1) == tuple(bytes([k]) * 16 for k in range(10))
        assert world.receipts.prune_keys(work, entry.at + 1) == 1
        assert stored_keys(world, work, 1) is None
        assert world.receipts.get(work, LANE, 1) == receipt_for(entry, digest)


def label(value: object) -> str:
    """Return the name of a case, the same in every process: a set has no order of its own."""
    if not isinstance(value, EntryQuery) or value.party is None:
        return str(value)
    return f"{value.party.department} {sorted(value.party.resources)} {replace(value, party=None)}"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (EntryQuery(), ["denied", "fetch", "publish"]),
        (EntryQuery(limit=1), ["denied"]),
        (EntryQuery(department=CONSUMER), ["denied", "fetch"]),
        (EntryQuery(department=PROVIDER), ["publish"]),
        (EntryQuery(purpose="social-insurance"), ["fetch"]),
        (EntryQuery(case="2026-001", grant="g-1", action=Action.FETCH), ["fetch"]),
        (EntryQuery(case="2026-002"), []),
        (EntryQuery(decision="deny"), ["denied"]),
        (EntryQuery(resource="credit.v1"), ["denied"]),
        (EntryQuery(actor="civil-drop"), ["publish"]),
        (EntryQuery(actor="hr-sink", decision="allow"), ["fetch"]),
        (EntryQuery(actor="hr-sink", department=PROVIDER), []),
        (EntryQuery(reason=Reason.GRANT_SUSPENDED), ["denied"]),
        (EntryQuery(reason=Reason.GRANT_EXPIRED), []),
        (EntryQuery(party=EntryParty(department=CONSUMER, resources=frozenset())), ["denied", "fetch"]),
        (EntryQuery(party=EntryParty(department=PROVIDER, resources=OWNED)), ["fetch", "publish"]),
        (EntryQuery(party=EntryParty(department=PROVIDER, resources=OWNED), limit=1), ["fetch"]),
        (EntryQuery(party=EntryParty(department=PROVIDER, resources=OWNED), department=CONSUMER), ["fetch"]),
        (EntryQuery(party=EntryParty(department=PROVIDER, resources=OWNED), resource="credit.v1"), []),
        (EntryQuery(party=EntryParty(department=CONSUMER, resources=OWNED)), ["denied", "fetch", "publish"]),
        (EntryQuery(party=EntryParty(department="another", resources=frozenset({"credit.v1"}))), ["denied"]),
        (EntryQuery(since=START + 2000), ["denied", "fetch"]),
        (EntryQuery(until=START + 2000), ["publish"]),
    ],
    ids=label,
)
def test_a_search_finds_what_fits_newest_first(world: AuditWorld, query: EntryQuery, expected: list[str]) -> None:
    publish, fetch = world.make.publish(1), world.make.fetch(0, 10)
    denied = world.make.make(
        Action.FETCH, decision=Decision.DENY, reason=Reason.GRANT_SUSPENDED, resource="credit.v1", actor=fetch.actor
    )
    names = {publish.id: "publish", fetch.id: "fetch", denied.id: "denied"}
    world.write(world.ledger(), publish, fetch, denied)
    assert [names[from_leaf(found.leaf).id] for found in world.entries.find(query)] == expected
    [found] = world.entries.find(EntryQuery(entry=fetch.id))
    assert from_leaf(found.leaf).id == fetch.id


@pytest.mark.parametrize("party", [None, EntryParty(department=PROVIDER, resources=OWNED)], ids=["all", "party"])
def test_pages_of_a_search_follow_each_other(world: AuditWorld, party: EntryParty | None) -> None:
    """Entries of one moment too: the place of an entry is its time and its row."""
    ledger = world.ledger()
    entries = [world.make.make(at=START + 5 * (k // 4)) for k in range(22)]
    world.write(ledger, *entries)
    found, after = [], None
    while page := world.entries.find(EntryQuery(limit=3, after=after, party=party)):
        found += page
        after = page[-1].place
        world.write(ledger, world.make.make())  # what is written meanwhile is newer
    assert [from_leaf(one.leaf).id for one in found] == [entry.id for entry in reversed(entries)]


def test_a_resource_with_a_long_name_is_its_provider_s(world: AuditWorld) -> None:
    """PostgreSQL's own type of names ends after 63 bytes."""
    long = f"{'gov' * 30}.population.v1"
    made = world.make.make(resource=long)
    world.write(world.ledger(), made)
    party = EntryParty(department=PROVIDER, resources=frozenset({long}))
    assert [from_leaf(one.leaf).id for one in world.entries.find(EntryQuery(party=party))] == [made.id]


def test_an_account_named_as_a_topic_makes_no_entry_of_the_topic_s_department(world: AuditWorld) -> None:
    """Nor does a connector or an entry: a department may choose their names, and see nothing by them."""
    actions = (Action.USER_ADD, Action.CONNECTOR_ENROL, Action.AUDIT_PROVE)
    world.write(world.ledger(), *(world.make.make(action, resource="population.v1") for action in actions))
    assert world.entries.find(EntryQuery(party=EntryParty(department=PROVIDER, resources=OWNED))) == []


def test_the_log_is_read_on_from_an_index_by_reason_and_by_action(world: AuditWorld) -> None:
    make = world.make
    denied = [make.make(Action.FETCH, decision=Decision.DENY, reason=Reason.PURPOSE_MISMATCH) for _ in range(3)]
    other = make.make(Action.FETCH, decision=Decision.DENY, reason=Reason.QUOTA_EXHAUSTED)
    act = make.make(Action.CATALOGUE_PUBLISH)
    entries = [make.fetch(0, 9), denied[0], other, denied[1], act, denied[2]]
    ledger = world.ledger()
    world.write(ledger, *entries)
    wanted = frozenset({"purpose_mismatch"}), frozenset({str(Action.CATALOGUE_PUBLISH)})

    def tail(start: int, span: int = 100) -> tuple[list[str], int]:
        found = world.entries.tail(TailQuery(start=start, span=span, reasons=wanted[0], actions=wanted[1]))
        return [from_leaf(one.leaf).id for one in found.leaves], found.end

    assert tail(0) == ([], 0), "without an index an entry waits for it"
    stored(world)
    ids = [one.id for one in entries]
    assert tail(0) == ([ids[1], ids[3], ids[4], ids[5]], 6)
    assert tail(0, 4) == ([ids[1], ids[3]], 4)
    assert tail(4, 1) == ([ids[4]], 5)
    assert tail(6) == ([], 6)
    assert tail(9) == ([], 6), "the log is shorter"
    world.write(ledger, make.make(Action.CATALOGUE_PUBLISH), other := make.make(Action.CATALOGUE_PUBLISH))
    stored(world)
    assert tail(7) == ([other.id], 8)
    assert world.entries.tail(TailQuery(start=0, span=100)).leaves == []


def test_a_caller_without_identity_leaves_an_entry_too(world: AuditWorld) -> None:
    world.write(world.ledger(), world.make.make(actor=None, decision=Decision.DENY, reason=Reason.NO_IDENTITY))
    [entry] = stored(world)
    assert (entry.actor, entry.reason) == (None, Reason.NO_IDENTITY)


@pytest.mark.postgres
def test_an_open_transaction_keeps_nobody_from_writing(engine: sa.Engine) -> None:
    """A sequence is in use until its transaction ends; the others go on, and the log does not wait for it."""
    with postgres_world(engine) as world:
        ledger = world.ledger()
        with world.db.begin() as slow:
            ledger.write(slow, [world.make.make()])
            world.write(ledger, world.make.make(), world.make.make())
            assert world.log.assign_indexes(10) == 2
        assert world.log.assign_indexes(10) == 1


@pytest.mark.postgres
def test_who_finds_every_sequence_in_use_opens_another_and_sequences_are_used_again(engine: sa.Engine) -> None:
    with postgres_world(engine) as world:
        ledger = world.ledger()
        with world.db.begin() as first:
            ledger.write(first, [world.make.make()])
            with contextlib.suppress(KeyError), world.db.begin() as failing:
                ledger.write(failing, [world.make.make()])
                raise KeyError
            with world.db.begin() as third:
                ledger.write(third, [world.make.make()])
                ledger.write(third, [world.make.make()])
        world.write(ledger, world.make.make())
        assert sorted((one.gateway, one.counter) for one in stored(world)) == [
            ("gw0#1", 1),
            ("gw0#1", 2),
            ("gw0#3", 1),
            ("gw0#3", 2),
        ]


@pytest.mark.postgres
def test_a_sequence_whose_outcome_is_unknown_is_abandoned(engine: sa.Engine) -> None:
    """The connection is lost with the commit: the entry may stand or not, and no number is given twice."""
    with postgres_world(engine) as world:
        ledger = world.ledger()
        world.write(ledger, world.make.make())

        def write_and_lose() -> None:
            with world.db.begin() as work:
                ledger.write(work, [world.make.make()], last=True)
                driver: Any = connection_of(work).connection.dbapi_connection
                with engine.connect() as other:
                    end = sa.text("SELECT pg_terminate_backend(:pid, 5000)")
                    other.execute(end, {"pid": driver.info.backend_pid})

        with pytest.raises(UnavailableError) as caught:
            write_and_lose()
        assert caught.value.reason is Reason.OUTCOME_UNKNOWN
        world.write(ledger, world.make.make())
        assert [(one.gateway, one.counter) for one in stored(world)] == [("gw0#1", 1), ("gw0#2", 1)]


@pytest.mark.postgres
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("count", [1, 2])  # alone and with another, since these are two statements
@pytest.mark.parametrize("attack", ["UPDATE audit_line SET counter = counter + 1", "DELETE FROM audit_line"])
def test_a_sequence_that_another_program_changes_stops_one_act(
    engine: sa.Engine, attack: str, count: int, *, last: bool
) -> None:
    with postgres_world(engine) as world:
        ledger = world.ledger()
        world.write(ledger, world.make.make())
        with engine.begin() as other:
            other.execute(sa.text(attack))

        def act() -> None:
            with world.db.begin() as work:
                ledger.write(work, [world.make.make() for _ in range(count)], last=last)

        with pytest.raises(CorruptError) as caught:
            act()
        assert caught.value.reason is Reason.LOG_CORRUPT
        assert len(world.entries.find(EntryQuery())) == 1
        act()  # with another sequence
        assert [one.gateway for one in stored(world)] == ["gw0#1"] + ["gw0#2"] * count


@pytest.mark.postgres
def test_two_sequencers_never_give_places_at_the_same_time(engine: sa.Engine) -> None:
    with postgres_world(engine) as world:
        world.write(world.ledger(), world.make.make())
        with engine.begin() as other:
            other.execute(sa.text("SELECT pg_advisory_xact_lock(7092442203119412340)"))
            assert world.log.assign_indexes(10) is None
        assert world.log.assign_indexes(10) == 1


def test_the_signing_state_names_the_oldest_entry_that_no_checkpoint_covers(world: AuditWorld) -> None:
    assert world.log.signing_state() == SigningState(size=0, root=b"", oldest=None)
    ledger = world.ledger()
    entries = [world.make.make() for _ in range(4)]
    world.write(ledger, *entries)
    assert world.log.signing_state().oldest == (entries[0].id, entries[0].at), "no entry has an index"
    assert world.log.assign_indexes(3) == 3
    assert world.log.signing_state().oldest == (entries[0].id, entries[0].at), "three have one, and nothing is signed"
    world.log.put_checkpoint(CheckpointRow(size=2, root=b"r" * 32, note="note", at=START))
    assert world.log.signing_state() == SigningState(size=2, root=b"r" * 32, oldest=(entries[2].id, entries[2].at))
    world.log.put_checkpoint(CheckpointRow(size=3, root=b"s" * 32, note="note", at=START))
    assert world.log.signing_state().oldest == (entries[3].id, entries[3].at)
    world.log.assign_indexes(3)
    world.log.put_checkpoint(CheckpointRow(size=4, root=b"t" * 32, note="note", at=START))
    assert world.log.signing_state() == SigningState(size=4, root=b"t" * 32, oldest=None)

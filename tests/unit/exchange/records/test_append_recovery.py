"""Batches that a gateway had committed when it died: every one gets its entry and receipt, whoever comes next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.access.decision.roles import Standing
from exchange.audit.ledger import AuditLedger
from exchange.audit.memory import MemoryAudit
from exchange.audit.store import EntryQuery
from exchange.authorization.attributes import PublisherAttributes
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.serving import ServingGuard
from exchange.broker.port import Appended, Ends, LaneFault, LaneState, PartitionRecords, ReadResult
from exchange.erasure.retractions import NO_RETRACTIONS, MemoryRetractions
from exchange.records import append_recovery
from exchange.records.append_recovery import AppendRecovery
from exchange.records.receipts import LaneReceipts
from registry.database.unit_of_work import MemoryDatabase, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Allow, Role
from schemas.errors import ConflictError, CorruptError, Reason, UnavailableError
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import OffsetRange, Positions, Receipt

DEPARTMENT = "01890000-0000-7000-8000-000000000001"
TOPIC = Topic.parse("permits.v1")
LANE = Lane(DEPARTMENT, ConnectorId("source"), TOPIC)
ACTOR = Actor(kind=ActorKind.MACHINE, id="source", department=DEPARTMENT, role=Role.CONNECTOR)
CALL = RequestContext(trace="1" * 32)
NOW = 1_800_000_000_000_000


class Committed:
    """A broker that remembers batches 1 to 3, which were committed a second ago, together."""

    def __init__(self) -> None:
        receipts = tuple(
            Appended(
                lane=LANE,
                sequence=number,
                digest=bytes([number]) * 32,
                source_position=b"",
                recorded_at=NOW - 1_000_000,
                count=10,
                runs=(OffsetRange(partition=0, first=10 * number, last=10 * number + 9),),
            )
            for number in (1, 2, 3)
        )
        self.state = LaneState(lane=LANE, receipts=receipts)

    def resume(self, _: Lane) -> LaneState:
        return self.state

    def lanes(self) -> Iterator[LaneState | LaneFault]:
        yield self.state

    def ends(self, _: Topic) -> Ends:
        return Ends(earliest=(0,), latest=(60,))

    def read(self, _: Topic, after: Positions, **__: int) -> ReadResult:
        """Return twenty records from there on; those at 15, 25 and 55 are voids, the one at 25 with a valid time."""
        offsets = range(after[0], min(after[0] + 20, 60))
        records = PartitionRecords(
            partition=0,
            offsets=offsets,
            keys=[bytes([offset]) * 16 for offset in offsets],
            values=[None if offset in {15, 25, 55} else b"value" for offset in offsets],
            recorded_at=[NOW] * len(offsets),
            mark=lambda _: 3,
            valid=lambda index: bytes([offsets[index] == 25]) * 16,
        )
        return ReadResult(partitions=(records,), next=(offsets.stop,))


class Nothing:
    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class Pool:
    def __init__(self) -> None:
        self.db = MemoryDatabase()
        self.audit = MemoryAudit(self.db)
        self.retractions = MemoryRetractions()
        self.now = NOW

    def recovery(self, store: Any = None) -> AppendRecovery:
        ledger = AuditLedger(self.audit, process=f"gateway@{id(object())}")
        ledger.open(self.db)
        known: Any = Nothing()
        known.current = lambda *_: PublisherAttributes(standing=Standing.ACTIVE, resource=None, signing_key=None)
        return AppendRecovery(
            database=self.db,
            enforcer=Enforcer(self.db, ledger, pool_id="pool", clock=lambda: self.now),
            attributes=known,
            broker=Committed(),  # type: ignore[arg-type]
            receipts=LaneReceipts(
                ledger=ledger,
                store=store or self.audit,
                retractions=self.retractions,
                signer=Ed25519PrivateKey.generate(),
            ),
            serving=ServingGuard(),
            clock=lambda: self.now,
            sleep=lambda _: None,
        )

    def receipts(self) -> list[int]:
        with self.db.begin() as work:
            return [number for number in (1, 2, 3) if self.audit.get(work, LANE, number)]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(append_recovery, "decide", lambda *_, **__: Allow())
    return Pool()


def test_a_resume_writes_what_is_missing_of_all_that_the_broker_remembers(pool: Pool) -> None:
    receipt = pool.recovery().resume(ACTOR, CALL, TOPIC)
    assert receipt is not None
    assert receipt.sequence == 3
    assert pool.receipts() == [1, 2, 3], "the broker may forget the first ones before the sweeper comes"
    assert len(pool.audit.find(EntryQuery(action=str(Action.PUBLISH)))) == 3


def test_the_retractions_of_what_is_missing_are_found_again(pool: Pool) -> None:
    pool.recovery().resume(ACTOR, CALL, TOPIC)
    with pool.db.read() as reader:
        found = pool.retractions.newer(reader, TOPIC, NO_RETRACTIONS, 100)[0]
    assert [(one.position, one.key) for one in found] == [(15, bytes([15]) * 16)], "one with a valid time is none"


def test_the_sweeper_leaves_alone_what_its_gateway_is_about_to_write(pool: Pool) -> None:
    recovery = pool.recovery()
    assert recovery.sweep(print) == 0
    pool.now += 60_000_000
    assert recovery.sweep(print) == 3
    assert recovery.sweep(print) == 0
    assert pool.receipts() == [1, 2, 3]


def test_a_lane_that_fails_keeps_no_other_from_its_entries(pool: Pool) -> None:
    recovery = pool.recovery()
    broken = replace(LANE, connector=ConnectorId("broken"))
    good = recovery._broker.lanes
    receipts = Committed().state.receipts
    unreadable = LaneFault(name="no lane's name", error=CorruptError(Reason.LOG_CORRUPT, "cannot be read"))

    def lanes() -> Iterator[LaneState | LaneFault]:
        yield unreadable
        yield LaneState(lane=broken, receipts=tuple(replace(one, lane=broken) for one in receipts))
        yield from good()

    class Half:
        def get(self, work: UnitOfWork, lane: Lane, sequence: int) -> Receipt | None:
            if lane == broken:
                raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "this lane's page is damaged")
            return pool.audit.get(work, lane, sequence)

        def put(
            self,
            work: UnitOfWork,
            receipts: Sequence[tuple[Receipt, Sequence[bytes]]],
            void_leaves: Mapping[int, bytes] | None = None,
        ) -> None:
            pool.audit.put(work, receipts, void_leaves)

    recovery = pool.recovery(Half())
    recovery._broker.lanes = lanes  # type: ignore[method-assign]
    pool.now += 60_000_000
    told: list[LaneFault] = []
    with pytest.raises(UnavailableError):
        recovery.sweep(told.append)
    assert told == [unreadable]
    assert pool.receipts() == [1, 2, 3]


def test_two_who_recover_the_same_batch_write_it_once(pool: Pool) -> None:
    """Both look, see nothing, and write: the second finds the first one's receipt."""

    class Raced:
        def __init__(self, store: MemoryAudit) -> None:
            self.store = store
            self.raced = False

        def get(self, work: UnitOfWork, lane: Lane, sequence: int) -> Receipt | None:
            return self.store.get(work, lane, sequence)

        def last(self, work: UnitOfWork, lane: Lane) -> Receipt | None:
            return self.store.last(work, lane)

        def put(
            self,
            work: UnitOfWork,
            receipts: Sequence[tuple[Receipt, Sequence[bytes]]],
            void_leaves: Mapping[int, bytes] | None = None,
        ) -> None:
            if not self.raced:
                self.raced = True
                raise ConflictError(Reason.ALREADY_EXISTS, "another gateway was faster")
            self.store.put(work, receipts, void_leaves)

    receipt = pool.recovery(Raced(pool.audit)).resume(ACTOR, CALL, TOPIC)
    assert receipt is not None
    assert pool.receipts() == [1, 2, 3]
    assert len(pool.audit.find(EntryQuery(action=str(Action.PUBLISH)))) == 3

"""Audit worlds for tests: entries out of nothing, and the three stores over one backend."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.audit.ledger import AuditLedger
from exchange.audit.memory import MemoryAudit
from exchange.audit.note import FileSigner
from exchange.audit.postgres import PostgresEntries, PostgresReceipts, metadata
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.sequencer import Sequencer
from exchange.audit.store import EntryStore, LogStore, ReceiptStore
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase, UnitOfWork, connection_of
from schemas.access import Action, Actor, ActorKind, Role
from schemas.audit import AuditEntry, Flow, GrantRef, fetch_data, publish_data
from schemas.canonical import Json
from schemas.identifiers import uuid7
from schemas.names import Lane
from schemas.record import OffsetRange, Receipt
from tests.kit.row_tags import entry_tags

POOL = "test-pool"
START = 1_795_000_000_000_000  # November 2026, microseconds UTC
CONSUMER = "01935f1e-0000-7000-8000-00000000000c"
PROVIDER = "01935f1e-0000-7000-8000-00000000000d"
LANE = Lane.parse(f"{PROVIDER}/civil-drop/population.v1")
READER = Actor(kind=ActorKind.MACHINE, id="hr-sink", department=CONSUMER, role=Role.CONNECTOR, certificate="2a")
WRITER = Actor(kind=ActorKind.MACHINE, id="civil-drop", department=PROVIDER, role=Role.CONNECTOR, certificate="2b")
OWNER = Actor(kind=ActorKind.HUMAN, id="owner", department=PROVIDER, role=Role.SHARING_OFFICE_HEAD)


@dataclass
class Entries:
    """Makes entries, each a millisecond after the one before."""

    now: int = START
    salts: Iterator[int] = field(default_factory=itertools.count)

    def make(self, action: Action | str = Action.CATALOGUE_READ, **fields: Any) -> AuditEntry:
        self.now += 1000
        given: dict[str, Any] = {
            "pool": POOL,
            "id": uuid7(self.now),
            "at": self.now,
            "gateway": "",
            "salt": f"{next(self.salts):032x}",
            "actor": READER,
            "action": action,
            "resource": "population.v1",
        }
        return AuditEntry(**(given | fields))

    def grant(self, version: int, digest: str, action: Action = Action.GRANT_PROVISION, **fields: Any) -> AuditEntry:
        return self.make(action, actor=OWNER, grant=GrantRef(id="g-1", version=version, hash=digest), **fields)

    def fetch(self, start: int, end: int, *, version: int = 3, digest: str = "cc" * 32, **data: Json) -> AuditEntry:
        facts = fetch_data(
            generation=1,
            start=(start,),
            end=(end,),
            delivered=[range(start, end)],
            withdrawn=[[]],
            root=bytes(32),
        )
        return self.make(
            Action.FETCH,
            grant=GrantRef(id="g-1", version=version, hash=digest),
            purpose="social-insurance",
            case="2026-001",
            flow=Flow.HORIZONTAL,
            data=facts | data,
        )

    def publish(self, sequence: int, *, lane: Lane = LANE) -> AuditEntry:
        runs = (OffsetRange(partition=0, first=10 * sequence, last=10 * sequence + 9),)
        data = publish_data(
            lane=str(lane), sequence=sequence, count=10, schema_ids=[1], root=root_of_batch(sequence), runs=runs
        )
        return self.make(Action.PUBLISH, actor=WRITER, data=data)


def root_of_batch(sequence: int) -> bytes:
    return sequence.to_bytes(32, "big")


def receipt_for(entry: AuditEntry, leaf_hash: bytes) -> Receipt:
    """What the pool would answer to the batch of this publication."""
    data: Mapping[str, Any] = entry.data
    return Receipt(
        lane=Lane.parse(data["lane"]),
        sequence=data["sequence"],
        root=bytes.fromhex(data["root"]),
        runs=tuple(OffsetRange(partition=p, first=a, last=b) for p, a, b in data["runs"]),
        entry_id=entry.id,
        leaf_hash=leaf_hash,
        source_position=b"line 10",
        signature=bytes(64),
    )


@dataclass
class AuditWorld:
    """The audit room over one backend."""

    db: Database
    entries: EntryStore
    receipts: ReceiptStore
    log: LogStore
    make: Entries = field(default_factory=Entries)
    ledgers: Iterator[int] = field(default_factory=itertools.count)

    def ledger(self) -> AuditLedger:
        ledger = AuditLedger(self.entries, process=f"gw{next(self.ledgers)}")
        ledger.open(self.db)
        return ledger

    def write(self, ledger: AuditLedger, *entries: AuditEntry) -> list[bytes]:
        """Write entries, each in a transaction of its own; publications with their receipts."""
        hashes = []
        for entry in entries:
            with self.db.begin() as work:
                hashes += ledger.write(work, [entry])
                if entry.action == Action.PUBLISH:
                    keys = [bytes([k]) * 16 for k in range(10)]
                    self.receipts.put(work, [(receipt_for(entry, hashes[-1]), keys)])
        return hashes


def stored_keys(world: AuditWorld, work: UnitOfWork, sequence: int) -> tuple[bytes, ...] | None:
    """The pseudonyms beside a receipt of `LANE`, as each adapter stores them; None once pruned."""
    if isinstance(world.receipts, MemoryAudit):
        return world.receipts._receipts[LANE, sequence].keys
    query = sa.text("SELECT keys FROM audit_receipt WHERE lane = :lane AND sequence = :sequence")
    packed = connection_of(work).execute(query, {"lane": str(LANE), "sequence": sequence}).scalar_one()
    return None if packed is None else tuple(bytes(packed[at : at + 16]) for at in range(0, len(packed), 16))


def memory_world() -> AuditWorld:
    db = MemoryDatabase()
    store = MemoryAudit(db)
    return AuditWorld(db, store, store, store)


@contextmanager
def postgres_world(engine: sa.Engine) -> Iterator[AuditWorld]:
    metadata.create_all(engine)
    # A test that waits for itself must fail, not hang: nothing here may wait long for a lock.
    sa.event.listen(engine, "connect", lambda connection, _: _impatient(connection))
    engine.dispose()
    yield AuditWorld(
        PostgresDatabase(engine),
        PostgresEntries(engine, entry_tags()),
        PostgresReceipts(),
        PostgresLog(engine, entry_tags()),
    )


def _impatient(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '20s'")
    connection.commit()


def ticking(start: int = START, step: int = 1000) -> Callable[[], int]:
    """A clock that goes on by *step* microseconds a look."""
    ticks = itertools.count(start, step)
    return lambda: next(ticks)


ORIGIN = "pool.example.gov/audit"


@dataclass
class LogWorld:
    """An audit world with its log: a folder, a signing key and a sequencer."""

    world: AuditWorld
    folder: Path
    signer: FileSigner = field(default_factory=lambda: FileSigner(ORIGIN, Ed25519PrivateKey.generate()))
    clock: Callable[[], int] = field(default_factory=lambda: ticking(step=1_000_000))

    def sequencer(self, **changes: Any) -> Sequencer:
        given: dict[str, Any] = {"signer": self.signer, "origin": ORIGIN, "clock": self.clock}
        return Sequencer(self.world.log, self.folder, **(given | changes))

    def note(self) -> str:
        return (self.folder / "checkpoint").read_text()

    def fill(self, ledger: AuditLedger, count: int) -> None:
        """Write so many entries, a hundred a transaction."""
        for start in range(0, count, 100):
            entries = [self.world.make.make() for _ in range(min(100, count - start))]
            with self.world.db.begin() as work:
                ledger.write(work, entries)


def leaves_of(world: AuditWorld) -> list[bytes]:
    with world.log.placed(0) as leaves:
        return [one.leaf for one in leaves]

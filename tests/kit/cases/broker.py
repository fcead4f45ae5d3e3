"""What the broker's contract suite needs of an adapter under test, and the batches it appends.

A `Rig` is one backend (a log, a database, a cluster) with the means to hurt it. The suite never looks inside: it
asks the rig for adapters over that backend, several at a time, as several gateways would.
"""

import hashlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from exchange.broker.port import Append, Appended, Broker
from registry.database.unit_of_work import UnitOfWork
from schemas.names import ConnectorId, Lane, ResourceName, Topic
from schemas.record import KeyOccurrence, Mark, OffsetRange, Operation, Positions, frame

DEPARTMENT = "01890000-0000-7000-8000-000000000001"
MILLISECOND = 1_000
SECOND = 1_000_000
# An hour ago: a broker may refuse times that are ahead of its clock. Whole milliseconds, since Kafka keeps no finer.
START = (int(time.time()) - 3600) * SECOND

UPSERT = int(Mark(Operation.UPSERT, KeyOccurrence.FIRST))
CORRECT = int(Mark(Operation.CORRECT, KeyOccurrence.AGAIN))
VOID = int(Mark(Operation.VOID, KeyOccurrence.UNKNOWN))

KEY = bytes(range(32))  # of the tags of stored records
PATIENCE = 30.0  # seconds that a hint may take on a busy machine; a test that waits so long has failed


class Rig(Protocol):
    """One backend under test."""

    joins_work: bool
    """Whether the commit hook gets the open transaction, so that one that raises rolls the records back."""

    erases: bool
    """Whether `Broker.erase` destroys values here."""

    def broker(self) -> Broker:
        """Return another adapter (a gateway of its own, a restart) over the same backend; the rig closes it."""
        ...

    def operator(self) -> Broker:
        """Return an adapter that may also change what a topic keeps."""
        ...

    def make_unavailable(self) -> None:
        """Take the backend down for every adapter."""
        ...

    def fill_disk(self) -> bool:
        """Let appends fail for want of room in the middle of a batch; False where that cannot be brought about."""
        ...

    def restore(self) -> None:
        """Undo `make_unavailable` and `fill_disk`; nothing if neither was done."""
        ...

    def retain(self, topic: Topic, now: int) -> None:
        """Let retention remove, now and not some day, what is older than `now` (microseconds) allows."""
        ...

    def spoil(self, lane: Lane) -> bool:
        """Make the lane's receipts unreadable, past every adapter; False where there is nothing to spoil."""
        ...

    def compact(self, topic: Topic) -> bool:
        """Let compaction of a `Retention.LATEST` topic run, now and not some day; False where that cannot be forced."""
        ...


@dataclass(frozen=True, slots=True)
class Read:
    """One record as a reader got it."""

    partition: int
    position: int
    key: bytes
    value: bytes | None
    recorded_at: int
    mark: int
    valid: bytes


@dataclass
class HookCalls:
    """A commit hook that records its calls, and raises if told so."""

    error: BaseException | None = None
    calls: list[tuple[UnitOfWork | None, tuple[Appended, ...]]] = field(default_factory=list)

    def __call__(self, work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
        self.calls.append((work, tuple(appended)))
        if self.error is not None:
            raise self.error


def no_hook(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
    """Do nothing: a commit hook for tests that need none."""


def fresh_topic(name: str = "suite") -> Topic:
    """Name a topic that no other test uses."""
    return Topic(ResourceName(f"{name}-{uuid.uuid4().hex[:12]}"), 1)


def lane_of(topic: Topic, connector: str = "c1") -> Lane:
    """Name a lane of the topic."""
    return Lane(DEPARTMENT, ConnectorId(connector), topic)


def key_of(index: int) -> bytes:
    """Return the 16-byte pseudonym of one person."""
    return hashlib.sha256(b"person %d" % index).digest()[:16]


def partition_of(key: bytes, partitions: int = 4) -> int:
    """Return a key's partition, as the gateway computes it."""
    return int.from_bytes(key[:8], "big") % partitions


def batch(
    lane: Lane,
    sequence: int,
    people: Iterable[int] = range(8),
    *,
    partitions: int = 4,
    salt: str = "",
    recorded_at: int | None = None,
    marks: bytes | None = None,
    valid: bytes = b"",
    size: int = 0,
    source_position: bytes | None = None,
) -> Append:
    """Make a batch with one record per person; a mark of VOID makes a void. `size` pads the values."""
    keys = [key_of(person) for person in people]
    marks = bytes([UPSERT]) * len(keys) if marks is None else marks
    values = [
        None if mark & 15 == Operation.VOID else value_of(lane, sequence, index, salt, size)
        for index, mark in enumerate(marks)
    ]
    return Append(
        lane=lane,
        sequence=sequence,
        digest=digest_of(lane, sequence, salt),
        source_position=b"row %d" % sequence if source_position is None else source_position,
        recorded_at=START + sequence * SECOND if recorded_at is None else recorded_at,
        marks=marks,
        keys=keys,
        partitions=[partition_of(key, partitions) for key in keys],
        values=values,
        valid=valid,
    )


def value_of(lane: Lane, sequence: int, index: int, salt: str = "", size: int = 0) -> bytes:
    """Return a framed value that tells which record of which batch it is."""
    return frame(7, f"{lane.connector}/{sequence}/{index}/{salt}".encode().ljust(size, b"."))


def digest_of(lane: Lane, sequence: int, salt: str = "") -> bytes:
    """Return the batch's digest, 32 bytes."""
    return hashlib.sha256(f"{lane}/{sequence}/{salt}".encode()).digest()


def append(broker: Broker, *batches: Append) -> list[Appended]:
    """Append with a commit hook that does nothing."""
    return broker.append(batches, no_hook)


def read_all(broker: Broker, topic: Topic, after: Positions | None = None, *, step: int = 100_000) -> list[Read]:
    """Read from the earliest (or these) positions until a read gives nothing."""
    position = broker.ends(topic).earliest if after is None else after
    records: list[Read] = []
    while got := read_step(broker, topic, position, step):
        records += got[0]
        position = got[1]
    return records


def read_step(broker: Broker, topic: Topic, after: Positions, step: int) -> tuple[list[Read], Positions] | None:
    """Read once; None at the end of the topic."""
    part = broker.read(topic, after, max_records=step, max_bytes=1 << 26)
    if not len(part):
        return None
    return [
        Read(
            records.partition,
            records.offsets[index],
            bytes(records.keys[index]),
            None if (value := records.values[index]) is None else bytes(value),
            records.recorded_at[index],
            records.mark(index),
            bytes(records.valid(index)),
        )
        for records in part.partitions
        for index in range(len(records))
    ], part.next


def positions_of(runs: Iterable[OffsetRange]) -> list[tuple[int, int]]:
    """Spell out runs as (partition, position)."""
    return [(run.partition, position) for run in runs for position in range(run.first, run.last + 1)]


def expected(appended: Appended, sent: Append) -> list[Read]:
    """Return the records that a reader must find where the receipt says they are, partition by partition."""
    by_partition: dict[int, list[int]] = {}
    for index, partition in enumerate(sent.partitions):
        by_partition.setdefault(partition, []).append(index)
    places = sorted(positions_of(appended.runs))
    indexes = itertools.chain.from_iterable(by_partition[partition] for partition in sorted(by_partition))
    return [
        Read(
            partition,
            position,
            sent.keys[index],
            sent.values[index],
            appended.recorded_at,
            sent.marks[index],
            stated if any(stated) else b"",
        )
        for (partition, position), index in zip(places, indexes, strict=True)
        for stated in [sent.valid[16 * index : 16 * index + 16]]
    ]


def at_once(*calls: Callable[[], object], timeout: float = 120) -> list[object]:
    """Run calls in threads that start together; give their results, raise the first error."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        gate.wait(timeout)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout) for future in [pool.submit(run, call) for call in calls]]

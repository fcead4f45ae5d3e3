"""Broker port: an append-only log of records in topics and partitions, and what it promises to its callers.

Three adapters implement it: `memory` (tests), `postgres` (embedded default), `kafka` (production). One contract suite
(tests/contract/broker) runs on all of them.

What every adapter keeps true:

* **Order.** Records with the same key keep their order; positions never change and are never reused. Positions may
  have gaps, so "next" is the last one read plus one, never a count.
* **Exactly-once append** by (lane, sequence, digest). The receipt (the records' positions, and the connector's source
  position) is stored with the records, atomically. The same sequence with the same digest gives the same receipt and
  appends nothing; with another digest it is a conflict; a gap is refused.
* **Atomic visibility.** A batch is read whole or not at all; when the backend is down or full, append raises
  `UnavailableError` and no reader ever sees a part of the batch.
* **Commit hook.** `append` calls `commit_hook(work, appended)` once for each transaction's newly appended batches,
  before the next transaction and before it returns. An adapter that shares the pool's database passes the open
  transaction, so that records, receipt and audit entry are one; others pass None after their own commit, and the hook
  opens a transaction of its own. If the hook raises, append raises; what was then committed is found again by
  `lanes()`.
* **No silent gap.** A position that retention has overtaken raises `GoneError` with the earliest one.
* **Integrity.** Records that the pool did not store so, and records that are missing, raise `RecordsCorruptError`;
  nothing of that read is returned. How far each adapter goes is written in it (ADR 0047).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from registry.database.unit_of_work import UnitOfWork
from schemas.errors import CorruptError, PoolError, Reason
from schemas.names import Lane, Topic
from schemas.record import OffsetRange, Positions

__all__ = [
    "Append",
    "Appended",
    "Broker",
    "CommitHook",
    "Ends",
    "LaneFault",
    "LaneState",
    "PartitionRecords",
    "ReadResult",
    "RecordsCorruptError",
    "Retention",
    "TopicInfo",
]


class RecordsCorruptError(CorruptError):
    """RECORDS_CORRUPT: stored records are not those that the pool stored, or some are missing.

    The message names topic and partition. The offsets, which a consumer must not learn, are for the operator alone.

    Attributes:
        topic, partition: where; the partition is None where the topic itself is concerned.
        offsets: first and last, as far as they are known.
        why: what was found, in words.
    """

    def __init__(self, topic: str, partition: int | None, offsets: tuple[int, int] | None, why: str) -> None:
        place = topic if partition is None else f"{topic}, partition {partition}"
        super().__init__(
            Reason.RECORDS_CORRUPT,
            f"the stored records of {place} are not those that the pool stored, or some are missing; nothing of them "
            "is released until an operator has looked (`pool broker verify`)",
        )
        self.topic = topic
        self.partition = partition
        self.offsets = offsets
        self.why = why


class Retention(StrEnum):
    """What a topic keeps: every record until retention, or at least the latest of each key (opt-in)."""

    ALL = "all"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic's description. `generation` rises when a backup is restored, so that old positions are detected."""

    topic: Topic
    partitions: int
    keep: Retention
    retention: timedelta | None
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """One checked batch of one lane, ready to store. All sequences have one item a record.

    Attributes:
        lane, sequence: see `schemas.record.Batch`.
        digest: the signed root, 32 bytes.
        source_position: the connector's own, opaque, at most 128 bytes.
        recorded_at: microseconds UTC, the pool's clock; adapters keep it monotone per partition.
        marks: one `schemas.record.Mark` byte a record.
        keys: 16-byte pseudonyms.
        partitions: keys' partitions, computed by the gateway.
        values: framed Avro; None for a void.
        valid: 16 bytes a record, or empty (see `schemas.record.Batch`).
        leaves: their leaf hashes (`schemas.record.leaf_hashes`); where there are none, an adapter computes what it
            needs of them.
    """

    lane: Lane
    sequence: int
    digest: bytes
    source_position: bytes
    recorded_at: int
    marks: bytes
    keys: Sequence[bytes]
    partitions: Sequence[int]
    values: Sequence[bytes | None]
    valid: bytes = b""
    leaves: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The broker's receipt of one batch. `duplicate`: it had been appended before; nothing was written now."""

    lane: Lane
    sequence: int
    digest: bytes
    source_position: bytes
    recorded_at: int
    count: int
    runs: tuple[OffsetRange, ...]
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """A lane's committed state: its latest receipts, oldest first, at least the last one."""

    lane: Lane
    receipts: tuple[Appended, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneFault:
    """A lane whose receipts cannot be read. `name`: as the backend stores it, perhaps no valid lane name."""

    name: str
    error: PoolError


def _no_leaf(_index: int) -> bytes | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRecords:
    """Records of one partition, in order. All sequences have one item a record.

    `mark(i)` gives the mark byte of record i. It is a call since some adapters must parse headers for it, and
    most records never need it.
    """

    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    recorded_at: Sequence[int]
    mark: Callable[[int], int]
    valid: Callable[[int], bytes]  # 16 bytes, or empty where the record states no valid time
    leaf: Callable[[int], bytes | None] = _no_leaf  # of a record whose value was erased, 32 bytes; of others None

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """Result of one read: records by partition, and the positions after all that was scanned."""

    partitions: tuple[PartitionRecords, ...]
    next: Positions

    def __len__(self) -> int:
        return sum(map(len, self.partitions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Earliest position still stored, and the one after the last committed record, per partition."""

    earliest: Positions
    latest: Positions


CommitHook = Callable[[UnitOfWork | None, Sequence[Appended]], None]
"""Called with the open transaction, or None after the commit, and the receipts of the newly appended batches."""


class Broker(Protocol):
    """A log of records in topics and partitions. Thread-safe; foreign exceptions do not cross it."""

    def create_topic(
        self, topic: Topic, *, partitions: int = 4, keep: Retention = Retention.ALL, retention: timedelta | None = None
    ) -> TopicInfo:
        """Create the topic, or return it as it is; the number of partitions never changes afterwards.

        Raises:
            ConflictError: ALREADY_EXISTS, with another number of partitions.
            UnavailableError: the backend does not answer.
        """
        ...

    def configure_topic(self, topic: Topic, *, keep: Retention, retention: timedelta | None) -> TopicInfo:
        """Change what an existing topic keeps, from now on; return the topic. Repeating it is safe.

        Raises:
            InvalidError: NOT_FOUND.
            ConflictError: TRANSITION_NOT_ALLOWED, this process may not, or the change would lose what must stay; the
                message says who can.
            UnavailableError: the backend does not answer.
        """
        ...

    def topic(self, topic: Topic) -> TopicInfo:
        """Return a topic's description.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: the backend does not answer.
        """
        ...

    def append(self, batches: Sequence[Append], commit_hook: CommitHook) -> list[Appended]:
        """Append consecutive batches of one lane, exactly once each, in as few transactions as the backend can.

        Returns one `Appended` a batch, in order. An error is about the batches that are not appended yet; a repeated
        call returns the others as duplicates.

        Raises:
            ConflictError: SEQUENCE_GAP; SEQUENCE_CONFLICT (same number, other digest; `details` name the accepted
                one); LANE_FENCED (another gateway has taken the lane over: the stream must end).
            InvalidError: NOT_FOUND, no such topic; BATCH_TOO_LARGE.
            UnavailableError: BROKER_UNAVAILABLE or DISK_FULL: nothing visible; OUTCOME_UNKNOWN: ask `resume`.
        """
        ...

    def resume(self, lane: Lane) -> LaneState | None:
        """Take the lane over and return its state; None for a lane that never appended.

        Afterwards an older owner of the lane can append nothing more.

        Raises:
            CorruptError: LOG_CORRUPT, its receipts cannot be read.
            UnavailableError: the backend does not answer in time.
        """
        ...

    def peek_lane(self, lane: Lane) -> LaneState | None:
        """Return the lane's state without taking it over; None where nothing is committed.

        What its owner commits at this moment may be missing: enough to reject a batch, never to append one.

        Raises:
            CorruptError: LOG_CORRUPT, its receipts cannot be read.
            UnavailableError: the backend does not answer in time.
        """
        ...

    def lanes(self) -> Iterator[LaneState | LaneFault]:
        """Return every lane's state without taking it over: what the sweeper compares with the receipts.

        A lane that cannot be read is returned as a `LaneFault` and does not stop the iteration.
        """
        ...

    def read(self, topic: Topic, after: Positions, *, max_records: int, max_bytes: int) -> ReadResult:
        """Return committed records from these positions on, within both bounds, at least one if there is any.

        Raises:
            GoneError: POSITION_GONE, retention has overtaken a position; `details["earliest"]` names the
                earliest ones, separated by commas.
            RecordsCorruptError: records of this read were changed, or some are missing.
            InvalidError: NOT_FOUND; POSITION_INVALID, wrong number of partitions or beyond the end.
            UnavailableError: the backend does not answer.
        """
        ...

    def ends(self, topic: Topic) -> Ends:
        """Return both ends of a topic, as a reader of committed records sees them.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: the backend does not answer.
        """
        ...

    def positions_for_time(self, topic: Topic, recorded_at: int) -> Positions:
        """Return the positions of the first records with `recorded_at` ≥ the one given (microseconds UTC)."""
        ...

    def watch(self, topic: Topic, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call *wake* (from any thread, perhaps too often) whenever the topic may have grown.

        A missed call costs a reader at most its own polling period: a hint, not a guarantee.
        """
        ...

    def erase(self, topic: Topic, partition: int, key: bytes, before: int) -> int:
        """Destroy the values of a key before a position; return their number.

        Positions, other records and voids stay; the records read as ones without a value. What the backend still holds
        beside the records (old versions, logs of its own) goes with `destroy_erased`. Repeating either call is safe.

        Raises:
            InvalidError: NOT_FOUND, no such topic.
            ConflictError: TRANSITION_NOT_ALLOWED, the backend cannot do this from here; the message says who can.
            UnavailableError: the backend does not answer.
        """
        ...

    def erased(self, topic: Topic) -> Mapping[tuple[int, int], tuple[bytes, bytes]]:
        """Return the records that an erasure removed and `read` leaves out: (partition, position) → key, leaf hash.

        Empty where `read` returns them (`PartitionRecords.leaf`). It may read the whole topic.

        Raises:
            InvalidError: NOT_FOUND.
            UnavailableError: the backend does not answer.
        """
        ...

    def destroy_erased(self, topics: Collection[Topic]) -> bool:
        """Destroy what `erase` has left behind of these topics; return whether the backend holds nothing of it.

        Raises:
            UnavailableError: the backend does not answer, or something still needs what is to be destroyed.
        """
        ...

    def renew_generations(self, at_least: int = 0) -> int:
        """Raise every topic's generation and return the number of topics: after a restore, before the pool serves.

        *at_least* is for a broker whose count of generations was set back with its records: an earlier restore may
        have given the next one already.

        Positions from before are then rejected; without it, they would point to other records than they were given for.

        Raises:
            UnavailableError: the backend does not answer; repeating the call is safe.
        """
        ...

    def ping(self) -> None:
        """Ask the backend for an answer that needs no topic, for health checks.

        Raises:
            UnavailableError: it does not answer.
        """
        ...

    def close(self) -> None:
        """Release every resource. Later calls raise UnavailableError."""
        ...

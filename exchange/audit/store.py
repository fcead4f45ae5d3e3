"""What the audit room stores, as ports; `memory` and `postgres` keep them, under one contract suite.

    EntryStore     numbers and stores leaves within the caller's transaction, finds them again
    ReceiptStore   what was acknowledged to whom, and the pseudonyms of the keys in it (prunable)
    LogStore       what the sequencer needs: give leaves their places, read them back, remember checkpoints

An entry is stored once, as its leaf. The columns beside the leaf serve the search alone and repeat what the leaf
says; `verify_database` compares them. Only two things about an entry are decided after its transaction: its index
in the log, once, and which checkpoint first covered it.

**Counting lines.** An entry carries the next number of one counting line of its gateway process. A transaction has its
line for itself until it ends, so its numbers have no gap and no rollback can make one; a process has as many lines as
it has had transactions side by side, so none waits for another. The process knows where its lines stand, and the
statement that stores an entry moves the line only if it stands there. A line of which unknown how its transaction
ended is never used again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.audit import AuditEntry
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.names import Lane
from schemas.record import Receipt

__all__ = [
    "Backlog",
    "CheckpointRow",
    "EntryStore",
    "Found",
    "LogStore",
    "NewLeaf",
    "NumberLeaves",
    "Query",
    "Reach",
    "ReceiptStore",
    "Sealed",
    "no_entry",
    "not_opened",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLeaf:
    """A numbered entry with its leaf bytes and RFC 6962 leaf hash."""

    entry: AuditEntry
    leaf: bytes
    leaf_hash: bytes


NumberLeaves: TypeAlias = Callable[[str, int], Sequence[NewLeaf]]
"""Makes leaves from the name of their counting line and the first of their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A leaf with its place in the log, as stored."""

    index: int
    leaf: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A stored leaf that a search found; `index` is None until the sequencer has given it its place."""

    index: int | None
    leaf: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; what is None does not limit.

    Attributes:
        department: of the actor (the consumer, in a fetch; the provider, in a publication).
        resource, purpose, case, grant, action, decision, entry: equal to the entry's.
        since, until: microseconds UTC, since ≤ at < until.
        limit: entries at most, newest first.
    """

    department: str | None = None
    resource: str | None = None
    purpose: str | None = None
    case: str | None = None
    grant: str | None = None
    action: str | None = None
    decision: str | None = None
    entry: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a publication's receipt says of one batch: for "who may have seen the record of this pseudonym"."""

    receipt: Receipt
    keys: tuple[bytes, ...] | None  # 16-byte pseudonyms, in the order of the batch; None once pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """A signed checkpoint as it was published; `at` in microseconds UTC."""

    size: int
    root: bytes
    note: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Entries that wait for their place: how many, and the `at` of the oldest (None without any)."""

    count: int
    oldest: int | None


class EntryStore(Protocol):
    """Stores leaves. Nothing in it can change or remove one."""

    def open_lines(self, work: UnitOfWork, process: str) -> None:
        """Let one start of a process count.

        Raises:
            ConflictError: ALREADY_EXISTS, another start already counts under this name.
        """
        ...

    def add(self, work: UnitOfWork, process: str, leaves: NumberLeaves, *, last: bool = False) -> list[NewLeaf]:
        """Store leaves with the next numbers of a line that no other transaction holds; give them.

        Args:
            work: within which; its end lets the line go.
            process: whose lines.
            leaves: makes them, one or more, in order, from the line's name, which stands in an entry as `gateway`,
                and the first number.
            last: nothing else is done in *work*, so that storing may wait for its end and raise there.

        Raises:
            ConflictError: ALREADY_EXISTS, an entry of this id is there.
            CorruptError: LOG_CORRUPT, the process was never opened, or its line does not stand where it left it.
        """
        ...

    def find(self, query: Query) -> list[Found]:
        """Return the leaves that fit, newest first."""
        ...


class ReceiptStore(Protocol):
    """Stores what publications were answered."""

    def put(self, work: UnitOfWork, receipts: Sequence[tuple[Receipt, Sequence[bytes]]]) -> None:
        """Store receipts, each with the 16-byte pseudonyms of its batch's keys, in order.

        Raises:
            ConflictError: ALREADY_EXISTS, a lane has a receipt of one of the numbers; none is stored.
        """
        ...

    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        """Return one receipt."""
        ...

    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        """Return the receipt of the lane's highest sequence."""
        ...

    def lasts(self, reader: Reader) -> dict[Lane, int]:
        """Return the highest sequence of every lane: what the sweeper compares with the broker's lanes."""
        ...

    def reach(self, reader: Reader, lane: Lane, sequence: int) -> Reach | None:
        """Return a receipt with its batch's pseudonyms."""
        ...

    def prune_keys(self, work: UnitOfWork, before: int) -> int:
        """Forget the pseudonyms of batches published before (microseconds UTC); give how many batches it were.

        The receipts stay. This is done together with the destruction of the epoch's key.
        """
        ...


class LogStore(Protocol):
    """What the sequencer needs of the store. Each call is a transaction of its own, or a snapshot."""

    def claim(self, limit: int) -> int | None:
        """Return up to *limit* entries without a place the next ones, in the order of their numbers; commit.

        Entries are found by having no place, never by being newer than the last one: transactions commit in
        another order than they began in. Returns how many were placed; None when another sequencer is at it.

        Raises:
            CorruptError: LOG_CORRUPT, placed entries are missing: there are fewer than the last checkpoint covers.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        ...

    def sealed(self, start: int, end: int | None = None) -> AbstractContextManager[Iterator[Sealed]]:
        """Stream placed leaves from index *start* on, in order, from one snapshot; they may have gaps if tampered."""
        ...

    def index_of(self, entry_id: str) -> int | None:
        """Return the place of an entry, None when it has none yet.

        Raises:
            InvalidError: NOT_FOUND, there is no such entry.
        """
        ...

    def latest_checkpoint(self) -> CheckpointRow | None:
        """Return the checkpoint of the largest size."""
        ...

    def put_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
        """Store a checkpoint, unless one of this size is there; give the one that stands.

        Raises:
            CorruptError: LOG_CORRUPT, one of this size with another root is there: two trees must never be signed.
        """
        ...

    def checkpoints(self) -> AbstractContextManager[Iterator[CheckpointRow]]:
        """Stream all checkpoints, smallest first."""
        ...

    def backlog(self) -> Backlog:
        """Return how much waits for its place."""
        ...


def no_entry() -> InvalidError:
    """Make the error of an id that no entry has."""
    return InvalidError(Reason.NOT_FOUND, "no entry of the log has this id; take it from a receipt or a search")


def not_opened(process: str) -> CorruptError:
    """Make the error of a process that writes before it counts."""
    return CorruptError(
        Reason.LOG_CORRUPT, f"the process {process!r} has no counting line; open its ledger before the first entry"
    )

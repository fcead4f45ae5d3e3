"""Ports of the audit stores; `memory` and `postgres` are their adapters, under one contract suite.

    EntryStore     numbers and stores leaves within the caller's transaction, and searches them
    ReceiptStore   the receipts that publications were answered with, and the pseudonyms of the keys in them (prunable)
    LogStore       what the sequencer needs: give leaves their indexes, read them back, store checkpoints

An entry is stored once, as its leaf. The columns beside the leaf serve the search alone and repeat what the leaf
says; `verify_database` compares them. Only two things about an entry are decided after its transaction: its index
in the log, once, and which checkpoint first covered it.

**Gapless sequences.** An entry carries the next number of a gapless sequence of its gateway process. A transaction has
its sequence for itself until it ends, so its numbers have no gap and no rollback can make one; a process has as many
sequences as it has had transactions side by side, so none waits for another. In an entry the sequence is the field
`gateway` and the number the field `counter`. `gapless_sequence` says how PostgreSQL does it.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.audit import AuditEntry
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason
from schemas.merkle import leaf_hash
from schemas.names import Lane
from schemas.record import OffsetRange, Receipt

__all__ = [
    "RESOURCE_SCOPES",
    "Backlog",
    "CheckpointRow",
    "EntryParty",
    "EntryPlace",
    "EntryQuery",
    "EntryStore",
    "LogStore",
    "NewLeaf",
    "NumberLeaves",
    "PlacedLeaf",
    "ReceiptStore",
    "SigningState",
    "StoredLeaf",
    "Tail",
    "TailQuery",
    "id_exists",
    "is_about_resource",
    "no_entry",
    "not_opened",
]


_LAST_TIME: Final = 253_402_300_800_000_000  # microseconds UTC: the year 10000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLeaf:
    """A numbered entry with its leaf bytes and RFC 6962 leaf hash."""

    entry: AuditEntry
    leaf: bytes
    leaf_hash: bytes


NumberLeaves: TypeAlias = Callable[[str, int], Sequence[NewLeaf]]
"""Makes leaves from the name of their gapless sequence and the first of their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedLeaf:
    """A stored leaf with its index in the log."""

    index: int
    leaf: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """Where an entry is in the order of a search: its time (microseconds UTC), and its row, for entries of one time."""

    at: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLeaf:
    """A stored leaf as a search returns it; `index` is None until the sequencer has placed it in the log.

    `place` is where it is in the order of a search; `genuine` is false where the row is known not to be what the pool
    wrote, although its leaf is that of its hash.
    """

    index: int | None
    leaf: bytes
    leaf_hash: bytes
    place: EntryPlace
    genuine: bool = True

    def entry(self) -> dict[str, Any] | None:
        """Return the leaf's JSON object; None where the row is damaged.

        Its leaf is none, or not that of its hash, or its hash is not that of the signed log, or its tag is not ours.
        """
        if not self.genuine or leaf_hash(self.leaf) != self.leaf_hash:
            return None
        try:
            entry = json.loads(self.leaf)
        except (ValueError, RecursionError):
            return None
        # What the adapter could not judge must at least not fail the others.
        if not isinstance(entry, dict) or type(entry.get("at")) is not int or not 0 <= entry["at"] < _LAST_TIME:
            return None
        return entry if all(isinstance(entry.get(name), str) for name in ("id", "action", "decision")) else None


RESOURCE_SCOPES = ("exchange:", "registry:", "identity:department:")
"""Begin the actions whose resource is a topic, a subject or a department. That of others is an account, a connector or
an entry, whose name may be that of somebody else's topic."""


def is_about_resource(action: str) -> bool:
    """Return whether the resource of an action's entries is a topic, a subject or a department's id."""
    return action.startswith(RESOURCE_SCOPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryParty:
    """A department as a reader of the log: it sees entries whose actor is its own, and whose resource is its own.

    Attributes:
        department: internal id.
        resources: its topics and their subjects, and its own id.
    """

    department: str
    resources: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """A search for entries; an attribute that is None does not limit it.

    Attributes:
        party: the department that may see no others than its own.
        department: of the actor (the consumer, in a fetch; the provider, in a publication).
        actor: account, or connector within its department.
        resource, purpose, case, grant, action, decision, reason, entry: equal to the entry's.
        since, until: microseconds UTC, since ≤ at < until.
        after: the last entry of the page before; None for the first page.
        limit: entries at most, newest first.
    """

    party: EntryParty | None = None
    department: str | None = None
    actor: str | None = None
    resource: str | None = None
    purpose: str | None = None
    case: str | None = None
    grant: str | None = None
    action: str | None = None
    decision: str | None = None
    reason: str | None = None
    entry: str | None = None
    since: int | None = None
    until: int | None = None
    after: EntryPlace | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TailQuery:
    """A reading of the log in the order of its indexes: denials for some reasons, and acts of some kinds.

    Attributes:
        start: index of the first entry.
        span: entries that are looked at, at most.
        reasons: of denials. actions: of acts, denied or not.
    """

    start: int
    span: int
    reasons: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What a `TailQuery` found, in the order of the log.

    `end` is the index before which everything was looked at; below the query's start where the log is shorter.
    """

    leaves: Sequence[StoredLeaf]
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """A signed checkpoint as it was published; `at` in microseconds UTC."""

    size: int
    root: bytes
    note: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Entries without an index: how many, and the `at` of the oldest (None without any)."""

    count: int
    oldest: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningState:
    """What the store says.

    Attributes:
        size, root: of the newest checkpoint; 0 and empty without one.
        oldest: id and time (microseconds UTC) of the oldest entry that no checkpoint covers.
        signed: time of the newest checkpoint, microseconds UTC; 0 without one.
        now: the store's own clock, microseconds UTC; 0 where it has none.
    """

    size: int
    root: bytes
    oldest: tuple[str, int] | None
    signed: int = field(default=0, compare=False)
    now: int = field(default=0, compare=False)


class EntryStore(Protocol):
    """Stores leaves. No method changes or removes one."""

    def open_sequences(self, work: UnitOfWork, process: str) -> None:
        """Register one start of a process, so that it may write entries once *work* is committed.

        Raises:
            ConflictError: ALREADY_EXISTS, another start has registered under this name.
        """
        ...

    def add(self, work: UnitOfWork, process: str, leaves: NumberLeaves, *, last: bool = False) -> list[NewLeaf]:
        """Store leaves with the next numbers of a sequence that no other transaction uses; return them.

        Args:
            work: the caller's transaction; its end releases the sequence.
            process: whose sequences.
            leaves: makes them, one or more, in order, from the sequence's name, which is the field `gateway` of an
                entry, and the first number.
            last: nothing else is done in *work*, so that storing may wait for its end and raise there.

        Raises:
            ConflictError: ALREADY_EXISTS, an entry of this id is there.
            CorruptError: LOG_CORRUPT, the process was never opened, or another program has changed the counter of
                its sequence.
        """
        ...

    def find(self, query: EntryQuery) -> list[StoredLeaf]:
        """Return the leaves that match, newest first.

        Raises:
            UnavailableError: LOG_BEHIND, a search by actor or reason while entries of an earlier version lack these
                columns; DATABASE_UNAVAILABLE.
        """
        ...

    def tail(self, query: TailQuery) -> Tail:
        """Return the placed entries that match, from an index on, each judged as a search does.

        A reader that goes on at `Tail.end` passes over none: an entry gets its index once, behind all that have one.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        ...


class ReceiptStore(Protocol):
    """Stores the receipts of publications.

    The pseudonyms beside them are for the question who may have seen a person's record, and say in which order a batch
    was sent (`exchange.records.record_verifier`). They are stored sealed (`exchange.records.sealed_receipts`).
    """

    def put(
        self,
        work: UnitOfWork,
        receipts: Sequence[tuple[Receipt, Sequence[bytes]]],
        void_leaves: Mapping[int, bytes] | None = None,
    ) -> None:
        """Store receipts, each with the 16-byte pseudonyms of its batch's keys, in order.

        Args:
            work: the caller's transaction.
            receipts: of one lane, with the keys.
            void_leaves: masked leaf hashes of a batch's voids, 32 bytes each, by its sequence number.

        Raises:
            ConflictError: ALREADY_EXISTS, a lane has a receipt of one of the numbers; none is stored.
        """
        ...

    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        """Return one receipt."""
        ...

    def order(self, reader: Reader, lane: Lane, sequence: int) -> tuple[bytes, bytes] | None:
        """Return the pseudonyms of a batch's keys, 16 bytes each, and its voids' masked leaf hashes, 32 bytes each.

        Each is empty where it was not stored, or was pruned; None where there is no receipt.
        """
        ...

    def runs(
        self, reader: Reader, batches: Collection[tuple[Lane, int]]
    ) -> Mapping[tuple[Lane, int], Sequence[OffsetRange]]:
        """Return the offsets of batches by their receipts; those without one are left out."""
        ...

    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        """Return the receipt of the lane's highest sequence number."""
        ...

    def last_sequences(self, reader: Reader) -> dict[Lane, int]:
        """Return the highest sequence number of every lane."""
        ...

    def lasts_of(self, reader: Reader, connectors: Collection[tuple[str, str]]) -> Sequence[Receipt]:
        """Return the last receipt of every lane of some connectors, each given as department and name."""
        ...

    def prune_keys(self, work: UnitOfWork, before: int) -> int:
        """Remove the pseudonyms of batches published before a time (microseconds UTC); return how many batches it were.

        The receipts stay. It comes before the keys of the epochs are destroyed (`exchange.control.audit_keys`).
        """
        ...


class LogStore(Protocol):
    """What the sequencer needs of the store. Each call is a transaction of its own, or a snapshot."""

    def assign_indexes(self, limit: int) -> int | None:
        """Give up to *limit* entries without an index the next ones, in the order of their rows, and commit.

        Entries are found by having no index, never by being newer than the last one: transactions commit in
        another order than they began in.

        Returns:
            How many entries were placed; None while another sequencer is in this call.

        Raises:
            CorruptError: LOG_CORRUPT, placed entries are missing: there are fewer than the last checkpoint covers.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        ...

    def placed(self, start: int, end: int | None = None) -> AbstractContextManager[Iterator[PlacedLeaf]]:
        """Stream placed leaves from index *start* on, in order, from one snapshot; they may have gaps if tampered."""
        ...

    def index_of(self, entry_id: str) -> int | None:
        """Return the index of an entry, None when it has none yet.

        Raises:
            InvalidError: NOT_FOUND, there is no such entry.
        """
        ...

    def latest_checkpoint(self) -> CheckpointRow | None:
        """Return the checkpoint of the largest size."""
        ...

    def covering_checkpoint(self, index: int) -> CheckpointRow | None:
        """Return the smallest checkpoint that covers the entry of an index; None while there is none."""
        ...

    def put_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
        """Store a checkpoint, unless one of this size is there; return the stored one.

        Raises:
            CorruptError: LOG_CORRUPT, one of this size with another root is there: two trees must never be signed.
        """
        ...

    def backlog(self) -> Backlog:
        """Return how many entries have no index yet."""
        ...

    def gateway_entries(self, action: str, *, unsigned: bool = False) -> list[bytes]:
        """Return the leaves of the newest acts of a kind that a gateway wrote, newest first: allowed, and not failed.

        Their tags and the leaves themselves say so: none is returned that somebody has put into the store, or whose
        row alone calls it such an act, also before they are signed.

        Args:
            action: of the entries.
            unsigned: those alone that no checkpoint covers.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        ...

    def signing_state(self) -> SigningState:
        """Return the newest checkpoint and the oldest entry that it does not cover, at the cost of three look-ups.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        ...


def no_entry() -> InvalidError:
    """Return the error of an id that no entry has."""
    return InvalidError(Reason.NOT_FOUND, "no entry of the log has this id; take it from a receipt or a search")


def id_exists() -> ConflictError:
    """Return the error of an entry whose id another entry has."""
    return ConflictError(Reason.ALREADY_EXISTS, "an entry of this id is in the log; make a new id for each entry")


def not_opened(process: str) -> CorruptError:
    """Return the error of a process that writes entries before it has registered."""
    return CorruptError(
        Reason.LOG_CORRUPT, f"the process {process!r} has no gapless sequence; open its ledger before the first entry"
    )

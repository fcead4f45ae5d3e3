"""In-memory adapter of the audit stores: one object for all three ports, under the same contract suite."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from typing_extensions import override

from exchange.audit.store import (
    Backlog,
    CheckpointRow,
    EntryPlace,
    EntryQuery,
    EntryStore,
    LogStore,
    NewLeaf,
    NumberLeaves,
    PlacedLeaf,
    ReceiptStore,
    SigningState,
    StoredLeaf,
    Tail,
    TailQuery,
    id_exists,
    is_about_resource,
    no_entry,
    not_opened,
)
from registry.database.unit_of_work import MemoryDatabase, Reader, UnitOfWork, on_rollback
from schemas.audit import AuditEntry, Decision
from schemas.errors import ConflictError, CorruptError, Reason
from schemas.names import Lane
from schemas.record import OffsetRange, Receipt

__all__ = ["MemoryAudit"]


@dataclass(slots=True)
class _EntryRow:
    new: NewLeaf
    index: int | None = None


@dataclass(frozen=True, slots=True)
class _ReceiptRow:
    receipt: Receipt
    keys: tuple[bytes, ...] | None  # 16-byte pseudonyms, in the order of the batch; None once pruned
    void_leaves: bytes = b""


class MemoryAudit(ReceiptStore, LogStore, EntryStore):
    """Stores entries, receipts and the log.

    Args:
        database: its transactions run one at a time, and `assign_indexes` is one of them.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._lock = threading.RLock()
        self._counters: dict[str, int] = {}
        self._rows: list[_EntryRow] = []
        self._receipts: dict[tuple[Lane, int], _ReceiptRow] = {}
        self._checkpoints: dict[int, CheckpointRow] = {}

    @override
    def open_sequences(self, work: UnitOfWork, process: str) -> None:
        if process in self._counters:
            raise ConflictError(
                Reason.ALREADY_EXISTS, f"a process named {process!r} already writes entries; give each start a new name"
            )
        self._counters[process] = 0
        on_rollback(work, lambda: self._counters.__delitem__(process))

    @override
    def add(  # one sequence is enough, since its transactions run one at a time
        self,
        work: UnitOfWork,
        process: str,
        leaves: NumberLeaves,
        *,
        last: bool = False,
    ) -> list[NewLeaf]:
        before = self._counters.get(process)
        if before is None:
            raise not_opened(process)
        new = [*leaves(f"{process}#1", before + 1)]
        with self._lock:
            ids = {row.new.entry.id for row in self._rows}
            if len(ids | {leaf.entry.id for leaf in new}) != len(ids) + len(new):
                raise id_exists()
            size = len(self._rows)
            self._rows.extend(_EntryRow(leaf) for leaf in new)
        self._counters[process] = before + len(new)
        on_rollback(work, lambda: self._counters.__setitem__(process, before))
        on_rollback(work, lambda: self._rows.__delitem__(slice(size, None)))
        return new

    @override
    def find(self, query: EntryQuery) -> list[StoredLeaf]:
        with self._lock:
            found = [(row.new.entry.at, k, row) for k, row in enumerate(self._rows) if _matches(row.new.entry, query)]
        found.sort(key=lambda item: item[:2], reverse=True)
        after = query.after
        return [
            StoredLeaf(index=row.index, leaf=row.new.leaf, leaf_hash=row.new.leaf_hash, place=EntryPlace(at, k))
            for at, k, row in found
            if after is None or (at, k) < (after.at, after.row)
        ][: query.limit]

    @override
    def tail(self, query: TailQuery) -> Tail:
        with self._lock:
            placed = [(row.index, k, row.new) for k, row in enumerate(self._rows) if row.index is not None]
        size = max((index + 1 for index, _, _ in placed), default=0)
        end = min(query.start + query.span, size)
        leaves = [
            StoredLeaf(index=index, leaf=new.leaf, leaf_hash=new.leaf_hash, place=EntryPlace(new.entry.at, k))
            for index, k, new in sorted(placed, key=lambda one: one[0])
            if query.start <= index < end and _is_wanted(new.entry, query)
        ]
        return Tail(leaves=leaves, end=end)

    @override
    def put(
        self,
        work: UnitOfWork,
        receipts: Sequence[tuple[Receipt, Sequence[bytes]]],
        void_leaves: Mapping[int, bytes] | None = None,
    ) -> None:
        leaves = void_leaves or {}
        new = {
            (receipt.lane, receipt.sequence): _ReceiptRow(
                receipt=receipt, keys=tuple(keys) or None, void_leaves=leaves.get(receipt.sequence, b"")
            )
            for receipt, keys in receipts
        }
        existing = self._receipts.keys() & new.keys()
        if existing:
            raise ConflictError(
                Reason.ALREADY_EXISTS,
                f"lane {receipts[0][0].lane} has a receipt for batch {min(number for _, number in existing)}; read it",
            )
        self._receipts.update(new)
        for key in new:
            on_rollback(work, partial(self._receipts.__delitem__, key))

    @override
    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        row = self._receipts.get((lane, sequence))
        return None if row is None else row.receipt

    @override
    def order(self, reader: Reader, lane: Lane, sequence: int) -> tuple[bytes, bytes] | None:
        row = self._receipts.get((lane, sequence))
        return None if row is None else (b"".join(row.keys or ()), row.void_leaves)

    @override
    def runs(
        self, reader: Reader, batches: Collection[tuple[Lane, int]]
    ) -> Mapping[tuple[Lane, int], Sequence[OffsetRange]]:
        return {batch: self._receipts[batch].receipt.runs for batch in batches if batch in self._receipts}

    @override
    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        highest = self.last_sequences(reader).get(lane)
        return None if highest is None else self.get(reader, lane, highest)

    @override
    def last_sequences(self, reader: Reader) -> dict[Lane, int]:
        highest: dict[Lane, int] = {}
        for lane, sequence in self._receipts:
            highest[lane] = max(sequence, highest.get(lane, 0))
        return highest

    @override
    def lasts_of(self, reader: Reader, connectors: Collection[tuple[str, str]]) -> Sequence[Receipt]:
        lasts = self.last_sequences(reader).items()
        return [
            self._receipts[lane, last].receipt
            for lane, last in lasts
            if (lane.department, lane.connector) in connectors
        ]

    @override
    def prune_keys(self, work: UnitOfWork, before: int) -> int:
        at = {row.new.entry.id: row.new.entry.at for row in self._rows}
        old = {
            key: row
            for key, row in self._receipts.items()
            if row.keys is not None and at.get(row.receipt.entry_id, before) < before
        }
        self._receipts.update({key: replace(row, keys=None, void_leaves=b"") for key, row in old.items()})
        on_rollback(work, lambda: self._receipts.update(old))
        return len(old)

    @override
    def assign_indexes(self, limit: int) -> int | None:
        with self._database.begin(), self._lock:
            first = 1 + max((row.index for row in self._rows if row.index is not None), default=-1)
            covered = max(self._checkpoints, default=0)
            if first < covered:
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    f"the log has {first} placed entries, and a checkpoint covers {covered}: entries were removed",
                )
            waiting = [row for row in self._rows if row.index is None][:limit]
            for index, row in enumerate(waiting, first):
                row.index = index
            return len(waiting)

    @contextmanager
    @override
    def placed(self, start: int, end: int | None = None) -> Iterator[Iterator[PlacedLeaf]]:
        with self._lock:
            leaves = [
                PlacedLeaf(index=row.index, leaf=row.new.leaf, leaf_hash=row.new.leaf_hash)
                for row in self._rows
                if row.index is not None and row.index >= start and (end is None or row.index < end)
            ]
        yield iter(sorted(leaves, key=lambda one: one.index))

    @override
    def index_of(self, entry_id: str) -> int | None:
        with self._lock:
            found = next((row for row in self._rows if row.new.entry.id == entry_id), None)
        if found is None:
            raise no_entry()
        return found.index

    @override
    def latest_checkpoint(self) -> CheckpointRow | None:
        with self._lock:
            return self._checkpoints[max(self._checkpoints)] if self._checkpoints else None

    @override
    def covering_checkpoint(self, index: int) -> CheckpointRow | None:
        with self._lock:
            size = min((size for size in self._checkpoints if size > index), default=None)
            return None if size is None else self._checkpoints[size]

    @override
    def put_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
        with self._lock:
            stored = self._checkpoints.setdefault(row.size, row)
        if stored.root != row.root:
            raise CorruptError(
                Reason.LOG_CORRUPT, f"a checkpoint of size {row.size} with another root is stored; one tree is forged"
            )
        return stored

    @override
    def backlog(self) -> Backlog:
        with self._lock:
            waiting = [row.new.entry.at for row in self._rows if row.index is None]
        return Backlog(count=len(waiting), oldest=min(waiting, default=None))

    @override
    def signing_state(self) -> SigningState:
        with self._lock:
            size = max(self._checkpoints, default=0)
            oldest = next((row for row in self._rows if row.index == size), None)
            oldest = oldest or next((row for row in self._rows if row.index is None), None)
            return SigningState(
                size=size,
                root=self._checkpoints[size].root if size else b"",
                oldest=None if oldest is None else (oldest.new.entry.id, oldest.new.entry.at),
                signed=self._checkpoints[size].at if size else 0,
            )

    @override
    def gateway_entries(self, action: str, *, unsigned: bool = False) -> list[bytes]:
        with self._lock:
            size = max(self._checkpoints, default=0)
            return [
                row.new.leaf
                for row in reversed(self._rows)
                if (row.new.entry.action, row.new.entry.decision) == (action, Decision.ALLOW)
                and "failed" not in row.new.entry.data
                and not (unsigned and row.index is not None and row.index < size)
            ]


def _is_wanted(entry: AuditEntry, query: TailQuery) -> bool:
    denied = entry.decision is Decision.DENY and entry.reason in query.reasons
    return denied or entry.action in query.actions


def _matches(entry: AuditEntry, query: EntryQuery) -> bool:
    required = [
        (query.department, entry.actor.department if entry.actor else ""),
        (query.actor, entry.actor.id if entry.actor else ""),
        (query.resource, entry.resource),
        (query.purpose, entry.purpose),
        (query.case, entry.case),
        (query.grant, entry.grant.id if entry.grant else ""),
        (query.action, entry.action),
        (query.decision, entry.decision),
        (query.reason, entry.reason or ""),
        (query.entry, entry.id),
    ]
    party = query.party
    return (
        (party is None or required[0][1] == party.department or _is_own(entry, party.resources))
        and all(value is None or value == actual for value, actual in required)
        and (query.since is None or entry.at >= query.since)
        and (query.until is None or entry.at < query.until)
    )


def _is_own(entry: AuditEntry, resources: frozenset[str]) -> bool:
    return is_about_resource(entry.action) and entry.resource in resources

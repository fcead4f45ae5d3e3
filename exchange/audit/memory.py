"""The in-memory twin of the audit room's stores: one object keeps all three ports, under the same contract suite."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from typing_extensions import override

from exchange.audit.store import (
    Backlog,
    CheckpointRow,
    EntryStore,
    Found,
    LogStore,
    NewLeaf,
    NumberLeaves,
    Query,
    Reach,
    ReceiptStore,
    Sealed,
    no_entry,
    not_opened,
)
from registry.database.unit_of_work import MemoryDatabase, Reader, UnitOfWork, on_rollback
from schemas.audit import AuditEntry
from schemas.errors import ConflictError, CorruptError, Reason
from schemas.names import Lane
from schemas.record import Receipt

__all__ = ["MemoryAudit"]


@dataclass(slots=True)
class _Row:
    new: NewLeaf
    index: int | None = None


class MemoryAudit(ReceiptStore, LogStore, EntryStore):
    """Keeps entries, receipts and the log. See `EntryStore`, `ReceiptStore` and `LogStore`.

    Args:
        database: where its transactions come from. They run one at a time, and a claim is one of them.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._lock = threading.RLock()
        self._lines: dict[str, int] = {}
        self._rows: list[_Row] = []
        self._reaches: dict[tuple[Lane, int], Reach] = {}
        self._checkpoints: dict[int, CheckpointRow] = {}

    @override
    def open_lines(self, work: UnitOfWork, process: str) -> None:
        if process in self._lines:
            raise ConflictError(
                Reason.ALREADY_EXISTS, f"a process named {process!r} already counts; give each start a new name"
            )
        self._lines[process] = 0
        on_rollback(work, lambda: self._lines.__delitem__(process))

    @override
    def add(  # one line is enough, since its works run one at a time
        self,
        work: UnitOfWork,
        process: str,
        leaves: NumberLeaves,
        *,
        last: bool = False,
    ) -> list[NewLeaf]:
        before = self._lines.get(process)
        if before is None:
            raise not_opened(process)
        new = [*leaves(f"{process}#1", before + 1)]
        with self._lock:
            ids = {row.new.entry.id for row in self._rows}
            if len(ids | {leaf.entry.id for leaf in new}) != len(ids) + len(new):
                raise ConflictError(Reason.ALREADY_EXISTS, "an entry of this id is in the log; ids are made anew")
            size = len(self._rows)
            self._rows.extend(_Row(leaf) for leaf in new)
        self._lines[process] = before + len(new)
        on_rollback(work, lambda: self._lines.__setitem__(process, before))
        on_rollback(work, lambda: self._rows.__delitem__(slice(size, None)))
        return new

    @override
    def find(self, query: Query) -> list[Found]:
        with self._lock:
            fitting = [(row.new.entry.at, k, row) for k, row in enumerate(self._rows) if _fits(row.new.entry, query)]
        fitting.sort(key=lambda item: item[:2], reverse=True)
        return [
            Found(index=row.index, leaf=row.new.leaf, leaf_hash=row.new.leaf_hash)
            for _, _, row in fitting[: query.limit]
        ]

    @override
    def put(self, work: UnitOfWork, receipts: Sequence[tuple[Receipt, Sequence[bytes]]]) -> None:
        reaches = {
            (receipt.lane, receipt.sequence): Reach(receipt=receipt, keys=tuple(keys) or None)
            for receipt, keys in receipts
        }
        known = self._reaches.keys() & reaches.keys()
        if known:
            raise ConflictError(
                Reason.ALREADY_EXISTS,
                f"lane {receipts[0][0].lane} has a receipt for batch {min(number for _, number in known)}; read it",
            )
        self._reaches.update(reaches)
        on_rollback(work, lambda: self._forget(reaches))

    @override
    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        found = self.reach(reader, lane, sequence)
        return None if found is None else found.receipt

    @override
    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        highest = self.lasts(reader).get(lane)
        return None if highest is None else self.get(reader, lane, highest)

    @override
    def lasts(self, reader: Reader) -> dict[Lane, int]:
        highest: dict[Lane, int] = {}
        for lane, sequence in self._reaches:
            highest[lane] = max(sequence, highest.get(lane, 0))
        return highest

    @override
    def reach(self, reader: Reader, lane: Lane, sequence: int) -> Reach | None:
        return self._reaches.get((lane, sequence))

    @override
    def prune_keys(self, work: UnitOfWork, before: int) -> int:
        at = {row.new.entry.id: row.new.entry.at for row in self._rows}
        old = {
            place: reach
            for place, reach in self._reaches.items()
            if reach.keys is not None and at.get(reach.receipt.entry_id, before) < before
        }
        self._reaches.update({place: replace(reach, keys=None) for place, reach in old.items()})
        on_rollback(work, lambda: self._reaches.update(old))
        return len(old)

    def _forget(self, places: Iterable[tuple[Lane, int]]) -> None:
        for place in places:
            del self._reaches[place]

    @override
    def claim(self, limit: int) -> int | None:
        with self._database.begin(), self._lock:
            first = 1 + max((row.index for row in self._rows if row.index is not None), default=-1)
            covered = max(self._checkpoints, default=0)
            if first < covered:
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    f"the log has {first} placed entries, and a checkpoint covers {covered}: entries were removed",
                )
            waiting = [row for row in self._rows if row.index is None][:limit]
            for place, row in enumerate(waiting, first):
                row.index = place
            return len(waiting)

    @contextmanager
    @override
    def sealed(self, start: int, end: int | None = None) -> Iterator[Iterator[Sealed]]:
        with self._lock:
            placed = [
                Sealed(index=row.index, leaf=row.new.leaf, leaf_hash=row.new.leaf_hash)
                for row in self._rows
                if row.index is not None and row.index >= start and (end is None or row.index < end)
            ]
        yield iter(sorted(placed, key=lambda one: one.index))

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
    def put_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
        with self._lock:
            standing = self._checkpoints.setdefault(row.size, row)
        if standing.root != row.root:
            raise CorruptError(
                Reason.LOG_CORRUPT, f"a checkpoint of size {row.size} with another root is stored; one tree is forged"
            )
        return standing

    @contextmanager
    @override
    def checkpoints(self) -> Iterator[Iterator[CheckpointRow]]:
        with self._lock:
            rows = [self._checkpoints[size] for size in sorted(self._checkpoints)]
        yield iter(rows)

    @override
    def backlog(self) -> Backlog:
        with self._lock:
            waiting = [row.new.entry.at for row in self._rows if row.index is None]
        return Backlog(count=len(waiting), oldest=min(waiting, default=None))


def _fits(entry: AuditEntry, query: Query) -> bool:
    wanted = [
        (query.department, entry.actor.department if entry.actor else ""),
        (query.resource, entry.resource),
        (query.purpose, entry.purpose),
        (query.case, entry.case),
        (query.grant, entry.grant.id if entry.grant else ""),
        (query.action, entry.action),
        (query.decision, entry.decision),
        (query.entry, entry.id),
    ]
    return (
        all(value is None or value == found for value, found in wanted)
        and (query.since is None or entry.at >= query.since)
        and (query.until is None or entry.at < query.until)
    )

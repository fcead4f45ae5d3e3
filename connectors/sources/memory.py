"""Sources in memory: a database of tables with a log, read as a snapshot source and as a change source.

The adapters that have no database below them: they keep the promises of `connectors.port` in the fewest lines, for the
conformance suite, and for tests of publishers.

    database = MemoryDatabase({"public.item": ("id", "name")}, key=("id",))
    database.commit(("put", "public.item", {"id": "1", "name": "a"}), ("delete", "public.item", {"id": "2"}))
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pyarrow as pa
from typing_extensions import override

from connectors.port import (
    ChangeBatch,
    ChangeOperation,
    ChangePosition,
    ChangeRequest,
    ChangeSource,
    Portion,
    Replaces,
    RowChunk,
    Snapshot,
    SnapshotSource,
    TableChanges,
    TransactionSpan,
)
from connectors.sources.postgres.json_rows import JsonRows
from schemas.errors import ConflictError, Reason, UnavailableError

__all__ = ["MemoryChangeSource", "MemoryDatabase", "MemorySnapshotSource"]

Row: TypeAlias = Mapping[str, str | None]
Change: TypeAlias = tuple[Literal["put", "delete", "truncate"], str, Row]
_CHUNK = 5_000  # rows
_QUIET = 0.05  # seconds


@dataclass(frozen=True)
class _Transaction:
    """One committed transaction; its number is its index in the log + 1."""

    changes: Sequence[Change]
    committed_at: int


@dataclass
class MemoryDatabase:
    """Tables of text columns, and the log of what changed them.

    Attributes:
        columns: table → its columns.
        key: columns that make the key of every table.
        name: two databases are the same if their names are.
        reachable: False makes every call fail with SOURCE_UNAVAILABLE.
        kept: name of a reader → the number of the first transaction that is kept for it.
    """

    columns: Mapping[str, Sequence[str]]
    key: Sequence[str] = ("id",)
    name: str = "memory"
    reachable: bool = True
    kept: dict[str, int] = field(default_factory=dict)
    tables: dict[str, dict[tuple[str | None, ...], Row]] = field(default_factory=dict)
    log: list[_Transaction] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)

    def commit(self, *changes: Change) -> None:
        """Commit one transaction."""
        with self.grown:
            for operation, table, row in changes:
                rows = self.tables.setdefault(table, {})
                key = tuple(row.get(name) for name in self.key)
                if operation == "truncate":
                    rows.clear()
                elif operation == "delete":
                    rows.pop(key, None)
                else:
                    rows[key] = row
            self.log.append(_Transaction(changes, len(self.log) * 1_000_000))
            self.grown.notify_all()

    def rows(self, table: str) -> list[Row]:
        """Return the rows of a table now."""
        with self.grown:
            return list(self.tables.get(table, {}).values())

    def check_reachable(self) -> None:
        """Raise SOURCE_UNAVAILABLE where the database is away."""
        if not self.reachable:
            raise UnavailableError(Reason.SOURCE_UNAVAILABLE, f"the database {self.name} does not answer; is it there?")


class _MemoryPortion(Portion):
    """Rows of one moment, or of a table as it is."""

    def __init__(self, database: MemoryDatabase, table: str, rows: Sequence[Row] | None = None) -> None:
        self._database = database
        self._table = table
        self._rows = rows

    @property
    @override
    def name(self) -> str:
        return self._table

    @property
    @override
    def identity(self) -> bytes:
        return b""

    @property
    @override
    def replaces(self) -> Replaces:
        return Replaces.EVERYTHING

    @property
    @override
    def stable(self) -> bool:
        return self._rows is not None

    @property
    @override
    def columns(self) -> Sequence[str]:
        return self._database.columns[self._table]

    @override
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        names = self.columns if columns is None else columns
        self._database.check_reachable()
        rows = self._database.rows(self._table) if self._rows is None else self._rows
        for start in range(0, len(rows), _CHUNK):
            self._database.check_reachable()
            page = rows[start : start + _CHUNK]
            yield RowChunk(
                columns=_columns(names, page),
                lines=range(start + 1, start + len(page) + 1),
                originals=_originals(names, page) if columns is None else [],
            )

    @override
    def confirm(self) -> None:
        """Do nothing: a table is read again each time."""


class MemorySnapshotSource(SnapshotSource):
    """One table; each pass over it is one portion."""

    def __init__(self, database: MemoryDatabase, table: str) -> None:
        self._portion = _MemoryPortion(database, table)

    @override
    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        yield self._portion

    @override
    def close(self) -> None:
        """Do nothing."""


class _MemorySnapshot(Snapshot):
    def __init__(self, source: "MemoryChangeSource", tables: Sequence[str]) -> None:
        database = source.database
        with database.grown:
            self._portions = {table: _MemoryPortion(database, table, database.rows(table)) for table in tables}
            self._next = len(database.log) + 1
        self._source = source

    @property
    @override
    def portions(self) -> Mapping[str, Portion]:
        return self._portions

    @property
    @override
    def position(self) -> ChangePosition:
        return ChangePosition(stream=self._source.stream, commit=self._next - 1, end=self._next)

    @override
    def keep_log(self) -> None:
        self._source.keep(self._next)


class MemoryChangeSource(ChangeSource):
    """The log of one database, kept under the name of a reader. Used by one thread."""

    def __init__(
        self, database: MemoryDatabase, reader: str, notes: dict[str, int], *, batch_rows: int = 10_000
    ) -> None:
        """Configure.

        Args:
            database: whose log is read.
            reader: the name under which it is kept.
            notes: of this reader, which outlive it: what it has confirmed.
            batch_rows: of one table and transaction; a larger transaction is given in parts.
        """
        self.database = database
        self._reader = reader
        self._notes = notes
        self._batch_rows = batch_rows

    @property
    @override
    def stream(self) -> bytes:
        return hashlib.sha256(self.database.name.encode()).digest()[:16]

    @override
    def prepare(self, requests: Sequence[ChangeRequest], *, adopt: bool, fresh: bool) -> frozenset[str]:
        self.database.check_reachable()
        if fresh:
            self.database.kept.pop(self._reader, None)
            self._notes.clear()
        kept, noted = self.database.kept.get(self._reader), self._notes.get("confirmed")
        if kept is None and (noted is not None or (adopt and not fresh)):
            raise ConflictError(Reason.SOURCE_CHANGED, f"the log is not kept for {self._reader} any more")
        if kept is None:
            return frozenset()
        if noted is None:
            if not adopt:
                raise ConflictError(Reason.SOURCE_CHANGED, f"{self._reader} is the name of another reader")
            self._notes["confirmed"] = noted = kept
        if kept > noted:
            raise ConflictError(Reason.SOURCE_CHANGED, f"another program has read the log as {self._reader}")
        return frozenset(request.table for request in requests)

    @override
    @contextmanager
    def snapshot(self, tables: Sequence[str]) -> Iterator[Snapshot]:
        self.database.check_reachable()
        yield _MemorySnapshot(self, tables)

    def keep(self, position: int) -> None:
        """Keep the log from a transaction on; where it is kept already, nothing changes."""
        self._notes.setdefault("confirmed", position)
        self.database.kept.setdefault(self._reader, position)

    @override
    def read(self, requests: Sequence[ChangeRequest], *, once: bool = False) -> Iterator[ChangeBatch | None]:
        number = self.database.kept.get(self._reader, 1)
        until = len(self.database.log) if once else None
        emptied: set[str] = set()
        while until is None or number <= until:
            self.database.check_reachable()
            with self.database.grown:
                if number > len(self.database.log) and not self.database.grown.wait(_QUIET):
                    yield None
                    continue
                transaction = self.database.log[number - 1]
            yield from self._batches(number, transaction, requests, emptied)
            number += 1

    def _batches(
        self, number: int, transaction: _Transaction, requests: Sequence[ChangeRequest], emptied: set[str]
    ) -> Iterator[ChangeBatch]:
        parts: list[TableChanges] = []
        emptied_here = []
        for request in requests:
            skip = 0 if request.after is None else request.after.published_rows(number)
            changes = [change for change in transaction.changes if change[1] == request.table]
            if skip is None or request.table in emptied:
                continue
            cut = next((at for at, change in enumerate(changes) if change[0] == "truncate"), None)
            if cut is not None:
                changes = changes[:cut]
                emptied.add(request.table)
                emptied_here.append(request.table)
            starts = range(skip, len(changes), self._batch_rows)
            parts += [self._table_changes(request, number, transaction, changes, start) for start in starts]
        for part in parts[:-1]:
            yield ChangeBatch(tables=[part], position=number)
        yield ChangeBatch(tables=parts[-1:], position=number + 1, emptied=emptied_here)

    def _table_changes(
        self,
        request: ChangeRequest,
        number: int,
        transaction: _Transaction,
        changes: Sequence[Change],
        start: int,
    ) -> TableChanges:
        part = changes[start : start + self._batch_rows]
        last = start + len(part) == len(changes)
        names = self.database.columns[request.table]
        rows = [
            row if operation == "put" else {name: row.get(name) for name in request.key} for operation, _, row in part
        ]
        return TableChanges(
            table=request.table,
            columns=names,
            rows=RowChunk(
                columns=_columns([name for name in names if name in request.columns], rows),
                lines=[number] * len(rows),
                originals=_originals(names, rows),
            ),
            operations=bytes(
                ChangeOperation.UPSERT if operation == "put" else ChangeOperation.DELETE for operation, _, _ in part
            ),
            spans=[
                TransactionSpan(
                    commit=number,
                    end=number + 1 if last else 0,
                    committed_at=transaction.committed_at,
                    first=start,
                    rows=len(part),
                    last=last,
                )
            ],
        )

    @override
    def confirm(self, position: int | None) -> None:
        self.database.check_reachable()
        if position is not None:
            self._notes["confirmed"] = self.database.kept[self._reader] = position

    @override
    def close(self) -> None:
        """Do nothing: the log is kept for the next reader of this name."""


def _columns(names: Sequence[str], rows: Sequence[Row]) -> dict[str, pa.StringArray]:
    return {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}


def _originals(names: Sequence[str], rows: Sequence[Row]) -> Sequence[bytes]:
    return JsonRows(names, [[row.get(name) for name in names] for row in rows])

"""Assembly of changes: messages of pgoutput → batches of changes by table. Pure.

    Relation   how the rows that follow are decoded: by the columns that the table had then, never by today's catalogue
    Update     unchanged values that are stored out of line are copied from the old row (REPLICA IDENTITY FULL); where
               it is not sent, the row is marked for a second reading by key, or the table is refused
               a changed key is a delete of the old one and an upsert of the new one, two rows
    Delete     the key alone is kept
    Truncate   the table is reported as emptied, and nothing of it is read from there on
    Commit     ends a transaction; its rows are given together with those of others, as whole transactions

A transaction in which a table has more rows than a batch holds, or that is larger than memory allows, is given in parts
as it arrives; their spans say so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from connectors.port import ChangeBatch, ChangeOperation, ChangeRequest, RowChunk, TableChanges, TransactionSpan
from connectors.sources.postgres.json_rows import JsonColumns
from connectors.sources.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Cell,
    Commit,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    TypeName,
    Update,
)
from connectors.sources.postgres.text_form import TextForm, text_form
from schemas.errors import InvalidError, Reason

__all__ = ["AssembledBatch", "AssemblyLimits", "ChangeAssembler", "MissingValue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyLimits:
    """When changes are given out.

    Attributes:
        batch_rows: rows of one table that are worth a batch.
        transaction_rows: rows of one table and transaction that are one batch at most.
        buffered_bytes: of texts in memory, roughly; a transaction beyond it is given in parts.
    """

    batch_rows: int = 5_000
    transaction_rows: int = 10_000
    buffered_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MissingValue:
    """A row of which values were not sent: its index in the changes of its table, and the columns."""

    row: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssembledBatch:
    """A batch, and for each of its tables the rows that miss values."""

    batch: ChangeBatch
    missing: Sequence[Sequence[MissingValue]]


@dataclass(frozen=True, slots=True)
class _Shape:
    """A relation, prepared for its rows."""

    relation: Relation
    forms: Sequence[tuple[int, TextForm]]
    key: Sequence[int]
    needed: Sequence[int]


@dataclass(slots=True)
class _Buffer:
    """Rows of one table, all of one shape."""

    shape: _Shape
    rows: list[list[Cell]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    operations: bytearray = field(default_factory=bytearray)
    spans: list[TransactionSpan] = field(default_factory=list)
    missing: list[MissingValue] = field(default_factory=list)


@dataclass(slots=True)
class _Table:
    """One requested table. `seen`: its rows in the open transaction; `given`: those of them that are in spans."""

    request: ChangeRequest
    buffers: list[_Buffer] = field(default_factory=list)
    emptied: bool = False
    seen: int = 0
    given: int = 0
    skip: int | None = 0


class ChangeAssembler:
    """One stream of messages, from a beginning between two transactions."""

    def __init__(self, requests: Sequence[ChangeRequest], limits: AssemblyLimits, position: int) -> None:
        """Configure.

        Args:
            requests: the tables; others are passed over.
            limits: of a batch.
            position: behind the last transaction that is not sent any more.
        """
        self._tables = {each.table: _Table(each) for each in requests}
        self._limits = limits
        self._shapes: dict[int, tuple[_Table, _Shape]] = {}
        self._types: dict[int, str] = {}
        self._begin: Begin | None = None
        self._position = position
        self._given = position
        self._bytes = 0
        self._rows = 0
        self._emptied: list[str] = []
        self._emptied_here: list[str] = []

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction has begun and not ended."""
        return self._begin is not None

    def feed(self, message: Message, size: int) -> Iterator[AssembledBatch]:
        """Take one message of a size in bytes; return what is ready.

        Raises:
            InvalidError: CONTRACT_BROKEN, when a row cannot be told by its key.
        """
        match message:
            case Insert():
                yield from self._add(message.relation_id, ChangeOperation.UPSERT, message.new, size)
            case Update():
                yield from self._update(message, size)
            case Delete():
                yield from self._add(message.relation_id, ChangeOperation.DELETE, message.old, size)
            case Begin():
                self._open(message)
            case Commit():
                yield from self._commit(message)
            case Relation():
                self._shape(message)
            case TypeName():
                self._types[message.oid] = message.name
            case Truncate():
                self._empty(message)
            case _:
                pass

    def flush(self) -> AssembledBatch | None:
        """Return the whole transactions that are buffered; None where there are none, or one is open."""
        if self._begin is not None or (self._given == self._position and not self._emptied):
            return None
        return self._give()

    # -- messages ----------------------------------------------------------------------------------------------

    def _open(self, begin: Begin) -> None:
        self._begin = begin
        for table in self._tables.values():
            table.seen = table.given = 0
            after = table.request.after
            table.skip = 0 if after is None else after.published_rows(begin.commit_lsn)

    def _commit(self, commit: Commit) -> Iterator[AssembledBatch]:
        for table in self._tables.values():
            self._close_span(table, commit.end_lsn, last=True)
        self._begin = None
        self._position = commit.end_lsn
        self._emptied += self._emptied_here
        self._emptied_here = []
        if self._rows >= self._limits.batch_rows or self._bytes > self._limits.buffered_bytes:
            yield self._give()

    def _shape(self, relation: Relation) -> None:
        table = self._tables.get(f"{relation.schema}.{relation.name}")
        if table is None:
            self._shapes.pop(relation.id, None)
            return
        names = [column.name for column in relation.columns]
        lacking = [name for name in table.request.key if name not in names]
        if lacking:
            raise InvalidError(
                Reason.CONTRACT_BROKEN,
                f"{table.request.table} has no column {', '.join(lacking)} any more, which the key of its records is "
                "made of; map the key under `columns:`, or correct the table",
            )
        forms = [
            (at, form)
            for at, column in enumerate(relation.columns)
            if (form := text_form(column.type_oid, self._types.get(column.type_oid, ""))) is not None
        ]
        shape = _Shape(
            relation=relation,
            forms=forms,
            key=[names.index(name) for name in table.request.key],
            needed=[at for at, name in enumerate(names) if name in table.request.columns],
        )
        known = self._shapes.get(relation.id)
        self._shapes[relation.id] = table, shape if known is None or known[1].relation != relation else known[1]

    def _update(self, update: Update, size: int) -> Iterator[AssembledBatch]:
        found = self._shapes.get(update.relation_id)
        if found is None:
            return
        _, shape = found
        new, old = list(update.new), update.old
        if old is not None:
            if not update.old_is_key:
                new = [before if cell is UNCHANGED else cell for cell, before in zip(new, old, strict=True)]
            if any(old[at] != new[at] and new[at] is not UNCHANGED for at in shape.key):
                yield from self._add(update.relation_id, ChangeOperation.DELETE, old, size)
        yield from self._add(update.relation_id, ChangeOperation.UPSERT, new, size)

    def _add(
        self, relation_id: int, operation: ChangeOperation, cells: Sequence[Cell], size: int
    ) -> Iterator[AssembledBatch]:
        found = self._shapes.get(relation_id)
        if found is None or self._begin is None:
            return
        table, shape = found
        if table.skip is None or table.emptied:
            return
        if table.seen < table.skip:  # an earlier part of a large transaction, which is published
            table.seen += 1
            table.given = table.seen
            return
        if table.seen - table.given >= self._limits.transaction_rows or self._bytes > self._limits.buffered_bytes:
            yield self._give()
        if not table.buffers or table.buffers[-1].shape is not shape:
            self._close_span(table, 0, last=False)
            table.buffers.append(_Buffer(shape))
        table.seen += 1
        self._rows += 1
        self._bytes += size
        buffer = table.buffers[-1]
        buffer.lines.append(self._begin.commit_lsn)
        buffer.operations.append(operation)
        _append(buffer, operation, list(cells))

    def _empty(self, truncate: Truncate) -> None:
        for relation_id in truncate.relation_ids:
            found = self._shapes.get(relation_id)
            if found is None or found[0].skip is None or found[0].emptied:
                continue
            table = found[0]
            table.emptied = True
            self._emptied_here.append(table.request.table)

    # -- giving out --------------------------------------------------------------------------------------------

    def _close_span(self, table: _Table, end: int, *, last: bool) -> None:
        rows = table.seen - table.given
        if not rows or self._begin is None:
            return
        table.buffers[-1].spans.append(
            TransactionSpan(
                commit=self._begin.commit_lsn,
                end=end,
                committed_at=self._begin.committed_at,
                first=table.given,
                rows=rows,
                last=last,
            )
        )
        table.given = table.seen

    def _give(self) -> AssembledBatch:
        """Return all that is buffered; in a transaction, as a part of it."""
        changes, missing = [], []
        for table in self._tables.values():
            self._close_span(table, 0, last=False)
            for buffer in table.buffers:
                changes.append(_changes(table.request.table, buffer))
                missing.append(buffer.missing)
            table.buffers = []
        batch = ChangeBatch(tables=changes, position=self._position, emptied=tuple(self._emptied))
        self._emptied = []
        self._rows = self._bytes = 0
        self._given = self._position
        return AssembledBatch(batch, missing)


def _append(buffer: _Buffer, operation: ChangeOperation, row: list[Cell]) -> None:
    """Append a row in the mapping's text form; of a deleted one the key alone."""
    shape = buffer.shape
    if operation is ChangeOperation.DELETE:
        row = [cell if at in shape.key else None for at, cell in enumerate(row)]
    for at, form in shape.forms:
        cell = row[at]
        if isinstance(cell, str):
            row[at] = form(cell)
    if UNCHANGED in row:
        absent = tuple(shape.relation.columns[at].name for at in shape.needed if row[at] is UNCHANGED)
        if absent:
            buffer.missing.append(MissingValue(len(buffer.rows), absent))
        row = [None if cell is UNCHANGED else cell for cell in row]
    buffer.rows.append(row)


def _changes(table: str, buffer: _Buffer) -> TableChanges:
    names = [column.name for column in buffer.shape.relation.columns]
    # Several batches wait for the pool at a time: as columns they take a tenth of the memory of rows of Python texts.
    columns = [pa.array(column, pa.string()) for column in zip(*buffer.rows, strict=True)]
    return TableChanges(
        table=table,
        columns=names,
        rows=RowChunk(
            columns={names[at]: columns[at] for at in buffer.shape.needed},
            lines=buffer.lines,
            originals=JsonColumns(names, columns),
        ),
        operations=bytes(buffer.operations),
        spans=buffer.spans,
    )

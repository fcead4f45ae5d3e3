"""Changes of a table → records in groups of a batch's size, each with the position after it.

    keys ─▶ map the upserts ─▶ encode ─▶ unchanged? ─▶ mark ─▶ groups of whole transactions

A deleted row becomes a void, which holds its key and nothing else. A row whose record is the one that the pool has,
such as an update of a column that is not published, is unchanged. What was built and is not acknowledged yet is
remembered here, since the ledger does not know it.

A transaction of up to 10,000 rows is one batch, unless its values do not fit into one. A batch that ends within a
transaction says so in its position, and so in its receipt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, overload

import pyarrow as pa
from typing_extensions import override

from connectors.mapping.mapping import BoundMapping
from connectors.port import (
    ChangeOperation,
    ChangePosition,
    Reject,
    RowChunk,
    TableChanges,
    TransactionSpan,
)
from connectors.publishing.lane import LaneSession
from connectors.publishing.outbox import OutboundRecord, RecordGroup, mark_of
from connectors.publishing.record_encoding import LARGEST_VALUE, RecordEncoder
from connectors.publishing.second_pass import RunCounters
from connectors.state.ledger import Ledger
from schemas.record import MAX_BATCH_RECORDS, Operation

__all__ = ["ChangeGroups"]

_Record: TypeAlias = OutboundRecord | None
_MAX_PARAMETERS = 5_000  # of one IN list
_UNKNOWN = b"?"  # the digest of a record that the pool refused: equal to none


@dataclass
class ChangeGroups:
    """The records of one table, in one run. Used by one thread at a time.

    Attributes:
        session: of the lane.
        ledger: with the published keys.
        counters: of the run.
        position: after the last change that was handled.
        ends: a delete ends the validity of a record, and does not retract it.
        batch_rows, batch_bytes: so many of several transactions are one batch.
    """

    session: LaneSession
    ledger: Ledger
    counters: RunCounters
    position: ChangePosition
    ends: bool
    batch_rows: int
    batch_bytes: int
    _bound: dict[tuple[str, ...], BoundMapping] = field(default_factory=dict)
    _built: dict[bytes, bytes | None] = field(default_factory=dict)  # key → digest, None = voided
    _unacknowledged: list[tuple[TableChanges, Sequence[_Record]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._encoder = RecordEncoder(self.session.contract, self.session.engine)

    def groups(self, changes: TableChanges) -> Iterator[RecordGroup]:
        """Return the records of some changes, in order.

        Raises:
            InvalidError: CONTRACT_BROKEN, when the table's columns do not fit; QUARANTINE_LIMIT.
        """
        records, unchanged, rejects, outcomes = self._records(changes)
        portion, quarantine = self.counters.run.portion, self.counters.quarantine
        # What was set aside of a key is overtaken by its next change, in this batch as well.
        quarantine.close_changed(portion, list({key for key, _ in outcomes}))
        self.counters.count_read(len(changes), unchanged, rejects)
        originals = changes.rows.originals
        quarantine.add_keys(portion, [(key, originals[row]) for key, row in outcomes if row is not None])
        quarantine.close_changed(portion, [key for key, row in dict(outcomes).items() if row is None])
        self._unacknowledged.append((changes, records))
        yield from self._pack(changes, records)

    def acknowledged(self) -> None:
        """Forget what was built: the ledger has it."""
        self._built.clear()
        self._unacknowledged.clear()

    def count_acknowledged(self, records: int, voids: int) -> None:
        """Count a receipt (`connectors.publishing.lane.SendCounters`)."""
        self.counters.count_acknowledged(records, voids)

    def count_refused(self, records: Sequence[OutboundRecord], rejects: Sequence[Reject]) -> None:
        """Count records that the pool refused, with the rows that they were made of."""
        refused = {id(record) for record in records}
        originals = {
            id(record): changes.rows.originals[row]
            for changes, built in self._unacknowledged
            for row, record in enumerate(built)
            if record is not None and id(record) in refused
        }
        for record in records:
            if self._built.get(record.key) is not None:
                self._built[record.key] = _UNKNOWN
        found = [originals.get(id(record), record.key) for record in records]
        self.counters.count_refused(
            records, [replace(reject, original=original) for original, reject in zip(found, rejects, strict=True)]
        )
        keys = [record.key for record in records]
        self.counters.quarantine.add_keys(self.counters.run.portion, list(zip(keys, found, strict=True)))

    # -- records -----------------------------------------------------------------------------------------------

    def _records(
        self, changes: TableChanges
    ) -> tuple[list[_Record], int, list[Reject], list[tuple[bytes, int | None]]]:
        """Return a record or None for each row, the number of unchanged rows, the rejects, and each key's outcomes.

        An outcome is the row that was rejected, or None; those of a key stand in the order of its changes.
        """
        bound = self._bind(tuple(changes.columns))
        chunk, operations = changes.rows, changes.operations
        keys = bound.keys(chunk)
        upserts = [
            row
            for row, operation in enumerate(operations)
            if operation == ChangeOperation.UPSERT and row not in changes.superseded
        ]
        datums, rejects = self._encode(bound, chunk, upserts)
        checkpoint = self.ledger.checkpoint()
        complete = checkpoint is not None and checkpoint.complete
        published = _published_digests(self.ledger, [key for key in keys if key is not None])
        records: list[_Record] = [None] * len(changes)
        ended_at = self._ended_at(changes.spans)
        corrections = self.ledger.corrections()
        unchanged = 0
        outcomes: list[tuple[bytes, int | None]] = []
        for row, key in enumerate(keys):
            datum = datums.get(row)
            rejected = operations[row] == ChangeOperation.UPSERT and datum is None and row not in changes.superseded
            if key is not None:
                outcomes.append((key, row if rejected else None))
            if rejected:
                continue
            before = None if key is None else self._built.get(key, published.get(key))
            digest = b"" if datum is None else self._encoder.digest(datum)
            if (
                key is None
                or row in changes.superseded
                or (digest and before == digest and key not in corrections)
                or (not digest and before is None and complete)
            ):
                # A delete of what the pool does not have; a row with a key that no record can have was never published.
                unchanged += 1
                continue
            operation = Operation.VOID
            if digest:
                operation = Operation.CORRECT if key in corrections else Operation.UPSERT
            value = b"" if datum is None else self._encoder.head + datum
            mark = mark_of(operation, published=before is not None, complete=complete)
            self._built[key] = digest or None
            records[row] = OutboundRecord(
                mark, key, value, digest, chunk.lines[row], b"", 0 if digest else ended_at[row]
            )
        return records, unchanged, rejects, outcomes

    def _encode(
        self, bound: BoundMapping, chunk: RowChunk, upserts: list[int]
    ) -> tuple[dict[int, bytes], list[Reject]]:
        """Return row → datum of the good ones."""
        if not upserts:
            return {}, []
        part = chunk if len(upserts) == len(chunk) else _take(chunk, upserts)
        mapped = bound.map(part)
        rejects = [*chunk.rejects, *mapped.rejects]
        datums, rows = self._encoder.encode(part, mapped.batch, list(mapped.rows), rejects)
        return {upserts[row]: datum for row, datum in zip(rows, datums, strict=True)}, rejects

    def _ended_at(self, spans: Sequence[TransactionSpan]) -> list[int]:
        return [span.committed_at if self.ends else 0 for span in spans for _ in range(span.rows)]

    def _bind(self, columns: tuple[str, ...]) -> BoundMapping:
        if columns not in self._bound:
            self._bound[columns] = self.session.mapping.bind(columns)
        return self._bound[columns]

    # -- groups ------------------------------------------------------------------------------------------------

    def _pack(self, changes: TableChanges, records: Sequence[_Record]) -> Iterator[RecordGroup]:
        buffer: list[OutboundRecord] = []
        size = 0
        before = self.position
        read_again = False
        row = 0
        for span in changes.spans:
            rows = range(row, row + span.rows)
            found = [(at, record) for at in rows if (record := records[at]) is not None]
            span_size = sum(len(record.value) for _, record in found)
            if buffer and (
                len(buffer) >= self.batch_rows
                or len(buffer) + len(found) > MAX_BATCH_RECORDS
                or size + span_size > self.batch_bytes
            ):
                yield self._group(buffer, before, read_again=read_again)
                buffer, size, before, read_again = [], 0, self.position, False
            for at, record in found:
                if buffer and (len(buffer) >= MAX_BATCH_RECORDS or size + len(record.value) > LARGEST_VALUE):
                    self.position = self._within(span, span.first + at - row, part=True)
                    yield self._group(buffer, before, read_again=read_again)
                    buffer, size, before, read_again = [], 0, self.position, False
                buffer.append(record)
                size += len(record.value)
                read_again = read_again or at in changes.read_again
            self.position = self._within(span, span.first + span.rows, part=not span.last)
            row += span.rows
        if buffer:
            yield self._group(buffer, before, read_again=read_again)

    def _group(self, records: list[OutboundRecord], before: ChangePosition, *, read_again: bool) -> RecordGroup:
        position = replace(self.position, read_again=read_again)
        return RecordGroup(records=records, position=position, scope=0, before=before)

    def _within(self, span: TransactionSpan, rows: int, *, part: bool) -> ChangePosition:
        return ChangePosition(
            stream=self.position.stream,
            commit=span.commit,
            end=span.end,
            rows=rows if part else 0,
            part=part,
            origin=span.origin,
        )


def _take(chunk: RowChunk, rows: Sequence[int]) -> RowChunk:
    indices = pa.array(rows, pa.int32())
    return RowChunk(
        columns={name: column.take(indices) for name, column in chunk.columns.items()},
        lines=[chunk.lines[row] for row in rows],
        originals=_Chosen(chunk.originals, rows),
    )


class _Chosen(Sequence[bytes]):
    """Some of the originals, which are written when they are asked for."""

    def __init__(self, originals: Sequence[bytes], rows: Sequence[int]) -> None:
        self._originals = originals
        self._rows = rows

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    @override
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        return _Chosen(self._originals, self._rows[at]) if isinstance(at, slice) else self._originals[self._rows[at]]


def _published_digests(ledger: Ledger, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the digests of those of the keys that the pool has."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _MAX_PARAMETERS):
        page = keys[start : start + _MAX_PARAMETERS]
        marks = ",".join("?" * len(page))
        with ledger.lock:
            found.update(ledger.sql.execute(f"SELECT key, digest FROM keys WHERE key IN ({marks})", page))  # noqa: S608
    return found

"""Second pass over a portion: changed rows as records, in groups of a batch's size; and the counters of the run.

    map ─▶ remove duplicates ─▶ encode as Avro ─▶ the contract's own rules ─▶ unchanged? ─▶ RecordGroup

All rows of a duplicate key are quarantined: a program must not guess which one is right, and the guess would change
with the order of the rows. `on_duplicate: last` is a department's own decision that the last row is right; the others
are quarantined then as well, since nothing is dropped silently.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from connectors.mapping.mapping import BoundMapping, MappedRows
from connectors.port import Portion, Reject, RejectCode, ResumablePortion, RowChunk
from connectors.publishing.earlier_contracts import EarlierContracts
from connectors.publishing.key_scan import KeyScan
from connectors.publishing.outbox import OutboundRecord, RecordGroup, SourcePosition, mark_of
from connectors.publishing.record_encoding import LARGEST_VALUE, RecordEncoder
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from schemas.errors import InvalidError, Reason
from schemas.record import Operation

__all__ = ["RunCounters", "SecondPass"]

_MIN_ROWS = 1_000  # a share of fewer rows says little


class RunCounters:
    """Counters of one run over a portion."""

    def __init__(
        self,
        run: RunReport,
        quarantine: Quarantine,
        share: float,
        progress: Callable[[RunReport], None] = lambda _: None,
        *,
        deletes_are_rows: bool = False,
    ) -> None:
        """Configure.

        Args:
            run: the report that is counted up.
            quarantine: of the publication.
            share: of the rows read (after the first 1,000); more of them quarantined stop the run.
            progress: called after each chunk and receipt.
            deletes_are_rows: a void is sent for a row that was read, as from a log of changes.
        """
        self.run = run
        self._deletes_are_rows = deletes_are_rows
        self._progress = progress
        self.quarantine = quarantine
        self._share = share

    def count_read(self, rows: int, unchanged: int, rejects: Sequence[Reject]) -> None:
        """Count a chunk.

        Raises:
            InvalidError: QUARANTINE_LIMIT.
        """
        self.quarantine.add(self.run.portion, self.run.id, rejects)
        run = self.run
        self.run = replace(
            run,
            read=run.read + rows,
            unchanged=run.unchanged + unchanged,
            quarantined=run.quarantined + len(rejects),
        )
        self._progress(self.run)  # rows that are unchanged get no receipt
        if self.run.read >= _MIN_ROWS:
            self._check_share()

    def count_acknowledged(self, records: int, voids: int) -> None:
        """Count a receipt."""
        self.run = replace(self.run, published=self.run.published + records, voided=self.run.voided + voids)
        self._progress(self.run)

    def count_refused(self, records: Sequence[OutboundRecord], rejects: Sequence[Reject]) -> None:
        """Count rows that the pool refused."""
        del records  # the rejects name their rows
        self.quarantine.add(self.run.portion, self.run.id, rejects)
        self.run = replace(self.run, quarantined=self.run.quarantined + len(rejects))

    def finish(self, outcome: str) -> None:
        """Set the outcome.

        Raises:
            InvalidError: INTERNAL, when the counters do not balance: a row was lost, and the portion is not confirmed.
        """
        self.run = replace(self.run, outcome=outcome)
        run = self.run
        deletes = run.voided if self._deletes_are_rows else 0
        if outcome == "done" and run.read != run.published + run.quarantined + run.unchanged + deletes:
            raise InvalidError(
                Reason.INTERNAL,
                f"{run.portion}: {run.read} rows read, but {run.published} published, {run.quarantined} quarantined "
                f"and {run.unchanged} unchanged; the portion is not done. Report this as a fault of the program",
            )

    def _check_share(self) -> None:
        run = self.run
        if run.quarantined > self._share * run.read:
            raise InvalidError(
                Reason.QUARANTINE_LIMIT,
                f"{run.portion}: {run.quarantined} of {run.read} rows are quarantined, more than {self._share:.1%}. "
                "See `pool-connect quarantine list`; mend the source or the mapping, or raise the limit",
            )


@dataclass(kw_only=True)
class SecondPass:
    """One second pass, with all its inputs; iterate `groups` once.

    Attributes:
        start: position without rows, of this portion, contract and mapping.
        recovered: so many rows were published before the ledger was lost.
        keep_last: of duplicate rows, the last one is published.
        settled: whether everything that was given out is acknowledged, or set aside.
        first_sequence: of the lane's last batch before the pass.
    """

    portion: Portion
    bound: BoundMapping
    encoder: RecordEncoder
    earlier: EarlierContracts
    key_scan: KeyScan
    ledger: Ledger
    counters: RunCounters
    start: SourcePosition
    recovered: int
    scope: int
    keep_last: bool
    batch_rows: int
    batch_bytes: int
    stop: threading.Event
    settled: Callable[[], bool]
    first_sequence: int
    _places: deque[tuple[int, bytes]] = field(default_factory=deque)
    _processed: int = 0
    _remaining: dict[bytes, int] = field(default_factory=dict)
    _buffer: list[OutboundRecord] = field(default_factory=list)
    _corrections: frozenset[bytes] = frozenset()
    _buffered_bytes: int = 0

    def groups(self) -> Iterator[RecordGroup]:
        """Return the changed rows, in order, in groups of a batch's size."""
        checkpoint = self.ledger.checkpoint()
        complete = checkpoint is not None and checkpoint.complete
        largest = min(self.batch_bytes, LARGEST_VALUE)
        self._corrections = self.ledger.corrections()
        for chunk in self._chunks():
            if self.stop.is_set():
                break
            rows, unchanged, rejects = self._process(chunk, complete=complete)
            self.counters.count_read(len(chunk) + len(chunk.rejects), unchanged, rejects)
            for row in rows:
                if self._buffer and (
                    len(self._buffer) >= self.batch_rows or self._buffered_bytes + len(row.value) > largest
                ):
                    yield self._flush()
                self._buffer.append(row)
                self._buffered_bytes += len(row.value)
            self._processed += len(chunk)
            self._save(chunk.place)
        if self._buffer:
            yield self._flush()

    def _chunks(self) -> Iterator[RowChunk]:
        """Return the chunks, or those behind the place that an interrupted pass had reached."""
        reached = self.key_scan.reached
        if not reached.place or not isinstance(self.portion, ResumablePortion):
            return self.portion.chunks()
        self._processed = reached.rows
        return self.portion.chunks_after(reached.place, reached.rows)

    def _save(self, place: bytes) -> None:
        """Note the last place before which every record is acknowledged."""
        if not place:
            return
        self._places.append((self._processed, place))
        done = self._processed if not self._buffer and self.settled() else self._acknowledged()
        found: tuple[int, bytes] | None = None
        while self._places and self._places[0][0] <= done:
            found = self._places.popleft()
        if found is not None:
            self.key_scan.save(replace(self.key_scan.reached, rows=found[0], place=found[1]))

    def _acknowledged(self) -> int:
        """Return the number of rows before which all is acknowledged, by the last receipt of this pass."""
        checkpoint = self.ledger.checkpoint()
        if checkpoint is None or checkpoint.sequence <= self.first_sequence:
            return 0
        position = SourcePosition.parse(checkpoint.position)
        return position.rows if position is not None else 0

    def end_position(self) -> SourcePosition:
        """Return the source position after the processed chunks."""
        return replace(self.start, rows=self._processed)

    def _flush(self) -> RecordGroup:
        # Rows of the current chunk may still be in the buffer: the position is the one before it, which is always true.
        group = RecordGroup(records=self._buffer, position=self.end_position(), scope=self.scope)
        self._buffer, self._buffered_bytes = [], 0
        return group

    def _process(self, chunk: RowChunk, *, complete: bool) -> tuple[list[OutboundRecord], int, list[Reject]]:
        mapped = self.bound.map(chunk)
        rejects = [*chunk.rejects, *mapped.rejects]
        good = self._without_duplicates(chunk, mapped, rejects)
        chosen = [row for row, _ in good]
        batch = (
            mapped.batch
            if len(good) == len(mapped.rows)
            else mapped.batch.take(pa.array([at for _, at in good], pa.int32()))
        )
        place = {row: at for at, row in enumerate(chosen)}
        datums, chosen = self.encoder.encode(chunk, batch, chosen, rejects)
        keys = [key for row in chosen if (key := mapped.keys[row]) is not None]
        published = self.key_scan.published_digests(keys)
        head, corrections = self.encoder.head, self._corrections
        new, again = (mark_of(Operation.UPSERT, published=each, complete=complete) for each in (False, True))
        original = chunk.originals.__getitem__
        rows: list[OutboundRecord] = []
        new_keys: list[tuple[bytes, bytes]] = []
        unchanged = 0
        digests = [self.encoder.digest(datum) for datum in datums]
        differing = {
            place[row]: before[0]
            for row, key, digest in zip(chosen, keys, digests, strict=True)
            if (before := published.get(key)) is not None and before[0] not in (digest, b"")
        }
        same = self.earlier.unchanged(batch, differing) if differing else set()
        for row, key, datum, digest in zip(chosen, keys, datums, digests, strict=True):
            before = published.get(key)
            if key in corrections:
                mark = mark_of(Operation.CORRECT, published=before is not None, complete=complete)
                rows.append(OutboundRecord(mark, key, head + datum, digest, chunk.lines[row], partial(original, row)))
            elif before is not None and before[0] == digest:
                unchanged += 1
                if before[1] != self.scope:
                    new_keys.append((key, digest))
            elif self._processed + row < self.recovered or place[row] in same:
                unchanged += 1
                new_keys.append((key, digest))
            else:
                mark = new if before is None else again
                rows.append(OutboundRecord(mark, key, head + datum, digest, chunk.lines[row], partial(original, row)))
        if new_keys:
            self.ledger.add_keys(new_keys, self.scope)
        return rows, unchanged, rejects

    def _without_duplicates(self, chunk: RowChunk, mapped: MappedRows, rejects: list[Reject]) -> list[tuple[int, int]]:
        """Return (row, index in the mapped batch) of the rows with a unique key."""
        row_counts = self.key_scan.duplicates(mapped.keys)
        if self.keep_last:
            last = self._last_of(mapped.keys, row_counts)
            duplicates = {row for row, key in enumerate(mapped.keys) if key in row_counts and row not in last}
        else:
            duplicates = {row for row, key in enumerate(mapped.keys) if key in row_counts}
        if not self.portion.stable:
            duplicates |= self._seen_before(mapped, duplicates)
        rejects += [_duplicate(chunk, row, self.encoder.contract.key) for row in mapped.rows if row in duplicates]
        return [(row, at) for at, row in enumerate(mapped.rows) if row not in duplicates]

    def _last_of(self, keys: Sequence[bytes | None], row_counts: dict[bytes, int]) -> set[int]:
        last = set()
        for row, key in enumerate(keys):
            if key is not None and key in row_counts:
                left = self._remaining.get(key, row_counts[key]) - 1
                self._remaining[key] = left
                if left == 0:
                    last.add(row)
        return last

    def _seen_before(self, mapped: MappedRows, duplicates: set[int]) -> set[int]:
        """Return rows whose key this pass has had already, though the first pass had it once."""
        candidates = [(row, key) for row, key in enumerate(mapped.keys) if key is not None and row not in duplicates]
        seen = self.key_scan.mark_seen([key for _, key in candidates], self._processed)
        repeated, in_chunk = set(), set()
        for row, key in candidates:
            if key in seen or key in in_chunk:
                repeated.add(row)
            in_chunk.add(key)
        return repeated


def _duplicate(chunk: RowChunk, row: int, key: Sequence[str]) -> Reject:
    return Reject(
        line=chunk.lines[row],
        code=RejectCode.DUPLICATE_KEY,
        field=", ".join(key),
        message="expected each key once",
        original=chunk.originals[row],
    )

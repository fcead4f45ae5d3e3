"""The second reading of a portion: chunk by chunk into groups of rows that have changed.

    map ─▶ duplicates out ─▶ Avro ─▶ the contract's own rules ─▶ unchanged? ─▶ Group

Rows of a key that the portion has twice are quarantined, every one of them: which one is right is not for a program to
guess, and a guess would flip with the order of the rows. `on_duplicate: last` is a department's own decision that the
last row of a group is right; the others are quarantined then as well, since nothing is dropped silently.
"""

import hashlib
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from connectors.mapping.contract import Contract
from connectors.mapping.mapping import Bound, Mapped
from connectors.port import Changes, Portion, Reject, RejectCode
from connectors.publishing.key_scan import KeyScan
from connectors.publishing.outbox import Group, Place, Row, mark_of
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from registry.codec.codec import Engine, RowError
from schemas.errors import InvalidError, Reason
from schemas.record import MAX_BATCH_BYTES, Operation

__all__ = ["SecondPass", "Tally"]

_PROVEN = 1_000  # rows; a share of fewer says little
_REPORTED = 100  # rows of one batch that an engine names at most
_HEADROOM = 65_536  # bytes of a batch that are not values
_CODES = {  # a rule of the contract → what breaking it is called
    "codes": RejectCode.ENUM,
    "cn_id18": RejectCode.ID_CHECKSUM,
    "uscc": RejectCode.ID_CHECKSUM,
    "not_empty": RejectCode.NULL_NOT_ALLOWED,
}


class Tally:
    """The balance of one portion while it is being made."""

    def __init__(self, run: RunReport, quarantine: Quarantine, share: float) -> None:
        self.run = run
        self._quarantine = quarantine
        self._share = share

    def read(self, rows: int, unchanged: int, rejects: Sequence[Reject]) -> None:
        """Count a chunk.

        Raises:
            InvalidError: QUARANTINE_LIMIT.
        """
        self._quarantine.add(self.run.portion, self.run.id, rejects)
        run = self.run
        self.run = replace(
            run,
            read=run.read + rows,
            unchanged=run.unchanged + unchanged,
            quarantined=run.quarantined + len(rejects),
        )
        if self.run.read >= _PROVEN:
            self._judge()

    def acknowledged(self, records: int, voids: int) -> None:
        """Count a receipt."""
        self.run = replace(self.run, published=self.run.published + records, voided=self.run.voided + voids)

    def refused(self, rejects: Sequence[Reject]) -> None:
        """Count rows that the pool refused."""
        self._quarantine.add(self.run.portion, self.run.id, rejects)
        self.run = replace(self.run, quarantined=self.run.quarantined + len(rejects))

    def end(self, outcome: str) -> None:
        """Close the balance.

        Raises:
            InvalidError: INTERNAL, when it does not balance: a row was lost, and nothing is remembered as done.
        """
        self.run = replace(self.run, outcome=outcome)
        run = self.run
        if outcome == "done" and run.read != run.published + run.quarantined + run.unchanged:
            raise InvalidError(
                Reason.INTERNAL,
                f"{run.portion}: {run.read} rows read, but {run.published} published, {run.quarantined} quarantined "
                f"and {run.unchanged} unchanged; the portion is not done. Report this as a fault of the program",
            )

    def _judge(self) -> None:
        run = self.run
        if run.quarantined > self._share * run.read:
            raise InvalidError(
                Reason.QUARANTINE_LIMIT,
                f"{run.portion}: {run.quarantined} of {run.read} rows are quarantined, more than {self._share:.1%}. "
                "See `pool-connect quarantine list`; mend the source or the mapping, or raise the limit",
            )


@dataclass(kw_only=True)
class SecondPass:
    """One reading of a portion, with everything that it needs; iterate `groups` once."""

    portion: Portion
    bound: Bound
    contract: Contract
    engine: Engine
    survey: KeyScan
    ledger: Ledger
    tally: Tally
    place: Place
    recovered: int
    scope: int
    keep_last: bool
    batch_rows: int
    batch_bytes: int
    stop: threading.Event
    _handled: int = 0
    _remaining: dict[bytes, int] = field(default_factory=dict)
    _waiting: list[Row] = field(default_factory=list)
    _bytes: int = 0

    def groups(self) -> Iterator[Group]:
        """Return the changed rows, in order, in groups of a batch's size."""
        standing = self.ledger.standing()
        complete = standing is not None and standing.complete
        largest = min(self.batch_bytes, MAX_BATCH_BYTES - _HEADROOM)
        for changes in self.portion.changes():
            if self.stop.is_set():
                break
            rows, unchanged, rejects = self._chunk(changes, complete=complete)
            self.tally.read(len(changes) + len(changes.rejects), unchanged, rejects)
            for row in rows:
                if self._waiting and (len(self._waiting) >= self.batch_rows or self._bytes + len(row.value) > largest):
                    yield self._flush()
                self._waiting.append(row)
                self._bytes += len(row.value)
            self._handled += len(changes)
        if self._waiting:
            yield self._flush()

    def after(self) -> Place:
        """Return the place behind the last row."""
        return replace(self.place, rows=self._handled)

    def _flush(self) -> Group:
        # Rows of the chunk at hand may be waiting still: the place is the one before it, which is always true.
        group = Group(rows=self._waiting, place=self.after(), scope=self.scope)
        self._waiting, self._bytes = [], 0
        return group

    def _chunk(self, changes: Changes, *, complete: bool) -> tuple[list[Row], int, list[Reject]]:
        mapped = self.bound.map(changes)
        rejects = [*changes.rejects, *mapped.rejects]
        good = self._without_duplicates(changes, mapped, rejects)
        chosen = [row for row, _ in good]
        batch = (
            mapped.batch
            if len(good) == len(mapped.rows)
            else mapped.batch.take(pa.array([at for _, at in good], pa.int32()))
        )
        datums, chosen = self._encode(changes, batch, chosen, rejects)
        keys = [key for row in chosen if (key := mapped.keys[row]) is not None]
        published = self.survey.published(keys)
        head = struct.pack(">bI", 0, self.contract.schema_id)
        meaning = self.contract.meaning
        rows: list[Row] = []
        learnt: list[tuple[bytes, bytes]] = []
        unchanged = 0
        for row, key, datum in zip(chosen, keys, datums, strict=True):
            digest = hashlib.blake2b(datum, digest_size=16, key=meaning).digest()
            before = published.get(key)
            if before is not None and before[0] == digest:
                unchanged += 1
                if before[1] != self.scope:
                    learnt.append((key, digest))
            elif self._handled + row < self.recovered:
                unchanged += 1
                learnt.append((key, digest))
            else:
                mark = mark_of(Operation.UPSERT, published=before is not None, complete=complete)
                rows.append(Row(mark, key, head + datum, digest, changes.lines[row], changes.originals[row]))
        if learnt:
            self.ledger.learn(learnt, self.scope)
        return rows, unchanged, rejects

    def _without_duplicates(self, changes: Changes, mapped: Mapped, rejects: list[Reject]) -> list[tuple[int, int]]:
        """Return (row, place in the mapped batch) of the rows whose key is theirs alone."""
        twice = self.survey.twice(mapped.keys)
        if self.keep_last:
            last = self._last_of(mapped.keys, twice)
            doubled = {row for row, key in enumerate(mapped.keys) if key in twice and row not in last}
        else:
            doubled = {row for row, key in enumerate(mapped.keys) if key in twice}
        if not self.portion.stable:
            doubled |= self._claimed(mapped, doubled)
        rejects += [_duplicate(changes, row, self.contract.key) for row in mapped.rows if row in doubled]
        return [(row, at) for at, row in enumerate(mapped.rows) if row not in doubled]

    def _last_of(self, keys: Sequence[bytes | None], twice: dict[bytes, int]) -> set[int]:
        last = set()
        for row, key in enumerate(keys):
            if key is not None and key in twice:
                left = self._remaining.get(key, twice[key]) - 1
                self._remaining[key] = left
                if left == 0:
                    last.add(row)
        return last

    def _claimed(self, mapped: Mapped, doubled: set[int]) -> set[int]:
        """Find rows whose key this reading has had already; the first reading did not see them twice."""
        mine = [(row, key) for row, key in enumerate(mapped.keys) if key is not None and row not in doubled]
        taken = self.survey.claim([key for _, key in mine])
        late, here = set(), set()
        for row, key in mine:
            if key in taken or key in here:
                late.add(row)
            here.add(key)
        return late

    def _encode(
        self, changes: Changes, batch: pa.RecordBatch, chosen: list[int], rejects: list[Reject]
    ) -> tuple[list[bytes], list[int]]:
        """Return the datums of the rows that keep the contract's own rules, and those rows."""
        if not chosen:
            return [], []
        datums = list(self.engine.encode(batch))
        errors = self._errors(datums)
        for index, datum in enumerate(datums):
            if len(datum) > MAX_BATCH_BYTES - _HEADROOM and index not in errors:
                errors[index] = RowError(
                    index=index, reason=Reason.BATCH_TOO_LARGE, field="", message=f"at most {MAX_BATCH_BYTES} bytes"
                )
        if not errors:
            return datums, chosen
        rejects += [self._broken(changes, chosen[index], error) for index, error in sorted(errors.items())]
        kept = [index for index in range(len(datums)) if index not in errors]
        return [datums[index] for index in kept], [chosen[index] for index in kept]

    def _broken(self, changes: Changes, row: int, error: RowError) -> Reject:
        known = self.contract.field(error.field)
        code = next(
            (code for rule, code in _CODES.items() if known is not None and rule in known.rules), RejectCode.TYPE
        )
        if error.reason is Reason.BATCH_TOO_LARGE:
            code = RejectCode.TOO_LARGE
        return Reject(
            line=changes.lines[row],
            code=code,
            field=error.field,
            message=error.message,
            original=changes.originals[row],
        )

    def _errors(self, datums: Sequence[bytes]) -> dict[int, RowError]:
        if not isinstance(self.engine.check(datums), list):
            return {}
        errors: dict[int, RowError] = {}
        for start in range(0, len(datums), _REPORTED):
            found = self.engine.check(datums[start : start + _REPORTED])
            if isinstance(found, list):
                for error in found:
                    errors.setdefault(start + error.index, error)
        return errors


def _duplicate(changes: Changes, row: int, key: Sequence[str]) -> Reject:
    return Reject(
        line=changes.lines[row],
        code=RejectCode.DUPLICATE_KEY,
        field=", ".join(key),
        message="expected each key once",
        original=changes.originals[row],
    )

"""Outbox: records → signed batches, in an unbroken chain, each written to disk before it is sent.

A batch carries its sequence number and the root of the batch before it, so the chain can be built ahead of the
receipts: several batches are in flight. A batch that a receipt acknowledges leaves the outbox. A batch that the pool
refuses is taken back, and it and all later ones are built again under the same numbers, which a refusal does not
consume.

Another thread (the client's feeder) may iterate the stream of batches, and the feeder of a broken stream may still be
inside `stream` when the next one begins: a lock and an epoch prevent a second chain.
"""

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from connectors.port import ChangePosition
from connectors.state.ledger import KeyUpdate, Ledger, StoredBatch
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.merkle import root_of
from schemas.names import Lane
from schemas.record import Batch, KeyOccurrence, Mark, Operation, Packed, Receipt, batch_statement, leaf_hashes

__all__ = ["OutboundRecord", "Outbox", "RecordGroup", "SourcePosition", "mark_of"]

_POSITION = struct.Struct("<B16s8sQ")
_VALID = struct.Struct("<qq")
_DIGEST = 16  # bytes


class OutboundRecord(NamedTuple):
    """One record to be published; line and original are for the quarantine, should the pool refuse it.

    `valid_from` is in microseconds UTC, 0 = not stated. A void that states it ends the record's validity; one that does
    not retracts the record.
    """

    mark: int
    key: bytes
    value: bytes  # framed Avro; empty for a void
    digest: bytes  # 16 bytes; empty for a void
    line: int
    original: bytes | Callable[[], bytes]  # a function where writing it costs more than it is worth: few are refused
    valid_from: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePosition:
    """A position in the source: so many rows of a portion are processed, under one contract and mapping.

    It is sent with each batch, and the pool returns the last one (`resume`), so that a connector that lost its ledger
    knows up to which row a portion that still exists has been published.
    """

    identity: bytes = bytes(16)
    fingerprint: bytes = bytes(8)
    rows: int = 0

    def __bytes__(self) -> bytes:
        return _POSITION.pack(1, self.identity.ljust(16, b"\0"), self.fingerprint, self.rows)

    @classmethod
    def parse(cls, position: bytes) -> Self | None:
        """Parse one; None where another program or version wrote it."""
        if len(position) != _POSITION.size or position[0] != 1:
            return None
        _, identity, fingerprint, rows = _POSITION.unpack(position)
        return cls(identity=identity, fingerprint=fingerprint, rows=rows)

    def covered_rows(self, identity: bytes, fingerprint: bytes) -> int:
        """Return the number of processed rows of a portion; 0 for another portion, or an unknown identity."""
        same = identity == self.identity and any(identity) and fingerprint == self.fingerprint
        return self.rows if same else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordGroup:
    """The records of one batch, and the source positions after and before them; the latter is empty if unknown."""

    records: Sequence[OutboundRecord]
    position: SourcePosition | ChangePosition
    scope: int
    before: SourcePosition | ChangePosition = SourcePosition()


@dataclass(frozen=True, slots=True, kw_only=True)
class _PendingBatch:
    """A batch that is not acknowledged; `group` is None when it was found on disk after a crash."""

    batch: Batch
    key_update: KeyUpdate
    group: RecordGroup | None


class Outbox:
    """The unacknowledged end of one lane's chain."""

    def __init__(self, ledger: Ledger, pool_id: str, lane: Lane, sign: Callable[[bytes], bytes]) -> None:
        """Load the unacknowledged batches from the ledger.

        Args:
            ledger: of the lane, with a checkpoint.
            pool_id: signed with each batch.
            lane: of this connector and topic.
            sign: bytes → 64 bytes of Ed25519.
        """
        self._ledger = ledger
        self._pool_id = pool_id
        self._lane = lane
        self._sign = sign
        self._lock = threading.RLock()
        self._epoch = 0
        self._supply: Iterator[RecordGroup] = iter(())
        self._requeued: deque[RecordGroup] = deque()
        self._pending: deque[_PendingBatch] = deque(_unpack(lane, stored_batch) for stored_batch in ledger.outbox())
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            raise ConflictError(Reason.INTERNAL, "the ledger has no checkpoint; resume the lane at the pool first")
        last = self._pending[-1].batch if self._pending else checkpoint
        self._sequence, self._root = last.sequence, last.root

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def settled(self) -> bool:
        """Return whether no batch waits for its receipt, or to be built again."""
        return not self._pending and not self._requeued

    def set_supply(self, supply: Iterator[RecordGroup]) -> None:
        """Set the source of the batches to come."""
        with self._lock:
            self._supply = supply

    def stream(self) -> Iterator[Batch]:
        """Return every unacknowledged batch, then new ones until the supply ends. A later call ends an earlier one."""
        with self._lock:
            self._epoch += 1
            epoch, sequence = self._epoch, self._pending[0].batch.sequence if self._pending else self._sequence + 1
        while True:
            with self._lock:
                if epoch != self._epoch:
                    return
                batch = self._batch_at(sequence)
            if batch is None:
                return
            yield batch
            sequence += 1

    def acknowledge(self, receipt: Receipt) -> tuple[int, int]:
        """Record what a receipt proves; return the numbers of records and of voids.

        Raises:
            ConflictError: SEQUENCE_CONFLICT, when it is not the receipt of the oldest batch.
        """
        with self._lock:
            pending = self._pending[0] if self._pending else None
            if (
                pending is None
                or receipt.sequence != pending.batch.sequence
                or receipt.root != pending.batch.root
                or receipt.lane != self._lane
            ):
                raise ConflictError(
                    Reason.SEQUENCE_CONFLICT,
                    f"got a receipt for batch {receipt.sequence}; expected one for "
                    f"{pending.batch.sequence if pending else 'none'} with its root",
                )
            return self._complete(receipt)

    def reconcile(self, sequence: int, root: bytes) -> tuple[int, int] | None:
        """Record what the lane's last batch at the pool proves, if that batch is of this chain.

        The roots are chained: the root of batch n proves every batch up to n. Batch n itself stays in the outbox, since
        sending it again returns its receipt.

        Returns:
            The numbers of records and of voids that this proves; None when the batch is not of this chain.
        """
        with self._lock:
            checkpoint = self._ledger.checkpoint()
            if checkpoint is not None and (checkpoint.sequence, checkpoint.root) == (sequence, root):
                return 0, 0
            if not any((each.batch.sequence, each.batch.root) == (sequence, root) for each in self._pending):
                return None
            records = voids = 0
            while self._pending[0].batch.sequence < sequence:
                completed = self._complete(None)
                records, voids = records + completed[0], voids + completed[1]
            return records, voids

    def take_back(self, sequence: int, bad: Sequence[int]) -> list[OutboundRecord] | None:
        """Remove records from a refused batch, and requeue it and all later ones to be built again.

        Returns:
            The removed records; None when the batch was found on disk after a crash: then it and the later ones are
            dropped, and the next pass over the portion reads their rows again.
        """
        with self._lock:
            earlier = [each for each in self._pending if each.batch.sequence < sequence]
            taken_back = [each for each in self._pending if each.batch.sequence >= sequence]
            self._ledger.drop_from_outbox(sequence)
            self._pending = deque(earlier)
            last = earlier[-1].batch if earlier else self._ledger.checkpoint()
            if last is None or not taken_back or taken_back[0].batch.sequence != sequence:
                raise ConflictError(Reason.SEQUENCE_CONFLICT, f"got a refusal of batch {sequence}, which was not sent")
            self._sequence, self._root = last.sequence, last.root
            groups = [each.group for each in taken_back]
            if any(group is None for group in groups):
                return None
            requeue = [group for group in groups if group is not None]
            records = list(requeue[0].records)
            removed = set(bad)
            rest = [record for index, record in enumerate(records) if index not in removed]
            requeue[0] = replace(requeue[0], records=rest)
            self._requeued.extendleft(reversed([group for group in requeue if group.records]))
            return [records[index] for index in bad]

    def split(self, sequence: int) -> bool:
        """Build a batch that is too large again as two; return False when it is a single record."""
        with self._lock:
            found = next((each for each in self._pending if each.batch.sequence == sequence), None)
            if found is None or len(found.batch) < 2:
                return False
            if self.take_back(sequence, ()) is None:
                return True
            first = self._requeued.popleft()
            middle = len(first.records) // 2
            self._requeued.appendleft(replace(first, records=first.records[middle:]))
            # The position after the first half is unknown: the one before it costs some work after a crash, no more.
            self._requeued.appendleft(replace(first, records=first.records[:middle], position=first.before))
            return True

    def _batch_at(self, sequence: int) -> Batch | None:
        for each in self._pending:
            if each.batch.sequence == sequence:
                return each.batch
        group = self._requeued.popleft() if self._requeued else next(self._supply, None)
        if group is None:
            return None
        pending = self._build(group)
        self._ledger.add_to_outbox(_pack(pending))
        self._pending.append(pending)
        self._sequence, self._root = pending.batch.sequence, pending.batch.root
        return pending.batch

    def _build(self, group: RecordGroup) -> _PendingBatch:
        marks = bytes(record.mark for record in group.records)
        values = [record.value for record in group.records]
        voided = [record.key for record in group.records if record.mark & 15 == Operation.VOID]
        valid = b""
        if any(record.valid_from for record in group.records):
            valid = b"".join(_VALID.pack(record.valid_from, 0) for record in group.records)
        root = root_of(leaf_hashes(marks, values, voided, valid))
        sequence = self._sequence + 1
        statement = batch_statement(self._pool_id, self._lane, sequence, len(marks), root, self._root)
        batch = Batch(
            lane=self._lane,
            sequence=sequence,
            marks=marks,
            values=Packed.of(values),
            void_keys=Packed.of(voided) if voided else Packed(b"", b""),
            valid=valid,
            previous_root=self._root,
            root=root,
            signature=self._sign(statement),
            source_position=bytes(group.position),
        )
        # A batch of changes may have a key several times: the last one counts.
        last = {record.key: record.digest for record in group.records}
        keys = [(key, digest) for key, digest in last.items() if digest]
        update = _key_update(keys, voided, group.scope)
        corrected = [record.key for record in group.records if record.mark & 15 == Operation.CORRECT]
        return _PendingBatch(batch=batch, key_update=replace(update, corrected=corrected), group=group)

    def _complete(self, receipt: Receipt | None) -> tuple[int, int]:
        done = self._pending.popleft()
        batch = done.batch
        self._ledger.acknowledge(
            batch.sequence, batch.root, batch.source_position, done.key_update, len(batch), receipt
        )
        voids = len(batch.void_keys)
        return len(batch) - voids, voids


def mark_of(operation: Operation, *, published: bool, complete: bool) -> int:
    """Return the mark of a record: `first` only where the ledger has every key that was ever published."""
    new = KeyOccurrence.FIRST if complete else KeyOccurrence.UNKNOWN
    return int(Mark(operation, KeyOccurrence.AGAIN if published else new))


def _key_update(keys: Sequence[tuple[bytes, bytes]], void_keys: Iterable[bytes], scope: int) -> KeyUpdate:
    """Return what a batch changes: a voided key that it publishes again is not voided."""
    published = {key for key, _ in keys}
    return KeyUpdate(keys=keys, voided=[key for key in void_keys if key not in published], scope=scope)


def _pack(pending: _PendingBatch) -> StoredBatch:
    batch, key_update = pending.batch, pending.key_update
    parts = (
        batch.marks,
        batch.values.offsets,
        batch.values.values,
        batch.void_keys.offsets,
        batch.void_keys.values,
        batch.previous_root,
        batch.signature,
        batch.source_position,
        *([batch.valid] if batch.valid else []),  # a program of before reads batches without valid times
    )
    keys = Packed.of([key for key, _ in key_update.keys])
    effects = (
        keys.offsets,
        keys.values,
        b"".join(digest for _, digest in key_update.keys),
        key_update.scope.to_bytes(8, "little"),
    )
    return StoredBatch(
        sequence=batch.sequence, root=batch.root, content=_join_parts(parts), effects=_join_parts(effects)
    )


def _unpack(lane: Lane, stored_batch: StoredBatch) -> _PendingBatch:
    parts = _split_parts(stored_batch.content)
    marks, offsets, values, void_offsets, void_values, previous, signature, position = parts[:8]
    batch = Batch(
        lane=lane,
        sequence=stored_batch.sequence,
        marks=marks,
        values=Packed(offsets, values),
        void_keys=Packed(void_offsets, void_values),
        valid=parts[8] if len(parts) > 8 else b"",
        previous_root=previous,
        root=stored_batch.root,
        signature=signature,
        source_position=position,
    )
    key_offsets, key_values, digests, scope = _split_parts(stored_batch.effects)
    keys = [
        (key, digests[index * _DIGEST : (index + 1) * _DIGEST])
        for index, key in enumerate(Packed(key_offsets, key_values))
    ]
    key_update = _key_update(keys, batch.void_keys, int.from_bytes(scope, "little"))
    return _PendingBatch(batch=batch, key_update=key_update, group=None)


def _join_parts(parts: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(parts) + 1}I", len(parts), *map(len, parts)) + b"".join(parts)


def _split_parts(joined: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<I", joined)
    lengths = struct.unpack_from(f"<{count}I", joined, 4)
    at = 4 + 4 * count
    parts = []
    for length in lengths:
        parts.append(joined[at : at + length])
        at += length
    if at != len(joined):
        raise InvalidError(Reason.INTERNAL, "a batch of the outbox cannot be read; delete the ledger to start again")
    return parts

"""Rows → signed batches, in an unbroken chain, each kept on disk before it is sent.

A batch carries its sequence number and the root of the batch before it, so the chain can be drawn ahead of the
receipts: several batches are in flight. What a receipt acknowledges leaves the outbox; what is refused is taken apart,
and it and everything behind it is sealed again under the same numbers, which a refusal does not consume.

The stream of batches may be drawn by another thread (the client's feeder), and a broken stream's feeder may still be
inside `stream` when the next one begins: a lock and an epoch keep the chain one.
"""

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from connectors.state.ledger import Known, Ledger, Stored
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.merkle import root_of
from schemas.names import Lane
from schemas.record import Batch, Mark, Operation, Packed, Receipt, Seen, batch_statement, leaf_hashes

__all__ = ["Group", "Outbox", "Place", "Row", "mark_of"]

_PLACE = struct.Struct("<B16s8sQ")
_DIGEST = 16  # bytes


class Row(NamedTuple):
    """One record to be published; the last three are for the quarantine, should the pool refuse it."""

    mark: int
    key: bytes
    value: bytes  # framed Avro; empty for a void
    digest: bytes  # 16 bytes; empty for a void
    line: int
    original: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A source position: how many rows of which portion, under which contract and mapping, are dealt with.

    It travels with each batch and comes back from the pool (`resume`), so that a connector that lost its ledger knows
    up to where a portion that is still there has been published.
    """

    identity: bytes = bytes(16)
    fingerprint: bytes = bytes(8)
    rows: int = 0

    def __bytes__(self) -> bytes:
        return _PLACE.pack(1, self.identity.ljust(16, b"\0"), self.fingerprint, self.rows)

    @classmethod
    def of(cls, position: bytes) -> Self | None:
        """Read one; None where another program or version wrote it."""
        if len(position) != _PLACE.size or position[0] != 1:
            return None
        _, identity, fingerprint, rows = _PLACE.unpack(position)
        return cls(identity=identity, fingerprint=fingerprint, rows=rows)

    def covers(self, identity: bytes, fingerprint: bytes) -> int:
        """Return how many rows of a portion it says are dealt with; 0 for another portion, or an unknown identity."""
        same = identity == self.identity and any(identity) and fingerprint == self.fingerprint
        return self.rows if same else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows for one batch, and the place after them."""

    rows: Sequence[Row]
    place: Place
    scope: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A batch that is not acknowledged; `group` is None when it was found on disk after a crash."""

    batch: Batch
    known: Known
    group: Group | None


class Outbox:
    """The unacknowledged end of one lane's chain."""

    def __init__(self, ledger: Ledger, pool_id: str, lane: Lane, sign: Callable[[bytes], bytes]) -> None:
        """Take up what the ledger holds.

        Args:
            ledger: of the lane; it stands somewhere.
            pool_id: signed with each batch.
            lane: ours.
            sign: bytes → 64 bytes of Ed25519.
        """
        self._ledger = ledger
        self._pool_id = pool_id
        self._lane = lane
        self._sign = sign
        self._lock = threading.RLock()
        self._epoch = 0
        self._supply: Iterator[Group] = iter(())
        self._returned: deque[Group] = deque()
        self._pending: deque[_Pending] = deque(_unpack(lane, stored) for stored in ledger.outbox())
        standing = ledger.standing()
        if standing is None:
            raise ConflictError(Reason.INTERNAL, "the ledger stands nowhere; ask the pool first")
        last = self._pending[-1].batch if self._pending else standing
        self._sequence, self._root = last.sequence, last.root

    def __len__(self) -> int:
        return len(self._pending)

    def offer(self, supply: Iterator[Group]) -> None:
        """Let the rest of the chain be made of these groups."""
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
                batch = self._at(sequence)
            if batch is None:
                return
            yield batch
            sequence += 1

    def acknowledge(self, receipt: Receipt) -> tuple[int, int]:
        """Remember what a receipt proves; give the numbers of records and of voids.

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
            return self._settle(receipt)

    def explains(self, sequence: int, root: bytes) -> tuple[int, int] | None:
        """Return whether the pool's standing is one of this chain, and remember what it proves.

        The roots are chained: a standing with the root of batch n proves every batch up to n. The last of them is kept,
        since sending it again fetches its receipt.

        Returns:
            The numbers of records and of voids that are proven hereby; None when the standing is not of this chain.
        """
        with self._lock:
            standing = self._ledger.standing()
            if standing is not None and (standing.sequence, standing.root) == (sequence, root):
                return 0, 0
            if not any((each.batch.sequence, each.batch.root) == (sequence, root) for each in self._pending):
                return None
            records = voids = 0
            while self._pending[0].batch.sequence < sequence:
                settled = self._settle(None)
                records, voids = records + settled[0], voids + settled[1]
            return records, voids

    def refuse(self, sequence: int, bad: Sequence[int]) -> list[Row] | None:
        """Take the rows out of a refused batch, and everything from it on back to be sealed again.

        Returns:
            The rows; None when the batch was found on disk after a crash: it and those behind it are dropped then,
            and the portion, read again, states their rows once more.
        """
        with self._lock:
            kept = [each for each in self._pending if each.batch.sequence < sequence]
            taken = [each for each in self._pending if each.batch.sequence >= sequence]
            self._ledger.drop(sequence)
            self._pending = deque(kept)
            last = kept[-1].batch if kept else self._ledger.standing()
            if last is None or not taken or taken[0].batch.sequence != sequence:
                raise ConflictError(Reason.SEQUENCE_CONFLICT, f"got a refusal of batch {sequence}, which was not sent")
            self._sequence, self._root = last.sequence, last.root
            groups = [each.group for each in taken]
            if any(group is None for group in groups):
                return None
            again = [group for group in groups if group is not None]
            rows = list(again[0].rows)
            out = set(bad)
            rest = [row for index, row in enumerate(rows) if index not in out]
            again[0] = Group(rows=rest, place=again[0].place, scope=again[0].scope)
            self._returned.extendleft(reversed([group for group in again if group.rows]))
            return [rows[index] for index in bad]

    def halve(self, sequence: int) -> bool:
        """Seal a batch that is too large as two; False when it is a single record."""
        with self._lock:
            found = next((each for each in self._pending if each.batch.sequence == sequence), None)
            if found is None or len(found.batch) < 2:
                return False
            if self.refuse(sequence, ()) is None:
                return True
            first = self._returned.popleft()
            middle = len(first.rows) // 2
            self._returned.appendleft(Group(rows=first.rows[middle:], place=first.place, scope=first.scope))
            # How far the first half reaches is not known; saying "nowhere" costs a lost ledger some work, no more.
            self._returned.appendleft(Group(rows=first.rows[:middle], place=Place(), scope=first.scope))
            return True

    def _at(self, sequence: int) -> Batch | None:
        for each in self._pending:
            if each.batch.sequence == sequence:
                return each.batch
        group = self._returned.popleft() if self._returned else next(self._supply, None)
        if group is None:
            return None
        pending = self._seal(group)
        self._ledger.store(_pack(pending))
        self._pending.append(pending)
        self._sequence, self._root = pending.batch.sequence, pending.batch.root
        return pending.batch

    def _seal(self, group: Group) -> _Pending:
        marks = bytes(row.mark for row in group.rows)
        values = [row.value for row in group.rows]
        voided = [row.key for row in group.rows if row.mark & 15 == Operation.VOID]
        root = root_of(leaf_hashes(marks, values, voided, b""))
        sequence = self._sequence + 1
        statement = batch_statement(self._pool_id, self._lane, sequence, len(marks), root, self._root)
        batch = Batch(
            lane=self._lane,
            sequence=sequence,
            marks=marks,
            values=Packed.of(values),
            void_keys=Packed.of(voided) if voided else Packed(b"", b""),
            valid=b"",
            previous_root=self._root,
            root=root,
            signature=self._sign(statement),
            source_position=bytes(group.place),
        )
        keys = [(row.key, row.digest) for row in group.rows if row.value]
        return _Pending(batch=batch, known=Known(keys=keys, voided=voided, scope=group.scope), group=group)

    def _settle(self, receipt: Receipt | None) -> tuple[int, int]:
        done = self._pending.popleft()
        batch = done.batch
        self._ledger.acknowledge(batch.sequence, batch.root, batch.source_position, done.known, len(batch), receipt)
        voids = len(done.known.voided)
        return len(batch) - voids, voids


def mark_of(operation: Operation, *, published: bool, complete: bool) -> int:
    """Return the mark of a record: `first` is said only by a ledger that has every key that ever went out."""
    new = Seen.FIRST if complete else Seen.UNKNOWN
    return int(Mark(operation, Seen.AGAIN if published else new))


def _pack(pending: _Pending) -> Stored:
    batch, known = pending.batch, pending.known
    parts = (
        batch.marks,
        batch.values.offsets,
        batch.values.values,
        batch.void_keys.offsets,
        batch.void_keys.values,
        batch.previous_root,
        batch.signature,
        batch.source_position,
    )
    keys = Packed.of([key for key, _ in known.keys])
    effects = (
        keys.offsets,
        keys.values,
        b"".join(digest for _, digest in known.keys),
        known.scope.to_bytes(8, "little"),
    )
    return Stored(sequence=batch.sequence, root=batch.root, batch=_joined(parts), effects=_joined(effects))


def _unpack(lane: Lane, stored: Stored) -> _Pending:
    marks, offsets, values, void_offsets, void_values, previous, signature, position = _parts(stored.batch)
    batch = Batch(
        lane=lane,
        sequence=stored.sequence,
        marks=marks,
        values=Packed(offsets, values),
        void_keys=Packed(void_offsets, void_values),
        valid=b"",
        previous_root=previous,
        root=stored.root,
        signature=signature,
        source_position=position,
    )
    key_offsets, key_values, digests, scope = _parts(stored.effects)
    keys = [
        (key, digests[index * _DIGEST : (index + 1) * _DIGEST])
        for index, key in enumerate(Packed(key_offsets, key_values))
    ]
    known = Known(keys=keys, voided=list(batch.void_keys), scope=int.from_bytes(scope, "little"))
    return _Pending(batch=batch, known=known, group=None)


def _joined(parts: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(parts) + 1}I", len(parts), *map(len, parts)) + b"".join(parts)


def _parts(joined: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<I", joined)
    lengths = struct.unpack_from(f"<{count}I", joined, 4)
    at = 4 + 4 * count
    parts = []
    for length in lengths:
        parts.append(joined[at : at + length])
        at += length
    if at != len(joined):
        raise InvalidError(Reason.INTERNAL, "a batch of the outbox cannot be read; delete the ledger to begin anew")
    return parts

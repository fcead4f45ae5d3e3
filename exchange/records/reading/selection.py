"""Selection: which records of a read leave the pool, within the bounds that the consumer asked for. Pure.

How many records an answer holds must not depend on records that it does not hold: a reader who asks for one record
and gets none, or for 10,000 and gets 5,123, would have counted the hidden ones. So an answer is filled from as many
reads as it takes (`exchange.records.fetch`), its bounds are over what leaves, and what a read brings beyond them is cut
off and read again by the next fetch.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from exchange.broker.port import PartitionRecords, ReadResult
from exchange.records.release import ViewOutput
from exchange.records.retractions import Blocked
from schemas.record import Operation, Packed, Positions

__all__ = ["Selection", "Truths", "join", "select"]

Truths = npt.NDArray[np.bool_]

_PLACE = struct.Struct("<HQ")
_OPERATION = 15  # of a mark's byte: which keys were published before is nobody's to know
_NO_TIMES = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The records that leave of one read or several, before their release.

    Attributes:
        values: framed by the view; an empty one is a withdrawal.
        keys: pseudonym of each.
        recorded_at: of each, microseconds UTC.
        delivered, withdrawn: offsets by partition, rising.
        offsets: of each.
        covered: of each, whether a retraction of its key lies behind it; such a record is a withdrawal.
        next: positions after all that was scanned for it.
        disputed: indexes of those of which a correction ticket is open, rising.
        places: of each, as `ViewRecords.places`; empty where they were not asked for.
        marks: operation of each, beside places; a record without a value is a void, whatever took it back.
        valid: valid times of each, 16 bytes, beside places.
        cut: the bounds were reached before the end of the read.
    """

    values: Packed
    keys: Sequence[bytes]
    recorded_at: Sequence[int]
    delivered: Sequence[Sequence[int]]
    withdrawn: Sequence[Sequence[int]]
    offsets: Sequence[int]
    covered: Truths
    next: Positions
    disputed: Sequence[int] = ()
    places: bytes = b""
    marks: bytes = b""
    valid: bytes = b""
    cut: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return len(self.values.values)

    def as_read(self) -> ReadResult:
        """Return keys and offsets in the form of a read, for `RetractionCache.still_blocked`."""
        count = len(self.keys)
        part = PartitionRecords(
            partition=0,
            offsets=self.offsets,
            keys=self.keys,
            values=[None] * count,
            recorded_at=self.recorded_at,
            mark=lambda _: 0,
            valid=lambda _: b"",
        )
        return ReadResult(partitions=(part,), next=self.next)

    def blocked(self) -> Blocked | None:
        """Return what retractions kept back of these records when they were selected."""
        if not self.covered.any():
            return None
        return Blocked(hidden=self.covered, at=np.zeros(len(self.keys), np.int64))


def select(
    read: ReadResult,
    output: ViewOutput,
    gone: Truths,
    hidden: Truths | None = None,
    *,
    disputed: Truths | None = None,
    records: int,
    size: int,
    first: bool,
    places: bool = False,
) -> Selection:
    """Return the selected and the withdrawn records of one read, within both bounds.

    Args:
        read: n records.
        output: of the view, applied to them.
        gone: n truth values, those that leave as a withdrawal.
        hidden: n truth values, those that a later retraction covers; None = no record.
        disputed: n truth values, those that leave as disputed; None = no record.
        records: at most so many.
        size: bytes of their values together, at most.
        first: nothing was selected before, so that one record is taken whatever its size.
        places: also say where each record stands, and what is known of it beside its value.
    """
    leaving = output.selected | gone
    cut = int(np.count_nonzero(leaving)) > records or len(output.values.values) > size
    if cut:
        leaving, next_ = _cut(read, output, leaving, records, size, at_least=int(first))
    else:
        next_ = read.next
    delivered: list[list[int]] = [[] for _ in read.next]
    withdrawn: list[list[int]] = [[] for _ in read.next]
    keys: list[bytes] = []
    times: list[int] = []
    offsets: list[int] = []
    base = 0
    for part in read.partitions:
        own = slice(base, base + len(part))
        base += len(part)
        stays = output.selected[own]
        if stays.all() and not cut:
            keys += part.keys
            times += part.recorded_at
            offsets += part.offsets
            delivered[part.partition] += part.offsets
            continue
        for index in np.flatnonzero(leaving[own]).tolist():
            keys.append(part.keys[index])
            times.append(part.recorded_at[index])
            offsets.append(part.offsets[index])
            side = delivered if stays[index] else withdrawn
            side[part.partition].append(part.offsets[index])
    told = _places(read, output, leaving) if places else (b"", b"", b"")
    values = _subset(output.values, leaving[output.selected]) if cut else output.values
    return Selection(
        values=_insert_empty(values, output.selected[leaving]),
        keys=keys,
        recorded_at=times,
        delivered=delivered,
        withdrawn=withdrawn,
        offsets=offsets,
        covered=np.zeros(len(keys), np.bool_) if hidden is None else hidden[leaving],
        next=next_,
        disputed=() if disputed is None else np.flatnonzero(disputed[leaving]).tolist(),
        places=told[0],
        marks=told[1],
        valid=told[2],
        cut=cut,
    )


def join(parts: Sequence[Selection], next_: Positions) -> Selection:
    """Return the selections of consecutive reads as one; *next_*: positions after the last of them."""
    if len(parts) == 1:
        return replace(parts[0], next=next_)
    ends, data, size = [np.zeros(1, "<i4")], [], 0
    disputed: list[int] = []
    count = 0
    for part in parts:
        disputed += [count + index for index in part.disputed]
        count += len(part)
        ends.append(np.frombuffer(part.values.offsets, "<i4")[1:] + size)
        data.append(part.values.values)
        size += part.size
    none: list[Sequence[int]] = [()] * len(next_)
    return Selection(
        values=Packed(np.concatenate(ends).astype("<i4").tobytes(), b"".join(data)),
        keys=[key for part in parts for key in part.keys],
        recorded_at=[time for part in parts for time in part.recorded_at],
        delivered=_join_offsets([part.delivered for part in parts]) if parts else none,
        withdrawn=_join_offsets([part.withdrawn for part in parts]) if parts else none,
        offsets=[offset for part in parts for offset in part.offsets],
        covered=np.concatenate([np.zeros(0, np.bool_), *(part.covered for part in parts)]),
        next=next_,
        disputed=disputed,
        places=b"".join(part.places for part in parts),
        marks=b"".join(part.marks for part in parts),
        valid=b"".join(part.valid for part in parts),
    )


def _places(read: ReadResult, output: ViewOutput, leaving: Truths) -> tuple[bytes, bytes, bytes]:
    """Return places, operations and valid times of the records that leave.

    Why a record has no value is not told: one that left the filter, one that a retraction covers and a void of a key
    are all voids. Only a void's own valid times are, since they say from when on its key is not valid.
    """
    places, marks, valid = bytearray(), bytearray(), bytearray()
    base = 0
    for part in read.partitions:
        own = slice(base, base + len(part))
        base += len(part)
        selected = output.selected[own].tolist()
        for index in np.flatnonzero(leaving[own]).tolist():
            operation, shown = part.mark(index) & _OPERATION, selected[index]
            places += _PLACE.pack(part.partition, part.offsets[index])
            marks.append(operation if shown else Operation.VOID)
            stated = part.valid(index) if shown or operation == Operation.VOID else b""
            valid += stated or _NO_TIMES
    return bytes(places), bytes(marks), bytes(valid)


def _cut(
    read: ReadResult, output: ViewOutput, leaving: Truths, records: int, size: int, *, at_least: int
) -> tuple[Truths, Positions]:
    """Return which of the leaving records fit the bounds, and the positions of the first that do not.

    The partition that is served first depends on the positions, so that none is always last.
    """
    lengths = np.zeros(len(leaving), np.int64)
    lengths[output.selected] = np.diff(np.frombuffer(output.values.offsets, "<i4"))
    taken, next_ = np.zeros(len(leaving), np.bool_), list(read.next)
    begins = np.cumsum([0, *map(len, read.partitions)])[:-1].tolist()
    in_order = list(zip(begins, read.partitions, strict=True))
    turn = sum(read.next) % len(in_order)
    for begin, part in in_order[turn:] + in_order[:turn]:
        own = begin + np.flatnonzero(leaving[begin : begin + len(part)])
        within = int(np.searchsorted(np.cumsum(lengths[own]), size, "right"))
        count = max(min(within, records, len(own)), min(at_least, len(own)))
        taken[own[:count]] = True
        if count < len(own):
            next_[part.partition] = part.offsets[int(own[count]) - begin]
            size = records = 0  # what follows is not taken: a smaller record must not overtake a larger one
        at_least = 0 if count else at_least
        records, size = max(records - count, 0), max(size - int(lengths[own[:count]].sum()), 0)
    return taken, tuple(next_)


def _subset(values: Packed, kept: Truths) -> Packed:
    return values if kept.all() else Packed.of([value for value, stays in zip(values, kept, strict=True) if stays])


def _insert_empty(values: Packed, selected: Truths) -> Packed:
    """Return the values with an empty one wherever *selected* is false: the values of withdrawals."""
    if selected.all():
        return values
    lengths = np.zeros(len(selected), dtype="<i4")
    lengths[selected] = np.diff(np.frombuffer(values.offsets, dtype="<i4"))
    offsets = np.zeros(len(selected) + 1, dtype="<i4")
    np.cumsum(lengths, out=offsets[1:])
    return Packed(offsets.tobytes(), values.values)


def _join_offsets(parts: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    return [[offset for one in partition for offset in one] for partition in zip(*parts, strict=True)]

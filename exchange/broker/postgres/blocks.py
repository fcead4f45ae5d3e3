"""Block format of the PostgreSQL broker: many records in one row.

A block is up to `BLOCK_BYTES` of consecutive records of one batch in one partition, as one row of `broker_stretch`.
An append, a read and a removal therefore cost by the block and not by the record. A block's columns:

    keys        16 bytes a record            marks      1 byte a record
    lengths     int32 a record, -1 = void    data       the values, end to end
    valid       16 bytes a record, or none   positions  int32 a record, from `first` on; none where contiguous

All numbers are little-endian. Blocks are immutable, except that compaction removes records from them; `first` and
`last` are then the ends of what remains, so that a block with `last` ≥ p always holds a record at or after p.

Pure: bytes in, bytes out.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, compress, pairwise
from typing import Any, Self

from exchange.broker.port import Append, PartitionRecords
from exchange.broker.rules import KEY_SIZE

__all__ = [
    "BLOCK_BYTES",
    "COLUMNS",
    "Block",
    "BlockSlice",
    "blocks_of",
    "copy_rows",
    "filter_block",
    "join_slices",
    "pack",
    "positions_in",
]

BLOCK_BYTES = 256 * 1024  # a read loads whole blocks: the most it loads needlessly, per partition
COLUMNS = "topic_id, partition, first, last, recorded_at, count, size, keys, marks, lengths, data, valid, positions"

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_HEAD = struct.Struct(">hiiihiqiqiqiiii")  # field count, then length and value of the seven numbers
_READ_HEAD = struct.Struct(">hihiqiqiqii")  # field count, then length and value of the five numbers
_LENGTH = struct.Struct(">i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One row of `broker_stretch`, without its topic."""

    partition: int
    first: int
    last: int
    recorded_at: int
    count: int
    keys: bytes
    marks: bytes
    lengths: bytes
    data: bytes
    valid: bytes
    positions: bytes = b""

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Read the columns partition, first, last, recorded_at, count, keys, marks, lengths, data, valid, positions."""
        partition, first, last, recorded_at, count, *fields = row
        keys, marks, lengths, data, valid, positions = map(bytes, fields)
        return cls(
            partition=partition,
            first=first,
            last=last,
            recorded_at=recorded_at,
            count=count,
            keys=keys,
            marks=marks,
            lengths=lengths,
            data=data,
            valid=valid,
            positions=positions,
        )


def pack(batch: Append) -> list[Block]:
    """Pack a batch's records by partition into blocks whose positions begin at 0.

    Within a partition the positions of the blocks are contiguous; the caller that stores them adds the offset.
    """
    members: dict[int, list[int]] = {partition: [] for partition in set(batch.partitions)}
    for index, partition in enumerate(batch.partitions):
        members[partition].append(index)
    return [block for partition in sorted(members) for block in _pack_partition(batch, partition, members[partition])]


def _pack_partition(batch: Append, partition: int, indexes: list[int]) -> Iterator[Block]:
    values = [batch.values[index] for index in indexes]
    lengths = [-1 if value is None else len(value) for value in values]
    totals = list(accumulate([max(length, 0) for length in lengths], initial=0))
    keys = [batch.keys[index] for index in indexes]
    marks = bytes([batch.marks[index] for index in indexes])
    begin = 0
    while begin < len(indexes):
        end = max(begin + 1, bisect_right(totals, totals[begin] + BLOCK_BYTES) - 1)
        valid = [batch.valid[16 * index : 16 * index + 16] for index in indexes[begin:end]] if batch.valid else []
        yield Block(
            partition=partition,
            first=begin,
            last=end - 1,
            recorded_at=0,
            count=end - begin,
            keys=b"".join(keys[begin:end]),
            marks=marks[begin:end],
            lengths=struct.pack(f"<{end - begin}i", *lengths[begin:end]),
            data=b"".join([value for value in values[begin:end] if value is not None]),
            valid=b"".join(valid),
        )
        begin = end


def copy_rows(topic_id: int, blocks: Iterable[Block]) -> bytes:
    """Return blocks as the rows of a binary COPY (PostgreSQL manual, COPY, "Binary Format")."""
    parts = [_COPY_HEADER]
    for block in blocks:
        parts.append(
            _HEAD.pack(
                13,
                *(4, topic_id),
                *(2, block.partition),
                *(8, block.first),
                *(8, block.last),
                *(8, block.recorded_at),
                *(4, block.count),
                *(4, len(block.data)),
            )
        )
        for field in (block.keys, block.marks, block.lengths, block.data, block.valid, block.positions):
            parts += (_LENGTH.pack(len(field)), field)
    parts.append(_COPY_TRAILER)
    return b"".join(parts)


def blocks_of(rows: bytes) -> Iterator[Block]:
    """Read blocks from a binary COPY of the columns that `Block.of_row` names."""
    at = len(_COPY_HEADER)
    while rows[at : at + 2] != _COPY_TRAILER:
        _, _, partition, _, first, _, last, _, recorded_at, _, count = _READ_HEAD.unpack_from(rows, at)
        at += _READ_HEAD.size
        fields = []
        for _ in range(6):
            (length,) = _LENGTH.unpack_from(rows, at)
            fields.append(rows[at + 4 : at + 4 + length])
            at += 4 + length
        yield Block.of_row((partition, first, last, recorded_at, count, *fields))


def positions_in(first: int, count: int, positions: bytes) -> Sequence[int]:
    """Return the position of each record of a block."""
    if not positions:
        return range(first, first + count)
    return [first + step for step in struct.unpack(f"<{count}i", positions)]


def filter_block(block: Block, kept: Sequence[bool]) -> Block:
    """Return the block with the kept records alone, at least one; their positions do not change."""
    positions = list(compress(positions_in(block.first, block.count, block.positions), kept))
    lengths = struct.unpack(f"<{block.count}i", block.lengths)
    ends = list(accumulate((max(length, 0) for length in lengths), initial=0))
    indexes = list(compress(range(block.count), kept))
    return replace(
        block,
        first=positions[0],
        last=positions[-1],
        count=len(indexes),
        keys=b"".join([block.keys[KEY_SIZE * index : KEY_SIZE * index + KEY_SIZE] for index in indexes]),
        marks=bytes([block.marks[index] for index in indexes]),
        lengths=struct.pack(f"<{len(indexes)}i", *[lengths[index] for index in indexes]),
        data=b"".join([block.data[ends[index] : ends[index + 1]] for index in indexes]),
        valid=b"".join([block.valid[16 * index : 16 * index + 16] for index in indexes]),
        positions=struct.pack(f"<{len(indexes)}i", *[position - positions[0] for position in positions]),
    )


@dataclass(frozen=True, slots=True)
class BlockSlice:
    """The records of a block from a position on."""

    block: Block
    begin: int  # index of the first record at or after the position
    positions: Sequence[int]
    lengths: Sequence[int]
    ends: Sequence[int]  # of the data; one more than there are records

    @classmethod
    def of(cls, block: Block, after: int) -> Self:
        """Return the slice of a block from position *after* on."""
        positions = positions_in(block.first, block.count, block.positions)
        lengths = struct.unpack(f"<{block.count}i", block.lengths)
        ends = list(accumulate([max(length, 0) for length in lengths], initial=0))
        begin = bisect_left(positions, after) if after > block.first else 0
        return cls(block, begin, positions, lengths, ends)

    def count_within(self, max_records: int, max_bytes: int) -> int:
        """Return how many of the records fit these bounds."""
        end = bisect_right(self.ends, self.ends[self.begin] + max_bytes) - 1
        return max(0, min(self.begin + max_records, end) - self.begin)

    def size(self, count: int) -> int:
        """Return the bytes of the first *count* records."""
        return self.ends[self.begin + count] - self.ends[self.begin]


def join_slices(partition: int, slices: Sequence[tuple[BlockSlice, int]]) -> PartitionRecords:
    """Join the first *count* records of each slice of one partition."""
    offsets: Sequence[int] = ()
    keys: list[bytes] = []
    values: list[bytes | None] = []
    recorded_at: list[int] = []
    marks: list[bytes] = []
    for part, count in slices:
        block, begin, end = part.block, part.begin, part.begin + count
        offsets = _concatenate(offsets, part.positions[begin:end])
        data, ends = block.data, part.ends
        keys += [block.keys[at : at + KEY_SIZE] for at in range(KEY_SIZE * begin, KEY_SIZE * end, KEY_SIZE)]
        taken: list[bytes | None] = [data[start:stop] for start, stop in pairwise(ends[begin : end + 1])]
        if min(part.lengths) < 0:
            lengths = part.lengths[begin:end]
            taken = [None if length < 0 else value for length, value in zip(lengths, taken, strict=True)]
        values += taken
        recorded_at += [block.recorded_at] * count
        marks.append(block.marks[begin:end])
    return PartitionRecords(
        partition=partition,
        offsets=offsets,
        keys=keys,
        values=values,
        recorded_at=recorded_at,
        mark=b"".join(marks).__getitem__,
        valid=_valid_of(slices),
    )


def _concatenate(one: Sequence[int], two: Sequence[int]) -> Sequence[int]:
    """Concatenate positions; the result stays a range as long as they are contiguous."""
    if not one:
        return two
    if isinstance(one, range) and isinstance(two, range) and one.stop == two.start:
        return range(one.start, two.stop)
    return [*one, *two]


def _valid_of(slices: Sequence[tuple[BlockSlice, int]]) -> Callable[[int], bytes]:
    if not any(part.block.valid for part, _ in slices):
        return _no_time
    times = b"".join(
        [
            (part.block.valid or bytes(16 * part.block.count))[16 * part.begin : 16 * (part.begin + count)]
            for part, count in slices
        ]
    )

    def valid(index: int) -> bytes:
        if not -1 < index < len(times) // 16:
            raise IndexError(index)
        stated = times[16 * index : 16 * index + 16]
        return stated if any(stated) else b""

    return valid


def _no_time(_index: int) -> bytes:
    return b""

"""Block format of the PostgreSQL broker: many records in one row.

A block is up to `BLOCK_BYTES` of consecutive records of one batch in one partition, as one row of `broker_stretch`.
An append, a read and a removal therefore cost by the block and not by the record. A block's columns:

    keys        16 bytes a record            marks      1 byte a record
    lengths     int32 a record, -1 = void    data       the values, end to end
    valid       16 bytes a record, or none   positions  int32 a record, from `first` on; none where contiguous

All numbers are little-endian. Blocks are immutable, with two exceptions. An erasure puts a leaf hash in the place of a
value; the record's mark then has the bit `ERASED`. Compaction removes records; `first` and `last` are then the ends of
what remains, so that a block with `last` ≥ p always holds a record at or after p. The range that a block covers,
`begins` to `ends`, stays: what was removed is told by it from what is missing (see `block_tags`).

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
from schemas.record import leaf_hashes

__all__ = [
    "BLOCK_BYTES",
    "COLUMNS",
    "ERASED",
    "HEADER_COLUMNS",
    "READ_COLUMNS",
    "Block",
    "BlockHeader",
    "BlockSlice",
    "blocks_of",
    "copy_rows",
    "erase_in_block",
    "filter_block",
    "join_slices",
    "pack",
    "positions_in",
]

ERASED = 0x08  # bit of a mark: the value was destroyed, its leaf hash is in its place
BLOCK_BYTES = 256 * 1024  # a read loads whole blocks: the most it loads needlessly, per partition
COLUMNS = (
    "topic_id, partition, first, last, begins, ends, recorded_at, count, size, keys, marks, lengths, data, valid, "
    "positions, digest, tag"
)
READ_COLUMNS = (
    "s.partition, s.first, s.last, coalesce(s.begins, -1) AS begins, coalesce(s.ends, -1) AS ends, s.recorded_at, "
    "s.count, s.keys, s.marks, s.lengths, s.data, s.valid, s.positions, coalesce(s.digest, '') AS digest, "
    "coalesce(s.tag, '') AS tag"
)
"""What `Block.of_row` and `blocks_of` read, of the table `broker_stretch s`."""
HEADER_COLUMNS = (
    "s.partition, s.first, s.last, coalesce(s.begins, -1) AS begins, coalesce(s.ends, -1) AS ends, s.recorded_at, "
    "s.count, s.size, coalesce(s.digest, '') AS digest, coalesce(s.tag, '') AS tag"
)
"""What `BlockHeader.of_row` reads, of the table `broker_stretch s`."""

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_HEAD = struct.Struct(">hiiihiqiqiqiqiqiiii")  # field count, then length and value of the nine numbers
_READ_HEAD = struct.Struct(">hihiqiqiqiqiqii")  # field count, then length and value of the seven numbers
_LENGTH = struct.Struct(">i")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """A row of `broker_stretch` without its topic and its records. `size`: bytes of data."""

    partition: int
    first: int
    last: int
    begins: int
    ends: int
    recorded_at: int
    count: int
    size: int
    digest: bytes
    tag: bytes

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Read `HEADER_COLUMNS`."""
        partition, first, last, begins, ends, recorded_at, count, size, digest, tag = row
        return cls(
            partition=partition,
            first=first,
            last=last,
            begins=begins,
            ends=ends,
            recorded_at=recorded_at,
            count=count,
            size=size,
            digest=bytes(digest),
            tag=bytes(tag),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One row of `broker_stretch`, without its topic.

    Attributes:
        first, last: offsets of the first and the last record.
        begins, ends: first and last offset that the block covers.
        digest: SHA-256 of the records' bytes.
        tag: what `block_tags` makes of all of it; empty for a block that has none yet.
    """

    partition: int
    first: int
    last: int
    begins: int
    ends: int
    recorded_at: int
    count: int
    keys: bytes
    marks: bytes
    lengths: bytes
    data: bytes
    valid: bytes
    positions: bytes = b""
    digest: bytes = b""
    tag: bytes = b""

    @property
    def header(self) -> BlockHeader:
        """The block without its records."""
        return BlockHeader(
            partition=self.partition,
            first=self.first,
            last=self.last,
            begins=self.begins,
            ends=self.ends,
            recorded_at=self.recorded_at,
            count=self.count,
            size=len(self.data),
            digest=self.digest,
            tag=self.tag,
        )

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Read `READ_COLUMNS`."""
        partition, first, last, begins, ends, recorded_at, count, *fields = row
        keys, marks, lengths, data, valid, positions, digest, tag = map(bytes, fields)
        return cls(
            partition=partition,
            first=first,
            last=last,
            begins=begins,
            ends=ends,
            recorded_at=recorded_at,
            count=count,
            keys=keys,
            marks=marks,
            lengths=lengths,
            data=data,
            valid=valid,
            positions=positions,
            digest=digest,
            tag=tag,
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
            begins=begin,
            ends=end - 1,
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
                17,
                *(4, topic_id),
                *(2, block.partition),
                *(8, block.first),
                *(8, block.last),
                *(8, block.begins),
                *(8, block.ends),
                *(8, block.recorded_at),
                *(4, block.count),
                *(4, len(block.data)),
            )
        )
        fields = (block.keys, block.marks, block.lengths, block.data, block.valid, block.positions)
        for field in (*fields, block.digest, block.tag):
            parts += (_LENGTH.pack(len(field)), field)
    parts.append(_COPY_TRAILER)
    return b"".join(parts)


def blocks_of(rows: bytes) -> Iterator[Block]:
    """Read blocks from a binary COPY of `READ_COLUMNS`."""
    at = len(_COPY_HEADER)
    while rows[at : at + 2] != _COPY_TRAILER:
        numbers = _READ_HEAD.unpack_from(rows, at)[2::2]
        at += _READ_HEAD.size
        fields = []
        for _ in range(8):
            (length,) = _LENGTH.unpack_from(rows, at)
            fields.append(rows[at + 4 : at + 4 + length])
            at += 4 + length
        yield Block.of_row((*numbers, *fields))


def positions_in(first: int, count: int, positions: bytes) -> Sequence[int]:
    """Return the position of each record of a block."""
    if not positions:
        return range(first, first + count)
    return [first + step for step in struct.unpack(f"<{count}i", positions)]


def filter_block(block: Block, kept: Sequence[bool]) -> Block:
    """Return the block with the kept records alone, at least one; their positions do not change.

    It covers the same range as before, and has no digest and no tag until `TopicTags.protect` makes them.
    """
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
        digest=b"",
        tag=b"",
    )


def erase_in_block(block: Block, erased: Sequence[bool]) -> Block:
    """Return the block with the leaf hash in the place of each erased record's value; voids stay as they are.

    A batch's root can be computed as before, and every position stays. An erased record has the bit `ERASED` in its
    mark, and reads as a record without a value.
    """
    lengths = list(struct.unpack(f"<{block.count}i", block.lengths))
    marks = bytearray(block.marks)
    values: list[bytes] = []
    begin = 0
    for index, length in enumerate(lengths):
        value = block.data[begin : begin + max(length, 0)]
        begin += max(length, 0)
        if erased[index] and length >= 0 and not marks[index] & ERASED:
            times = block.valid[16 * index : 16 * index + 16]
            value = leaf_hashes(bytes([marks[index]]), [value], (), times)[0]
            marks[index] |= ERASED
            lengths[index] = len(value)
        values.append(value)
    return replace(block, marks=bytes(marks), lengths=struct.pack(f"<{block.count}i", *lengths), data=b"".join(values))


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
    leaves: dict[int, bytes] = {}
    for part, count in slices:
        block, begin, end = part.block, part.begin, part.begin + count
        offsets = _concatenate(offsets, part.positions[begin:end])
        data, ends = block.data, part.ends
        keys += [block.keys[at : at + KEY_SIZE] for at in range(KEY_SIZE * begin, KEY_SIZE * end, KEY_SIZE)]
        taken: list[bytes | None] = [data[start:stop] for start, stop in pairwise(ends[begin : end + 1])]
        if min(part.lengths) < 0:
            lengths = part.lengths[begin:end]
            taken = [None if length < 0 else value for length, value in zip(lengths, taken, strict=True)]
        if any(mark & ERASED for mark in set(block.marks)):
            for index, mark in enumerate(block.marks[begin:end]):
                if mark & ERASED:
                    leaves[len(values) + index], taken[index] = taken[index] or b"", None
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
        leaf=leaves.get,
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

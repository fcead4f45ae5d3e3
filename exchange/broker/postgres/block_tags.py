"""Tags of the PostgreSQL broker's rows: detect rows that the pool did not write, and rows that are missing.

A tag is an HMAC-SHA-256 with a key that is not in the database, so that an administrator of the database cannot make
one. Three kinds of rows carry one:

    broker_topic        id, name, partitions, what is kept, retention, generation
    broker_partition    topic, number, both ends, time of the last record, end of what is compacted
    broker_stretch      topic, partition, range that the block covers, first and last record, time, number and size of
                        its records, and a SHA-256 digest of their bytes

The topic's id and name are part of each, so that no row can stand for one of another topic. A block's tag is over the
digest and not over the bytes: a block's place and time can be verified without loading its records.

Missing rows: the blocks of a partition cover every offset from its `earliest` to its `latest` once, without a gap. What
compaction or an erasure removes stays covered, by the block that it was in or by a neighbour; retention moves
`earliest`. An offset that no block covers was removed by somebody else.

What a tag cannot detect is an old row that is put back whole. `NewestEnds` notices within one process that the end of a
partition moved back; `pool broker verify` compares the blocks with the entries of the log.
"""

import hashlib
import hmac
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from exchange.broker.port import Ends, RecordsCorruptError
from exchange.broker.postgres.blocks import Block, BlockHeader
from schemas.names import Topic

__all__ = ["BlockTags", "NewestEnds", "PartitionRow", "TopicRow", "TopicTags"]

_MIN_KEY = 32  # bytes
_HEADER = struct.Struct("<hqqqqqii")
_PARTITION = struct.Struct("<hqqqq")
_TOPIC = struct.Struct("<hqq")
_SIZES = struct.Struct("<6q")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """A row of `broker_topic`. `retention`: microseconds, or None."""

    id: int
    name: str
    partitions: int
    keep: str
    retention: int | None
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRow:
    """A row of `broker_partition`."""

    partition: int
    earliest: int
    latest: int
    recorded_at: int
    compacted: int


class BlockTags:
    """Makes and verifies the tags of all topics.

    Args:
        key: at least 32 bytes, kept outside the database.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < _MIN_KEY:
            raise ValueError(f"got a key of {len(key)} bytes; expected at least {_MIN_KEY}")
        self._key = key

    def topic(self, row: TopicRow) -> bytes:
        """Return the tag of a topic's row."""
        numbers = _TOPIC.pack(row.partitions, -1 if row.retention is None else row.retention, row.generation)
        return self._mac(b"topic", _prefix(row.id, row.name), numbers, row.keep.encode())

    def check_topic(self, row: TopicRow, tag: bytes | None) -> None:
        """Check a topic's row.

        Raises:
            RecordsCorruptError: the pool did not write it.
        """
        if not hmac.compare_digest(self.topic(row), bytes(tag or b"")):
            raise RecordsCorruptError(row.name, None, None, "the topic's row is not the one that the pool wrote")

    def of(self, topic_id: int, name: Topic | str) -> "TopicTags":
        """Return the tags of one topic's partitions and blocks."""
        return TopicTags(self._mac, topic_id, str(name))

    def _mac(self, *parts: bytes) -> bytes:
        return hmac.digest(self._key, b"".join(parts), "sha256")


class TopicTags:
    """Makes and verifies the tags of one topic's rows. `BlockTags.of` builds it."""

    def __init__(self, mac: Callable[..., bytes], topic_id: int, name: str) -> None:
        self._mac = mac
        self._prefix = _prefix(topic_id, name)
        self.topic_id = topic_id
        self.name = name

    def partition(self, row: PartitionRow) -> bytes:
        """Return the tag of a partition's row."""
        numbers = _PARTITION.pack(row.partition, row.earliest, row.latest, row.recorded_at, row.compacted)
        return self._mac(b"partition", self._prefix, numbers)

    def check_partitions(
        self, rows: Iterable[tuple[PartitionRow, bytes | None]], expected: Sequence[int]
    ) -> list[PartitionRow]:
        """Return the rows of these partitions, ascending, if they are all there and each carries its tag.

        Raises:
            RecordsCorruptError: one is missing, or the pool did not write it.
        """
        found = list(rows)
        missing = sorted(set(expected) - {row.partition for row, _ in found})
        if missing:
            raise RecordsCorruptError(self.name, missing[0], None, "the partition's row is missing")
        for row, tag in found:
            if not hmac.compare_digest(self.partition(row), bytes(tag or b"")):
                raise RecordsCorruptError(
                    self.name, row.partition, None, "the partition's row is not the one that the pool wrote"
                )
        return [row for row, _ in found]

    def protect(self, block: Block) -> Block:
        """Return a block with digest and tag: to be called for every block that is written or rewritten."""
        digested = replace(block, digest=_digest(block))
        return replace(digested, tag=self.header(digested.header))

    def header(self, header: BlockHeader) -> bytes:
        """Return the tag of a block with this header."""
        numbers = _HEADER.pack(
            header.partition,
            header.begins,
            header.ends,
            header.first,
            header.last,
            header.recorded_at,
            header.count,
            header.size,
        )
        return self._mac(b"block", self._prefix, numbers, header.digest)

    def check_header(self, header: BlockHeader) -> None:
        """Check a block's place, time and sizes, without its records.

        Raises:
            RecordsCorruptError: the pool did not write it so.
        """
        if not hmac.compare_digest(self.header(header), header.tag):
            raise RecordsCorruptError(
                self.name,
                header.partition,
                (header.first, header.last),
                "the tag of the stored block is missing or does not fit",
            )

    def check_block(self, block: Block) -> None:
        """Check a block, its records included.

        Raises:
            RecordsCorruptError: the pool did not write it so.
        """
        self.check_header(block.header)
        if not hmac.compare_digest(_digest(block), block.digest):
            raise RecordsCorruptError(
                self.name, block.partition, (block.first, block.last), "the stored bytes are not those of the tag"
            )

    def check_covered(
        self, partition: int, after: int, before: BlockHeader | None, found: Sequence[BlockHeader], latest: int
    ) -> None:
        """Check that blocks, whose tags were checked, cover a partition from *after* on without a gap.

        Args:
            partition: whose blocks they are.
            after: the first offset to be covered.
            before: the last block whose records all lie before *after*: what was removed from its end is covered by it.
            found: consecutive blocks from *after* on. None means that no record follows.
            latest: one past the last offset that the partition assigned.

        Raises:
            RecordsCorruptError: an offset is covered by none, or by two.
        """
        at = after
        for header in [*([before] if before is not None and before.ends >= after else []), *found]:
            if header.begins > at or header.ends < at or (at > after and header.begins < at):
                raise self.hole(partition, at, header.begins - 1)
            at = header.ends + 1
        if at > latest or (not found and at != latest):
            raise self.hole(partition, at, latest - 1)

    def hole(self, partition: int, first: int, last: int) -> RecordsCorruptError:
        """Build the error for offsets that no block covers."""
        return RecordsCorruptError(
            self.name, partition, (first, max(first, last)), "stored blocks are missing, or cover each other"
        )


class NewestEnds:
    """The furthest ends of each topic that this process has seen: they never move back. Thread-safe.

    A transaction asks for `seen` before it takes its snapshot and notes what it read afterwards: what an earlier
    snapshot held, a later one holds as well.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[int, dict[int, tuple[int, int]]] = {}  # topic → partition → earliest, latest

    def seen(self, topic_id: int) -> dict[int, tuple[int, int]]:
        """Return earliest and latest by partition, as they were seen until now."""
        with self._lock:
            return dict(self._seen.get(topic_id, {}))

    def check(self, topic: str, seen: dict[int, tuple[int, int]], rows: Iterable[PartitionRow]) -> None:
        """Check that no partition's end moved back.

        Raises:
            RecordsCorruptError: one did: an older row was put back.
        """
        for row in rows:
            earliest, latest = seen.get(row.partition, (0, 0))
            if row.latest < latest or row.earliest < earliest:
                raise RecordsCorruptError(
                    topic,
                    row.partition,
                    (row.latest, latest - 1) if row.latest < latest else (row.earliest, earliest - 1),
                    "the partition's row is an older one than this process has seen",
                )

    def note(self, topic_id: int, ends: Iterable[tuple[int, int, int]]) -> None:
        """Note partition, earliest and latest of committed rows."""
        with self._lock:
            seen = self._seen.setdefault(topic_id, {})
            for partition, earliest, latest in ends:
                before = seen.get(partition, (0, 0))
                seen[partition] = (max(before[0], earliest), max(before[1], latest))

    def note_ends(self, topic_id: int, ends: Ends) -> None:
        """Note the ends of all partitions."""
        self.note(topic_id, zip(range(len(ends.latest)), ends.earliest, ends.latest, strict=True))


def _prefix(topic_id: int, name: str) -> bytes:
    text = name.encode()
    return struct.pack("<qi", topic_id, len(text)) + text


def _digest(block: Block) -> bytes:
    fields = (block.keys, block.marks, block.lengths, block.data, block.valid, block.positions)
    digest = hashlib.sha256(_SIZES.pack(*map(len, fields)))
    for field in fields:
        digest.update(field)
    return digest.digest()

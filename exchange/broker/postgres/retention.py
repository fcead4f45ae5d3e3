"""Retention and log compaction of the PostgreSQL broker, in steps of a few blocks each.

A step is one short transaction, so that appends wait for milliseconds and a reader's snapshot stays small. Both jobs
may run in several gateways at once and may be stopped anywhere: a step is idempotent, and a finished one is kept.

Compaction works as Kafka's log cleaner does: it collects the newest position of each key in the part of the log that
is not compacted yet, as far as memory allows, then removes every older record of those keys from all blocks before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import sqlalchemy as sa

from exchange.broker.postgres.append import partition_row
from exchange.broker.postgres.block_tags import PartitionRow, TopicTags
from exchange.broker.postgres.blocks import (
    HEADER_COLUMNS,
    READ_COLUMNS,
    Block,
    BlockHeader,
    filter_block,
    positions_in,
)
from exchange.broker.rules import KEY_SIZE
from registry.database.unit_of_work import PostgresDatabase, connection_of

__all__ = [
    "compact_partition",
    "lock_block",
    "lock_partition",
    "replace_block",
    "retain_partition",
    "rewrite_block",
    "store_partition",
]

_BLOCKS_PER_STEP = 64  # blocks of one transaction: 16 MiB at most
_MAX_KEYS = 500_000  # collected at a time, about 100 MB

_LOCK = """
SELECT partition, earliest, latest, recorded_at, compacted, tag FROM broker_partition
WHERE topic_id = %(topic)s AND partition = %(partition)s FOR UPDATE
"""

_BOUNDS = _LOCK.replace(" FOR UPDATE", "")

_RETAIN = f"""
DELETE FROM broker_stretch s
WHERE s.topic_id = %(topic)s AND s.partition = %(partition)s AND s.last = ANY (ARRAY(
    SELECT last FROM broker_stretch
    WHERE topic_id = %(topic)s AND partition = %(partition)s AND recorded_at < %(limit)s
    ORDER BY recorded_at, last LIMIT %(step)s
))
RETURNING {HEADER_COLUMNS}
"""  # noqa: S608 - a constant of this package

_STORE_PARTITION = """
UPDATE broker_partition SET earliest = %(earliest)s, compacted = %(compacted)s, tag = %(tag)s
WHERE topic_id = %(topic)s AND partition = %(partition)s
"""

_KEY_PAGE = """
SELECT last, first, count, keys, positions FROM broker_stretch
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last >= %(begin)s AND last < %(end)s
ORDER BY last LIMIT %(step)s
"""

_LOCK_BLOCK = f"""
SELECT {READ_COLUMNS} FROM broker_stretch s
WHERE s.topic_id = %(topic)s AND s.partition = %(partition)s AND s.last = %(was)s FOR UPDATE
"""  # noqa: S608

_LOCK_NEIGHBOUR = """
SELECT {columns} FROM broker_stretch s
WHERE s.topic_id = %(topic)s AND s.partition = %(partition)s AND s.last {side} %(was)s
ORDER BY s.last {order} LIMIT 1 FOR UPDATE
"""
_LOCK_NEXT = _LOCK_NEIGHBOUR.format(columns=HEADER_COLUMNS, side=">", order="ASC")
_LOCK_PREVIOUS = _LOCK_NEIGHBOUR.format(columns=HEADER_COLUMNS, side="<", order="DESC")

_DELETE = "DELETE FROM broker_stretch WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s"

_COVER = """
UPDATE broker_stretch SET begins = %(begins)s, ends = %(ends)s, tag = %(tag)s
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s
"""

_REWRITE = """
UPDATE broker_stretch SET first = %(first)s, last = %(last)s, begins = %(begins)s, ends = %(ends)s, count = %(count)s,
    size = %(size)s, keys = %(keys)s, marks = %(marks)s, lengths = %(lengths)s, data = %(data)s, valid = %(valid)s,
    positions = %(positions)s, digest = %(digest)s, tag = %(tag)s
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s
"""


def retain_partition(database: PostgresDatabase, tags: TopicTags, partition: int, limit: int) -> int:
    """Remove the blocks recorded before *limit* (microseconds UTC); return the number of records.

    The partition's end does not move back, so that no position is reused.

    Raises:
        RecordsCorruptError: a row is not the one that the pool wrote, or one is missing; nothing of it is removed.
    """
    where = {"topic": tags.topic_id, "partition": partition}
    values = {**where, "limit": limit, "step": _BLOCKS_PER_STEP}
    removed = 0
    while True:
        with database.begin() as work:
            connection = connection_of(work)
            row = lock_partition(connection, tags, partition)
            gone = sorted(map(BlockHeader.of_row, connection.exec_driver_sql(_RETAIN, values)), key=_last)
            if gone:
                for header in gone:
                    tags.check_header(header)
                tags.check_covered(partition, row.earliest, None, gone, row.latest)
                store_partition(connection, tags, replace(row, earliest=gone[-1].ends + 1))
        if not gone:
            return removed
        removed += sum(header.count for header in gone)


def lock_partition(connection: sa.Connection, tags: TopicTags, partition: int) -> PartitionRow:
    """Lock a partition's row until the end of the transaction, and return it.

    Raises:
        RecordsCorruptError: it is missing, or not the one that the pool wrote.
    """
    rows = connection.exec_driver_sql(_LOCK, {"topic": tags.topic_id, "partition": partition}).all()
    return tags.check_partitions(map(partition_row, rows), [partition])[0]


def store_partition(connection: sa.Connection, tags: TopicTags, row: PartitionRow) -> None:
    """Store a locked partition's `earliest` and `compacted`, with its tag."""
    values = {"topic": tags.topic_id, "partition": row.partition, "earliest": row.earliest, "compacted": row.compacted}
    connection.exec_driver_sql(_STORE_PARTITION, {**values, "tag": tags.partition(row)})


def lock_block(connection: sa.Connection, tags: TopicTags, partition: int, last: int) -> Block | None:
    """Lock a block and return it; None if it is gone. The partition must be locked.

    Raises:
        RecordsCorruptError: it is not the one that the pool wrote.
    """
    values = {"topic": tags.topic_id, "partition": partition, "was": last}
    row = connection.exec_driver_sql(_LOCK_BLOCK, values).one_or_none()
    if row is None:
        return None
    block = Block.of_row(row)
    tags.check_block(block)
    return block


def rewrite_block(connection: sa.Connection, tags: TopicTags, was: Block, kept: Sequence[bool]) -> None:
    """Store a locked block with the kept records alone; one without any is removed, and a neighbour covers its range.

    Where there is no neighbour, the partition's `earliest` moves behind the block.

    Raises:
        RecordsCorruptError: the neighbour is not the one that the pool wrote.
    """
    where = {"topic": tags.topic_id, "partition": was.partition, "was": was.last}
    if any(kept):
        replace_block(connection, tags, was, filter_block(was, kept))
        return
    connection.exec_driver_sql(_DELETE, where)
    for statement in (_LOCK_NEXT, _LOCK_PREVIOUS):
        row = connection.exec_driver_sql(statement, where).one_or_none()
        if row is not None:
            header = BlockHeader.of_row(row)
            tags.check_header(header)
            wider = replace(header, begins=min(header.begins, was.begins), ends=max(header.ends, was.ends))
            values = {"begins": wider.begins, "ends": wider.ends, "tag": tags.header(wider), "was": header.last}
            connection.exec_driver_sql(_COVER, {**where, **values})
            return
    partition = lock_partition(connection, tags, was.partition)
    store_partition(connection, tags, replace(partition, earliest=was.ends + 1))


def replace_block(connection: sa.Connection, tags: TopicTags, was: Block, block: Block) -> None:
    """Store another block, with its tag, in the place of a locked one."""
    where = {"topic": tags.topic_id, "partition": was.partition, "was": was.last}
    connection.exec_driver_sql(_REWRITE, {**where, **_columns(tags.protect(block))})


def _last(header: BlockHeader) -> int:
    return header.last


def compact_partition(database: PostgresDatabase, tags: TopicTags, partition: int, dirty_share: float) -> int:
    """Remove records whose key has a later one; return their number.

    Args:
        database: opens the steps' transactions.
        tags: of the topic.
        partition: one partition of it.
        dirty_share: do nothing while the part that is not compacted is a smaller share of all positions than this.

    Raises:
        RecordsCorruptError: a row is not the one that the pool wrote; it stays as it is.
    """
    where = {"topic": tags.topic_id, "partition": partition}
    with database.begin() as work:
        rows = connection_of(work).exec_driver_sql(_BOUNDS, where).all()
    row = tags.check_partitions(map(partition_row, rows), [partition])[0]
    earliest, latest = row.earliest, row.latest
    begin = max(earliest, row.compacted)
    if begin >= latest or latest - begin < dirty_share * (latest - earliest):
        return 0
    removed = 0
    while begin < latest:
        newest, end = _newest_by_key(database, where, begin, latest)
        removed += _remove_older(database, tags, where, end, newest)
        with database.begin() as work:
            current = lock_partition(connection_of(work), tags, partition)
            store_partition(connection_of(work), tags, replace(current, compacted=max(current.compacted, end)))
        begin = end
    return removed


def _newest_by_key(
    database: PostgresDatabase, where: dict[str, int], begin: int, end: int
) -> tuple[dict[bytes, int], int]:
    """Return the newest position of each key from *begin* on, and the position up to which they were collected."""
    newest: dict[bytes, int] = {}
    for page in _key_pages(database, where, begin, end):
        for last, first, count, keys, positions in page:
            newest.update(zip(_split_keys(keys), positions_in(first, count, positions), strict=True))
            if len(newest) >= _MAX_KEYS:
                return newest, last + 1
    return newest, end


def _remove_older(
    database: PostgresDatabase, tags: TopicTags, where: dict[str, int], end: int, newest: dict[bytes, int]
) -> int:
    """Remove records that have a newer one from all blocks before *end*; return their number."""
    removed = 0
    for page in _key_pages(database, where, 0, end):
        lasts = [
            last
            for last, first, count, keys, positions in page
            if not all(_is_newest(newest, keys, positions_in(first, count, positions)))
        ]
        if lasts:
            with database.begin() as work:
                removed += _rewrite(connection_of(work), tags, where["partition"], lasts, newest)
    return removed


def _key_pages(
    database: PostgresDatabase, where: dict[str, int], begin: int, end: int
) -> Iterator[list[tuple[int, int, int, bytes, bytes]]]:
    """Return (last, first, count, keys, positions) of the blocks in [begin, end), page by page."""
    while True:
        with database.begin() as work:
            values = {**where, "begin": begin, "end": end, "step": _BLOCKS_PER_STEP}
            page = connection_of(work).exec_driver_sql(_KEY_PAGE, values).all()
        if not page:
            return
        yield [(last, first, count, bytes(keys), bytes(offsets)) for last, first, count, keys, offsets in page]
        begin = page[-1][0] + 1


def _rewrite(
    connection: sa.Connection, tags: TopicTags, partition: int, lasts: Sequence[int], newest: dict[bytes, int]
) -> int:
    removed = 0
    lock_partition(connection, tags, partition)
    for last in lasts:
        block = lock_block(connection, tags, partition, last)
        if block is None:
            continue
        kept = _is_newest(newest, block.keys, positions_in(block.first, block.count, block.positions))
        removed += block.count - sum(kept)
        if not all(kept):
            rewrite_block(connection, tags, block, kept)
    return removed


def _columns(block: Block) -> dict[str, int | bytes]:
    return {
        "first": block.first,
        "last": block.last,
        "begins": block.begins,
        "ends": block.ends,
        "count": block.count,
        "size": len(block.data),
        "keys": block.keys,
        "marks": block.marks,
        "lengths": block.lengths,
        "data": block.data,
        "valid": block.valid,
        "positions": block.positions,
        "digest": block.digest,
        "tag": block.tag,
    }


def _is_newest(newest: dict[bytes, int], keys: bytes, positions: Sequence[int]) -> list[bool]:
    return [newest.get(key, -1) <= position for key, position in zip(_split_keys(keys), positions, strict=True)]


def _split_keys(keys: bytes) -> list[bytes]:
    return [keys[at : at + KEY_SIZE] for at in range(0, len(keys), KEY_SIZE)]

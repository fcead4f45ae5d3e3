"""Retention and log compaction of the PostgreSQL broker, in steps of a few blocks each.

A step is one short transaction, so that appends wait for milliseconds and a reader's snapshot stays small. Both jobs
may run in several gateways at once and may be stopped anywhere: a step is idempotent, and a finished one is kept.

Compaction works as Kafka's log cleaner does: it collects the newest position of each key in the part of the log that
is not compacted yet, as far as memory allows, then removes every older record of those keys from all blocks before.
"""

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from exchange.broker.postgres.blocks import Block, filter_block, positions_in
from exchange.broker.rules import KEY_SIZE
from registry.database.unit_of_work import PostgresDatabase, connection_of

__all__ = ["compact_partition", "retain_partition"]

_BLOCKS_PER_STEP = 64  # blocks of one transaction: 16 MiB at most
_MAX_KEYS = 500_000  # collected at a time, about 100 MB

_LOCK = "SELECT latest FROM broker_partition WHERE topic_id = %(topic)s AND partition = %(partition)s FOR UPDATE"

_RETAIN = """
WITH gone AS (
    DELETE FROM broker_stretch
    WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = ANY (ARRAY(
        SELECT last FROM broker_stretch
        WHERE topic_id = %(topic)s AND partition = %(partition)s AND recorded_at < %(limit)s
        ORDER BY recorded_at, last LIMIT %(step)s
    ))
    RETURNING last, count
)
UPDATE broker_partition SET earliest = greatest(earliest, (SELECT max(last) + 1 FROM gone))
WHERE topic_id = %(topic)s AND partition = %(partition)s
RETURNING (SELECT sum(count) FROM gone)
"""

_BOUNDS = """
SELECT earliest, compacted, latest FROM broker_partition WHERE topic_id = %(topic)s AND partition = %(partition)s
"""

_KEY_PAGE = """
SELECT last, first, count, keys, positions FROM broker_stretch
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last >= %(begin)s AND last < %(end)s
ORDER BY last LIMIT %(step)s
"""

_LOCK_BLOCKS = """
SELECT partition, first, last, recorded_at, count, keys, marks, lengths, data, valid, positions FROM broker_stretch
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = ANY (%(lasts)s) ORDER BY last FOR UPDATE
"""

_DELETE = "DELETE FROM broker_stretch WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s"

_REWRITE = """
UPDATE broker_stretch SET first = %(first)s, last = %(last)s, count = %(count)s, size = %(size)s, keys = %(keys)s,
    marks = %(marks)s, lengths = %(lengths)s, data = %(data)s, valid = %(valid)s, positions = %(positions)s
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s
"""

_MARK_COMPACTED = """
UPDATE broker_partition SET compacted = greatest(compacted, %(end)s)
WHERE topic_id = %(topic)s AND partition = %(partition)s
"""


def retain_partition(database: PostgresDatabase, topic_id: int, partition: int, limit: int) -> int:
    """Remove the blocks recorded before *limit* (microseconds UTC); return the number of records.

    The partition's end does not move back, so that no position is reused.
    """
    values = {"topic": topic_id, "partition": partition, "limit": limit, "step": _BLOCKS_PER_STEP}
    removed = 0
    while True:
        with database.begin() as work:
            connection = connection_of(work)
            connection.exec_driver_sql(_LOCK, values)
            step = connection.exec_driver_sql(_RETAIN, values).scalar_one()
        if not step:
            return removed
        removed += int(step)


def compact_partition(database: PostgresDatabase, topic_id: int, partition: int, dirty_share: float) -> int:
    """Remove records whose key has a later one; return their number.

    Args:
        database: opens the steps' transactions.
        topic_id: the topic's row.
        partition: one partition of it.
        dirty_share: do nothing while the part that is not compacted is a smaller share of all positions than this.
    """
    where = {"topic": topic_id, "partition": partition}
    with database.begin() as work:
        earliest, compacted, latest = connection_of(work).exec_driver_sql(_BOUNDS, where).one()
    begin = max(earliest, compacted)
    if begin >= latest or latest - begin < dirty_share * (latest - earliest):
        return 0
    removed = 0
    while begin < latest:
        newest, end = _newest_by_key(database, where, begin, latest)
        removed += _remove_older(database, where, end, newest)
        with database.begin() as work:
            connection_of(work).exec_driver_sql(_MARK_COMPACTED, {**where, "end": end})
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


def _remove_older(database: PostgresDatabase, where: dict[str, int], end: int, newest: dict[bytes, int]) -> int:
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
                removed += _rewrite(connection_of(work), where, lasts, newest)
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


def _rewrite(connection: sa.Connection, where: dict[str, int], lasts: list[int], newest: dict[bytes, int]) -> int:
    removed = 0
    for row in connection.exec_driver_sql(_LOCK_BLOCKS, {**where, "lasts": lasts}).all():
        block = Block.of_row(row)
        kept = _is_newest(newest, block.keys, positions_in(block.first, block.count, block.positions))
        removed += block.count - sum(kept)
        if any(kept):
            connection.exec_driver_sql(_REWRITE, {**where, **_columns(filter_block(block, kept)), "was": block.last})
        else:
            connection.exec_driver_sql(_DELETE, {**where, "was": block.last})
    return removed


def _columns(block: Block) -> dict[str, int | bytes]:
    return {
        "first": block.first,
        "last": block.last,
        "count": block.count,
        "size": len(block.data),
        "keys": block.keys,
        "marks": block.marks,
        "lengths": block.lengths,
        "data": block.data,
        "valid": block.valid,
        "positions": block.positions,
    }


def _is_newest(newest: dict[bytes, int], keys: bytes, positions: Sequence[int]) -> list[bool]:
    return [newest.get(key, -1) <= position for key, position in zip(_split_keys(keys), positions, strict=True)]


def _split_keys(keys: bytes) -> list[bytes]:
    return [keys[at : at + KEY_SIZE] for at in range(0, len(keys), KEY_SIZE)]

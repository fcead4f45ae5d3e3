"""Retention and compaction of the PostgreSQL broker, in steps of a few blocks each.

A step is one short transaction, so that appends wait for milliseconds and a reader's snapshot stays small. Both
may run in several gateways at once and may be stopped anywhere: a step that is done stays done, and doing it
twice changes nothing.

Compaction goes the way of Kafka's cleaner: it learns the latest position of each key in the part of the log that
is not clean yet, as far as memory allows, then takes every older record of those keys out of all blocks before.
"""

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from exchange.broker.postgres.blocks import Block, keep_only, positions_in
from exchange.broker.rules import KEY_SIZE
from registry.database.unit_of_work import PostgresDatabase, connection_of

__all__ = ["compact_partition", "retain_partition"]

_STEP = 64  # blocks of one transaction: 16 MiB at most
_MAX_KEYS = 500_000  # learned at a time, about 100 MB

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

_KEYS = """
SELECT last, first, count, keys, positions FROM broker_stretch
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last >= %(begin)s AND last < %(end)s
ORDER BY last LIMIT %(step)s
"""

_CHANGE = """
SELECT partition, first, last, recorded_at, count, keys, marks, lengths, data, valid, positions FROM broker_stretch
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = ANY (%(lasts)s) ORDER BY last FOR UPDATE
"""

_DELETE = "DELETE FROM broker_stretch WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s"

_REWRITE = """
UPDATE broker_stretch SET first = %(first)s, last = %(last)s, count = %(count)s, size = %(size)s, keys = %(keys)s,
    marks = %(marks)s, lengths = %(lengths)s, data = %(data)s, valid = %(valid)s, positions = %(positions)s
WHERE topic_id = %(topic)s AND partition = %(partition)s AND last = %(was)s
"""

_CLEAN = """
UPDATE broker_partition SET compacted = greatest(compacted, %(end)s)
WHERE topic_id = %(topic)s AND partition = %(partition)s
"""


def retain_partition(database: PostgresDatabase, topic_id: int, partition: int, limit: int) -> int:
    """Remove the blocks recorded before *limit* (microseconds UTC); give the number of records.

    The last position stays taken, so that it is never given again.
    """
    values = {"topic": topic_id, "partition": partition, "limit": limit, "step": _STEP}
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
    """Remove records whose key has a later one; give their number.

    Args:
        database: opens the steps' transactions.
        topic_id: the topic's row.
        partition: one partition of it.
        dirty_share: do nothing while the part that is not clean is a smaller share of all positions than this.
    """
    place = {"topic": topic_id, "partition": partition}
    with database.begin() as work:
        earliest, compacted, latest = connection_of(work).exec_driver_sql(_BOUNDS, place).one()
    begin = max(earliest, compacted)
    if begin >= latest or latest - begin < dirty_share * (latest - earliest):
        return 0
    removed = 0
    while begin < latest:
        learned, end = _learn(database, place, begin, latest)
        removed += _clean(database, place, end, learned)
        with database.begin() as work:
            connection_of(work).exec_driver_sql(_CLEAN, {**place, "end": end})
        begin = end
    return removed


def _learn(database: PostgresDatabase, place: dict[str, int], begin: int, end: int) -> tuple[dict[bytes, int], int]:
    """Learn the latest position of each key from *begin* on; tell up to where."""
    learned: dict[bytes, int] = {}
    for rows in _keys(database, place, begin, end):
        for last, first, count, keys, positions in rows:
            learned.update(zip(_split(keys), positions_in(first, count, positions), strict=True))
            if len(learned) >= _MAX_KEYS:
                return learned, last + 1
    return learned, end


def _clean(database: PostgresDatabase, place: dict[str, int], end: int, learned: dict[bytes, int]) -> int:
    """Take what has a later record out of all blocks before *end*."""
    removed = 0
    for rows in _keys(database, place, 0, end):
        lasts = [
            last
            for last, first, count, keys, positions in rows
            if not all(_kept(learned, keys, positions_in(first, count, positions)))
        ]
        if lasts:
            with database.begin() as work:
                removed += _rewrite(connection_of(work), place, lasts, learned)
    return removed


def _keys(
    database: PostgresDatabase, place: dict[str, int], begin: int, end: int
) -> Iterator[list[tuple[int, int, int, bytes, bytes]]]:
    """Return (last, first, count, keys, positions) of the blocks in [begin, end), some at a time."""
    while True:
        with database.begin() as work:
            values = {**place, "begin": begin, "end": end, "step": _STEP}
            found = connection_of(work).exec_driver_sql(_KEYS, values).all()
        if not found:
            return
        yield [(last, first, count, bytes(keys), bytes(steps)) for last, first, count, keys, steps in found]
        begin = found[-1][0] + 1


def _rewrite(connection: sa.Connection, place: dict[str, int], lasts: list[int], learned: dict[bytes, int]) -> int:
    removed = 0
    for row in connection.exec_driver_sql(_CHANGE, {**place, "lasts": lasts}).all():
        block = Block.of_row(row)
        kept = _kept(learned, block.keys, positions_in(block.first, block.count, block.positions))
        removed += block.count - sum(kept)
        if any(kept):
            connection.exec_driver_sql(_REWRITE, {**place, **_columns(keep_only(block, kept)), "was": block.last})
        else:
            connection.exec_driver_sql(_DELETE, {**place, "was": block.last})
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


def _kept(learned: dict[bytes, int], keys: bytes, positions: Sequence[int]) -> list[bool]:
    return [learned.get(key, -1) <= position for key, position in zip(_split(keys), positions, strict=True)]


def _split(keys: bytes) -> list[bytes]:
    return [keys[at : at + KEY_SIZE] for at in range(0, len(keys), KEY_SIZE)]

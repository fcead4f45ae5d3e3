"""First tags of the blocks, partitions and topics of a pool that was made before there were tags.

Once for each pool, by `pool migrate`, while the pool does not run. The work goes topic by topic, partition by partition
and in steps of a few blocks, each a transaction of its own: it may be interrupted anywhere, and goes on where it was.
A topic's own row is tagged last.

What was changed before that is not found by tags, only by `pool broker verify`. A hole is taken for compaction's in a
topic that keeps the latest record of each key; in any other it stays a hole, and is reported by the first read.
"""

import io
from collections.abc import Callable
from dataclasses import replace

import sqlalchemy as sa

from exchange.broker.port import Retention
from exchange.broker.postgres import tables
from exchange.broker.postgres.append import partition_row
from exchange.broker.postgres.block_tags import BlockTags, TopicRow, TopicTags
from exchange.broker.postgres.blocks import READ_COLUMNS, Block, blocks_of
from registry.database.unit_of_work import PostgresDatabase, connection_of

__all__ = ["tag_untagged"]

_BLOCKS_PER_STEP = 64  # 16 MiB at most

_STEP = """
COPY (
    SELECT {columns} FROM broker_stretch s WHERE s.topic_id = {topic:d} AND s.partition = {partition:d}
        AND s.last > {after:d} ORDER BY s.last LIMIT {step:d}
) TO STDOUT (FORMAT binary)
"""

_STORE = """
UPDATE broker_stretch s SET begins = new.begins, ends = new.ends, digest = new.digest, tag = new.tag
FROM unnest(%(lasts)s::bigint[], %(begins)s::bigint[], %(ends)s::bigint[], %(digests)s::bytea[], %(tags)s::bytea[])
    AS new (last, begins, ends, digest, tag)
WHERE s.topic_id = %(topic)s AND s.partition = %(partition)s AND s.last = new.last
"""

_LOCK = """
SELECT partition, earliest, latest, recorded_at, compacted, tag FROM broker_partition
WHERE topic_id = %(topic)s AND partition = %(partition)s FOR UPDATE
"""


def tag_untagged(database: PostgresDatabase, tags: BlockTags, progress: Callable[[str, int, int], None]) -> int:
    """Tag every topic that has no tag, and all of its rows; return the number of blocks that were tagged.

    Args:
        database: of a pool that does not run.
        tags: with the pool's key.
        progress: called with a topic's name, the blocks of it that are done, and their number.

    Raises:
        RecordsCorruptError: a row has a tag that does not fit.
    """
    with database.begin() as work:
        found = connection_of(work).execute(sa.select(tables.topic).order_by(tables.topic.c.id)).all()
    tagged = 0
    for one in found:
        row = TopicRow(
            id=one.id,
            name=one.name,
            partitions=one.partitions,
            keep=one.keep,
            retention=one.retention,
            generation=one.generation,
        )
        if one.tag is not None:
            tags.check_topic(row, one.tag)
            continue
        tagged += _tag_topic(database, tags.of(row.id, row.name), row, progress)
        with database.begin() as work:
            connection_of(work).exec_driver_sql(
                "UPDATE broker_topic SET tag = %s WHERE id = %s", (tags.topic(row), row.id)
            )
    return tagged


def _tag_topic(
    database: PostgresDatabase, tags: TopicTags, row: TopicRow, progress: Callable[[str, int, int], None]
) -> int:
    with database.begin() as work:
        count = "SELECT count(*) FROM broker_stretch WHERE topic_id = %s"
        blocks: int = connection_of(work).exec_driver_sql(count, (row.id,)).scalar_one()
    done = 0
    for partition in range(row.partitions):
        after, ends = -1, -1
        while True:
            with database.begin() as work:
                after, ends, number = _tag_step(connection_of(work), tags, partition, after, ends, row.keep)
            done += number
            progress(row.name, done, blocks)
            if number < _BLOCKS_PER_STEP:
                break
    return done


def _tag_step(
    connection: sa.Connection, tags: TopicTags, partition: int, after: int, ends: int, keep: str
) -> tuple[int, int, int]:
    """Tag some blocks of a partition after those that end with *after*; with the last of them the partition's row.

    Args:
        connection: in a transaction.
        tags: of the topic.
        partition: one partition of it.
        after: position of the last record of the blocks that are done; -1 at the beginning.
        ends: last offset that they cover.
        keep: what the topic keeps.

    Returns:
        *after* and *ends* of the next step, and the number of blocks of this one.
    """
    where = {"topic": tags.topic_id, "partition": partition}
    rows = connection.exec_driver_sql(_LOCK, where).all()
    if not rows:
        return after, ends, 0  # the first read reports it
    current, tag = partition_row(rows[0])
    if after < 0:
        ends = current.earliest - 1
    protected: list[Block] = []
    for block in _load(connection, tags, partition, after):
        if block.tag:
            tags.check_block(block)
            protected.append(block)
        else:
            begins = ends + 1 if keep == Retention.LATEST else block.first
            protected.append(tags.protect(replace(block, begins=begins, ends=block.last)))
        after, ends = protected[-1].last, protected[-1].ends
    new = {
        "lasts": [block.last for block in protected],
        "begins": [block.begins for block in protected],
        "ends": [block.ends for block in protected],
        "digests": [block.digest for block in protected],
        "tags": [block.tag for block in protected],
    }
    connection.exec_driver_sql(_STORE, {**where, **new})
    if len(protected) < _BLOCKS_PER_STEP and tag is None:
        connection.exec_driver_sql(
            "UPDATE broker_partition SET tag = %(tag)s WHERE topic_id = %(topic)s AND partition = %(partition)s",
            {**where, "tag": tags.partition(current)},
        )
    return after, ends, len(protected)


def _load(connection: sa.Connection, tags: TopicTags, partition: int, after: int) -> list[Block]:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - it is in a transaction
    rows = io.BytesIO()
    statement = _STEP.format(
        columns=READ_COLUMNS, topic=tags.topic_id, partition=partition, after=after, step=_BLOCKS_PER_STEP
    )
    with driver.cursor() as cursor:
        cursor.copy_expert(statement, rows, 1 << 20)
    return list(blocks_of(rows.getvalue()))

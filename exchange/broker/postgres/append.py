"""Append on PostgreSQL: lock the lane, assign positions, store records and receipts.

Six statements in one transaction, all of the batches at once, and one lock order: the lane, then the partitions from
the lowest on.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from exchange.broker.port import Append, Appended, LaneFault, LaneState
from exchange.broker.postgres.block_tags import NewestEnds, PartitionRow, TopicTags
from exchange.broker.postgres.blocks import COLUMNS, Block, copy_rows
from exchange.broker.postgres.tables import block_table_of
from exchange.broker.rules import RECEIPTS_PER_LANE
from schemas.errors import CorruptError, PoolError, Reason
from schemas.names import Lane
from schemas.record import OffsetRange

__all__ = ["lanes_after", "lock_lane", "partition_row", "read_lane", "store"]

_SET_TIMEOUTS = """
SELECT set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('idle_in_transaction_session_timeout', %(lock_timeout)s, true);
"""

# Separate from the lock: a statement that waits for a lock still sees the other tables as they were before it.
_RECEIPTS = """
SELECT l.id, l.epoch, r.sequence, r.digest, r.source_position, r.recorded_at, r.count, r.runs
FROM broker_lane l LEFT JOIN broker_receipt r ON r.lane_id = l.id AND r.sequence >= least(
    %(first_sequence)s, (SELECT max(sequence) FROM broker_receipt WHERE lane_id = l.id)
)
WHERE l.name = %(lane)s ORDER BY r.sequence
"""

_LOCK_LANE = (
    _SET_TIMEOUTS
    + """
SELECT id FROM broker_lane WHERE name = %(lane)s FOR UPDATE;
"""
    + _RECEIPTS
)

_TAKE_OVER_LANE = (
    _SET_TIMEOUTS
    + """
INSERT INTO broker_lane (name, epoch) VALUES (%(lane)s, 1)
ON CONFLICT (name) DO UPDATE SET epoch = broker_lane.epoch + 1;
"""
    + _RECEIPTS
)

_LANES = """
SELECT l.id, l.name, r.sequence, r.digest, r.source_position, r.recorded_at, r.count, r.runs
FROM broker_lane l JOIN broker_receipt r ON r.lane_id = l.id
WHERE l.id IN (SELECT id FROM broker_lane WHERE id > %(after)s ORDER BY id LIMIT 200)
ORDER BY l.id, r.sequence
"""

_LAST_LANE = "SELECT max(id) FROM (SELECT id FROM broker_lane WHERE id > %(after)s ORDER BY id LIMIT 200) AS page"

_LOCK_PARTITIONS = """
SELECT partition, earliest, latest, recorded_at, compacted, tag FROM broker_partition
WHERE topic_id = %(topic)s AND partition = ANY (%(partitions)s) ORDER BY partition FOR UPDATE
"""

_STORE_RECEIPTS = """
UPDATE broker_partition p SET latest = new.latest, recorded_at = %(recorded_at)s, tag = new.tag
FROM unnest(%(partitions)s::smallint[], %(latest)s::bigint[], %(tags)s::bytea[]) AS new (partition, latest, tag)
WHERE p.topic_id = %(topic)s AND p.partition = new.partition;
INSERT INTO broker_receipt (lane_id, sequence, digest, source_position, recorded_at, count, runs)
SELECT %(lane)s, * FROM unnest(%(sequences)s::bigint[], %(digests)s::bytea[], %(source_positions)s::bytea[],
    %(recorded_ats)s::bigint[], %(counts)s::int[], %(runs)s::text[]);
DELETE FROM broker_receipt WHERE lane_id = %(lane)s AND sequence <= %(forget)s
"""


def lock_lane(
    connection: sa.Connection, lane: Lane, *, take_over: bool, lock_timeout: str, first_sequence: int = 0
) -> tuple[int, int, list[Appended]] | None:
    """Lock a lane's row until the end of the transaction.

    Args:
        connection: in a transaction.
        lane: whose row.
        take_over: create the row if there is none, and raise its epoch, so that older owners are fenced.
        first_sequence: the lowest sequence whose receipt is needed; the last receipt is returned in any case.
        lock_timeout: how long this transaction waits for a lock, and how long it may idle, in PostgreSQL's notation.

    Returns:
        The row's id, its epoch and the lane's latest receipts, oldest first; None if there is no such row.
    """
    values = {"lane": str(lane), "lock_timeout": lock_timeout, "first_sequence": first_sequence}
    rows = connection.exec_driver_sql(_TAKE_OVER_LANE if take_over else _LOCK_LANE, values).all()
    if not rows:
        return None
    return rows[0].id, rows[0].epoch, [_receipt(lane, row) for row in rows if row.sequence is not None]


def read_lane(connection: sa.Connection, lane: Lane) -> list[Appended]:
    """Return a lane's latest receipts, oldest first, without a lock and without taking the lane over."""
    rows = connection.exec_driver_sql(_RECEIPTS, {"lane": str(lane), "first_sequence": 0}).all()
    return [_receipt(lane, row) for row in rows if row.sequence is not None]


def lanes_after(connection: sa.Connection, lane_id: int) -> tuple[list[LaneState | LaneFault], int | None]:
    """Return a page of lane states after this id, and the id of the next page; None at the end."""
    rows = connection.exec_driver_sql(_LANES, {"after": lane_id}).all()
    states: list[LaneState | LaneFault] = []
    for name, group in groupby(rows, key=attrgetter("name")):
        try:
            lane = Lane.parse(name)
            states.append(LaneState(lane=lane, receipts=tuple(_receipt(lane, row) for row in group)))
        except PoolError as error:
            states.append(LaneFault(name=name, error=error))
    return states, connection.exec_driver_sql(_LAST_LANE, {"after": lane_id}).scalar()


def store(
    connection: sa.Connection,
    tags: TopicTags,
    lane_id: int,
    new: Sequence[Append],
    packed: dict[int, list[Block]],
    ends: NewestEnds,
) -> list[Appended]:
    """Assign positions to new batches and store them with their receipts; return the receipts.

    Args:
        connection: in a transaction that has locked the lane.
        tags: of the topic.
        lane_id: the lane's row.
        new: the batches, in order.
        packed: their blocks by sequence, with positions from 0 on.
        ends: what this process has seen of the partitions' ends.

    Raises:
        RecordsCorruptError: a partition's row is not the one that the pool wrote last.
    """
    topic_id = tags.topic_id
    partitions = sorted({block.partition for batch in new for block in packed[batch.sequence]})
    seen = ends.seen(topic_id)
    rows_found = connection.exec_driver_sql(_LOCK_PARTITIONS, {"topic": topic_id, "partitions": partitions}).all()
    locked = tags.check_partitions(map(partition_row, rows_found), partitions)
    ends.check(tags.name, seen, locked)
    latest = {row.partition: row.latest for row in locked}
    recorded_at = max(row.recorded_at for row in locked)
    rows: list[Block] = []
    appended: list[Appended] = []
    for batch in new:
        recorded_at = max(recorded_at, batch.recorded_at)
        first_free = dict(latest)
        for block in packed[batch.sequence]:
            begin = first_free[block.partition]
            first, last = begin + block.first, begin + block.last
            rows.append(
                tags.protect(replace(block, first=first, last=last, begins=first, ends=last, recorded_at=recorded_at))
            )
            latest[block.partition] = begin + block.last + 1
        appended.append(
            Appended(
                lane=batch.lane,
                sequence=batch.sequence,
                digest=batch.digest,
                source_position=batch.source_position,
                recorded_at=recorded_at,
                count=len(batch.keys),
                runs=tuple(
                    OffsetRange(partition=partition, first=first_free[partition], last=end - 1)
                    for partition, end in latest.items()
                    if end > first_free[partition]
                ),
            )
        )
    _copy(connection, topic_id, rows)
    connection.exec_driver_sql(
        _STORE_RECEIPTS,
        {
            "topic": topic_id,
            "partitions": list(latest),
            "latest": list(latest.values()),
            "tags": [
                tags.partition(replace(row, latest=latest[row.partition], recorded_at=recorded_at)) for row in locked
            ],
            "recorded_at": recorded_at,
            "lane": lane_id,
            "sequences": [each.sequence for each in appended],
            "digests": [each.digest for each in appended],
            "source_positions": [each.source_position for each in appended],
            "recorded_ats": [each.recorded_at for each in appended],
            "counts": [each.count for each in appended],
            "runs": [" ".join(f"{run.partition}:{run.first}-{run.last}" for run in each.runs) for each in appended],
            "forget": appended[-1].sequence - RECEIPTS_PER_LANE,
        },
    )
    return appended


def partition_row(row: Any) -> tuple[PartitionRow, bytes | None]:
    """Read the columns partition, earliest, latest, recorded_at, compacted, tag of `broker_partition`."""
    partition, earliest, latest, recorded_at, compacted, tag = row
    return (
        PartitionRow(
            partition=partition, earliest=earliest, latest=latest, recorded_at=recorded_at, compacted=compacted
        ),
        tag,
    )


def _copy(connection: sa.Connection, topic_id: int, rows: Sequence[Block]) -> None:
    data = copy_rows(topic_id, rows)
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - it is in a transaction
    with driver.cursor() as cursor:
        cursor.copy_expert(
            f"COPY {block_table_of(topic_id)} ({COLUMNS}) FROM STDIN (FORMAT binary)", io.BytesIO(data), 1 << 20
        )


def _receipt(lane: Lane, row: Any) -> Appended:
    try:
        runs = tuple(map(_run, row.runs.split()))
    except ValueError as error:
        raise CorruptError(
            Reason.LOG_CORRUPT,
            f"the broker's receipt {row.sequence} of lane {lane} cannot be read; compare it with the pool's own",
        ) from error
    return Appended(
        lane=lane,
        sequence=row.sequence,
        digest=bytes(row.digest),
        source_position=bytes(row.source_position),
        recorded_at=row.recorded_at,
        count=row.count,
        runs=runs,
    )


def _run(text: str) -> OffsetRange:
    partition, _, ends = text.partition(":")
    first, _, last = ends.partition("-")
    return OffsetRange(partition=int(partition), first=int(first), last=int(last))

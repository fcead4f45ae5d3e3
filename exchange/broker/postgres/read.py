"""Read on PostgreSQL: which blocks to load, and how many records of each to return.

Three short statements in one snapshot (REPEATABLE READ), so that retention cannot remove between two of them what the
first has seen: the ends of the partitions; the blocks ahead of the reader, without their bytes; the bytes of the
blocks that fit the bounds.
"""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

import sqlalchemy as sa

from exchange.broker.port import Ends, PartitionRecords, ReadResult
from exchange.broker.postgres.blocks import BlockSlice, blocks_of, join_slices
from exchange.broker.rules import check_positions
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["read_ends", "read_positions_for_time", "read_records"]

_MAX_BLOCKS_AHEAD = 1024  # blocks per partition that one read looks at, however small they are
_MIN_BLOCKS_AHEAD = 16
_SMALL_BLOCK_RECORDS = 64  # with smaller blocks a read may return fewer records than allowed

_ENDS = """
SELECT earliest, latest FROM broker_partition WHERE topic_id = %(topic)s ORDER BY partition
"""

_BLOCKS_AHEAD = """
SELECT p.partition, s.last, s.count, s.size
FROM broker_partition p, LATERAL (
    SELECT last, count, size FROM broker_stretch
    WHERE topic_id = %(topic)s AND partition = p.partition AND last >= (%(after)s::bigint[])[p.partition + 1]
    ORDER BY last LIMIT %(ahead)s
) AS s
WHERE p.topic_id = %(topic)s AND p.latest > (%(after)s::bigint[])[p.partition + 1]
ORDER BY p.partition, s.last
"""

# Binary COPY: a SELECT returns bytes as hexadecimal text, four times as slow. COPY takes no parameters, hence the
# numbers are formatted into it.
_LOAD_BLOCKS = """
COPY (
    SELECT s.partition, first, s.last, recorded_at, count, keys, marks, lengths, data, valid, positions
    FROM (VALUES {wanted}) AS wanted (partition, begins, ends)
    JOIN broker_stretch s ON s.topic_id = {topic:d} AND s.partition = wanted.partition
        AND s.last BETWEEN wanted.begins AND wanted.ends
    ORDER BY s.partition, s.last
) TO STDOUT (FORMAT binary)
"""

_POSITIONS_FOR_TIME = """
SELECT coalesce((
    SELECT first FROM broker_stretch s
    WHERE s.topic_id = %(topic)s AND s.partition = p.partition AND s.recorded_at >= %(recorded_at)s
    ORDER BY s.recorded_at, s.last LIMIT 1
), p.latest)
FROM broker_partition p WHERE p.topic_id = %(topic)s ORDER BY p.partition
"""


def read_ends(connection: sa.Connection, topic_id: int) -> Ends:
    """Return both ends of each partition."""
    rows = connection.exec_driver_sql(_ENDS, {"topic": topic_id}).all()
    return Ends(earliest=tuple(row[0] for row in rows), latest=tuple(row[1] for row in rows))


def read_positions_for_time(connection: sa.Connection, topic_id: int, recorded_at: int) -> Positions:
    """Return the positions of the first records of that time or later, else the end."""
    values = {"topic": topic_id, "recorded_at": recorded_at}
    return tuple(connection.exec_driver_sql(_POSITIONS_FOR_TIME, values).scalars())


def read_records(
    connection: sa.Connection,
    topic_id: int,
    topic: Topic,
    after: Positions,
    *,
    max_records: int,
    max_bytes: int,
    turn: int,
) -> ReadResult:
    """Read from these positions on, as `Broker.read` says.

    Args:
        connection: in one snapshot for the whole call.
        topic_id: the topic's row.
        topic: its name, for error messages.
        after: the reader's positions.
        max_records: the most to return.
        max_bytes: the most bytes of values to return, except for a single record that is larger.
        turn: any number that changes from call to call; when one record alone fills the bounds, it selects the
            partition, so that they are served round robin.
    """
    ends = read_ends(connection, topic_id)
    check_positions(topic, after, ends.earliest, ends.latest)
    if after == ends.latest:
        return ReadResult(partitions=(), next=after)
    chosen = _choose_blocks(_blocks_ahead(connection, topic_id, after, max_records), max_records, max_bytes)
    slices = _load_blocks(connection, topic_id, after, chosen)
    counts = _divide(slices, max_records, max_bytes, turn)
    next_positions = list(after)
    partitions: list[PartitionRecords] = []
    for partition, taken in sorted(counts.items()):
        partitions.append(join_slices(partition, taken))
        next_positions[partition] = partitions[-1].offsets[-1] + 1
    return ReadResult(partitions=tuple(partitions), next=tuple(next_positions))


def _blocks_ahead(
    connection: sa.Connection, topic_id: int, after: Positions, max_records: int
) -> dict[int, list[tuple[int, int, int]]]:
    """Return (last, count, size) of the blocks ahead, by partition."""
    ahead = min(max(max_records // _SMALL_BLOCK_RECORDS, _MIN_BLOCKS_AHEAD), _MAX_BLOCKS_AHEAD)
    values = {"topic": topic_id, "after": list(after), "ahead": ahead}
    rows = connection.exec_driver_sql(_BLOCKS_AHEAD, values).all()
    return {
        partition: [(row[1], row[2], row[3]) for row in group]
        for partition, group in itertools.groupby(rows, key=itemgetter(0))
    }


def _choose_blocks(
    ahead: Mapping[int, Sequence[tuple[int, int, int]]], max_records: int, max_bytes: int
) -> dict[int, tuple[int, int]]:
    """Choose what to load: from the first to the last block of each partition that an even share may need.

    The partitions with the least data ahead come first and leave what they do not need to the others.
    """
    chosen: dict[int, tuple[int, int]] = {}
    sizes = {partition: sum(block[1] for block in blocks) for partition, blocks in ahead.items()}
    for left, partition in zip(range(len(ahead), 0, -1), sorted(ahead, key=sizes.__getitem__), strict=True):
        blocks = ahead[partition]
        records = size = taken = 0
        while taken < len(blocks) and (taken == 0 or (records < max_records // left and size < max_bytes // left)):
            # The first block may be partly read already: it does not count.
            if taken:
                records, size = records + blocks[taken][1], size + blocks[taken][2]
            taken += 1
        chosen[partition] = (blocks[0][0], blocks[taken - 1][0])
        max_records, max_bytes = max(max_records - records, 0), max(max_bytes - size, 0)
    return chosen


def _load_blocks(
    connection: sa.Connection, topic_id: int, after: Positions, chosen: Mapping[int, tuple[int, int]]
) -> dict[int, list[BlockSlice]]:
    wanted = ", ".join(
        f"({partition:d}::smallint, {begin:d}::bigint, {end:d}::bigint)" for partition, (begin, end) in chosen.items()
    )
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - it is in a transaction
    rows = io.BytesIO()
    with driver.cursor() as cursor:
        cursor.copy_expert(_LOAD_BLOCKS.format(topic=topic_id, wanted=wanted), rows, 1 << 20)
    slices: dict[int, list[BlockSlice]] = {}
    for block in blocks_of(rows.getvalue()):
        slices.setdefault(block.partition, []).append(BlockSlice.of(block, after[block.partition]))
    return slices


def _divide(
    slices: Mapping[int, Sequence[BlockSlice]], max_records: int, max_bytes: int, turn: int
) -> dict[int, list[tuple[BlockSlice, int]]]:
    """Divide both bounds evenly among partitions; what one leaves goes to the next; at least one record.

    The partitions with the fewest records ahead come first, so that the bounds are used up. Where the bound on records
    is lower than the number of partitions, *turn* selects which are served.
    """
    counts: dict[int, list[tuple[BlockSlice, int]]] = {}
    waiting = {partition: sum(len(part.positions) - part.begin for part in all_) for partition, all_ in slices.items()}
    begin = turn % max(len(slices), 1)
    in_turn = (sorted(slices)[begin:] + sorted(slices)[:begin])[:max_records]
    order = sorted(in_turn, key=waiting.__getitem__)
    for left, partition in zip(range(len(order), 0, -1), order, strict=True):
        taken = list(_take(slices[partition], -(-max_records // left), max_bytes // left))
        if taken:
            counts[partition] = taken
            max_records -= sum(count for _, count in taken)
            max_bytes -= sum(part.size(count) for part, count in taken)
    if not counts and in_turn:
        counts[in_turn[0]] = [(slices[in_turn[0]][0], 1)]
    return counts


def _take(slices: Sequence[BlockSlice], max_records: int, max_bytes: int) -> Iterator[tuple[BlockSlice, int]]:
    for part in slices:
        count = part.count_within(max_records, max_bytes)
        if count:
            yield part, count
        if count < len(part.positions) - part.begin:
            return
        max_records -= count
        max_bytes -= part.size(count)

"""Read on PostgreSQL: which blocks to load, and how many records of each to return.

Three short statements in one snapshot (REPEATABLE READ), so that retention cannot remove between two of them what the
first has seen: the ends of the partitions; the blocks ahead of the reader, without their bytes; the bytes of the
blocks that fit the bounds.

Every row is checked before it counts: the partitions' rows, the loaded blocks, and that they cover each partition from
the reader's position on without a gap (`block_tags`). What is looked at to choose blocks is not checked; a wrong choice
is noticed in what is loaded.
"""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from exchange.broker.port import Ends, PartitionRecords, ReadResult
from exchange.broker.postgres.append import partition_row
from exchange.broker.postgres.block_tags import NewestEnds, TopicTags
from exchange.broker.postgres.blocks import (
    HEADER_COLUMNS,
    READ_COLUMNS,
    BlockHeader,
    BlockSlice,
    blocks_of,
    join_slices,
)
from exchange.broker.rules import check_positions
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["read_ends", "read_positions_for_time", "read_records"]

_MAX_BLOCKS_AHEAD = 1024  # blocks per partition that one read looks at, however small they are
_MIN_BLOCKS_AHEAD = 16
_SMALL_BLOCK_RECORDS = 64  # with smaller blocks a read may return fewer records than allowed

_ENDS = """
SELECT partition, earliest, latest, recorded_at, compacted, tag FROM broker_partition
WHERE topic_id = %(topic)s ORDER BY partition
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
    SELECT {columns}
    FROM (VALUES {wanted}) AS wanted (partition, begins, ends)
    JOIN broker_stretch s ON s.topic_id = {topic:d} AND s.partition = wanted.partition
        AND s.last BETWEEN wanted.begins AND wanted.ends
    ORDER BY s.partition, s.last
) TO STDOUT (FORMAT binary)
"""

_BEFORE = f"""
SELECT s.* FROM unnest(%(partitions)s::smallint[], %(after)s::bigint[]) AS wanted (partition, after), LATERAL (
    SELECT {HEADER_COLUMNS} FROM broker_stretch s
    WHERE s.topic_id = %(topic)s AND s.partition = wanted.partition AND s.last < wanted.after
    ORDER BY s.last DESC LIMIT 1
) AS s
"""  # noqa: S608 - constants of this package

_POSITIONS_FOR_TIME = f"""
SELECT p.partition, p.earliest, p.latest, p.recorded_at, p.compacted, p.tag, found.*, before.*
FROM broker_partition p
LEFT JOIN LATERAL (
    SELECT {HEADER_COLUMNS} FROM broker_stretch s
    WHERE s.topic_id = %(topic)s AND s.partition = p.partition AND s.recorded_at >= %(recorded_at)s
    ORDER BY s.recorded_at, s.last LIMIT 1
) AS found ON true
LEFT JOIN LATERAL (
    SELECT {HEADER_COLUMNS} FROM broker_stretch s
    WHERE s.topic_id = %(topic)s AND s.partition = p.partition
        AND s.last < coalesce(found.last, 9223372036854775807)
    ORDER BY s.last DESC LIMIT 1
) AS before ON true
WHERE p.topic_id = %(topic)s ORDER BY p.partition
"""  # noqa: S608
_PARTITION_COLUMNS, _BLOCK_COLUMNS = 6, 10


def read_ends(connection: sa.Connection, tags: TopicTags, partitions: int, newest: NewestEnds) -> Ends:
    """Return both ends of each partition.

    Args:
        connection: whose snapshot is not taken yet, if it has one.
        tags: of the topic.
        partitions: their number.
        newest: what this process has seen of them.

    Raises:
        RecordsCorruptError: a partition's row is missing, or not the one that the pool wrote last.
    """
    seen = newest.seen(tags.topic_id)
    rows = connection.exec_driver_sql(_ENDS, {"topic": tags.topic_id}).all()
    return _checked_ends(tags, partitions, newest, seen, rows)


def _checked_ends(
    tags: TopicTags, partitions: int, newest: NewestEnds, seen: dict[int, tuple[int, int]], rows: Sequence[Any]
) -> Ends:
    checked = tags.check_partitions(map(partition_row, rows), range(partitions))
    newest.check(tags.name, seen, checked)
    ends = Ends(earliest=tuple(row.earliest for row in checked), latest=tuple(row.latest for row in checked))
    newest.note_ends(tags.topic_id, ends)
    return ends


def read_positions_for_time(
    connection: sa.Connection, tags: TopicTags, partitions: int, newest: NewestEnds, recorded_at: int
) -> Positions:
    """Return the positions of the first records of that time or later, else the end.

    The block that is found and the one before it are checked, so that no block in between was hidden.

    Raises:
        RecordsCorruptError: one of them, or a partition's row, is missing or not the one that the pool wrote last.
    """
    seen = newest.seen(tags.topic_id)
    values = {"topic": tags.topic_id, "recorded_at": recorded_at}
    rows = connection.exec_driver_sql(_POSITIONS_FOR_TIME, values).all()
    ends = _checked_ends(tags, partitions, newest, seen, [row[:_PARTITION_COLUMNS] for row in rows])
    positions = []
    for row, earliest, latest in zip(rows, ends.earliest, ends.latest, strict=True):
        found = _header_or_none(tags, row[_PARTITION_COLUMNS : _PARTITION_COLUMNS + _BLOCK_COLUMNS])
        before = _header_or_none(tags, row[_PARTITION_COLUMNS + _BLOCK_COLUMNS :])
        if before is not None and before.recorded_at >= recorded_at:
            raise tags.hole(row[0], before.first, before.last)
        after = earliest if before is None else before.begins
        if earliest < latest or found is not None or before is not None:
            tags.check_covered(row[0], after, before, [found] if found is not None else [], latest)
        positions.append(latest if found is None else found.first)
    return tuple(positions)


def _header_or_none(tags: TopicTags, row: Sequence[Any]) -> BlockHeader | None:
    if row[0] is None:
        return None
    header = BlockHeader.of_row(row)
    tags.check_header(header)
    return header


def read_records(
    connection: sa.Connection,
    tags: TopicTags,
    newest: NewestEnds,
    topic: Topic,
    after: Positions,
    *,
    partitions: int,
    max_records: int,
    max_bytes: int,
    turn: int,
) -> ReadResult:
    """Read from these positions on, as `Broker.read` says.

    Args:
        connection: in one snapshot for the whole call.
        tags: of the topic.
        newest: what this process has seen of the partitions' ends.
        topic: its name, for error messages.
        after: the reader's positions.
        partitions: of the topic.
        max_records: the most to return.
        max_bytes: the most bytes of values to return, except for a single record that is larger.
        turn: any number that changes from call to call; when one record alone fills the bounds, it selects the
            partition, so that they are served round robin.
    """
    topic_id = tags.topic_id
    ends = read_ends(connection, tags, partitions, newest)
    check_positions(topic, after, ends.earliest, ends.latest)
    if after == ends.latest:
        return ReadResult(partitions=(), next=after)
    chosen = _choose_blocks(_blocks_ahead(connection, topic_id, after, max_records), max_records, max_bytes)
    slices = _load_blocks(connection, tags, after, chosen)
    _check_covered(connection, tags, after, ends.latest, slices)
    counts = _divide(slices, max_records, max_bytes, turn)
    # Of a partition with nothing more than removed records, all is read.
    next_positions = [
        at if number in slices else latest for number, (at, latest) in enumerate(zip(after, ends.latest, strict=True))
    ]
    read: list[PartitionRecords] = []
    for partition, taken in sorted(counts.items()):
        read.append(join_slices(partition, taken))
        last, count = taken[-1]
        whole = last.begin + count == len(last.positions)
        next_positions[partition] = last.block.ends + 1 if whole else read[-1].offsets[-1] + 1
    return ReadResult(partitions=tuple(read), next=tuple(next_positions))


def _check_covered(
    connection: sa.Connection,
    tags: TopicTags,
    after: Positions,
    latest: Positions,
    slices: Mapping[int, Sequence[BlockSlice]],
) -> None:
    """Check that what was loaded of each partition follows the reader's position without a gap."""
    headers = {number: [part.block.header for part in slices.get(number, ())] for number in range(len(after))}
    ahead = [number for number, (at, end) in enumerate(zip(after, latest, strict=True)) if at < end]
    # Only where records right at the position were removed: what the block before covers.
    apart = [number for number in ahead if not headers[number] or headers[number][0].begins > after[number]]
    before: dict[int, BlockHeader] = {}
    if apart:
        values = {"topic": tags.topic_id, "partitions": apart, "after": [after[number] for number in apart]}
        for row in connection.exec_driver_sql(_BEFORE, values).all():
            header = BlockHeader.of_row(row)
            tags.check_header(header)
            before[header.partition] = header
    for number in ahead:
        tags.check_covered(number, after[number], before.get(number), headers[number], latest[number])


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
    connection: sa.Connection, tags: TopicTags, after: Positions, chosen: Mapping[int, tuple[int, int]]
) -> dict[int, list[BlockSlice]]:
    if not chosen:
        return {}
    wanted = ", ".join(
        f"({partition:d}::smallint, {begin:d}::bigint, {end:d}::bigint)" for partition, (begin, end) in chosen.items()
    )
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - it is in a transaction
    rows = io.BytesIO()
    with driver.cursor() as cursor:
        statement = _LOAD_BLOCKS.format(columns=READ_COLUMNS, topic=tags.topic_id, wanted=wanted)
        cursor.copy_expert(statement, rows, 1 << 20)
    slices: dict[int, list[BlockSlice]] = {}
    for block in blocks_of(rows.getvalue()):
        tags.check_block(block)
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

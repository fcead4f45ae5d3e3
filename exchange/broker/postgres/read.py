"""Reading blocks out of PostgreSQL: which to load, and how much of each a reader gets.

Three short statements in one snapshot (REPEATABLE READ), so that retention cannot take away between two of them
what the first has seen. The first gives the ends and, without their bytes, the blocks ahead of the reader; the
second the bytes of the blocks that fit the bounds.
"""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

import sqlalchemy as sa

from exchange.broker.port import Ends, PartitionRecords, ReadResult
from exchange.broker.postgres.blocks import Piece, blocks_of, stretch_of
from exchange.broker.rules import check_positions
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["read_ends", "read_since", "read_slice"]

_MOST_AHEAD = 1024  # blocks per partition that one read looks at, however small they are
_LEAST_AHEAD = 16
_SMALL_BLOCK = 64  # records; with smaller ones a read may give less than it was allowed

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

# Binary COPY: a SELECT gives bytes as hexadecimal text, four times as slow. The numbers are put in as such.
_BYTES = """
COPY (
    SELECT s.partition, first, s.last, recorded_at, count, keys, marks, lengths, data, valid, positions
    FROM (VALUES {wanted}) AS wanted (partition, begins, ends)
    JOIN broker_stretch s ON s.topic_id = {topic:d} AND s.partition = wanted.partition
        AND s.last BETWEEN wanted.begins AND wanted.ends
    ORDER BY s.partition, s.last
) TO STDOUT (FORMAT binary)
"""

_SINCE = """
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


def read_since(connection: sa.Connection, topic_id: int, recorded_at: int) -> Positions:
    """Return the positions of the first records of that time or later, else the end."""
    values = {"topic": topic_id, "recorded_at": recorded_at}
    return tuple(connection.exec_driver_sql(_SINCE, values).scalars())


def read_slice(
    connection: sa.Connection,
    topic_id: int,
    topic: Topic,
    after: Positions,
    *,
    max_records: int,
    max_bytes: int,
    turn: int,
) -> ReadResult:
    """Read from these positions on. See `Broker.read`.

    Args:
        connection: in one snapshot for the whole call.
        topic_id: the topic's row.
        topic: its name, for what is said in errors.
        after: where the reader stands.
        max_records: at most so many.
        max_bytes: of values, at most so many, except for a single record that is larger.
        turn: any number that changes from call to call; when one record alone fills the bounds, it decides whose
            turn it is.
    """
    ends = read_ends(connection, topic_id)
    check_positions(topic, after, ends.earliest, ends.latest)
    if after == ends.latest:
        return ReadResult(stretches=(), next=after)
    chosen = _choose(_blocks_ahead(connection, topic_id, after, max_records), max_records, max_bytes)
    pieces = _load(connection, topic_id, after, chosen)
    counts = _share(pieces, max_records, max_bytes, turn)
    following = list(after)
    stretches: list[PartitionRecords] = []
    for partition, taken in sorted(counts.items()):
        stretches.append(stretch_of(partition, taken))
        following[partition] = stretches[-1].offsets[-1] + 1
    return ReadResult(stretches=tuple(stretches), next=tuple(following))


def _blocks_ahead(
    connection: sa.Connection, topic_id: int, after: Positions, max_records: int
) -> dict[int, list[tuple[int, int, int]]]:
    """Return (last, count, size) of the blocks ahead, by partition."""
    ahead = min(max(max_records // _SMALL_BLOCK, _LEAST_AHEAD), _MOST_AHEAD)
    values = {"topic": topic_id, "after": list(after), "ahead": ahead}
    rows = connection.exec_driver_sql(_BLOCKS_AHEAD, values).all()
    return {
        partition: [(row[1], row[2], row[3]) for row in group]
        for partition, group in itertools.groupby(rows, key=itemgetter(0))
    }


def _choose(
    ahead: Mapping[int, Sequence[tuple[int, int, int]]], max_records: int, max_bytes: int
) -> dict[int, tuple[int, int]]:
    """Choose what to load: from the first to the last block of each partition that an even share may need.

    Those with least ahead choose first and leave what they do not need to the others.
    """
    chosen: dict[int, tuple[int, int]] = {}
    sizes = {partition: sum(block[1] for block in blocks) for partition, blocks in ahead.items()}
    for left, partition in zip(range(len(ahead), 0, -1), sorted(ahead, key=sizes.__getitem__), strict=True):
        blocks = ahead[partition]
        records = octets = taken = 0
        while taken < len(blocks) and (taken == 0 or (records < max_records // left and octets < max_bytes // left)):
            # The first block may be half read: it does not count.
            if taken:
                records, octets = records + blocks[taken][1], octets + blocks[taken][2]
            taken += 1
        chosen[partition] = (blocks[0][0], blocks[taken - 1][0])
        max_records, max_bytes = max(max_records - records, 0), max(max_bytes - octets, 0)
    return chosen


def _load(
    connection: sa.Connection, topic_id: int, after: Positions, chosen: Mapping[int, tuple[int, int]]
) -> dict[int, list[Piece]]:
    wanted = ", ".join(
        f"({partition:d}::smallint, {begin:d}::bigint, {end:d}::bigint)" for partition, (begin, end) in chosen.items()
    )
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - it is in a transaction
    rows = io.BytesIO()
    with driver.cursor() as cursor:
        cursor.copy_expert(_BYTES.format(topic=topic_id, wanted=wanted), rows, 1 << 20)
    pieces: dict[int, list[Piece]] = {}
    for block in blocks_of(rows.getvalue()):
        pieces.setdefault(block.partition, []).append(Piece.of(block, after[block.partition]))
    return pieces


def _share(
    pieces: Mapping[int, Sequence[Piece]], max_records: int, max_bytes: int, turn: int
) -> dict[int, list[tuple[Piece, int]]]:
    """Divide both bounds evenly among partitions; what one leaves goes to the next; at least one record.

    Those with least waiting come first, so that nothing of the bounds is left over. Where there are fewer records
    to give than partitions, *turn* says whose turn it is.
    """
    counts: dict[int, list[tuple[Piece, int]]] = {}
    waiting = {partition: sum(len(piece.places) - piece.begin for piece in all_) for partition, all_ in pieces.items()}
    begin = turn % max(len(pieces), 1)
    in_turn = (sorted(pieces)[begin:] + sorted(pieces)[:begin])[:max_records]
    order = sorted(in_turn, key=waiting.__getitem__)
    for left, partition in zip(range(len(order), 0, -1), order, strict=True):
        taken = list(_take(pieces[partition], -(-max_records // left), max_bytes // left))
        if taken:
            counts[partition] = taken
            max_records -= sum(count for _, count in taken)
            max_bytes -= sum(piece.size(count) for piece, count in taken)
    if not counts and in_turn:
        counts[in_turn[0]] = [(pieces[in_turn[0]][0], 1)]
    return counts


def _take(pieces: Sequence[Piece], max_records: int, max_bytes: int) -> Iterator[tuple[Piece, int]]:
    for piece in pieces:
        count = piece.fitting(max_records, max_bytes)
        if count:
            yield piece, count
        if count < len(piece.places) - piece.begin:
            return
        max_records -= count
        max_bytes -= piece.size(count)

"""What of a read leaves the pool: within the bounds, in order, and nothing is lost between two answers."""

import random
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from exchange.broker.port import PartitionRecords, ReadResult
from exchange.records.reading.selection import Selection, join, select
from exchange.records.release import ViewOutput
from schemas.record import Packed

PARTITIONS = 3


class Row:
    """A record of the test's topic: shown, withdrawn or hidden."""

    def __init__(self, offset: int, draw: random.Random) -> None:
        self.offset = offset
        self.fate = draw.choice(["shown", "shown", "withdrawn", "hidden"])
        self.value = bytes(draw.randrange(1, 9)) if self.fate == "shown" else b""
        self.key = draw.randbytes(16)


def read_of(log: Sequence[Sequence[Row]], at: Sequence[int], count: int) -> tuple[ReadResult, list[Row]]:
    parts, rows, next_ = [], [], list(at)
    for number, partition in enumerate(log):
        taken = [row for row in partition if row.offset >= at[number]][:count]
        if taken:
            rows += taken
            next_[number] = taken[-1].offset + 1
            parts.append(
                PartitionRecords(
                    partition=number,
                    offsets=[row.offset for row in taken],
                    keys=[row.key for row in taken],
                    values=[row.value for row in taken],
                    recorded_at=[row.offset for row in taken],
                    mark=lambda index, taken=taken: 2 if taken[index].offset % 2 else 17,  # type: ignore[misc]
                    valid=lambda index, taken=taken: bytes([taken[index].offset] * 16),  # type: ignore[misc]
                )
            )
    return ReadResult(partitions=tuple(parts), next=tuple(next_)), rows


def selected(
    log: Sequence[Sequence[Row]], at: Sequence[int], count: int, records: int, size: int, *, places: bool = False
) -> Selection:
    read, rows = read_of(log, at, count)
    shown = np.array([row.fate == "shown" for row in rows], np.bool_)
    gone = np.array([row.fate == "withdrawn" for row in rows], np.bool_)
    output = ViewOutput(selected=shown, values=Packed.of([row.value for row in rows if row.fate == "shown"]))
    return select(read, output, gone, records=records, size=size, first=True, places=places)


@pytest.mark.parametrize("seed", range(20))
def test_places_marks_and_valid_times_are_those_of_the_records_that_leave(seed: int) -> None:
    draw = random.Random(seed)
    log = [sorted((Row(at, draw) for at in draw.sample(range(100), 30)), key=lambda row: row.offset) for _ in range(3)]
    by_key = {row.key: (number, row) for number, partition in enumerate(log) for row in partition}
    at: tuple[int, ...] = (0,) * PARTITIONS
    parts = []
    for _ in range(4):
        parts.append(
            selected(log, at, draw.randrange(1, 20), draw.randrange(1, 20), draw.randrange(1, 99), places=True)
        )
        at = parts[-1].next
    joined = join(parts, at)
    assert len(joined.marks) == len(joined)
    for index, key in enumerate(joined.keys):
        number, row = by_key[key]
        assert struct.unpack_from("<HQ", joined.places, 10 * index) == (number, row.offset)
        shown = row.fate == "shown"
        assert joined.marks[index] == ((2 if row.offset % 2 else 1) if shown else 3)
        assert joined.valid[16 * index : 16 * index + 16] == bytes([row.offset if shown else 0] * 16)
    silent = selected(log, (0,) * PARTITIONS, 30, 50, 999)
    assert (silent.places, silent.marks, silent.valid) == (b"", b"", b"")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_bounds_every_record_leaves_once_and_in_its_partition_s_order(seed: int) -> None:
    draw = random.Random(seed)
    log = [sorted((Row(at, draw) for at in draw.sample(range(100), 30)), key=lambda row: row.offset) for _ in range(3)]
    at: tuple[int, ...] = (0,) * PARTITIONS
    got: list[list[tuple[int, bytes]]] = [[] for _ in log]
    while any(row.offset >= at[number] for number, part in enumerate(log) for row in part):
        records, size = draw.randrange(1, 20), draw.randrange(1, 60)
        answer = selected(log, at, draw.randrange(1, 12), records, size)
        assert len(answer) <= records
        assert answer.size <= size or len(answer) == 1
        assert len(answer.values) == len(answer.keys) == len(answer.recorded_at)
        values = dict(zip(answer.keys, answer.values, strict=True))
        by_key = {row.key: (number, row) for number, part in enumerate(log) for row in part}
        for key in answer.keys:
            number, row = by_key[key]
            assert row.offset in (answer.delivered if row.fate == "shown" else answer.withdrawn)[number]
            got[number].append((row.offset, values[key]))
        assert sum(map(len, answer.delivered)) + sum(map(len, answer.withdrawn)) == len(answer)
        assert answer.next != at, "it goes on"
        at = answer.next
    assert got == [[(row.offset, row.value) for row in part if row.fate != "hidden"] for part in log]


def test_no_partition_is_always_the_last() -> None:
    draw = random.Random(1)
    log = [[Row(at, draw) for at in range(50)] for _ in range(PARTITIONS)]
    for part in log:
        for row in part:
            row.fate, row.value = "shown", b"v"
    at: tuple[int, ...] = (0,) * PARTITIONS
    for _ in range(30):
        at = selected(log, at, 40, 1, 1).next
    assert min(at) > 0


def test_selections_of_several_reads_are_joined() -> None:
    draw = random.Random(2)
    log = [[Row(at, draw) for at in range(20)] for _ in range(PARTITIONS)]
    whole = selected(log, (0,) * 3, 20, 1_000, 1_000)
    first = selected(log, (0,) * 3, 7, 1_000, 1_000)
    second = selected(log, first.next, 20, 1_000, 1_000)
    joined = join([first, second], second.next)
    assert joined.next == whole.next
    assert [list(part) for part in joined.delivered] == [list(part) for part in whole.delivered]
    assert [list(part) for part in joined.withdrawn] == [list(part) for part in whole.withdrawn]
    values = dict(zip(joined.keys, joined.values, strict=True))
    assert values == dict(zip(whole.keys, whole.values, strict=True))
    assert len(join([], (1, 2, 3))) == 0

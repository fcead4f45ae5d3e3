"""Blocks: whatever a batch holds, its records come out as they went in, from any position on, at any bound."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.broker.port import Append, PartitionRecords
from exchange.broker.postgres import blocks
from exchange.broker.postgres.blocks import ERASED, Block, BlockSlice, filter_block, join_slices, pack, positions_in
from tests.kit.cases.broker import batch, fresh_topic, lane_of

PARTITIONS = 3


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Let even small batches need several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 40)
        yield


@st.composite
def batches(draw: st.DrawFn) -> Append:
    count = draw(st.integers(1, 40))
    values = draw(st.lists(st.none() | st.binary(max_size=60), min_size=count, max_size=count))
    stated = st.binary(min_size=16, max_size=16) | st.just(bytes(16))
    times = st.just(b"") | st.lists(stated, min_size=count, max_size=count).map(b"".join)
    return replace(
        batch(lane_of(fresh_topic()), 1, range(count)),
        values=values,
        partitions=draw(st.lists(st.integers(0, PARTITIONS - 1), min_size=count, max_size=count)),
        marks=bytes(mark & ~ERASED for mark in draw(st.binary(min_size=count, max_size=count))),
        valid=draw(times),
    )


def of_partition(sent: Append, partition: int) -> list[tuple[bytes, bytes | None, int, bytes]]:
    """Return (key, value, mark, valid) of each record of one partition, as sent."""
    found = []
    for index, number in enumerate(sent.partitions):
        times = sent.valid[16 * index : 16 * index + 16]
        if number == partition:
            found.append((sent.keys[index], sent.values[index], sent.marks[index], times if any(times) else b""))
    return found


def records(found: PartitionRecords) -> list[tuple[bytes, bytes | None, int, bytes]]:
    """Return the same of records as read."""
    indexes = range(len(found))
    return [(found.keys[i], found.values[i], found.mark(i), found.valid(i)) for i in indexes]


def read(stored: list[Block], after: int) -> PartitionRecords:
    slices = [BlockSlice.of(block, after) for block in stored if block.last >= after]
    return join_slices(0, [(part, part.count_within(10_000, 1 << 30)) for part in slices])


@given(batches(), st.integers(0, 40))
def test_a_partition_comes_back_from_any_position_on(sent: Append, after: int) -> None:
    for partition in range(PARTITIONS):
        stored = [block for block in pack(sent) if block.partition == partition]
        whole = of_partition(sent, partition)
        found = read(stored, after)
        assert records(found) == whole[after:]
        assert list(found.offsets) == list(range(after, len(whole)))


@given(batches())
def test_a_block_is_no_larger_than_it_may_be_unless_one_record_is(sent: Append) -> None:
    for block in pack(sent):
        assert len(block.data) <= 40 or block.count == 1


@given(batches(), st.data())
def test_what_is_left_after_compaction_keeps_its_positions(sent: Append, data: st.DataObject) -> None:
    for partition in range(PARTITIONS):
        whole = of_partition(sent, partition)
        left: list[Block] = []
        kept_all: list[int] = []
        for block in [block for block in pack(sent) if block.partition == partition]:
            for _ in range(2):  # compaction may come again
                kept = data.draw(st.lists(st.booleans(), min_size=block.count, max_size=block.count))
                if any(kept):
                    block = filter_block(block, kept)  # noqa: PLW2901
            left.append(block)
            kept_all += positions_in(block.first, block.count, block.positions)
            assert (block.first, block.last) == (kept_all[-block.count], kept_all[-1])
        for after in range(len(whole) + 1):
            found = read(left, after)
            assert list(found.offsets) == [position for position in kept_all if position >= after]
            assert records(found) == [whole[position] for position in found.offsets]


@given(batches(), st.integers(0, 50), st.integers(0, 200), st.integers(0, 40))
def test_what_fits_is_as_much_as_the_bounds_allow(sent: Append, max_records: int, max_bytes: int, after: int) -> None:
    for block in pack(sent):
        if block.last < after:
            continue
        part = BlockSlice.of(block, after)
        count = part.count_within(max_records, max_bytes)
        here = block.count - part.begin
        assert 0 <= count <= min(max_records, here)
        assert part.size(count) <= max_bytes
        assert count in {here, max_records} or part.size(count + 1) > max_bytes


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=8))
def test_positions_stay_a_range_only_where_they_run_through(steps: list[tuple[int, bool]]) -> None:
    """Joined slices list exactly the positions of their blocks."""
    sent = replace(batch(lane_of(fresh_topic()), 1, range(5)), partitions=[0] * 5, values=[b""] * 5)
    (whole,) = pack(sent)
    begin = 0
    stored: list[Block] = []
    wanted: list[int] = []
    for count, gap in steps:
        block = filter_block(whole, [index < count for index in range(5)])
        begin += gap
        stored.append(replace(block, first=begin, last=begin + count - 1, positions=b""))
        wanted += range(begin, begin + count)
        begin += count
    assert list(read(stored, 0).offsets) == wanted

"""An erased record of a block: its leaf hash is in the value's place, so the batch's root can be computed as before."""

import struct
from dataclasses import replace

import pytest

from exchange.broker.postgres.blocks import ERASED, BlockSlice, erase_in_block, join_slices, pack
from schemas.merkle import root_of
from schemas.record import leaf_hashes
from tests.kit.cases.broker import UPSERT, VOID, batch, fresh_topic, lane_of


@pytest.mark.parametrize("valid", [b"", struct.pack("<qq", 5, 6) * 20], ids=["no times", "times"])
def test_the_leaves_of_a_block_stay_and_the_values_do_not(valid: bytes) -> None:
    marks = bytes([UPSERT] * 18 + [VOID] * 2)
    block = pack(replace(batch(lane_of(fresh_topic()), 1, range(20), marks=marks), partitions=[0] * 20, valid=valid))[0]
    chosen = [index % 3 == 0 for index in range(20)]
    erased = erase_in_block(block, chosen)
    slices = [(BlockSlice.of(one, one.first), 20) for one in (block, erased)]
    before, after = (join_slices(0, [one]) for one in slices)
    keys = [b"key"] * 2
    values = [value or b"" for value in before.values]
    leaves = leaf_hashes(marks, values, keys, valid)
    part, _ = slices[1]
    kept = []
    for index, mark in enumerate(erased.marks):
        stored = erased.data[part.ends[index] : part.ends[index + 1]]
        times = valid[16 * index : 16 * index + 16]
        void = keys[:1] if mark & 15 == 3 else []
        kept.append(stored if mark & ERASED else leaf_hashes(bytes([mark]), [stored], void, times)[0])
    assert root_of(kept) == root_of(leaves)
    for index in range(20):
        gone = chosen[index] and before.values[index] is not None
        assert after.leaf(index) == (leaves[index] if gone else None)
        assert after.values[index] == (None if gone else before.values[index])
        assert not gone or before.values[index] not in erased.data
    assert erase_in_block(erased, chosen) == erased, "a second time changes nothing"

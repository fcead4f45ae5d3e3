import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.codec.framing import add_frames, as_arrow, as_list, from_arrow, strip_frames
from schemas.errors import InvalidError, Reason
from schemas.record import Packed, frame

datums = st.lists(st.binary(max_size=20))


@given(datums, st.integers(0, 2**31 - 1))
def test_frames_are_put_on_as_the_published_language_says(items: list[bytes], schema_id: int) -> None:
    framed = add_frames(schema_id, items)
    assert framed.checked() == Packed.of(frame(schema_id, item) for item in items)
    assert add_frames(schema_id, Packed.of(items)) == framed


@given(st.lists(st.tuples(st.sampled_from([0, 1, 7, 2**31 - 1]), st.none() | st.binary(max_size=9))))
def test_a_batch_is_grouped_by_schema_and_loses_nothing(records: list[tuple[int, bytes | None]]) -> None:
    values = Packed.of(None if datum is None else frame(schema_id, datum) for schema_id, datum in records)
    groups = strip_frames(values)
    expected: dict[int, list[tuple[int, bytes]]] = {}
    for index, (schema_id, datum) in enumerate(records):
        if datum is not None:
            expected.setdefault(schema_id, []).append((index, datum))
    assert [group.schema_id for group in groups] == list(expected)  # by the first record of each
    assert {
        group.schema_id: list(zip(group.indexes.tolist(), group.datums, strict=True)) for group in groups
    } == expected


@pytest.mark.parametrize("bad", [b"\x01\0\0\0\x07abc", b"\0\0\0\0", b"\0"])
def test_a_missing_frame_is_refused_with_its_index(bad: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        strip_frames(Packed.of([frame(1, b"a"), None, bad, frame(1, b"b")]))
    assert caught.value.reason is Reason.RECORD_INVALID
    assert caught.value.details == {"index": "2"}


@pytest.mark.parametrize("schema_id", [-1, 2**31])
def test_an_id_that_the_frame_cannot_hold_is_refused(schema_id: int) -> None:
    with pytest.raises(InvalidError) as caught:
        add_frames(schema_id, [b"a"])
    assert caught.value.reason is Reason.SCHEMA_UNKNOWN


@given(datums, st.integers(0, 5))
def test_packed_list_and_arrow_are_three_forms_of_one_batch(items: list[bytes], start: int) -> None:
    packed = Packed.of(items)
    assert as_list(packed) == items
    column = as_arrow(packed)
    column.validate(full=True)
    assert column.to_pylist() == items
    assert from_arrow(column) == packed
    assert list(from_arrow(column.slice(start))) == items[start:]
    assert as_list(Packed(b"", b"")) == []


def test_a_null_becomes_the_empty_string() -> None:
    assert list(from_arrow(pa.array([b"a", None, b"b"]))) == [b"a", b"", b"b"]


def test_arrow_looks_at_the_same_bytes() -> None:
    packed = Packed.of([random.Random(1).randbytes(1_000)] * 3)
    assert as_arrow(packed).buffers()[2].address == np.frombuffer(packed.values, np.uint8).ctypes.data

"""Tags of records and of chunks: what is whole is read, from everywhere; what was changed is not."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.broker.kafka.message import Header, Message
from exchange.broker.kafka.read_check import ReadCheck, columns_of
from exchange.broker.kafka.receipts import headers
from exchange.broker.kafka.record_tags import RecordTags
from exchange.broker.port import Append, RecordsCorruptError, Retention, TopicInfo
from schemas.names import Lane
from schemas.record import OffsetRange, leaf_hashes
from tests.kit.cases.broker import UPSERT, VOID, batch, fresh_topic, lane_of

TAGS = RecordTags(b"k" * 32)
MILLISECOND = 1_700_000_000_000
Runs = dict[tuple[Lane, int], list[OffsetRange]]


@dataclass(frozen=True)
class Stored:
    """A message as the library returns it."""

    its_key: bytes
    its_value: bytes | None
    its_headers: Sequence[Header]
    at: int
    millisecond: int = MILLISECOND

    def key(self) -> bytes:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def headers(self) -> Sequence[Header]:
        return self.its_headers

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, self.millisecond


def stored(batches: Sequence[Append]) -> tuple[list[Stored], Runs]:
    """Return the messages of batches in one partition, and what their receipts say."""
    found: list[Stored] = []
    runs: Runs = {}
    for each in batches:
        keys, chunks = TAGS.keys(each, MILLISECOND)
        shared, first = headers(each), len(found)
        for index, key in enumerate(keys):
            more = [chunks[index]] if index in chunks else []
            found.append(Stored(key, each.values[index], [*shared[each.marks[index]], *more], len(found)))
        runs[each.lane, each.sequence] = [OffsetRange(partition=0, first=first, last=len(found) - 1)]
    return found, runs


def check(lane: Lane, messages: Sequence[Stored], first: int, until: int, runs: Runs) -> None:
    def describe(_: object) -> TopicInfo:
        return cast("TopicInfo", type("Described", (), {"keep": Retention.ALL, "generation": 1}))

    checker = ReadCheck(
        TAGS, describe, {}, lambda wanted: {name: runs[name] for name in wanted if name in runs}, lambda *_: ()
    )
    read = {0: columns_of(cast("Sequence[Message]", messages))}
    checker.check(lane.topic, (first,), read, (until,))


def with_headers(message: Stored, made: Sequence[Header]) -> Stored:
    return replace(message, its_headers=made)


@st.composite
def some_batches(draw: st.DrawFn) -> list[Append]:
    lane = lane_of(fresh_topic("tags"))
    made = []
    for sequence in range(1, draw(st.integers(1, 3)) + 1):
        count = draw(st.sampled_from([1, 2, 63, 64, 65, 130, 200]))
        voids = draw(st.sets(st.integers(0, count - 1), max_size=2))
        marks = bytes(VOID if index in voids else UPSERT for index in range(count))
        valid = draw(st.sampled_from([b"", bytes(range(16)) * count, bytes(16) * count]))
        made.append(batch(lane, sequence, range(count), partitions=1, marks=marks, valid=valid))
    return made


def by_chunk(messages: Sequence[Stored]) -> int:
    columns = columns_of(cast("Sequence[Message]", messages))
    return sum(map(len, TAGS.verified_chunks(str(TOPIC), 0, columns)))


TOPIC = fresh_topic("tags")


@given(some_batches(), st.data())
def test_every_window_of_what_was_written_is_read(batches: list[Append], data: st.DataObject) -> None:
    messages, runs = stored(batches)
    first = data.draw(st.integers(0, len(messages)))
    until = data.draw(st.integers(first, len(messages)))
    lane = batches[0].lane
    check(lane, messages[first:until], first, until, runs)
    bare = [with_headers(one, [each for each in one.its_headers if each[0] != "pool_chunk"]) for one in messages]
    check(lane, bare[first:until], first, until, runs)


@pytest.mark.parametrize(("count", "first", "by_chunks"), [(200, 0, 200), (200, 1, 136), (200, 64, 136), (7, 0, 7)])
def test_whole_chunks_are_verified_at_once(count: int, first: int, by_chunks: int) -> None:
    messages, _ = stored([batch(lane_of(TOPIC), 1, range(count), partitions=1)])
    assert by_chunk(messages[first:]) == by_chunks


def test_a_chunk_without_one_of_its_records_is_verified_record_by_record() -> None:
    messages, runs = stored([batch(lane_of(TOPIC), 1, range(128), partitions=1)])
    there = [*messages[:5], *messages[6:]]
    assert by_chunk(there) == 64
    with pytest.raises(RecordsCorruptError) as raised:
        check(lane_of(TOPIC), there, 0, 128, runs)
    assert raised.value.why == "records that a receipt names are missing"


@given(some_batches(), st.data())
def test_what_was_changed_is_not_read(batches: list[Append], data: st.DataObject) -> None:
    messages, runs = stored(batches)
    at = data.draw(st.integers(0, len(messages) - 1))
    one = messages[at]
    other = messages[data.draw(st.integers(0, len(messages) - 1))]
    size = len(one.its_key)
    byte = data.draw(st.integers(0, size - 1))
    value = one.its_value or b""
    changed = data.draw(
        st.sampled_from([
            replace(one, its_key=one.its_key[:byte] + bytes([one.its_key[byte] ^ 1]) + one.its_key[byte + 1 :]),
            replace(one, its_value=value + b"x"),
            replace(one, its_value=value[:-1] + bytes([value[-1] ^ 1]) if value else b"\0value"),
            replace(one, its_value=None if one.its_value else b"\0value"),
            replace(one, millisecond=MILLISECOND + 1),
            replace(one, its_key=other.its_key),
            replace(other, at=one.at),
        ])
    )  # fmt: skip
    if replace(changed, its_headers=one.its_headers) == one:
        return
    found = [*messages[:at], changed, *messages[at + 1 :]]
    with pytest.raises(RecordsCorruptError):
        check(batches[0].lane, found, 0, len(found), runs)


def test_bytes_moved_from_one_value_to_the_next_are_found() -> None:
    messages, runs = stored([batch(lane_of(TOPIC), 1, range(64), partitions=1)])
    first, second = messages[3].its_value or b"", messages[4].its_value or b""
    messages[3], messages[4] = (
        replace(messages[3], its_value=first[:-1]),
        replace(messages[4], its_value=first[-1:] + second),
    )
    with pytest.raises(RecordsCorruptError):
        check(lane_of(TOPIC), messages, 0, 64, runs)


@pytest.mark.parametrize(("put", "instead"), [(9, 3), (3, 9), (64, 63), (0, 129)])
def test_a_record_in_the_place_of_another_of_its_batch_is_found(put: int, instead: int) -> None:
    messages, runs = stored([batch(lane_of(TOPIC), 1, range(130), partitions=1)])
    messages[instead] = replace(messages[put], at=instead)
    for first, until in [(0, 130), (instead, instead + 1)]:
        with pytest.raises(RecordsCorruptError) as raised:
            check(lane_of(TOPIC), messages[first:until], first, until, runs)
        assert raised.value.why == "a record in the place of another"


@pytest.mark.parametrize(
    "stated", [b"", b"\0", b"\x40", b"\xff" * 17, bytes(17), b"\x40" + bytes(16), b"\x40" + bytes(28), None]
)
def test_a_header_that_an_attacker_wrote_verifies_nothing(stated: bytes | None) -> None:
    messages, runs = stored([batch(lane_of(TOPIC), 1, range(64), partitions=1)])
    kept = [each for each in messages[0].its_headers if each[0] != "pool_chunk"]
    messages[0] = with_headers(messages[0], [*kept, ("pool_chunk", cast("bytes", stated))])
    assert by_chunk(messages) == 0
    check(lane_of(TOPIC), messages, 0, 64, runs)
    messages[9] = replace(messages[9], its_value=b"\0another")
    with pytest.raises(RecordsCorruptError):
        check(lane_of(TOPIC), messages, 0, 64, runs)


def with_former_tags(messages: Sequence[Stored]) -> list[Stored]:
    """Return messages as they were stored when a tag was over the whole value, and chunks had none."""
    made = []
    for one in messages:
        head = one.its_key[:-16]
        digest = hashlib.blake2b(key=b"k" * 32, digest_size=16, person=b"record" if one.its_value else b"void")
        digest.update(f"{TOPIC}\n0\n".encode() + struct.pack(">qB", one.millisecond, len(one.its_key)) + head)
        digest.update(one.its_value or b"")
        kept = [each for each in one.its_headers if each[0] != "pool_chunk"]
        made.append(replace(one, its_key=head + digest.digest(), its_headers=kept))
    return made


@pytest.mark.parametrize("valid", [b"", bytes(range(16)) * 130])
def test_tags_of_before_are_verified_too(valid: bytes) -> None:
    marks = bytes(VOID if index == 7 else UPSERT for index in range(130))
    messages, runs = stored([batch(lane_of(TOPIC), 1, range(130), partitions=1, marks=marks, valid=valid)])
    former = [*with_former_tags(messages[:70]), *messages[70:]]
    check(lane_of(TOPIC), former, 0, 130, runs)
    for at in (0, 69, 129):
        changed = [*former[:at], replace(former[at], its_value=b"\0another"), *former[at + 1 :]]
        with pytest.raises(RecordsCorruptError) as raised:
            check(lane_of(TOPIC), changed, 0, 130, runs)
        assert raised.value.why == "a record whose tag does not fit"


def test_leaf_hashes_are_those_of_the_batch() -> None:
    each = batch(lane_of(TOPIC), 1, range(130), partitions=1, valid=bytes(range(16)) * 65 + bytes(16) * 65)
    leaves = leaf_hashes(each.marks, [value or b"" for value in each.values], (), each.valid)
    made, _ = TAGS.keys(replace(each, leaves=leaves), MILLISECOND)
    assert made == TAGS.keys(each, MILLISECOND)[0]
    leaves[3] = bytes(32)
    changed, _ = TAGS.keys(replace(each, leaves=leaves), MILLISECOND)
    assert [at for at, key in enumerate(changed) if key != made[at]] == [3]

"""Receipts as text in a group's offset: they come back as they were, within Kafka's 4,096 bytes."""

import base64
import string
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.broker.kafka.receipts import (
    MAX_PARTITIONS,
    belongs_to_batch,
    decode_receipts,
    encode_receipts,
    headers,
    mark_of,
    runs_of,
    split_into_transactions,
    valid_of,
)
from exchange.broker.port import Appended
from exchange.broker.rules import RECEIPTS_PER_LANE
from schemas.errors import CorruptError
from schemas.names import ConnectorId, Lane, ResourceName, Topic
from schemas.record import KeyOccurrence, Mark, OffsetRange, Operation
from tests.kit.cases.broker import batch, lane_of

LANE = Lane("01890000-0000-7000-8000-000000000001", ConnectorId("c1"), Topic(ResourceName("population"), 1))
LIMIT = 4096  # offset.metadata.max.bytes, of which librdkafka's NUL takes one


@st.composite
def runs(draw: st.DrawFn, most: int = 12) -> tuple[OffsetRange, ...]:
    found = []
    for partition in sorted(draw(st.sets(st.integers(0, MAX_PARTITIONS - 1), min_size=1, max_size=most))):
        at = draw(st.integers(0, 2**45))
        for _ in range(draw(st.integers(1, 4))):
            last = at + draw(st.integers(0, 10_000))
            found.append(OffsetRange(partition=partition, first=at, last=last))
            at = last + draw(st.integers(2, 2**40))
    return tuple(found)


@st.composite
def receipts(draw: st.DrawFn) -> tuple[Appended, ...]:
    first = draw(st.integers(1, 2**40))
    return tuple(
        Appended(
            lane=LANE,
            sequence=first + index,
            digest=draw(st.binary(min_size=32, max_size=32)),
            source_position=draw(st.binary(max_size=128)),
            recorded_at=draw(st.integers(0, 2**42)) * 1000,
            count=draw(st.integers(1, 10_000)),
            runs=draw(runs()),
        )
        for index in range(draw(st.integers(1, RECEIPTS_PER_LANE + 3)))
    )


@settings(max_examples=40)
@given(receipts())
def test_the_latest_receipts_come_back_as_they_were(given_receipts: tuple[Appended, ...]) -> None:
    text = encode_receipts(given_receipts)
    assert len(text.encode()) < LIMIT
    assert set(text) <= set(string.printable)
    for written in (text, text + "\0"):
        kept = decode_receipts(LANE, written)
        assert 1 <= len(kept) <= RECEIPTS_PER_LANE
        assert all(each.exact for each in kept)
        assert tuple(each.receipt for each in kept) == given_receipts[-len(kept) :]


@settings(max_examples=40)
@given(receipts())
def test_as_many_are_kept_as_there_is_room_for(given_receipts: tuple[Appended, ...]) -> None:
    kept = len(decode_receipts(LANE, encode_receipts(given_receipts)))
    small = len(encode_receipts(given_receipts[-kept:]))
    assert kept in {len(given_receipts), RECEIPTS_PER_LANE} or small > LIMIT - 1000


def test_sixteen_receipts_of_an_everyday_lane_are_kept() -> None:
    everyday = tuple(
        Appended(
            lane=LANE,
            sequence=1_000_000 + index,
            digest=bytes([index]) * 32,
            source_position=b"lsn/0000001A/3F4C2B10/000017",
            recorded_at=1_790_000_000_000_000,
            count=1000,
            runs=tuple(
                OffsetRange(partition=n, first=10**9 + index * 300, last=10**9 + index * 300 + 250) for n in range(4)
            ),
        )
        for index in range(RECEIPTS_PER_LANE)
    )
    assert len(decode_receipts(LANE, encode_receipts(everyday))) == RECEIPTS_PER_LANE


def test_a_receipt_of_too_many_runs_keeps_their_ranges() -> None:
    pieces = tuple(
        OffsetRange(partition=number, first=2**50 + 3 * index, last=2**50 + 3 * index + 1)
        for number in range(MAX_PARTITIONS)
        for index in range(30)
    )
    receipt = Appended(
        lane=LANE,
        sequence=2**40,
        digest=bytes(32),
        source_position=bytes(128),
        recorded_at=2**52 * 1000,
        count=len(pieces) * 2,
        runs=pieces,
    )
    (kept,) = decode_receipts(LANE, encode_receipts([receipt]))
    assert not kept.exact
    assert [(run.partition, run.first, run.last) for run in kept.receipt.runs] == [
        (number, 2**50, 2**50 + 3 * 29 + 1) for number in range(MAX_PARTITIONS)
    ]


@settings(max_examples=60)
@given(st.integers(1, MAX_PARTITIONS), st.integers(0, 128), st.integers(1, 40), st.integers(1, 40))
def test_no_batch_of_a_transaction_is_without_its_receipt(
    partitions: int, position: int, count: int, pieces: int
) -> None:
    places = range(partitions)
    batches = [
        replace(batch(LANE, sequence, places), partitions=list(places), source_position=bytes(position))
        for sequence in range(1, count + 1)
    ]
    parts = list(split_into_transactions(batches))
    assert [each.sequence for part in parts for each in part] == list(range(1, count + 1))
    before: tuple[Appended, ...] = ()
    for part in parts:
        # Others wrote in between: each batch stands in several pieces of every partition.
        new = tuple(
            Appended(
                lane=LANE,
                sequence=each.sequence,
                digest=each.digest,
                source_position=each.source_position,
                recorded_at=2**50 * 1000,
                count=len(each.keys),
                runs=tuple(
                    OffsetRange(partition=number, first=2**48 + 3 * index, last=2**48 + 3 * index)
                    for number in range(partitions)
                    for index in range(pieces)
                ),
            )
            for each in part
        )
        text = encode_receipts((*before, *new), len(new))
        assert len(text) < LIMIT
        kept = decode_receipts(LANE, text)
        assert [each.receipt.sequence for each in kept][-len(new) :] == [each.sequence for each in part]
        before = (*before, *new)


def test_an_empty_text_holds_no_receipt() -> None:
    assert decode_receipts(LANE, "") == decode_receipts(LANE, "\0") == ()


@pytest.mark.parametrize("text", ["x", "\x7f" * 20, "something else", "00000", "0" * 400])
def test_what_others_have_written_there_is_not_taken_for_receipts(text: str) -> None:
    with pytest.raises(CorruptError):
        decode_receipts(LANE, text)


@given(receipts(), st.data())
def test_what_is_damaged_is_corrupt_or_still_makes_sense(sent: tuple[Appended, ...], data: st.DataObject) -> None:
    """What is handed on fits the pool's tables: a number beyond them would end the sweeper, and not this lane alone."""
    raw = bytearray(base64.b85decode(encode_receipts(sent)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        kept = decode_receipts(LANE, base64.b85encode(bytes(raw)).decode())
    except CorruptError:
        return
    for each in kept:
        assert 1 <= each.receipt.sequence < 1 << 63
        assert each.receipt.count < 1 << 63
        assert each.receipt.recorded_at < 1 << 63
        assert all(0 <= run.first <= run.last < 1 << 63 for run in each.receipt.runs)
        assert all(run.partition < MAX_PARTITIONS for run in each.receipt.runs)


@pytest.mark.parametrize(
    "raw", ["01 01 02", "01 05 01 00" + 32 * "00" + "01 01 00 00 07", "01" + 9 * "ff" + "7f 01 00" + 35 * "00"]
)
def test_what_says_more_or_less_than_it_holds_is_not_taken_for_receipts(raw: str) -> None:
    with pytest.raises(CorruptError):
        decode_receipts(LANE, base64.b85encode(bytes.fromhex(raw)).decode())


@given(st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 60), min_size=1), min_size=1))
def test_runs_hold_exactly_the_offsets_and_are_as_few_as_can_be(offsets: dict[int, set[int]]) -> None:
    found = runs_of((number, sorted(places)) for number, places in offsets.items())
    spelled: dict[int, set[int]] = {}
    for run in found:
        assert not {run.first - 1, run.last + 1} & offsets[run.partition]
        spelled.setdefault(run.partition, set()).update(range(run.first, run.last + 1))
    assert spelled == offsets
    assert list(found) == sorted(found, key=lambda run: (run.partition, run.first))


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("seen", KeyOccurrence)
def test_a_mark_stands_in_the_headers(operation: Operation, seen: KeyOccurrence) -> None:
    mark = int(Mark(operation, seen))
    sent = batch(lane_of(LANE.topic), 7, range(2), marks=bytes([mark, mark]))
    made = headers(sent)[mark]
    assert mark_of(made) == mark
    assert dict(made)["ce_specversion"] == b"1.0"
    assert dict(made).get("pool_op") == (b"void" if operation is Operation.VOID else None)
    assert belongs_to_batch(made, sent.lane, 7)
    assert not belongs_to_batch(made, sent.lane, 8)
    assert not belongs_to_batch(made, lane_of(LANE.topic, "another"), 7)
    assert valid_of(made) == b""
    assert valid_of([*made, ("pool_valid", bytes(15) + b"\x01")]) == bytes(15) + b"\x01"


@pytest.mark.parametrize("found", [None, [], [("ce_type", b"pool.drop")], [("ce_id", b"1")]])
def test_a_record_without_its_operation_did_not_come_through_the_gate(
    found: list[tuple[str, bytes]] | None,
) -> None:
    with pytest.raises(CorruptError):
        mark_of(found)

"""Receipts and headers on Kafka: binary format of a lane's receipts, and the headers of a record. Pure.

A lane's latest receipts are the metadata of a group's offset, committed in the records' own transaction. Kafka takes
4,096 bytes of text there (`offset.metadata.max.bytes`), so they are packed: numbers as LEB128, the whole in base 85.
As many of the latest 16 as fit are stored, and all of the transaction that is being committed
(`split_into_transactions` makes transactions small enough). Where their runs would exceed the limit, the range of
each partition is stored instead and flagged; the exact runs are then found by reading that range and comparing
headers.

Headers are the four that CloudEvents' Kafka binding requires, and few of our own, since each costs a microsecond a
record: `ce_source` is the lane, `ce_id` the batch's sequence, `ce_type` the record's mark (`pool.upsert.first`), the
time is the message's own. `pool_op=void` is on voids, `pool_valid` on records that state valid times. Topics
that keep the latest record of each key have `pool_tag` besides, others `pool_chunk` on some records (`record_tags`).
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

from exchange.broker.port import Append, Appended
from exchange.broker.rules import RECEIPTS_PER_LANE
from schemas.errors import CorruptError, Reason
from schemas.names import Lane
from schemas.record import KeyOccurrence, Mark, OffsetRange, Operation

__all__ = [
    "MAX_PARTITIONS",
    "StoredReceipt",
    "belongs_to_batch",
    "decode_receipts",
    "encode_receipts",
    "headers",
    "mark_of",
    "runs_of",
    "split_into_transactions",
    "valid_of",
]

MAX_PARTITIONS = 256  # one receipt with a range in each still fits
_MAX_RAW = 4095 * 4 // 5  # base 85 makes five characters of four bytes; librdkafka appends a NUL
_HEAD = 16  # bytes: format, last sequence, count
_RECEIPT, _RANGE = 48, 11  # most bytes of a receipt without position and ranges, and of a range
_FORMAT = 1
_MAX_INT64 = (1 << 63) - 1
_DIGEST = 32
_HAS_RANGES = 1  # flag: the runs are ranges, with records of other batches in between
_VOID = ("pool_op", b"void")


def _type(mark: Mark) -> bytes:
    seen = "" if mark.seen is KeyOccurrence.UNKNOWN else f".{mark.seen.name.lower()}"
    return f"pool.{mark.operation.name.lower()}{seen}".encode()


_TYPES = {
    int(mark): _type(mark) for operation in Operation for seen in KeyOccurrence for mark in [Mark(operation, seen)]
}
_MARKS = {text: byte for byte, text in _TYPES.items()}

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt as stored; `exact` is False where its runs are ranges."""

    receipt: Appended
    exact: bool


def split_into_transactions(batches: Sequence[Append]) -> Iterator[Sequence[Append]]:
    """Split consecutive batches into transactions small enough that every receipt of each fits.

    Until the audit entries are written, the receipts in Kafka are the only trace of a transaction: a batch without one
    would never get its entry, should the gateway die now.
    """
    part: list[Append] = []
    free = _MAX_RAW - _HEAD
    for batch in batches:
        needed = _RECEIPT + len(batch.source_position) + _RANGE * len(set(batch.partitions))
        if part and (needed > free or len(part) == RECEIPTS_PER_LANE):
            yield part
            part, free = [], _MAX_RAW - _HEAD
        part.append(batch)
        free -= needed
    if part:
        yield part


def encode_receipts(receipts: Sequence[Appended], new: int = 1) -> str:
    """Encode the latest receipts, oldest first and consecutive, as the metadata of a group's offset.

    Args:
        receipts: of the lane.
        new: how many of the last ones belong to the transaction that is being committed, and must be stored.
    """
    latest = receipts[-RECEIPTS_PER_LANE:]
    packed = [_pack(receipt, exact=True) for receipt in latest[-new:]]
    if sum(map(len, packed)) > _MAX_RAW - _HEAD:
        packed = [_pack(_with_ranges(receipt), exact=False) for receipt in latest[-new:]]
    size = _HEAD + sum(map(len, packed))
    for receipt in reversed(latest[:-new]):
        item = _pack(receipt, exact=True)
        if size + len(item) > _MAX_RAW:
            item = _pack(_with_ranges(receipt), exact=False)
        if size + len(item) > _MAX_RAW:
            break
        packed.insert(0, item)
        size += len(item)
    head = bytearray([_FORMAT])
    _append_varint(head, receipts[-1].sequence if receipts else 0)
    _append_varint(head, len(packed))
    return base64.b85encode(bytes(head) + b"".join(packed)).decode()


def decode_receipts(lane: Lane, text: str) -> tuple[StoredReceipt, ...]:
    """Decode receipts, oldest first; none from an empty text.

    Raises:
        CorruptError: LOG_CORRUPT, when the text is not of this format: another client has written the group's offset.
    """
    text = text.rstrip("\0")  # librdkafka appends one and strips it; other clients see it
    if not text:
        return ()
    try:
        return _unpack(lane, base64.b85decode(text))
    except (ValueError, IndexError) as error:
        raise CorruptError(
            Reason.LOG_CORRUPT,
            f"the receipts of lane {lane} on Kafka cannot be read; compare them with the pool's own",
        ) from error


def _pack(receipt: Appended, *, exact: bool) -> bytes:
    into = bytearray([0 if exact else _HAS_RANGES])
    into += receipt.digest
    _append_varint(into, receipt.count)
    _append_varint(into, receipt.recorded_at // 1000)
    _append_varint(into, len(receipt.source_position))
    into += receipt.source_position
    _append_varint(into, len(receipt.runs))
    partition = after = 0
    for run in receipt.runs:
        _append_varint(into, run.partition - partition)
        if run.partition != partition:
            after = 0
        _append_varint(into, run.first - after)
        _append_varint(into, run.last - run.first)
        partition, after = run.partition, run.last + 1
    return bytes(into)


def _unpack(lane: Lane, raw: bytes) -> tuple[StoredReceipt, ...]:
    if raw[0] != _FORMAT:
        raise ValueError(raw[0])
    last, at = _read_varint(raw, 1)
    count, at = _read_varint(raw, at)
    if count > last:
        raise ValueError(count)
    stored = []
    for sequence in range(last - count + 1, last + 1):
        flags, digest = raw[at], raw[at + 1 : at + 1 + _DIGEST]
        records, at = _read_varint(raw, at + 1 + _DIGEST)
        millisecond, at = _read_varint(raw, at, _MAX_INT64 // 1000)
        size, at = _read_varint(raw, at)
        position, at = raw[at : at + size], at + size
        run_count, at = _read_varint(raw, at)
        runs = []
        partition = after = 0
        for _ in range(run_count):
            partition_delta, at = _read_varint(raw, at)
            offset_delta, at = _read_varint(raw, at)
            length, at = _read_varint(raw, at)
            after = 0 if partition_delta else after
            partition += partition_delta
            if partition >= MAX_PARTITIONS or after + offset_delta + length > _MAX_INT64:
                raise ValueError(partition, after)
            runs.append(
                OffsetRange(partition=partition, first=after + offset_delta, last=after + offset_delta + length)
            )
            after += offset_delta + length + 1
        receipt = Appended(
            lane=lane,
            sequence=sequence,
            digest=digest,
            source_position=position,
            recorded_at=millisecond * 1000,
            count=records,
            runs=tuple(runs),
        )
        stored.append(StoredReceipt(receipt, exact=not flags & _HAS_RANGES))
    if at != len(raw):
        raise ValueError(at)
    return tuple(stored)


def _with_ranges(receipt: Appended) -> Appended:
    ranges = ((partition, list(runs)) for partition, runs in groupby(receipt.runs, key=attrgetter("partition")))
    return replace(
        receipt,
        runs=tuple(OffsetRange(partition=number, first=runs[0].first, last=runs[-1].last) for number, runs in ranges),
    )


def runs_of(offsets: Iterable[tuple[int, Sequence[int]]]) -> tuple[OffsetRange, ...]:
    """Return the runs of these offsets, ascending within each partition, sorted by partition and offset."""
    runs: list[OffsetRange] = []
    for partition, rising in sorted(offsets, key=lambda pair: pair[0]):
        if not rising:
            continue
        if rising[-1] - rising[0] + 1 == len(rising):
            runs.append(OffsetRange(partition=partition, first=rising[0], last=rising[-1]))
            continue
        first = previous = rising[0]
        for offset in rising[1:]:
            if offset != previous + 1:
                runs.append(OffsetRange(partition=partition, first=first, last=previous))
                first = offset
            previous = offset
        runs.append(OffsetRange(partition=partition, first=first, last=previous))
    return tuple(runs)


def headers(batch: Append) -> dict[int, Headers]:
    """Return the headers of a batch's records by mark; all records of a mark share one list.

    Raises:
        InvalidError: REQUEST_INVALID, for a byte that is not a mark.
    """
    source, sequence = str(batch.lane).encode(), str(batch.sequence).encode()
    made = {}
    for byte in set(batch.marks):
        mark = Mark.of(byte)
        made[byte] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", _TYPES[byte]),
            ("ce_source", source),
            ("ce_id", sequence),
            *([_VOID] if mark.operation is Operation.VOID else []),
        ]
    return made


def mark_of(found: Sequence[tuple[str, bytes]] | None) -> int:
    """Read a record's mark from its headers.

    Raises:
        CorruptError: LOG_CORRUPT, when it has none: the record was not written by the pool.
    """
    for name, value in found or ():
        if name == "ce_type" and value in _MARKS:
            return _MARKS[value]
    raise CorruptError(
        Reason.LOG_CORRUPT,
        "got a record without its operation; another client than the pool has written to the topic",
    )


def valid_of(found: Sequence[tuple[str, bytes]] | None) -> bytes:
    """Read a record's valid times from its headers: 16 bytes, or empty."""
    return next((value for name, value in found or () if name == "pool_valid"), b"")


def belongs_to_batch(found: Sequence[tuple[str, bytes]] | None, lane: Lane, sequence: int) -> bool:
    """Return whether these are the headers of a record of that batch."""
    by_name = dict(found or ())
    return by_name.get("ce_source") == str(lane).encode() and by_name.get("ce_id") == str(sequence).encode()


def _append_varint(into: bytearray, number: int) -> None:
    while number > 0x7F:
        into.append(number & 0x7F | 0x80)
        number >>= 7
    into.append(number)


def _read_varint(raw: bytes, at: int, most: int = _MAX_INT64) -> tuple[int, int]:
    number = shift = 0
    while raw[at] & 0x80:
        number |= (raw[at] & 0x7F) << shift
        shift += 7
        at += 1
    number |= raw[at] << shift
    if number > most:  # the database would reject it, which would look like a defect and not like this lane's fault
        raise ValueError(number)
    return number, at + 1

"""What stands on Kafka beside the records: a lane's receipts, and the headers of a record. Pure.

A lane's latest receipts travel as the metadata of a group's offset, in the records' own transaction. Kafka takes
4,096 bytes of text there (`offset.metadata.max.bytes`), so they are packed: numbers as LEB128, the whole in base 85.
As many of the latest 16 as fit are kept, and of the transaction that is being closed all (`fitting` makes
transactions small enough). Where their runs would burst it they keep the range of each partition instead, are marked
so, and their exact runs are found again by reading that range for their headers.

Headers are the four that CloudEvents' Kafka binding demands, and few of our own, since each costs a microsecond a
record: `ce_source` is the lane, `ce_id` the batch's sequence, `ce_type` the record's mark (`pool.upsert.first`), the
time is the message's own. `pool_op=void` stands on voids, `pool_valid` on records that state valid times.
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
from schemas.record import Mark, Operation, Run, Seen

__all__ = [
    "MAX_PARTITIONS",
    "Kept",
    "encode",
    "fitting",
    "headers",
    "is_of",
    "mark_of",
    "runs_of",
    "unpack",
    "valid_of",
]

MAX_PARTITIONS = 256  # one receipt with a range in each still fits
_MAX_RAW = 4095 * 4 // 5  # base 85 makes five characters of four bytes; librdkafka adds a NUL
_HEAD = 16  # bytes: form, last sequence, count
_RECEIPT, _RANGE = 48, 11  # bytes of a receipt without position and ranges, and of a range, at the most
_FORM = 1
_MOST = (1 << 63) - 1
_DIGEST = 32
_RANGES = 1  # flag: the runs are ranges that others' records may interrupt
_VOID = ("pool_op", b"void")


def _type(mark: Mark) -> bytes:
    seen = "" if mark.seen is Seen.UNKNOWN else f".{mark.seen.name.lower()}"
    return f"pool.{mark.operation.name.lower()}{seen}".encode()


_TYPES = {int(mark): _type(mark) for operation in Operation for seen in Seen for mark in [Mark(operation, seen)]}
_MARKS = {text: byte for byte, text in _TYPES.items()}

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt as it was kept; `exact` is False where its runs are ranges."""

    receipt: Appended
    exact: bool


def fitting(batches: Sequence[Append]) -> Iterator[Sequence[Append]]:
    """Split consecutive batches into transactions of which every receipt is kept.

    Until they stand in the pool's own log, the receipts in Kafka are all that tells of a transaction: one that is not
    kept there would never get its entry, should the gateway die now.
    """
    part: list[Append] = []
    room = _MAX_RAW - _HEAD
    for batch in batches:
        needed = _RECEIPT + len(batch.source_position) + _RANGE * len(set(batch.partitions))
        if part and (needed > room or len(part) == RECEIPTS_PER_LANE):
            yield part
            part, room = [], _MAX_RAW - _HEAD
        part.append(batch)
        room -= needed
    if part:
        yield part


def encode(receipts: Sequence[Appended], new: int = 1) -> str:
    """Pack the latest receipts, oldest first and consecutive, into the metadata of a group's offset.

    Args:
        receipts: of the lane.
        new: how many of them, the last ones, are of the transaction that is being closed, and must be kept.
    """
    latest = receipts[-RECEIPTS_PER_LANE:]
    packed = [_pack(receipt, exact=True) for receipt in latest[-new:]]
    if sum(map(len, packed)) > _MAX_RAW - _HEAD:
        packed = [_pack(_ranged(receipt), exact=False) for receipt in latest[-new:]]
    size = _HEAD + sum(map(len, packed))
    for receipt in reversed(latest[:-new]):
        item = _pack(receipt, exact=True)
        if size + len(item) > _MAX_RAW:
            item = _pack(_ranged(receipt), exact=False)
        if size + len(item) > _MAX_RAW:
            break
        packed.insert(0, item)
        size += len(item)
    head = bytearray([_FORM])
    _number(head, receipts[-1].sequence if receipts else 0)
    _number(head, len(packed))
    return base64.b85encode(bytes(head) + b"".join(packed)).decode()


def unpack(lane: Lane, text: str) -> tuple[Kept, ...]:
    """Read receipts back, oldest first; none of the empty text.

    Raises:
        CorruptError: LOG_CORRUPT, when the text is not of this form: somebody else has written the group's offset.
    """
    text = text.rstrip("\0")  # librdkafka writes one, and reads it away; other clients see it
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
    into = bytearray([0 if exact else _RANGES])
    into += receipt.digest
    _number(into, receipt.count)
    _number(into, receipt.recorded_at // 1000)
    _number(into, len(receipt.source_position))
    into += receipt.source_position
    _number(into, len(receipt.runs))
    partition = after = 0
    for run in receipt.runs:
        _number(into, run.partition - partition)
        if run.partition != partition:
            after = 0
        _number(into, run.first - after)
        _number(into, run.last - run.first)
        partition, after = run.partition, run.last + 1
    return bytes(into)


def _unpack(lane: Lane, raw: bytes) -> tuple[Kept, ...]:
    if raw[0] != _FORM:
        raise ValueError(raw[0])
    last, at = _read_number(raw, 1)
    count, at = _read_number(raw, at)
    if count > last:
        raise ValueError(count)
    kept = []
    for sequence in range(last - count + 1, last + 1):
        flags, digest = raw[at], raw[at + 1 : at + 1 + _DIGEST]
        records, at = _read_number(raw, at + 1 + _DIGEST)
        millisecond, at = _read_number(raw, at, _MOST // 1000)
        size, at = _read_number(raw, at)
        position, at = raw[at : at + size], at + size
        length, at = _read_number(raw, at)
        runs = []
        partition = after = 0
        for _ in range(length):
            step, at = _read_number(raw, at)
            gap, at = _read_number(raw, at)
            more, at = _read_number(raw, at)
            after = 0 if step else after
            partition += step
            if partition >= MAX_PARTITIONS or after + gap + more > _MOST:
                raise ValueError(partition, after)
            runs.append(Run(partition=partition, first=after + gap, last=after + gap + more))
            after += gap + more + 1
        receipt = Appended(
            lane=lane,
            sequence=sequence,
            digest=digest,
            source_position=position,
            recorded_at=millisecond * 1000,
            count=records,
            runs=tuple(runs),
        )
        kept.append(Kept(receipt, exact=not flags & _RANGES))
    if at != len(raw):
        raise ValueError(at)
    return tuple(kept)


def _ranged(receipt: Appended) -> Appended:
    ranges = ((partition, list(runs)) for partition, runs in groupby(receipt.runs, key=attrgetter("partition")))
    return replace(
        receipt,
        runs=tuple(Run(partition=number, first=runs[0].first, last=runs[-1].last) for number, runs in ranges),
    )


def runs_of(offsets: Iterable[tuple[int, Sequence[int]]]) -> tuple[Run, ...]:
    """Return the runs of these offsets, each partition's rising, sorted by partition and offset."""
    runs: list[Run] = []
    for partition, rising in sorted(offsets, key=lambda pair: pair[0]):
        if not rising:
            continue
        if rising[-1] - rising[0] + 1 == len(rising):
            runs.append(Run(partition=partition, first=rising[0], last=rising[-1]))
            continue
        first = previous = rising[0]
        for offset in rising[1:]:
            if offset != previous + 1:
                runs.append(Run(partition=partition, first=first, last=previous))
                first = offset
            previous = offset
        runs.append(Run(partition=partition, first=first, last=previous))
    return tuple(runs)


def headers(batch: Append) -> dict[int, Headers]:
    """Return the headers of a batch's records by their mark; one list serves all records of that mark.

    Raises:
        InvalidError: REQUEST_INVALID, for a byte that is no mark.
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
        CorruptError: LOG_CORRUPT, when it has none: the record did not come through the gate.
    """
    for name, value in found or ():
        if name == "ce_type" and value in _MARKS:
            return _MARKS[value]
    raise CorruptError(
        Reason.LOG_CORRUPT,
        "got a record without its operation; somebody has written to the topic past the gate",
    )


def valid_of(found: Sequence[tuple[str, bytes]] | None) -> bytes:
    """Read a record's valid times from its headers: 16 bytes, or empty."""
    return next((value for name, value in found or () if name == "pool_valid"), b"")


def is_of(found: Sequence[tuple[str, bytes]] | None, lane: Lane, sequence: int) -> bool:
    """Return whether these are the headers of a record of that batch."""
    by_name = dict(found or ())
    return by_name.get("ce_source") == str(lane).encode() and by_name.get("ce_id") == str(sequence).encode()


def _number(into: bytearray, number: int) -> None:
    while number > 0x7F:
        into.append(number & 0x7F | 0x80)
        number >>= 7
    into.append(number)


def _read_number(raw: bytes, at: int, most: int = _MOST) -> tuple[int, int]:
    number = shift = 0
    while raw[at] & 0x80:
        number |= (raw[at] & 0x7F) << shift
        shift += 7
        at += 1
    number |= raw[at] << shift
    if number > most:  # a database would refuse it, as a defect and not as this lane's fault
        raise ValueError(number)
    return number, at + 1

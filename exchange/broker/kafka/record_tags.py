"""Tags of records on Kafka: one MAC a record, in its key. Pure.

An attacker who can write to Kafka's topics, or to its files, could invent, change, move or repeat records. So each
has a keyed BLAKE2b (RFC 7693) of 16 bytes, with a key that Kafka does not hold, over topic, partition, time and all of

    pseudonym    16 bytes
    batch         8   of the hash of lane and sequence
    number        4   of the record among those of its batch in this partition, big-endian
    mark          1
    valid times  16   where they are stated
    value             or that there is none

Where a topic keeps all history these are the record's key, followed by the tag: 45 bytes, or 61. Parsing headers would
cost a reader more than the MAC does. Where brokers keep the latest record of each key the key must be the pseudonym
alone, and the header `pool_tag` has number and tag.

Each record has a tag of its own, so the erasure of one does not concern others. What replaces an erased value has a
tag over topic, partition, the key, the record's offset and its leaf hash (`replacement_tag`).
"""

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from exchange.broker.kafka.message import Header, Message
from exchange.broker.kafka.receipts import mark_of, valid_of
from exchange.broker.port import Append
from exchange.broker.rules import KEY_SIZE
from schemas.errors import CorruptError
from schemas.record import MAX_BATCH_RECORDS

__all__ = [
    "NUMBERS",
    "Columns",
    "RecordTags",
    "all_tagged",
    "attributes",
    "batch_number",
    "batch_of",
    "header_of",
    "is_tagged",
    "number_of",
]

_TAG_HEADER = "pool_tag"
_TAG_SIZE = 16
_MIN_KEY = 32
_VALID_SIZE = 16
_NO_TIMES = bytes(_VALID_SIZE)
_BATCH = slice(KEY_SIZE, KEY_SIZE + 8)
_MARK_AT = KEY_SIZE + 12
_PLAIN = _MARK_AT + 1 + _TAG_SIZE  # size of a key
_TIMED = _PLAIN + _VALID_SIZE
_SIZES = {_PLAIN, _TIMED}
_VALUE, _VOID = b"record", b"void"  # what a tag is of
_BYTES = [bytes([number]) for number in range(256)]
_STAMP = struct.Struct(">qB")  # milliseconds, size of the key
NUMBERS = [struct.pack(">I", number) for number in range(MAX_BATCH_RECORDS)]
"""The number of a record, as its key has it."""


@lru_cache(maxsize=4096)
def batch_number(lane: bytes, sequence: bytes) -> bytes:
    """Return what stands for a batch in its records' keys, 8 bytes; the sequence is decimal."""
    return hashlib.sha256(lane + b"\n" + sequence).digest()[:8]


def is_tagged(key: bytes) -> bool:
    """Return whether a key has a tag."""
    return len(key) in _SIZES


def all_tagged(keys: Sequence[bytes]) -> bool:
    """Return whether all of these keys have tags."""
    return set(map(len, keys)) <= _SIZES


def attributes(key: bytes, headers: Sequence[Header] | None) -> tuple[int, bytes]:
    """Return a record's mark and its valid times (16 bytes or empty): of its key, or else of its headers."""
    if is_tagged(key):
        return key[_MARK_AT], key[_MARK_AT + 1 : -_TAG_SIZE]
    return mark_of(headers), valid_of(headers)


@dataclass(frozen=True, slots=True)
class Columns:
    """Messages of one partition, in order, and what they are made of."""

    messages: Sequence[Message]
    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    milliseconds: Sequence[int]
    offsets: Sequence[int]


class RecordTags:
    """Makes and verifies the tags.

    Args:
        key: at least 32 bytes, kept outside Kafka.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < _MIN_KEY:
            raise ValueError(f"got a key of {len(key)} bytes; expected at least {_MIN_KEY}")
        self._key = key
        self._hash = lru_cache(maxsize=4096)(self._make_hash)

    def _make_hash(self, kind: bytes, topic: str, partition: int) -> "hashlib.blake2b":
        place = f"{topic}\n{partition}\n".encode()
        return hashlib.blake2b(place, key=self._key, digest_size=_TAG_SIZE, person=kind)

    def keys(self, batch: Append, millisecond: int) -> list[bytes]:
        """Return the keys of a batch's records on Kafka, with their tags."""
        topic, places = str(batch.lane.topic), set(batch.partitions)
        copies = {number: self._hash(_VALUE, topic, number).copy for number in places}
        voids = {number: self._hash(_VOID, topic, number).copy for number in places}
        counts = dict.fromkeys(places, 0)
        number = batch_number(str(batch.lane).encode(), b"%d" % batch.sequence)
        plain, timed = _STAMP.pack(millisecond, _PLAIN), _STAMP.pack(millisecond, _TIMED)
        made, valid = [], batch.valid
        rows = zip(batch.keys, batch.partitions, batch.marks, batch.values, strict=True)
        for index, (key, partition, mark, value) in enumerate(rows):
            count = counts[partition]
            counts[partition] = count + 1
            head, stamp = key + number + NUMBERS[count] + _BYTES[mark], plain
            if valid and (times := valid[_VALID_SIZE * index : _VALID_SIZE * (index + 1)]) != _NO_TIMES:
                head, stamp = head + times, timed
            if value is None:
                digest = voids[partition]()
                digest.update(stamp + head)
            else:
                digest = copies[partition]()
                digest.update(stamp + head + value)
            made.append(head + digest.digest())
        return made

    def first_unverified(self, topic: str, partition: int, columns: Columns) -> int | None:
        """Return the index of the first record whose tag does not fit; None where all do. All keys have tags."""
        copy, void = self._hash(_VALUE, topic, partition).copy, self._hash(_VOID, topic, partition).copy
        moments = set(columns.milliseconds)
        stamps = {size: {one: _STAMP.pack(one, size) for one in moments} for size in _SIZES}
        made = []
        for key, value, at in zip(columns.keys, columns.values, columns.milliseconds, strict=True):
            if value is None:
                digest = void()
                digest.update(stamps[len(key)][at] + key[:-_TAG_SIZE])
            else:
                digest = copy()
                digest.update(stamps[len(key)][at] + key[:-_TAG_SIZE] + value)
            made.append(digest.digest())
        found = [key[-_TAG_SIZE:] for key in columns.keys]
        if hmac.compare_digest(b"".join(found), b"".join(made)):
            return None
        return next(at for at, (one, other) in enumerate(zip(found, made, strict=True)) if one != other)

    def tagged_key(self, message: Message) -> bytes | None:
        """Return what the key of a record would be whose tag stands in a header; None without such a header."""
        headers = dict(message.headers() or ())
        tag = headers.get(_TAG_HEADER)
        if tag is None:
            return None
        try:
            mark = mark_of(message.headers())
        except CorruptError:
            mark = 0
        times = headers.get("pool_valid", b"")
        number = batch_number(headers.get("ce_source", b""), headers.get("ce_id", b""))
        return b"".join([message.key()[:KEY_SIZE], number, tag[:4], _BYTES[mark], times, tag[4:]])

    def replacement_tag(self, topic: str, partition: int, key: bytes, content: bytes) -> bytes:
        """Return the tag of what replaces an erased value: of its key, offset and leaf hash."""
        digest = self._hash(b"replacement", topic, partition).copy()
        digest.update(struct.pack(">H", len(key)) + key + content)
        return digest.digest()


def header_of(key: bytes) -> Header:
    """Return the header with the tag of a record whose key must be its pseudonym alone, from its full key."""
    return _TAG_HEADER, key[_BATCH.stop : _MARK_AT] + key[-_TAG_SIZE:]


batch_of: Callable[[bytes], bytes] = itemgetter(_BATCH)
"""Return what stands for the batch in a tagged key."""

number_of: Callable[[bytes], bytes] = itemgetter(slice(_BATCH.stop, _MARK_AT))
"""Return the record's number of a tagged key, 4 bytes."""

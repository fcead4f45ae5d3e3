"""Tags of records on Kafka: one MAC a record, in its key. Pure.

An attacker who can write to Kafka's topics, or to its files, could invent, change, move or repeat records. So each
has a keyed BLAKE2b (RFC 7693) of 16 bytes, with a key that Kafka does not hold, over topic, partition, time and

    pseudonym    16 bytes
    batch         8   of the hash of lane and sequence
    number        4   of the record among those of its batch in this partition, big-endian
    mark          1
    valid times  16   where they are stated
    leaf hash    32   of the value (`schemas.record.value_leaf`), or that there is none

The check of the batch's root has computed the leaf hashes. Tags of before were over the value itself; a record whose
tag does not fit is compared with that one too.

Where a topic keeps all history the pseudonym up to the valid times are the record's key, followed by the tag: 45
bytes, or 61. Parsing headers would cost a reader more than the MAC does. Where brokers keep the latest record of each
key the key must be the pseudonym alone, and the header `pool_tag` has number and tag.

Each record has a tag of its own, so the erasure of one does not concern others. What replaces an erased value has a
tag over topic, partition, the key, the record's offset and its leaf hash (`replacement_tag`).

To verify every tag would cost a reader a microsecond a record. So where a topic keeps all history, records of a batch
in a partition also have one tag for every 64, over their time, keys and values, in the header `pool_chunk` of the
first. A reader that has all of them, unchanged, verifies that tag alone; otherwise it verifies each record's own.
"""

import hashlib
import hmac
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from exchange.broker.kafka.message import Header, Message
from exchange.broker.kafka.receipts import mark_of, valid_of
from exchange.broker.port import Append
from exchange.broker.rules import KEY_SIZE
from schemas.errors import CorruptError
from schemas.record import MAX_BATCH_RECORDS, value_leaf

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
_CHUNK_HEADER = "pool_chunk"
_CHUNK = 64  # records; a read that ends within a chunk verifies that part of it record by record
_LAST_BYTE_OF_NUMBER = KEY_SIZE + 11
_TAG_SIZE = 16
_MIN_KEY = 32
_VALID_SIZE = 16
_NO_TIMES = bytes(_VALID_SIZE)
_BATCH = slice(KEY_SIZE, KEY_SIZE + 8)
_MARK_AT = KEY_SIZE + 12
_TIMES = slice(_MARK_AT + 1, -_TAG_SIZE)
_PLAIN = _MARK_AT + 1 + _TAG_SIZE  # size of a key
_TIMED = _PLAIN + _VALID_SIZE
_SIZES = {_PLAIN, _TIMED}
_VALUE, _VOID, _CHUNK_KIND = b"leaf", b"void", b"chunk"  # what a tag is of
_WHOLE_VALUE = b"record"  # tags of before, over the value instead of its leaf hash
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
        return key[_MARK_AT], key[_TIMES]
    return mark_of(headers), valid_of(headers)


@dataclass(frozen=True, slots=True)
class Columns:
    """Messages of one partition, in order, and what they are made of."""

    messages: Sequence[Message]
    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    milliseconds: Sequence[int]
    offsets: Sequence[int]

    def of(self, indexes: Sequence[int]) -> "Columns":
        """Return the messages of these indexes."""
        return Columns(
            [self.messages[at] for at in indexes],
            [self.keys[at] for at in indexes],
            [self.values[at] for at in indexes],
            [self.milliseconds[at] for at in indexes],
            [self.offsets[at] for at in indexes],
        )


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

    def keys(self, batch: Append, millisecond: int) -> tuple[list[bytes], dict[int, Header]]:
        """Return the keys of a batch's records on Kafka, with their tags, and headers of chunks by index of record."""
        number = batch_number(str(batch.lane).encode(), b"%d" % batch.sequence)
        made, chunks = [b""] * len(batch.keys), {}
        for partition, indexes in _by_partition(batch.partitions).items():
            self._make_keys(batch, millisecond, partition, indexes, number, made)
            for start in range(0, len(indexes), _CHUNK):
                part = indexes[start : start + _CHUNK]
                keys, values = [made[index] for index in part], [batch.values[index] for index in part]
                tag = self._chunk_tag(str(batch.lane.topic), partition, millisecond, keys, values)
                if tag is not None:
                    chunks[part[0]] = _CHUNK_HEADER, _BYTES[len(part)] + tag
        return made, chunks

    def _make_keys(
        self,
        batch: Append,
        millisecond: int,
        partition: int,
        indexes: Sequence[int],
        number: bytes,
        into: list[bytes],
    ) -> None:
        """Put the keys of one partition's records in their places."""
        topic = str(batch.lane.topic)
        plain, timed = (self._begun(_VALUE, topic, partition, millisecond, size) for size in (_PLAIN, _TIMED))
        keys, marks, values, valid = batch.keys, batch.marks, batch.values, batch.valid
        leaves = batch.leaves or _leaves_of(batch)
        for count, index in zip(NUMBERS, indexes, strict=False):
            head, begun, value = keys[index] + number + count + _BYTES[marks[index]], plain, values[index]
            if valid and (times := valid[_VALID_SIZE * index : _VALID_SIZE * (index + 1)]) != _NO_TIMES:
                head, begun = head + times, timed
            if value is None:
                digest = self._begun(_VOID, topic, partition, millisecond, len(head) + _TAG_SIZE)
                digest.update(head)
            else:
                digest = begun.copy()
                digest.update(head + leaves[index])
            into[index] = head + digest.digest()

    def _begun(self, kind: bytes, topic: str, partition: int, millisecond: int, size: int) -> "hashlib.blake2b":
        """Return the hash of what a record's key of *size* bytes and value follow."""
        digest = self._hash(kind, topic, partition).copy()
        digest.update(_STAMP.pack(millisecond, size))
        return digest

    def _chunk_tag(
        self, topic: str, partition: int, millisecond: int, keys: Sequence[bytes], values: Sequence[bytes | None]
    ) -> bytes | None:
        """Return the tag of one chunk; None where a record has no value."""
        whole = [value for value in values if value is not None]
        if len(whole) < len(values):
            return None
        sizes = struct.pack(f">qB{len(whole)}I", millisecond, len(whole), *map(len, whole)) + bytes(map(len, keys))
        digest = self._hash(_CHUNK_KIND, topic, partition).copy()
        digest.update(b"".join((sizes, *keys, *whole)))
        return digest.digest()

    def verified_chunks(self, topic: str, partition: int, columns: Columns) -> list[range]:
        """Return the indexes of records that the tags of their chunks have verified, ascending. All keys have tags.

        Of the others nothing is known: a chunk may have been cut by the read or by an erasure, or be of before.
        """
        found, at = [], 0
        while at < len(columns.keys):
            size = 0
            if not columns.keys[at][_LAST_BYTE_OF_NUMBER] % _CHUNK:
                size = self._verified_chunk(topic, partition, columns, at)
            if size:
                found.append(range(at, at + size))
            at += size or 1
        return found

    def _verified_chunk(self, topic: str, partition: int, columns: Columns, at: int) -> int:
        """Return how many records from an index on are a whole chunk, unchanged; else 0."""
        stated = dict(columns.messages[at].headers() or ()).get(_CHUNK_HEADER) or b"\0"
        until = at + stated[0]
        moment = columns.milliseconds[at]
        if until > len(columns.keys) or set(columns.milliseconds[at:until]) != {moment}:
            return 0
        tag = self._chunk_tag(topic, partition, moment, columns.keys[at:until], columns.values[at:until])
        return stated[0] if tag is not None and hmac.compare_digest(tag, stated[1:]) else 0

    def first_unverified(self, topic: str, partition: int, columns: Columns) -> int | None:
        """Return the index of the first record whose tag does not fit; None where all do. All keys have tags."""
        begun = {
            (kind, one, size): self._begun(kind, topic, partition, one, size)
            for one in set(columns.milliseconds)
            for size in _SIZES
            for kind in (_VALUE, _VOID)
        }
        made = []
        for key, value, at in zip(columns.keys, columns.values, columns.milliseconds, strict=True):
            digest = begun[_VOID if value is None else _VALUE, at, len(key)].copy()
            leaf = b"" if value is None else value_leaf(key[_MARK_AT], key[_TIMES] or _NO_TIMES, value)
            digest.update(key[:-_TAG_SIZE] + leaf)
            made.append(digest.digest())
        found = [key[-_TAG_SIZE:] for key in columns.keys]
        if hmac.compare_digest(b"".join(found), b"".join(made)):
            return None
        different = (at for at, (one, other) in enumerate(zip(found, made, strict=True)) if one != other)
        return next((at for at in different if not self._has_former_tag(topic, partition, columns, at)), None)

    def _has_former_tag(self, topic: str, partition: int, columns: Columns, at: int) -> bool:
        """Return whether the tag of a record is over its whole value, as tags of before are."""
        key, value = columns.keys[at], columns.values[at]
        if value is None:
            return False
        digest = self._begun(_WHOLE_VALUE, topic, partition, columns.milliseconds[at], len(key))
        digest.update(key[:-_TAG_SIZE] + value)
        return hmac.compare_digest(digest.digest(), key[-_TAG_SIZE:])

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


def _leaves_of(batch: Append) -> list[bytes]:
    """Return the leaf hashes of a batch's values; what stands for a void is not used."""
    times = batch.valid or bytes(_VALID_SIZE * len(batch.values))
    return [
        value_leaf(mark, times[_VALID_SIZE * index : _VALID_SIZE * (index + 1)], value or b"")
        for index, (mark, value) in enumerate(zip(batch.marks, batch.values, strict=True))
    ]


def _by_partition(partitions: Sequence[int]) -> dict[int, list[int]]:
    """Return the indexes of records by partition."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(partitions):
        found[number].append(index)
    return found


def header_of(key: bytes) -> Header:
    """Return the header with the tag of a record whose key must be its pseudonym alone, from its full key."""
    return _TAG_HEADER, key[_BATCH.stop : _MARK_AT] + key[-_TAG_SIZE:]


batch_of: Callable[[bytes], bytes] = itemgetter(_BATCH)
"""Return what stands for the batch in a tagged key."""

number_of: Callable[[bytes], bytes] = itemgetter(slice(_BATCH.stop, _MARK_AT))
"""Return the record's number of a tagged key, 4 bytes."""

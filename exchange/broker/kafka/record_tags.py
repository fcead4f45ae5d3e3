"""Tags of records on Kafka: one MAC a record, in its key. Pure.

An attacker who can write to Kafka's topics, or to its files, could invent, change, move or repeat records. So each
has a tag of 16 bytes, with a key that Kafka does not hold, over topic, partition, time and

    pseudonym    16 bytes
    batch         8   of the hash of lane and sequence
    number        4   of the record among those of its batch in this partition, big-endian
    mark          1
    valid times  16   where they are stated
    leaf hash    32   of the value (`schemas.record.value_leaf`), or that there is none

The tag is CBC-MAC with AES-256 (ISO/IEC 9797-1, algorithm 1), a pseudorandom function for messages of one length
(Bellare, Kilian, Rogaway, 2000); all messages have 96 bytes, and each topic has a key of its own, which is derived. So
the tags of a batch are made in six calls. The check of the batch's root has computed the leaf hashes. Tags of before
were a keyed BLAKE2b (RFC 7693) over the value itself; a record whose tag does not fit is compared with that one too.

Where a topic keeps all history the pseudonym up to the valid times are the record's key, followed by the tag: 45
bytes, or 61. Parsing headers would cost a reader more than the MAC does. Where brokers keep the latest record of each
key the key must be the pseudonym alone, and the header `pool_tag` has number and tag.

Each record has a tag of its own, so the erasure of one does not concern others. What replaces an erased value has a
tag over topic, partition, the key, the record's offset and its leaf hash (`replacement_tag`).

To verify every tag costs a reader the leaf hash of each value. So where a topic keeps all history, records of a batch
in a partition also have one tag for every 64, over their time, keys and values, in the header `pool_chunk` of the
first: how many they are, a random nonce of 12 bytes, and GMAC by AES-256 (NIST SP 800-38D), with a key for each
partition. A reader that has all of them, unchanged, verifies that tag alone; otherwise it verifies each record's own.
"""

import hashlib
import hmac
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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
_NONCE_SIZE = 12
_MIN_KEY = 32
_VALID_SIZE = 16
_NO_TIMES = bytes(_VALID_SIZE)
_BATCH = slice(KEY_SIZE, KEY_SIZE + 8)
_MARK_AT = KEY_SIZE + 12
_TIMES = slice(_MARK_AT + 1, -_TAG_SIZE)
_PLAIN = _MARK_AT + 1 + _TAG_SIZE  # size of a key
_TIMED = _PLAIN + _VALID_SIZE
_SIZES = {_PLAIN, _TIMED}
_VALUE, _VOID = b"record", b"void"  # what a tag of before is of
_BYTES = [bytes([number]) for number in range(256)]
_STAMP = struct.Struct(">qB")  # milliseconds, size of the key
_BLOCK = 16
_MESSAGE = np.dtype([
    ("pseudonym", "V16"), ("batch", "V8"), ("number", ">u4"), ("mark", "u1"), ("key_size", "u1"), ("is_void", "u2"),
    ("times", "V16"), ("millisecond", ">i8"), ("partition", ">u4"), ("zeros", "V4"), ("leaf", "V32"),
])  # fmt: skip
_HEAD = np.dtype([("pseudonym", "V16"), ("batch", "V8"), ("number", ">u4"), ("mark", "u1"), ("times", "V16")])
_KEY = np.dtype([("pseudonym", "V16"), ("batch", "V8"), ("number", ">u4"), ("mark", "u1"), ("tag", "V16")])
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
        self._cipher = lru_cache(maxsize=1024)(self._make_cipher)
        self._gmac = lru_cache(maxsize=4096)(self._make_gmac)

    def _make_hash(self, kind: bytes, topic: str, partition: int) -> "hashlib.blake2b":
        place = f"{topic}\n{partition}\n".encode()
        return hashlib.blake2b(place, key=self._key, digest_size=_TAG_SIZE, person=kind)

    def keys(self, batch: Append, millisecond: int) -> tuple[list[bytes], dict[int, Header]]:
        """Return the keys of a batch's records on Kafka, with their tags, and headers of chunks by index of record."""
        topic = str(batch.lane.topic)
        by_partition = _by_partition(batch.partitions)
        made, chunks = self._made_keys(batch, topic, millisecond, by_partition), {}
        for partition, indexes in by_partition.items():
            for start in range(0, len(indexes), _CHUNK):
                part = indexes[start : start + _CHUNK]
                keys, values = [made[index] for index in part], [batch.values[index] for index in part]
                tag = self._chunk_tag(topic, partition, millisecond, keys, values)
                if tag is not None:
                    chunks[part[0]] = _CHUNK_HEADER, _BYTES[len(part)] + tag
        return made, chunks

    def _made_keys(
        self, batch: Append, topic: str, millisecond: int, by_partition: dict[int, list[int]]
    ) -> list[bytes]:
        messages = np.zeros(len(batch.keys), _MESSAGE)
        messages["pseudonym"] = np.frombuffer(b"".join(batch.keys), "V16")
        messages["batch"] = np.void(batch_number(str(batch.lane).encode(), b"%d" % batch.sequence))
        for indexes in by_partition.values():
            messages["number"][indexes] = np.arange(len(indexes))
        messages["mark"] = np.frombuffer(batch.marks, np.uint8)
        messages["key_size"] = _PLAIN
        messages["millisecond"] = millisecond
        messages["partition"] = batch.partitions
        messages["leaf"] = np.frombuffer(b"".join(batch.leaves or _leaves_of(batch)), "V32")
        voids = [index for index, value in enumerate(batch.values) if value is None] if None in batch.values else []
        messages["is_void"][voids] = 1
        messages["leaf"][voids] = np.void(bytes(32))
        timed: list[int] = []
        if batch.valid:
            messages["times"] = np.frombuffer(batch.valid, "V16")
            timed = np.flatnonzero(messages["times"] != np.void(_NO_TIMES)).tolist()
            messages["key_size"][timed] = _TIMED
        keys = np.empty(len(messages), _KEY)
        for name in ("pseudonym", "batch", "number", "mark"):
            keys[name] = messages[name]
        keys["tag"] = self._tags_of(topic, messages)
        packed = keys.tobytes()
        made = [packed[at : at + _PLAIN] for at in range(0, len(packed), _PLAIN)]
        for index in timed:
            times = batch.valid[_VALID_SIZE * index : _VALID_SIZE * (index + 1)]
            made[index] = made[index][:-_TAG_SIZE] + times + made[index][-_TAG_SIZE:]
        return made

    def _tags_of(self, topic: str, messages: Any) -> Any:
        """Return the tag of each message (`_MESSAGE`)."""
        words = messages.view(np.uint64).reshape(len(messages), -1, 2)
        encrypt = self._cipher(topic).encryptor().update  # of one block: CBC-MAC chains them itself
        state = np.zeros((len(messages), 2), np.uint64)
        for block in range(words.shape[1]):
            state = np.frombuffer(encrypt((state ^ words[:, block]).tobytes()), np.uint64).reshape(-1, 2)
        return state.reshape(-1).view("V16")

    def _make_cipher(self, topic: str) -> "Cipher[modes.ECB]":
        key = hashlib.blake2b(topic.encode(), key=self._key, digest_size=32, person=b"tags").digest()
        return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 - the block cipher of a MAC

    def _make_gmac(self, topic: str, partition: int) -> AESGCM:
        place = f"{topic}\n{partition}".encode()
        return AESGCM(hashlib.blake2b(place, key=self._key, digest_size=32, person=b"chunks").digest())

    def _begun(self, kind: bytes, topic: str, partition: int, millisecond: int, size: int) -> "hashlib.blake2b":
        """Return the hash of what a record's key of *size* bytes and value follow, in a tag of before."""
        digest = self._hash(kind, topic, partition).copy()
        digest.update(_STAMP.pack(millisecond, size))
        return digest

    def _chunk_tag(
        self, topic: str, partition: int, millisecond: int, keys: Sequence[bytes], values: Sequence[bytes | None]
    ) -> bytes | None:
        """Return a nonce and the tag of one chunk; None where a record has no value."""
        data = _chunk_data(millisecond, keys, values)
        if data is None:
            return None
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._gmac(topic, partition).encrypt(nonce, b"", data)

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
        stated = dict(columns.messages[at].headers() or ()).get(_CHUNK_HEADER)
        if not stated or len(stated) != 1 + _NONCE_SIZE + _TAG_SIZE:
            return 0
        until = at + stated[0]
        moment = columns.milliseconds[at]
        if until > len(columns.keys) or set(columns.milliseconds[at:until]) != {moment}:
            return 0
        data = _chunk_data(moment, columns.keys[at:until], columns.values[at:until])
        if data is None:
            return 0
        nonce, tag = stated[1 : 1 + _NONCE_SIZE], stated[1 + _NONCE_SIZE :]
        try:
            self._gmac(topic, partition).decrypt(nonce, tag, data)
        except InvalidTag:
            return 0
        return stated[0]

    def first_unverified(self, topic: str, partition: int, columns: Columns) -> int | None:
        """Return the index of the first record whose tag does not fit; None where all do. All keys have tags."""
        if not columns.keys:
            return None
        heads = [key[: _MARK_AT + 1] + (key[_TIMES] or _NO_TIMES) for key in columns.keys]
        leaves = [
            bytes(32) if value is None else value_leaf(head[_MARK_AT], head[-_VALID_SIZE:], value)
            for head, value in zip(heads, columns.values, strict=True)
        ]
        read = np.frombuffer(b"".join(heads), _HEAD)
        messages = np.zeros(len(heads), _MESSAGE)
        for name in ("pseudonym", "batch", "number", "mark", "times"):
            messages[name] = read[name]
        messages["key_size"] = [len(key) for key in columns.keys]
        messages["is_void"] = [value is None for value in columns.values]
        messages["millisecond"] = columns.milliseconds
        messages["partition"] = partition
        messages["leaf"] = np.frombuffer(b"".join(leaves), "V32")
        made = self._tags_of(topic, messages).tobytes()
        found = [key[-_TAG_SIZE:] for key in columns.keys]
        if hmac.compare_digest(b"".join(found), made):
            return None
        different = (at for at, tag in enumerate(found) if tag != made[_TAG_SIZE * at : _TAG_SIZE * (at + 1)])
        return next((at for at in different if not self._has_former_tag(topic, partition, columns, at)), None)

    def _has_former_tag(self, topic: str, partition: int, columns: Columns, at: int) -> bool:
        """Return whether the tag of a record is one of before: over its whole value."""
        key, value = columns.keys[at], columns.values[at]
        kind = _VOID if value is None else _VALUE
        digest = self._begun(kind, topic, partition, columns.milliseconds[at], len(key))
        digest.update(key[:-_TAG_SIZE] + (value or b""))
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


def _chunk_data(millisecond: int, keys: Sequence[bytes], values: Sequence[bytes | None]) -> bytes | None:
    """Return what the tag of a chunk is over; None where a record has no value."""
    whole = [value for value in values if value is not None]
    if len(whole) < len(values):
        return None
    sizes = struct.pack(f">qB{len(whole)}I", millisecond, len(whole), *map(len, whole)) + bytes(map(len, keys))
    return b"".join((sizes, *keys, *whole))


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

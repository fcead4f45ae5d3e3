"""Records in transit: batches, positions, receipts, and the bytes that are signed.

    Packed       n byte strings in two buffers (an Arrow BinaryArray's): what a protobuf message carries
    Mark         operation of a record, and whether its key was published before
    Batch        n records of one lane, in order, under one signature
    Positions    reader offsets in a topic: the next offset of each partition
    OffsetRange  consecutive offsets of one partition
    Receipt      what the pool answers to a batch: the offsets of its records, and the audit leaf that states them

A record's leaf (RFC 6962, 2.1: the 0x00 prefix) is SHA-256 over its operation, its valid times, the digest of
its key where it has no value, and its framed Avro bytes. The connector signs the Merkle root over the leaves of
a batch, together with the lane, the sequence number and the previous root: a chain in which nothing can be
changed, left out or reordered.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from schemas.canonical import digest
from schemas.errors import InvalidError, Reason
from schemas.names import Lane

__all__ = [
    "FRAME_SIZE",
    "MAX_BATCH_BYTES",
    "MAX_BATCH_RECORDS",
    "NO_ROOT",
    "Batch",
    "KeyOccurrence",
    "Mark",
    "OffsetRange",
    "Operation",
    "Packed",
    "Positions",
    "Receipt",
    "batch_statement",
    "frame",
    "key_bytes",
    "leaf_hashes",
    "receipt_statement",
    "unframe",
    "value_leaf",
]

MAX_BATCH_RECORDS = 10_000
MAX_BATCH_BYTES = 8 * 1024 * 1024  # on the wire
FRAME_SIZE = 5  # magic byte 0 and the schema id, big-endian: Confluent's wire format
NO_ROOT = bytes(32)  # the "previous root" of a lane's first batch

Positions = tuple[int, ...]
"""Next offset of each partition of a topic, partition 0 first."""


class Operation(IntEnum):
    """Operation of a record on its key."""

    UPSERT = 1
    CORRECT = 2
    VOID = 3  # no value: the key is no longer valid at its source


class KeyOccurrence(IntEnum):
    """Whether the connector published this key before; unknown counts as AGAIN."""

    UNKNOWN = 0
    FIRST = 1
    AGAIN = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Operation and key occurrence of one record; one byte on the wire, the operation in its low half."""

    operation: Operation
    seen: KeyOccurrence = KeyOccurrence.UNKNOWN

    def __int__(self) -> int:
        return self.operation | self.seen << 4

    @classmethod
    def of(cls, byte: int) -> Self:
        """Read the byte form.

        Raises:
            InvalidError: REQUEST_INVALID, for a byte that names no operation or no occurrence.
        """
        try:
            return cls(Operation(byte & 15), KeyOccurrence(byte >> 4))
        except ValueError as error:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the mark 0x{byte:02x}; expected operation 1 to 3 and seen 0 to 2",
            ) from error


@dataclass(frozen=True, slots=True)
class Packed:
    """n byte strings in two buffers; an empty string stands for "no value".

    Attributes:
        offsets: n + 1 little-endian int32, the first 0, none falling.
        values: the strings, end to end.
    """

    offsets: bytes
    values: bytes

    @classmethod
    def of(cls, items: Iterable[bytes | None]) -> Self:
        """Pack byte strings; None becomes the empty string."""
        whole = [item or b"" for item in items]
        ends = list(itertools.accumulate(map(len, whole), initial=0))
        return cls(struct.pack(f"<{len(ends)}i", *ends), b"".join(whole))

    def __len__(self) -> int:
        return max(len(self.offsets) // 4 - 1, 0)

    def __iter__(self) -> Iterator[bytes]:
        ends = struct.unpack(f"<{len(self.offsets) // 4}i", self.offsets)
        values = self.values
        return iter([values[start:end] for start, end in itertools.pairwise(ends)])

    def checked(self) -> Self:
        """Return this value if its two buffers match each other.

        Raises:
            InvalidError: REQUEST_INVALID, when offsets fall, do not start at 0 or do not end at len(values).
        """
        if not self.offsets and not self.values:
            return self
        fits = len(self.offsets) % 4 == 0 and len(self.offsets) >= 4
        if fits:
            ends = struct.unpack(f"<{len(self.offsets) // 4}i", self.offsets)
            fits = ends[0] == 0 and ends[-1] == len(self.values) and ends == tuple(sorted(ends))
        if not fits:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                "got packed values whose offsets do not fit; expected n + 1 little-endian int32 from 0 to the "
                "values' length, none falling",
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """n records of one lane, in order, under one signature.

    Attributes:
        lane: who publishes what.
        sequence: 1, 2, 3 … without a gap, per lane.
        marks: n bytes, one `Mark` a record.
        values: n framed Avro values; empty for a void.
        void_keys: the key bytes (see `key_bytes`) of the voids, in order; none for records with a value, since
            the value holds its key.
        valid: 16 bytes a record (valid_from and valid_to, little-endian int64 microseconds UTC, 0 = not stated),
            or empty when no record states any.
        previous_root: root of batch `sequence - 1`, 32 bytes; `NO_ROOT` for the first.
        root: RFC 6962 Merkle root over the leaves of this batch, 32 bytes.
        signature: Ed25519 over `batch_statement`, 64 bytes.
        source_position: the connector's own, opaque; at most 128 bytes.
    """

    lane: Lane
    sequence: int
    marks: bytes
    values: Packed
    void_keys: Packed
    valid: bytes
    previous_root: bytes
    root: bytes
    signature: bytes
    source_position: bytes

    def __len__(self) -> int:
        return len(self.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """Consecutive offsets of one batch in one partition: `first` to `last`, both included."""

    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The pool's answer to a batch: the offsets of its records, and a promise.

    The signature is the gateway's Ed25519 over the canonical JSON of the other fields; it promises that the
    leaf is in the log within 10 s.

    Attributes:
        lane: whose batch.
        sequence: its number.
        root: its signed root, 32 bytes.
        runs: the offsets of the records in the topic.
        entry_id: the audit entry of the publication, a UUIDv7.
        leaf_hash: RFC 6962 leaf hash of that entry, 32 bytes.
        source_position: the connector's own, as sent.
        signature: 64 bytes; empty while unsigned.
    """

    lane: Lane
    sequence: int
    root: bytes
    runs: tuple[OffsetRange, ...]
    entry_id: str
    leaf_hash: bytes
    source_position: bytes
    signature: bytes = b""


def frame(schema_id: int, datum: bytes) -> bytes:
    """Return an Avro datum behind Confluent's frame (0, schema id as big-endian int32)."""
    return struct.pack(">bI", 0, schema_id) + datum


def unframe(value: bytes) -> tuple[int, bytes]:
    """Split a framed value into schema id and Avro datum.

    Raises:
        InvalidError: RECORD_INVALID, when the frame is missing.
    """
    if len(value) < FRAME_SIZE or value[0] != 0:
        raise InvalidError(
            Reason.RECORD_INVALID,
            "got a value without Confluent's frame; expected a 0 byte and a 4-byte schema id",
        )
    return int.from_bytes(value[1:FRAME_SIZE], "big"), value[FRAME_SIZE:]


def key_bytes(parts: Sequence[str]) -> bytes:
    """Return the byte form of a record's key: its parts as text, UTF-8, joined by U+001F.

    A part is a string as it is, an integer in decimal, a date as its days since 1970-01-01 in decimal.

    Raises:
        InvalidError: RECORD_INVALID, when a part is empty or holds U+001F, which would make two keys one.
    """
    if not parts or any(not part or "\x1f" in part for part in parts):
        raise InvalidError(
            Reason.RECORD_INVALID,
            "got a key with an empty part or with U+001F in it; expected text in every part",
        )
    return "\x1f".join(parts).encode()


def leaf_hashes(marks: bytes, values: Iterable[bytes], void_keys: Iterable[bytes], valid: bytes) -> list[bytes]:
    """Return the 32-byte leaf of each record of a batch.

    leaf = SHA-256(0x00 ‖ version 1 ‖ operation ‖ valid times, 16 bytes ‖ key digest, 32 bytes ‖ framed Avro);
    the key digest is SHA-256 of the void's key bytes, and zeros where the value holds the key.

    Raises:
        InvalidError: REQUEST_INVALID, when there are fewer void keys than voids, or more.
    """
    sha256 = hashlib.sha256
    no_times, no_key = bytes(16), bytes(32)
    keys = iter(void_keys)
    leaves = []
    if not valid:
        heads = {byte: bytes((0, 1, byte & 15)) + no_times + no_key for byte in set(marks)}
        for byte, value in zip(marks, values, strict=True):
            if byte & 15 == Operation.VOID:
                key = next(keys, None)
                if key is None:
                    raise _void_keys_mismatch()
                leaves.append(sha256(bytes((0, 1, byte & 15)) + no_times + sha256(key).digest()).digest())
            else:
                leaves.append(sha256(heads[byte] + value).digest())
    else:
        for index, (byte, value) in enumerate(zip(marks, values, strict=True)):
            key_digest = no_key
            if byte & 15 == Operation.VOID:
                key = next(keys, None)
                if key is None:
                    raise _void_keys_mismatch()
                key_digest = sha256(key).digest()
            times = valid[16 * index : 16 * index + 16]
            leaves.append(sha256(bytes((0, 1, byte & 15)) + times + key_digest + value).digest())
    if next(keys, None) is not None:
        raise _void_keys_mismatch()
    return leaves


def value_leaf(mark: int, times: bytes, value: bytes) -> bytes:
    """Return the leaf of one record that has a value; see `leaf_hashes`.

    Args:
        mark: of the record.
        times: its valid times, 16 bytes, zeros where none are stated.
        value: framed Avro.
    """
    return hashlib.sha256(bytes((0, 1, mark & 15)) + times + bytes(32) + value).digest()


def _void_keys_mismatch() -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, "got another number of void keys than of voids; expected one each")


def batch_statement(pool_id: str, lane: Lane, sequence: int, count: int, root: bytes, previous_root: bytes) -> bytes:
    """Return the bytes that a connector signs for a batch; the first line names the form and its version."""
    return (f"pool.batch.v1\n{pool_id}\n{lane}\n{sequence}\n{count}\n{root.hex()}\n{previous_root.hex()}\n").encode()


def receipt_statement(receipt: Receipt) -> bytes:
    """Return the bytes that the gateway signs for a receipt: a name of the form, and a digest of the fields."""
    return b"pool.receipt.v1\n" + digest(
        {
            "lane": str(receipt.lane),
            "sequence": receipt.sequence,
            "root": receipt.root.hex(),
            "runs": [[run.partition, run.first, run.last] for run in receipt.runs],
            "entry": receipt.entry_id,
            "leaf": receipt.leaf_hash.hex(),
            "source_position": receipt.source_position.hex(),
        }
    )

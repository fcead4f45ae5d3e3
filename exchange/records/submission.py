"""Submission: a batch as a connector sends it, and the checks that need no schema (form, Merkle root, keys)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry.codec.codec import RowError
from schemas.errors import InvalidError, Reason
from schemas.merkle import root_of
from schemas.names import Topic
from schemas.record import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, KeyOccurrence, Operation, Packed, leaf_hashes

__all__ = ["CheckedRecords", "Records", "RowsRefusedError", "Submission", "check_form", "check_root", "merge_keys"]

_MAX_SOURCE_POSITION = 128  # bytes
_MAX_SEQUENCE = 2**53  # what a JSON number holds exactly; at a batch a millisecond, 285,000 years
_MARKS = frozenset(operation | seen << 4 for operation in Operation for seen in KeyOccurrence)


class RowsRefusedError(InvalidError):
    """The batch is refused whole because of these rows; a row's value is never part of the error."""

    def __init__(self, rows: Sequence[RowError]) -> None:
        super().__init__(
            Reason.RECORD_INVALID,
            f"got {len(rows)} or more records that do not keep the schema; mend or leave out the rows named, and "
            "send the batch again under the same sequence number",
            details={"rows": str(len(rows))},
        )
        self.rows = tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The part of a batch that its root covers; see `schemas.record.Batch` for the fields."""

    marks: bytes
    values: Packed
    void_keys: Packed
    valid: bytes
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRecords:
    """What a check of a batch's records found.

    Attributes:
        keys: key bytes of the records that have a value, in order.
        schema_ids: of the schemas among them, ascending.
        leaves: leaf hash of each record, in order (`schemas.record.leaf_hashes`).
    """

    keys: Sequence[bytes]
    schema_ids: tuple[int, ...]
    leaves: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission(Records):
    """A batch as received; see `schemas.record.Batch` for the fields."""

    topic: Topic
    sequence: int
    previous_root: bytes
    signature: bytes
    source_position: bytes


def check_form(submission: Submission) -> None:
    """Check that the parts of a batch fit each other: step (1) of publish, before any expensive work.

    Raises:
        InvalidError: BATCH_EMPTY, BATCH_TOO_LARGE, REQUEST_INVALID or RECORD_INVALID.
    """
    count = len(submission.marks)
    size = len(submission.values.values) + len(submission.void_keys.values)
    if count == 0:
        raise InvalidError(Reason.BATCH_EMPTY, "got a batch without records; expected one at least")
    if count > MAX_BATCH_RECORDS or size > MAX_BATCH_BYTES:
        raise InvalidError(
            Reason.BATCH_TOO_LARGE,
            f"got {count} records in {size} bytes; expected {MAX_BATCH_RECORDS} records and {MAX_BATCH_BYTES} bytes "
            "at most: send smaller batches",
        )
    # Before the offsets are unpacked: a buffer of megabytes for one record would cost seconds.
    offsets_size = 4 * (count + 1)
    if (
        len(submission.values.offsets) != offsets_size
        or len(submission.void_keys.offsets) > offsets_size
        or len(submission.valid) > 16 * count
    ):
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got offsets or valid times for another number of records than the {count} marks; expected {offsets_size} "
            "bytes of offsets, as many for void keys at most, and 16 bytes of valid times a record",
        )
    submission.values.checked()
    submission.void_keys.checked()
    is_void = (np.frombuffer(submission.marks, np.uint8) & 15) == Operation.VOID
    void_count = int(np.count_nonzero(is_void))
    fits = (
        len(submission.values) == count
        and len(submission.void_keys) == void_count
        and len(submission.valid) in {0, 16 * count}
        and len(submission.root) == len(submission.previous_root) == 32
        and len(submission.source_position) <= _MAX_SOURCE_POSITION
        and 0 < submission.sequence < _MAX_SEQUENCE
        and set(submission.marks) <= _MARKS
    )
    if not fits:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a batch of {count} marks whose parts do not fit; expected as many values, a key for each void, "
            "valid times for all or none, roots of 32 bytes, a source position of 128 bytes at most and known marks",
        )
    is_empty = np.diff(np.frombuffer(submission.values.offsets, "<i4")) == 0
    if not np.array_equal(is_empty, is_void):
        raise InvalidError(
            Reason.RECORD_INVALID, "got a void with a value, or another record without one; expected the opposite"
        )


def check_root(records: Records, values: Sequence[bytes]) -> list[bytes]:
    """Check that a batch's root is that of its records: the first half of step (5) of publish; return their leaves.

    Args:
        records: whose form was checked.
        values: their values, one by one.

    Raises:
        InvalidError: SIGNATURE_INVALID; REQUEST_INVALID, another number of void keys than of voids.
    """
    leaves = leaf_hashes(records.marks, values, records.void_keys, records.valid)
    if root_of(leaves) != records.root:
        raise InvalidError(
            Reason.SIGNATURE_INVALID,
            "got a root that is not the Merkle root of the batch's records; build it from the bytes that are sent",
        )
    return leaves


def merge_keys(marks: bytes, value_keys: Sequence[bytes], void_keys: Packed) -> Sequence[bytes]:
    """Return one key a record, in order: a void has a key of its own, any other record's key is in its value."""
    if not len(void_keys):
        return value_keys
    valued, void = iter(value_keys), iter(void_keys)
    return [next(void) if byte & 15 == Operation.VOID else next(valued) for byte in marks]

"""Broker rules for deduplication and validation: which batches are new, duplicates or invalid. Pure.

No backend and no clock. `memory` and `postgres` apply them under their own lock of the lane; that lock is what keeps
the result true until the append is done.
"""

from collections.abc import Sequence
from dataclasses import replace

from exchange.broker.port import Append, Appended
from schemas.errors import ConflictError, GoneError, InvalidError, Reason
from schemas.names import Lane, Topic
from schemas.record import MAX_BATCH_RECORDS, Positions

__all__ = [
    "KEY_SIZE",
    "RECEIPTS_PER_LANE",
    "check_batches",
    "check_positions",
    "lane_fenced",
    "partition_count_mismatch",
    "position_gone",
    "sequence_gap",
    "split_duplicates",
    "topic_not_found",
]

KEY_SIZE = 16  # bytes of a key's pseudonym
RECEIPTS_PER_LANE = 16  # stored: more than the batches a connector keeps in flight
_MAX_VALUE_BYTES = 64 * 1024 * 1024  # of one batch, decoded from the wire
_DIGEST_SIZE = 32
_MAX_SOURCE_POSITION = 128


def check_batches(batches: Sequence[Append], partitions: int) -> Lane:
    """Check that batches are well-formed, of one lane and consecutive; return the lane.

    Raises:
        InvalidError: BATCH_EMPTY; BATCH_TOO_LARGE; REQUEST_INVALID, when the parts of a batch do not fit each other.
        ConflictError: SEQUENCE_GAP, when the numbers within the group do not follow each other.
    """
    if not batches or not all(batch.keys for batch in batches):
        raise InvalidError(Reason.BATCH_EMPTY, "got no records to append; expected at least one in every batch")
    lane = batches[0].lane
    for index, batch in enumerate(batches):
        if batch.lane != lane:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got batches of {lane} and {batch.lane}; expected one lane in one append"
            )
        if batch.sequence != batches[0].sequence + index:
            raise sequence_gap(lane, batch.sequence, batches[0].sequence + index)
        _check_batch(batch, partitions)
    return lane


def _check_batch(batch: Append, partitions: int) -> None:
    count = len(batch.keys)
    if count > MAX_BATCH_RECORDS:
        raise InvalidError(
            Reason.BATCH_TOO_LARGE, f"got {count} records; expected {MAX_BATCH_RECORDS} at most, send smaller batches"
        )
    size = sum(map(len, filter(None, batch.values)))
    if size > _MAX_VALUE_BYTES:
        raise InvalidError(
            Reason.BATCH_TOO_LARGE, f"got {size} bytes; expected {_MAX_VALUE_BYTES} at most, send smaller batches"
        )
    fits = (
        len(batch.marks) == len(batch.partitions) == len(batch.values) == count
        and len(batch.valid) in {0, 16 * count}
        and len(batch.digest) == _DIGEST_SIZE
        and len(batch.source_position) <= _MAX_SOURCE_POSITION
        and batch.sequence >= 1
        and set(map(len, batch.keys)) == {KEY_SIZE}
        and min(batch.partitions) >= 0
        and max(batch.partitions) < partitions
    )
    if not fits:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a batch of {count} keys whose parts do not fit; expected as many marks, values and partitions below "
            f"{partitions}, 16-byte keys, a 32-byte digest and a source position of at most 128 bytes",
        )


def split_duplicates(receipts: Sequence[Appended], batches: Sequence[Append]) -> tuple[list[Appended], list[Append]]:
    """Split consecutive batches of a lane into those appended before and those that are new.

    Args:
        receipts: the lane's latest, oldest first, without a gap; none for a lane that never appended. Of those
            before the first batch only the last one matters.
        batches: checked by `check_batches`.

    Returns:
        The receipts of the duplicates, and the new batches; together one for each item of *batches*.

    Raises:
        ConflictError: SEQUENCE_CONFLICT, with the accepted digest in `details`; SEQUENCE_GAP, with the number
            expected, also for a number so old that its receipt is no longer stored.
    """
    last = receipts[-1].sequence if receipts else 0
    by_sequence = {receipt.sequence: receipt for receipt in receipts}
    duplicates: list[Appended] = []
    for batch in batches:
        if batch.sequence > last:
            break
        receipt = by_sequence.get(batch.sequence)
        if receipt is None:
            raise sequence_gap(batch.lane, batch.sequence, last + 1)
        if receipt.digest != batch.digest:
            raise ConflictError(
                Reason.SEQUENCE_CONFLICT,
                f"got batch {batch.sequence} of {batch.lane} with another digest than the one accepted before; "
                f"the lane's last batch is {last}; resume the lane before sending on",
                details={
                    "sequence": str(batch.sequence),
                    "accepted_digest": receipt.digest.hex(),
                    "last": str(last),
                },
            )
        duplicates.append(replace(receipt, duplicate=True))
    new = list(batches[len(duplicates) :])
    if new and new[0].sequence != last + 1:
        raise sequence_gap(new[0].lane, new[0].sequence, last + 1)
    return duplicates, new


def check_positions(topic: Topic, after: Positions, earliest: Positions, latest: Positions) -> None:
    """Check that a reader's positions lie within a topic's ends.

    Raises:
        InvalidError: POSITION_INVALID.
        GoneError: POSITION_GONE.
    """
    if len(after) != len(latest) or any(at < 0 or at > end for at, end in zip(after, latest, strict=True)):
        raise InvalidError(
            Reason.POSITION_INVALID,
            f"got positions that {topic} does not have; expected {len(latest)} of them, none beyond its end",
        )
    if any(at < first for at, first in zip(after, earliest, strict=True)):
        raise position_gone(topic, earliest)


def position_gone(topic: Topic, earliest: Positions) -> GoneError:
    """Build the error for a position that retention has overtaken."""
    return GoneError(
        Reason.POSITION_GONE,
        f"got a position of {topic} that retention has removed; start again from the earliest",
        details={"earliest": ",".join(map(str, earliest))},
    )


def lane_fenced(lane: Lane) -> ConflictError:
    """Build the error for a lane that another gateway has taken over."""
    return ConflictError(
        Reason.LANE_FENCED,
        f"another gateway has taken {lane} over; end this stream and begin a new one",
        retry_after=1.0,
    )


def topic_not_found(topic: Topic) -> InvalidError:
    """Build the error for a topic that does not exist."""
    return InvalidError(Reason.NOT_FOUND, f"got the topic {topic}, which does not exist; create it first")


def partition_count_mismatch(topic: Topic, existing: int, requested: int) -> ConflictError:
    """Build the error for a topic that exists with another number of partitions."""
    return ConflictError(
        Reason.ALREADY_EXISTS,
        f"{topic} exists with {existing} partitions and got {requested}; the number never changes afterwards",
    )


def sequence_gap(lane: Lane, got: int, expected: int) -> ConflictError:
    """Build the error for a batch whose number is not the lane's next one."""
    return ConflictError(
        Reason.SEQUENCE_GAP,
        f"got batch {got} of {lane}; expected {expected}, send that one next",
        details={"expected": str(expected)},
    )

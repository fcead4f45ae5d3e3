"""The broker's pure rules: which batches are new, which were appended before, which are refused.

They know nothing of a backend and no clock. `memory` and `postgres` apply them under their own lock of the lane;
that lock is what makes the answer hold until the append is done.
"""

from collections.abc import Sequence
from dataclasses import replace

from exchange.broker.port import Append, Appended
from schemas.errors import ConflictError, GoneError, InvalidError, Reason
from schemas.names import Lane, Topic
from schemas.record import MAX_BATCH_RECORDS, Positions

__all__ = [
    "KEY_SIZE",
    "MAX_VALUE_BYTES",
    "REMEMBERED",
    "another_shape",
    "check_batches",
    "check_positions",
    "fenced",
    "gap",
    "gone",
    "sort_out",
    "unknown_topic",
]

KEY_SIZE = 16  # bytes of a key's pseudonym
REMEMBERED = 16  # receipts per lane: more than the batches a connector keeps in flight
MAX_VALUE_BYTES = 64 * 1024 * 1024  # of one batch, decoded from the wire
_DIGEST_SIZE = 32
_MAX_SOURCE_POSITION = 128


def check_batches(batches: Sequence[Append], partitions: int) -> Lane:
    """Check that batches are whole, of one lane and consecutive; give the lane.

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
            raise gap(lane, batch.sequence, batches[0].sequence + index)
        _check_batch(batch, partitions)
    return lane


def _check_batch(batch: Append, partitions: int) -> None:
    count = len(batch.keys)
    if count > MAX_BATCH_RECORDS:
        raise InvalidError(
            Reason.BATCH_TOO_LARGE, f"got {count} records; expected {MAX_BATCH_RECORDS} at most, send smaller batches"
        )
    size = sum(map(len, filter(None, batch.values)))
    if size > MAX_VALUE_BYTES:
        raise InvalidError(
            Reason.BATCH_TOO_LARGE, f"got {size} bytes; expected {MAX_VALUE_BYTES} at most, send smaller batches"
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


def sort_out(receipts: Sequence[Appended], batches: Sequence[Append]) -> tuple[list[Appended], list[Append]]:
    """Split consecutive batches of a lane into those appended before and those that are new.

    Args:
        receipts: the lane's latest, oldest first, without a gap; none for a lane that never appended. Of those
            before the first batch only the last one counts.
        batches: checked by `check_batches`.

    Returns:
        The receipts of the known batches, as duplicates, and the new batches; together one an item of *batches*.

    Raises:
        ConflictError: SEQUENCE_CONFLICT, with the accepted digest in `details`; SEQUENCE_GAP, with the number
            expected, also for a number so old that its receipt is no longer remembered.
    """
    last = receipts[-1].sequence if receipts else 0
    known = {receipt.sequence: receipt for receipt in receipts}
    before: list[Appended] = []
    for batch in batches:
        if batch.sequence > last:
            break
        receipt = known.get(batch.sequence)
        if receipt is None:
            raise gap(batch.lane, batch.sequence, last + 1)
        if receipt.digest != batch.digest:
            raise ConflictError(
                Reason.SEQUENCE_CONFLICT,
                f"got batch {batch.sequence} of {batch.lane} with another digest than the one accepted before; "
                f"the lane stands at {last}, ask where it stands before sending on",
                details={
                    "sequence": str(batch.sequence),
                    "accepted_digest": receipt.digest.hex(),
                    "last": str(last),
                },
            )
        before.append(replace(receipt, duplicate=True))
    new = list(batches[len(before) :])
    if new and new[0].sequence != last + 1:
        raise gap(new[0].lane, new[0].sequence, last + 1)
    return before, new


def check_positions(topic: Topic, after: Positions, earliest: Positions, latest: Positions) -> None:
    """Check that a reader's positions stand within a topic's ends.

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
        raise gone(topic, earliest)


def gone(topic: Topic, earliest: Positions) -> GoneError:
    """Say that retention has overtaken a position."""
    return GoneError(
        Reason.POSITION_GONE,
        f"got a position of {topic} that retention has removed; start again from the earliest",
        details={"earliest": ",".join(map(str, earliest))},
    )


def fenced(lane: Lane) -> ConflictError:
    """Say that another gateway has taken the lane over."""
    return ConflictError(
        Reason.LANE_FENCED,
        f"another gateway has taken {lane} over; end this stream and begin a new one",
        retry_after=1.0,
    )


def unknown_topic(topic: Topic) -> InvalidError:
    """Say that there is no such topic."""
    return InvalidError(Reason.NOT_FOUND, f"got the topic {topic}, which does not exist; create it first")


def another_shape(topic: Topic, there: int, asked: int) -> ConflictError:
    """Say that a topic exists with another number of partitions."""
    return ConflictError(
        Reason.ALREADY_EXISTS,
        f"{topic} exists with {there} partitions and got {asked}; the number is fixed for a topic's life",
    )


def gap(lane: Lane, got: int, wanted: int) -> ConflictError:
    """Say that a batch's number is not the lane's next one."""
    return ConflictError(
        Reason.SEQUENCE_GAP,
        f"got batch {got} of {lane}; expected {wanted}, send that one next",
        details={"expected": str(wanted)},
    )

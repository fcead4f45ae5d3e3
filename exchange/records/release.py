"""Release of a fetch: the records that leave the pool, as the output of a view; and the description of a grant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.access import Grant
from schemas.record import Packed

__all__ = ["GrantDescription", "Release", "ViewOutput", "empty_release", "round_times", "round_valid"]

_SHANGHAI = 8 * 3_600_000_000  # microseconds before UTC; without daylight saving time since 1991


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOutput:
    """Output of a view applied to n values.

    Attributes:
        selected: n truth values; a void is never selected.
        values: the selected rows' values, framed with the view's schema, in order.
    """

    selected: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    values: Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release, or a scan that released nothing. See `exchange.client.messages.FetchResult` for the fields.

    Attributes:
        deadline: `time.monotonic()` until which the bytes may leave.
        texts: the values as JSON, that of a withdrawal empty; None where the fetch did not ask for them.
        disputed: indexes of the records of which a shown value is disputed, rising.
        valid: valid times, 16 bytes a record; as places, empty but under a grant that tells them.
        places, marks: see `exchange.records.reading.selection.Selection`; a caller that did not ask gets neither.
    """

    schema_id: int
    values: Packed
    record_keys: bytes
    recorded_at: Sequence[int]
    valid: bytes
    next_position: bytes
    entry_id: str
    leaf_hash: bytes
    caught_up: bool
    deadline: float
    texts: Packed | None = None
    disputed: Sequence[int] = ()
    places: bytes = b""
    marks: bytes = b""

    def __len__(self) -> int:
        return len(self.recorded_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantDescription:
    """What a grant delivers, and its consumer's position."""

    grant: Grant
    schema_id: int
    schema_text: str
    position: bytes
    row_filter: str


def round_times(times: Sequence[int], step: int) -> Sequence[int]:
    """Return times, microseconds UTC, rounded down to a step of the day of Asia/Shanghai; 0 = as they are.

    A rounded time is a function of the time alone, so it is the same at every replay; and rounding down keeps order, so
    it is never later than that of a newer record of the key.
    """
    if not step:
        return times
    exact = np.asarray(times, dtype=np.int64)
    rounded: list[int] = (exact - (exact + _SHANGHAI) % step).tolist()
    return rounded


def round_valid(valid: bytes, step: int) -> bytes:
    """Return valid times, 16 bytes a record, rounded as `round_times` does; empty where none is stated.

    0 is not stated, and stays. Both ends are rounded down: an interval may become empty, never longer than by a step.
    """
    exact = np.frombuffer(valid, "<i8")
    if not exact.any():
        return b""
    if not step:
        return valid
    return np.where(exact == 0, 0, exact - (exact + _SHANGHAI) % step).astype("<i8").tobytes()


def empty_release(schema_id: int, position: bytes, *, caught_up: bool) -> Release:
    """Build the answer to a fetch that released nothing."""
    return Release(
        schema_id=schema_id,
        values=Packed.of([]),
        record_keys=b"",
        recorded_at=(),
        valid=b"",
        next_position=position,
        entry_id="",
        leaf_hash=b"",
        caught_up=caught_up,
        deadline=float("inf"),
    )

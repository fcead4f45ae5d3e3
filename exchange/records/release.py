"""Release of a fetch: the records that leave the pool, as the output of a view; and the description of a grant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.access import Grant
from schemas.record import Packed

__all__ = ["GrantDescription", "Release", "ViewOutput", "empty_release"]


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

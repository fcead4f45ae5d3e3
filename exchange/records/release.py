"""What a fetch releases, and what it needs of views and subscriptions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from schemas.access import Grant
from schemas.record import Packed

__all__ = ["Release", "Terms", "ViewOf", "ViewOutput", "empty_release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOutput:
    """What a view made of n values.

    Attributes:
        kept: n truth values; a void is never kept.
        values: the kept rows' values, framed with the view's schema, in order.
    """

    kept: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    values: Packed


class ViewOf(Protocol):
    """Step (5), perhaps in a worker process."""

    def __call__(self, grant: Grant, values: Sequence[bytes | None]) -> ViewOutput:
        """Apply the grant's view to framed values; None is a void."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release, or what was scanned without one. See `exchange.client.Fetched` for the fields.

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
    scanned: int
    caught_up: bool
    deadline: float

    def __len__(self) -> int:
        return len(self.recorded_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a grant delivers, and where its consumer stands."""

    grant: Grant
    schema_id: int
    schema_text: str
    position: bytes
    row_filter: str


def empty_release(schema_id: int, position: bytes, scanned: int, *, caught_up: bool) -> Release:
    """Make the answer to a fetch that released nothing."""
    return Release(
        schema_id=schema_id,
        values=Packed.of([]),
        record_keys=b"",
        recorded_at=(),
        valid=b"",
        next_position=position,
        entry_id="",
        leaf_hash=b"",
        scanned=scanned,
        caught_up=caught_up,
        deadline=float("inf"),
    )

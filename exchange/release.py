"""What a fetch releases, and what it needs of views and subscriptions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from schemas.access import Grant
from schemas.record import Packed

__all__ = ["RELEASE_WINDOW", "Released", "Terms", "ViewOf", "Viewed", "nothing"]

RELEASE_WINDOW: Final = 0.5
"""Seconds after the commit of its entry was sent within which a release may leave. A revocation is acknowledged only
when they have passed, on whichever gateway it came in: so this is no setting. A gateway that waited less than another
one takes to send would promise too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewed:
    """What a view made of n values.

    Attributes:
        kept: n truth values; a void is never kept.
        values: the kept rows' values, framed with the view's schema, in order.
    """

    kept: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    values: Packed


class ViewOf(Protocol):
    """Step (5), perhaps in a worker process."""

    def __call__(self, grant: Grant, values: Sequence[bytes | None]) -> Viewed:
        """Apply the grant's view to framed values; None is a void."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
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


def nothing(schema_id: int, position: bytes, scanned: int, *, caught_up: bool) -> Released:
    """Make the answer to a fetch that released nothing."""
    return Released(
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

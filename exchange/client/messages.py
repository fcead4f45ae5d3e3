"""Replies of the pool as values. Times are microseconds UTC; positions are opaque bytes."""

import struct
from dataclasses import dataclass

from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Packed

__all__ = ["BatchRefusedError", "FetchResult", "Hello", "LaneHead", "RowRefusal", "Subscription"]


_PLACE = struct.Struct("<HQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The pool's name and limits, and the identity that it recognises the caller by. Times in microseconds UTC.

    `places`: a fetch may ask for places; a pool of an earlier version does not know them.
    """

    pool_id: str
    department: str
    connector: str
    server_time: int
    certificate_expires: int
    receipt_public_key: bytes
    max_batch_records: int
    max_batch_bytes: int
    places: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneHead:
    """The last batch of a lane at the pool; sequence 0 = nothing was ever appended.

    `keeps_history`: the pool keeps earlier records of a key beside the latest one. Receipts do not confirm it.
    """

    sequence: int
    root: bytes
    source_position: bytes
    keeps_history: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a grant delivers, and the position that its consumer committed. Times in microseconds UTC.

    `provider` is the internal id of the department that provides the resource; empty where a pool of an earlier version
    does not say it.
    """

    grant_id: str
    version: int
    topic: Topic
    schema_id: int
    schema_text: str
    position: bytes
    not_before: int
    expires: int
    state: str
    withdrawals: bool
    row_filter: str
    provider: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """One release, as it came.

    Attributes:
        schema_id: of the view.
        values: framed Avro of the view; empty = withdrawn.
        record_keys: 16 bytes a record, stable within the grant.
        recorded_at: little-endian int64 microseconds a record.
        next_position: of the next fetch, opaque.
        entry_id: the audit entry of this release; empty when nothing was released.
        caught_up: the end of the topic was reached.
        disputed: indexes of the records of which a shown value is disputed (校核), rising; they are used as others are.
        places: 10 bytes a record (uint16 partition, uint64 offset, little-endian); empty where they were not asked for,
            or the grant does not tell them.
        marks: beside places, the operation of each (`schemas.record.Operation`); a withdrawn record is a void.
        valid: beside places, 16 bytes a record (`schemas.record.Batch`), or empty when none states any.
    """

    schema_id: int
    values: Packed
    record_keys: bytes
    recorded_at: bytes
    next_position: bytes
    entry_id: str
    caught_up: bool
    disputed: tuple[int, ...] = ()
    places: bytes = b""
    marks: bytes = b""
    valid: bytes = b""

    def keys(self) -> list[bytes]:
        """Return the record keys one by one."""
        return [self.record_keys[start : start + 16] for start in range(0, len(self.record_keys), 16)]

    def times(self) -> tuple[int, ...]:
        """Return recorded_at one by one, microseconds UTC."""
        return struct.unpack(f"<{len(self.recorded_at) // 8}q", self.recorded_at)

    def offsets(self) -> list[tuple[int, int]]:
        """Return the places one by one: partition and offset."""
        return list(_PLACE.iter_unpack(self.places))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRefusal:
    """Why one record of a refused batch was refused; never its value."""

    index: int
    reason: str
    field: str
    message: str


class BatchRefusedError(InvalidError):
    """A batch was refused whole; `rows` names its bad records (at most 100).

    Attributes:
        sequence: of the batch. It is not consumed: the mended batch takes the same number.
        rows: in order.
    """

    def __init__(
        self, reason: Reason, message: str, *, sequence: int, rows: tuple[RowRefusal, ...], details: dict[str, str]
    ) -> None:
        super().__init__(reason, message, details=details)
        self.sequence = sequence
        self.rows = rows

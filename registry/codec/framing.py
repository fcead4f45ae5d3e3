"""Confluent wire format (a 0 byte, the schema id as big-endian int32) of whole batches, and forms of a batch.

`Packed` holds the two buffers of an Arrow BinaryArray, so each converts to the other without a copy. The engines read
lists of `bytes`; building one costs about 60 ns a record, and no other pass over the bytes in Python is made.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import InvalidError, Reason
from schemas.record import FRAME_SIZE, Packed

__all__ = [
    "FrameGroup",
    "add_frames",
    "as_arrow",
    "as_list",
    "from_arrow",
    "strip_frames",
]

MAX_SCHEMA_ID = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class FrameGroup:
    """The records of a batch that one schema wrote.

    Attributes:
        schema_id: of the registry.
        indexes: their positions in the batch, ascending (int64).
        datums: their Avro bytes without the frame, in the same order.
    """

    schema_id: int
    indexes: npt.NDArray[np.int64]
    datums: list[bytes]


def as_list(packed: Packed) -> list[bytes]:
    """Return the byte strings as a list."""
    ends = _ends(packed).tolist()
    values = packed.values
    return [values[start:end] for start, end in pairwise(ends)]


def as_arrow(packed: Packed) -> pa.BinaryArray:
    """Return the byte strings as a BinaryArray over the same two buffers."""
    buffers = [None, pa.py_buffer(packed.offsets or bytes(4)), pa.py_buffer(packed.values)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(packed), buffers)


def from_arrow(column: pa.BinaryArray) -> Packed:
    """Return a binary column (also a slice of one) as packed byte strings; null becomes the empty string.

    Args:
        column: of type binary or string.
    """
    if column.null_count:
        column = column.fill_null(b"" if pa.types.is_binary(column.type) else "")
    _, offsets, values = column.buffers()
    if offsets is None or not len(column):
        return Packed(bytes(4), b"")
    ends = np.frombuffer(offsets, "<i4", len(column) + 1, column.offset * 4)
    first, last = int(ends[0]), int(ends[-1])
    if first:
        ends = ends - first
    data = values.slice(first, last - first).to_pybytes() if values is not None else b""
    return Packed(ends.tobytes(), data)


def strip_frames(values: Packed) -> list[FrameGroup]:
    """Remove the frames of a batch, and group its records by the schema that wrote them.

    Records without a value (voids) are in no group.

    Args:
        values: framed Avro values, as a `schemas.record.Batch` holds them.

    Returns:
        One group a schema id, by the first record of each; a batch of one schema gives one group.

    Raises:
        InvalidError: RECORD_INVALID, with the index of the first record whose frame is missing.
    """
    ends = _ends(values)
    starts, lengths = ends[:-1], np.diff(ends)
    present = np.flatnonzero(lengths)
    ids = _schema_ids(values, starts, lengths, present)
    if not len(present):
        return []
    kinds, first, group_of = np.unique(ids, return_index=True, return_inverse=True)
    groups = []
    for kind in np.argsort(first):
        indexes = present if len(kinds) == 1 else present[group_of == kind]
        froms = (starts[indexes] + FRAME_SIZE).tolist()
        tos = ends[indexes + 1].tolist()
        data = values.values
        datums = [data[start:end] for start, end in zip(froms, tos, strict=True)]
        groups.append(FrameGroup(int(kinds[kind]), indexes, datums))
    return groups


def add_frames(schema_id: int, datums: Packed | list[bytes]) -> Packed:
    """Add the frame of one schema to every datum.

    Raises:
        InvalidError: SCHEMA_UNKNOWN, for an id that the frame cannot hold.
    """
    if not 0 <= schema_id <= MAX_SCHEMA_ID:
        raise InvalidError(Reason.SCHEMA_UNKNOWN, f"got the schema id {schema_id}; expected 0 to {MAX_SCHEMA_ID}")
    head = b"\0" + schema_id.to_bytes(4, "big")
    items = as_list(datums) if isinstance(datums, Packed) else datums
    ends = np.zeros(len(items) + 1, "<i4")
    np.cumsum(np.fromiter(map(len, items), np.int64, len(items)) + FRAME_SIZE, out=ends[1:])
    return Packed(ends.tobytes(), head + head.join(items) if items else b"")


def _ends(packed: Packed) -> npt.NDArray[np.int64]:
    if not packed.offsets:
        return np.zeros(1, np.int64)
    return np.frombuffer(packed.offsets, "<i4").astype(np.int64)


def _schema_ids(
    values: Packed, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], present: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    data = np.frombuffer(values.values, np.uint8)
    framed = lengths[present] >= FRAME_SIZE
    if framed.all():
        heads = data[starts[present][:, None] + np.arange(FRAME_SIZE)]
        framed = heads[:, 0] == 0
        if framed.all():
            ids: npt.NDArray[np.int64] = heads[:, 1:] @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
            return ids
    index = int(present[np.flatnonzero(~framed)[0]])
    raise InvalidError(
        Reason.RECORD_INVALID,
        f"got record {index} without Confluent's frame; expected a 0 byte and a 4-byte schema id before the Avro bytes",
        details={"index": str(index)},
    )

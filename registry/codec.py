"""Avro ⇄ Arrow behind one Protocol: the codec's two engines, and how one of them is chosen.

    columns.py   fast path: pyruhvro over a wire-equal physical schema (batches of 30 records and more)
    rows.py      fastavro: every type, small batches, row-level reports, and the oracle in tests

Both give the same bytes; a contract suite (tests/contract/test_engine.py) demands it.

The in-memory currency is a `pyarrow.RecordBatch` in the schema's *logical* form: one column a field, in order,
named as the field, of the Arrow type that `arrow_type()` states for its Avro type. A datum is an Avro binary
value without a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from schemas.errors import Reason
from schemas.record import Packed

__all__ = ["Checked", "Engine", "RowError"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why one record of a batch is refused. Never holds the value.

    Attributes:
        index: in the batch, from 0.
        reason: code of the closed list.
        field: dotted path of the field, empty when the whole datum cannot be read.
        message: what was expected.
    """

    index: int
    reason: Reason
    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A batch that passed: its key bytes (`schemas.record.key_bytes`), one a record, in order."""

    keys: Sequence[bytes]


class Engine(Protocol):
    """Reads and writes datums of one writer schema. Compiled once per schema, immutable, thread-safe."""

    name: str

    def decode(self, datums: Packed) -> pa.RecordBatch:
        """Give the datums as columns.

        Raises:
            InvalidError: RECORD_INVALID, with the rows in `details`.
        """
        ...

    def encode(self, batch: pa.RecordBatch) -> Packed:
        """Give the columns as datums.

        Raises:
            InvalidError: RECORD_INVALID, for a null in a field that is not nullable, or a value out of range.
        """
        ...

    def check(self, datums: Packed) -> Checked | list[RowError]:
        """Validate a published batch whole (columns.md, "Acceptance"), and give its keys.

        A batch passes only if every datum is canonical Avro of the schema with valid UTF-8, every rule of its
        fields (code lists, check digits) holds and every key part is present.
        """
        ...

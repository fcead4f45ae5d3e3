"""What a codec engine is: the Protocol, its answers, and the frame of columns that it works in.

The in-memory currency is a `pyarrow.RecordBatch` in the schema's *logical* form: one column a field, in order,
named as the field, of the Arrow type that `registry.avro.type_tree.arrow_type` states for its Avro type. A datum is an
Avro binary value without a frame; `Datums` is n of them, packed or as a list.

Every engine keeps these promises, and one contract suite (tests/contract/test_engine*.py) holds all of them to it:

* the same batch is encoded to the same bytes, and the same datums decode to equal columns;
* what is refused is refused whole, as an InvalidError or as RowErrors that name row and field, never a value;
* nothing is written that a reader of the schema could not read: no null in a field that is not nullable, no int
  beyond 32 bits, no symbol that the enum lacks, no time that no calendar holds;
* an engine is immutable after it was made, and may be used by several threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import pyarrow as pa

from schemas.errors import InvalidError, Reason
from schemas.record import Packed

__all__ = ["MAX_ROW_ERRORS", "Checked", "Datums", "Engine", "RowError", "refusal"]

MAX_ROW_ERRORS = 100
"""Rows of one batch that are reported; a batch with more is as refused as one with exactly so many."""

Datums: TypeAlias = Packed | Sequence[bytes]
"""n Avro datums without frames. A list of `bytes` is the form that both engines read without converting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why one record of a batch is refused, or (in `Checked.warnings`) what is odd about it. Never holds the value.

    Attributes:
        index: in the batch, from 0.
        reason: code of the closed list.
        field: dotted path of the field, empty when the datum as a whole is meant.
        message: what was expected.
    """

    index: int
    reason: Reason
    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A batch that passed.

    Attributes:
        keys: its key bytes (`schemas.record.key_bytes`), one a record, in order; empty when the schema declares
            no key.
        warnings: rows that are lawful yet odd, at most `MAX_ROW_ERRORS` (an early credit code whose outer check
            character fails, for example). They change nothing about the acceptance.
    """

    keys: Sequence[bytes]
    warnings: tuple[RowError, ...] = ()


class Engine(Protocol):
    """Reads and writes datums of one writer schema. Compiled once per schema, thread-safe."""

    @property
    def name(self) -> str:
        """`columns` or `rows`: which engine reads a large batch."""
        ...

    schema: pa.Schema
    """Arrow schema of what `decode` returns when every field is selected."""

    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        """Return the datums as columns.

        Meant for datums that `check` accepted when they were published: whatever cannot be read is refused, but a
        large batch's bytes behind a datum, and numbers written in more bytes than they need, may be overlooked.

        Args:
            datums: n Avro datums.
            select: names of the fields to give, in the order wanted; None gives all, in the schema's order. A
                field that is left out costs nothing but the walk over its bytes, and its content is not validated.

        Raises:
            InvalidError: RECORD_INVALID, with the first bad row's index and field in `details`; FIELD_UNKNOWN for a
                name in `select` that the schema lacks.
        """
        ...

    def encode(self, batch: pa.RecordBatch) -> Packed:
        """Return the columns as datums.

        Columns are matched by name and may stand in any order; a column more or less than the schema has is
        refused, and so are two of one name. A column of another type than the logical one is converted where that
        loses nothing (text to an enum's symbols, a narrower integer, another unit of time) and refused otherwise.
        The batch may be a slice of another.

        Raises:
            InvalidError: RECORD_INVALID, for a null in a field that is not nullable, or a value out of range;
                FIELD_UNKNOWN for columns that do not match the schema's fields.
        """
        ...

    def check(self, datums: Datums) -> Checked | list[RowError]:
        """Validate a published batch whole, and give its keys.

        A batch passes only if every datum is Avro of the schema in its shortest form (blocks of an array or map
        may be split as the producer likes), with valid UTF-8, every rule of its fields (`registry.avro.field_rules`)
        holds and every part of the key is present.
        """
        ...


def refusal(errors: Sequence[RowError], count: int) -> InvalidError:
    """Return the error for a batch of `count` datums of which `errors` names the first bad rows."""
    first = errors[0]
    return InvalidError(
        Reason.RECORD_INVALID,
        f"got {len(errors)} or more bad records among {count}; the first is record {first.index}, field "
        f"{first.field or '(the whole record)'}: {first.message}",
        details={"index": str(first.index), "field": first.field, "count": str(len(errors))},
    )

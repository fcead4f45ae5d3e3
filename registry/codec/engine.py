"""Codec engine port: the Protocol `Engine`, its results, and the columns that it works in.

The in-memory currency is a `pyarrow.RecordBatch` in the schema's *logical* form: one column a field, in order,
named as the field, of the Arrow type that `registry.avro.type_tree.arrow_type` returns for its Avro type. A datum is an
Avro binary value without a frame; `Datums` is n of them, packed or as a list.

Every engine guarantees, and one contract suite (tests/contract/test_engine*.py) tests all of them:

* the same batch is encoded to the same bytes, and the same datums decode to equal columns;
* what is refused is refused whole, as an InvalidError or as RowErrors that name row and field, never a value;
* nothing is written that a reader of the schema could not read: no null in a field that is not nullable, no int
  beyond 32 bits, no symbol that the enum lacks, no time that no calendar holds;
* an engine is immutable after construction, and may be used by several threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import pyarrow as pa

from schemas.errors import InvalidError, Reason
from schemas.record import Packed

__all__ = ["MAX_ROW_ERRORS", "CheckedBatch", "Datums", "Engine", "RowError", "rows_invalid_error"]

MAX_ROW_ERRORS = 100
"""Most rows of one batch that are reported; more of them change nothing about the refusal."""

Datums: TypeAlias = Packed | Sequence[bytes]
"""n Avro datums without frames. A list of `bytes` is the form that both engines read without converting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Error of one record of a batch, or a warning (`CheckedBatch.warnings`). Never holds the value.

    Attributes:
        index: in the batch, from 0.
        reason: code of the closed list.
        field: dotted path of the field, empty for the datum as a whole.
        message: what was expected.
    """

    index: int
    reason: Reason
    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBatch:
    """A batch that passed its check.

    Attributes:
        keys: its key bytes (`schemas.record.key_bytes`), one a record, in order; empty when the schema declares
            no key.
        warnings: rows that are lawful yet suspect, at most `MAX_ROW_ERRORS` (an early credit code whose outer check
            character fails, for example). The batch is accepted all the same.
    """

    keys: Sequence[bytes]
    warnings: tuple[RowError, ...] = ()


class Engine(Protocol):
    """Reader and writer of datums of one writer schema. Compiled once per schema, thread-safe."""

    @property
    def name(self) -> str:
        """`columns` or `rows`: which engine reads a large batch."""
        ...

    schema: pa.Schema
    """Arrow schema of what `decode` returns when every field is selected."""

    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        """Return the datums as columns.

        For datums that `check` accepted when they were published: whatever cannot be read is refused, but in a large
        batch, bytes behind a datum and numbers written in more bytes than they need may be overlooked.

        Args:
            datums: n Avro datums.
            select: names of the fields to return, in the order wanted; None returns all, in the schema's order. A
                field that is left out is skipped over, and its content is not validated.

        Raises:
            InvalidError: RECORD_INVALID, with the first bad row's index and field in `details`; FIELD_UNKNOWN for a
                name in `select` that the schema lacks.
        """
        ...

    def encode(self, batch: pa.RecordBatch) -> Packed:
        """Return the columns as datums.

        Columns are matched by name, in any order; a column too many or too few is
        refused, and so are two of one name. A column of another type than the logical one is converted where that
        loses nothing (text to an enum's symbols, a narrower integer, another unit of time) and refused otherwise.
        The batch may be a slice of another.

        Raises:
            InvalidError: RECORD_INVALID, for a null in a field that is not nullable, or a value out of range;
                FIELD_UNKNOWN for columns that do not match the schema's fields.
        """
        ...

    def check(self, datums: Datums) -> CheckedBatch | list[RowError]:
        """Validate a published batch as a whole, and return its keys.

        A batch passes only if every datum is Avro of the schema in its shortest form (blocks of an array or map
        may be split as the producer likes), with valid UTF-8, every rule of its fields (`registry.avro.field_rules`)
        holds and every part of the key is present.
        """
        ...


def rows_invalid_error(errors: Sequence[RowError], count: int) -> InvalidError:
    """Return the error for a batch of `count` datums of which `errors` names the first bad rows."""
    first = errors[0]
    return InvalidError(
        Reason.RECORD_INVALID,
        f"got {len(errors)} or more bad records among {count}; the first is record {first.index}, field "
        f"{first.field or '(the whole record)'}: {first.message}",
        details={"index": str(first.index), "field": first.field, "count": str(len(errors))},
    )

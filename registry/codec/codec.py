"""Avro ⇄ Arrow behind one Protocol: which engine reads what, and whether the fast one may be trusted.

    columns.py   fast path: pyruhvro over a wire-equal physical schema (batches of 30 records and more)
    rows.py      every type, small batches, row-level reports, and the judge of what is refused

`engine_for` compiles both for a schema, compares them on random datums, and gives one `Engine` that chooses. Whatever
the fast path will not vouch for goes to the row engine, which decides alone; so a batch is refused, or not, by one
set of rules. One large batch in `AUDIT_EVERY` is read by both, and the first difference moves the schema to the row
engine permanently: `CodecEngine.fallback` says why, `counts` holds what a metric shows.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from threading import Lock
from typing import TypeVar

import pyarrow as pa
from typing_extensions import override

from registry.avro.parser import ParsedSchema
from registry.avro.type_tree import arrow_type
from registry.codec.column_engine import ColumnEngine, UnsupportedError
from registry.codec.datum_writer import writer_of
from registry.codec.engine import MAX_ROW_ERRORS, Checked, Datums, Engine, RowError
from registry.codec.framing import FrameGroup, add_frames, as_arrow, as_list, from_arrow, strip_frames
from registry.codec.physical_schema import DoubtError
from registry.codec.random_datums import sample
from registry.codec.row_engine import RowEngine, arrow_schema
from schemas.errors import InvalidError
from schemas.record import Packed

__all__ = [
    "AUDIT_EVERY",
    "COLUMNS_FROM",
    "MAX_ROW_ERRORS",
    "Checked",
    "CodecCounts",
    "CodecEngine",
    "Datums",
    "Engine",
    "FrameGroup",
    "RowError",
    "add_frames",
    "arrow_schema",
    "arrow_type",
    "as_arrow",
    "as_list",
    "counts",
    "engine_for",
    "from_arrow",
    "strip_frames",
]

COLUMNS_FROM = 30
"""Records from which columns pay: they cost some 140 µs a batch before the first record."""

AUDIT_EVERY = 1_000
"""One batch in so many goes through both engines."""

_SELF_TEST_DATUMS = 200

_Result = TypeVar("_Result")


@dataclass(slots=True)
class CodecCounts:
    """What the codec did in this process since it started; a metric shows it.

    Attributes:
        columns: batches that the column engine answered.
        rows: batches that went to the row engine because they are small or their schema has no columnar form.
        handed_over: batches that the column engine would not vouch for, and the row engine judged.
        audited: batches that both engines read, to compare.
        differences: schemas moved to the row engine because the two differed, in a self-test or an audit. Any number
            but 0 is an alarm.
    """

    columns: int = 0
    rows: int = 0
    handed_over: int = 0
    audited: int = 0
    differences: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, name: str) -> None:
        """Add one to the count of that name."""
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)


counts = CodecCounts()
"""Of this process."""


class CodecEngine(Engine):
    """Both engines of one schema behind the Protocol `Engine`.

    Attributes:
        schema: Arrow schema of the logical form.
        fallback: why large batches do not go to columns; empty while they do.
    """

    def __init__(self, schema: ParsedSchema) -> None:
        self.rows = RowEngine(schema)
        self.schema = self.rows.schema
        self.fallback = ""
        self.columns: ColumnEngine | None = None
        self._batches = count(1)
        try:
            columns = ColumnEngine(schema)
        except UnsupportedError as error:
            self.fallback = str(error)
            return
        if _agree(schema, self.rows, columns):
            self.columns = columns
        else:
            self._distrust("the engines differ on the self-test")

    @property
    def name(self) -> str:
        """`columns` or `rows`: which engine reads a large batch."""
        return "rows" if self.columns is None else "columns"

    @override
    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        batch = self._choose(
            len(datums), lambda columns: columns.decode(datums, select), lambda: self.rows.decode(datums, select)
        )
        if self.columns is not None and len(datums) >= COLUMNS_FROM and next(self._batches) % AUDIT_EVERY == 0:
            self._audit(datums)
        return batch

    @override
    def encode(self, batch: pa.RecordBatch) -> Packed:
        return self._choose(len(batch), lambda columns: columns.encode(batch), lambda: self.rows.encode(batch))

    @override
    def check(self, datums: Datums) -> Checked | list[RowError]:
        return self._choose(len(datums), lambda columns: columns.check(datums), lambda: self.rows.check(datums))

    def _choose(self, size: int, fast: Callable[[ColumnEngine], _Result], slow: Callable[[], _Result]) -> _Result:
        columns = self.columns
        if columns is None or size < COLUMNS_FROM:
            counts.add("rows")
            return slow()
        try:
            result = fast(columns)
        except (DoubtError, pa.ArrowException):
            counts.add("handed_over")
            return slow()
        counts.add("columns")
        return result

    def _audit(self, datums: Datums) -> None:
        """Read one batch with both engines; what one of them refuses proves nothing."""
        columns = self.columns
        if columns is None:
            return
        counts.add("audited")
        try:
            # Written again by one engine, since two equal columns with a NaN in them do not compare equal.
            same = self.rows.encode(columns.decode(datums)) == self.rows.encode(self.rows.decode(datums))
        except (DoubtError, InvalidError):
            return
        if not same:
            self._distrust("the engines differed on a batch")

    def _distrust(self, reason: str) -> None:
        self.columns = None
        self.fallback = reason
        counts.add("differences")


def _agree(schema: ParsedSchema, rows: RowEngine, columns: ColumnEngine) -> bool:
    """Return whether the column engine reads and writes random datums exactly as the row engine does."""
    rng = random.Random(schema.shape.target)  # noqa: S311 - a reproducible test, not a secret
    write = writer_of(schema.shape)
    datums = [write(sample(schema.shape, rng)) for _ in range(_SELF_TEST_DATUMS)]
    packed = Packed.of(datums)
    try:
        batch = columns.decode(datums)
        return (
            batch.schema.equals(rows.schema)
            and rows.encode(batch) == packed
            and columns.encode(rows.decode(datums)) == packed
            and columns.encode(batch.slice(_SELF_TEST_DATUMS // 3)) == Packed.of(datums[_SELF_TEST_DATUMS // 3 :])
        )
    except (DoubtError, InvalidError):
        return False


@lru_cache(maxsize=256)
def engine_for(schema: ParsedSchema) -> CodecEngine:
    """Return the engine of a schema; compiled once, some 60 ms, and kept for the schemas used last.

    Raises:
        InvalidError: SCHEMA_INVALID, for a schema that is no record, or one without fields.
    """
    return CodecEngine(schema)

"""Avro codec: Avro ⇄ Arrow behind one Protocol; which engine reads a batch, and whether the fast one may be trusted.

    column_engine   fast path: pyruhvro over a wire-equal physical schema (batches of 30 records and more)
    row_engine      every type, small batches, row-level reports; it alone decides what is refused

`engine_for` compiles both for a schema, compares them on random datums (the self-test), and returns one `Engine` that
chooses. A schema on which they differ is left to the row engine: `CodecEngine.fallback` says why. Whatever the fast
path cannot verify falls back to the row engine, which decides alone; so a batch is refused, or not, by one set of
rules.

While the pool runs, the engines are compared where a difference would reach a consumer: a view sends one batch in 1,000
through both and compares the bytes that it would release (`exchange.access.view.plan`). A batch that is published is
written again by `check` in any case, and its bytes compared.
"""

import random
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import pyarrow as pa
from typing_extensions import override

from registry.avro.parser import ParsedSchema
from registry.codec.column_engine import ColumnEngine, UnsupportedError
from registry.codec.datum_writer import compile_writer
from registry.codec.engine import CheckedBatch, Datums, Engine, RowError
from registry.codec.physical_schema import NotVerifiableError
from registry.codec.random_datums import sample_value
from registry.codec.row_engine import RowEngine
from schemas.errors import InvalidError
from schemas.record import Packed

__all__ = ["COLUMNAR_MIN_RECORDS", "CheckedBatch", "CodecEngine", "Engine", "RowError", "engine_for"]

COLUMNAR_MIN_RECORDS = 30
"""Fewest records of a batch for the column engine, which costs some 140 µs a batch before the first record."""

_SELF_TEST_DATUMS = 200

_Result = TypeVar("_Result")


class CodecEngine(Engine):
    """Codec engine of one schema: both engines behind the Protocol `Engine`.

    Attributes:
        schema: Arrow schema of the logical form.
        fallback: why large batches do not go to columns; empty while they do.
    """

    def __init__(self, schema: ParsedSchema) -> None:
        self.rows = RowEngine(schema)
        self.schema = self.rows.schema
        self.fallback = ""
        self.columns: ColumnEngine | None = None
        try:
            columns = ColumnEngine(schema)
        except UnsupportedError as error:
            self.fallback = str(error)
            return
        if _passes_self_test(schema, self.rows, columns):
            self.columns = columns
        else:
            self.fallback = "the engines differ on the self-test"

    @property
    def name(self) -> str:
        """`columns` or `rows`: which engine reads a large batch."""
        return "rows" if self.columns is None else "columns"

    @override
    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        return self._choose(
            len(datums), lambda columns: columns.decode(datums, select), lambda: self.rows.decode(datums, select)
        )

    @override
    def encode(self, batch: pa.RecordBatch) -> Packed:
        return self._choose(len(batch), lambda columns: columns.encode(batch), lambda: self.rows.encode(batch))

    @override
    def check(self, datums: Datums) -> CheckedBatch | list[RowError]:
        return self._choose(len(datums), lambda columns: columns.check(datums), lambda: self.rows.check(datums))

    def _choose(self, size: int, fast: Callable[[ColumnEngine], _Result], slow: Callable[[], _Result]) -> _Result:
        if self.columns is None or size < COLUMNAR_MIN_RECORDS:
            return slow()
        try:
            return fast(self.columns)
        except (NotVerifiableError, pa.ArrowException):
            return slow()


def _passes_self_test(schema: ParsedSchema, rows: RowEngine, columns: ColumnEngine) -> bool:
    """Return whether the column engine reads and writes random datums exactly as the row engine does."""
    rng = random.Random(schema.type_tree.record_name)  # noqa: S311 - a reproducible test, not a secret
    write = compile_writer(schema.type_tree)
    datums = [write(sample_value(schema.type_tree, rng)) for _ in range(_SELF_TEST_DATUMS)]
    packed = Packed.of(datums)
    try:
        batch = columns.decode(datums)
        return (
            batch.schema.equals(rows.schema)
            and rows.encode(batch) == packed
            and columns.encode(rows.decode(datums)) == packed
            and columns.encode(batch.slice(_SELF_TEST_DATUMS // 3)) == Packed.of(datums[_SELF_TEST_DATUMS // 3 :])
        )
    except (NotVerifiableError, InvalidError):
        return False


@lru_cache(maxsize=256)
def engine_for(schema: ParsedSchema) -> CodecEngine:
    """Return the engine of a schema; compiled once, some 60 ms, and cached for the schemas used last.

    Raises:
        InvalidError: SCHEMA_INVALID, for a schema that is not a record, or a record without fields.
    """
    return CodecEngine(schema)

"""A view for one writer's schema, compiled: the columns that it decodes, and what becomes of each.

    decode (the fields needed) ── filter: resolve its columns, predicate ── project, keep rows
    ── resolve, fill, mask each field ── count nulls ── encode

Fields that the view does not need are walked over and never built. Rows are dropped before anything is computed for
them; a batch is filtered and never sliced.

The frame of five bytes (Confluent: 0, then the schema id, big-endian) costs no pass of its own. To an Avro engine it
is a boolean, false, and a float whose four bytes are the id; both stand before the first field of the schemas that
the engines are given, when reading as when writing.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from exchange.access.view.default_column import Absent
from exchange.access.view.derive import mask_word, mentions, record_text
from exchange.access.view.filter import Predicate, compile_filter, fields_of
from exchange.access.view.filter_literal import kind_of
from exchange.access.view.mask import mask_of
from exchange.access.view.resolve import Convert, Typed, missing, resolve
from registry.avro.parser import NO_DEFAULT, Field, ParsedSchema, parse
from registry.codec.codec import engine_for
from registry.codec.engine import Engine
from registry.codec.row_engine import RowEngine
from schemas.access import MaskRule, RowFilter
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.record import FRAME_SIZE, Packed, frame

__all__ = ["SAMPLE", "Part", "Plan"]

SAMPLE = 1_000
"""One batch in so many, the first among them, goes through both engines."""

_Rows: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """What a plan made of its rows.

    Attributes:
        values: delivered rows, framed.
        kept: a truth value an input row.
        engine: "columns" or "rows".
        alarm: empty, or that the engines differed.
    """

    values: Packed
    kept: _Rows
    engine: str
    alarm: str


class Plan:
    """A view for one writer's schema.

    Args:
        output: the view's schema. output_id: its registry id.
        masks: field → rule.
        row_filter: rows granted.
        resource: says as what the filter compares its fields.
        writer: schema of the records. writer_id: its registry id.

    Raises:
        InvalidError: see `exchange.access.view.view.compile_view`.
    """

    def __init__(
        self,
        *,
        output: ParsedSchema,
        output_id: int,
        masks: Mapping[str, MaskRule],
        row_filter: RowFilter | None,
        resource: ParsedSchema,
        writer: ParsedSchema,
        writer_id: int,
    ) -> None:
        self._name = f"schema {writer_id}"
        fields = [_Shown.of(field, masks.get(field.name, MaskRule.NONE), writer) for field in output.fields]
        wanted = _Filter.of(row_filter, resource, writer) if row_filter is not None else None
        reading, writing = _Framed.of(writer, writer_id), _Framed.of(output, output_id)
        self._rows = _Pipeline(fields, wanted, reading, writing, RowEngine)
        main = _Pipeline(fields, wanted, reading, writing, engine_for)
        self._main = main if main.engine == "columns" else self._rows
        self._batches = itertools.count()

    @property
    def engine(self) -> str:
        """Return "columns" or "rows"."""
        return self._main.engine

    def apply(self, rows: list[bytes]) -> Part:
        """Apply the view to framed values of the writer's schema.

        Raises:
            CorruptError: a value is not of its schema, or cannot be brought into the view's.
        """
        main = self._main
        if main is self._rows:
            return self._by_rows(rows, "")
        try:
            values, kept = main.run(rows)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException
            return self._by_rows(rows, f"the columnar engine failed on {self._name} with {type(error).__name__}")
        if next(self._batches) % SAMPLE == 0:
            part = self._by_rows(rows, "")
            if part.values != values or not np.array_equal(part.kept, kept):
                self._main = self._rows
                return Part(part.values, part.kept, "rows", f"the engines gave different bytes for {self._name}")
        return Part(values, kept, "columns", "")

    def _by_rows(self, rows: list[bytes], alarm: str) -> Part:
        try:
            values, kept = self._rows.run(rows)
        except InvalidError as error:  # not the fault of who fetches: these bytes were accepted once
            raise CorruptError(
                error.reason,
                f"got a stored record that cannot be read under {self._name}; {error.message}",
                details=error.details,
            ) from error
        if alarm:
            self._main = self._rows
        return Part(values, kept, "rows", alarm)


@dataclass(frozen=True, slots=True)
class _Shown:
    """One field of the view: where it comes from, and how it is shown."""

    name: str
    source: str | None  # None: the writer lacks it
    convert: Convert
    fill: Callable[[int], pa.Array]
    mask: Convert | None
    nullable: bool

    @classmethod
    def of(cls, field: Field, rule: MaskRule, writer: ParsedSchema) -> "_Shown":
        mask = mask_of(rule, field.name, mask_word(field))
        reader = Typed(field.type, field.shape)
        written = _source(field, writer)
        return cls(
            name=field.name,
            source=written.name if written is not None else None,
            convert=_identity if written is None else resolve(_typed(written), reader, field.name),
            fill=missing(reader, _default(field), field.name) if written is None else _no_rows,
            mask=None if mask.rule in (MaskRule.NONE, MaskRule.DROP) else mask.apply,
            nullable=field.nullable,
        )

    def column(self, batch: pa.RecordBatch) -> pa.Array:
        column = self.fill(batch.num_rows) if self.source is None else self.convert(batch.column(self.source))
        if self.mask is not None:
            column = self.mask(column)
        if column.null_count and not self.nullable:
            raise CorruptError(
                Reason.INTERNAL,
                f"got a null in the field {self.name!r} of a view, which may not be null there; nothing was delivered",
                details={"field": self.name},
            )
        return column


@dataclass(frozen=True, slots=True)
class _Filter:
    """The row filter over the writer's columns."""

    columns: tuple[tuple[str, str, Convert], ...]  # name in the filter, source, conversion
    predicate: Predicate

    @classmethod
    def of(cls, row_filter: RowFilter, resource: ParsedSchema, writer: ParsedSchema) -> "_Filter":
        kinds = {field.name: kind_of(field.shape) for field in resource.fields}
        columns = []
        for field in resource.fields:
            written = _source(field, writer) if field.name in fields_of(row_filter) else None
            if written is not None:
                columns.append((field.name, written.name, resolve(_typed(written), _typed(field), field.name)))
        predicate = compile_filter(row_filter, kinds, frozenset(name for name, _, _ in columns))
        return cls(tuple(columns), predicate)

    def rows(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        columns = [convert(batch.column(source)) for _, source, convert in self.columns]
        if not columns:  # every field of the filter is missing; a batch without columns would have no rows
            columns, names = [pa.nulls(batch.num_rows)], [""]
        else:
            names = [name for name, _, _ in self.columns]
        return self.predicate(pa.RecordBatch.from_arrays(columns, names))


@dataclass(frozen=True, slots=True)
class _Framed:
    """A schema with its frame in front, as far as that can be said in Avro."""

    schema: ParsedSchema
    frame: bytes
    columns: tuple[str, ...]  # names of the two that stand for the frame; none: it is put on and taken off apart

    @classmethod
    def of(cls, schema: ParsedSchema, schema_id: int) -> "_Framed":
        framed = frame(schema_id, b"")
        if any(mentions(field.type, schema.fullname) for field in schema.fields):
            return cls(schema, framed, ())  # a record that holds itself would hold its frame
        names = ["frame_magic", "frame_id"]
        while set(names) & {field.name for field in schema.fields}:
            names = [name + "_" for name in names]
        fields: list[tuple[str, Any]] = [(names[0], "boolean"), (names[1], "float")]
        fields += [(field.name, field.type) for field in schema.fields]
        return cls(parse(record_text(fields)), framed, tuple(names))

    def constants(self, count: int) -> list[pa.Array]:
        if not self.columns:
            return []
        magic = pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bytes(count // 8 + 1))])
        id_ = pa.Array.from_buffers(pa.float32(), count, [None, pa.py_buffer(self.frame[1:] * count)])
        return [magic, id_]


class _Pipeline:
    """One way through: decode, filter, project, encode, with one of the two engines."""

    def __init__(
        self,
        shown: Sequence[_Shown],
        wanted: _Filter | None,
        reading: _Framed,
        writing: _Framed,
        make: Callable[[ParsedSchema], Engine],
    ) -> None:
        self._shown, self._wanted, self._reading, self._writing = shown, wanted, reading, writing
        self._reader, self._writer = make(reading.schema), make(writing.schema)
        self._sources = tuple(dict.fromkeys(each.source for each in shown if each.source is not None))
        looked_at = tuple(source for _, source, _ in wanted.columns) if wanted is not None else ()
        self._select = tuple(dict.fromkeys(self._sources + looked_at)) or (reading.schema.fields[0].name,)
        self._names = [*writing.columns, *(each.name for each in shown)]
        both = {self._reader.name, self._writer.name}
        self.engine = "columns" if both == {"columns"} else "rows"

    def run(self, rows: list[bytes]) -> tuple[Packed, _Rows]:
        if not self._reading.columns:
            rows = [row[FRAME_SIZE:] for row in rows]
        batch = self._reader.decode(rows, self._select)
        kept = np.ones(len(rows), np.bool_)
        if self._wanted is not None:
            wanted = self._wanted.rows(batch)
            if wanted.true_count < len(rows):
                known = wanted.fill_null(False) if wanted.null_count else wanted
                kept = known.to_numpy(zero_copy_only=False)
                batch = batch.select(list(self._sources or self._select[:1])).filter(wanted)
        columns = [each.column(batch) for each in self._shown]
        columns = self._writing.constants(batch.num_rows) + columns
        values = self._writer.encode(pa.RecordBatch.from_arrays(columns, self._names))
        if not self._writing.columns:
            values = Packed.of(self._writing.frame + value for value in values)
        return values, kept


def _source(field: Field, writer: ParsedSchema) -> Field | None:
    """Find what a writer has for a field: the field of that name, else that of a former one."""
    written = {each.name: each for each in writer.fields}
    return next((written[name] for name in (field.name, *field.aliases) if name in written), None)


def _typed(field: Field) -> Typed:
    return Typed(field.type, field.shape)


def _default(field: Field) -> Any:
    return Absent if field.default is NO_DEFAULT else field.default


def _identity(column: pa.Array) -> pa.Array:
    return column


def _no_rows(count: int) -> pa.Array:
    raise AssertionError(count)  # pragma: no cover - a field with a source is not filled

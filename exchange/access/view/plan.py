"""Execution plan of a view for one writer's schema: which columns are decoded, and what is done to each.

    decode (the fields needed) ── filter: resolve its columns, predicate ── project, select rows
    ── resolve, fill, mask each field ── count nulls ── encode

Fields that the view does not need are skipped and never built. Rows are dropped before anything is computed for them;
a batch is filtered and never sliced.

The frame of five bytes (Confluent: 0, then the schema id, big-endian) needs no pass of its own. To an Avro engine it is
a boolean, false, and a float whose four bytes are the id: both are the first fields of the schemas that the engines are
given, for decoding and for encoding.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from exchange.access.view.derive import mask_type_of, record_schema_text, refers_to
from exchange.access.view.filter import Predicate, compile_filter, fields_of
from exchange.access.view.filter_literal import comparison_of
from exchange.access.view.mask import mask_of
from exchange.access.view.resolve import AvroType, Conversion, default_filler, resolve
from registry.avro.parser import Field, ParsedSchema, parse
from registry.codec.codec import engine_for
from registry.codec.engine import Engine
from registry.codec.row_engine import RowEngine
from schemas.access import MaskRule, RowFilter
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.record import FRAME_SIZE, Packed, frame

__all__ = ["COMPARED_BATCHES", "PlanOutput", "ViewPlan"]

COMPARED_BATCHES = 1_000
"""One batch in so many, the first among them, goes through both engines."""

_Rows: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlanOutput:
    """Output of a plan for one batch.

    Attributes:
        values: delivered rows, framed.
        kept: one truth value an input row: the filter is true for it.
        engine: "columns" or "rows".
        alarm: empty, or that the engines differed.
    """

    values: Packed
    kept: _Rows
    engine: str
    alarm: str


class ViewPlan:
    """A view, compiled for one writer's schema.

    Args:
        output: the view's schema. output_id: its registry id.
        masks: field → rule.
        row_filter: rows granted.
        resource: schema whose types decide how the filter compares its fields.
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
        fields = [_OutputField.of(field, masks.get(field.name, MaskRule.NONE), writer) for field in output.fields]
        selection = _Filter.of(row_filter, resource, writer) if row_filter is not None else None
        source, target = _FramedSchema.of(writer, writer_id), _FramedSchema.of(output, output_id)
        self._row_pipeline = _Pipeline(fields, selection, source, target, RowEngine)
        preferred = _Pipeline(fields, selection, source, target, engine_for)
        self._pipeline = preferred if preferred.engine == "columns" else self._row_pipeline
        self._batches = itertools.count()

    @property
    def engine(self) -> str:
        """Return "columns" or "rows"."""
        return self._pipeline.engine

    def apply(self, rows: list[bytes]) -> PlanOutput:
        """Apply the view to framed values of the writer's schema.

        Raises:
            CorruptError: a value is not of its schema, or cannot be converted to the view's.
        """
        preferred = self._pipeline
        if preferred is self._row_pipeline:
            return self._apply_by_rows(rows, "")
        try:
            values, kept = preferred.run(rows)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException
            return self._apply_by_rows(rows, f"the columnar engine failed on {self._name} with {type(error).__name__}")
        if next(self._batches) % COMPARED_BATCHES == 0:
            other = self._apply_by_rows(rows, "")
            if other.values != values or not np.array_equal(other.kept, kept):
                self._pipeline = self._row_pipeline
                alarm = f"the engines gave different bytes for {self._name}"
                return PlanOutput(other.values, other.kept, "rows", alarm)
        return PlanOutput(values, kept, "columns", "")

    def _apply_by_rows(self, rows: list[bytes], alarm: str) -> PlanOutput:
        try:
            values, kept = self._row_pipeline.run(rows)
        except InvalidError as error:  # not the fault of the consumer: these bytes were accepted once
            raise CorruptError(
                error.reason,
                f"got a stored record that cannot be read under {self._name}; {error.message}",
                details=error.details,
            ) from error
        if alarm:
            self._pipeline = self._row_pipeline
        return PlanOutput(values, kept, "rows", alarm)


@dataclass(frozen=True, slots=True)
class _OutputField:
    """One field of the view: its source, conversion and mask."""

    name: str
    source: str | None  # None: the writer lacks it
    convert: Conversion
    fill: Callable[[int], pa.Array]  # row count → column, where the writer lacks it
    mask: Conversion | None
    nullable: bool

    @classmethod
    def of(cls, field: Field, rule: MaskRule, writer: ParsedSchema) -> "_OutputField":
        mask = mask_of(rule, field.name, mask_type_of(field))
        reader, source = _type_of(field), _source(field, writer)
        return cls(
            name=field.name,
            source=source.name if source is not None else None,
            convert=_identity if source is None else resolve(_type_of(source), reader, field.name),
            fill=default_filler(reader, field.default, field.name) if source is None else _no_rows,
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

    columns: tuple[tuple[str, str, Conversion], ...]  # name in the filter, source, conversion
    predicate: Predicate

    @classmethod
    def of(cls, row_filter: RowFilter, resource: ParsedSchema, writer: ParsedSchema) -> "_Filter":
        comparisons = {field.name: comparison_of(field.type_tree) for field in resource.fields}
        columns = []
        for field in resource.fields:
            source = _source(field, writer) if field.name in fields_of(row_filter) else None
            if source is not None:
                columns.append((field.name, source.name, resolve(_type_of(source), _type_of(field), field.name)))
        predicate = compile_filter(row_filter, comparisons, frozenset(name for name, _, _ in columns))
        return cls(tuple(columns), predicate)

    def evaluate(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        columns = [convert(batch.column(source)) for _, source, convert in self.columns]
        if not columns:  # every field of the filter is missing; a batch without columns would have no rows
            columns, names = [pa.nulls(batch.num_rows)], [""]
        else:
            names = [name for name, _, _ in self.columns]
        return self.predicate(pa.RecordBatch.from_arrays(columns, names))


@dataclass(frozen=True, slots=True)
class _FramedSchema:
    """A schema with its frame as the first two fields, where Avro allows it."""

    schema: ParsedSchema
    frame: bytes
    columns: tuple[str, ...]  # names of the frame's two fields; none: it is added and removed in a pass of its own

    @classmethod
    def of(cls, schema: ParsedSchema, schema_id: int) -> "_FramedSchema":
        framed = frame(schema_id, b"")
        if any(refers_to(field.type, schema.fullname) for field in schema.fields):
            return cls(schema, framed, ())  # a record that contains itself would contain its frame
        names = ["frame_magic", "frame_id"]
        while set(names) & {field.name for field in schema.fields}:
            names = [name + "_" for name in names]
        fields: list[tuple[str, Any]] = [(names[0], "boolean"), (names[1], "float")]
        fields += [(field.name, field.type) for field in schema.fields]
        return cls(parse(record_schema_text(fields)), framed, tuple(names))

    def frame_columns(self, count: int) -> list[pa.Array]:
        if not self.columns:
            return []
        magic = pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bytes(count // 8 + 1))])
        id_ = pa.Array.from_buffers(pa.float32(), count, [None, pa.py_buffer(self.frame[1:] * count)])
        return [magic, id_]


class _Pipeline:
    """The steps of a plan with one of the two engines: decode, filter, project, encode."""

    def __init__(
        self,
        fields: Sequence[_OutputField],
        selection: _Filter | None,
        source: _FramedSchema,
        target: _FramedSchema,
        make: Callable[[ParsedSchema], Engine],
    ) -> None:
        self._fields, self._selection, self._source, self._target = fields, selection, source, target
        self._decoder, self._encoder = make(source.schema), make(target.schema)
        self._projected = tuple(dict.fromkeys(field.source for field in fields if field.source is not None))
        filtered_by = tuple(name for _, name, _ in selection.columns) if selection is not None else ()
        self._decoded = tuple(dict.fromkeys(self._projected + filtered_by)) or (source.schema.fields[0].name,)
        self._names = [*target.columns, *(field.name for field in fields)]
        engines = {self._decoder.name, self._encoder.name}
        self.engine = "columns" if engines == {"columns"} else "rows"

    def run(self, rows: list[bytes]) -> tuple[Packed, _Rows]:
        if not self._source.columns:
            rows = [row[FRAME_SIZE:] for row in rows]
        batch = self._decoder.decode(rows, self._decoded)
        kept = np.ones(len(rows), np.bool_)
        if self._selection is not None:
            selected = self._selection.evaluate(batch)
            if selected.true_count < len(rows):
                without_unknown = selected.fill_null(False) if selected.null_count else selected
                kept = without_unknown.to_numpy(zero_copy_only=False)
                batch = batch.select(list(self._projected or self._decoded[:1])).filter(selected)
        columns = [field.column(batch) for field in self._fields]
        columns = self._target.frame_columns(batch.num_rows) + columns
        values = self._encoder.encode(pa.RecordBatch.from_arrays(columns, self._names))
        if not self._target.columns:
            values = Packed.of(self._target.frame + value for value in values)
        return values, kept


def _source(field: Field, writer: ParsedSchema) -> Field | None:
    """Return the writer's field for a field of the view: the one of its name, else of one of its aliases."""
    by_name = {each.name: each for each in writer.fields}
    return next((by_name[name] for name in (field.name, *field.aliases) if name in by_name), None)


def _type_of(field: Field) -> AvroType:
    return AvroType(field.type, field.type_tree)


def _identity(column: pa.Array) -> pa.Array:
    return column


def _no_rows(count: int) -> pa.Array:
    raise AssertionError(count)  # pragma: no cover - a field with a source is not filled

"""The row engine: every type, one datum after the other.

It reads batches that are too small for columns to pay, schemas whose types have no columnar form, and every batch
that the column engine would not vouch for: it alone decides what is refused, and it names the rows. Both engines'
answers are compared with its own when a schema is compiled (`registry.codec.codec`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from typing_extensions import override

from registry.avro.field_rules import Rule, Verdict
from registry.avro.parser import ParsedSchema
from registry.avro.type_tree import Kind, Shape, refuse_endless
from registry.codec.arrow_values import assemble, take_apart
from registry.codec.column_matching import align, selected
from registry.codec.datum_reader import FlawError, reader_of
from registry.codec.datum_writer import writer_of
from registry.codec.engine import MAX_ROW_ERRORS, Checked, Datums, Engine, RowError, refusal
from schemas.errors import InvalidError, Reason
from schemas.record import Packed

__all__ = ["RowEngine", "arrow_schema"]

_SEPARATOR = "\x1f"


def arrow_schema(schema: ParsedSchema) -> pa.Schema:
    """Return the Arrow schema of a record schema's logical form.

    Raises:
        InvalidError: SCHEMA_INVALID, for a schema that is no record, or one without fields; SCHEMA_UNSAFE, for one that
            holds itself without end.
    """
    refuse_endless(schema.shape)
    if not schema.fields:
        raise InvalidError(
            Reason.SCHEMA_INVALID,
            f"got {schema.fullname or 'a schema that is no record'}; expected a record with at least one field",
        )
    return pa.schema([pa.field(field.name, field.shape.arrow, field.shape.nullable) for field in schema.fields])


class RowEngine(Engine):
    """Implements `registry.codec.engine.Engine` in Python alone.

    Args:
        schema: a record schema with at least one field.

    Raises:
        InvalidError: SCHEMA_INVALID, see `arrow_schema`.
    """

    name = "rows"

    def __init__(self, schema: ParsedSchema) -> None:
        self.schema = arrow_schema(schema)
        self._fields = schema.fields
        self._read = reader_of(schema.shape)
        self._write = writer_of(schema.shape)
        self._key = [_key_part(schema.field(name).shape, index) for name, index in _indexes(schema, schema.key)]
        self._key_names = schema.key
        self._rules = [_judge(rule, schema) for rule in schema.rules]

    @override
    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        wanted = selected(self._fields, select)
        values, errors = self._values(datums)
        if errors:
            raise refusal(errors, len(datums))
        arrays = [assemble([value[index] for value in values], self._fields[index].shape) for index in wanted]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self.schema.field(index) for index in wanted]))

    @override
    def encode(self, batch: pa.RecordBatch) -> Packed:
        columns = []
        for column, field in zip(align(batch, self._fields), self._fields, strict=True):
            try:
                columns.append(take_apart(column, field.shape))
            except FlawError as flaw:
                raise refusal([_error(0, flaw.message, field.name)], len(batch)) from None
        datums, errors = [], []
        for index, row in enumerate(zip(*columns, strict=True)):
            try:
                datums.append(self._write(row))
            except FlawError as flaw:
                errors.append(_error(index, flaw.message, flaw.field))
                if len(errors) == MAX_ROW_ERRORS:
                    break
        if errors:
            raise refusal(errors, len(batch))
        return Packed.of(datums)

    @override
    def check(self, datums: Datums) -> Checked | list[RowError]:
        values, errors = self._values(datums, stop=False)
        keys: list[bytes] = []
        warnings: list[RowError] = []
        for index, value in enumerate(values):
            if len(errors) >= MAX_ROW_ERRORS:
                break
            if value is None:
                continue
            flaws, odd = self._flaws(value)
            errors.extend(_error(index, message, field) for field, message in flaws)
            warnings.extend(_error(index, message, field) for field, message in odd)
            if not flaws and self._key:
                key = self._key_text(value)
                if key is None:
                    message = "expected a value without U+001F, and not empty, in every part of the key"
                    errors.append(_error(index, message, ", ".join(self._key_names)))
                else:
                    keys.append(key.encode())
        if errors:
            return sorted(errors, key=lambda error: error.index)[:MAX_ROW_ERRORS]
        return Checked(keys=keys, warnings=tuple(warnings[:MAX_ROW_ERRORS]))

    def _values(self, datums: Datums, stop: bool = True) -> tuple[list[Any], list[RowError]]:
        """Read the datums; a bad one becomes None and an error."""
        values: list[Any] = []
        errors: list[RowError] = []
        read = self._read
        for index, datum in enumerate(datums):
            try:
                values.append(read(datum))
            except FlawError as flaw:
                values.append(None)
                errors.append(_error(index, flaw.message, flaw.field))
                if stop or len(errors) == MAX_ROW_ERRORS:
                    break
        return values, errors

    def _flaws(self, value: Sequence[Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        flaws, odd = [], []
        for rule, judge in self._rules:
            match judge(value):
                case Verdict.BAD:
                    flaws.append((rule.field, rule.expected))
                case Verdict.ODD:
                    odd.append((rule.field, f"{rule.expected}; got one whose outer check character does not fit"))
        return flaws, odd

    def _key_text(self, value: Sequence[Any]) -> str | None:
        parts = [part(value) for part in self._key]
        return None if any(not part or _SEPARATOR in part for part in parts) else _SEPARATOR.join(parts)


def _error(index: int, message: str, field: str) -> RowError:
    return RowError(index=index, reason=Reason.RECORD_INVALID, field=field, message=message)


def _indexes(schema: ParsedSchema, names: Sequence[str]) -> list[tuple[str, int]]:
    known = {field.name: index for index, field in enumerate(schema.fields)}
    return [(name, known[name]) for name in names]


def _text(shape: Shape, index: int) -> Callable[[Sequence[Any]], str | None]:
    """Return the function that takes a string's or enum's text out of a record."""
    inner = shape.parts[0] if shape.kind is Kind.OPTIONAL else shape
    symbols = inner.symbols

    def text(value: Sequence[Any]) -> str | None:
        part = value[index]
        stated: str | None = part if part is None or not symbols else symbols[part]
        return stated

    return text


def _key_part(shape: Shape, index: int) -> Callable[[Sequence[Any]], str]:
    text = _text(shape, index)

    def part(value: Sequence[Any]) -> str:
        stated = text(value)
        return "" if stated is None else str(stated)

    return part


def _judge(rule: Rule, schema: ParsedSchema) -> tuple[Rule, Callable[[Sequence[Any]], Verdict]]:
    named = {name: _text(schema.field(name).shape, index) for name, index in _indexes(schema, _named(rule))}
    text = named[rule.field]
    conditions = [(named[condition.field], condition.texts) for condition in rule.conditions]

    def judge(value: Sequence[Any]) -> Verdict:
        stated = text(value)
        if stated is None or any(other(value) not in texts for other, texts in conditions):
            return Verdict.GOOD
        return rule.judge(stated)

    return rule, judge


def _named(rule: Rule) -> list[str]:
    return [rule.field, *(condition.field for condition in rule.conditions)]

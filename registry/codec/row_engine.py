"""Row engine: every type, one datum after the other, in Python alone.

It reads batches that are too small for columns to pay, schemas whose types have no columnar form, and every batch
that the column engine could not verify: it alone decides what is refused, and it names the rows. The column engine's
results are compared with its own when a schema is compiled (`registry.codec.codec`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from typing_extensions import override

from registry.avro.field_rules import Rule, Verdict
from registry.avro.parser import ParsedSchema
from registry.avro.type_tree import TypeKind, TypeNode, require_terminating
from registry.codec.arrow_values import values_from_arrow, values_to_arrow
from registry.codec.column_matching import match_columns, selected_indexes
from registry.codec.datum_reader import DatumError, compile_reader
from registry.codec.datum_writer import compile_writer
from registry.codec.engine import MAX_ROW_ERRORS, CheckedBatch, Datums, Engine, RowError, rows_invalid_error
from schemas.errors import InvalidError, Reason
from schemas.record import Packed

__all__ = ["RowEngine", "arrow_schema"]

_SEPARATOR = "\x1f"


def arrow_schema(schema: ParsedSchema) -> pa.Schema:
    """Return the Arrow schema of a record schema's logical form.

    Raises:
        InvalidError: SCHEMA_INVALID, for a schema that is not a record, or a record without fields; SCHEMA_UNSAFE, for
            one that is infinitely recursive.
    """
    require_terminating(schema.type_tree)
    if not schema.fields:
        raise InvalidError(
            Reason.SCHEMA_INVALID,
            f"got {schema.fullname or 'a schema that is no record'}; expected a record with at least one field",
        )
    return pa.schema([pa.field(field.name, field.type_tree.arrow, field.type_tree.nullable) for field in schema.fields])


class RowEngine(Engine):
    """Row engine: an `Engine` in Python alone.

    Args:
        schema: a record schema with at least one field.

    Raises:
        InvalidError: SCHEMA_INVALID, see `arrow_schema`.
    """

    name = "rows"

    def __init__(self, schema: ParsedSchema) -> None:
        self.schema = arrow_schema(schema)
        self._fields = schema.fields
        self._read = compile_reader(schema.type_tree)
        self._write = compile_writer(schema.type_tree)
        self._key = [_key_part(schema.field(name).type_tree, index) for name, index in _indexes(schema, schema.key)]
        self._key_names = schema.key
        self._rules = [_compile_rule(rule, schema) for rule in schema.rules]

    @override
    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        wanted = selected_indexes(self._fields, select)
        values, errors = self._values(datums)
        if errors:
            raise rows_invalid_error(errors, len(datums))
        arrays = [
            values_to_arrow([value[index] for value in values], self._fields[index].type_tree) for index in wanted
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self.schema.field(index) for index in wanted]))

    @override
    def encode(self, batch: pa.RecordBatch) -> Packed:
        columns = []
        for column, field in zip(match_columns(batch, self._fields), self._fields, strict=True):
            try:
                columns.append(values_from_arrow(column, field.type_tree))
            except DatumError as error:
                raise rows_invalid_error([_error(0, error.message, field.name)], len(batch)) from None
        datums, errors = [], []
        for index, row in enumerate(zip(*columns, strict=True)):
            try:
                datums.append(self._write(row))
            except DatumError as error:
                errors.append(_error(index, error.message, error.field))
                if len(errors) == MAX_ROW_ERRORS:
                    break
        if errors:
            raise rows_invalid_error(errors, len(batch))
        return Packed.of(datums)

    @override
    def check(self, datums: Datums) -> CheckedBatch | list[RowError]:
        values, errors = self._values(datums, stop=False)
        keys: list[bytes] = []
        warnings: list[RowError] = []
        for index, value in enumerate(values):
            if len(errors) >= MAX_ROW_ERRORS:
                break
            if value is None:
                continue
            invalid, suspect = self._check_rules(value)
            errors.extend(_error(index, message, field) for field, message in invalid)
            warnings.extend(_error(index, message, field) for field, message in suspect)
            if not invalid and self._key:
                key = self._key_text(value)
                if key is None:
                    message = "expected a value without U+001F, and not empty, in every part of the key"
                    errors.append(_error(index, message, ", ".join(self._key_names)))
                else:
                    keys.append(key.encode())
        if errors:
            return sorted(errors, key=lambda error: error.index)[:MAX_ROW_ERRORS]
        return CheckedBatch(keys=keys, warnings=tuple(warnings[:MAX_ROW_ERRORS]))

    def _values(self, datums: Datums, stop: bool = True) -> tuple[list[Any], list[RowError]]:
        """Read the datums; an invalid one becomes None and an error."""
        values: list[Any] = []
        errors: list[RowError] = []
        read = self._read
        for index, datum in enumerate(datums):
            try:
                values.append(read(datum))
            except DatumError as error:
                values.append(None)
                errors.append(_error(index, error.message, error.field))
                if stop or len(errors) == MAX_ROW_ERRORS:
                    break
        return values, errors

    def _check_rules(self, value: Sequence[Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        invalid, suspect = [], []
        for rule, check_rule in self._rules:
            match check_rule(value):
                case Verdict.INVALID:
                    invalid.append((rule.field, rule.expected))
                case Verdict.SUSPECT:
                    suspect.append((rule.field, f"{rule.expected}; got one whose outer check character does not fit"))
        return invalid, suspect

    def _key_text(self, value: Sequence[Any]) -> str | None:
        parts = [part(value) for part in self._key]
        return None if any(not part or _SEPARATOR in part for part in parts) else _SEPARATOR.join(parts)


def _error(index: int, message: str, field: str) -> RowError:
    return RowError(index=index, reason=Reason.RECORD_INVALID, field=field, message=message)


def _indexes(schema: ParsedSchema, names: Sequence[str]) -> list[tuple[str, int]]:
    known = {field.name: index for index, field in enumerate(schema.fields)}
    return [(name, known[name]) for name in names]


def _text(node: TypeNode, index: int) -> Callable[[Sequence[Any]], str | None]:
    """Return a function that extracts a string's or enum's text from a record."""
    inner = node.parts[0] if node.kind is TypeKind.OPTIONAL else node
    symbols = inner.symbols

    def text(value: Sequence[Any]) -> str | None:
        part = value[index]
        stated: str | None = part if part is None or not symbols else symbols[part]
        return stated

    return text


def _key_part(node: TypeNode, index: int) -> Callable[[Sequence[Any]], str]:
    text = _text(node, index)

    def part(value: Sequence[Any]) -> str:
        stated = text(value)
        return "" if stated is None else str(stated)

    return part


def _compile_rule(rule: Rule, schema: ParsedSchema) -> tuple[Rule, Callable[[Sequence[Any]], Verdict]]:
    named = {name: _text(schema.field(name).type_tree, index) for name, index in _indexes(schema, _named(rule))}
    text = named[rule.field]
    conditions = [(named[condition.field], condition.texts) for condition in rule.conditions]

    def check_rule(value: Sequence[Any]) -> Verdict:
        stated = text(value)
        if stated is None or any(other(value) not in texts for other, texts in conditions):
            return Verdict.VALID
        return rule.check_text(stated)

    return rule, check_rule


def _named(rule: Rule) -> list[str]:
    return [rule.field, *(condition.field for condition in rule.conditions)]

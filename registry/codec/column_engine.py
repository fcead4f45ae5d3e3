"""Column engine: reads and writes whole batches with pyruhvro, over a physical schema of the same wire format.

It is fast and it is not careful, so every known trap of the library is closed before or after the call:

* it reads ints that wrap and strings that are not UTF-8: both are checked after reading
  (`registry.codec.from_physical`);
* it overlooks bytes behind a datum: a published batch is accepted only if writing it again gives the same bytes;
* it writes the value under a null, wraps ints, takes the last of two columns of one name and writes other rows of a
  slice: refused or mended before writing (`registry.codec.column_matching`, `registry.codec.to_physical`,
  `registry.codec.physical_schema.without_offsets`);
* it panics with an exception that `except Exception` does not catch, and prints a backtrace unless told otherwise;
* after it has written in a process, a fork of that process hangs: workers are spawned, never forked.

What it cannot verify ends as a `NotVerifiableError`, never as a refusal: `registry.codec.codec` then falls back to the
row engine.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from registry.avro.field_rules import Rule, Verdict, text_buffers
from registry.avro.parser import ParsedSchema
from registry.avro.type_tree import TypeKind
from registry.codec.column_matching import match_columns, selected_indexes
from registry.codec.engine import MAX_ROW_ERRORS, CheckedBatch, Datums, Engine, RowError
from registry.codec.framing import as_list, from_arrow
from registry.codec.from_physical import compile_constant, compile_from_physical
from registry.codec.physical_schema import NotVerifiableError, physical_type, without_offsets
from registry.codec.row_engine import arrow_schema
from registry.codec.to_physical import compile_to_physical
from schemas.errors import InvalidError, Reason
from schemas.record import Packed

# Read at the first error: hostile datums end in errors, and a backtrace costs 16 times as much as the error itself.
os.environ["RUST_BACKTRACE"] = os.environ["RUST_LIB_BACKTRACE"] = "0"
try:
    import pyruhvro
except ImportError:  # no wheel for this platform: the row engine reads everything
    pyruhvro = None

__all__ = ["ColumnEngine", "UnsupportedError"]

MAX_DECODED_BYTES = 64 * 1024 * 1024
_SAFE_BYTES = 1024 * 1024  # of Avro: under no accepted schema can so few become more than the cap

_SEPARATOR = "\x1f"
_VALIDATED = frozenset(TypeKind) - {TypeKind.BOOLEAN, TypeKind.FLOAT, TypeKind.DOUBLE, TypeKind.BYTES, TypeKind.FIXED}


class UnsupportedError(Exception):
    """The schema has no physical form, or the library is not installed; the message says which."""


class ColumnEngine(Engine):
    """Column engine: an `Engine` that raises NotVerifiableError for what it cannot verify.

    Args:
        schema: a record schema with at least one field.

    Raises:
        UnsupportedError: no physical form.
    """

    name = "columns"

    def __init__(self, schema: ParsedSchema) -> None:
        if pyruhvro is None:
            raise UnsupportedError("pyruhvro is not installed")
        physical = physical_type(schema.type_tree)
        if physical is None:
            raise UnsupportedError("the schema has a type without a columnar form")
        self.schema = arrow_schema(schema)
        self._text = json.dumps(physical, separators=(",", ":"))
        self._fields = schema.fields
        encoded = [index for index, field in enumerate(schema.fields) if field.type_tree.min_wire_size]
        self._column_of = {index: column for column, index in enumerate(encoded)}
        self._names = [f"c{column}" for column in range(len(encoded))]
        self._from_physical = {index: compile_from_physical(schema.fields[index].type_tree) for index in encoded}
        self._constants = {
            index: compile_constant(field.type_tree)
            for index, field in enumerate(schema.fields)
            if index not in self._column_of
        }
        self._to_physical = [compile_to_physical(schema.fields[index].type_tree) for index in encoded]
        index_of = {field.name: index for index, field in enumerate(schema.fields)}
        self._key = [index_of[name] for name in schema.key]
        self._rules = [_compile_rule(rule, index_of) for rule in schema.rules]

    @override
    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        wanted = selected_indexes(self._fields, select)
        batch = self._read(_listed(datums))
        arrays = [self._logical(batch, index) for index in wanted]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self.schema.field(index) for index in wanted]))

    @override
    def encode(self, batch: pa.RecordBatch) -> Packed:
        columns = match_columns(batch, self._fields)
        for index, field in enumerate(self._fields):
            if index not in self._column_of and columns[index].null_count and not field.type_tree.nullable:
                raise NotVerifiableError
        physical = [
            convert(without_offsets(columns[index]), None)
            for index, convert in zip(self._column_of, self._to_physical, strict=True)
        ]
        return from_arrow(self._write(pa.RecordBatch.from_arrays(physical, names=self._names)))

    @override
    def check(self, datums: Datums) -> CheckedBatch:
        items = _listed(datums)
        batch = self._read(items)
        if not _same_bytes(self._write(batch), items):
            raise NotVerifiableError
        needed = {index for rule in self._rules for index in rule[1]} | set(self._key)
        columns: dict[int, pa.Array] = {}
        for index, field in enumerate(self._fields):
            if index in needed or _content(field.type_tree.kind, field.type_tree.parts) in _VALIDATED:
                columns[index] = self._logical(batch, index)
        warnings: list[RowError] = []
        for rule, _, check_rule in self._rules:
            verdicts = check_rule(columns)
            if not verdicts.any():
                continue
            if verdicts.max() == Verdict.INVALID:
                raise NotVerifiableError
            message = f"{rule.expected}; got one whose outer check character does not fit"
            warnings.extend(
                RowError(index=int(row), reason=Reason.RECORD_INVALID, field=rule.field, message=message)
                for row in np.flatnonzero(verdicts)[:MAX_ROW_ERRORS]
            )
        warnings.sort(key=lambda warning: warning.index)
        return CheckedBatch(keys=self._keys(columns), warnings=tuple(warnings[:MAX_ROW_ERRORS]))

    def _logical(self, batch: pa.RecordBatch, index: int) -> pa.Array:
        column = self._column_of.get(index)
        return (
            self._constants[index](len(batch)) if column is None else self._from_physical[index](batch.column(column))
        )

    def _keys(self, columns: dict[int, pa.Array]) -> list[bytes]:
        if not self._key:
            return []
        parts = [_key_texts(columns[index]) for index in self._key]
        for part in parts:
            data, starts, lengths = text_buffers(part)
            used = data[starts[0] : starts[-1] + lengths[-1]] if len(starts) else data
            if part.null_count or (len(lengths) and lengths.min() == 0) or (used == ord(_SEPARATOR)).any():
                raise NotVerifiableError
        joined = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, _SEPARATOR)
        return as_list(from_arrow(joined))

    def _read(self, items: list[bytes]) -> pa.RecordBatch:
        batch = _guarded(lambda: pyruhvro.deserialize_array(items, self._text))
        if batch.nbytes > MAX_DECODED_BYTES and sum(map(len, items)) > _SAFE_BYTES:
            raise InvalidError(
                Reason.BATCH_TOO_LARGE,
                f"got a batch that takes {batch.nbytes} bytes once decoded; expected at most {MAX_DECODED_BYTES}: send "
                "smaller batches",
            )
        return batch

    def _write(self, batch: pa.RecordBatch) -> pa.BinaryArray:
        written = _guarded(lambda: pyruhvro.serialize_record_batch(batch, self._text, 1))
        if len(written) != 1 or len(written[0]) != len(batch):
            raise NotVerifiableError
        return written[0]


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is not an Exception, and its text may hold a record's value
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise NotVerifiableError from None
        raise


def _listed(datums: Datums) -> list[bytes]:
    if isinstance(datums, Packed):
        return as_list(datums)
    return datums if type(datums) is list else list(datums)


def _same_bytes(written: pa.BinaryArray, items: list[bytes]) -> bool:
    _, offsets, values = written.buffers()
    ends = np.frombuffer(offsets, np.int32, len(items) + 1) if items else np.zeros(1, np.int32)
    lengths = np.fromiter(map(len, items), np.int64, len(items))
    if not np.array_equal(np.diff(ends), lengths):
        return False
    size = int(lengths.sum())
    return not size or bool(values.slice(0, size).equals(pa.py_buffer(b"".join(items))))


def _content(kind: TypeKind, parts: Sequence[Any]) -> TypeKind:
    return parts[0].kind if kind is TypeKind.OPTIONAL else kind


def _key_texts(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column
    numbers = column if column.type in {pa.int32(), pa.int64()} else column.view(_width(column.type))
    return numbers.cast(pa.string())


def _width(stated: pa.DataType) -> pa.DataType:
    return pa.int32() if stated.bit_width == 32 else pa.int64()


_RuleCheck = tuple[Rule, frozenset[int], Callable[[dict[int, pa.Array]], Any]]


def _compile_rule(rule: Rule, index_of: dict[str, int]) -> _RuleCheck:
    field = index_of[rule.field]
    conditions = [(index_of[condition.field], condition) for condition in rule.conditions]

    def check_rule(columns: dict[int, pa.Array]) -> Any:
        verdicts = rule.check_column(columns[field])
        for index, condition in conditions:
            verdicts[~condition.column(columns[index])] = 0  # GOOD
        return verdicts

    return rule, frozenset({field, *(index for index, _ in conditions)}), check_rule

"""The column engine: whole batches at once, by pyruhvro, over a physical schema with the same wire format.

It is fast and it is not careful, so every trap that it is known to have is closed on the way in or out:

* it reads ints that wrap and strings that are no UTF-8: both are looked at after reading
(`registry.codec.from_physical`);
* it overlooks bytes behind a datum: a published batch is accepted only if writing it again gives the same bytes;
* it writes what lies under a null, wraps ints, takes the last of two columns of one name and writes other rows of a
  slice: refused or mended before writing (`registry.codec.column_matching`, `registry.codec.to_physical`,
  `registry.codec.physical_schema.whole`);
* it panics with an exception that `except Exception` does not catch, and prints a backtrace unless told otherwise;
* after it has written in a process, a fork of that process hangs: workers are spawned, never forked.

Whatever it will not vouch for ends as a `DoubtError`, never as a refusal: `registry.codec.codec` then asks the row
engine.
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
from registry.avro.type_tree import Kind
from registry.codec.column_matching import align, selected
from registry.codec.engine import MAX_ROW_ERRORS, Checked, Datums, Engine, RowError
from registry.codec.framing import as_list, from_arrow
from registry.codec.from_physical import constant_of, lift_of
from registry.codec.physical_schema import DoubtError, physical_type, whole
from registry.codec.row_engine import arrow_schema
from registry.codec.to_physical import lower_of
from schemas.errors import InvalidError, Reason
from schemas.record import Packed

# Read at the first error: hostile datums end in errors, and a backtrace costs 16 times as much as the error itself.
os.environ["RUST_BACKTRACE"] = os.environ["RUST_LIB_BACKTRACE"] = "0"
try:
    import pyruhvro
except ImportError:  # no wheel for this machine: the row engine reads everything
    pyruhvro = None

__all__ = ["ColumnEngine", "UnsupportedError"]

MAX_DECODED_BYTES = 64 * 1024 * 1024
_SAFE_BYTES = 1024 * 1024  # of Avro: no schema that was accepted can turn so few into more than the cap

_SEPARATOR = "\x1f"
_VALIDATED = frozenset(Kind) - {Kind.BOOLEAN, Kind.FLOAT, Kind.DOUBLE, Kind.BYTES, Kind.FIXED}


class UnsupportedError(Exception):
    """The schema has no physical form, or the library is not there; the message says which."""


class ColumnEngine(Engine):
    """Implements the calls of `registry.codec.engine.Engine`, but raises DoubtError where it will not vouch.

    Args:
        schema: a record schema with at least one field.

    Raises:
        UnsupportedError: no physical form.
    """

    name = "columns"

    def __init__(self, schema: ParsedSchema) -> None:
        if pyruhvro is None:
            raise UnsupportedError("pyruhvro is not installed")
        physical = physical_type(schema.shape)
        if physical is None:
            raise UnsupportedError("the schema has a type without a columnar form")
        self.schema = arrow_schema(schema)
        self._text = json.dumps(physical, separators=(",", ":"))
        self._fields = schema.fields
        places = [index for index, field in enumerate(schema.fields) if field.shape.least]
        self._place = {index: place for place, index in enumerate(places)}
        self._names = [f"c{place}" for place in range(len(places))]
        self._lifts = {index: lift_of(schema.fields[index].shape) for index in places}
        self._constants = {
            index: constant_of(field.shape) for index, field in enumerate(schema.fields) if index not in self._place
        }
        self._lowers = [lower_of(schema.fields[index].shape) for index in places]
        index_of = {field.name: index for index, field in enumerate(schema.fields)}
        self._key = [index_of[name] for name in schema.key]
        self._rules = [_judge(rule, index_of) for rule in schema.rules]

    @override
    def decode(self, datums: Datums, select: tuple[str, ...] | None = None) -> pa.RecordBatch:
        wanted = selected(self._fields, select)
        batch = self._read(_listed(datums))
        arrays = [self._lifted(batch, index) for index in wanted]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self.schema.field(index) for index in wanted]))

    @override
    def encode(self, batch: pa.RecordBatch) -> Packed:
        columns = align(batch, self._fields)
        for index, field in enumerate(self._fields):
            if index not in self._place and columns[index].null_count and not field.shape.nullable:
                raise DoubtError
        lowered = [lower(whole(columns[index]), None) for index, lower in zip(self._place, self._lowers, strict=True)]
        return from_arrow(self._write(pa.RecordBatch.from_arrays(lowered, names=self._names)))

    @override
    def check(self, datums: Datums) -> Checked:
        """; a batch that is not certainly good ends in DoubtError."""
        items = _listed(datums)
        batch = self._read(items)
        if not _same_bytes(self._write(batch), items):
            raise DoubtError
        needed = {index for rule in self._rules for index in rule[1]} | set(self._key)
        lifted: dict[int, pa.Array] = {}
        for index, field in enumerate(self._fields):
            if index in needed or _content(field.shape.kind, field.shape.parts) in _VALIDATED:
                lifted[index] = self._lifted(batch, index)
        warnings: list[RowError] = []
        for rule, _, judge in self._rules:
            verdicts = judge(lifted)
            if not verdicts.any():
                continue
            if verdicts.max() == Verdict.BAD:
                raise DoubtError
            message = f"{rule.expected}; got one whose outer check character does not fit"
            warnings.extend(
                RowError(index=int(row), reason=Reason.RECORD_INVALID, field=rule.field, message=message)
                for row in np.flatnonzero(verdicts)[:MAX_ROW_ERRORS]
            )
        warnings.sort(key=lambda warning: warning.index)
        return Checked(keys=self._keys(lifted), warnings=tuple(warnings[:MAX_ROW_ERRORS]))

    def _lifted(self, batch: pa.RecordBatch, index: int) -> pa.Array:
        place = self._place.get(index)
        return self._constants[index](len(batch)) if place is None else self._lifts[index](batch.column(place))

    def _keys(self, lifted: dict[int, pa.Array]) -> list[bytes]:
        if not self._key:
            return []
        parts = [_key_texts(lifted[index]) for index in self._key]
        for part in parts:
            data, starts, lengths = text_buffers(part)
            used = data[starts[0] : starts[-1] + lengths[-1]] if len(starts) else data
            if part.null_count or (len(lengths) and lengths.min() == 0) or (used == ord(_SEPARATOR)).any():
                raise DoubtError
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
            raise DoubtError
        return written[0]


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is no Exception, and its text may hold a record's value
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise DoubtError from None
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


def _content(kind: Kind, parts: Sequence[Any]) -> Kind:
    return parts[0].kind if kind is Kind.OPTIONAL else kind


def _key_texts(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column
    numbers = column if column.type in {pa.int32(), pa.int64()} else column.view(_width(column.type))
    return numbers.cast(pa.string())


def _width(stated: pa.DataType) -> pa.DataType:
    return pa.int32() if stated.bit_width == 32 else pa.int64()


_Judge = tuple[Rule, frozenset[int], Callable[[dict[int, pa.Array]], Any]]


def _judge(rule: Rule, index_of: dict[str, int]) -> _Judge:
    field = index_of[rule.field]
    conditions = [(index_of[condition.field], condition) for condition in rule.conditions]

    def judge(columns: dict[int, pa.Array]) -> Any:
        verdicts = rule.judge_column(columns[field])
        for index, condition in conditions:
            verdicts[~condition.column(columns[index])] = 0  # GOOD
        return verdicts

    return rule, frozenset({field, *(index for index, _ in conditions)}), judge

"""Column mapping: columns of text → columns of the record. A text that does not fit is a reject, not an error.

The mapping is compiled once for a contract (`ColumnMapping`) and bound once to the columns that a portion has
(`bind`), where a missing column stops everything: a contract break is not a bad row. Then, chunk by chunk:

    text ─ trim ─ strip ─ null values ─ renaming of values ─▶ converter of the field's type ─▶ checks ─▶ Arrow

Each column is converted on one of two paths, with the same values. On the vectorised path, where every text of the
chunk has the plain form of the type (a regular expression), Arrow parses the column in one call. On the scalar path
each *distinct* text goes through `connectors.mapping.conversion`, which is the definition. A property test holds the
two equal.

A null in a field that may not be null is a reject; it is never replaced by a default. An empty text is null for
everything but text fields, where it is a value unless `null_values` lists it.
"""

import re
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from connectors.mapping.contract import Contract, ContractField
from connectors.mapping.conversion import DATE, INTEGER, REAL, Converter, Fault, converter_for
from connectors.mapping.text_checks import CHECKS, IDENTITY_RULES, ROUNDED_NUMBER, rounded_number
from connectors.port import Reject, RejectCode, RowChunk
from registry.codec.codec import Engine
from schemas.errors import InvalidError, Reason
from schemas.record import key_bytes

__all__ = ["BoundMapping", "Column", "ColumnMapping", "MappedRows"]

_BLANKS = " \t\r\n\u00a0\u3000\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The configuration of one source column.

    Attributes:
        target: the record's field; the column's own name when empty.
        exclude: it never leaves this machine.
        type: the type that its author expects; must equal the contract's. Empty = as the contract says.
        formats: see `connectors.mapping.conversion.converter_for`.
        timezone: what its times without an offset mean.
        trim: remove blanks at both ends (always, but for text fields).
        strip: texts that are removed wherever they occur, such as "," and "元".
        null_values: texts that mean null, beside the publication's.
        values: a text → its name in the contract.
        check: name of a rule (`connectors.mapping.text_checks`).
        pattern: a regular expression that the whole text has to match.
        true_values, false_values: see `connectors.mapping.conversion.converter_for`.
    """

    target: str = ""
    exclude: bool = False
    type: str = ""
    formats: tuple[str, ...] = ()
    timezone: str = ""
    trim: bool = False
    strip: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    check: str = ""
    pattern: str = ""
    true_values: tuple[str, ...] = ()
    false_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRows:
    """The rows of one chunk after the mapping.

    Attributes:
        batch: the good rows as columns of the record, in order.
        rows: their indices in the chunk.
        keys: of every row of the chunk; None where a part of the key cannot be read.
        rejects: the other rows, one each, in order of line.
    """

    batch: pa.RecordBatch
    rows: Sequence[int]
    keys: Sequence[bytes | None]
    rejects: Sequence[Reject]


@dataclass(frozen=True, slots=True)
class _FieldPlan:
    """How one field is filled: from a source column, or with nulls."""

    field: ContractField
    arrow: pa.DataType
    source: str
    convert: Converter
    column: Column
    nulls: frozenset[str]
    test: Callable[[str], Fault | None] | None
    suspect: str  # a regular expression: the test has nothing against a text in which it is not found; "" = unknown


@dataclass(frozen=True, slots=True)
class _ConvertedColumn:
    """The values of a field, and its faults by row."""

    values: pa.Array
    faults: Mapping[int, Fault]


class ColumnMapping:
    """The columns of a configuration, compiled for a contract."""

    def __init__(
        self,
        contract: Contract,
        engine: Engine,
        columns: Mapping[str, Column],
        *,
        null_values: Sequence[str] = (),
        unknown_columns: str = "stop",
    ) -> None:
        """Compile.

        Raises:
            InvalidError: CONFIG_INVALID, when the configuration names a field, a type, a rule or a time zone that
                does not exist, or fills a field twice.
        """
        self.contract = contract
        self.columns = dict(columns)
        self._engine = engine
        self._null_values = tuple(null_values)
        self._ignore_unknown = unknown_columns == "ignore"
        filled_by: dict[str, str] = {}
        for name, column in columns.items():
            if column.exclude:
                continue
            target = column.target or name
            contract_field = contract.field(target)
            if contract_field is None:
                fields = ", ".join(each.name for each in contract.fields)
                raise _config_error(
                    f"column {name!r} goes to the field {target!r}, which the contract lacks; it has {fields}"
                )
            if target in filled_by:
                raise _config_error(f"columns {filled_by[target]!r} and {name!r} both fill the field {target!r}")
            if column.type and column.type.replace(" ", "") != str(contract_field.value_type):
                raise _config_error(
                    f"column {name!r} is declared {column.type}; the contract has {contract_field.value_type} there"
                )
            filled_by[target] = name
            self._plan_field(contract_field, name)

    def bind(self, present: Sequence[str]) -> "BoundMapping":
        """Bind the mapping to the columns that a portion has.

        Raises:
            InvalidError: CONTRACT_BROKEN, naming the columns that are missing or unknown.
        """
        sources = self.source_columns()
        mapped = {column.target or name for name, column in self.columns.items() if not column.exclude}
        plans, missing = [], []
        for contract_field in self.contract.fields:
            source = sources.get(contract_field.name)
            if source is not None and source in present:
                plans.append(self._plan_field(contract_field, source))
            elif contract_field.nullable and contract_field.name not in mapped:
                plans.append(self._plan_field(contract_field, ""))
            else:
                missing.append(source or contract_field.name)
        used = {plan.source for plan in plans} | {name for name, column in self.columns.items() if column.exclude}
        unknown = [] if self._ignore_unknown else [name for name in present if name not in used]
        if missing or unknown:
            what = [f"lacks the columns {', '.join(missing)}"] if missing else []
            what += [f"has columns that the contract does not know: {', '.join(unknown)}"] if unknown else []
            raise InvalidError(
                Reason.CONTRACT_BROKEN,
                f"the source {' and '.join(what)}; map them under `columns:`, exclude them there, or set "
                "`unknown_columns: ignore`",
                details={
                    "missing": ",".join(missing),
                    "unknown": ",".join(unknown),
                    "code": (RejectCode.CONTRACT_MISSING_FIELD if missing else RejectCode.CONTRACT_UNKNOWN_FIELD).value,
                },
            )
        return BoundMapping(plans, self.contract)

    def source_columns(self) -> dict[str, str]:
        """Return field → the column that fills it, of those that a column may fill."""
        by_target = {column.target or name: name for name, column in self.columns.items() if not column.exclude}
        by_name = {each.name: each.name for each in self.contract.fields if each.name not in self.columns}
        return by_name | by_target

    def zoneless(self) -> dict[str, str]:
        """Return column → field, of the columns that fill a moment in UTC and have no time zone in the configuration.

        Their texts must have an offset from UTC.
        """
        moments = {each.name for each in self.contract.fields if each.value_type.name.startswith("timestamp-")}
        return {
            column: name
            for name, column in self.source_columns().items()
            if name in moments and not self.columns.get(column, Column()).timezone
        }

    def _plan_field(self, contract_field: ContractField, source: str) -> _FieldPlan:
        column = self.columns.get(source, Column())
        arrow = self._engine.schema.field(contract_field.name).type
        try:
            zone = zoneinfo.ZoneInfo(column.timezone) if column.timezone else None
            pattern = re.compile(column.pattern) if column.pattern else None
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, re.error) as error:
            raise _config_error(f"column {source!r} has a time zone or a pattern that cannot be read") from error
        if column.check and column.check not in CHECKS:
            raise _config_error(
                f"column {source!r} has the check {column.check!r}; there are {', '.join(sorted(CHECKS))}"
            )
        truths = {"true": column.true_values} if column.true_values else {}
        truths |= {"false": column.false_values} if column.false_values else {}
        nulls = {*self._null_values, *column.null_values}
        return _FieldPlan(
            field=contract_field,
            arrow=pa.string() if pa.types.is_dictionary(arrow) else arrow,
            source=source,
            convert=converter_for(contract_field.value_type, formats=column.formats, zone=zone, **truths),
            column=column,
            nulls=frozenset(nulls if contract_field.value_type.text else nulls | {""}),
            test=_text_test(column.check, pattern, contract_field),
            suspect=_suspect(column, contract_field),
        )


class BoundMapping:
    """A mapping bound to the columns of a portion. Used by one thread."""

    def __init__(self, plans: Sequence[_FieldPlan], contract: Contract) -> None:
        self._plans = plans
        self._key_plans = [next(plan for plan in plans if plan.field.name == name) for name in contract.key]
        self.key_columns = [plan.source for plan in self._key_plans if plan.source]

    def keys(self, chunk: RowChunk) -> list[bytes | None]:
        """Return each row's key bytes (`schemas.record.key_bytes`); None where a part of it cannot be read."""
        return _keys([_convert_column(plan, chunk) for plan in self._key_plans], len(chunk))

    def map(self, chunk: RowChunk) -> MappedRows:
        """Convert the rows of a chunk."""
        converted = [_convert_column(plan, chunk) for plan in self._plans]
        by_name = {plan.field.name: each for plan, each in zip(self._plans, converted, strict=True)}
        keys = _keys([by_name[plan.field.name] for plan in self._key_plans], len(chunk))
        faults: dict[int, list[tuple[str, Fault]]] = {}
        for plan, each in zip(self._plans, converted, strict=True):
            for row, fault in each.faults.items():
                faults.setdefault(row, []).append((plan.field.name, fault))
        for row, key in enumerate(keys):
            if key is None and row not in faults:
                faults[row] = [(self._key_plans[0].field.name, _KEY_FAULT)]
        rejects = [
            Reject(
                line=chunk.lines[row],
                code=found[0][1].code,
                field=found[0][0],
                message=_reasons(found),
                original=chunk.originals[row],
            )
            for row, found in sorted(faults.items())
        ]
        names = [plan.field.name for plan in self._plans]
        batch = pa.RecordBatch.from_arrays([each.values for each in converted], names=names)
        rows: Sequence[int] = range(len(chunk))
        if faults:
            rows = [row for row in rows if row not in faults]
            batch = batch.take(pa.array(rows, pa.int32()))
        return MappedRows(batch=batch, rows=rows, keys=keys, rejects=rejects)


def _reasons(faults: Sequence[tuple[str, Fault]]) -> str:
    """Return what was expected of the first field with a fault, then of the others: a row is mended once."""
    (_, first), *others = faults
    named = [f"{name} ({fault.code.value}: expected {fault.expected})" for name, fault in others[:_MAX_REASONS]]
    more = len(others) - len(named)
    also = f"; also {', '.join(named)}{f', and {more} more' if more else ''}" if named else ""
    return f"expected {first.expected}{also}"


_MAX_REASONS = 10  # of one row, beside the first
_KEY_FAULT = Fault(RejectCode.NULL_NOT_ALLOWED, "text in every part of the key, without U+001F")
_NULL_FAULT = Fault(RejectCode.NULL_NOT_ALLOWED, "a value: the contract does not allow this field to be empty")


def _config_error(message: str) -> InvalidError:
    return InvalidError(Reason.CONFIG_INVALID, message)


def _text_test(
    check: str, pattern: re.Pattern[str] | None, contract_field: ContractField
) -> Callable[[str], Fault | None] | None:
    # The contract's own rules are checked on the record; that a number was rounded only shows in its text.
    rule = CHECKS.get(check) or (rounded_number if IDENTITY_RULES.intersection(contract_field.rules) else None)
    if rule is None and pattern is None:
        return None
    misfit = Fault(RejectCode.TYPE, f"text of the form {pattern.pattern}") if pattern is not None else None

    def test(text: str) -> Fault | None:
        if pattern is not None and not pattern.fullmatch(text):
            return misfit
        return rule(text) if rule is not None else None

    return test


def _suspect(column: Column, contract_field: ContractField) -> str:
    only_rounded = not column.check and not column.pattern and IDENTITY_RULES.intersection(contract_field.rules)
    return f"^({ROUNDED_NUMBER})$" if only_rounded else ""


def _convert_column(plan: _FieldPlan, chunk: RowChunk) -> _ConvertedColumn:
    if not plan.source:
        return _ConvertedColumn(pa.nulls(len(chunk), plan.arrow), {})
    texts = _normalise(plan, chunk.columns[plan.source])
    values = _convert_vectorised(plan, texts)
    converted = _ConvertedColumn(values, {}) if values is not None else _convert_scalar(plan, texts)
    if plan.field.nullable or not texts.null_count:
        return converted
    absent = pc.indices_nonzero(texts.is_null()).to_pylist()
    return _ConvertedColumn(converted.values, {**converted.faults, **dict.fromkeys(absent, _NULL_FAULT)})


def _normalise(plan: _FieldPlan, texts: pa.StringArray) -> pa.StringArray:
    if plan.column.trim or not plan.field.value_type.text:
        texts = pc.utf8_trim(texts, characters=_BLANKS)
    for each in plan.column.strip:
        texts = pc.replace_substring(texts, pattern=each, replacement="")
    if plan.nulls:
        absent = pc.is_in(texts, value_set=pa.array(sorted(plan.nulls), pa.string()))
        if pc.any(absent).as_py():
            texts = pc.if_else(absent, pa.scalar(None, pa.string()), texts)
    return texts


# A type's plain form: texts that Arrow parses exactly as `connectors.mapping.conversion` does. Arrow alone would also
# accept 0x1F.
_PLAIN_FORMS = {
    "int": rf"^{INTEGER}(\.0{{0,9}})?$",
    "long": rf"^{INTEGER}(\.0{{0,9}})?$",
    "float": rf"^{REAL}$",
    "double": rf"^{REAL}$",
    "date": rf"^{DATE}$",
}


def _convert_vectorised(  # noqa: PLR0911 - one line a reason for the scalar path
    plan: _FieldPlan, texts: pa.StringArray
) -> pa.Array | None:
    """Return the whole column converted, or None when some text is not of the plain form or is out of range."""
    value_type, column = plan.field.value_type, plan.column
    if column.values or column.formats or not _passes_test(plan, texts):
        return None
    if value_type.text:
        return texts
    form = _PLAIN_FORMS.get(value_type.name)
    if value_type.name == "decimal" and 0 < value_type.scale < value_type.precision <= 38:
        form = rf"^-?[0-9]{{1,{value_type.precision - value_type.scale}}}(\.[0-9]{{1,{value_type.scale}}})?$"
    if form is None or not pc.all(pc.match_substring_regex(texts, form), min_count=0).as_py():
        return None
    if value_type.name in ("int", "long"):
        texts = pc.replace_substring_regex(texts, pattern=r"\..*", replacement="")
    try:
        # A float is rounded to a double first, as the scalar path does it: half way between two floats it matters.
        values = pc.cast(texts, pa.float64() if value_type.name == "float" else plan.arrow)
        values = pc.cast(values, plan.arrow, safe=value_type.name != "float")
    except pa.ArrowInvalid:
        return None
    if value_type.name in ("float", "double") and not pc.all(pc.is_finite(values), min_count=0).as_py():
        return None
    if value_type.name == "date" and not pc.all(pc.greater_equal(values, pa.scalar(date.min)), min_count=0).as_py():
        return None
    return values


def _passes_test(plan: _FieldPlan, texts: pa.StringArray) -> bool:
    """Return whether no text of the column has a fault, as far as that is known without asking for each."""
    if plan.test is None:
        return True
    return bool(plan.suspect) and not pc.any(pc.match_substring_regex(texts, plan.suspect)).as_py()


def _convert_scalar(plan: _FieldPlan, texts: pa.StringArray) -> _ConvertedColumn:
    coded = texts.dictionary_encode()
    results = [_convert_text(plan, text) for text in coded.dictionary.to_pylist()]
    values = pa.array([None if isinstance(each, Fault) else each for each in results], plan.arrow)
    bad = {code: each for code, each in enumerate(results) if isinstance(each, Fault)}
    faults: dict[int, Fault] = {}
    if bad:
        faults = {row: bad[code] for row, code in enumerate(coded.indices.to_pylist()) if code in bad}
    return _ConvertedColumn(values.take(coded.indices), faults)


def _convert_text(plan: _FieldPlan, text: str) -> object:
    text = plan.column.values.get(text, text)
    if plan.test is not None and (fault := plan.test(text)) is not None:
        return fault
    return plan.convert(text)


def _keys(parts: Sequence[_ConvertedColumn], count: int) -> list[bytes | None]:
    texts = [_key_part(part) for part in parts]
    if len(texts) == 1:  # the common case; the same as below, in a third of the time
        return [text.encode() if text and "\x1f" not in text else None for text in texts[0]]
    return [_key(row) for row in zip(*texts, strict=True)] if count else []


def _key(parts: Sequence[str | None]) -> bytes | None:
    present = [part for part in parts if part and "\x1f" not in part]
    return key_bytes(present) if len(present) == len(parts) else None


def _key_part(part: _ConvertedColumn) -> list[str | None]:
    """Return strings as they are, integers in decimal, dates as days since 1970-01-01 (`schemas.record.key_bytes`)."""
    arrow_type = part.values.type
    if pa.types.is_date32(arrow_type):
        texts = pc.cast(pc.cast(part.values, pa.int32()), pa.string()).to_pylist()
    else:
        texts = pc.cast(part.values, pa.string()).to_pylist()
    for row in part.faults:
        texts[row] = None
    return list(texts)

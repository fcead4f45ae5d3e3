"""Columns of text → columns of the record, by the schema. What does not fit is a value with a reason, not an error.

The mapping is compiled once for a contract (`Mapping.compile`) and bound once to the columns that a portion has
(`bind`), where a missing column stops everything: a contract break is not a bad row. Then, chunk by chunk:

    text ─ trim ─ strip ─ null values ─ renaming of values ─▶ converter of the field's kind ─▶ checks ─▶ Arrow

Each column takes one of two roads to the same values. Where every text of the chunk has the plain form of the kind
(a regular expression says so), Arrow reads the column at once. Otherwise each *distinct* text goes through
`connectors.mapping.conversion`, which is the definition. A property test holds the roads together.

A null in a field that may not be null is a reject; it is never replaced by a default. An empty text is null for
everything but text fields, where it is a value unless `null_values` lists it.
"""

import re
import zoneinfo
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from connectors.mapping.contract import Contract, Field
from connectors.mapping.conversion import DATE, INTEGER, REAL, Converter, Fault, converter
from connectors.mapping.text_checks import CHECKS, IDENTITIES, floating
from connectors.port import Changes, Reject, RejectCode
from registry.codec.codec import Engine
from schemas.errors import InvalidError, Reason
from schemas.record import key_bytes

__all__ = ["Bound", "Column", "Mapped", "Mapping"]

_BLANK = " \t\r\n\u00a0\u3000\ufeff"
_EPOCH = date(1970, 1, 1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a configuration says of one source column.

    Attributes:
        target: the record's field; the column's own name when empty.
        exclude: it never leaves this machine.
        type: the kind that its author believes it to be; must equal the contract's. Empty = as the contract says.
        formats: see `convert.converter`.
        timezone: what its times without an offset mean.
        trim: cut blanks at both ends (always, but for text fields).
        strip: texts that are removed wherever they stand, such as "," and "元".
        null_values: texts that stand for "no value", beside the publication's.
        values: a text → what it is called in the contract.
        check: name of a rule (`connectors.mapping.text_checks`).
        pattern: a regular expression that the whole text has to match.
        true_values, false_values: see `convert.converter`.
    """

    target: str = ""
    exclude: bool = False
    type: str = ""
    formats: tuple[str, ...] = ()
    timezone: str = ""
    trim: bool = False
    strip: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()
    values: MappingOf[str, str] = field(default_factory=dict)
    check: str = ""
    pattern: str = ""
    true_values: tuple[str, ...] = ()
    false_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What became of a chunk.

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
class _Plan:
    """How one field is filled: from a column, or with nothing."""

    field: Field
    arrow: pa.DataType
    source: str
    convert: Converter
    column: Column
    nulls: frozenset[str]
    test: Callable[[str], Fault | None] | None


@dataclass(frozen=True, slots=True)
class _Filled:
    """A field's column, and its faults by row."""

    values: pa.Array
    faults: MappingOf[int, Fault]


class Mapping:
    """A configuration's columns held against a contract."""

    def __init__(
        self,
        contract: Contract,
        engine: Engine,
        columns: MappingOf[str, Column],
        *,
        null_values: Sequence[str] = (),
        unknown_columns: str = "stop",
    ) -> None:
        """Compile.

        Raises:
            InvalidError: CONFIG_INVALID, when the configuration names a field, a type, a rule or a time zone that
                is not there, or fills a field twice.
        """
        self.contract = contract
        self.columns = dict(columns)
        self._engine = engine
        self._null_values = tuple(null_values)
        self._ignore_unknown = unknown_columns == "ignore"
        taken: dict[str, str] = {}
        for name, column in columns.items():
            if column.exclude:
                continue
            target = column.target or name
            known = contract.field(target)
            if known is None:
                fields = ", ".join(each.name for each in contract.fields)
                raise _config(
                    f"column {name!r} goes to the field {target!r}, which the contract lacks; it has {fields}"
                )
            if target in taken:
                raise _config(f"columns {taken[target]!r} and {name!r} both fill the field {target!r}")
            if column.type and column.type.replace(" ", "") != str(known.kind):
                raise _config(f"column {name!r} is declared {column.type}; the contract has {known.kind} there")
            taken[target] = name
            self._plan(known, name)

    def bind(self, present: Sequence[str]) -> "Bound":
        """Hold the mapping against the columns that a portion has.

        Raises:
            InvalidError: CONTRACT_BROKEN, naming the columns that are missing or that nobody expects.
        """
        by_target = {column.target or name: name for name, column in self.columns.items() if not column.exclude}
        plans, missing = [], []
        for known in self.contract.fields:
            source = by_target.get(known.name)
            if source is None and known.name not in self.columns:
                source = known.name
            if source is not None and source in present:
                plans.append(self._plan(known, source))
            elif known.nullable and known.name not in by_target:
                plans.append(self._plan(known, ""))
            else:
                missing.append(source or known.name)
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
        return Bound(plans, self.contract)

    def _plan(self, known: Field, source: str) -> _Plan:
        column = self.columns.get(source, Column())
        arrow = self._engine.schema.field(known.name).type
        try:
            zone = zoneinfo.ZoneInfo(column.timezone) if column.timezone else None
            pattern = re.compile(column.pattern) if column.pattern else None
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, re.error) as error:
            raise _config(f"column {source!r} has a time zone or a pattern that cannot be read") from error
        if column.check and column.check not in CHECKS:
            raise _config(f"column {source!r} has the check {column.check!r}; there are {', '.join(sorted(CHECKS))}")
        truths = {"true": column.true_values} if column.true_values else {}
        truths |= {"false": column.false_values} if column.false_values else {}
        nulls = {*self._null_values, *column.null_values}
        return _Plan(
            field=known,
            arrow=pa.string() if pa.types.is_dictionary(arrow) else arrow,
            source=source,
            convert=converter(known.kind, formats=column.formats, zone=zone, **truths),
            column=column,
            nulls=frozenset(nulls if known.kind.text else nulls | {""}),
            test=_test(column.check, pattern, known),
        )


class Bound:
    """A mapping that knows which columns there are. Used by one thread."""

    def __init__(self, plans: Sequence[_Plan], contract: Contract) -> None:
        self._plans = plans
        self._key_plans = [next(plan for plan in plans if plan.field.name == name) for name in contract.key]
        self.key_columns = [plan.source for plan in self._key_plans if plan.source]

    def keys(self, changes: Changes) -> list[bytes | None]:
        """Return each row's key bytes (`schemas.record.key_bytes`); None where a part of it cannot be read."""
        return _keys([_fill(plan, changes) for plan in self._key_plans], len(changes))

    def map(self, changes: Changes) -> Mapped:
        """Convert the rows of a chunk."""
        filled = [_fill(plan, changes) for plan in self._plans]
        by_name = {plan.field.name: each for plan, each in zip(self._plans, filled, strict=True)}
        keys = _keys([by_name[plan.field.name] for plan in self._key_plans], len(changes))
        faults: dict[int, tuple[str, Fault]] = {}
        for plan, each in zip(self._plans, filled, strict=True):
            for row, fault in each.faults.items():
                faults.setdefault(row, (plan.field.name, fault))
        for row, key in enumerate(keys):
            if key is None and row not in faults:
                faults[row] = (self._key_plans[0].field.name, _NO_KEY)
        rejects = [
            Reject(
                line=changes.lines[row],
                code=fault.code,
                field=name,
                message=f"expected {fault.expected}",
                original=changes.originals[row],
            )
            for row, (name, fault) in sorted(faults.items())
        ]
        names = [plan.field.name for plan in self._plans]
        batch = pa.RecordBatch.from_arrays([each.values for each in filled], names=names)
        rows: Sequence[int] = range(len(changes))
        if faults:
            rows = [row for row in rows if row not in faults]
            batch = batch.take(pa.array(rows, pa.int32()))
        return Mapped(batch=batch, rows=rows, keys=keys, rejects=rejects)


_NO_KEY = Fault(RejectCode.NULL_NOT_ALLOWED, "text in every part of the key, without U+001F")
_NULL = Fault(RejectCode.NULL_NOT_ALLOWED, "a value: the contract does not allow this field to be empty")


def _config(message: str) -> InvalidError:
    return InvalidError(Reason.CONFIG_INVALID, message)


def _test(check: str, pattern: re.Pattern[str] | None, known: Field) -> Callable[[str], Fault | None] | None:
    # The contract's own rules are checked on the record; that a number was rounded only shows in its text.
    rule = CHECKS.get(check) or (floating if IDENTITIES.intersection(known.rules) else None)
    if rule is None and pattern is None:
        return None
    misfit = Fault(RejectCode.TYPE, f"text of the form {pattern.pattern}") if pattern is not None else None

    def test(text: str) -> Fault | None:
        if pattern is not None and not pattern.fullmatch(text):
            return misfit
        return rule(text) if rule is not None else None

    return test


def _fill(plan: _Plan, changes: Changes) -> _Filled:
    if not plan.source:
        return _Filled(pa.nulls(len(changes), plan.arrow), {})
    texts = _clean(plan, changes.columns[plan.source])
    values = _at_once(plan, texts)
    filled = _Filled(values, {}) if values is not None else _one_by_one(plan, texts)
    if plan.field.nullable or not texts.null_count:
        return filled
    absent = pc.indices_nonzero(texts.is_null()).to_pylist()
    return _Filled(filled.values, {**filled.faults, **dict.fromkeys(absent, _NULL)})


def _clean(plan: _Plan, texts: pa.StringArray) -> pa.StringArray:
    if plan.column.trim or not plan.field.kind.text:
        texts = pc.utf8_trim(texts, characters=_BLANK)
    for each in plan.column.strip:
        texts = pc.replace_substring(texts, pattern=each, replacement="")
    if plan.nulls:
        absent = pc.is_in(texts, value_set=pa.array(sorted(plan.nulls), pa.string()))
        if pc.any(absent).as_py():
            texts = pc.if_else(absent, pa.scalar(None, pa.string()), texts)
    return texts


# A kind's plain form: texts that Arrow reads exactly as `connectors.mapping.conversion` does. Arrow alone would also
# take 0x1F.
_FORMS = {
    "int": rf"^{INTEGER}(\.0{{0,9}})?$",
    "long": rf"^{INTEGER}(\.0{{0,9}})?$",
    "float": rf"^{REAL}$",
    "double": rf"^{REAL}$",
    "date": rf"^{DATE}$",
}


def _at_once(  # noqa: PLR0911 - one line a reason to go the other road
    plan: _Plan, texts: pa.StringArray
) -> pa.Array | None:
    """Return the whole column converted, or None when some text is not of the plain form or out of range."""
    kind, column = plan.field.kind, plan.column
    if column.values or plan.test is not None or column.formats:
        return None
    if kind.text:
        return texts
    form = _FORMS.get(kind.name)
    if kind.name == "decimal" and 0 < kind.scale < kind.precision <= 38:
        form = rf"^-?[0-9]{{1,{kind.precision - kind.scale}}}(\.[0-9]{{1,{kind.scale}}})?$"
    if form is None or not pc.all(pc.match_substring_regex(texts, form), min_count=0).as_py():
        return None
    if kind.name in ("int", "long"):
        texts = pc.replace_substring_regex(texts, pattern=r"\..*", replacement="")
    try:
        values = pc.cast(texts, plan.arrow)
    except pa.ArrowInvalid:
        return None
    if kind.name in ("float", "double") and not pc.all(pc.is_finite(values), min_count=0).as_py():
        return None
    if kind.name == "date" and not pc.all(pc.greater_equal(values, pa.scalar(date.min)), min_count=0).as_py():
        return None
    return values


def _one_by_one(plan: _Plan, texts: pa.StringArray) -> _Filled:
    coded = texts.dictionary_encode()
    results = [_read(plan, text) for text in coded.dictionary.to_pylist()]
    values = pa.array([None if isinstance(each, Fault) else each for each in results], plan.arrow)
    bad = {code: each for code, each in enumerate(results) if isinstance(each, Fault)}
    faults: dict[int, Fault] = {}
    if bad:
        faults = {row: bad[code] for row, code in enumerate(coded.indices.to_pylist()) if code in bad}
    return _Filled(values.take(coded.indices), faults)


def _read(plan: _Plan, text: str) -> object:
    text = plan.column.values.get(text, text)
    if plan.test is not None and (fault := plan.test(text)) is not None:
        return fault
    return plan.convert(text)


def _keys(parts: Sequence[_Filled], count: int) -> list[bytes | None]:
    texts = [_key_part(part) for part in parts]
    if len(texts) == 1:  # the common case; the same as below, at a third of the price
        return [text.encode() if text and "\x1f" not in text else None for text in texts[0]]
    return [_key(row) for row in zip(*texts, strict=True)] if count else []


def _key(parts: Sequence[str | None]) -> bytes | None:
    present = [part for part in parts if part and "\x1f" not in part]
    return key_bytes(present) if len(present) == len(parts) else None


def _key_part(part: _Filled) -> list[str | None]:
    """A string as it is, an integer in decimal, a date as its days since 1970-01-01 (`schemas.record.key_bytes`)."""
    kind = part.values.type
    if pa.types.is_date32(kind):
        texts = pc.cast(pc.cast(part.values, pa.int32()), pa.string()).to_pylist()
    else:
        texts = pc.cast(part.values, pa.string()).to_pylist()
    for row in part.faults:
        texts[row] = None
    return list(texts)

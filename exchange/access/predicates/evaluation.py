"""Evaluation of predicates: a row filter over a golden record and over what follows from it and the day. Pure.

Beside the fields of its library an expression may name

    age              completed years since `birth_date`: 80 from 00:00 of the 80th birthday in Asia/Shanghai on; who was
                     born on 29 February completes a year on 1 March where there is no such day
    days_to:FIELD    days from today to a date; negative once it is over
    valid_now        `valid_from_date` ≤ today ≤ `valid_to_date`, which is without end where it is null

The logic is that of row filters (`exchange.access.view.filter`), Kleene's: a comparison with null is unknown. So is the
answer where a field that it needs is unsure (stale, disputed, in conflict). "No" needs a positive fact.

    answer = compile_predicate("population", expression).answers(batch, today=today_in_china(now))[0]
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from exchange.access.view.filter import Predicate, compile_filter, fields_of, validate
from exchange.access.view.filter_literal import FieldComparison, comparison_of
from registry.avro.parser import parse
from registry.avro.type_tree import TypeNode
from schemas import library as bundled
from schemas.access import AllOf, AnyOf, Exists, Not, RowFilter
from schemas.errors import InvalidError, Reason

__all__ = [
    "LIBRARIES",
    "Answer",
    "CompiledPredicate",
    "age_on",
    "check_expression",
    "compile_predicate",
    "source_fields",
    "today_in_china",
]

LIBRARIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "population": "base/population",
        "legal-entity": "base/legal_entity",
        "address": "base/address",
        "credit": "base/credit",
        "e-licence": "base/e_licence",
        "service-request": "base/service_request",
        "service-case": "base/service_item_case",
    }
)
"""Library → the bundled record type whose fields its golden records have."""

_CHINA: Final = timezone(timedelta(hours=8))  # without daylight saving time since 1991
_DAYS_TO: Final = re.compile(r"days_to:(.+)")
_BIRTH, _FROM, _TO = "birth_date", "valid_from_date", "valid_to_date"
_DERIVED: Final = parse(
    '{"type":"record","name":"Derived","fields":[{"name":"number","type":"int"},{"name":"truth","type":"boolean"}]}'
)
_NUMBER, _TRUTH = (comparison_of(field.type_tree) for field in _DERIVED.fields)


class Answer(StrEnum):
    """Answer to a predicate."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def today_in_china(now: datetime) -> date:
    """Return the day in Asia/Shanghai; *now* is aware."""
    return now.astimezone(_CHINA).date()


def age_on(birth: date, day: date) -> int:
    """Return the completed years; negative before the birth."""
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))


def source_fields(expression: RowFilter) -> frozenset[str]:
    """Return the fields of the library that an expression reads, directly or by what is derived from them."""
    return frozenset(source for field in fields_of(expression) for source in _sources(field))


def check_expression(library: str, expression: RowFilter) -> None:
    """Check that an expression suits a library.

    Raises:
        InvalidError: REQUEST_INVALID, no such library; FILTER_INVALID, a field, a form or a literal does not suit it.
    """
    validate(expression, _comparisons(library, expression))


def compile_predicate(library: str, expression: RowFilter) -> "CompiledPredicate":
    """Compile an expression.

    Raises:
        InvalidError: as `check_expression`.
    """
    comparisons = _comparisons(library, expression)
    names, sources = fields_of(expression), source_fields(expression)
    return CompiledPredicate(
        names=names,
        sources=sources,
        types={name: _fields(library)[name].arrow for name in sources},
        existing=frozenset(source for field in _under_exists(expression) for source in _sources(field))
        | ({_TO} if "valid_now" in names else frozenset()),
        test=compile_filter(expression, comparisons, names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPredicate:
    """A predicate over columns.

    Attributes:
        names: fields of the expression, derived ones too.
        sources: fields of the library that it reads.
        existing: those of which it matters that they have no value.
        types: of the columns that it reads.
        test: columns → truth values, null for unknown.
    """

    names: frozenset[str]
    sources: frozenset[str]
    existing: frozenset[str]
    types: Mapping[str, pa.DataType]
    test: Predicate

    def answers(self, records: pa.RecordBatch, *, today: date, unsure: Sequence[Collection[str]] = ()) -> list[Answer]:
        """Return the answer for each record.

        Args:
            records: golden records, with columns of the logical form; a field that they lack is unsure in all of them.
            today: the day in Asia/Shanghai.
            unsure: for each record the fields that are stale, disputed or in conflict; empty = none of any.
        """
        count = records.num_rows
        lacking = frozenset(name for name in self.sources if name not in records.schema.names)
        doubts = [lacking | (self.sources.intersection(unsure[row]) if unsure else frozenset()) for row in range(count)]
        columns = {name: _column(records, name, doubts, self.types[name]) for name in self.sources}
        names = sorted(self.names)
        arrays = [_DERIVATIONS[_kind(name)](columns, name, today, count) for name in names]
        found = self.test(pa.RecordBatch.from_arrays(arrays, names)).to_pylist()
        # That there is no value is never unknown to the language; where the value is unsure, it is here.
        return [
            Answer.UNKNOWN if truth is None or doubts[row] & self.existing else _ANSWERS[truth]
            for row, truth in enumerate(found)
        ]


_ANSWERS: Final = {True: Answer.YES, False: Answer.NO}


def _sources(field: str) -> tuple[str, ...]:
    match _kind(field):
        case "age":
            return (_BIRTH,)
        case "valid_now":
            return (_FROM, _TO)
        case "days_to":
            return (field.removeprefix("days_to:"),)
        case _:
            return (field,)


def _kind(field: str) -> str:
    if field in {"age", "valid_now"}:
        return field
    return "days_to" if _DAYS_TO.fullmatch(field) else ""


@cache
def _fields(library: str) -> Mapping[str, TypeNode]:
    if library not in LIBRARIES:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got the library {library[:40]!r}; expected one of {', '.join(LIBRARIES)}",
        )
    return {field.name: field.type_tree for field in parse(bundled.text(LIBRARIES[library])).fields}


def _comparisons(library: str, expression: RowFilter) -> Mapping[str, FieldComparison]:
    """Return how the fields of an expression are compared; a derived one whose source is no date is not there."""
    own = {name: comparison_of(node) for name, node in _fields(library).items()}
    found = dict(own)
    for field in fields_of(expression):
        kind = _kind(field)
        if kind and all(source in own and own[source].name == "date" for source in _sources(field)):
            found[field] = _TRUTH if kind == "valid_now" else _NUMBER
    return found


def _under_exists(expression: RowFilter) -> list[str]:
    match expression:
        case AllOf(parts) | AnyOf(parts):
            return [field for part in parts for field in _under_exists(part)]
        case Not(part):
            return _under_exists(part)
        case Exists(field):
            return [field]
        case _:
            return []


def _column(records: pa.RecordBatch, name: str, doubts: Sequence[Collection[str]], kind: pa.DataType) -> pa.Array:
    """Return a column, null where it is unsure."""
    if name not in records.schema.names:
        return pa.nulls(records.num_rows, kind)
    column = records.column(name)
    if not any(name in doubt for doubt in doubts):
        return column
    sure = pa.array([name not in doubt for doubt in doubts], pa.bool_())
    if pa.types.is_dictionary(column.type):
        indices = pc.if_else(sure, column.indices, pa.scalar(None, column.indices.type))
        return pa.DictionaryArray.from_arrays(indices, column.dictionary)
    return pc.if_else(sure, column, pa.scalar(None, column.type))


_Columns = Mapping[str, pa.Array]


def _plain(columns: _Columns, name: str, today: date, count: int) -> pa.Array:
    del today, count
    return columns[name]


def _age(columns: _Columns, name: str, today: date, count: int) -> pa.Array:
    del name, count
    births = columns[_BIRTH].to_pylist()
    return pa.array([None if birth is None else age_on(birth, today) for birth in births], pa.int32())


def _days_to(columns: _Columns, name: str, today: date, count: int) -> pa.Array:
    del count
    dates = columns[name.removeprefix("days_to:")].to_pylist()
    return pa.array([None if each is None else (each - today).days for each in dates], pa.int32())


def _valid_now(columns: _Columns, name: str, today: date, count: int) -> pa.Array:
    del name, count
    pairs = zip(columns[_FROM].to_pylist(), columns[_TO].to_pylist(), strict=True)
    return pa.array(
        [None if since is None else since <= today and (until is None or today <= until) for since, until in pairs],
        pa.bool_(),
    )


_DERIVATIONS: Final[Mapping[str, Callable[[_Columns, str, date, int], pa.Array]]] = MappingProxyType(
    {"": _plain, "age": _age, "days_to": _days_to, "valid_now": _valid_now}
)

"""Row filters: which rows a grant delivers; parsed, validated, and compiled to a predicate over columns.

A filter is a closed tree of eight forms (`schemas.access.RowFilter`). As JSON each form is one object with
exactly these members; its RFC 8785 bytes are what is hashed into the grant:

    {"op": "eq" | "ne", "field": "ward", "value": 6}              {"op": "exists", "field": "ward"}
    {"op": "in", "field": "ward", "values": [6, 7]}               {"op": "not", "part": …}
    {"op": "range", "field": "born", "low": "1990-01-01", "high": null}     low ≤ field < high
    {"op": "prefix", "field": "division", "value": "1101"}        {"op": "and" | "or", "parts": [… , …]}

There are no expressions to evaluate and no patterns. Fields used in a filter need not be among the granted ones.

The logic is Kleene's. A comparison with null, with a field that the writer's schema lacks, or with NaN is
unknown; not(unknown) is unknown, so neither `ne` nor `not in` lets a row with a null through; a row is kept only
where the whole is true. `exists` alone is never unknown; it is false for null and for a missing field.

Literals are text, whole numbers and truth values, so that a canonical form exists. What a literal must look like
follows from the field's type, and `validate` says so: a decimal is decimal text with no more digits than the
type has, a date or a time is ISO 8601 with no finer fraction than the type has, a timestamp carries its offset
from UTC and a local-timestamp none, a whole number beyond 2^53 is its decimal text. Against a float or double
decimal text means the nearest value, and a whole number that has no exact one is refused. Text is ordered
by code point.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from exchange.access.view.filter_literal import FieldComparison
from schemas.access import (
    AllOf,
    AnyOf,
    Compare,
    Exists,
    FilterValue,
    Member,
    Not,
    Prefix,
    Range,
    RowFilter,
)
from schemas.canonical import Json, canonical
from schemas.errors import InvalidError, Reason

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_TEXT",
    "MAX_VALUES",
    "Predicate",
    "compile_filter",
    "fields_of",
    "filter_from_json",
    "filter_from_text",
    "filter_to_json",
    "filter_to_text",
    "validate",
]

MAX_DEPTH = 16  # forms inside of one another
MAX_NODES = 256  # forms of a filter
MAX_VALUES = 1_000  # values of one `in`
MAX_TEXT = 1_024  # characters of a literal or a field's name

_MAX_SAFE = 2**53 - 1  # RFC 8785, 3.2.2.3, as `schemas.canonical`

Predicate = Callable[[pa.RecordBatch], pa.BooleanArray]
"""Columns → one truth value a row: true, false, or null for unknown."""

_MEMBERS: Mapping[str, frozenset[str]] = {
    "eq": frozenset({"op", "field", "value"}),
    "ne": frozenset({"op", "field", "value"}),
    "in": frozenset({"op", "field", "values"}),
    "range": frozenset({"op", "field", "low", "high"}),
    "prefix": frozenset({"op", "field", "value"}),
    "exists": frozenset({"op", "field"}),
    "and": frozenset({"op", "parts"}),
    "or": frozenset({"op", "parts"}),
    "not": frozenset({"op", "part"}),
}


def filter_to_json(row_filter: RowFilter) -> Json:  # noqa: PLR0911 - one return a form
    """Return the JSON form of a filter."""
    match row_filter:
        case Compare(op, field, value):
            return {"op": op, "field": field, "value": value}
        case Member(field, values):
            return {"op": "in", "field": field, "values": list(values)}
        case Range(field, low, high):
            return {"op": "range", "field": field, "low": low, "high": high}
        case Prefix(field, value):
            return {"op": "prefix", "field": field, "value": value}
        case Exists(field):
            return {"op": "exists", "field": field}
        case AllOf(parts):
            return {"op": "and", "parts": [filter_to_json(part) for part in parts]}
        case AnyOf(parts):
            return {"op": "or", "parts": [filter_to_json(part) for part in parts]}
        case Not(part):
            return {"op": "not", "part": filter_to_json(part)}


def filter_to_text(row_filter: RowFilter) -> str:
    """Return the canonical text (RFC 8785) of a filter.

    Raises:
        InvalidError: REQUEST_INVALID, for a literal that `validate` refuses (a whole number beyond 2^53 - 1).
    """
    return canonical(filter_to_json(row_filter)).decode()


def filter_from_text(text: str) -> RowFilter:
    """Read a filter from JSON text.

    Raises:
        InvalidError: FILTER_INVALID, when it is no JSON or not a filter.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("got a row filter that is not JSON; expected an object with the member op") from error
    return filter_from_json(value)


def filter_from_json(value: Json) -> RowFilter:
    """Read a filter from its JSON form, and check its size.

    Raises:
        InvalidError: FILTER_INVALID: an unknown form, a member too many or missing, a value of another type, or
            more than MAX_DEPTH, MAX_NODES, MAX_VALUES or MAX_TEXT.
    """
    row_filter = _read(value, 1)
    _check_size(row_filter)
    return row_filter


def fields_of(row_filter: RowFilter | None) -> frozenset[str]:
    """Return the names of the fields that a filter refers to."""
    return frozenset(leaf.field for leaf in _leaves(row_filter)) if row_filter is not None else frozenset()


def validate(row_filter: RowFilter, comparisons: Mapping[str, FieldComparison]) -> None:
    """Check a filter against the fields of a schema.

    Args:
        row_filter: any tree, however it was made.
        comparisons: how each field of the schema is compared (`filter_literal.comparison_of`).

    Raises:
        InvalidError: FILTER_INVALID: a field that does not exist, a form that the field's type does not know, a
            literal that does not fit, an empty form, an empty range, or one of the limits.
    """
    _check_size(row_filter)
    for leaf in _leaves(row_filter):
        comparison = comparisons.get(leaf.field)
        if comparison is None:
            raise _invalid(f"got a filter on the field {leaf.field!r}, which the schema does not have")
        form = _form(leaf)
        if form not in comparison.forms:
            raise _invalid(
                f"got {form} on the field {leaf.field!r}; {comparison.name} expects "
                f"{' or '.join(sorted(comparison.forms)) or 'no filter'}"
            )
        parsed = [comparison.parse(leaf.field, literal) for literal in _literals(leaf)]
        if form == "range" and len(parsed) == 2 and not parsed[0] < parsed[1]:
            raise _invalid(f"got a range on the field {leaf.field!r} that holds nothing; expected low < high")


def compile_filter(
    row_filter: RowFilter, comparisons: Mapping[str, FieldComparison], present: frozenset[str]
) -> Predicate:
    """Compile a filter to a predicate.

    Args:
        row_filter: the filter of a grant.
        comparisons: as for `validate`; the predicate converts the columns that it is given.
        present: fields that the writer's schema has; any other is unknown in every row.

    Raises:
        InvalidError: FILTER_INVALID, as `validate`.
    """
    validate(row_filter, comparisons)
    return _compile(row_filter, comparisons, present)


def _read(value: Json, depth: int) -> RowFilter:
    if depth > MAX_DEPTH:
        raise _invalid(f"got a filter deeper than {MAX_DEPTH} forms; say it with fewer levels")
    op = value.get("op") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(op, str) or op not in _MEMBERS:
        raise _invalid(f"got no filter form; expected an object whose op is one of {', '.join(_MEMBERS)}")
    if value.keys() != _MEMBERS[op]:
        raise _invalid(f"got {op} with other members; expected exactly {', '.join(sorted(_MEMBERS[op]))}")
    if op in ("and", "or"):
        parts = value["parts"]
        if not isinstance(parts, list) or not parts:
            raise _invalid(f"got {op} without parts; expected a list of at least one filter")
        read = tuple(_read(part, depth + 1) for part in parts)
        return AllOf(read) if op == "and" else AnyOf(read)
    if op == "not":
        return Not(_read(value["part"], depth + 1))
    return _read_leaf(op, value)


def _read_leaf(op: str, value: Mapping[str, Json]) -> RowFilter:
    field = value["field"]
    if not isinstance(field, str):
        raise _invalid(f"got {op} with a field that is not text; expected the name of a field")
    if op == "exists":
        return Exists(field)
    if op == "in":
        values = value["values"]
        if not isinstance(values, list) or not values:
            raise _invalid("got in without values; expected a list of at least one literal")
        return Member(field, tuple(_literal(op, item) for item in values))
    if op == "range":
        low, high = value["low"], value["high"]
        return Range(
            field,
            None if low is None else _literal(op, low),
            None if high is None else _literal(op, high),
        )
    literal = _literal(op, value["value"])
    if op == "prefix":
        if not isinstance(literal, str):
            raise _invalid("got prefix with a value that is not text; expected text")
        return Prefix(field, literal)
    return Compare("eq" if op == "eq" else "ne", field, literal)


def _literal(op: str, value: Json) -> FilterValue:
    if isinstance(value, (str, bool)) or type(value) is int:
        return value
    raise _invalid(f"got {op} with a value of another type; expected text, a whole number or a truth value")


def _check_size(row_filter: RowFilter) -> None:
    nodes = 0
    pending = [(row_filter, 1)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise _invalid(f"got a filter of more than {MAX_NODES} forms or {MAX_DEPTH} levels; say it with fewer")
        match node:
            case AllOf(parts) | AnyOf(parts):
                if not parts:
                    raise _invalid("got a form without parts; expected at least one filter")
                pending.extend((part, depth + 1) for part in parts)
            case Not(part):
                pending.append((part, depth + 1))
            case _:
                _check_leaf(node)


def _check_leaf(leaf: "_Leaf") -> None:
    literals = _literals(leaf)
    if not literals and not isinstance(leaf, Exists):
        raise _invalid(f"got {_form(leaf)} without a value; expected at least one literal")
    if len(literals) > MAX_VALUES:
        raise _invalid(f"got in with {len(literals)} values; expected at most {MAX_VALUES}")
    if isinstance(leaf, Prefix) and not leaf.value:
        raise _invalid("got prefix with an empty value, which every text has; expected at least one character")
    for text in (leaf.field, *literals):
        if isinstance(text, int) and abs(text) > _MAX_SAFE:
            raise _invalid(
                f"got a whole number beyond 2^53 - 1 for the field {leaf.field!r}; a filter expects its decimal text"
            )
        if isinstance(text, str) and len(text) > MAX_TEXT:
            raise _invalid(f"got text of {len(text)} characters; expected at most {MAX_TEXT}")
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            raise _invalid("got text with a lone surrogate; expected Unicode text")


_Leaf = Compare | Member | Range | Prefix | Exists


def _leaves(row_filter: RowFilter) -> Iterator[_Leaf]:
    pending = [row_filter]
    while pending:
        match pending.pop():
            case AllOf(parts) | AnyOf(parts):
                pending.extend(parts)
            case Not(part):
                pending.append(part)
            case leaf:
                yield leaf


def _form(leaf: _Leaf) -> str:
    match leaf:
        case Compare(op):
            return op
        case Member():
            return "in"
        case Range():
            return "range"
        case Prefix():
            return "prefix"
        case Exists():
            return "exists"


def _literals(leaf: _Leaf) -> list[FilterValue]:
    match leaf:
        case Compare(_, _, value) | Prefix(_, value):
            return [value]
        case Member(_, values):
            return list(values)
        case Range(_, low, high):
            return [bound for bound in (low, high) if bound is not None]
        case Exists():
            return []


def _compile(row_filter: RowFilter, comparisons: Mapping[str, FieldComparison], present: frozenset[str]) -> Predicate:
    match row_filter:
        case AllOf(parts):
            return _combine(pc.and_kleene, [_compile(part, comparisons, present) for part in parts])
        case AnyOf(parts):
            return _combine(pc.or_kleene, [_compile(part, comparisons, present) for part in parts])
        case Not(part):
            inner = _compile(part, comparisons, present)
            return lambda batch: pc.invert(inner(batch))
        case leaf:
            return _compile_leaf(leaf, comparisons[leaf.field], leaf.field in present)


def _combine(operator: Callable[[Any, Any], Any], parts: list[Predicate]) -> Predicate:
    first, *others = parts

    def combined(batch: pa.RecordBatch) -> pa.BooleanArray:
        result = first(batch)
        for other in others:
            result = operator(result, other(batch))
        return result

    return combined


def _compile_leaf(leaf: _Leaf, comparison: FieldComparison, present: bool) -> Predicate:
    field = leaf.field
    if isinstance(leaf, Exists):
        if not present:
            return lambda batch: pa.repeat(pa.scalar(value=False), batch.num_rows)
        return lambda batch: comparison.is_present(batch.column(field))
    if not present:
        return lambda batch: pa.nulls(batch.num_rows, pa.bool_())
    test = _test(leaf, comparison)
    return lambda batch: test(comparison.to_comparable(batch.column(field)))


def _test(leaf: _Leaf, comparison: FieldComparison) -> Callable[[pa.Array], pa.BooleanArray]:
    """Return the comparison of a column in its comparable form; each returns null for null."""

    def scalar(literal: FilterValue) -> pa.Scalar:
        return pa.scalar(comparison.parse(leaf.field, literal), comparison.type)

    match leaf:
        case Compare("eq", _, value):
            equal = scalar(value)
            return lambda column: pc.equal(column, equal)
        case Compare(_, _, value):
            other = scalar(value)
            return lambda column: pc.not_equal(column, other)
        case Member(_, values):
            members = pa.array([comparison.parse(leaf.field, value) for value in values], comparison.type)
            return lambda column: _is_in(column, members)
        case Prefix(_, value):
            return lambda column: pc.starts_with(column, value)
        case Range(_, low, high):
            lower = None if low is None else scalar(low)
            upper = None if high is None else scalar(high)
            return lambda column: _within(column, lower, upper)
    raise AssertionError(leaf)  # pragma: no cover - Exists never comes here


def _is_in(column: pa.Array, members: pa.Array) -> pa.BooleanArray:
    found = pc.is_in(column, value_set=members)
    # pyarrow answers False for null, and not(False) would let the null through.
    return pc.if_else(column.is_valid(), found, None) if column.null_count else found


def _within(column: pa.Array, lower: pa.Scalar | None, upper: pa.Scalar | None) -> pa.BooleanArray:
    if upper is None:
        return pc.greater_equal(column, lower)
    below = pc.less(column, upper)
    return below if lower is None else pc.and_kleene(pc.greater_equal(column, lower), below)


def _invalid(message: str) -> InvalidError:
    return InvalidError(Reason.FILTER_INVALID, message)

"""Literals of row filters: how the fields of each Avro type are compared, one `FieldComparison` a field.

`comparison_of` derives it from the type tree of the field's Avro type. It reads literals (`schemas.access.FilterValue`:
text, whole numbers, truth values) into the values of one Arrow type, and converts a column of the logical form into
that same type: dates and times become the whole numbers that Avro writes, an enum the indices of its symbols, and NaNs
become null. The comparison itself then never converts, so nothing is lost beyond 2^53 and no time zone matters.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.avro.type_tree import TypeKind, TypeNode
from schemas.access import FilterValue
from schemas.errors import InvalidError, Reason

__all__ = ["FieldComparison", "comparison_of"]

_EXISTS = frozenset({"exists"})
_EQUAL = frozenset({"eq", "ne", "in"}) | _EXISTS
_ORDERED = _EQUAL | {"range"}

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?", re.ASCII)
_INSTANT = re.compile(
    rf"({_DAY.pattern}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}})(?:\.([0-9]{{1,9}}))?(Z|[+-][0-9]{{2}}:[0-9]{{2}})?", re.ASCII
)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldComparison:
    """How one field is compared.

    Attributes:
        name: of the type, in words of the schema, for messages: "int", "decimal(10, 2)".
        forms: forms of filter that it knows.
        type: Arrow type in which it is compared.
        expected: what a literal must look like, for messages.
        read: literal → value of `type`, or None where it does not fit.
        to_comparable: column of the logical form → column of `type`; null where a comparison is unknown.
        is_present: column of the logical form → true where it holds a value other than null; never unknown.
    """

    name: str
    forms: frozenset[str]
    type: pa.DataType
    expected: str
    read: Callable[[FilterValue], Any]
    to_comparable: Callable[[pa.Array], pa.Array]
    is_present: Callable[[pa.Array], pa.BooleanArray] = pc.is_valid

    def parse(self, field: str, literal: FilterValue) -> Any:
        """Return the value of a literal.

        Raises:
            InvalidError: FILTER_INVALID, when it does not fit the field's type. The message holds the type that
                was got, not the literal: that may be a national identifier.
        """
        value = self.read(literal)
        if value is None:
            raise InvalidError(
                Reason.FILTER_INVALID,
                f"got a {type(literal).__name__} that does not fit the field {field!r}; {self.name} expects "
                f"{self.expected}",
                details={"field": field},
            )
        return value


def comparison_of(node: TypeNode) -> FieldComparison:  # noqa: PLR0911 - one return a kind
    """Return the comparison of a field from the tree of its type (`registry.avro.type_tree`)."""
    match node.kind:
        case TypeKind.OPTIONAL:
            return comparison_of(node.parts[0])
        case TypeKind.STRING:
            return _text()
        case TypeKind.ENUM:
            return _enum(node.symbols)
        case TypeKind.BOOLEAN:
            return _boolean()
        case TypeKind.FLOAT | TypeKind.DOUBLE:
            return _float(32 if node.kind is TypeKind.FLOAT else 64)
        case TypeKind.DECIMAL:
            return _decimal(node)
        case TypeKind.INT | TypeKind.LONG:
            return _integer_or_time(node)
        case TypeKind.UNION:
            return _union(node)
        case TypeKind.OPAQUE:
            return _not_comparable("a recursive or very wide type", frozenset())
        case other:
            return _not_comparable(other.value, _EXISTS)


def _integer_or_time(node: TypeNode) -> FieldComparison:
    arrow = node.arrow
    if pa.types.is_date32(arrow):
        return _date()
    if pa.types.is_time(arrow):
        return _time_of_day(arrow)
    if pa.types.is_timestamp(arrow):
        return _timestamp(arrow)
    return _integer(32 if node.kind is TypeKind.INT else 64)


def _text() -> FieldComparison:
    """Compare text, ordered by code point (which is the order of its UTF-8 bytes)."""
    return FieldComparison(
        name="string",
        forms=_ORDERED | {"prefix"},
        type=pa.string(),
        expected="text",
        read=lambda literal: literal if isinstance(literal, str) else None,
        to_comparable=_identity,
    )


def _enum(symbols: tuple[str, ...]) -> FieldComparison:
    """Compare an enum's symbols by their indices; that order means nothing to a reader, so there is no range."""
    indices = {name: index for index, name in enumerate(symbols)}
    return FieldComparison(
        name="enum",
        forms=_EQUAL,
        type=pa.int32(),
        expected=f"one of its {len(symbols)} symbols",
        read=lambda literal: indices.get(literal) if isinstance(literal, str) else None,
        to_comparable=lambda column: column.indices,
    )


def _boolean() -> FieldComparison:
    """Compare true and false."""
    return FieldComparison(
        name="boolean",
        forms=_EQUAL,
        type=pa.bool_(),
        expected="true or false",
        read=lambda literal: literal if isinstance(literal, bool) else None,
        to_comparable=_identity,
    )


def _integer(bits: int) -> FieldComparison:
    """Compare a whole number of 32 or 64 bits; its literal is a number or decimal text."""

    def read(literal: FilterValue) -> int | None:
        number = _number(literal, _WHOLE)
        if number is None or not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            return None
        return int(number)

    return FieldComparison(
        name="int" if bits == 32 else "long",
        forms=_ORDERED,
        type=pa.int32() if bits == 32 else pa.int64(),
        expected=f"a whole number of {bits} bits, or its decimal text",
        read=read,
        to_comparable=_identity,
    )


def _float(bits: int) -> FieldComparison:
    """Compare a float or double. Decimal text means the nearest one; a whole number must have an exact one."""
    width = np.float32 if bits == 32 else np.float64

    def read(literal: FilterValue) -> float | None:
        number = _number(literal, _DECIMAL)
        if number is None:
            return None
        with np.errstate(over="ignore"):
            value = float(width(literal if isinstance(literal, str) else float(number)))
        if not np.isfinite(value) or (not isinstance(literal, str) and Decimal(value) != number):
            return None
        return value + 0.0  # -0.0 would differ from 0.0 in `in`

    return FieldComparison(
        name="float" if bits == 32 else "double",
        forms=_ORDERED,
        type=pa.float32() if bits == 32 else pa.float64(),
        expected="decimal text, or a whole number that has an exact value of the type",
        read=read,
        to_comparable=lambda column: _nan_to_null(column, width),
    )


def _decimal(node: TypeNode) -> FieldComparison:
    """Compare a decimal; its literal is text or a whole number, of no more digits than the type has."""
    precision, scale = node.precision, node.scale

    def read(literal: FilterValue) -> Decimal | None:
        number = _number(literal, _DECIMAL)
        if number is None:
            return None
        _, digits, exponent = number.as_tuple()
        shift = scale + int(exponent)
        significant = int("".join(map(str, digits)))
        if shift < 0:
            significant, rest = divmod(significant, 10**-shift)
            if rest:
                return None
        elif significant and shift > precision:
            return None
        else:
            significant *= 10**shift
        fits = significant < 10**precision
        return Decimal((int(number.is_signed()), tuple(map(int, str(significant))), -scale)) if fits else None

    return FieldComparison(
        name=f"decimal({precision}, {scale})",
        forms=_ORDERED,
        type=node.arrow,
        expected=f"decimal text of at most {precision} digits, {scale} of them after the point",
        read=read,
        to_comparable=_identity,
    )


def _date() -> FieldComparison:
    """Compare a date as days since 1970-01-01."""

    def read(literal: FilterValue) -> int | None:
        if not isinstance(literal, str) or not _DAY.fullmatch(literal):
            return None
        try:
            return date.fromisoformat(literal).toordinal() - _EPOCH_DAY
        except ValueError:
            return None

    return _temporal("date", pa.int32(), "an ISO 8601 date such as 2024-02-29", read)


def _time_of_day(arrow: pa.DataType) -> FieldComparison:
    """Compare a time of day, without a zone."""
    per_second = _PER_SECOND[arrow.unit]

    def read(literal: FilterValue) -> int | None:
        found = _TIME.fullmatch(literal) if isinstance(literal, str) else None
        if found is None:
            return None
        fraction = _fraction(found[2], per_second)
        try:
            clock = datetime.fromisoformat(f"1970-01-01T{found[1]}+00:00")
        except ValueError:
            return None
        return None if fraction is None else int(clock.timestamp()) * per_second + fraction

    return _temporal(
        "time",
        pa.int32() if pa.types.is_time32(arrow) else pa.int64(),
        f"an ISO 8601 time such as 08:30:00 with at most {_decimals(per_second)} decimals",
        read,
    )


def _timestamp(arrow: pa.DataType) -> FieldComparison:
    """Compare a timestamp, whose literal has an offset from UTC, or a local-timestamp, whose literal has none."""
    per_second, local = _PER_SECOND[arrow.unit], arrow.tz is None

    def read(literal: FilterValue) -> int | None:
        found = _INSTANT.fullmatch(literal) if isinstance(literal, str) else None
        if found is None or (found[3] is None) is not local:
            return None
        fraction = _fraction(found[2], per_second)
        try:
            moment = datetime.fromisoformat(found[1] + (found[3] or "+00:00"))
        except ValueError:
            return None
        if fraction is None:
            return None
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        value = (since.days * 86_400 + since.seconds) * per_second + fraction
        return value if -(2**63) <= value < 2**63 else None

    example = "2024-02-29T08:30:00" if local else "2024-02-29T08:30:00+08:00"
    return _temporal(
        "local-timestamp" if local else "timestamp",
        pa.int64(),
        f"an ISO 8601 time such as {example} with at most {_decimals(per_second)} decimals",
        read,
    )


def _union(node: TypeNode) -> FieldComparison:
    """Return the comparison of a union of several types: it is present unless its branch is null."""
    nulls = [index for index, part in enumerate(node.parts) if part.kind is TypeKind.NULL]

    def is_present(column: pa.Array) -> pa.BooleanArray:
        if not nulls:
            return pa.repeat(pa.scalar(value=True), len(column))
        return pc.not_equal(column.type_codes, pa.scalar(nulls[0], pa.int8()))

    return replace(_not_comparable("a union", _EXISTS), is_present=is_present)


def _not_comparable(name: str, forms: frozenset[str]) -> FieldComparison:
    """Return the comparison of a type that no literal can be compared with."""
    return FieldComparison(
        name=name, forms=forms, type=pa.null(), expected="none", read=lambda _: None, to_comparable=_identity
    )


def _temporal(
    name: str, number: pa.DataType, expected: str, read: Callable[[FilterValue], int | None]
) -> FieldComparison:
    return FieldComparison(
        name=name,
        forms=_ORDERED,
        type=number,
        expected=expected,
        read=read,
        to_comparable=lambda column: column.view(number),
    )


def _number(literal: FilterValue, form: re.Pattern[str]) -> Decimal | None:
    if isinstance(literal, bool):  # True is an int in Python, and none here
        return None
    if isinstance(literal, int):
        return Decimal(literal)
    return Decimal(literal) if form.fullmatch(literal) else None


def _fraction(digits: str | None, per_second: int) -> int | None:
    value = int((digits or "0").ljust(9, "0"))
    unit = 10**9 // per_second
    return None if value % unit else value // unit


def _decimals(per_second: int) -> int:
    return len(str(per_second)) - 1


def _identity(column: pa.Array) -> pa.Array:
    return column


def _nan_to_null(column: pa.Array, width: Any) -> pa.Array:
    """Return a float column with null for NaN, which compares with nothing, and 0.0 for -0.0."""
    column = pc.add(column, pa.scalar(width(0.0)))
    nan = pc.is_nan(column)
    return pc.if_else(nan, None, column) if pc.any(nan).as_py() else column

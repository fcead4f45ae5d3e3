"""Type conversion: one text → one value of a field's type, exactly or not at all.

Nothing is rounded, guessed or cut: `20.0` is the integer 20 and `20.5` is no integer; `1.005` does not fit two
decimal places; a date with a time of day is no date. A failure is a `Fault` with a code of the closed list that says
what was expected, never what the text was.

Digits are ASCII digits: Python's own `int()` would take Devanagari ones.
"""

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import TypeAlias

from connectors.mapping.contract import ValueType
from connectors.port import RejectCode

__all__ = ["DATE", "INTEGER", "REAL", "Converter", "Fault", "Value", "converter_for"]

Value: TypeAlias = str | int | float | bool | bytes | Decimal | date | datetime | time

INTEGER = r"-?[0-9]+"
REAL = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"

_INTEGER_TEXT = re.compile(r"([+-]?[0-9]+)(?:\.(0*))?")
_FRACTION_TEXT = re.compile(r"[+-]?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]+[eE][+-]?[0-9]+")
_REAL_TEXT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DECIMAL_TEXT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_DATE_TEXT = re.compile(rf"({DATE})(?:[T ]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]+)?)?))?")
_MIDNIGHT = re.compile(r"00:00(?::00(?:\.0+)?)?")
_TIMESTAMP_TEXT = re.compile(
    rf"({DATE})[T ]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?)(?:\.([0-9]+))?"
    r"(Z|[+-][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?)?"
)
_CLOCK_TEXT = re.compile(r"([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.([0-9]+))?")
_DURATION_TEXT = re.compile(r"-?[0-9]{2,4}(?::[0-9]{2}){1,2}(?:\.[0-9]+)?")  # MySQL's TIME: -838:59:59 to 838:59:59
_SPECIAL_REALS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""As PostgreSQL and the JSON mapping of Protocol Buffers write them; a double of a record can hold each (IEEE 754)."""
_SPECIAL_NUMBERS = frozenset({"nan", "inf", "infinity", "snan", "1.#inf", "1.#qnan"})
_SPECIAL_TIMES = re.compile(r"[+-]?infinity|0000-00-00.*|.* BC|[+-]?[0-9]{5,}-.*", re.IGNORECASE)
_LIMITS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_FLOAT_MAX = 3.4028235677973366e38  # half a step above float32's largest rounds to infinity


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a text is not a value of the field; `expected` never holds the text."""

    code: RejectCode
    expected: str


Converter: TypeAlias = Callable[[str], Value | Fault]


def converter_for(  # noqa: C901, PLR0911 - one line a type
    value_type: ValueType,
    *,
    formats: Sequence[str] = (),
    zone: tzinfo | None = None,
    true: Sequence[str] = ("true", "1", "t"),
    false: Sequence[str] = ("false", "0", "f"),
) -> Converter:
    """Return the function that converts texts to a type.

    Args:
        value_type: of the field.
        formats: of dates and times, in `strptime`'s letters, tried in order; ISO 8601 when there are none.
        zone: of times without an offset; None = such a time is not accepted for a timestamp in UTC.
        true: texts for true, in any case of letters.
        false: texts for false.
    """
    match value_type.name:
        case "string":
            return _string
        case "enum":
            return _enum(value_type.symbols)
        case "int" | "long":
            return _integer(value_type.name)
        case "float" | "double":
            return _real(value_type.name)
        case "decimal":
            return _decimal(value_type.precision, value_type.scale)
        case "boolean":
            return _boolean(true, false)
        case "uuid":
            return _uuid
        case "bytes" | "fixed":
            return _bytes(value_type.size)
        case "date":
            return _date(formats)
        case "time-millis" | "time-micros":
            return _clock_time(3 if value_type.name.endswith("millis") else 6)
        case "timestamp-nanos" | "local-timestamp-nanos":
            return _nanoseconds(formats, zone, local=value_type.name.startswith("local"))
        case name:
            places = 3 if name.endswith("millis") else 6
            return _local(formats, places) if name.startswith("local") else _instant(formats, places, zone)


def _string(text: str) -> Value | Fault:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return Fault(RejectCode.ENCODING, "text that can be written in UTF-8")
    return text


def _enum(symbols: Sequence[str]) -> Converter:
    permitted = frozenset(symbols)
    fault = Fault(RejectCode.ENUM, f"one of {len(permitted)} symbols: {', '.join(symbols[:12])}")
    return lambda text: text if text in permitted else fault


def _integer(name: str) -> Converter:
    low, high = _LIMITS[name]
    out_of_range = Fault(RejectCode.RANGE, f"{low} to {high}")

    def convert(text: str) -> Value | Fault:
        found = _INTEGER_TEXT.fullmatch(text)
        if found is None:
            if _FRACTION_TEXT.fullmatch(text):
                return Fault(RejectCode.PRECISION_LOSS, "a whole number")
            return _number_fault(text, "a whole number")
        digits = found[1]
        if len(digits) > 20:
            return out_of_range if digits.lstrip("+-0") and len(digits.lstrip("+-0")) > 19 else int(digits)
        value = int(digits)
        return value if low <= value <= high else out_of_range

    return convert


def _real(name: str) -> Converter:
    out_of_range = Fault(RejectCode.RANGE, f"a number within the range of {name}")
    largest = _FLOAT_MAX if name == "float" else float("inf")

    def convert(text: str) -> Value | Fault:
        if not _REAL_TEXT.fullmatch(text):
            special = _SPECIAL_REALS.get(text)
            return _number_fault(text, "a number, NaN, Infinity or -Infinity") if special is None else special
        value = float(text)
        return value if abs(value) < largest else out_of_range

    return convert


def _decimal(precision: int, scale: int) -> Converter:
    def convert(text: str) -> Value | Fault:
        if not _DECIMAL_TEXT.fullmatch(text):
            if _REAL_TEXT.fullmatch(text):
                return Fault(RejectCode.PRECISION_LOSS, "a decimal number written without an exponent")
            return _number_fault(text, "a decimal number")
        whole, _, fraction = text.lstrip("+-").partition(".")
        fraction = fraction.rstrip("0")
        if len(fraction) > scale:
            return Fault(RejectCode.PRECISION_LOSS, f"at most {scale} decimal places")
        whole = whole.lstrip("0")
        if len(whole) > precision - scale:
            return Fault(RejectCode.RANGE, f"at most {precision - scale} digits before the point")
        sign = "-" if text[0] == "-" else ""
        return Decimal(f"{sign}{whole or '0'}.{fraction.ljust(scale, '0')}" if scale else f"{sign}{whole or '0'}")

    return convert


def _boolean(true: Sequence[str], false: Sequence[str]) -> Converter:
    by_text = {each.casefold(): True for each in true} | {each.casefold(): False for each in false}
    fault = Fault(RejectCode.TYPE, f"one of {', '.join(by_text)}")
    return lambda text: by_text.get(text.casefold(), fault)


def _uuid(text: str) -> Value | Fault:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return Fault(RejectCode.TYPE, "a UUID")


def _bytes(size: int) -> Converter:
    def convert(text: str) -> Value | Fault:
        try:
            value = bytes.fromhex(text.removeprefix("\\x").removeprefix("0x"))
        except ValueError:
            return Fault(RejectCode.TYPE, "bytes in hexadecimal digits")
        if size and len(value) != size:
            return Fault(RejectCode.RANGE, f"{size} bytes")
        return value

    return convert


def _date(formats: Sequence[str]) -> Converter:
    def convert(text: str) -> Value | Fault:
        if formats:
            moment = _parse_formats(text, formats)
            if isinstance(moment, Fault):
                return moment
            return moment.date() if moment.time() == time() else _NO_TIME_OF_DAY
        found = _DATE_TEXT.fullmatch(text)
        if found is None:
            return _time_fault(text, "a date such as 2026-01-31")
        try:
            value = date.fromisoformat(found[1])
        except ValueError:
            return _time_fault(text, "a date of the calendar", RejectCode.RANGE)
        return value if found[2] is None or _MIDNIGHT.fullmatch(found[2]) else _NO_TIME_OF_DAY

    return convert


_NO_TIME_OF_DAY = Fault(RejectCode.PRECISION_LOSS, "a date without a time of day")


def _clock_time(places: int) -> Converter:
    def convert(text: str) -> Value | Fault:
        found = _CLOCK_TEXT.fullmatch(text)
        if found is None:
            longer = _DURATION_TEXT.fullmatch(text)
            return Fault(RejectCode.RANGE if longer else RejectCode.TYPE, "a time of day such as 09:30:00")
        fraction = _fraction(found[2], places)
        if isinstance(fraction, Fault):
            return fraction
        try:
            return time.fromisoformat(found[1]).replace(microsecond=fraction)
        except ValueError:
            return Fault(RejectCode.RANGE, "a time of day")

    return convert


def _instant(formats: Sequence[str], places: int, zone: tzinfo | None) -> Converter:
    def convert(text: str) -> Value | Fault:
        moment = _timestamp(text, formats, places)
        if isinstance(moment, Fault):
            return moment
        if moment.tzinfo is None:
            if zone is None:
                return Fault(RejectCode.TYPE, "a time with its offset from UTC, or `timezone:` in the configuration")
            moment = moment.replace(tzinfo=zone)
            # Both folds agree except where clocks were turned: there, the hour happened twice or not at all.
            if moment.utcoffset() != moment.replace(fold=1).utcoffset():
                return Fault(RejectCode.TIME_SPECIAL, "a time that its time zone had exactly once")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            return Fault(RejectCode.RANGE, "a time of the years 1 to 9999 in UTC")

    return convert


def _local(formats: Sequence[str], places: int) -> Converter:
    def convert(text: str) -> Value | Fault:
        moment = _timestamp(text, formats, places)
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            return Fault(RejectCode.TYPE, "a local time, without an offset from UTC")
        return moment

    return convert


def _nanoseconds(formats: Sequence[str], zone: tzinfo | None, *, local: bool) -> Converter:
    """Return the converter to nanoseconds since 1970-01-01T00:00, of which a 64-bit integer holds 1677 to 2262.

    The text is a time, or the number of nanoseconds itself.
    """
    whole = _integer("long")
    moment_of = _local(formats, 6) if local else _instant(formats, 6, zone)

    def convert(text: str) -> Value | Fault:
        if _INTEGER_TEXT.fullmatch(text):
            return whole(text)
        found = None if formats else _TIMESTAMP_TEXT.fullmatch(text)
        digits = (found[3] or "").rstrip("0") if found else ""
        if len(digits) > 9:
            return Fault(RejectCode.PRECISION_LOSS, "at most 9 digits of a second")
        if found and digits:  # the digits that a datetime cannot hold are added to it
            text = text[: found.start(3) - 1] + text[found.end(3) :]
        moment = moment_of(text)
        if not isinstance(moment, datetime):
            return moment
        since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        value = micros * 1_000 + int(digits.ljust(9, "0") or "0")
        low, high = _LIMITS["long"]
        return value if low <= value <= high else Fault(RejectCode.RANGE, "a time from 1677-09-22 to 2262-04-10")

    return convert


def _timestamp(  # noqa: PLR0911 - one line a fault
    text: str, formats: Sequence[str], places: int
) -> datetime | Fault:
    if formats:
        moment = _parse_formats(text, formats)
        if isinstance(moment, Fault):
            return moment
        if moment.microsecond % 10 ** (6 - places):
            return Fault(RejectCode.PRECISION_LOSS, f"at most {places} digits of a second")
        return moment
    found = _TIMESTAMP_TEXT.fullmatch(text) or _DATE_TEXT.fullmatch(text)
    if found is None:
        return _time_fault(text, "a time such as 2026-01-31T09:30:00+08:00")
    if found.re is _DATE_TEXT:  # a date alone is midnight; with a time of day it would have matched before
        day, clock, digits, offset = found[1], "00:00", None, None
    else:
        day, clock, digits, offset = found.groups()
    fraction = _fraction(digits, places)
    if isinstance(fraction, Fault):
        return fraction
    try:
        return datetime.fromisoformat(f"{day}T{clock}{offset or ''}").replace(microsecond=fraction)
    except ValueError:
        return _time_fault(text, "a time of the calendar", RejectCode.RANGE)


def _fraction(digits: str | None, places: int) -> int | Fault:
    kept = (digits or "").rstrip("0")
    if len(kept) > places:
        return Fault(RejectCode.PRECISION_LOSS, f"at most {places} digits of a second")
    return int(kept.ljust(6, "0"))


def _parse_formats(text: str, formats: Sequence[str]) -> datetime | Fault:
    for form in formats:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 - the caller asks for its zone
        except ValueError:
            continue
    return _time_fault(text, f"a time written as {' or '.join(formats)}")


def _number_fault(text: str, expected: str) -> Fault:
    if text.lstrip("+-").casefold() in _SPECIAL_NUMBERS:
        return Fault(RejectCode.NUMERIC_SPECIAL, f"{expected}; NaN and infinity are not allowed in this field")
    return Fault(RejectCode.TYPE, expected)


def _time_fault(text: str, expected: str, otherwise: RejectCode = RejectCode.TYPE) -> Fault:
    if _SPECIAL_TIMES.fullmatch(text):
        return Fault(RejectCode.TIME_SPECIAL, f"{expected}, in the years 1 to 9999")
    return Fault(otherwise, expected)

"""Normalisers of field values for comparison: a closed list, so that two ways to write one fact agree. Pure.

    exact           as it is
    nfkc_space      Unicode NFKC, white space at the ends dropped and inside made one space
    digits          the digits of the text alone: telephone numbers, document numbers
    date            a date, or its text as 2026-05-04, 20260504, 2026/5/4 or 2026年5月4日
    code:<table>    by a table of codes in the rules; a code that the table lacks stands for itself

What a golden record shows is always the value as its source wrote it; the normal form is for comparison alone.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Final

from exchange.hub.fold.claim import Value

__all__ = ["NORMALISERS", "Normaliser", "normaliser"]

Normaliser = Callable[[Value], Value]

NORMALISERS: Final = ("exact", "nfkc_space", "digits", "date")
"""Names of the normalisers that take no table."""

_EPOCH = date(1970, 1, 1)
_DATE = re.compile(r"(\d{4})(?:[-/.年]?)(\d{1,2})(?:[-/.月]?)(\d{1,2})日?")


def normaliser(name: str, tables: Mapping[str, Mapping[str, str]]) -> Normaliser | None:
    """Return a normaliser by its name in the rules, None for a name that is not in the list."""
    if name.startswith("code:"):
        table = tables.get(name.removeprefix("code:"))
        return None if table is None else lambda value: table.get(value, value) if isinstance(value, str) else value
    return _BY_NAME.get(name)


def _exact(value: Value) -> Value:
    if isinstance(value, bool | float):
        # 1 and True are equal in Python, and 1 and 1.0; as values of two departments they are not one.
        return type(value).__name__, repr(value)
    if isinstance(value, list | tuple):
        return tuple(_exact(one) for one in value)
    if isinstance(value, Mapping):
        return frozenset((name, _exact(one)) for name, one in value.items())
    return value


def _nfkc_space(value: Value) -> Value:
    return " ".join(unicodedata.normalize("NFKC", value).split()) if isinstance(value, str) else _exact(value)


def _digits(value: Value) -> Value:
    if not isinstance(value, str):
        return _exact(value)
    return "".join(str(unicodedata.digit(each)) for each in value if unicodedata.digit(each, -1) >= 0)


def _date(value: Value) -> Value:
    if isinstance(value, int) and not isinstance(value, bool):  # Avro's date: days since 1970
        try:
            return _EPOCH + timedelta(days=value)
        except OverflowError:
            return value
    if isinstance(value, str):
        text = unicodedata.normalize("NFKC", value).strip()
        found = _DATE.fullmatch(text)
        if found is None:
            return text
        try:
            return date(*(int(part) for part in found.groups()))
        except ValueError:
            return text
    return value


_BY_NAME: Final[Mapping[str, Normaliser]] = {
    "exact": _exact,
    "nfkc_space": _nfkc_space,
    "digits": _digits,
    "date": _date,
}

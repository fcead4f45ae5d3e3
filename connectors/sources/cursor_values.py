"""Values of columns that rows are ordered by, kept over a restart: exact, in the form that the database compares. Pure.

PostgreSQL gives and takes each value as its own text. Other drivers give values of Python.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from schemas.errors import InvalidError, Reason

__all__ = ["decode_value", "encode_value", "subtract"]

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda micros: timedelta(microseconds=micros),
}


def encode_value(value: Any) -> str:
    """Return a value as JSON.

    Raises:
        InvalidError: CONFIG_INVALID, a value of a type that is not kept, such as bytes.
    """
    match value:
        case None:
            return "null"
        case bool():
            pass
        case int():
            return json.dumps(["int", str(value)])
        case str() | float():
            return json.dumps([type(value).__name__, value])
        case Decimal():
            return json.dumps(["decimal", str(value)])
        case datetime() | date() | time():
            return json.dumps([type(value).__name__, value.isoformat()])
        case timedelta():
            return json.dumps(["timedelta", value // timedelta(microseconds=1)])
    raise InvalidError(
        Reason.CONFIG_INVALID,
        f"rows cannot be followed by a column of {type(value).__name__}; name one of times, numbers or texts",
    )


def decode_value(text: str) -> Any:
    """Return the value of `encode_value`."""
    found = json.loads(text)
    if found is None:
        return None
    kind, value = found
    return _READERS[kind](value) if kind in _READERS else value


def subtract(value: Any, overlap: float) -> Any:
    """Return a value so much earlier: seconds of a time, units of a number.

    Raises:
        InvalidError: CONFIG_INVALID, nothing can be subtracted from it.
    """
    match value:
        case datetime():
            return value - timedelta(seconds=overlap)
        case date():
            return value - timedelta(days=1 + int(overlap // 86_400))
        case int():
            return value - int(overlap)
        case Decimal():
            return value - Decimal(overlap)
        case float():
            return value - overlap
        case str():  # SQLite has no type of times: their text is compared
            try:
                moment = datetime.fromisoformat(value)
            except ValueError as error:
                raise _no_order() from error
            return (moment - timedelta(seconds=overlap)).isoformat(sep="T" if "T" in value else " ")
    raise _no_order()


def _no_order() -> InvalidError:
    return InvalidError(
        Reason.CONFIG_INVALID, "`cursor:` needs a column of times or numbers: of others there is nothing to overlap"
    )

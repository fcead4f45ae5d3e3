r"""Values of database columns as text, exactly: how each column is selected, and how its driver's value is written.

The mapping starts from text (`connectors.mapping.conversion`), so nothing may be lost before: a driver that rounds,
reorders or raises is read in a form that it leaves alone.

    PostgreSQL       the server writes every type itself (`CAST … AS TEXT`): BC dates, infinity and NaN arrive as text
    MySQL, MariaDB   the driver's own values, not SQLAlchemy's: those round a DOUBLE to ten places, take a TIME modulo a
                     day and make an unordered set of a SET. The server writes a FLOAT in six digits; it is read as a
                     double, and written as the shortest text that comes back as the same FLOAT
    SQLite           the stored values, whatever the column was declared: a text in a DATE column is that text
    others           as SQLAlchemy reads them

Empty bytes are written `\x`, since an empty text is null for every type but text.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.sql.elements import ColumnElement

__all__ = ["RAW_DIALECTS", "TextOf", "Undecodable", "as_text", "decode_or_mark", "select_exactly", "text_of"]

TextOf: TypeAlias = Callable[[Any], str | None]

RAW_DIALECTS = frozenset({"mysql", "mariadb", "sqlite"})
"""Dialects of which the driver's own values are read."""


class Undecodable(bytes):
    """A text that is not in the database's encoding. Its row is quarantined."""


def decode_or_mark(content: bytes) -> str | Undecodable:
    """Return a text of SQLite, which stores any bytes as text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return Undecodable(content)


def select_exactly(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    """Return the expression that selects a column without loss."""
    kind = column.type
    if dialect == "postgresql":
        if isinstance(kind, sa.LargeBinary):
            return sa.case((sa.func.octet_length(column) == 0, "\\x"), else_=sa.func.encode(column, "hex"))
        if isinstance(kind, postgresql.MONEY):  # its text depends on the server's locale
            return sa.cast(sa.cast(column, sa.Numeric), sa.Text)
        return sa.cast(column, sa.Text)
    if dialect not in RAW_DIALECTS or isinstance(kind, mysql.BIT):
        return column
    if dialect != "sqlite" and isinstance(kind, sa.FLOAT):
        return sa.type_coerce(column, sa.types.NullType()) + sa.literal_column("0e0")
    return sa.type_coerce(column, sa.types.NullType())


def text_of(column: ColumnElement[Any], dialect: str) -> TextOf:
    """Return the function that writes the values of a column that `select_exactly` selects."""
    kind = column.type
    if dialect in ("mysql", "mariadb") and isinstance(kind, sa.FLOAT):
        return _single_text
    if dialect == "sqlite" and isinstance(kind, sa.LargeBinary):
        return _blob_text
    if dialect == "sqlite" and isinstance(kind, sa.Boolean):
        return _truth_text
    if dialect == "sqlite" and isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float):
        return _decimal_text
    return as_text


def as_text(value: Any) -> str | None:  # noqa: C901, PLR0911 - one line a type
    """Return a driver's value as text for the mapping."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case Decimal():
            return format(value, "f")
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex() or "\\x"
        case timedelta():
            return _clock_text(value)
        case Mapping() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
        case set() | frozenset():
            return ",".join(sorted(map(str, value)))
        case _:
            return str(value)


def _clock_text(value: timedelta) -> str:
    """Return a time of MySQL, which may be negative or have more than 24 hours."""
    micros = abs(value) // timedelta(microseconds=1)
    minutes, micros = divmod(micros, 60_000_000)
    seconds, micros = divmod(micros, 1_000_000)
    fraction = f".{micros:06d}" if micros else ""
    sign = "-" if value < timedelta() else ""
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{fraction}"


def _single_text(value: Any) -> str | None:
    return str(np.float32(value)) if isinstance(value, float) else as_text(value)


def _blob_text(value: Any) -> str | None:
    """Return a value of a BLOB column, where SQLite may have stored a text: its bytes."""
    return as_text(value.encode()) if isinstance(value, str) else as_text(value)


def _truth_text(value: Any) -> str | None:
    return as_text(bool(value)) if value in (0, 1) else as_text(value)


def _decimal_text(value: Any) -> str | None:
    """Return a number of a NUMERIC column, which SQLite stores as a double: the shortest text, without an exponent."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else as_text(value)

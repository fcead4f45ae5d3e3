"""Avro types for columns: from the type that a database declares, or from the texts of a file. Pure.

The table says under which type a column's values are published exactly (`connectors.sources.sql_values` reads them so):

    BOOLEAN                          boolean
    SMALLINT, INTEGER, YEAR          int; unsigned INTEGER long
    BIGINT                           long; unsigned decimal(20, 0)
    NUMERIC(p, s)                    decimal(p, s); without p and s, or with more than 38 digits: string
    REAL, FLOAT(24)                  float
    DOUBLE PRECISION                 double
    DATE                             date
    TIME                             time-micros; with a time zone string
    TIMESTAMP WITH TIME ZONE         timestamp-micros
    TIMESTAMP, DATETIME              local-timestamp-micros: the time on a clock on the wall
    UUID                             uuid
    BYTEA, BLOB, BINARY              bytes
    CHAR, VARCHAR, TEXT              string
    ENUM                             string, with its values as `codes`
    of SQLite INTEGER and REAL       long and double, whatever their names
    everything else                  string, as the database writes it

A file declares nothing. Its columns are texts, since a number may be a code whose zeros count; a column of ISO dates is
proposed as a date, and one of numbers that all have the same count of decimals as a decimal.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from registry.avro.type_tree import MAX_DECIMAL_DIGITS

__all__ = ["DraftType", "type_of_column", "type_of_texts"]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_AMOUNT = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.([0-9]{1,6})")
_SINGLE = 24  # binary digits of a REAL


@dataclass(frozen=True, slots=True)
class DraftType:
    """A type as Avro's JSON has it, the permitted texts where the database lists them, and what to know about it."""

    avro: Any
    codes: Sequence[str] = ()
    note: str = ""


_STRING = DraftType("string")


def type_of_column(kind: sa.types.TypeEngine[Any], dialect: str = "") -> DraftType:
    """Return the type for a column that a database of a dialect declares as *kind*."""
    if dialect == "sqlite":  # it stores every integer in 64 bits, and every other number as a double (datatype3, 2)
        if isinstance(kind, sa.Integer):
            return DraftType("long")
        if isinstance(kind, sa.Float):
            return DraftType("double")
    for declared, draft in _TABLE:
        if isinstance(kind, declared):
            return draft(kind)
    return DraftType("string", note=f"{type(kind).__name__} is published as the text that the database writes")


def _long(kind: Any) -> DraftType:
    return _decimal(20, 0) if getattr(kind, "unsigned", False) else DraftType("long")


def _int(kind: Any) -> DraftType:
    wide = getattr(kind, "unsigned", False) and not isinstance(kind, sa.SmallInteger | mysql.TINYINT)
    return DraftType("long" if wide else "int")


def _float(kind: Any) -> DraftType:
    single = isinstance(kind, sa.REAL | mysql.FLOAT) or (kind.precision or _SINGLE + 1) <= _SINGLE
    return DraftType("float" if single else "double")


def _numeric(kind: Any) -> DraftType:
    precision, scale = kind.precision, kind.scale
    if precision is None:
        return DraftType(
            "string", note="a NUMERIC without precision is a text; declare a decimal if you know its digits"
        )
    if precision > MAX_DECIMAL_DIGITS:
        return DraftType("string", note=f"more than {MAX_DECIMAL_DIGITS} digits are published as text")
    return _decimal(precision, scale or 0)


def _decimal(precision: int, scale: int) -> DraftType:
    return DraftType({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})


def _moment(kind: Any) -> DraftType:
    if kind.timezone:
        return DraftType({"type": "long", "logicalType": "timestamp-micros"})
    return DraftType(
        {"type": "long", "logicalType": "local-timestamp-micros"},
        note="a time without a zone; for moments in UTC declare timestamp-micros, and `timezone:` in the configuration",
    )


def _time(kind: Any) -> DraftType:
    if kind.timezone:
        return DraftType("string", note="a time of day with a zone is published as the text that the database writes")
    return DraftType({"type": "long", "logicalType": "time-micros"})


def _fixed(draft: DraftType) -> Callable[[Any], DraftType]:
    return lambda _: draft


_DOUBLE = (sa.Double, postgresql.DOUBLE_PRECISION, mysql.DOUBLE)
_BYTES = (sa.LargeBinary, sa.BINARY, sa.VARBINARY, mysql.TINYBLOB, mysql.MEDIUMBLOB, mysql.LONGBLOB)
_TABLE: Sequence[tuple[type[Any] | tuple[type[Any], ...], Callable[[Any], DraftType]]] = (  # narrower types first
    (sa.Boolean, _fixed(DraftType("boolean"))),
    (sa.BigInteger, _long),
    ((sa.Integer, mysql.YEAR), _int),
    (_DOUBLE, _fixed(DraftType("double"))),
    (sa.Float, _float),
    (sa.Numeric, _numeric),
    (sa.Date, _fixed(DraftType({"type": "int", "logicalType": "date"}))),
    (sa.DateTime, _moment),
    (sa.Time, _time),
    (sa.Uuid, _fixed(DraftType({"type": "string", "logicalType": "uuid"}))),
    (sa.Enum, lambda kind: DraftType("string", codes=tuple(map(str, kind.enums)))),
    (_BYTES, _fixed(DraftType("bytes"))),
    (mysql.SET, _fixed(DraftType("string", note="a SET is published as the text that the database writes"))),
    (sa.String, _fixed(_STRING)),
)


def type_of_texts(texts: Sequence[str]) -> DraftType:
    """Return the type for a column of a file, from some of its texts that are not empty."""
    if texts and all(map(_is_date, texts)):
        return DraftType({"type": "int", "logicalType": "date"}, note="proposed from the first rows")
    amounts = [_AMOUNT.fullmatch(text) for text in texts]
    scales = {len(each[1]) if each else -1 for each in amounts}
    if len(scales) == 1 and scales != {-1}:
        scale = scales.pop()
        return DraftType(_decimal(15 + scale, scale).avro, note="proposed from the first rows")
    return _STRING


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True

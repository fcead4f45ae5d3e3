"""Rows of a dump without a server: reads what pg_restore writes as text (COPY), table by table.

Only what a comparison with the log needs is read: the entries, and keys and tags of the tagged tables.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

__all__ = ["DumpRow", "rows_of", "value_of"]

DumpRow = tuple[str, dict[str, bytes | None]]
"""A table's name, and a row: by column the text as COPY writes it, unescaped; None for NULL."""

_COPY = re.compile(rb"COPY (?:\w+\.)?\"?(\w+)\"? \((.*)\) FROM stdin;")
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_READERS: dict[type[Any], Callable[[bytes], Any]] = {
    sa.LargeBinary: lambda text: bytes.fromhex(text.removeprefix(b"\\x").decode()),
    sa.Integer: int,
    sa.Boolean: lambda text: text == b"t",
    sa.DateTime: lambda text: datetime.fromisoformat(text.decode()),
    sa.Date: lambda text: date.fromisoformat(text.decode()),
}
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def rows_of(lines: Iterable[bytes], tables: frozenset[str]) -> Iterator[DumpRow]:
    """Yield the rows of some tables.

    Args:
        lines: what `pg_restore --data-only --file=-` writes.
        tables: their names.
    """
    table, columns = "", []
    for line in lines:
        if not table:
            match = _COPY.match(line)
            if match is not None:
                table = match[1].decode()
                columns = [name.strip(b' "').decode() for name in match[2].split(b",")]
        elif line == b"\\.\n":
            table = ""
        elif table in tables:
            values = line[:-1].split(b"\t")
            yield table, {name: _unescaped(value) for name, value in zip(columns, values, strict=True)}


def value_of(column: sa.Column[Any], text: bytes | None) -> Any:
    """Return a value of a key's column, as the database's driver returns it."""
    if text is None:
        return None
    for kind, read in _READERS.items():
        if isinstance(column.type, kind):
            return read(text)
    return text.decode()


def _unescaped(value: bytes) -> bytes | None:
    if value == b"\\N":
        return None
    if b"\\" not in value:
        return value
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), value)

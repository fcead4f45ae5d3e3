"""Rows of a binary COPY (PostgreSQL manual, COPY, "Binary Format"): integers of fixed widths, bytes and text. Pure."""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["binary_rows"]

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_COUNT: Final = struct.Struct(">h")
_LENGTH: Final = struct.Struct(">i")


def binary_rows(widths: Sequence[int], rows: Iterable[Sequence[bytes | str | int | None]]) -> bytes:
    """Return rows as the input of a COPY.

    Args:
        widths: bytes of each column's integer, 2, 4 or 8; 0 for bytes and text.
        rows: of so many columns; None is NULL.
    """
    head = _COUNT.pack(len(widths))
    parts = [_HEADER]
    for row in rows:
        parts.append(head)
        for width, value in zip(widths, row, strict=True):
            if value is None:
                parts.append(_NULL)
                continue
            if isinstance(value, int):
                content = value.to_bytes(width, signed=True)
            else:
                content = value.encode() if isinstance(value, str) else value
            parts += (_LENGTH.pack(len(content)), content)
    parts.append(_TRAILER)
    return b"".join(parts)

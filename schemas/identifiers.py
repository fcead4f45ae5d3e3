"""Identifiers that sort by time: UUIDv7 (RFC 9562, 5.7)."""

import secrets
import uuid

__all__ = ["uuid7"]


def uuid7(microseconds: int) -> str:
    """Make a UUIDv7 of a time in microseconds since 1970 UTC; 74 bits of it are random."""
    milliseconds = microseconds // 1000
    value = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))

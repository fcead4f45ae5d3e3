"""Identifiers: random ones, and those that sort by time, UUIDv7 (RFC 9562, 5.7).

Random bytes are read from the system 4 KiB at a time: each read is a system call, in which a thread releases the
interpreter lock, so that in a process with many threads every id would cost a change of threads.
"""

import os
import threading

__all__ = ["random_id", "time_of_uuid7", "uuid7"]

_BLOCK = 4096  # bytes


class _RandomBuffer:
    """Buffer of unused random bytes; each process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        with self._lock:
            if self._at + count > len(self._bytes):
                self._bytes = os.urandom(_BLOCK)
                self._at = 0
            taken = self._bytes[self._at : self._at + count]
            self._at += count
        return taken


_buffer = _RandomBuffer()


def _replace_buffer() -> None:
    global _buffer  # noqa: PLW0603 - a forked process must not use the bytes that its parent uses
    _buffer = _RandomBuffer()


os.register_at_fork(after_in_child=_replace_buffer)


def random_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits: id of a trace or request, salt of an entry. Never a key."""
    return _buffer.take(16).hex()


def uuid7(microseconds: int) -> str:
    """Return a UUIDv7 of a time in microseconds since 1970 UTC; 74 bits of it are random."""
    bits = int.from_bytes(_buffer.take(10))
    milliseconds = microseconds // 1000 & (1 << 48) - 1
    value = milliseconds << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def time_of_uuid7(text: str) -> int:
    """Return the time of a UUIDv7, in microseconds since 1970 UTC; it has whole milliseconds.

    Raises:
        ValueError: the text is no UUID.
    """
    return int(text.replace("-", "")[:12], 16) * 1000

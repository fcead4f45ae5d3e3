"""Identifiers: random ones, and those that sort by time, UUIDv7 (RFC 9562, 5.7).

Their random bits are the system's, asked for 4 KiB at a time: each question is a system call, in which a thread lets go
of the interpreter, so that in a process of many threads every id would cost a change of threads.
"""

import os
import threading

__all__ = ["random_id", "uuid7"]

_LOT = 4096  # bytes


class _Reserve:
    """Random bytes that nobody has had yet; each process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        with self._lock:
            if self._at + count > len(self._bytes):
                self._bytes = os.urandom(_LOT)
                self._at = 0
            taken = self._bytes[self._at : self._at + count]
            self._at += count
        return taken


_reserve = _Reserve()


def _renew() -> None:
    global _reserve  # noqa: PLW0603 - a forked process must not give out what its parent does
    _reserve = _Reserve()


os.register_at_fork(after_in_child=_renew)


def random_id() -> str:
    """Make 128 random bits, as 32 hexadecimal digits: a trace's or a request's id, an entry's salt. Never a key."""
    return _reserve.take(16).hex()


def uuid7(microseconds: int) -> str:
    """Make a UUIDv7 of a time in microseconds since 1970 UTC; 74 bits of it are random."""
    bits = int.from_bytes(_reserve.take(10))
    milliseconds = microseconds // 1000 & (1 << 48) - 1
    value = milliseconds << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

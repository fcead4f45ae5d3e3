"""Lock order of the connection pools: no code of the product opens `read()` while its thread is within `begin()`.

Transactions and readers have connection pools of their own (`registry.database.unit_of_work`). A thread that waits for
a reader while it holds a transaction could wait for a thread that does the opposite. tests/conftest.py watches every
database of every test: `watch` replaces `begin` and `read` for the run, and `violations` says what was seen.

A test itself may look from outside while it holds a transaction; only callers in the product's packages count.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from registry.database.unit_of_work import MemoryDatabase, PostgresDatabase

__all__ = ["PRODUCT", "violations", "watch"]

PRODUCT = ("connectors.", "exchange.", "registry.", "schemas.")

_open = threading.local()
_seen: list[str] = []


def violations() -> list[str]:
    """Return what was seen since the last call: who opened a reader within whose transaction."""
    found = [*_seen]
    _seen.clear()
    return found


@contextmanager
def watch() -> Iterator[None]:
    """Watch all databases of this process for the block."""
    originals = [(kind, kind.begin, kind.read) for kind in (PostgresDatabase, MemoryDatabase)]
    for kind, begin, read in originals:
        kind.begin = _watched_begin(begin)  # type: ignore[method-assign]
        kind.read = _watched_read(read)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, begin, read in originals:
            kind.begin, kind.read = begin, read  # type: ignore[method-assign]


def _watched_begin(begin: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
    def watched(database: object) -> AbstractContextManager[Any]:
        return _entered(begin(database), _pool_of(database), _caller())

    return watched


@contextmanager
def _entered(opened: AbstractContextManager[Any], pool: object, caller: str) -> Iterator[Any]:
    stack = _transactions()
    with opened as work:
        held = (pool, caller)
        stack.append(held)
        try:
            yield work
        finally:
            stack.remove(held)


def _watched_read(read: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
    def watched(database: object) -> AbstractContextManager[Any]:
        caller = _caller()
        within = [opener for pool, opener in _transactions() if pool is _pool_of(database)]
        if within and caller.startswith(PRODUCT):
            _seen.append(f"{caller} opens read() within begin() of {within[-1]}")
            raise AssertionError(f"{_seen[-1]}; pass the unit of work on instead")
        return read(database)

    return watched


def _pool_of(database: object) -> object:
    """Return the connections for transactions; two objects over one engine are one database."""
    return getattr(database, "engine", database)


def _transactions() -> list[tuple[object, str]]:
    stack: list[tuple[object, str]] | None = getattr(_open, "stack", None)
    if stack is None:
        stack = _open.stack = []
    return stack


def _caller() -> str:
    """Return module and line of the code that called `begin` or `read`."""
    frame = sys._getframe(2)
    return f"{frame.f_globals.get('__name__', '')}:{frame.f_lineno}"

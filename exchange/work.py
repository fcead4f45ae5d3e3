"""One transaction that several stores join.

The entry that proves an act, the receipt, the quota and the grant's lock must become durable together or not at
all. Stores therefore never begin or commit: they take a `Work`, which `Works.begin()` opens and closes.

    with works.begin() as work:
        grants.lock(work, grant_id)
        ledger.write(work, [entry])

Leaving the block commits; an exception rolls back. `PostgresWork` is a SQLAlchemy connection in a transaction;
`MemoryWork` is the in-memory twin, whose stores register how to undo what they did.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from registry.postgres_failures import unavailable
from schemas.errors import Reason, UnavailableError

__all__ = ["MemoryWork", "MemoryWorks", "PostgresWork", "PostgresWorks", "Work", "Works", "connection_of"]


class Work:
    """An open transaction. Marker: each kind of store knows its own."""


class Works(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractContextManager[Work]:
        """Open one; commit at the end of the block, roll back on an exception.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, DISK_FULL or OVERLOADED; OUTCOME_UNKNOWN when the connection was
                lost during the commit, so that it may have happened or not.
        """
        ...


class PostgresWork(Work):
    """A transaction on one PostgreSQL connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection


class PostgresWorks:
    """Opens PostgreSQL transactions on an engine's pool."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @contextmanager
    def begin(self) -> Iterator[PostgresWork]:
        """See `Works.begin`."""
        try:
            connection = self.engine.connect()
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error
        with connection:
            transaction = connection.begin()
            try:
                yield PostgresWork(connection)
            except sa_exc.DBAPIError as error:
                _roll_back(transaction)
                raise unavailable(error) from error
            except BaseException:
                _roll_back(transaction)
                raise
            try:
                transaction.commit()
            except sa_exc.DBAPIError as error:
                raise UnavailableError(
                    Reason.OUTCOME_UNKNOWN,
                    "the connection to PostgreSQL was lost during a commit; it may have happened or not",
                ) from error


class MemoryWork(Work):
    """The twin's transaction: what was done, backwards."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Register how to take back what a store has just done."""
        self._undo.append(undo)

    def roll_back(self) -> None:
        """Take everything back, last first."""
        while self._undo:
            self._undo.pop()()


class MemoryWorks:
    """Opens transactions one at a time under one lock: the strictest isolation there is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def begin(self) -> Iterator[MemoryWork]:
        """See `Works.begin`."""
        with self._lock:
            work = MemoryWork()
            try:
                yield work
            except BaseException:
                work.roll_back()
                raise


def connection_of(work: Work) -> sa.Connection:
    """Give the SQLAlchemy connection of a PostgreSQL transaction.

    Raises:
        TypeError: the work belongs to another kind of store; the composition root has mixed adapters.
    """
    if not isinstance(work, PostgresWork):
        raise TypeError(f"got {type(work).__name__}; a PostgreSQL store works only within a PostgresWork")
    return work.connection


def _roll_back(transaction: sa.RootTransaction) -> None:
    try:
        transaction.rollback()
    except sa_exc.DBAPIError:
        # The connection is gone and the server has rolled back by itself.
        return

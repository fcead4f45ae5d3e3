"""One transaction that several stores join.

The entry that proves an act, the receipt, the quota and the grant's lock must become durable together or not at
all. Stores therefore never begin or commit: they take a `UnitOfWork`, which `Database.begin()` opens and closes.

    with works.begin() as work:
        grants.lock(work, grant_id)
        ledger.write(work, [entry])

Leaving the block commits; an exception rolls back. `PostgresUnitOfWork` is a SQLAlchemy connection in a transaction;
`MemoryUnitOfWork` is the in-memory twin, whose stores register how to undo what they did.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from registry.database.connection import BatchingConnection
from registry.database.errors import never_committed, unavailable
from registry.database.prepared_statement import PreparedStatement
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = [
    "Database",
    "MemoryDatabase",
    "MemoryUnitOfWork",
    "PostgresDatabase",
    "PostgresUnitOfWork",
    "UnitOfWork",
    "connection_of",
    "postgres_of",
]


class UnitOfWork:
    """An open transaction. Marker: each kind of store knows its own."""


class Database(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractContextManager[UnitOfWork]:
        """Open one; commit at the end of the block, roll back on an exception.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, DISK_FULL or OVERLOADED; OUTCOME_UNKNOWN when the connection was
                lost during the commit, so that it may have happened or not.
            PoolError: what the last statement raises, where it went with the commit.
        """
        ...


Refusal: TypeAlias = Callable[[sa_exc.IntegrityError], PoolError]
"""Says what it means that a statement's rows are against a rule of the database."""


class PostgresUnitOfWork(UnitOfWork):
    """A transaction on one PostgreSQL connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self._ends: list[Callable[[bool | None], None]] = []
        self._refusal: Refusal | None = None

    def at_end(self, tell: Callable[[bool | None], None]) -> None:
        """Have somebody told how it ended: True, committed; False, rolled back; None, unknown."""
        self._ends.append(tell)

    def write(self, statement: PreparedStatement, values: Mapping[str, Any], *, refusal: Refusal, last: bool) -> None:
        """Carry a statement out that gives no rows.

        Args:
            statement: which.
            values: its parameters, by name.
            refusal: makes the error that is raised where it is refused.
            last: nothing else is carried out in this work, so that it may go with the commit; what it raises is then
                raised by leaving the work.
        """
        driver: Any = self.connection.connection.dbapi_connection
        try:
            if not last or not isinstance(driver, BatchingConnection):
                statement.run(self.connection, values)
                return
            driver.finish_with(statement.written_out(self.connection, values))
        except sa_exc.IntegrityError as error:
            raise refusal(error) from error
        self._refusal = refusal

    def ended(self, committed: bool | None) -> None:
        """Tell everybody how it ended; by whoever opened it."""
        while self._ends:
            self._ends.pop()(committed)

    def failed(self, error: sa_exc.DBAPIError) -> Exception:
        """Return what it means that the commit raised an error; tell everybody."""
        known = never_committed(error)
        if isinstance(error, sa_exc.IntegrityError) and self._refusal is not None:
            found: Exception = self._refusal(error)
        elif known:
            found = unavailable(error)
        else:
            found = UnavailableError(
                Reason.OUTCOME_UNKNOWN,
                "the connection to PostgreSQL was lost during a commit; it may have happened or not",
            )
        self.ended(False if known else None)
        return found


class PostgresDatabase(Database):
    """Opens PostgreSQL transactions on an engine's pool."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @contextmanager
    @override
    def begin(self) -> Iterator[PostgresUnitOfWork]:
        try:
            connection = self.engine.connect()
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error
        with connection:
            transaction = connection.begin()
            work = PostgresUnitOfWork(connection)
            try:
                yield work
            except sa_exc.DBAPIError as error:
                _roll_back(transaction, work)
                raise unavailable(error) from error
            except BaseException:
                _roll_back(transaction, work)
                raise
            try:
                transaction.commit()
            except sa_exc.DBAPIError as error:
                raise work.failed(error) from error
            except BaseException:  # an interruption, after which whoever waits to be told would wait forever
                work.ended(None)
                raise
            work.ended(True)


class MemoryUnitOfWork(UnitOfWork):
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


class MemoryDatabase(Database):
    """Opens transactions one at a time under one lock: the strictest isolation there is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    @override
    def begin(self) -> Iterator[MemoryUnitOfWork]:
        with self._lock:
            work = MemoryUnitOfWork()
            try:
                yield work
            except BaseException:
                work.roll_back()
                raise


def postgres_of(work: UnitOfWork) -> PostgresUnitOfWork:
    """Return a PostgreSQL transaction as what it is.

    Raises:
        TypeError: the work belongs to another kind of store; the composition root has mixed adapters.
    """
    if not isinstance(work, PostgresUnitOfWork):
        raise TypeError(f"got {type(work).__name__}; a PostgreSQL store works only within a PostgresWork")
    return work


def connection_of(work: UnitOfWork) -> sa.Connection:
    """Return the SQLAlchemy connection of a PostgreSQL transaction.

    Raises:
        TypeError: the work belongs to another kind of store; the composition root has mixed adapters.
    """
    return postgres_of(work).connection


def _roll_back(transaction: sa.RootTransaction, work: PostgresUnitOfWork) -> None:
    try:
        transaction.rollback()
    except sa_exc.DBAPIError:
        # The connection is gone. The server rolls back by itself, but until it has seen that it holds what was locked.
        work.ended(None)
    except BaseException:
        work.ended(None)
        raise
    else:
        work.ended(None if transaction.connection.invalidated else False)

"""Unit of work: one database transaction that several stores take part in.

The entry that proves an act, the receipt, the quota, the grant's lock and the registry's change must become durable
together or not at all. Stores therefore never begin or commit. Every store method takes what it works on as its first
parameter:

    with database.begin() as work:            a transaction: commit at the end of the block, roll back on an exception
        grants.lock_for_update(work, grant_id)
        views.register(work, grant)
        ledger.write(work, [entry])

    with database.read() as reader:           autocommit: each statement sees what is committed at its moment
        departments.get(reader, department_id)

A method that writes or locks asks for a `UnitOfWork`, a method that reads for a `Reader`. A unit of work is a reader
too, so a read within a transaction sees what was written in it. The type checker refuses a write without a transaction.

Lock order: never open `read()` within `begin()`; pass the unit of work on instead. The two have connection pools of
their own, and a thread that waits for one while it holds the other could wait for a thread that does the opposite.

`PostgresUnitOfWork` is a SQLAlchemy connection in a transaction. `MemoryUnitOfWork` is the in-memory adapter's, whose
stores register how to undo what they did.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from registry.database.connection import BatchingConnection
from registry.database.errors import never_committed, translated_errors, unavailable
from registry.database.prepared_statement import PreparedStatement
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = [
    "Database",
    "MemoryDatabase",
    "MemoryReader",
    "MemoryUnitOfWork",
    "Outcome",
    "PostgresDatabase",
    "PostgresReader",
    "PostgresUnitOfWork",
    "Reader",
    "RowChange",
    "UnitOfWork",
    "connection_of",
    "note_row_change",
    "on_rollback",
    "postgres_of",
    "take_row_changes",
]


class Reader:
    """Handle that stores read with. Marker class: each kind of store has its own."""


class UnitOfWork(Reader):
    """Open transaction; each kind of store has its own."""

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Register a function to call once the transaction is committed; after a rollback it is never called."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RowChange:
    """One change of a tagged row (`registry.database.row_tags`): its tags before and after.

    Attributes:
        table: its name.
        key: the row's primary key as text.
        before: None for a new row.
        after: None for a deleted one.
    """

    table: str
    key: str
    before: bytes | None
    after: bytes | None


class Database(Protocol):
    """Port: opens transactions and readers."""

    def begin(self) -> AbstractContextManager[UnitOfWork]:
        """Open a transaction; commit at the end of the block, roll back on an exception.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, DISK_FULL or OVERLOADED; OUTCOME_UNKNOWN when the connection was
                lost during the commit, so that it may have happened or not.
            PoolError: what the last statement raises, where it went with the commit.
        """
        ...

    def read(self) -> AbstractContextManager[Reader]:
        """Open a reader in autocommit mode; it takes a connection with its first statement and keeps it for the block.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, DISK_FULL or OVERLOADED.
        """
        ...


class Outcome(Enum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"  # the connection was lost during the commit


ViolationError: TypeAlias = Callable[[sa_exc.IntegrityError], PoolError]
"""Returns the error to raise when a statement's rows violate a constraint of the database."""


class PostgresReader(Reader):
    """PostgreSQL connection in autocommit mode, taken from its pool when it is first used."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None

    @property
    def connection(self) -> sa.Connection:
        """The connection.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE or OVERLOADED.
        """
        if self._connection is None:
            with translated_errors():
                connection = self._engine.connect()
            driver: Any = connection.connection.dbapi_connection
            if not driver.autocommit:
                connection.execution_options(isolation_level="AUTOCOMMIT")
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Return the connection to its pool."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresUnitOfWork(UnitOfWork):
    """Transaction on one PostgreSQL connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.row_changes: list[RowChange] = []  # that no entry has noted yet
        self._callbacks: list[Callable[[Outcome], None]] = []
        self._on_violation: ViolationError | None = None

    def on_completion(self, callback: Callable[[Outcome], None]) -> None:
        """Register a completion callback, called with the outcome."""
        self._callbacks.append(callback)

    @override
    def on_commit(self, callback: Callable[[], None]) -> None:
        self.on_completion(lambda outcome: callback() if outcome is Outcome.COMMITTED else None)

    def write(
        self, statement: PreparedStatement, values: Mapping[str, Any], *, on_violation: ViolationError, last: bool
    ) -> None:
        """Execute a statement that returns no rows.

        Args:
            statement: which.
            values: its parameters, by name.
            on_violation: returns the error to raise when it violates a constraint.
            last: nothing else is executed in this unit of work, so the statement may be sent with the commit; leaving
                the block then raises its errors.
        """
        driver: Any = self.connection.connection.dbapi_connection
        try:
            if not last or not isinstance(driver, BatchingConnection):
                statement.execute(self.connection, values)
                return
            driver.send_with_commit(statement.render(self.connection, values))
        except sa_exc.IntegrityError as error:
            raise on_violation(error) from error
        self._on_violation = on_violation

    def complete(self, outcome: Outcome) -> None:
        """Call the completion callbacks; only `PostgresDatabase.begin` calls this."""
        while self._callbacks:
            self._callbacks.pop()(outcome)

    def fail_commit(self, error: sa_exc.DBAPIError) -> Exception:
        """Call the completion callbacks and return the translated error of a commit."""
        rolled_back = never_committed(error)
        if isinstance(error, sa_exc.IntegrityError) and self._on_violation is not None:
            translated: Exception = self._on_violation(error)
        elif rolled_back:
            translated = unavailable(error)
        else:
            translated = UnavailableError(
                Reason.OUTCOME_UNKNOWN,
                "the connection to PostgreSQL was lost during a commit; it may have happened or not",
            )
        self.complete(Outcome.ROLLED_BACK if rolled_back else Outcome.UNKNOWN)
        return translated


class PostgresDatabase(Database):
    """Opens transactions and readers on the connection pools of one PostgreSQL database.

    Args:
        engine: connections for transactions.
        autocommit: connections for single statements, in autocommit mode already; without them those of *engine* are
            switched to that mode and back each time.
        accountable: refuse to commit a change of a tagged row that no entry has noted, as a pool does.
    """

    def __init__(self, engine: sa.Engine, autocommit: sa.Engine | None = None, *, accountable: bool = False) -> None:
        self.engine = engine
        self._autocommit = autocommit or engine
        self._accountable = accountable

    @contextmanager
    @override
    def begin(self) -> Iterator[PostgresUnitOfWork]:
        with translated_errors():
            connection = self.engine.connect()
        with connection:
            transaction = connection.begin()
            work = PostgresUnitOfWork(connection)
            try:
                with translated_errors():
                    yield work
                if self._accountable:
                    _require_noted(work)
            except BaseException:
                _roll_back(transaction, work)
                raise
            try:
                transaction.commit()
            except sa_exc.DBAPIError as error:
                raise work.fail_commit(error) from error
            except BaseException:  # an interruption: without this, the callbacks would never be called
                work.complete(Outcome.UNKNOWN)
                raise
            work.complete(Outcome.COMMITTED)

    @contextmanager
    @override
    def read(self) -> Iterator[PostgresReader]:
        reader = PostgresReader(self._autocommit)
        try:
            with translated_errors():
                yield reader
        finally:
            reader.close()


class MemoryReader(Reader):
    """Reader of the in-memory adapters."""


class MemoryUnitOfWork(UnitOfWork):
    """Transaction of the in-memory adapters: a list of undo functions."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._committed: list[Callable[[], None]] = []

    @override
    def on_commit(self, callback: Callable[[], None]) -> None:
        self._committed.append(callback)

    def commit(self) -> None:
        """Call the functions that wait for the commit."""
        while self._committed:
            self._committed.pop()()

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Register a function that undoes what a store has just done."""
        self._undo.append(undo)

    def roll_back(self) -> None:
        """Call the undo functions, last first."""
        while self._undo:
            self._undo.pop()()


class MemoryDatabase(Database):
    """Opens transactions one at a time under one lock: serializable isolation."""

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
            work.commit()

    @contextmanager
    @override
    def read(self) -> Iterator[MemoryReader]:
        yield MemoryReader()


def postgres_of(work: UnitOfWork) -> PostgresUnitOfWork:
    """Return a unit of work as the PostgreSQL transaction that it is.

    Raises:
        TypeError: the unit of work belongs to another kind of store; the composition root has mixed adapters.
    """
    if not isinstance(work, PostgresUnitOfWork):
        raise TypeError(f"got {type(work).__name__}; a PostgreSQL store works only within a PostgresUnitOfWork")
    return work


def connection_of(reader: Reader) -> sa.Connection:
    """Return the SQLAlchemy connection of a PostgreSQL transaction or reader.

    Raises:
        TypeError: it belongs to another kind of store; the composition root has mixed adapters.
        UnavailableError: a reader gets no connection.
    """
    if not isinstance(reader, PostgresUnitOfWork | PostgresReader):
        raise TypeError(f"got {type(reader).__name__}; a PostgreSQL store needs a PostgreSQL transaction or reader")
    return reader.connection


def note_row_change(work: UnitOfWork, change: RowChange) -> None:
    """Note a change of a tagged row, for the entry of the act that makes it."""
    postgres_of(work).row_changes.append(change)


def take_row_changes(work: UnitOfWork) -> list[RowChange]:
    """Return the noted changes of tagged rows, which the caller puts into an entry; there are none in memory."""
    if not isinstance(work, PostgresUnitOfWork):
        return []
    changes, work.row_changes = work.row_changes, []
    return changes


def on_rollback(work: UnitOfWork, undo: Callable[[], None]) -> None:
    """Register a function that undoes what an in-memory store has just done.

    Raises:
        TypeError: the unit of work belongs to another kind of store; the composition root has mixed adapters.
    """
    if not isinstance(work, MemoryUnitOfWork):
        raise TypeError(f"got {type(work).__name__}; an in-memory store works only within a MemoryUnitOfWork")
    work.on_rollback(undo)


def _require_noted(work: PostgresUnitOfWork) -> None:
    tables = ", ".join(sorted({change.table for change in work.row_changes}))
    if tables:
        raise RuntimeError(f"rows of {tables} were changed, and no entry of this transaction notes it")


def _roll_back(transaction: sa.RootTransaction, work: PostgresUnitOfWork) -> None:
    try:
        transaction.rollback()
    except sa_exc.DBAPIError:
        # The connection is lost. The server rolls back by itself, but holds the locks until it notices.
        work.complete(Outcome.UNKNOWN)
    except BaseException:
        work.complete(Outcome.UNKNOWN)
        raise
    else:
        work.complete(Outcome.UNKNOWN if transaction.connection.invalidated else Outcome.ROLLED_BACK)

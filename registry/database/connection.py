"""PostgreSQL connection that batches BEGIN with the first statement and COMMIT with the last: fewer round trips.

    psycopg2                  BEGIN ── first statement ── … ── last statement ── COMMIT
    here                      BEGIN; first statement   ── … ── last statement; COMMIT

Several statements in one message are executed one after another, and the first that fails ends the message
(PostgreSQL's documentation, "Simple Query", 55.2.2.1): after `BEGIN; statement` the transaction is open, failed or
not; of `statement; COMMIT` nothing is committed if the statement fails. A message is parsed as a whole before any of
it is executed, so that a first statement with a syntax error has begun nothing.

For the driver each such connection is in autocommit mode; transactions are begun and ended here only. Callers see a
connection like psycopg2's own: `autocommit`, `commit`, `rollback` and the isolation levels have the same meaning.
"""

from collections.abc import Iterable
from typing import Any, Self

import psycopg2
from psycopg2 import errors, extensions, sql
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_UNKNOWN,
)

__all__ = ["BatchingConnection"]

_AUTOCOMMIT: Any = extensions.connection.autocommit
_LEVELS: dict[int | None, str] = {
    None: "",
    extensions.ISOLATION_LEVEL_READ_UNCOMMITTED: " ISOLATION LEVEL READ UNCOMMITTED",
    extensions.ISOLATION_LEVEL_READ_COMMITTED: " ISOLATION LEVEL READ COMMITTED",
    extensions.ISOLATION_LEVEL_REPEATABLE_READ: " ISOLATION LEVEL REPEATABLE READ",
    extensions.ISOLATION_LEVEL_SERIALIZABLE: " ISOLATION LEVEL SERIALIZABLE",
}


class BatchingConnection(extensions.connection):
    """A connection of psycopg2's: give it to `psycopg2.connect` as its `connection_factory`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        _AUTOCOMMIT.__set__(self, True)
        self._single = False
        self._level = ""
        self._readonly = False
        self._last = b""
        self._own = super().cursor()

    def __enter__(self) -> Self:
        """Begin a transaction for the block, in autocommit mode too; the end of the block ends it."""
        if self._single:  # the driver would send it too, and then expect a transaction forever
            self._send(self._begin())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit; roll back on an exception."""
        if kind is None:
            self.commit()
        else:
            self.rollback()

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return self._single

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._refuse_open("autocommit")
        self._single = value

    @property
    def readonly(self) -> bool:
        """Whether its transactions may only read."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self._refuse_open("readonly")
        self._readonly = value is True

    def set_isolation_level(self, level: int | None) -> None:
        """Set the isolation level of the next transactions; 0 for autocommit. An open one is rolled back."""
        self.rollback()
        self._single = level == extensions.ISOLATION_LEVEL_AUTOCOMMIT
        self._level = "" if self._single else _LEVELS[level]

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        """Return a cursor that batches BEGIN; one with a name streams from the server, within a transaction."""
        named["cursor_factory"] = _Cursor
        if arguments or named.get("name"):
            named["withhold"] = True  # without it the driver refuses, because it does not know the transaction
        return super().cursor(*arguments, **named)

    def begin_prefix(self) -> str:
        """Return the prefix of the next statement; empty within a transaction, and in autocommit mode.

        Raises:
            psycopg2.ProgrammingError: the transaction's last statement was set; it can only end.
        """
        if self._last:
            raise psycopg2.ProgrammingError("got another statement after the one that is sent with the commit")
        if self._single or self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            return ""
        return self._begin()

    def open(self) -> None:
        """Begin a transaction, unless one is open or the connection is in autocommit mode."""
        prefix = self.begin_prefix()
        if prefix:
            self._send(prefix)

    def send_with_commit(self, statement: bytes) -> None:
        """Send a statement with the commit, which then raises its errors; no statement may follow.

        Args:
            statement: its parameters filled in (`cursor.mogrify`).

        Raises:
            psycopg2.ProgrammingError: one is set already.
        """
        self._last = self.begin_prefix().encode() + statement

    def commit(self) -> None:
        """Commit an open transaction. It has ended, whatever this raises.

        Raises:
            psycopg2.errors.InFailedSqlTransaction: a statement had failed, so that the server rolled back.
            psycopg2.Error: what the last statement or the commit raised.
        """
        last, self._last = self._last, b""
        if not last and self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            return
        try:
            done = self._send(last + b";COMMIT" if last else "COMMIT")
        except psycopg2.Error:
            if self.get_transaction_status() == TRANSACTION_STATUS_INERROR:
                self.rollback()
            raise
        if done == "ROLLBACK":
            raise errors.InFailedSqlTransaction("a statement of this transaction had failed, so nothing was committed")

    def rollback(self) -> None:
        """Roll back an open transaction."""
        self._last = b""
        if self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            self._send("ROLLBACK")

    def _begin(self) -> str:
        return f"BEGIN{self._level}{' READ ONLY' if self._readonly else ''};"

    def _send(self, text: str | bytes) -> str | None:
        self._own.execute(text)
        return self._own.statusmessage

    def _refuse_open(self, what: str) -> None:
        if self.get_transaction_status() not in (TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_UNKNOWN):
            raise psycopg2.ProgrammingError(f"{what} cannot be changed within a transaction; commit or roll back first")


class _Cursor(extensions.cursor):
    """Sends BEGIN with the first statement of a transaction."""

    connection: BatchingConnection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        if self.name is not None:  # the driver puts DECLARE before it
            self.connection.open()
        prefix = self.connection.begin_prefix()
        if prefix:
            if isinstance(query, sql.Composable):
                query = query.as_string(self)
            query = prefix.encode() + query if isinstance(query, bytes) else prefix + query
        super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Iterable[Any]) -> None:
        self.connection.open()
        super().executemany(query, vars_list)

    def callproc(self, procname: Any, parameters: Any = None) -> None:
        self.connection.open()
        super().callproc(procname, parameters)

    def copy_expert(self, *arguments: Any, **named: Any) -> None:
        self.connection.open()
        super().copy_expert(*arguments, **named)

    def copy_from(self, *arguments: Any, **named: Any) -> None:
        self.connection.open()
        super().copy_from(*arguments, **named)

    def copy_to(self, *arguments: Any, **named: Any) -> None:
        self.connection.open()
        super().copy_to(*arguments, **named)

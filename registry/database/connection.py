"""PostgreSQL connection that batches BEGIN and COMMIT with statements, to save network round trips.

    psycopg2                  BEGIN ── first statement ── … ── last statement ── COMMIT
    here                      BEGIN; first statement   ── … ── last statement; COMMIT

The server executes several statements of one message one after another, and the first that fails ends the message
(PostgreSQL's documentation, "Simple Query", 55.2.2.1): after `BEGIN; statement` the transaction is open, failed or
not; of `statement; COMMIT` nothing is committed if the statement fails. A message is parsed as a whole before any of
it is executed, so a first statement that is not valid SQL begins no transaction.

The driver sees each such connection in autocommit mode; this module alone begins and ends transactions. To its users it
is a usual connection of psycopg2: `autocommit`, `commit`, `rollback` and isolation levels mean what they mean there.
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
    """Connection of psycopg2; pass the class to `psycopg2.connect` as `connection_factory`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        _AUTOCOMMIT.__set__(self, True)
        self._autocommit = False
        self._isolation = ""
        self._readonly = False
        self._final_statement = b""
        self._control_cursor = super().cursor()

    def __enter__(self) -> Self:
        """Begin a transaction for the block, in autocommit mode too; `__exit__` ends it."""
        if self._autocommit:  # the driver's own __enter__ would begin one too, and count it from then on
            self._send(self._begin_statement())
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
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._require_idle("autocommit")
        self._autocommit = value

    @property
    def readonly(self) -> bool:
        """Whether its transactions are read-only."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self._require_idle("readonly")
        self._readonly = value is True

    def set_isolation_level(self, level: int | None) -> None:
        """Set the isolation level of the next transactions; 0 = autocommit. An open transaction is rolled back."""
        self.rollback()
        self._autocommit = level == extensions.ISOLATION_LEVEL_AUTOCOMMIT
        self._isolation = "" if self._autocommit else _LEVELS[level]

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        """Return a cursor that batches BEGIN; one with a name streams from the server, within a transaction."""
        named["cursor_factory"] = _Cursor
        if arguments or named.get("name"):
            named["withhold"] = True  # the driver requires it in autocommit mode: it does not know of the transaction
        return super().cursor(*arguments, **named)

    def begin_prefix(self) -> str:
        """Return the prefix of the next statement: BEGIN; empty within a transaction and in autocommit mode.

        Raises:
            psycopg2.ProgrammingError: the transaction's final statement was given; it can only end.
        """
        if self._final_statement:
            raise psycopg2.ProgrammingError("got another statement after the one that is sent with the commit")
        if self._autocommit or self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            return ""
        return self._begin_statement()

    def begin(self) -> None:
        """Begin a transaction now, unless one is open or the connection is in autocommit mode."""
        prefix = self.begin_prefix()
        if prefix:
            self._send(prefix)

    def send_with_commit(self, statement: bytes) -> None:
        """Send a statement in one message with the commit, which then raises its errors; it is the final statement.

        Args:
            statement: its parameters filled in (`cursor.mogrify`).

        Raises:
            psycopg2.ProgrammingError: there is one already.
        """
        self._final_statement = self.begin_prefix().encode() + statement

    def commit(self) -> None:
        """Commit, if a transaction was begun. It has ended afterwards, whatever this raises.

        Raises:
            psycopg2.errors.InFailedSqlTransaction: a statement had failed, so the server rolled back.
            psycopg2.Error: what the final statement or the commit itself raised.
        """
        final, self._final_statement = self._final_statement, b""
        if not final and self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            return
        try:
            status = self._send(final + b";COMMIT" if final else "COMMIT")
        except psycopg2.Error:
            if self.get_transaction_status() == TRANSACTION_STATUS_INERROR:
                self.rollback()
            raise
        if status == "ROLLBACK":
            raise errors.InFailedSqlTransaction("a statement of this transaction had failed, so nothing was committed")

    def rollback(self) -> None:
        """Roll back, if a transaction was begun."""
        self._final_statement = b""
        if self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            self._send("ROLLBACK")

    def _begin_statement(self) -> str:
        return f"BEGIN{self._isolation}{' READ ONLY' if self._readonly else ''};"

    def _send(self, text: str | bytes) -> str | None:
        self._control_cursor.execute(text)
        return self._control_cursor.statusmessage

    def _require_idle(self, what: str) -> None:
        if self.get_transaction_status() not in (TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_UNKNOWN):
            raise psycopg2.ProgrammingError(f"{what} cannot be changed within a transaction; commit or roll back first")


class _Cursor(extensions.cursor):
    """Cursor that sends BEGIN with the first statement of a transaction."""

    connection: BatchingConnection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        if self.name is not None:  # the driver puts DECLARE before it
            self.connection.begin()
        prefix = self.connection.begin_prefix()
        if prefix:
            if isinstance(query, sql.Composable):
                query = query.as_string(self)
            query = prefix.encode() + query if isinstance(query, bytes) else prefix + query
        super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Iterable[Any]) -> None:
        self.connection.begin()
        super().executemany(query, vars_list)

    def callproc(self, procname: Any, parameters: Any = None) -> None:
        self.connection.begin()
        super().callproc(procname, parameters)

    def copy_expert(self, *arguments: Any, **named: Any) -> None:
        self.connection.begin()
        super().copy_expert(*arguments, **named)

    def copy_from(self, *arguments: Any, **named: Any) -> None:
        self.connection.begin()
        super().copy_from(*arguments, **named)

    def copy_to(self, *arguments: Any, **named: Any) -> None:
        self.connection.begin()
        super().copy_to(*arguments, **named)

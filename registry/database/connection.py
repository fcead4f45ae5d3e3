"""A session with PostgreSQL that begins and ends its transactions in as few ways to the server as there can be.

    psycopg2                  BEGIN ── first statement ── … ── last statement ── COMMIT
    here                      BEGIN; first statement   ── … ── last statement; COMMIT

Several statements in one message are carried out one after another, and the first that fails ends the message
(PostgreSQL's documentation, "Simple Query", 55.2.2.1): after `BEGIN; statement` the transaction is open, failed or
not; of `statement; COMMIT` nothing is committed where the statement fails. A message is read as a whole before any of
it is carried out, so that a first statement which is no SQL at all has begun nothing.

For the driver each such session is in its mode without transactions, and what begins and ends them stands here alone.
Whoever uses it sees a session as psycopg2 makes it: `autocommit`, `commit`, `rollback` and the levels of isolation mean
what they mean there.
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
        """Begin a transaction for the block, also where each statement is one of its own; its end ends it."""
        if self._single:  # the driver would say it too, and then know of it forever
            self._say(self._begin())
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
        """Return how isolated its next transactions are; 0 for none at all. An open one is rolled back."""
        self.rollback()
        self._single = level == extensions.ISOLATION_LEVEL_AUTOCOMMIT
        self._level = "" if self._single else _LEVELS[level]

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        """Return a cursor, always of its own kind; one with a name streams from the server, within a transaction."""
        named["cursor_factory"] = _Cursor
        if arguments or named.get("name"):
            named["withhold"] = True  # without it the driver refuses, since it does not know of the transaction
        return super().cursor(*arguments, **named)

    def begin_prefix(self) -> str:
        """Return what the next statement has to begin with; empty within a transaction, and where there are none.

        Raises:
            psycopg2.ProgrammingError: the transaction's last statement was given; it can only end.
        """
        if self._last:
            raise psycopg2.ProgrammingError("got another statement after the one that goes with the commit")
        if self._single or self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            return ""
        return self._begin()

    def open(self) -> None:
        """Begin a transaction, unless there is one or there are none."""
        beginning = self.begin_prefix()
        if beginning:
            self._say(beginning)

    def send_with_commit(self, statement: bytes) -> None:
        """Let a statement go with the commit, which then raises what it raises; nothing may come between.

        Args:
            statement: its parameters filled in (`cursor.mogrify`).

        Raises:
            psycopg2.ProgrammingError: there is one already.
        """
        self._last = self.begin_prefix().encode() + statement

    def commit(self) -> None:
        """Commit, if something was done. The transaction is over, whatever this raises.

        Raises:
            psycopg2.errors.InFailedSqlTransaction: a statement had failed, so that the server rolled back.
            psycopg2.Error: what the last statement or the commit itself raised.
        """
        last, self._last = self._last, b""
        if not last and self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            return
        try:
            done = self._say(last + b";COMMIT" if last else "COMMIT")
        except psycopg2.Error:
            if self.get_transaction_status() == TRANSACTION_STATUS_INERROR:
                self.rollback()
            raise
        if done == "ROLLBACK":
            raise errors.InFailedSqlTransaction("a statement of this transaction had failed, so nothing was committed")

    def rollback(self) -> None:
        """Roll back what was done."""
        self._last = b""
        if self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            self._say("ROLLBACK")

    def _begin(self) -> str:
        return f"BEGIN{self._level}{' READ ONLY' if self._readonly else ''};"

    def _say(self, text: str | bytes) -> str | None:
        self._own.execute(text)
        return self._own.statusmessage

    def _refuse_open(self, what: str) -> None:
        if self.get_transaction_status() not in (TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_UNKNOWN):
            raise psycopg2.ProgrammingError(f"{what} cannot be changed within a transaction; commit or roll back first")


class _Cursor(extensions.cursor):
    """Sends BEGIN with what it sends first."""

    connection: BatchingConnection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        if self.name is not None:  # the driver puts DECLARE before it
            self.connection.open()
        beginning = self.connection.begin_prefix()
        if beginning:
            if isinstance(query, sql.Composable):
                query = query.as_string(self)
            query = beginning.encode() + query if isinstance(query, bytes) else beginning + query
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

"""Prepared statement: planned by the server once a connection, not with each of thousands of calls.

For a statement that reads one row, planning takes PostgreSQL three times as long as execution. psycopg2 sends a text
each time; here `PREPARE` and `EXECUTE` are sent explicitly. Prepared statements belong to the session: neither a commit
nor a rollback drops them, and a new connection starts without.

They use the driver's cursor directly, because SQLAlchemy's result objects cost as much as the server's work. The
transaction is still SQLAlchemy's, and so are the errors.
"""

import re
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

__all__ = ["PreparedStatement"]

_NAME = re.compile(r"(?<!:):([a-z_]+)")


class PreparedStatement:
    """A statement with named parameters.

    Args:
        name: of the statement within its session; one for each text.
        text: SQL with parameters written `:name`, without a percent sign.
        types: the parameters' types, by name.
    """

    def __init__(self, name: str, text: str, /, **types: str) -> None:
        self._name = name
        self._order = [*types]
        numbers = {parameter: f"${at}" for at, parameter in enumerate(self._order, 1)}
        body = _NAME.sub(lambda found: numbers[found[1]], text)
        listed = f"({', '.join(types.values())})" if types else ""
        self._prepare = f"PREPARE {name}{listed} AS {body}"
        given = f"({', '.join(f'%s::{one}' for one in types.values())})" if types else ""
        self._execute = f"EXECUTE {name}{given}"
        self._row: Any = None

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it; prepare it first, once a connection.

        Returns:
            The rows, as named tuples.

        Raises:
            sqlalchemy.exc.DBAPIError: what the driver raised.
        """
        cursor = self._prepared_cursor(connection)
        try:
            cursor.execute(self._execute, [values[name] for name in self._order])
            if self._row is None:
                if cursor.description is None:
                    return []
                self._row = _row_of([column[0] for column in cursor.description])
            return [self._row._make(row) for row in cursor.fetchall()]
        except psycopg2.Error as error:
            raise self._raised(connection, cursor, error) from error

    def sql(self, connection: sa.Connection, values: Mapping[str, Any]) -> bytes:
        """Prepare it on a connection, if it is not yet; return the SQL that executes it, with its parameters filled in.

        Raises:
            sqlalchemy.exc.DBAPIError: what the driver raised.
        """
        cursor = self._prepared_cursor(connection)
        try:
            text: bytes = cursor.mogrify(self._execute, [values[name] for name in self._order])
        except psycopg2.Error as error:
            raise self._raised(connection, cursor, error) from error
        return text

    def one_or_none(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        """Execute it; return the only row, None if there is none."""
        rows = self.run(connection, values)
        return rows[0] if rows else None

    def _prepared_cursor(self, connection: sa.Connection) -> Any:
        """Return the session's cursor, on which the statement is prepared."""
        session = connection.info.get("prepared")
        if session is None:
            session = connection.info["prepared"] = _Session(connection.connection.dbapi_connection)
        if self._name not in session.prepared:
            try:
                session.cursor.execute(self._prepare)
            except psycopg2.Error as error:
                raise self._raised(connection, session.cursor, error) from error
            session.prepared.add(self._name)
        return session.cursor

    def _raised(self, connection: sa.Connection, cursor: Any, error: psycopg2.Error) -> sa_exc.DBAPIError:
        """Return SQLAlchemy's form of an error; a lost connection is not used again."""
        # 57P01 to 57P03: the server ends the session; 08: so does the network.
        lost = bool(cursor.connection.closed) or (error.pgcode or "").startswith(("57P", "08"))
        if lost:
            connection.invalidate(error)
        names = (one.__name__ for one in type(error).__mro__)
        kind = next((getattr(sa_exc, name) for name in names if hasattr(sa_exc, name)), sa_exc.DBAPIError)
        raised: sa_exc.DBAPIError = kind(self._execute, None, error, connection_invalidated=lost)
        return raised


class _Session:
    """The statements prepared on one connection, and the cursor that executes them."""

    def __init__(self, driver: Any) -> None:
        self.cursor = driver.cursor()
        self.prepared: set[str] = set()


def _row_of(columns: list[str]) -> Any:
    """Return the type of a statement's rows; its columns are known after the first execution."""
    return namedtuple("Row", columns)  # noqa: PYI024

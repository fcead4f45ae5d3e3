"""Prepared statements: SQL that the server parses and plans once for each connection, not with each call.

For a statement that looks up one row, PostgreSQL spends three times as long on planning as on execution. psycopg2
sends the text each time; `PREPARE` and `EXECUTE`, sent here explicitly, avoid that. Prepared statements belong to the
connection: neither a commit nor a rollback drops them, and a new connection starts without.

They are executed on the driver's cursor directly, since SQLAlchemy's result objects cost as much again as the server
does. Transactions and exception classes are SQLAlchemy's all the same.
"""

import re
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

__all__ = ["PreparedStatement"]

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


class PreparedStatement:
    """Statement with named parameters, prepared on each connection when that first executes it.

    Args:
        name: of the statement within its connection; one for each text.
        text: SQL with parameters written `:name`, without a percent sign.
        types: the parameters' types, by name.
    """

    def __init__(self, name: str, text: str, /, **types: str) -> None:
        self._name = name
        self._parameters = [*types]
        numbered = {parameter: f"${number}" for number, parameter in enumerate(self._parameters, 1)}
        body = _PARAMETER.sub(lambda found: numbered[found[1]], text)
        signature = f"({', '.join(types.values())})" if types else ""
        self._prepare = f"PREPARE {name}{signature} AS {body}"
        arguments = f"({', '.join(f'%s::{one}' for one in types.values())})" if types else ""
        self._execute = f"EXECUTE {name}{arguments}"
        self._row: Any = None

    def execute(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it; on its first use on a connection, prepare it there.

        Returns:
            The rows, as named tuples.

        Raises:
            sqlalchemy.exc.DBAPIError: what the driver raised.
        """
        cursor = self._prepared_cursor(connection)
        try:
            cursor.execute(self._execute, [values[name] for name in self._parameters])
            if self._row is None:
                if cursor.description is None:
                    return []
                self._row = _row_type([column[0] for column in cursor.description])
            return [self._row._make(row) for row in cursor.fetchall()]
        except psycopg2.Error as error:
            raise self._dbapi_error(connection, cursor, error) from error

    def render(self, connection: sa.Connection, values: Mapping[str, Any]) -> bytes:
        """Return the text that executes it, its parameters filled in; prepare it on the connection if it is not yet.

        Raises:
            sqlalchemy.exc.DBAPIError: what the driver raised.
        """
        cursor = self._prepared_cursor(connection)
        try:
            text: bytes = cursor.mogrify(self._execute, [values[name] for name in self._parameters])
        except psycopg2.Error as error:
            raise self._dbapi_error(connection, cursor, error) from error
        return text

    def one_or_none(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        """Execute it and return the only row, None if there is none."""
        rows = self.execute(connection, values)
        return rows[0] if rows else None

    def _prepared_cursor(self, connection: sa.Connection) -> Any:
        """Return the connection's cursor, on which the statement is prepared."""
        cache = connection.info.get("prepared")
        if cache is None:
            cache = connection.info["prepared"] = _StatementCache(connection.connection.dbapi_connection)
        if self._name not in cache.names:
            try:
                cache.cursor.execute(self._prepare)
            except psycopg2.Error as error:
                raise self._dbapi_error(connection, cache.cursor, error) from error
            cache.names.add(self._name)
        return cache.cursor

    def _dbapi_error(self, connection: sa.Connection, cursor: Any, error: psycopg2.Error) -> sa_exc.DBAPIError:
        """Return SQLAlchemy's form of an error; a connection that is lost is invalidated."""
        # 57P01 to 57P03: the server ends the connection; 08: the network does.
        lost = bool(cursor.connection.closed) or (error.pgcode or "").startswith(("57P", "08"))
        if lost:
            connection.invalidate(error)
        names = (one.__name__ for one in type(error).__mro__)
        kind = next((getattr(sa_exc, name) for name in names if hasattr(sa_exc, name)), sa_exc.DBAPIError)
        raised: sa_exc.DBAPIError = kind(self._execute, None, error, connection_invalidated=lost)
        return raised


class _StatementCache:
    """Names of the statements that one connection has prepared, and the cursor that executes them."""

    def __init__(self, driver: Any) -> None:
        self.cursor = driver.cursor()
        self.names: set[str] = set()


def _row_type(columns: list[str]) -> Any:
    """Return the type of a statement's rows; its columns are known once it was executed."""
    return namedtuple("Row", columns)  # noqa: PYI024

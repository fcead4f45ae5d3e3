"""Statements that the server plans once a connection, and not with each of thousands of calls.

Planning takes PostgreSQL three times as long as carrying out a statement that looks one row up. psycopg2 sends a text
each time; `PREPARE` and `EXECUTE` make the same happen by hand. Prepared statements belong to the session: neither a
commit nor a rollback drops them, and a new connection starts without.
"""

import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

__all__ = ["Prepared"]

_NAME = re.compile(r"(?<!:):([a-z_]+)")


class Prepared:
    """A statement with named parameters.

    Args:
        name: of the statement within its session; one for each text.
        text: SQL with parameters written `:name`, without a percent sign.
        types: the parameters' types, by name.
    """

    def __init__(self, name: str, text: str, /, **types: str) -> None:
        self._name = name
        self._order = [*types]
        places = {parameter: f"${at}" for at, parameter in enumerate(self._order, 1)}
        body = _NAME.sub(lambda found: places[found[1]], text)
        listed = f"({', '.join(types.values())})" if types else ""
        self._prepare = f"PREPARE {name}{listed} AS {body}"
        given = f"({', '.join(f'%s::{one}' for one in types.values())})" if types else ""
        self._execute = f"EXECUTE {name}{given}"

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> sa.CursorResult[*tuple[Any, ...]]:
        """Carry it out; the first time on a connection, prepare it there."""
        known: set[str] = connection.info.setdefault("prepared_statements", set())
        if self._name not in known:
            connection.exec_driver_sql(self._prepare)
            known.add(self._name)
        return connection.exec_driver_sql(self._execute, tuple(values[name] for name in self._order))

"""Database table, view or query as a source, read through SQLAlchemy: the whole, page by page (keyset pagination).

    SELECT … FROM table WHERE (page_by) > (last one seen) ORDER BY page_by LIMIT n

Keyset pages, never OFFSET, which skips and duplicates rows under writes and was six times slower. Each page is a short
transaction of its own: a department's database need not keep a snapshot open for hours. The table may therefore
change between the pages; a row that moves is found by the next pass, and `connectors.publishing.key_scan` ensures
that no key is published twice in one. Deleted rows are found by comparing keys with the ledger, since a table does not
tell what was deleted from it.

`page_by` must be unique and never null, or rows would be missed: the primary key, or columns that the configuration
names and the database confirms.

A view or a query has no key that the database confirms. Its owner says what is unique (`key`), and that is checked as
it is read, in one statement and one transaction, in the order of the key:

    SELECT … FROM view ORDER BY key          a key that comes twice or is null stops the pass, with their numbers

The first pass reads the keys alone, so this happens before anything of it is published.

Values are read as text (`connectors.sources.sql_values`). PostgreSQL writes the pages of a table as csv, which Arrow
parses into columns (`connectors.sources.postgres.copy_page`).
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from typing_extensions import override

from connectors.port import SnapshotSource
from connectors.sources.sql_values import decode_or_mark
from connectors.sources.table_portion import TablePortion, translate_errors
from schemas.errors import InvalidError, Reason

__all__ = ["SqlSource"]

_PAGE = 5_000  # rows
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")  # what SQLAlchemy takes for a parameter of a textual statement
_QUERY_TYPES: dict[str, dict[Any, sa.types.TypeEngine[Any]]] = {  # by the type codes of PEP 249's `description`
    "postgresql": {
        17: sa.LargeBinary(),
        790: postgresql.MONEY(),
        **dict.fromkeys((20, 21, 23), sa.BigInteger()),
        1700: sa.Numeric(),
        1082: sa.Date(),
        1114: sa.TIMESTAMP(),
        1184: sa.TIMESTAMP(timezone=True),
    },
    "mysql": {4: mysql.FLOAT(), 16: mysql.BIT()},
}
_QUERY_TYPES["mariadb"] = _QUERY_TYPES["mysql"]


class SqlSource(SnapshotSource):
    """One table, view or query; each pass over it is one portion."""

    def __init__(
        self,
        url: sa.URL,
        table: str = "",
        *,
        page_by: Sequence[str] = (),
        key: Sequence[str] = (),
        where: str = "",
        query: str = "",
        page: int = _PAGE,
    ) -> None:
        """Configure; the connection opens at the first call.

        Args:
            url: of the database.
            table: `table` or `schema.table`, also of a view; empty where there is a query.
            page_by: unique columns that are never null; the primary key when empty.
            key: columns that are unique and never null by their owner's word, which is checked while they are read.
            where: a condition in the database's SQL.
            query: a SELECT statement in the database's SQL; needs `key`.
            page: rows of one statement, or of one chunk.
        """
        self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        if self._engine.dialect.name == "postgresql":
            sa.event.listen(self._engine, "connect", _configure_session)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _mark_undecodable)
        schema, _, name = table.rpartition(".")
        self._schema = schema or None
        self._name = name
        self._table_name = table or "query"
        self._page_by = tuple(page_by)
        self._key = tuple(key)
        self._where = where
        self._query = query.strip().rstrip(";")
        self._page = page

    @override
    def portions(self, fingerprint: bytes) -> Iterator[TablePortion]:
        del fingerprint  # a table is read again each time; unchanged rows are not published
        yield self.open()

    def open(self) -> TablePortion:
        """Reflect the table.

        Raises:
            InvalidError: CONFIG_INVALID, when it does not exist or has no page order.
            RefusedError: this user may not read it.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        with translate_errors(self._table_name), warnings.catch_warnings():
            # Of a type that SQLAlchemy does not know, the driver's value is read.
            warnings.simplefilter("ignore", sa.exc.SAWarning)
            rows = self._query_rows() if self._query else self._table()
            if self._key:
                self._check_columns(rows, self._key, "key")
            return TablePortion(
                self._engine,
                rows,
                self._table_name,
                self._key or self._page_order(rows),
                self._page,
                where=self._where,
                checked=bool(self._key),
            )

    def index_columns(self) -> list[list[str]] | None:
        """Return the columns of each index of the table that holds all of its rows; None for a view or a query."""
        if self._query:
            return None
        inspector = sa.inspect(self._engine)
        if self._name not in inspector.get_table_names(self._schema):
            return None
        found = [list(inspector.get_pk_constraint(self._name, self._schema)["constrained_columns"])]
        found += [
            [name for name in each["column_names"] if name is not None]
            for each in inspector.get_indexes(self._name, self._schema)
            if not each.get("dialect_options", {}).get("postgresql_where")
        ]
        return found

    def _table(self) -> sa.Table:
        try:
            return sa.Table(self._name, sa.MetaData(), schema=self._schema, autoload_with=self._engine)
        except sa.exc.NoSuchTableError as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"the table {self._table_name} is not there, or this user may not see it"
            ) from error

    def _query_rows(self) -> sa.FromClause:
        """Return the query as something to select from, with the columns that it has."""
        dialect = self._engine.dialect
        query = _PARAMETER.sub(r"\\:", self._query)
        text = sa.text(f"SELECT * FROM ({query}) pool_query WHERE 1 = 0")  # noqa: S608 - the configuration's own query
        with self._engine.connect() as connection:
            cursor: Any = connection.execute(text).cursor
            described = [] if cursor is None else list(cursor.description)
        types = _QUERY_TYPES.get(dialect.name, {})
        columns: list[sa.ColumnClause[Any]] = [sa.column(each[0], types.get(each[1])) for each in described]
        names = [each.name for each in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"`query:` names columns twice: {', '.join(twice)}; give them other names by AS"
            )
        return sa.text(query).columns(*columns).subquery("pool_query")

    @override
    def close(self) -> None:
        self._engine.dispose()

    def _page_order(self, table: sa.FromClause) -> Sequence[str]:
        """Return unique columns that are never null: those of `page_by`, or the primary key."""
        inspector = sa.inspect(self._engine)
        primary = tuple(column.name for column in table.primary_key)
        page_by = self._page_by or primary
        if not page_by:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._table_name} has no primary key; name unique columns under `page_by:`, or, where nothing "
                "declares them, as in a view, under `key:`",
            )
        self._check_columns(table, page_by, "page_by")
        unique = [set(primary)]
        unique += [set(each["column_names"]) for each in inspector.get_unique_constraints(self._name, self._schema)]
        unique += [
            {name for name in each["column_names"] if name is not None}
            for each in inspector.get_indexes(self._name, self._schema)
            if each["unique"] and not each.get("dialect_options", {}).get("postgresql_where")
        ]
        if not any(names and names <= set(page_by) for names in unique):
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{', '.join(page_by)} of {self._table_name} are not declared unique; rows would be missed at the "
                "edge of a page. Name the columns of a primary key or of a unique index under `page_by:`; or, if they "
                "are unique all the same, under `key:`",
            )
        nullable = [name for name in page_by if table.columns[name].nullable]
        if nullable and not (set(nullable) <= set(primary) and self._primary_key_is_never_null()):
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{', '.join(nullable)} of {self._table_name} may be null; such rows would never be read. Declare them "
                "NOT NULL, or name other columns under `page_by:`; or, if they never are, under `key:`",
            )
        return page_by

    def _check_columns(self, table: sa.FromClause, names: Sequence[str], where: str) -> None:
        lacking = [name for name in names if name not in table.columns]
        if lacking:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._table_name} has no column {', '.join(lacking)} (`{where}`); it has "
                f"{', '.join(table.columns.keys())}",
            )

    def _primary_key_is_never_null(self) -> bool:
        """Return whether a table of SQLite has a primary key that cannot be null although it is not declared so.

        Source: SQLite's "CREATE TABLE", 3.5: by an old error PRIMARY KEY does not imply NOT NULL, unless the key is an
        INTEGER PRIMARY KEY, or the table is WITHOUT ROWID.
        """
        if self._engine.dialect.name != "sqlite":
            return False
        schema = self._schema or "main"
        with self._engine.connect() as connection:
            declared = connection.execute(
                sa.text("SELECT upper(type) FROM pragma_table_info(:name, :schema) WHERE pk"),
                {"name": self._name, "schema": schema},
            )
            if declared.scalars().all() == ["INTEGER"]:
                return True
            without_rowid = connection.execute(
                sa.text("SELECT wr FROM pragma_table_list(:name) WHERE schema = :schema"),
                {"name": self._name, "schema": schema},
            )
            return bool(without_rowid.scalar())


def _configure_session(connection: Any, _: Any) -> None:
    """Set the text form of values, so that it does not depend on the server's settings: numbers as they come back."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; "
            "SET bytea_output = 'hex'; SET extra_float_digits = 3"
        )
    connection.commit()


def _mark_undecodable(connection: Any, _: Any) -> None:
    """Read texts of SQLite that are not UTF-8 as marked bytes, where the driver would fail for all rows of the page."""
    connection.text_factory = decode_or_mark

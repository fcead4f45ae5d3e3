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

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.sql.elements import ColumnElement
from typing_extensions import override

from connectors.port import Reject, RejectCode, Replaces, RowChunk, SnapshotSource
from connectors.sources.postgres.copy_page import copies, copy_page
from connectors.sources.postgres.json_rows import JsonColumns
from connectors.sources.sql_values import RAW_DIALECTS, Undecodable, as_text, decode_or_mark, select_exactly, text_of
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["SqlSource", "TablePortion"]

_PAGE = 5_000  # rows
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")  # what SQLAlchemy takes for a parameter of a textual statement
_QUERY_TYPES: dict[str, dict[Any, sa.types.TypeEngine[Any]]] = {  # by the type codes of PEP 249's `description`
    "postgresql": {17: sa.LargeBinary(), 790: postgresql.MONEY()},
    "mysql": {4: mysql.FLOAT(), 16: mysql.BIT()},
}
_QUERY_TYPES["mariadb"] = _QUERY_TYPES["mysql"]
_UNAVAILABLE_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)


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
    def portions(self, fingerprint: bytes) -> Iterator["TablePortion"]:
        del fingerprint  # a table is read again each time; unchanged rows are not published
        yield self.open()

    def open(self) -> "TablePortion":
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


class TablePortion:
    """One pass over a table."""

    stable = False
    replaces = Replaces.EVERYTHING
    identity = b""

    def __init__(
        self,
        engine: sa.Engine,
        rows: sa.FromClause,
        name: str,
        order: Sequence[str],
        page: int,
        *,
        where: str = "",
        checked: bool = False,
    ) -> None:
        """Configure.

        Args:
            engine: of the database.
            rows: the table, view or query.
            name: of it.
            order: unique columns that are never null.
            page: rows of one statement, or of one chunk.
            where: a condition in the database's SQL.
            checked: that the columns are unique and never null is the owner's word, to be checked.
        """
        self.name = name
        self._engine = engine
        self._dialect = engine.dialect.name
        self._rows = rows
        self._order = [rows.columns[each] for each in order]
        self._page = page
        self._where = where
        self._checked = checked
        self.columns = [column.name for column in rows.columns]

    @property
    def declared(self) -> Mapping[str, sa.Column[Any]]:
        """Return the columns that a table or view declares, by name; none of a query, which declares nothing."""
        return {each.name: each for each in self._rows.columns if isinstance(each, sa.Column)}

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows, one chunk a page.

        Raises:
            InvalidError: CONFIG_INVALID, when the owner's key comes twice or is null.
        """
        names = list(self.columns) if columns is None else list(columns)
        read = 0
        if not self._checked and copies(self._engine.dialect):
            yield from self._copied_pages(names, originals=columns is None)
            return
        for rows in self._checked_pages(names) if self._checked else self._keyset_pages(names):
            yield self._chunk(names, rows, read, originals=columns is None)
            read += len(rows)

    def confirm(self) -> None:
        """Do nothing: the ledger records the published keys."""

    def _copied_pages(self, names: Sequence[str], *, originals: bool) -> Iterator[RowChunk]:
        last: tuple[Any, ...] | None = None
        read = 0
        while True:
            with translate_errors(self.name), self._engine.connect() as connection:
                columns = copy_page(connection, self._statement(names, last).limit(self._page))
            count = len(columns[0])
            if not count:
                return
            last = tuple(column[count - 1].as_py() for column in columns[len(names) :])
            cells = columns[: len(names)]
            yield RowChunk(
                columns=dict(zip(names, cells, strict=True)),
                lines=range(read + 1, read + count + 1),
                originals=JsonColumns(names, cells) if originals else [],
            )
            read += count
            if count < self._page:
                return

    def _keyset_pages(self, names: Sequence[str]) -> Iterator[Sequence[Sequence[Any]]]:
        last: tuple[Any, ...] | None = None
        while True:
            with translate_errors(self.name), self._engine.connect() as connection:
                rows = connection.execute(self._statement(names, last).limit(self._page)).fetchall()
            if not rows:
                return
            last = tuple(rows[-1])[len(names) :]
            yield rows
            if len(rows) < self._page:
                return

    def _checked_pages(self, names: Sequence[str]) -> Iterator[Sequence[Sequence[Any]]]:
        """Read everything in one statement, in the order of the owner's key; check the key on the way."""
        before: tuple[Any, ...] | None = None
        repeated = without = 0
        with translate_errors(self.name), self._engine.connect() as connection:
            found = connection.execution_options(stream_results=True, max_row_buffer=self._page).execute(
                self._statement(names, None)
            )
            for rows in found.partitions(self._page):
                for row in rows:
                    key = tuple(row)[len(names) :]
                    if None in key:
                        without += 1
                    elif key == before:
                        repeated += 1
                    before = key
                yield rows
        if repeated or without:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self.name}: `key: [{', '.join(each.name for each in self._order)}]` says that these columns are "
                f"unique and never null; {repeated} rows have the key of a row before them, and {without} have null in "
                "it. Name other columns, or exclude these rows by `where:`",
            )

    def _chunk(self, names: Sequence[str], rows: Sequence[Sequence[Any]], read: int, *, originals: bool) -> RowChunk:
        """Return rows as text. A row with a text that is not in the database's encoding is a reject."""
        width = len(names)
        lines = range(read + 1, read + len(rows) + 1)
        rejects: list[Reject] = []
        bad = {
            at
            for at, row in enumerate(rows)
            if self._dialect == "sqlite" and any(isinstance(cell, Undecodable) for cell in row[:width])
        }
        writers = [text_of(self._rows.columns[name], self._dialect) for name in names]
        for at in sorted(bad):
            cells = [writer(cell) for writer, cell in zip(writers, rows[at], strict=False)]
            rejects.append(
                Reject(
                    line=lines[at],
                    code=RejectCode.ENCODING,
                    field=", ".join(
                        name for name, cell in zip(names, rows[at], strict=False) if isinstance(cell, Undecodable)
                    ),
                    message="expected text in the encoding of the database",
                    original=_json_row(names, cells),
                )
            )
        good = [row for at, row in enumerate(rows) if at not in bad] if bad else rows
        by_column = list(zip(*good, strict=True))[:width] if good else [()] * width
        columns = [[writer(value) for value in column] for writer, column in zip(writers, by_column, strict=True)]
        return RowChunk(
            columns={name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)},
            lines=[line for at, line in enumerate(lines) if at not in bad] if bad else lines,
            originals=[_json_row(names, row) for row in zip(*columns, strict=True)] if originals else [],
            rejects=rejects,
        )

    def _statement(self, names: Sequence[str], last: Sequence[Any] | None) -> sa.Select[Any]:
        chosen = [
            select_exactly(self._rows.columns[name], self._dialect).label(f"c{at}") for at, name in enumerate(names)
        ]
        bounds = [self._bound(column).label(f"k{at}") for at, column in enumerate(self._order)]
        statement = sa.select(*chosen, *bounds).select_from(self._rows).order_by(*self._order)
        if self._where:
            statement = statement.where(sa.literal_column(f"({self._where})", sa.Boolean))
        if last is None:
            return statement
        return statement.where(
            _after(self._order, [self._literal(column, value) for column, value in zip(self._order, last, strict=True)])
        )

    def _bound(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        # Bounds go through the database's own text on PostgreSQL: a driver's value may be less exact than the column.
        if self._dialect == "postgresql":
            return sa.cast(column, sa.Text)
        return select_exactly(column, self._dialect)

    def _literal(self, column: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
        if self._dialect == "postgresql":
            return sa.cast(sa.literal(value, sa.Text), column.type)
        if isinstance(value, Undecodable):  # bytes come after every text
            return sa.cast(sa.literal(bytes(value), sa.LargeBinary), sa.Text)
        if self._dialect not in RAW_DIALECTS:
            return sa.literal(value, column.type)
        # A driver writes a negative timedelta wrongly: its text, which the database takes for a TIME.
        return sa.literal(as_text(value) if isinstance(value, timedelta) else value)


def _json_row(names: Sequence[str], cells: Sequence[str | None]) -> bytes:
    return json.dumps(dict(zip(names, cells, strict=True)), ensure_ascii=False).encode()


def _after(columns: Sequence[ColumnElement[Any]], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Return (a, b) > (x, y) as a > x OR (a = x AND b > y), since not every database has row values."""
    clause: ColumnElement[bool] = columns[-1] > values[-1]
    for column, value in zip(reversed(columns[:-1]), reversed(values[:-1]), strict=True):
        clause = sa.or_(column > value, sa.and_(column == value, clause))
    # The first bound alone lets every database use the index.
    return sa.and_(columns[0] >= values[0], clause) if len(columns) > 1 else clause


@contextmanager
def translate_errors(name: str) -> Iterator[None]:
    """Translate the database's errors into the pool's."""
    try:
        yield
    except _UNAVAILABLE_ERRORS as error:
        raise UnavailableError(
            Reason.SOURCE_UNAVAILABLE,
            f"the database of {name} does not answer ({type(error.orig).__name__}); is it there, and is the password "
            "right?",
        ) from error
    except sa.exc.ProgrammingError as error:
        raise RefusedError(
            Reason.SOURCE_UNAVAILABLE,
            f"the database refuses to read {name} ({type(error.orig).__name__}); may this user SELECT from it?",
        ) from error
    except (sa.exc.SQLAlchemyError, ValueError) as error:  # ValueError: a driver that cannot read a value
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{name} cannot be read as configured ({type(error).__name__})"
        ) from error


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

"""Database table as a source, read through SQLAlchemy: the whole table, page by page (keyset pagination).

    SELECT … FROM table WHERE (page_by) > (last one seen) ORDER BY page_by LIMIT n

Keyset pages, never OFFSET, which skips and duplicates rows under writes and was six times slower. Each page is a short
transaction of its own: a department's database need not keep a snapshot open for hours. The table may therefore
change between the pages; a row that moves is found by the next pass, and `connectors.publishing.key_scan` ensures
that no key is published twice in one. Deleted rows are found by comparing keys with the ledger, since a table does not
tell what was deleted from it.

`page_by` must be unique and never null, or rows would be missed: the primary key, or columns that the configuration
names and the database confirms.

Values are read as text. PostgreSQL converts them itself, so that BC dates, infinity and numeric NaN arrive and
can be quarantined, where a driver would fail in the middle of the page.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement
from typing_extensions import override

from connectors.port import Replaces, RowChunk, Source
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["SqlSource", "TablePortion"]

_PAGE = 5_000  # rows
_UNAVAILABLE_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)


class SqlSource(Source):
    """One table; each pass over it is one portion."""

    def __init__(self, url: sa.URL, table: str, *, page_by: Sequence[str] = (), page: int = _PAGE) -> None:
        """Configure; the connection opens at the first call.

        Args:
            url: of the database.
            table: `table` or `schema.table`.
            page_by: unique columns that are never null; the primary key when empty.
            page: rows of one statement.
        """
        self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        if self._engine.dialect.name == "postgresql":
            sa.event.listen(self._engine, "connect", _configure_session)
        schema, _, name = table.rpartition(".")
        self._schema = schema or None
        self._name = name
        self._table_name = table
        self._page_by = tuple(page_by)
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
        with translate_errors(self._table_name):
            inspector = sa.inspect(self._engine)
            try:
                table = sa.Table(self._name, sa.MetaData(), schema=self._schema, autoload_with=self._engine)
            except sa.exc.NoSuchTableError as error:
                raise InvalidError(
                    Reason.CONFIG_INVALID, f"the table {self._table_name} is not there, or this user may not see it"
                ) from error
            page_by = self._page_by or tuple(column.name for column in table.primary_key.columns)
            self._check_page_order(inspector, table, page_by)
            return TablePortion(self._engine, table, self._table_name, page_by, self._page)

    @override
    def close(self) -> None:
        self._engine.dispose()

    def _check_page_order(self, inspector: sa.Inspector, table: sa.Table, page_by: Sequence[str]) -> None:
        if not page_by:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"the table {self._table_name} has no primary key; name unique columns under `page_by:`",
            )
        lacking = [name for name in page_by if name not in table.columns]
        if lacking:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"the table {self._table_name} has no column {', '.join(lacking)} (`page_by`)"
            )
        unique = [set(table.primary_key.columns.keys())]
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
                "edge of a page. Name the columns of a primary key or of a unique index under `page_by:`",
            )
        nullable = [name for name in page_by if table.columns[name].nullable]
        if nullable:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{', '.join(nullable)} of {self._table_name} may be null; such rows would never be read. Declare them "
                "NOT NULL, or name other columns under `page_by:`",
            )


class TablePortion:
    """One pass over a table."""

    stable = False
    replaces = Replaces.EVERYTHING
    identity = b""

    def __init__(self, engine: sa.Engine, table: sa.Table, name: str, page_by: Sequence[str], page: int) -> None:
        self.name = name
        self._engine = engine
        self._table = table
        self._page_by = [table.columns[each] for each in page_by]
        self._page = page
        self._as_text = engine.dialect.name == "postgresql"
        self.columns = [column.name for column in table.columns]

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows, one chunk a page."""
        names = list(self.columns) if columns is None else list(columns)
        chosen = [self._text_expression(self._table.columns[name]).label(f"c{at}") for at, name in enumerate(names)]
        last: tuple[Any, ...] | None = None
        read = 0
        while True:
            with translate_errors(self.name), self._engine.connect() as connection:
                rows = connection.execute(self._statement(chosen, last)).fetchall()
            if not rows:
                return
            width = len(names)
            last = tuple(rows[-1])[width:]
            cells = [[as_text(value) for value in column] for column in list(zip(*rows, strict=True))[:width]]
            lines = range(read + 1, read + len(rows) + 1)
            originals: list[bytes] = []
            if columns is None:
                originals = [
                    json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode()
                    for row in zip(*cells, strict=True)
                ]
            yield RowChunk(
                columns={name: pa.array(column, pa.string()) for name, column in zip(names, cells, strict=True)},
                lines=lines,
                originals=originals,
            )
            read += len(rows)
            if len(rows) < self._page:
                return

    def confirm(self) -> None:
        """Do nothing: the ledger records the published keys."""

    def _statement(self, chosen: Sequence[ColumnElement[Any]], last: tuple[Any, ...] | None) -> sa.Select[Any]:
        # Bounds go through the database's own text on PostgreSQL: a driver's value may be less exact than the column.
        bounds = [sa.cast(column, sa.Text) if self._as_text else column for column in self._page_by]
        statement = sa.select(*chosen, *(each.label(f"k{at}") for at, each in enumerate(bounds)))
        statement = statement.order_by(*self._page_by).limit(self._page)
        if last is None:
            return statement
        parts = [
            sa.cast(sa.literal(value, sa.Text), column.type) if self._as_text else sa.literal(value, column.type)
            for column, value in zip(self._page_by, last, strict=True)
        ]
        return statement.where(_after(self._page_by, parts))

    def _text_expression(self, column: sa.Column[Any]) -> ColumnElement[Any]:
        if not self._as_text:
            return column
        if isinstance(column.type, sa.LargeBinary):
            return sa.func.encode(column, "hex")
        return sa.cast(column, sa.Text)


def _after(columns: Sequence[sa.Column[Any]], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Return (a, b) > (x, y) as a > x OR (a = x AND b > y), since not every database has row values."""
    clause: ColumnElement[bool] = columns[-1] > values[-1]
    for column, value in zip(reversed(columns[:-1]), reversed(values[:-1]), strict=True):
        clause = sa.or_(column > value, sa.and_(column == value, clause))
    # The first bound alone lets every database use the index.
    return sa.and_(columns[0] >= values[0], clause) if len(columns) > 1 else clause


def as_text(value: Any) -> str | None:  # noqa: PLR0911 - one line a type
    """Return a driver's value as text for the mapping."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case Decimal():
            return format(value, "f")
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case timedelta():
            return str(value)
        case Mapping() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


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
    except sa.exc.SQLAlchemyError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{name} cannot be read as configured ({type(error).__name__})"
        ) from error


def _configure_session(connection: Any, _: Any) -> None:
    """Set the text form of dates and times, so that it does not depend on the server's settings."""
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'; SET bytea_output = 'hex'")
    connection.commit()

"""Any table that SQLAlchemy can read, as a source: the whole table, page by page.

    SELECT … FROM table WHERE (page_by) > (last one seen) ORDER BY page_by LIMIT n

Keyset pages, never OFFSET, which skips and doubles rows under writes and was six times slower. Each page is a short
transaction of its own: a department's database is not asked to keep a snapshot open for hours. The table may therefore
change between the pages; a row that moves is found by the next reading, and `connectors.publishing.key_scan` sees to
it that no key goes out twice in one. Rows that are gone are found by comparing keys with the ledger, since a table
does not say what was deleted from it.

`page_by` must be unique and never null, or rows would be missed: the primary key, or columns that the configuration
names and the database confirms.

Values come as text. PostgreSQL is asked for the text itself, so that BC dates, infinity and numeric NaN arrive and
can be quarantined, where a driver would break off in the middle of the page.
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

from connectors.port import Changes, Replaces
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["SqlSource", "TablePortion"]

_PAGE = 5_000  # rows
_AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)


class SqlSource:
    """One table; each reading of it is one portion."""

    def __init__(self, url: sa.URL, table: str, *, page_by: Sequence[str] = (), page: int = _PAGE) -> None:
        """Connect later, at the first call.

        Args:
            url: of the database.
            table: `table` or `schema.table`.
            page_by: unique columns that are never null; the primary key when empty.
            page: rows of one statement.
        """
        self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        if self._engine.dialect.name == "postgresql":
            sa.event.listen(self._engine, "connect", _plain_session)
        schema, _, name = table.rpartition(".")
        self._schema = schema or None
        self._name = name
        self._table_name = table
        self._page_by = tuple(page_by)
        self._page = page

    def read(self, fingerprint: bytes) -> Iterator["TablePortion"]:
        """Return the table; see `connectors.port.Source`."""
        del fingerprint  # a table is read again each time; what has not changed says nothing
        yield self.open()

    def open(self) -> "TablePortion":
        """Reflect the table.

        Raises:
            InvalidError: CONFIG_INVALID, when it is not there or cannot be paged through.
            RefusedError: the database does not let this user read it.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        with reaching(self._table_name):
            inspector = sa.inspect(self._engine)
            try:
                table = sa.Table(self._name, sa.MetaData(), schema=self._schema, autoload_with=self._engine)
            except sa.exc.NoSuchTableError as error:
                raise InvalidError(
                    Reason.CONFIG_INVALID, f"the table {self._table_name} is not there, or this user may not see it"
                ) from error
            page_by = self._page_by or tuple(column.name for column in table.primary_key.columns)
            self._proves_order(inspector, table, page_by)
            return TablePortion(self._engine, table, self._table_name, page_by, self._page)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _proves_order(self, inspector: sa.Inspector, table: sa.Table, page_by: Sequence[str]) -> None:
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
    """One reading of a table; see the module."""

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
        self.expected = self._estimate()

    def changes(self, columns: Sequence[str] | None = None) -> Iterator[Changes]:
        """Read the rows; see `connectors.port.Portion`."""
        names = list(self.columns) if columns is None else list(columns)
        chosen = [self._read(self._table.columns[name]).label(f"c{at}") for at, name in enumerate(names)]
        last: tuple[Any, ...] | None = None
        read = 0
        while True:
            with reaching(self.name), self._engine.connect() as connection:
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
            yield Changes(
                columns={name: pa.array(column, pa.string()) for name, column in zip(names, cells, strict=True)},
                lines=lines,
                originals=originals,
            )
            read += len(rows)
            if len(rows) < self._page:
                return

    def done(self) -> None:
        """Nothing: the ledger's keys say what was published."""

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
        return statement.where(_beyond(self._page_by, parts))

    def _read(self, column: sa.Column[Any]) -> ColumnElement[Any]:
        if not self._as_text:
            return column
        if isinstance(column.type, sa.LargeBinary):
            return sa.func.encode(column, "hex")
        return sa.cast(column, sa.Text)

    def _estimate(self) -> int:
        if not self._as_text:
            return 0
        with reaching(self.name), self._engine.connect() as connection:
            name = self._engine.dialect.identifier_preparer.format_table(self._table)
            found = connection.execute(
                sa.text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)"), {"name": name}
            ).scalar_one_or_none()
            return max(int(found or 0), 0)


def _beyond(columns: Sequence[sa.Column[Any]], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """(a, b) > (x, y), spelt out, since not every database has row values: a > x OR (a = x AND b > y)."""
    clause: ColumnElement[bool] = columns[-1] > values[-1]
    for column, value in zip(reversed(columns[:-1]), reversed(values[:-1]), strict=True):
        clause = sa.or_(column > value, sa.and_(column == value, clause))
    # The first bound alone lets every database use the index.
    return sa.and_(columns[0] >= values[0], clause) if len(columns) > 1 else clause


def as_text(value: Any) -> str | None:  # noqa: PLR0911 - one line a type
    """Return a driver's value as the text that the mapping reads."""
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
def reaching(name: str) -> Iterator[None]:
    """Let only the pool's errors through."""
    try:
        yield
    except _AWAY as error:
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


def _plain_session(connection: Any, _: Any) -> None:
    """Texts of dates and times that do not depend on how the server is set up."""
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'; SET bytea_output = 'hex'")
    connection.commit()

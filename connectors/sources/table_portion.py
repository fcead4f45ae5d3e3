"""One pass over a table, view or query: its rows as text columns, page by page (keyset pagination).

    SELECT … FROM table WHERE (order) > (last one seen) ORDER BY order LIMIT n

Of a table that is paged by columns which the database declares unique, or of a part of one between two values of a
cursor column. See `connectors.sources.sql_table`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement, KeyedColumnElement

from connectors.port import Reject, RejectCode, Replaces, RowChunk
from connectors.sources.cursor_values import decode_value, encode_value
from connectors.sources.mysql_rights import granting_statement
from connectors.sources.postgres.copy_page import copies, copy_page
from connectors.sources.postgres.json_rows import JsonColumns
from connectors.sources.sql_values import RAW_DIALECTS, Undecodable, as_text, select_exactly, text_of
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["TablePortion", "translate_errors"]

_UNAVAILABLE_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)


class TablePortion:
    """One pass over a table, or over a part of it (`between`)."""

    stable = False
    replaces = Replaces.EVERYTHING
    identity = b""
    _conditions: Sequence[ColumnElement[bool]] = ()
    _on_confirm: Callable[[], None] = staticmethod(lambda: None)

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
    def engine(self) -> sa.Engine:
        """Return the engine of the database."""
        return self._engine

    @property
    def declared(self) -> Mapping[str, sa.Column[Any]]:
        """Return the columns that a table or view declares, by name; none of a query, which declares nothing."""
        return {each.name: each for each in self._rows.columns if isinstance(each, sa.Column)}

    @property
    def order(self) -> Sequence[str]:
        """Return the names of the columns that tell the rows from each other."""
        return [each.name for each in self._order]

    def column(self, name: str) -> KeyedColumnElement[Any]:
        """Return a column.

        Raises:
            InvalidError: CONFIG_INVALID, there is none of this name.
        """
        if name not in self._rows.columns:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{self.name} has no column {name} (`cursor`); it has {', '.join(self.columns)}"
            )
        return self._rows.columns[name]

    def select(self, *columns: ColumnElement[Any]) -> sa.Select[Any]:
        """Return a statement over the rows of the publication, without those that `where` excludes."""
        statement = sa.select(*columns).select_from(self._rows)
        return statement.where(sa.literal_column(f"({self._where})", sa.Boolean)) if self._where else statement

    def confirming(self, on_confirm: Callable[[], None]) -> Self:
        """Return the same pass, at whose end something is called."""
        portion = copy(self)
        portion._on_confirm = on_confirm  # noqa: SLF001 - a copy of itself
        return portion

    def between(self, cursor: str, conditions: Sequence[ColumnElement[bool]], on_confirm: Callable[[], None]) -> Self:
        """Return a pass over a part of the table, in the order of a column, which the conditions let not be null."""
        portion = self.confirming(on_confirm)
        portion.replaces = Replaces.NOTHING
        portion._conditions = conditions  # noqa: SLF001 - a copy of itself
        if not self._checked:
            portion._order = [self.column(cursor), *(each for each in self._order if each.name != cursor)]  # noqa: SLF001
        return portion

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows, one chunk a page.

        Raises:
            InvalidError: CONFIG_INVALID, when the owner's key comes twice or is null.
        """
        return self._read(columns, None, 0)

    @property
    def pass_identity(self) -> str:
        """Return what a pass that goes on has to have in common with this one; see `ResumablePortion`.

        The reading of a view or query is one statement, and a part of a table is short: these begin again.
        """
        if self._checked or self.replaces is not Replaces.EVERYTHING:
            return ""
        address = self._engine.url.render_as_string(hide_password=True)
        parts = json.dumps([address, self.name, self._where, self.order])
        return hashlib.sha256(parts.encode()).hexdigest()

    def chunks_after(self, place: bytes, rows: int, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows behind a place; see `ResumablePortion`."""
        last = tuple(decode_value(each) for each in json.loads(place)) if place else None
        return self._read(columns, last, rows)

    def _read(self, columns: Sequence[str] | None, last: tuple[Any, ...] | None, read: int) -> Iterator[RowChunk]:
        names = list(self.columns) if columns is None else list(columns)
        if self._checked:
            for rows in self._checked_pages(names):
                yield self._chunk(names, rows, read, originals=columns is None)
                read += len(rows)
        elif copies(self._engine.dialect):
            yield from self._copied_pages(names, last, read, originals=columns is None)
        else:
            for rows in self._keyset_pages(names, last):
                chunk = self._chunk(names, rows, read, originals=columns is None)
                yield replace(chunk, place=self._place(tuple(rows[-1])[len(names) :]))
                read += len(rows)

    def _place(self, last: tuple[Any, ...]) -> bytes:
        if not self.pass_identity:
            return b""
        try:
            return json.dumps([encode_value(each) for each in last]).encode()
        except InvalidError:  # a key of bytes, say
            return b""

    def confirm(self) -> None:
        """Call what is to be called at the end; the published keys are in the ledger."""
        self._on_confirm()

    def _lines(self, read: int, count: int) -> Sequence[int]:
        # The number of a row within a part says nothing, and a row that is read again is to be the same one.
        return range(read + 1, read + count + 1) if self.replaces is Replaces.EVERYTHING else [0] * count

    def _copied_pages(
        self, names: Sequence[str], last: tuple[Any, ...] | None, read: int, *, originals: bool
    ) -> Iterator[RowChunk]:
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
                lines=self._lines(read, count),
                originals=JsonColumns(names, cells) if originals else [],
                place=self._place(last),
            )
            read += count
            if count < self._page:
                return

    def _keyset_pages(self, names: Sequence[str], last: tuple[Any, ...] | None) -> Iterator[Sequence[Sequence[Any]]]:
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
        lines = self._lines(read, len(rows))
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
        bounds = [self.bound(column).label(f"k{at}") for at, column in enumerate(self._order)]
        statement = self.select(*chosen, *bounds).where(*self._conditions).order_by(*self._order)
        if last is None:
            return statement
        return statement.where(
            _after(self._order, [self.literal(column, value) for column, value in zip(self._order, last, strict=True)])
        )

    def bound(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the expression that selects a value to compare with later, exactly."""
        # Bounds go through the database's own text on PostgreSQL: a driver's value may be less exact than the column.
        if self._dialect == "postgresql":
            return sa.cast(column, sa.Text)
        return select_exactly(column, self._dialect)

    def literal(self, column: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
        """Return such a value as an expression."""
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
        if statement := granting_statement(error.orig, name):
            raise RefusedError(
                Reason.SOURCE_UNAVAILABLE, f"this user may not read {name}; its owner executes: {statement}"
            ) from error
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

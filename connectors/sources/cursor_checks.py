"""Checks of a table that is read by a cursor: findings, each with the statement that mends it. Changes nothing."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from connectors.sources.incremental import CursorSettings, find_horizon, overlap_text
from connectors.sources.postgres.horizon import NoHorizon
from connectors.sources.postgres.readiness import Finding, Verdict
from connectors.sources.sql_table import SqlSource
from connectors.sources.table_portion import TablePortion, translate_errors

__all__ = ["check_cursor"]


def check_cursor(source: SqlSource, settings: CursorSettings) -> Iterator[Finding]:
    """Check column, index, nulls and horizon.

    Raises:
        InvalidError: CONFIG_INVALID, the table or the column is not there.
        UnavailableError: SOURCE_UNAVAILABLE.
    """
    table = source.open()
    with translate_errors(table.name):
        table.column(settings.column)
        yield from _check_index(table, settings, source.index_columns())
        yield from _check_nulls(table, settings)
        yield from _check_horizon(table, settings)
    if settings.whole is None:
        yield Finding(
            verdict=Verdict.WARN,
            subject=table.name,
            message="`deletes: { detect: false }`: deleted rows stay published, and changes that leave the cursor as "
            "it is are not seen. Write `detect: true` unless no row is ever deleted",
        )


def _check_index(table: TablePortion, settings: CursorSettings, indexes: list[list[str]] | None) -> Iterator[Finding]:
    if indexes is None:  # a view, a query
        return
    if any(names[0] == settings.column for names in indexes if names):
        return
    order = [settings.column, *(each for each in table.order if each != settings.column)]
    quoted = ", ".join(_quote(table, each) for each in order)
    concurrently = "CONCURRENTLY " if table.engine.dialect.name == "postgresql" else ""
    own_name = f"{table.name.rpartition('.')[2]}_{settings.column}"
    name = "" if concurrently else f"{_quote(table, own_name)} "
    yield Finding(
        verdict=Verdict.WARN,
        subject=table.name,
        message=f"no index begins with {settings.column}: each poll reads the whole table. As its owner:",
        statements=(f"CREATE INDEX {concurrently}{name}ON {_quote(table, *table.name.split('.'))} ({quoted});",),
    )


def _check_nulls(table: TablePortion, settings: CursorSettings) -> Iterator[Finding]:
    cursor = table.column(settings.column)
    with table.engine.connect() as connection:
        nulls = connection.execute(table.select(sa.func.count()).where(cursor.is_(None))).scalar_one()
    if not nulls:
        return
    where, column = _quote(table, *table.name.split(".")), _quote(table, settings.column)
    now = "CURRENT_TIMESTAMP"
    statements = [f"UPDATE {where} SET {column} = {now} WHERE {column} IS NULL;"]  # noqa: S608 - quoted, and only printed
    if table.engine.dialect.name == "postgresql":
        statements.insert(0, f"ALTER TABLE {where} ALTER COLUMN {column} SET DEFAULT {now};")
    yield Finding(
        verdict=Verdict.FAIL if settings.whole is None else Verdict.WARN,
        subject=table.name,
        message=f"{nulls:,} rows have a null {settings.column}: polls do not see them, only the reading of the whole "
        "table does. As its owner:",
        statements=statements if isinstance(cursor.type, sa.DateTime) else (),
    )


def _check_horizon(table: TablePortion, settings: CursorSettings) -> Iterator[Finding]:
    found = find_horizon(table, settings)
    if isinstance(found, NoHorizon):
        yield Finding(
            verdict=Verdict.FAIL if settings.whole is None else Verdict.WARN,
            subject=table.name,
            message=f"{found.why}. So each poll reads again from "
            f"{overlap_text(table.column(settings.column).type, settings.overlap)} the last cursor, and what commits "
            "later is found when the table is read whole" + (". As a superuser:" if found.statement else ""),
            statements=(found.statement,) if found.statement else (),
        )
    elif found.held_by:
        yield Finding(verdict=Verdict.WARN, subject=table.name, message=f"the horizon is held back by {found.held_by}")


def _quote(table: TablePortion, *names: str) -> str:
    quote: Any = table.engine.dialect.identifier_preparer.quote_identifier
    return ".".join(quote(name) for name in names)

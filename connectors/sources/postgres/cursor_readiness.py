"""Readiness of a table for `mode: incremental`: findings about its cursor column, each with its statement. Pure.

Rows are read in the order of (cursor, key) from the last ones on. So a row whose cursor is null is never read; without
an index that begins with the cursor, each poll reads the whole table; and without the right to see when the
transactions of others began, a row that is committed late can be missed, since its cursor is older than what was read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from connectors.sources.postgres.connection import quote
from connectors.sources.postgres.readiness import Finding, Verdict

__all__ = ["CursorFacts", "check_cursor"]

_MOMENTS = frozenset({"timestamptz", "timestamp", "date"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorFacts:
    """A cursor column.

    Attributes:
        schema, name, owner: of the table.
        cursor: the column; empty `base` = the table has no such column.
        base: its type in `pg_type`, such as timestamptz or int8.
        nullable: it may be null.
        nulls: rows in which it is null.
        key: columns of the record's key, which decide between rows of one cursor.
        indexes: the columns of each valid index over all rows, in order.
        sees_starts: the role sees when the transactions of others began (`pg_read_all_stats`).
    """

    schema: str
    name: str
    owner: str
    cursor: str
    base: str
    nullable: bool
    nulls: int
    key: Sequence[str]
    indexes: Sequence[Sequence[str]]
    sees_starts: bool


def check_cursor(facts: CursorFacts, *, user: str) -> Iterator[Finding]:
    """Check a cursor.

    Args:
        facts: of the column.
        user: who reads it.
    """
    subject = f"{facts.schema}.{facts.name}"
    table, cursor = quote(facts.schema, facts.name), quote(facts.cursor)
    if not facts.base:
        yield Finding(
            verdict=Verdict.FAIL, subject=subject, message=f"has no column {facts.cursor} (`cursor:`); name another one"
        )
        return
    if facts.nulls:
        value = "now()" if facts.base in _MOMENTS else "0"
        yield Finding(
            verdict=Verdict.FAIL,
            subject=subject,
            message=f"{facts.nulls:,} rows have null in {facts.cursor} and would never be read. As {facts.owner}, give "
            "them a value, after which they are read as changed:",
            statements=[
                f"UPDATE {table} SET {cursor} = {value} WHERE {cursor} IS NULL;",  # noqa: S608 - names are quoted
                f"ALTER TABLE {table} ALTER COLUMN {cursor} SET NOT NULL;",
            ],
        )
    elif facts.nullable:
        yield Finding(
            verdict=Verdict.WARN,
            subject=subject,
            message=f"{facts.cursor} may be null; such a row would never be read. As {facts.owner}:",
            statements=[f"ALTER TABLE {table} ALTER COLUMN {cursor} SET NOT NULL;"],
        )
    wanted = [facts.cursor, *facts.key]
    if not any(list(columns[: len(wanted)]) == wanted for columns in facts.indexes):
        yield Finding(
            verdict=Verdict.FAIL,
            subject=subject,
            message=f"has no index on ({', '.join(wanted)}): each poll would read the whole table. As {facts.owner}, "
            "outside of a transaction:",
            statements=[f"CREATE INDEX CONCURRENTLY ON {table} ({', '.join(map(quote, wanted))});"],
        )
    if not facts.sees_starts:
        yield Finding(
            verdict=Verdict.WARN,
            subject=subject,
            message=f"{user} may not see when the transactions of others began, so rows that are committed late could "
            "be missed; an overlap is read again instead. As a superuser:",
            statements=[f"GRANT pg_read_all_stats TO {quote(user)};"],
        )

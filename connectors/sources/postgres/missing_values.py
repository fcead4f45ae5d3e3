"""Values that the log does not hold: refused, or read from the table by key.

PostgreSQL leaves a value out that is stored out of line (TOAST) and did not change, unless the table sends its old rows
(REPLICA IDENTITY FULL). A record without it would be no record of the resource. What is read again is later than the
change, so the batch says so; a row that is not there any more was changed or deleted by a later change, which follows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from connectors.port import ChangeBatch, ChangeRequest, TableChanges
from connectors.sources.postgres.catalogue import TableFacts, read_table
from connectors.sources.postgres.change_assembly import AssembledBatch, MissingValue
from connectors.sources.postgres.connection import quote
from schemas.errors import InvalidError, Reason

__all__ = ["complete"]


def complete(
    sql: Any, assembled: AssembledBatch, requests: Sequence[ChangeRequest], reread: Collection[str], publication: str
) -> ChangeBatch:
    """Return the batch with the values that it misses.

    Raises:
        InvalidError: CONTRACT_BROKEN, when a table's values may not be read again.
    """
    keys = {request.table: request.key for request in requests}
    tables = []
    for changes, missing in zip(assembled.batch.tables, assembled.missing, strict=True):
        if not missing:
            tables.append(changes)
            continue
        if changes.table not in reread:
            schema, _, name = changes.table.partition(".")
            raise InvalidError(
                Reason.CONTRACT_BROKEN,
                f"{changes.table}: a change lacks the value of {', '.join(missing[0].columns)}, which is stored out of "
                "line and did not change. Nothing is lost: run again after its owner has executed ALTER TABLE "
                f"{quote(schema, name)} REPLICA IDENTITY FULL; and for what was changed before, set `toast: reread` or "
                "run with --resnapshot",
            )
        facts = read_table(sql, changes.table, publication)
        found = {} if facts is None else _read_again(sql, facts, changes, missing, keys[changes.table])
        tables.append(_fill(changes, missing, found))
    return replace(assembled.batch, tables=tables)


def _read_again(
    sql: Any, facts: TableFacts, changes: TableChanges, missing: Sequence[MissingValue], key: Sequence[str]
) -> dict[int, Mapping[str, str | None]]:
    """Return row → column → text, of the rows that are still there."""
    by_name = {column.name: column for column in facts.columns}
    names = sorted({name for each in missing for name in each.columns})
    if any(name not in by_name for name in (*names, *key)):
        return {}
    rows = [each.row for each in missing]
    arrays = [[changes.rows.columns[name][row].as_py() for row in rows] for name in key]
    wanted = ", ".join(["n", *(f"k{at}" for at in range(len(key)))])
    unnested = ", ".join(["%s::int[]", *("%s::text[]" for _ in key)])
    # The key is compared in its own type, so that its index is used.
    matched = " AND ".join(f"t.{quote(name)} = CAST(w.k{at} AS {by_name[name].type})" for at, name in enumerate(key))
    texts = ", ".join(by_name[name].as_text() for name in names)
    with sql.cursor() as cursor:
        cursor.execute(
            f"SELECT w.n, {texts} FROM unnest({unnested}) AS w({wanted}) "  # noqa: S608 - quoted names
            f"JOIN {quote(facts.schema, facts.name)} t ON {matched}",
            (rows, *arrays),
        )
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in cursor.fetchall()}


def _fill(
    changes: TableChanges, missing: Sequence[MissingValue], found: Mapping[int, Mapping[str, str | None]]
) -> TableChanges:
    columns = {name: column.to_pylist() for name, column in changes.rows.columns.items()}
    for each in missing:
        for name in each.columns:
            if each.row in found:
                columns[name][each.row] = found[each.row][name]
    changed = {name for each in missing for name in each.columns}
    arrays = {
        name: pa.array(columns[name], pa.string()) if name in changed else column
        for name, column in changes.rows.columns.items()
    }
    return replace(
        changes,
        rows=replace(changes.rows, columns=arrays),
        read_again=frozenset(each.row for each in missing if each.row in found),
        superseded=frozenset(each.row for each in missing if each.row not in found),
    )

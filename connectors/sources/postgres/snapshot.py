"""Snapshot of tables: one moment, read in one transaction that takes over the slot's exported snapshot.

Values are read as text by casts, as `connectors.sources.sql_table` reads them. Columns are those that the publication
sends: no generated ones, and of a column list no others.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from typing_extensions import override

from connectors.port import ChangePosition, Portion, Replaces, RowChunk, Snapshot
from connectors.sources.postgres.catalogue import TableFacts
from connectors.sources.postgres.connection import quote, translate_errors
from connectors.sources.postgres.json_rows import JsonColumns

__all__ = ["PostgresSnapshot", "TableSnapshot"]

_CHUNK = 5_000  # rows


class TableSnapshot(Portion):
    """One table of a snapshot."""

    def __init__(self, connection: Any, facts: TableFacts) -> None:
        self._connection = connection
        self._facts = facts

    @property
    @override
    def name(self) -> str:
        return self._facts.table

    @property
    @override
    def identity(self) -> bytes:
        return b""

    @property
    @override
    def replaces(self) -> Replaces:
        return Replaces.EVERYTHING

    @property
    @override
    def stable(self) -> bool:
        return True

    @property
    @override
    def columns(self) -> Sequence[str]:
        return [column.name for column in self._facts.columns]

    @override
    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        names = list(self.columns) if columns is None else list(columns)
        by_name = {column.name: column for column in self._facts.columns}
        chosen = ", ".join(by_name[name].as_text() for name in names)
        statement = f"SELECT {chosen} FROM ONLY {quote(self._facts.schema, self._facts.name)}"  # noqa: S608 - quoted
        if self._facts.partitioned:
            statement = statement.replace("FROM ONLY", "FROM", 1)
        read = 0
        with (
            translate_errors(f"read the snapshot of {self.name}"),
            self._connection.cursor(name=f"pool_connect_{id(self):x}") as cursor,
        ):
            cursor.execute(statement)
            while rows := cursor.fetchmany(_CHUNK):
                cells = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
                yield RowChunk(
                    columns=dict(zip(names, cells, strict=True)),
                    lines=range(read + 1, read + len(rows) + 1),
                    originals=JsonColumns(names, cells) if columns is None else [],
                )
                read += len(rows)

    @override
    def confirm(self) -> None:
        """Do nothing: the ledger records the published keys."""


class PostgresSnapshot(Snapshot):
    """Tables of one moment; `keep_log` is the source's."""

    def __init__(self, portions: Mapping[str, Portion], position: ChangePosition, keep: Any) -> None:
        self._portions = portions
        self._position = position
        self._keep = keep

    @property
    @override
    def portions(self) -> Mapping[str, Portion]:
        return self._portions

    @property
    @override
    def position(self) -> ChangePosition:
        return self._position

    @override
    def keep_log(self) -> None:
        self._keep()

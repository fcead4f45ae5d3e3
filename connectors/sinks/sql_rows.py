"""Row writer: upserts of any database that SQLAlchemy supports, in statements of many rows.

PostgreSQL and SQLite upsert in one statement. Of any other database it is asked which keys are there, and then an
insert and an update are made of many rows each; the lock on the position keeps other writers out meanwhile. Where it
is possible, PostgreSQL gets columns instead (`connectors.sinks.sql_copy`), with the same result.

A record that the database rejects (a constraint of the target's own, a text that its encoding cannot hold) does not
block the others: the rows are halved until it is alone. Then its fields are tried one by one, so that the quarantine
names the one that did not fit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from connectors.port import DecodedRelease, RejectedRecord
from connectors.sinks.latest_records import LatestRecords, values_of
from connectors.sinks.sql_faults import cause_of, fault_of, field_of
from connectors.sinks.sql_schema import DELETED_AT, KEY, OWN_COLUMNS, RECORDED_AT

__all__ = ["RowWriter"]

_CHUNK = 500  # rows of one statement
_MAX_EXAMINED = 100  # rejected records of one release whose fields are all tried

Row = Mapping[str, Any]


class RowWriter:
    """Writes rows into one table."""

    def __init__(self, table: sa.Table, dialect: str, *, hard_deletes: bool, native_upsert: bool) -> None:
        self._table = table
        self._hard = hard_deletes
        self._upsert = _upsert_statement(table, dialect) if native_upsert else None
        self._suspect = ""  # the field that the last rejected record was rejected for

    def upsert(self, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords) -> list[RejectedRecord]:
        """Write the records; return those that the database, or its driver, cannot hold.

        Raises:
            SQLAlchemyError: the fault is not a record's.
        """
        values, rejected = values_of(release.records, latest.rows, latest.indexes)
        rows = [
            (index, self._row(release, index, row))
            for index, row in zip(latest.indexes.tolist(), values, strict=True)
            if row is not None
        ]
        for start in range(0, len(rows), _CHUNK):
            self._upsert_or_halve(connection, rows[start : start + _CHUNK], rejected)
        return rejected

    def withdraw(self, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords) -> None:
        """Mark or delete the withdrawn records."""
        table = self._table
        key = sa.bindparam("gone_key", type_=sa.String)
        at = sa.bindparam("gone_at", type_=sa.BigInteger)
        where = (table.c[KEY] == key, table.c[RECORDED_AT] <= at)
        statement: sa.Update | sa.Delete = sa.update(table).where(*where).values({RECORDED_AT: at, DELETED_AT: at})
        if self._hard:
            statement = sa.delete(table).where(*where)
        gone = [
            {"gone_key": release.keys[index].hex(), "gone_at": release.recorded_at[index]}
            for index in latest.withdrawn.tolist()
        ]
        if gone:
            connection.execute(statement, gone)

    def _row(self, release: DecodedRelease, index: int, values: Row) -> Row:
        own = {KEY: release.keys[index].hex(), RECORDED_AT: release.recorded_at[index], DELETED_AT: None}
        return {**own, **{name: _sql_value(value) for name, value in values.items()}}

    def _upsert_or_halve(
        self, connection: sa.Connection, rows: Sequence[tuple[int, Row]], rejected: list[RejectedRecord]
    ) -> None:
        try:
            with connection.begin_nested():
                self._write([row for _, row in rows], connection)
        except Exception as error:
            code = fault_of(error)
            if code is None:
                raise
            if len(rows) > 1:
                middle = len(rows) // 2
                self._upsert_or_halve(connection, rows[:middle], rejected)
                self._upsert_or_halve(connection, rows[middle:], rejected)
                return
            index, row = rows[0]
            name = field_of(error) or self._faulty_field(connection, row, thorough=len(rejected) < _MAX_EXAMINED)
            message = f"the target refused it ({cause_of(error)})"
            rejected.append(RejectedRecord(index=index, code=code, field=name, message=message))

    def _faulty_field(self, connection: sa.Connection, row: Row, *, thorough: bool) -> str:
        """Return the field for which the database rejects a row; empty where no single one is to blame."""
        names = [name for name, value in row.items() if value is not None and name not in OWN_COLUMNS]
        if self._suspect in names:
            names = [self._suspect, *(name for name in names if name != self._suspect)]
        nothing = {name: value if name in OWN_COLUMNS else None for name, value in row.items()}
        alone = self._accepts(connection, nothing)  # else the target has columns that may not be null
        for name in names if thorough else names[:1]:
            probe = {**nothing, name: row[name]} if alone else {**row, name: None}
            if self._accepts(connection, probe) is not alone:
                self._suspect = name
                return name
        return ""

    def _accepts(self, connection: sa.Connection, row: Row) -> bool:
        trial = connection.begin_nested()
        try:
            self._write([row], connection)
        except Exception as error:
            if fault_of(error) is None:
                raise
            return False
        else:
            return True
        finally:
            trial.rollback()

    def _write(self, rows: Sequence[Row], connection: sa.Connection) -> None:
        if self._upsert is not None:
            connection.execute(self._upsert, [dict(row) for row in rows])
        else:
            self._insert_and_update(rows, connection)

    def _insert_and_update(self, rows: Sequence[Row], connection: sa.Connection) -> None:
        table = self._table
        keys = [row[KEY] for row in rows]
        found = connection.execute(sa.select(table.c[KEY], table.c[RECORDED_AT]).where(table.c[KEY].in_(keys)))
        stored: dict[str, int] = {row[0]: row[1] for row in found}
        new = [dict(row) for row in rows if row[KEY] not in stored]
        if new:
            connection.execute(sa.insert(table), new)
        later = [row for row in rows if row[KEY] in stored and stored[row[KEY]] <= row[RECORDED_AT]]
        if later:
            names = [each.name for each in table.columns if each.name != KEY]
            # Names of parameters of our own: those of columns are reserved in an update of many rows.
            update = (
                sa.update(table)
                .where(table.c[KEY] == sa.bindparam("row_key", type_=table.c[KEY].type))
                .values({name: sa.bindparam(f"value_{at}", type_=table.c[name].type) for at, name in enumerate(names)})
            )
            connection.execute(
                update,
                [{"row_key": row[KEY], **{f"value_{at}": row[name] for at, name in enumerate(names)}} for row in later],
            )


def _upsert_statement(table: sa.Table, dialect: str) -> sa.Insert | None:
    if dialect not in ("postgresql", "sqlite"):
        return None
    statement = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table)
    return statement.on_conflict_do_update(
        index_elements=[KEY],
        set_={each.name: statement.excluded[each.name] for each in table.columns if each.name != KEY},
        where=table.c[RECORDED_AT] <= statement.excluded[RECORDED_AT],
    )


def _sql_value(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map's entries
        return dict(value)
    return value

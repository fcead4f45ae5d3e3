"""Column writer for PostgreSQL: a release as columns into a staging table by COPY, then one upsert from there.

    CREATE TEMP TABLE … ON COMMIT DROP ─▶ COPY … FROM STDIN csv ─▶ INSERT … SELECT … ON CONFLICT … WHERE not earlier

Everything is in the transaction of the position. The table has the same rows as `connectors.sinks.sql_rows` would give
it, which stays the definition: a property test compares the two. Whatever columns cannot hold (nested values,
nanoseconds) or a user who may not make temporary tables is left to it, and so are releases of few records, for which
making a table costs more than it saves.

When the database rejects a batch, it is halved until few rows are left; those go to the row writer, which finds the
record and its field.

A column of the staging table has the type of the view's field, so that PostgreSQL converts it to the target's column
as in any INSERT. Texts and floating-point numbers have the target's own type instead: written into an INSERT they are
literals, which take the type of their column without a cast.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import sqlalchemy as sa

from connectors.port import DecodedRelease, RejectedRecord
from connectors.sinks.latest_records import LatestRecords
from connectors.sinks.sql_faults import fault_of
from connectors.sinks.sql_rows import RowWriter
from connectors.sinks.sql_schema import DELETED_AT, KEY, RECORDED_AT, column_for

__all__ = ["CopyWriter", "NotPermittedError", "copy_writer"]

MIN_RECORDS = 30
"""Fewest records of a release for columns."""

_FEW_ROWS = 32  # that are left to the row writer when the database rejects a batch
_STAGING, _GONE = "pool_staging", "pool_withdrawn"
_CSV = pyarrow.csv.WriteOptions(include_header=False, batch_size=1024)
_INSUFFICIENT_PRIVILEGE = "42501"
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), "<u2")


class NotPermittedError(Exception):
    """This user may not make temporary tables, and nothing was written: the row writer has to do it.

    Attributes:
        rows: the row writer.
    """

    def __init__(self, rows: RowWriter) -> None:
        super().__init__()
        self.rows = rows


def copy_writer(
    table: sa.Table, schema: pa.Schema, dialect: sa.Dialect, rows: RowWriter, *, hard_deletes: bool
) -> "CopyWriter | None":
    """Return the column writer of a table; None where the database, its driver or a field does not allow columns."""
    if dialect.name != "postgresql" or dialect.driver != "psycopg2":
        return None
    converters = {field.name: _converter(field.type) for field in schema}
    known = {name: convert for name, convert in converters.items() if convert is not None}
    if len(known) < len(converters):
        return None
    return CopyWriter(table, schema, known, dialect, rows, hard_deletes=hard_deletes)


class CopyWriter:
    """Writes columns into one table of PostgreSQL."""

    def __init__(
        self,
        table: sa.Table,
        schema: pa.Schema,
        converters: "Mapping[str, _Converter]",
        dialect: sa.Dialect,
        rows: RowWriter,
        *,
        hard_deletes: bool,
    ) -> None:
        self._converters = converters
        self._rows = rows
        target = ".".join(_quoted(part) for part in (table.schema, table.name) if part)
        names = [_quoted(field.name) for field in schema]
        own = [_staged(field, dialect) for field in schema]
        staged = ", ".join([f"t.{KEY}", f"t.{RECORDED_AT}", *own])
        self._create = (
            f"CREATE TEMP TABLE {_STAGING} ON COMMIT DROP AS SELECT {staged} "  # noqa: S608 - our own text, quoted names
            f"FROM {target} AS t WITH NO DATA"
        )
        self._copy = f"COPY {_STAGING} FROM STDIN (FORMAT csv, ENCODING 'UTF8')"
        changed = [RECORDED_AT, DELETED_AT, *names]
        self._upsert = (
            f"INSERT INTO {target} AS t ({', '.join([KEY, *changed])}) "  # noqa: S608
            f"SELECT {', '.join([KEY, RECORDED_AT, 'NULL', *names])} FROM {_STAGING} "
            f"ON CONFLICT ({KEY}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in changed)} "
            f"WHERE t.{RECORDED_AT} <= excluded.{RECORDED_AT}"
        )
        joined = f"t.{KEY} = g.{KEY} AND t.{RECORDED_AT} <= g.{RECORDED_AT}"
        self._withdraw = (
            f"DELETE FROM {target} AS t USING {_GONE} AS g WHERE {joined}"  # noqa: S608
            if hard_deletes
            else f"UPDATE {target} AS t SET {RECORDED_AT} = g.{RECORDED_AT}, {DELETED_AT} = g.{RECORDED_AT} "  # noqa: S608
            f"FROM {_GONE} AS g WHERE {joined}"
        )
        self._create_gone = f"CREATE TEMP TABLE {_GONE} ({KEY} varchar(32), {RECORDED_AT} bigint) ON COMMIT DROP"
        self._copy_gone = f"COPY {_GONE} FROM STDIN (FORMAT csv, ENCODING 'UTF8')"

    def upsert(self, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords) -> list[RejectedRecord]:
        """Write the records; return those that the database cannot hold.

        Raises:
            NotPermittedError: the row writer has to do it.
            SQLAlchemyError, or the driver's own error: the fault is not a record's.
        """
        if len(latest) < MIN_RECORDS:
            return self._rows.upsert(connection, release, latest)
        self._create_table(connection, self._create)
        every = len(latest) == len(release.records)
        chosen = release.records if every else release.records.take(pa.array(latest.rows))
        columns = [_keys(release, latest.indexes), _times(release, latest.indexes)]
        columns += [convert(chosen.column(name)) for name, convert in self._converters.items()]
        batch = pa.RecordBatch.from_arrays(columns, names=[KEY, RECORDED_AT, *self._converters])
        rejected: list[RejectedRecord] = []
        self._write_or_halve(connection, release, latest, batch, rejected)
        return rejected

    def withdraw(self, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords) -> None:
        """Mark or delete the withdrawn records.

        Raises:
            NotPermittedError: the row writer has to do it.
        """
        if len(latest.withdrawn) < MIN_RECORDS:
            self._rows.withdraw(connection, release, latest)
            return
        self._create_table(connection, self._create_gone)
        gone = [_keys(release, latest.withdrawn), _times(release, latest.withdrawn)]
        _copy(connection, self._copy_gone, pa.RecordBatch.from_arrays(gone, names=[KEY, RECORDED_AT]))
        _execute(connection, self._withdraw)

    def _write_or_halve(
        self,
        connection: sa.Connection,
        release: DecodedRelease,
        latest: LatestRecords,
        batch: pa.RecordBatch,
        rejected: list[RejectedRecord],
    ) -> None:
        few = len(batch) <= _FEW_ROWS
        if few and len(batch) < len(release):
            rejected += self._rows.upsert(connection, release, latest)
            return
        try:
            with connection.begin_nested():
                _copy(connection, self._copy, batch)
                _execute(connection, self._upsert)
        except Exception as error:
            if fault_of(error) is None:
                raise
            if few:
                rejected += self._rows.upsert(connection, release, latest)
                return
            middle = len(batch) // 2
            for start, end in ((0, middle), (middle, len(batch))):
                part = batch.slice(start, end - start)
                self._write_or_halve(connection, release, latest.part(start, end), part, rejected)
                _execute(connection, f"TRUNCATE {_STAGING}")

    def _create_table(self, connection: sa.Connection, statement: str) -> None:
        try:
            with connection.begin_nested():
                _execute(connection, statement)
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "pgcode", None) == _INSUFFICIENT_PRIVILEGE:
                raise NotPermittedError(self._rows) from error
            raise


def _execute(connection: sa.Connection, statement: str) -> None:
    # Without parameters a percent sign in a name is one.
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _copy(connection: sa.Connection, statement: str, batch: pa.RecordBatch) -> None:
    output = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, output, _CSV)
    driver = connection.connection.driver_connection
    if driver is None:
        raise sa.exc.InvalidRequestError("the connection is closed")
    # SQLAlchemy has no call for COPY; its transaction is the driver's.
    with driver.cursor() as cursor:
        cursor.copy_expert(statement, io.BytesIO(output.getvalue()))


def _keys(release: DecodedRelease, indexes: Any) -> pa.Array:
    chosen: Sequence[bytes] = release.keys
    if len(indexes) < len(release):
        chosen = [release.keys[index] for index in indexes.tolist()]
    return pa.StringArray.from_buffers(
        len(chosen),
        pa.py_buffer(np.arange(0, 32 * len(chosen) + 1, 32, dtype=np.int32)),
        pa.py_buffer(b"".join(chosen).hex().encode()),
    )


def _times(release: DecodedRelease, indexes: Any) -> pa.Array:
    return pa.array(np.array(release.recorded_at, np.int64)[indexes])


_Converter = Callable[[pa.Array], pa.Array]


def _converter(arrow: pa.DataType) -> _Converter | None:
    """Return what makes of a column one that `write_csv` writes as PostgreSQL reads it; None where nothing does."""
    if pa.types.is_dictionary(arrow) and pa.types.is_string(arrow.value_type):
        return lambda column: column.cast(pa.string())
    if pa.types.is_binary(arrow) or pa.types.is_fixed_size_binary(arrow):
        return _hexadecimal
    if pa.types.is_floating(arrow):  # of a float the nearest double, as the row writer has it
        return lambda column: column.cast(pa.float64())
    if pa.types.is_timestamp(arrow) or pa.types.is_time(arrow):
        return None if arrow.unit == "ns" else lambda column: column
    plain = (
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_int32,
        pa.types.is_int64,
        pa.types.is_date,
        pa.types.is_decimal,
    )
    return (lambda column: column) if any(test(arrow) for test in plain) else None


def _hexadecimal(column: pa.Array) -> pa.Array:
    """Return bytes as PostgreSQL's hexadecimal text."""
    binary = column.cast(pa.binary())
    _, offsets, values = binary.buffers()
    ends = (
        np.frombuffer(offsets, np.int32, len(binary) + 1, binary.offset * 4) if len(binary) else np.zeros(1, np.int32)
    )
    first, last = int(ends[0]), int(ends[-1])
    digits = _HEX[np.frombuffer(values, np.uint8, last - first, first)] if last > first else np.empty(0, "<u2")
    texts = pa.StringArray.from_buffers(
        len(binary), pa.py_buffer(2 * (ends - first)), pa.py_buffer(digits.tobytes()), _validity(binary)
    )
    return pc.binary_join_element_wise("\\x", texts, "")


def _validity(column: pa.Array) -> pa.Buffer | None:
    if not column.null_count:
        return None
    bits = np.packbits(column.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    return pa.py_buffer(bits)


def _staged(field: pa.Field, dialect: sa.Dialect) -> str:
    name = _quoted(field.name)
    own = pa.types.is_string(field.type) or pa.types.is_dictionary(field.type) or pa.types.is_floating(field.type)
    if own:
        return f"t.{name}"
    return f"CAST(NULL AS {column_for(field).type.compile(dialect)}) AS {name}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

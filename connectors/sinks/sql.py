"""Database table as a sink: upsert by record key, and the position in the same transaction.

    <table>            the fields of the view, and
        _record_key    32 hexadecimal digits, primary key: the record's pseudonym within the grant
        _recorded_at   microseconds UTC; a record never overwrites a later one
        _deleted_at    microseconds UTC of a withdrawal, null while the record is valid (soft deletes)
    pool_positions     one row a grant and table: the position

The position is advanced by compare-and-set: if it is not what this process last saw, another one writes to the same
table, and this one stops before it writes anything. A record that the database rejects (a constraint of the target's
own, a text that its encoding cannot hold) does not block the others of its batch: it is found, and quarantined with
its field and the cause before the transaction commits, since the committed position is past it.

The table is created only if configured, and columns are only ever added. PostgreSQL gets a release as columns, by COPY
(`connectors.sinks.sql_copy`); any other database that SQLAlchemy supports, in statements of many rows
(`connectors.sinks.sql_rows`).
"""

import base64
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement
from typing_extensions import override

from connectors.port import DecodedRelease, QuarantineCallback, RejectedRecord, Sink, WriteResult
from connectors.sinks.field_names import LONGEST_NAMES, require_names
from connectors.sinks.latest_records import LatestRecords, latest_records
from connectors.sinks.sql_comparison import TableComparison
from connectors.sinks.sql_copy import CopyWriter, NotPermittedError, copy_writer
from connectors.sinks.sql_proof import Proof
from connectors.sinks.sql_rows import RowWriter
from connectors.sinks.sql_schema import DELETED_AT, OWN_COLUMNS, RECORDED_AT, column_for, own_columns
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.failpoints import reached

__all__ = ["SqlSink"]

_POSITIONS = sa.Table(
    "pool_positions",
    sa.MetaData(),
    sa.Column("grant_id", sa.String(80), primary_key=True),
    sa.Column("target", sa.String(200), primary_key=True),
    sa.Column("position", sa.String(1000), nullable=False),
    comment="How far each table is in what its grant delivers; written with the rows, by pool-connect",
)
_UNAVAILABLE_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)


class SqlSink(Sink):
    """One table of one grant."""

    def __init__(
        self,
        url: sa.URL,
        table: str,
        grant_id: str,
        *,
        create_table: bool = False,
        add_columns: bool = False,
        hard_deletes: bool = False,
        native_upsert: bool = True,
        columns: bool = True,
    ) -> None:
        """Configure; the connection opens at the first call.

        Args:
            url: of the database.
            table: `table` or `schema.table`.
            grant_id: whose records it holds.
            create_table: create it if it does not exist.
            add_columns: add columns for fields that are new in the view.
            hard_deletes: delete withdrawn records instead of marking them.
            native_upsert: use the database's own upsert where it has one.
            columns: write columns where the database takes them.
        """
        self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        if self._engine.dialect.name == "sqlite":
            _begin_explicitly(self._engine)
        schema, _, name = table.rpartition(".")
        self._schema = schema or None
        self._name = name
        self._target = table
        self._grant = grant_id
        self._create = create_table
        self._add = add_columns
        self._hard = hard_deletes
        self._native = native_upsert
        self._by_columns = columns
        self._table: sa.Table | None = None
        self._writer: RowWriter | CopyWriter | None = None
        self._proof: Proof | None = None

    @override
    def prepare(self, schema: pa.Schema) -> None:
        self.check(schema)
        with self._translated_errors():
            _POSITIONS.metadata.create_all(self._engine)
            inspector = sa.inspect(self._engine)
            if not inspector.has_table(self._name, schema=self._schema):
                if not self._create:
                    raise ConflictError(
                        Reason.CONTRACT_BROKEN,
                        f"the table {self._target} is not there; make it, or set `create_table: true`",
                    )
                self._table_of(schema).create(self._engine)
            inspector.clear_cache()
            present = self._stored_columns(inspector)
            table = self._table_of(schema)
            missing = [column for column in table.columns if column.name not in present]
            if missing:
                self._add_columns(missing)
                inspector.clear_cache()
                present = self._stored_columns(inspector)
            self._table, self._writer = table, self._writer_for(table, schema)
            self._proof = Proof(table, present, schema, self._engine.dialect.name)

    @override
    def check(self, schema: pa.Schema) -> None:
        dialect = self._engine.dialect.name
        require_names(
            schema, longest=LONGEST_NAMES.get(dialect, 0), one_case=dialect != "postgresql", also=[self._name]
        )

    def comparison(self, schema: pa.Schema) -> TableComparison:
        """Return the table as something to compare with records of a view; nothing is made or changed.

        Raises:
            ConflictError: CONTRACT_BROKEN, the table is not there, or lacks columns of the view.
            UnavailableError: TARGET_UNAVAILABLE.
        """
        self.check(schema)
        with self._translated_errors():
            inspector = sa.inspect(self._engine)
            if not inspector.has_table(self._name, schema=self._schema):
                raise ConflictError(Reason.CONTRACT_BROKEN, f"the table {self._target} is not there")
            table, present = self._table_of(schema), self._stored_columns(inspector)
            missing = [str(column.name) for column in table.columns if column.name not in present]
            if missing:
                raise ConflictError(
                    Reason.CONTRACT_BROKEN, f"the table {self._target} lacks the columns {', '.join(missing)}"
                )
            proof = Proof(table, present, schema, self._engine.dialect.name, everything=True)
            return TableComparison(self._engine, table, proof)

    def _stored_columns(self, inspector: sa.Inspector) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # of a type that SQLAlchemy does not know
            return {each["name"]: each["type"] for each in inspector.get_columns(self._name, schema=self._schema)}

    @override
    def position(self) -> bytes:
        with self._translated_errors(), self._engine.connect() as connection:
            # SQLite calls a table that is not there an "operational error".
            there = sa.inspect(connection).has_table(_POSITIONS.name)
            return self._stored_position(connection) if there else b""

    @override
    def write(
        self, release: DecodedRelease, before: bytes, after: bytes, quarantine: QuarantineCallback
    ) -> WriteResult:
        latest = latest_records(release)
        with self._translated_errors(), self._engine.begin() as connection:
            self._advance_position(connection, before, after)
            reached("between_rows_and_position")
            rejected = self._write_records(connection, release, latest)
            if rejected:
                quarantine(rejected)
        return WriteResult(
            upserted=len(latest) - len(rejected),
            withdrawn=len(latest.withdrawn),
            stale=latest.stale,
            rejected=rejected,
        )

    def _write_records(
        self, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords
    ) -> list[RejectedRecord]:
        if self._writer is None:
            raise InvalidError(Reason.INTERNAL, "the sink was not prepared for the view's schema")
        try:
            rejected = self._upsert(self._writer, connection, release, latest)
            self._writer.withdraw(connection, release, latest)
        except NotPermittedError as error:
            self._writer = error.rows
            return self._write_records(connection, release, latest)
        return sorted(rejected, key=lambda each: each.index)

    def _upsert(
        self, writer: RowWriter | CopyWriter, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords
    ) -> list[RejectedRecord]:
        """Write the records, and prove it; of those that are stored otherwise, undo the write."""
        if self._proof is None or not self._proof.names:
            return writer.upsert(connection, release, latest)
        trial = connection.begin_nested()
        rejected = writer.upsert(connection, release, latest)
        kept = latest.without([each.index for each in rejected])
        changed = self._proof.find_changed(connection, release, kept)
        if not changed:
            trial.commit()
            return rejected
        trial.rollback()
        return [
            *rejected,
            *changed,
            *writer.upsert(connection, release, kept.without([each.index for each in changed])),
        ]

    @override
    def begin_again(self) -> None:
        if self._table is None:
            raise InvalidError(Reason.INTERNAL, "the sink was not prepared for the view's schema")
        now = sa.literal(time.time_ns() // 1_000, sa.BigInteger)
        # Whatever comes now is later: a record of the lost time must not keep the one that is delivered again out.
        values = {RECORDED_AT: 0, DELETED_AT: sa.func.coalesce(self._table.c[DELETED_AT], now)}
        with self._translated_errors(), self._engine.begin() as connection:
            connection.execute(sa.delete(self._table) if self._hard else sa.update(self._table).values(values))

    @override
    def close(self) -> None:
        self._engine.dispose()

    # -- position ----------------------------------------------------------------------------------------------

    def _stored_position(self, connection: sa.Connection) -> bytes:
        found = connection.execute(sa.select(_POSITIONS.c.position).where(*self._own_row())).scalar_one_or_none()
        return base64.b64decode(found) if found else b""

    def _own_row(self) -> tuple[ColumnElement[bool], ...]:
        return (_POSITIONS.c.grant_id == self._grant, _POSITIONS.c.target == self._target)

    def _advance_position(self, connection: sa.Connection, before: bytes, after: bytes) -> None:
        encoded = base64.b64encode(after).decode()
        if before:
            changed = connection.execute(
                sa.update(_POSITIONS)
                .where(*self._own_row(), _POSITIONS.c.position == base64.b64encode(before).decode())
                .values(position=encoded)
            ).rowcount
        else:
            try:
                with connection.begin_nested():
                    connection.execute(
                        sa.insert(_POSITIONS).values(grant_id=self._grant, target=self._target, position=encoded)
                    )
                changed = 1
            except sa.exc.IntegrityError:
                changed = 0
        if changed != 1:
            raise ConflictError(
                Reason.VERSION_CONFLICT,
                f"the position of {self._target} is not what this process last stored: another one writes to it. "
                "Stop one of them",
            )

    # -- the table ---------------------------------------------------------------------------------------------

    def _writer_for(self, table: sa.Table, schema: pa.Schema) -> RowWriter | CopyWriter:
        dialect = self._engine.dialect
        rows = RowWriter(table, dialect.name, hard_deletes=self._hard, native_upsert=self._native)
        by_columns = None
        if self._native and self._by_columns:
            by_columns = copy_writer(table, schema, dialect, rows, hard_deletes=self._hard)
        return by_columns or rows

    def _table_of(self, schema: pa.Schema) -> sa.Table:
        columns = [column_for(field) for field in schema]
        return sa.Table(self._name, sa.MetaData(), *own_columns(), *columns, schema=self._schema)

    def _add_columns(self, missing: Sequence[sa.Column[Any]]) -> None:
        names = ", ".join(str(column.name) for column in missing)
        if not self._add or any(column.name in OWN_COLUMNS for column in missing):
            raise ConflictError(
                Reason.CONTRACT_BROKEN,
                f"the table {self._target} lacks the columns {names}; add them, or set `add_columns: true`",
                details={"missing": names},
            )
        with self._engine.begin() as connection:
            quote = self._engine.dialect.identifier_preparer
            table = quote.format_table(sa.Table(self._name, sa.MetaData(), schema=self._schema))
            for column in missing:
                kind = column.type.compile(self._engine.dialect)
                connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {quote.quote(str(column.name))} {kind}"))

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        driver = self._engine.dialect.loaded_dbapi  # COPY is the driver's own call, with errors of its own
        try:
            yield
        except (*_UNAVAILABLE_ERRORS, driver.OperationalError, driver.InterfaceError, driver.InternalError) as error:
            raise UnavailableError(
                Reason.TARGET_UNAVAILABLE,
                f"the target database does not answer as it should ({_kind(error)}); is it there?",
            ) from error
        except (sa.exc.SQLAlchemyError, driver.Error) as error:
            raise ConflictError(
                Reason.TARGET_REJECTED,
                f"the target cannot be used as configured ({_kind(error)}); may this user write to {self._target}, and "
                "do its columns have the types of the view?",
            ) from error


def _kind(error: Exception) -> str:
    return type(error.orig if isinstance(error, sa.exc.DBAPIError) else error).__name__


def _begin_explicitly(engine: sa.Engine) -> None:
    """Begin SQLite's transactions in SQLAlchemy instead of the driver.

    Python's driver begins one before the first INSERT only; a savepoint before that would be the transaction, and its
    release would commit the position without its rows.
    """

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

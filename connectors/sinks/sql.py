"""Database table as a sink: upsert by record key, and the position in the same transaction.

    <table>            the fields of the view, and
        _record_key    32 hexadecimal digits, primary key: the record's pseudonym within the grant
        _recorded_at   microseconds UTC; a record never overwrites a later one
        _deleted_at    microseconds UTC of a withdrawal, null while the record is valid (soft deletes)
    pool_positions     one row a grant and table: the position

The position is advanced by compare-and-set: if it is not what this process last saw, another one writes to the same
table, and this one stops before it writes anything. A record that the database rejects (a constraint of the target's
own, a text that its encoding cannot hold) does not block the others of its batch: the batch is halved until the record
is alone. It is quarantined before the transaction commits, since the committed position is past it.

The table is created only if configured, and columns are only ever added. PostgreSQL and SQLite upsert in one statement;
any other database that SQLAlchemy supports gets an update and an insert.
"""

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement
from typing_extensions import override

from connectors.port import DecodedRelease, QuarantineCallback, RejectCode, RejectedRecord, Sink, WriteResult
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.failpoints import reached

__all__ = ["SqlSink"]

KEY, RECORDED_AT, DELETED_AT = "_record_key", "_recorded_at", "_deleted_at"
_OWN_COLUMNS = (KEY, RECORDED_AT, DELETED_AT)
_CHUNK = 500  # rows of one statement
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
        self._native = native_upsert and self._engine.dialect.name in ("postgresql", "sqlite")
        self._table: sa.Table | None = None

    @override
    def prepare(self, schema: pa.Schema) -> None:
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
            present = {column["name"] for column in inspector.get_columns(self._name, schema=self._schema)}
            table = self._table_of(schema)
            missing = [column for column in table.columns if column.name not in present]
            if missing:
                self._add_columns(missing)
            self._table = table

    @override
    def position(self) -> bytes:
        with self._translated_errors(), self._engine.connect() as connection:
            return self._stored_position(connection)

    @override
    def write(
        self, release: DecodedRelease, before: bytes, after: bytes, quarantine: QuarantineCallback
    ) -> WriteResult:
        if self._table is None:
            raise InvalidError(Reason.INTERNAL, "the sink was not prepared for the view's schema")
        rows, withdrawals, stale = _latest_per_key(release, _rows_of(release.records))
        with self._translated_errors(), self._engine.begin() as connection:
            self._advance_position(connection, before, after)
            reached("between_rows_and_position")
            rejected = self._upsert(connection, self._table, rows)
            withdrawn = self._withdraw(connection, self._table, withdrawals)
            if rejected:
                quarantine(rejected)
        return WriteResult(upserted=len(rows) - len(rejected), withdrawn=withdrawn, stale=stale, rejected=rejected)

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

    # -- rows --------------------------------------------------------------------------------------------------

    def _upsert(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> list[RejectedRecord]:
        rejected: list[RejectedRecord] = []
        for start in range(0, len(rows), _CHUNK):
            rejected += self._upsert_or_halve(connection, table, rows[start : start + _CHUNK])
        return rejected

    def _upsert_or_halve(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> list[RejectedRecord]:
        """Write the rows; if the database rejects one, halve them until it is alone."""
        try:
            with connection.begin_nested():
                self._upsert_rows(connection, table, [row for _, row in rows])
        except (sa.exc.IntegrityError, sa.exc.DataError, ValueError) as error:  # ValueError: a NUL in a text
            if len(rows) > 1:
                middle = len(rows) // 2
                return [
                    *self._upsert_or_halve(connection, table, rows[:middle]),
                    *self._upsert_or_halve(connection, table, rows[middle:]),
                ]
            return [_rejected_record(rows[0][0], error)]
        return []

    def _upsert_rows(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._native:
            for row in rows:
                _insert_or_update(connection, table, row)
            return
        make = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = make(table).values([dict(row) for row in rows])
        changes = {column.name: statement.excluded[column.name] for column in table.columns if column.name != KEY}
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[KEY],
                set_=changes,
                where=table.c[RECORDED_AT] <= statement.excluded[RECORDED_AT],
            )
        )

    def _withdraw(self, connection: sa.Connection, table: sa.Table, withdrawals: Mapping[str, int]) -> int:
        key = sa.bindparam("gone_key", type_=sa.String)
        at = sa.bindparam("gone_at", type_=sa.BigInteger)
        where = (table.c[KEY] == key, table.c[RECORDED_AT] <= at)
        statement: sa.Update | sa.Delete = sa.update(table).where(*where).values({RECORDED_AT: at, DELETED_AT: at})
        if self._hard:
            statement = sa.delete(table).where(*where)
        if withdrawals:
            connection.execute(
                statement, [{"gone_key": each, "gone_at": recorded_at} for each, recorded_at in withdrawals.items()]
            )
        return len(withdrawals)

    # -- the table ---------------------------------------------------------------------------------------------

    def _table_of(self, schema: pa.Schema) -> sa.Table:
        columns = [_column(field) for field in schema]
        return sa.Table(self._name, sa.MetaData(), *_own_columns(), *columns, schema=self._schema)

    def _add_columns(self, missing: Sequence[sa.Column[Any]]) -> None:
        names = ", ".join(str(column.name) for column in missing)
        if not self._add or any(column.name in _OWN_COLUMNS for column in missing):
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
        try:
            yield
        except _UNAVAILABLE_ERRORS as error:
            raise UnavailableError(
                Reason.TARGET_UNAVAILABLE,
                f"the target database does not answer as it should ({type(error.orig).__name__}); is it there?",
            ) from error
        except sa.exc.SQLAlchemyError as error:
            kind = type(error.orig if isinstance(error, sa.exc.DBAPIError) else error).__name__
            raise ConflictError(
                Reason.TARGET_REJECTED,
                f"the target cannot be used as configured ({kind}); may this user write to {self._target}, and do its "
                "columns have the types of the view?",
            ) from error


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


def _own_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column(KEY, sa.String(32), primary_key=True),
        sa.Column(RECORDED_AT, sa.BigInteger, nullable=False),
        sa.Column(DELETED_AT, sa.BigInteger),
    ]


def _column(field: pa.Field) -> sa.Column[Any]:
    """Return the column of a field. All are nullable: a withdrawal may be the first that arrives of a record."""
    return sa.Column(field.name, _sql_type(field.type))


def _sql_type(arrow: pa.DataType) -> sa.types.TypeEngine[Any]:
    if pa.types.is_decimal(arrow):
        return sa.Numeric(arrow.precision, arrow.scale)
    for test, kind in (
        (pa.types.is_boolean, sa.Boolean()),
        (pa.types.is_int32, sa.Integer()),
        (pa.types.is_int64, sa.BigInteger()),
        (pa.types.is_floating, sa.Double()),
        (pa.types.is_date, sa.Date()),
        (pa.types.is_time, sa.Time()),
        (pa.types.is_binary, sa.LargeBinary()),
        (pa.types.is_fixed_size_binary, sa.LargeBinary()),
    ):
        if test(arrow):
            return kind
    if pa.types.is_timestamp(arrow):
        return sa.DateTime(timezone=arrow.tz is not None)
    if pa.types.is_nested(arrow) and not pa.types.is_dictionary(arrow):
        return sa.JSON()
    return sa.Text()


def _rows_of(records: pa.RecordBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = records.to_pylist()
    return rows


def _latest_per_key(
    release: DecodedRelease, values: Sequence[dict[str, Any]]
) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, int], int]:
    """Return the last record of each key: rows with their indices, withdrawals, and the number of replaced records."""
    rows: dict[str, tuple[int, dict[str, Any]]] = {}
    withdrawals: dict[str, int] = {}
    stale = 0
    records = iter(values)
    for index, (key, recorded_at, withdrawn) in enumerate(
        zip(release.keys, release.recorded_at, release.withdrawn, strict=True)
    ):
        text = key.hex()
        stale += (text in rows) + (text in withdrawals)
        rows.pop(text, None)
        withdrawals.pop(text, None)
        if withdrawn:
            withdrawals[text] = recorded_at
        else:
            row = {name: _sql_value(value) for name, value in next(records).items()}
            rows[text] = (index, {KEY: text, RECORDED_AT: recorded_at, DELETED_AT: None, **row})
    return list(rows.values()), withdrawals, stale


def _sql_value(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map's entries
        return dict(value)
    return value


def _insert_or_update(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    mine = table.c[KEY] == row[KEY]
    stored = connection.execute(sa.select(table.c[RECORDED_AT]).where(mine)).scalar_one_or_none()
    if stored is None:
        connection.execute(sa.insert(table).values(dict(row)))
    elif stored <= row[RECORDED_AT]:
        connection.execute(sa.update(table).where(mine).values(dict(row)))


def _rejected_record(index: int, error: Exception) -> RejectedRecord:
    code = RejectCode.TARGET_REJECTED
    if isinstance(error, sa.exc.IntegrityError):
        code = RejectCode.TARGET_CONSTRAINT
    elif isinstance(error, (sa.exc.DataError, ValueError)):
        code = RejectCode.TARGET_TYPE
    kind = type(error.orig).__name__ if isinstance(error, sa.exc.DBAPIError) else type(error).__name__
    return RejectedRecord(index=index, code=code, message=f"the target refused it ({kind})")

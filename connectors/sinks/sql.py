"""A table as a sink: upsert by record key, and the position in the same transaction.

    <table>            the fields of the view, and
        _record_key    32 hexadecimal digits, primary key: the record's pseudonym within the grant
        _recorded_at   microseconds UTC; a record never overwrites a later one
        _deleted_at    microseconds UTC of a withdrawal, null while the record is valid (soft deletes)
    pool_positions     one row a grant: how far the target is

The position is compared and set: if it is not what this process last saw, another one writes to the same table, and
this one stops before it writes anything. A record that the database refuses (a constraint of the target's own, a text
that its encoding cannot hold) does not take the others of its batch with it: the batch is halved until it is alone.
It is set aside before the transaction is committed, since the position that is committed with it passes over it.

The table is made only if asked for, and only ever added to. PostgreSQL and SQLite upsert in one statement; any other
database that SQLAlchemy speaks to gets an update and an insert.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from connectors.port import Delivered, RejectCode, SetAside, Undelivered, Written
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.failpoints import reached

__all__ = ["SqlSink"]

KEY, RECORDED_AT, DELETED_AT = "_record_key", "_recorded_at", "_deleted_at"
_OWN = (KEY, RECORDED_AT, DELETED_AT)
_CHUNK = 500  # rows of one statement
_POSITIONS = sa.Table(
    "pool_positions",
    sa.MetaData(),
    sa.Column("grant_id", sa.String(80), primary_key=True),
    sa.Column("target", sa.String(200), primary_key=True),
    sa.Column("position", sa.String(1000), nullable=False),
    comment="How far each table is in what its grant delivers; written with the rows, by pool-connect",
)
_AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)


class SqlSink:
    """One table of one grant; see the module."""

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
        """Connect later, at the first call.

        Args:
            url: of the database.
            table: `table` or `schema.table`.
            grant_id: whose records it holds.
            create_table: make it if it is not there.
            add_columns: add columns for fields that the view has got since.
            hard_deletes: delete withdrawn records instead of marking them.
            native_upsert: use the database's own upsert where it is known.
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

    def prepare(self, schema: pa.Schema) -> None:
        """Make sure that table and columns are there; see `connectors.port.Sink`."""
        with self._reaching():
            _POSITIONS.metadata.create_all(self._engine)
            inspector = sa.inspect(self._engine)
            if not inspector.has_table(self._name, schema=self._schema):
                if not self._create:
                    raise ConflictError(
                        Reason.CONTRACT_BROKEN,
                        f"the table {self._target} is not there; make it, or set `create_table: true`",
                    )
                self._described(schema).create(self._engine)
            inspector.clear_cache()
            present = {column["name"] for column in inspector.get_columns(self._name, schema=self._schema)}
            table = self._described(schema)
            missing = [column for column in table.columns if column.name not in present]
            if missing:
                self._extend(missing)
            self._table = table

    def position(self) -> bytes:
        """Return how far the target is; see `connectors.port.Sink`."""
        with self._reaching(), self._engine.connect() as connection:
            return self._stored(connection)

    def write(self, delivered: Delivered, before: bytes, after: bytes, set_aside: SetAside) -> Written:
        """Store records and position in one transaction; see `connectors.port.Sink`."""
        if self._table is None:
            raise InvalidError(Reason.INTERNAL, "the sink was not prepared for the view's schema")
        rows, gone, stale = _fold(delivered, _plain(delivered.records))
        with self._reaching(), self._engine.begin() as connection:
            self._move(connection, before, after)
            reached("between_rows_and_position")
            refused = self._upsert(connection, self._table, rows)
            withdrawn = self._withdraw(connection, self._table, gone)
            if refused:
                set_aside(refused)
        return Written(upserted=len(rows) - len(refused), withdrawn=withdrawn, stale=stale, refused=refused)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- position ----------------------------------------------------------------------------------------------

    def _stored(self, connection: sa.Connection) -> bytes:
        found = connection.execute(sa.select(_POSITIONS.c.position).where(*self._mine())).scalar_one_or_none()
        return base64.b64decode(found) if found else b""

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return (_POSITIONS.c.grant_id == self._grant, _POSITIONS.c.target == self._target)

    def _move(self, connection: sa.Connection, before: bytes, after: bytes) -> None:
        told = base64.b64encode(after).decode()
        if before:
            changed = connection.execute(
                sa.update(_POSITIONS)
                .where(*self._mine(), _POSITIONS.c.position == base64.b64encode(before).decode())
                .values(position=told)
            ).rowcount
        else:
            try:
                with connection.begin_nested():
                    connection.execute(
                        sa.insert(_POSITIONS).values(grant_id=self._grant, target=self._target, position=told)
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
    ) -> list[Undelivered]:
        refused: list[Undelivered] = []
        for start in range(0, len(rows), _CHUNK):
            refused += self._attempt(connection, table, rows[start : start + _CHUNK])
        return refused

    def _attempt(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> list[Undelivered]:
        """Write the rows; if the database refuses one, halve them until it is alone."""
        try:
            with connection.begin_nested():
                self._apply(connection, table, [row for _, row in rows])
        except (sa.exc.IntegrityError, sa.exc.DataError, ValueError) as error:  # ValueError: a NUL in a text
            if len(rows) > 1:
                middle = len(rows) // 2
                return [
                    *self._attempt(connection, table, rows[:middle]),
                    *self._attempt(connection, table, rows[middle:]),
                ]
            return [_undelivered(rows[0][0], error)]
        return []

    def _apply(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._native:
            for row in rows:
                _replace(connection, table, row)
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

    def _withdraw(self, connection: sa.Connection, table: sa.Table, gone: Mapping[str, int]) -> int:
        key = sa.bindparam("gone_key", type_=sa.String)
        at = sa.bindparam("gone_at", type_=sa.BigInteger)
        where = (table.c[KEY] == key, table.c[RECORDED_AT] <= at)
        statement: sa.Update | sa.Delete = sa.update(table).where(*where).values({RECORDED_AT: at, DELETED_AT: at})
        if self._hard:
            statement = sa.delete(table).where(*where)
        if gone:
            connection.execute(statement, [{"gone_key": each, "gone_at": moment} for each, moment in gone.items()])
        return len(gone)

    # -- the table ---------------------------------------------------------------------------------------------

    def _described(self, schema: pa.Schema) -> sa.Table:
        columns = [_column(field) for field in schema]
        return sa.Table(self._name, sa.MetaData(), *_own_columns(), *columns, schema=self._schema)

    def _extend(self, missing: Sequence[sa.Column[Any]]) -> None:
        names = ", ".join(str(column.name) for column in missing)
        if not self._add or any(column.name in _OWN for column in missing):
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
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except _AWAY as error:
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
    """Let SQLAlchemy begin SQLite's transactions.

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


def _plain(records: pa.RecordBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = records.to_pylist()
    return rows


def _fold(
    delivered: Delivered, values: Sequence[dict[str, Any]]
) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, int], int]:
    """Keep the last word on each key: rows to write with their places, withdrawals, and the number of earlier words."""
    rows: dict[str, tuple[int, dict[str, Any]]] = {}
    gone: dict[str, int] = {}
    stale = 0
    records = iter(values)
    for index, (key, moment, withdrawn) in enumerate(
        zip(delivered.keys, delivered.recorded_at, delivered.withdrawn, strict=True)
    ):
        text = key.hex()
        stale += (text in rows) + (text in gone)
        rows.pop(text, None)
        gone.pop(text, None)
        if withdrawn:
            gone[text] = moment
        else:
            row = {name: _storable(value) for name, value in next(records).items()}
            rows[text] = (index, {KEY: text, RECORDED_AT: moment, DELETED_AT: None, **row})
    return list(rows.values()), gone, stale


def _storable(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map's entries
        return dict(value)
    return value


def _replace(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    mine = table.c[KEY] == row[KEY]
    stored = connection.execute(sa.select(table.c[RECORDED_AT]).where(mine)).scalar_one_or_none()
    if stored is None:
        connection.execute(sa.insert(table).values(dict(row)))
    elif stored <= row[RECORDED_AT]:
        connection.execute(sa.update(table).where(mine).values(dict(row)))


def _undelivered(index: int, error: Exception) -> Undelivered:
    code = RejectCode.TARGET_REJECTED
    if isinstance(error, sa.exc.IntegrityError):
        code = RejectCode.TARGET_CONSTRAINT
    elif isinstance(error, (sa.exc.DataError, ValueError)):
        code = RejectCode.TARGET_TYPE
    kind = type(error.orig).__name__ if isinstance(error, sa.exc.DBAPIError) else type(error).__name__
    return Undelivered(index=index, code=code, message=f"the target refused it ({kind})")

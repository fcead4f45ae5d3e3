"""Columns of a target table: which SQL type holds a field of the view, beside the three columns of the sink's own."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from typing_extensions import override

__all__ = ["DELETED_AT", "KEY", "OWN_COLUMNS", "RECORDED_AT", "column_for", "own_columns"]

KEY, RECORDED_AT, DELETED_AT = "_record_key", "_recorded_at", "_deleted_at"
OWN_COLUMNS = (KEY, RECORDED_AT, DELETED_AT)


class ExactNumeric(sa.types.TypeDecorator[Decimal]):
    """Decimal that no database rounds: text in SQLite, and in MySQL beyond 65 digits or 30 places."""

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, precision: int, scale: int) -> None:
        super().__init__(precision, scale)
        self.digits, self.places = precision, scale

    @override
    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if self._as_text(dialect) else sa.Numeric(self.digits, self.places))

    @override
    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        return format(value, "f") if value is not None and self._as_text(dialect) else value

    @override
    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        if value is None or isinstance(value, Decimal):
            return value
        return Decimal(repr(value) if isinstance(value, float) else str(value))

    def _as_text(self, dialect: sa.Dialect) -> bool:
        if dialect.name in ("mysql", "mariadb"):
            return self.digits > 65 or self.places > 30
        return dialect.name == "sqlite"


def own_columns() -> list[sa.Column[Any]]:
    """Return the columns that every target has."""
    return [
        sa.Column(KEY, sa.String(32), primary_key=True),
        sa.Column(RECORDED_AT, sa.BigInteger, nullable=False),
        sa.Column(DELETED_AT, sa.BigInteger),
    ]


def column_for(field: pa.Field) -> sa.Column[Any]:
    """Return the column of a field. All are nullable: a withdrawal may be the first that arrives of a record."""
    return sa.Column(field.name, _sql_type(field.type))


def _sql_type(arrow: pa.DataType) -> sa.types.TypeEngine[Any]:
    if pa.types.is_decimal(arrow):
        return ExactNumeric(arrow.precision, arrow.scale)
    for test, kind in (
        (pa.types.is_boolean, sa.Boolean()),
        (pa.types.is_int32, sa.Integer()),
        (pa.types.is_int64, sa.BigInteger()),
        (pa.types.is_floating, sa.Double()),
        (pa.types.is_date, sa.Date()),
        (pa.types.is_time, sa.Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb")),
        (pa.types.is_binary, sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")),
        (pa.types.is_fixed_size_binary, sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")),
    ):
        if test(arrow):
            return kind
    if pa.types.is_timestamp(arrow):
        plain = sa.DateTime(timezone=arrow.tz is not None)
        return plain.with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    if pa.types.is_nested(arrow) and not pa.types.is_dictionary(arrow):
        return sa.JSON()
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")

"""Columns of a target table: which SQL type holds a field of the view, beside the three columns of the sink's own."""

from typing import Any

import pyarrow as pa
import sqlalchemy as sa

__all__ = ["DELETED_AT", "KEY", "OWN_COLUMNS", "RECORDED_AT", "column_for", "own_columns"]

KEY, RECORDED_AT, DELETED_AT = "_record_key", "_recorded_at", "_deleted_at"
OWN_COLUMNS = (KEY, RECORDED_AT, DELETED_AT)


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

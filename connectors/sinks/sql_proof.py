"""Proof of what a table stores: the records that were just written are read back and compared with what was given.

A database may store something else without an error: it rounds a number to the column's scale or to a double, cuts the
fraction of a second, replaces a character. Such a record is set aside, with its column, and its write undone.

    PostgreSQL   columns that hold every value of their field (`holds_exactly`) need no proof; the table that the sink
                 makes has no others
    others       every column is read back

Equal is what means the same: a number whatever its type, a time in whatever offset, a text whose type is another's.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from connectors.port import DecodedRelease, RejectCode, RejectedRecord
from connectors.sinks.latest_records import LatestRecords, values_of
from connectors.sinks.sql_schema import KEY, RECORDED_AT

__all__ = ["Proof", "holds_exactly", "same_value"]

_CHUNK = 500  # rows of one statement
_RAW_DIALECTS = frozenset({"postgresql", "mysql", "mariadb"})  # of which the driver's own values are compared
_QUARTER, _MOST = timedelta(minutes=15), timedelta(hours=14)  # offsets from UTC


class Proof:
    """Reads back the columns of a table that need it."""

    def __init__(
        self, table: sa.Table, stored: Mapping[str, Any], schema: pa.Schema, dialect: str, *, everything: bool = False
    ) -> None:
        """Choose the columns.

        Args:
            table: as it is written to.
            stored: the columns that the database has: name → type.
            schema: of the view.
            dialect: of the database.
            everything: read back the columns that hold every value, too: somebody else may have written to them.
        """
        self._table = table
        self._stored = dict(stored)
        self._raw = dialect in _RAW_DIALECTS
        self.names = [
            field.name
            for field in schema
            if everything or dialect != "postgresql" or not holds_exactly(self._stored.get(field.name), field.type)
        ]

    def find_changed(
        self, connection: sa.Connection, release: DecodedRelease, latest: LatestRecords
    ) -> list[RejectedRecord]:
        """Return the records of which the table now holds something else, with the first such field."""
        rows, _ = values_of(release.records.select(self.names), latest.rows, latest.indexes)
        given = {
            release.keys[index].hex(): (index, release.recorded_at[index], row)
            for index, row in zip(latest.indexes.tolist(), rows, strict=True)
            if row is not None
        }
        changed: list[RejectedRecord] = []
        keys = list(given)
        columns = [self._selected(name).label(f"c{at}") for at, name in enumerate(self.names)]
        for start in range(0, len(keys), _CHUNK):
            page = self._table.c[KEY].in_(keys[start : start + _CHUNK])
            for found in connection.execute(
                sa.select(self._table.c[KEY], self._table.c[RECORDED_AT], *columns).where(page)
            ):
                index, recorded_at, row = given[found[0]]
                if found[1] != recorded_at:  # a later record was there before
                    continue
                for name, value in zip(self.names, found[2:], strict=True):
                    if not same_value(row[name], value):
                        kind = str(self._stored.get(name, "")).partition("(")[0]
                        message = f"the target stored another value: its column {name} is of the type {kind}"
                        changed.append(
                            RejectedRecord(index=index, code=RejectCode.TARGET_TYPE, field=name, message=message)
                        )
                        break
        return changed

    def _selected(self, name: str) -> Any:
        column = self._table.c[name]
        if not self._raw:
            return column
        raw = sa.type_coerce(column, sa.types.NullType())
        # MySQL writes a FLOAT in six digits: as a double it shows what is stored.
        single = isinstance(self._stored.get(name), sa.FLOAT) and not isinstance(self._stored[name], postgresql.FLOAT)
        return raw + sa.literal_column("0e0") if single else raw


def holds_exactly(column: Any, arrow: pa.DataType) -> bool:  # noqa: PLR0911 - one line a type
    """Return whether a column of PostgreSQL holds every value of a field, or refuses it with an error."""
    precision, scale = getattr(column, "precision", None), getattr(column, "scale", None) or 0
    whole = isinstance(column, sa.Numeric) and not isinstance(column, sa.Float)
    if pa.types.is_boolean(arrow):
        return isinstance(column, sa.Boolean)
    if pa.types.is_integer(arrow):
        digits = 10 if arrow.bit_width == 32 else 19
        return isinstance(column, sa.Integer) or (whole and (precision is None or precision - scale >= digits))
    if pa.types.is_floating(arrow):
        return isinstance(column, (postgresql.DOUBLE_PRECISION, sa.Double))
    if pa.types.is_decimal(arrow):
        room = precision is None or (scale >= arrow.scale and precision - scale >= arrow.precision - arrow.scale)
        return whole and room
    if pa.types.is_date(arrow):
        return isinstance(column, sa.Date)
    if pa.types.is_time(arrow) or pa.types.is_timestamp(arrow):
        kind = sa.Time if pa.types.is_time(arrow) else sa.DateTime
        zoned = pa.types.is_timestamp(arrow) and arrow.tz is not None
        return isinstance(column, kind) and precision in (None, 6) and bool(column.timezone) is zoned
    if pa.types.is_binary(arrow) or pa.types.is_fixed_size_binary(arrow):
        return isinstance(column, sa.LargeBinary)
    if pa.types.is_nested(arrow) and not pa.types.is_dictionary(arrow):
        return isinstance(column, sa.JSON)
    return isinstance(column, sa.String) and not isinstance(column, sa.CHAR)


def same_value(given: Any, stored: Any) -> bool:  # noqa: PLR0911 - one line a type
    """Return whether a stored value means what was given."""
    if given is None or stored is None:
        return given is stored
    if isinstance(stored, memoryview):
        stored = bytes(stored)
    if isinstance(given, (dict, list, tuple)):
        return bool(_json(given) == _json(stored))
    if isinstance(given, bool) or isinstance(stored, bool):
        return str(int(given)) == str(int(stored) if isinstance(stored, bool) else stored)
    if isinstance(given, datetime):
        return _same_moment(given, stored)
    if isinstance(given, (date, time)):
        return _same_clock(given, stored)
    if isinstance(given, float):
        return given == stored or (given != given and stored != stored) or _number(stored) == Decimal(repr(given))  # noqa: PLR0124 - NaN
    if isinstance(given, (int, Decimal)):
        return _number(stored) == given
    if isinstance(given, str) and not isinstance(stored, str):
        return given in (str(stored), getattr(stored, "isoformat", lambda: None)())
    return bool(given == stored or (isinstance(given, str) and stored == given.rstrip(" ").ljust(len(stored))))


def _number(stored: Any) -> Decimal | None:
    try:
        return Decimal(repr(stored) if isinstance(stored, float) else str(stored))
    except InvalidOperation:
        return None


def _json(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return json.loads(value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], tuple):  # a map's entries
        value = dict(value)
    return json.loads(json.dumps(value, default=str))


def _same_moment(given: datetime, stored: Any) -> bool:
    if isinstance(stored, str):
        try:
            stored = datetime.fromisoformat(stored)
        except ValueError:
            return False
    if not isinstance(stored, datetime):
        return isinstance(stored, date) and given.replace(tzinfo=None) == datetime(*stored.timetuple()[:3])  # noqa: DTZ001
    if (given.tzinfo is None) is (stored.tzinfo is None):
        return given == stored
    # A column without a zone holds the time of the session's, and one with a zone takes it for that.
    difference = given.astimezone(UTC).replace(tzinfo=None) if given.tzinfo else given
    apart = (stored.astimezone(UTC).replace(tzinfo=None) if stored.tzinfo else stored) - difference
    return abs(apart) <= _MOST and apart % _QUARTER == timedelta()


def _same_clock(given: date | time, stored: Any) -> bool:
    if isinstance(stored, timedelta) and isinstance(given, time):
        seconds = given.hour * 3600 + given.minute * 60 + given.second
        return stored == timedelta(seconds=seconds, microseconds=given.microsecond)
    if isinstance(stored, datetime):
        return stored.time() == time() and stored.date() == given if isinstance(given, date) else False
    return bool(given == stored) or given.isoformat() == str(stored)

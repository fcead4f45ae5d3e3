"""Rows that changed since the last pass, by a cursor column, as a snapshot source: `mode: incremental`.

    first run                the table whole, from a position that was noted before it is read
    each poll                SELECT … WHERE position <= cursor AND cursor < horizon ORDER BY cursor, key
    when it is due           the table whole again (reconciliation): finds what no cursor tells, deleted rows above all

A cursor is the time of a row's transaction, set by the database. **A transaction that commits late** shows a time that
has been read already. So rows are read up to a horizon only, before which no transaction is open
(`connectors.sources.postgres.horizon`), and the horizon is the next position: an interval of the cursor is read when it
is final. A horizon may go back, with a clock that was set back or a local time that comes twice; then the position goes
back with it, and rows are read twice, of which the ledger knows that they are unchanged.

Where the horizon cannot be known (another database, a standby, a missing right, a cursor that the application sets, a
number), each poll reads an **overlap** again, from so much before the greatest cursor. What commits later than that,
the reconciliation finds. The position is never ahead of the clock: one row of the year 2099 would end all reading, and
so would one whose number is NaN or infinite.

Rows with a null cursor, deleted rows, changes that leave the cursor as it is, and keys that changed are found by the
reconciliation alone.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement
from typing_extensions import override

from connectors.port import Portion, SnapshotSource
from connectors.sources.cursor_values import decode_value, encode_value, subtract
from connectors.sources.notes import Notes
from connectors.sources.postgres.horizon import Horizon, NoHorizon, read_horizon
from connectors.sources.sql_table import SqlSource
from connectors.sources.table_portion import TablePortion, translate_errors
from schemas.errors import InvalidError, Reason

__all__ = ["CursorSettings", "IncrementalSource", "IsDue", "find_horizon", "overlap_text"]

_RECONCILED = "cursor_reconciled"
_FRACTIONS = (sa.Numeric, sa.Float)
_NUMBERS = (sa.Integer, *_FRACTIONS)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

IsDue: TypeAlias = Callable[[datetime | None, datetime], bool]
"""When the last reading of the whole table began, and now → whether the next is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorSettings:
    """How changed rows are told.

    Attributes:
        column: set at each change of a row.
        whole: when the table is read whole; None = never, after the first run.
        set_by_database: by its clock, as `now()` does: a horizon is a safe end.
        timezone: in which the database writes it, where its type has none.
        overlap: seconds (of a number: units) that are read again where the horizon is not known.
        scope: which rows these are; others are read whole first.
    """

    column: str
    whole: IsDue | None
    set_by_database: bool = True
    timezone: str = ""
    overlap: float = 1800.0
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """Up to where the rows are published. `value` as `encode_value` writes it; null is the beginning."""

    scope: str
    by_horizon: bool
    value: str

    def render(self) -> str:
        return json.dumps([self.scope, self.by_horizon, self.value])

    @classmethod
    def parse(cls, text: str, scope: str) -> "_Position | None":
        if not text:
            return None
        found, by_horizon, value = json.loads(text)
        return cls(scope=found, by_horizon=by_horizon, value=value) if found == scope else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """Up to where a poll reads: before `before`, or up to `upto`; the position after it."""

    position: _Position
    condition: ColumnElement[bool] | None


class IncrementalSource(SnapshotSource):
    """One table, view or query; a poll is at most two portions."""

    def __init__(
        self,
        source: SqlSource,
        settings: CursorSettings,
        notes: Notes,
        *,
        clock: Callable[[], datetime],
        notify: Callable[[str], None] = lambda _: None,
        fresh: bool = False,
    ) -> None:
        """Configure.

        Args:
            source: of the table.
            settings: see there.
            notes: of this publication.
            clock: of this machine, for the schedule.
            notify: told what a person should know.
            fresh: read the table whole now.
        """
        self._source = source
        self._settings = settings
        self._notes = notes
        self._clock = clock
        self._notify = notify
        self._fresh = fresh
        self._told = ""

    @override
    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        table = self._source.open()
        scope = f"{fingerprint.hex()} {table.name} {self._settings.column} {self._settings.scope}"
        with translate_errors(table.name):
            end = self._end(table, scope)
        position = _Position.parse(self._notes.meta("cursor_position"), scope)
        if position is None or self._fresh or self._is_due():
            # What changes while the table is read is read again from here. A pass that is begun again keeps it.
            before = _Position.parse(self._notes.meta("cursor_pending"), scope) or end.position
            self._notes.set_meta(cursor_pending=before.render())
            begun = self._clock()
            yield table.confirming(lambda: self._confirm_whole(before, begun))
            position = _Position.parse(self._notes.meta("cursor_position"), scope)
            if position is None or self._notes.meta("cursor_pending"):
                return
        with translate_errors(table.name):
            conditions = self._conditions(table, position, end)
            found = conditions is not None and self._any(table, conditions)
        if conditions is None or not found:
            self._confirm(end.position if end.condition is not None else position)
            return
        yield table.between(self._settings.column, conditions, lambda: self._confirm(end.position))

    @override
    def close(self) -> None:
        self._source.close()

    def _is_due(self) -> bool:
        last = self._notes.meta(_RECONCILED)
        due = self._settings.whole
        return due is not None and due(datetime.fromisoformat(last) if last else None, self._clock())

    def _confirm(self, position: _Position) -> None:
        self._notes.set_meta(cursor_position=position.render())

    def _confirm_whole(self, position: _Position, begun: datetime) -> None:
        self._fresh = False
        self._notes.set_meta(
            cursor_position=position.render(),
            cursor_pending="",
            cursor_reconciled=begun.isoformat(timespec="seconds"),
        )

    # -- the end of what is read -------------------------------------------------------------------------------

    def _end(self, table: TablePortion, scope: str) -> _End:
        cursor = table.column(self._settings.column)
        found = find_horizon(table, self._settings)
        if isinstance(found, NoHorizon):
            self._tell_overlap(table, found)
            return self._greatest(table, cursor, scope)
        self._notes.set_meta(
            cursor_way="safe horizon", cursor_waiting=f"horizon held by {found.held_by}" if found.held_by else ""
        )
        if not found.at:
            return _End(position=_Position(scope=scope, by_horizon=True, value="null"), condition=None)
        position = _Position(scope=scope, by_horizon=True, value=encode_value(found.at))
        return _End(position=position, condition=cursor < table.literal(cursor, found.at))

    def _tell_overlap(self, table: TablePortion, found: NoHorizon) -> None:
        if self._settings.whole is None:
            grant = f", or as a superuser: {found.statement}" if found.statement else ""
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{table.name}: {found.why}; then `deletes: {{ detect: false }}` would leave rows unpublished that "
                f"commit late. Write `detect: true`{grant}",
            )
        begin = overlap_text(table.column(self._settings.column).type, self._settings.overlap)
        told = f"{found.why}; each poll reads again from {begin} the last cursor"
        self._notes.set_meta(cursor_way=told, cursor_waiting="")
        if told != self._told:
            self._told = told
            self._notify(f"{told}. {found.statement}".strip())

    def _greatest(self, table: TablePortion, cursor: ColumnElement[Any], scope: str) -> _End:
        """Return the end at the greatest cursor; the position is not ahead of the clock, and no infinite number."""
        with table.engine.connect() as connection:
            last = connection.execute(table.select(table.bound(sa.func.max(cursor)))).scalar()
            safe = last
            if isinstance(cursor.type, sa.DateTime | sa.Date):
                now = _now(cursor, table.engine.dialect.name, self._settings.timezone)
                safe = connection.execute(table.select(table.bound(sa.func.max(cursor))).where(cursor <= now)).scalar()
            elif isinstance(cursor.type, _FRACTIONS) and table.engine.dialect.name == "postgresql":
                # There NaN is the greatest number. As text: not every type or version has a number "Infinity".
                finite = sa.cast(cursor, sa.Text).not_in(["NaN", "Infinity"])
                safe = connection.execute(table.select(table.bound(sa.func.max(cursor))).where(finite)).scalar()
        position = _Position(scope=scope, by_horizon=False, value=encode_value(safe))
        return _End(position=position, condition=None if last is None else cursor <= table.literal(cursor, last))

    def _conditions(self, table: TablePortion, position: _Position, end: _End) -> Sequence[ColumnElement[bool]] | None:
        """Return what the rows of this poll fulfil; None where there is nothing to read."""
        if end.condition is None:
            return None
        cursor, value = table.column(self._settings.column), decode_value(position.value)
        if value is None:
            return [end.condition]
        if position.by_horizon and end.position.by_horizon:
            begin = table.literal(cursor, value)
            until = table.literal(cursor, decode_value(end.position.value))
            with table.engine.connect() as connection:
                went_back = connection.execute(sa.select(until <= begin)).scalar_one()
            return None if went_back else [cursor >= begin, end.condition]
        if table.engine.dialect.name != "postgresql":
            return [cursor >= table.literal(cursor, subtract(value, self._settings.overlap)), end.condition]
        overlap: Any = self._settings.overlap
        if isinstance(cursor.type, sa.DateTime | sa.Date):
            overlap = sa.func.make_interval(0, 0, 0, 0, 0, 0, overlap)
        elif isinstance(cursor.type, sa.Integer):
            overlap = int(overlap)
        elif not isinstance(cursor.type, _NUMBERS):
            subtract(None, 0)
        return [cursor >= table.literal(cursor, value) - overlap, end.condition]

    def _any(self, table: TablePortion, conditions: Sequence[ColumnElement[bool]]) -> bool:
        with table.engine.connect() as connection:
            return connection.execute(table.select(sa.literal(1)).where(*conditions).limit(1)).first() is not None


def find_horizon(table: TablePortion, settings: CursorSettings) -> Horizon | NoHorizon:
    """Return the horizon of a table's database in the cursor's form, or why it cannot be known.

    Raises:
        SQLAlchemyError: the database is away.
    """
    kind, dialect = table.column(settings.column).type, table.engine.dialect.name
    if not settings.set_by_database:
        return NoHorizon(why=f"{settings.column} is set by the application, whose clock says nothing of commits")
    if dialect != "postgresql":
        return NoHorizon(why=f"in {dialect} the beginning of open transactions is not known")
    if not isinstance(kind, sa.DateTime):
        return NoHorizon(why=f"{settings.column} is no time, so a transaction that commits late is not known")
    if kind.timezone:
        return read_horizon(table.engine, None)
    if settings.timezone:
        return read_horizon(table.engine, settings.timezone)
    return NoHorizon(
        why=f"{settings.column} has no time zone; name the one in which the database writes it, `cursor_timezone:`"
    )


def overlap_text(kind: sa.types.TypeEngine[Any], overlap: float) -> str:
    """Return where a poll with an overlap begins, of the last cursor: "30 min before", or of a number "1,800 below"."""
    if isinstance(kind, _NUMBERS):
        return f"{overlap:,.15g} below"
    seconds, unit = next((each for each in _UNITS if overlap and overlap % each[0] == 0), _UNITS[-1])
    return f"{overlap / seconds:,.15g} {unit} before"


def _now(cursor: ColumnElement[Any], dialect: str, timezone: str) -> ColumnElement[Any]:
    """Return the database's clock; where the cursor's time zone is not known, that of the earliest one (UTC+14)."""
    if dialect == "postgresql":
        if getattr(cursor.type, "timezone", False):
            return sa.func.clock_timestamp()
        if timezone:
            return sa.func.timezone(timezone, sa.func.clock_timestamp())
        return sa.func.timezone("UTC", sa.func.clock_timestamp()) + sa.func.make_interval(0, 0, 0, 0, 14)
    if dialect == "sqlite":
        return sa.func.datetime("now", "+14 hours")
    if dialect in ("mysql", "mariadb"):
        return sa.literal_column("(UTC_TIMESTAMP() + INTERVAL 14 HOUR)")
    return sa.func.current_timestamp()

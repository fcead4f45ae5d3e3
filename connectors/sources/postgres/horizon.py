"""Safe horizon of a PostgreSQL database: every transaction that began before it has ended, and so can be seen.

`now()` is the time at which a transaction began, and its rows are seen when it has committed. So a reader that goes on
from the latest time that it saw loses the rows of a transaction that commits late. It reads up to the horizon instead:

    1. the clock
    2. then the beginning of the oldest transaction that is open     pg_stat_activity
    3. then the transactions that are prepared and wait              pg_prepared_xacts, without their beginning
    4. then, in a snapshot that is taken afterwards, the rows before the horizon

The order matters, and each is a statement of its own. Within one REPEATABLE READ transaction the rows would be of a
moment before the activity was read: a transaction that commits in between would be in neither. A transaction that is
prepared between 2 and 3 is seen by one of them at least.

The horizon is `MARGIN` earlier, since a session publishes its beginning an instant after it took it.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

__all__ = ["MARGIN", "Horizon", "NoHorizon", "read_horizon"]

MARGIN = 5  # seconds
_LONG = 60.0  # seconds after which an open transaction is worth a word
_STATE = """
SELECT CAST(clock_timestamp() AS text), pg_is_in_recovery(), pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       current_user
"""
# A vacuum has a transaction, and writes no rows.
_OLDEST = """
SELECT CAST(xact_start AS text), pid, usename,
       extract(epoch FROM clock_timestamp() - xact_start)::float8
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
  AND backend_type IS DISTINCT FROM 'autovacuum worker'
ORDER BY xact_start LIMIT 1
"""
_PREPARED = """
SELECT count(*), min(owner), coalesce(extract(epoch FROM clock_timestamp() - min(prepared))::float8, 0)
FROM pg_prepared_xacts WHERE database = current_database()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """A horizon.

    Attributes:
        at: the server's text of it, in the cursor's type; empty while a prepared transaction holds it where it was.
        held_by: who holds it back for long; empty where nobody does.
    """

    at: str
    held_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoHorizon:
    """Why it cannot be known, and the statement that changes that, if there is one."""

    why: str
    statement: str = ""


def read_horizon(engine: sa.Engine, timezone: str | None) -> Horizon | NoHorizon:
    """Read the horizon; the rows before it are to be read by a later statement.

    Args:
        engine: of the database.
        timezone: in which a cursor without a time zone is written; None where the cursor has one.

    Raises:
        SQLAlchemyError: the database is away, or knows no such time zone.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        clock, standby, permitted, user = connection.exec_driver_sql(_STATE).one()
        if standby:
            return NoHorizon(why="this server is a standby, which does not know the transactions of its primary")
        if not permitted:
            name = '"' + user.replace('"', '""') + '"'
            return NoHorizon(
                why=f"{user} has no right to see when other sessions' transactions began: late commits could be missed",
                statement=f"GRANT pg_read_all_stats TO {name};",
            )
        oldest = connection.exec_driver_sql(_OLDEST).first()
        prepared, owner, waiting = connection.exec_driver_sql(_PREPARED).one()
        if prepared:
            who = f"{prepared} prepared transactions, the first by {owner} {_age(waiting)} ago; see pg_prepared_xacts"
            return Horizon(at="", held_by=who)
        return Horizon(at=_subtract(connection, clock, oldest, timezone), held_by=_holder(oldest))


def _subtract(connection: sa.Connection, clock: str, oldest: Any, timezone: str | None) -> str:
    """Return the earlier one of clock and beginning, less the margin; computed by the server, in microseconds."""
    moment: sa.ColumnElement[Any] = sa.cast(sa.literal(clock, sa.Text), sa.TIMESTAMP(timezone=True))
    if oldest is not None:
        moment = sa.func.least(moment, sa.cast(sa.literal(oldest[0], sa.Text), sa.TIMESTAMP(timezone=True)))
    moment = moment - sa.func.make_interval(0, 0, 0, 0, 0, 0, MARGIN)
    if timezone is not None:
        moment = sa.func.timezone(timezone, moment)
    return str(connection.execute(sa.select(sa.cast(moment, sa.Text))).scalar_one())


def _holder(oldest: Any) -> str:
    if oldest is None or oldest[3] < _LONG:
        return ""
    return f"session {oldest[1]} of {oldest[2]}, whose transaction has been open for {_age(oldest[3])}"


def _age(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes else f"{int(seconds)} s"

"""Error translation for PostgreSQL adapters: what the driver raises, as the errors of the pool."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import psycopg2
from psycopg2 import errors
from sqlalchemy import exc as sa_exc

from schemas.errors import Reason, UnavailableError

__all__ = ["DriverError", "connection_failure", "never_committed", "sqlstate", "translated_errors", "unavailable"]

# SQLSTATE codes and classes: PostgreSQL's documentation, appendix A.
_DISK_FULL = "53100"
_INSUFFICIENT_RESOURCES = "53"  # class: too many connections, out of memory
_READ_ONLY = "25006"  # read_only_sql_transaction: the server has become, or still is, a standby
_CONNECTION_LOST = ("57P", "08")  # operator intervention (shutdown, crash); class: connection exception
_CONNECTION_ERRORS = (
    sa_exc.OperationalError,
    sa_exc.InterfaceError,
    sa_exc.DisconnectionError,
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
)

DriverError: TypeAlias = sa_exc.SQLAlchemyError | psycopg2.Error
"""SQLAlchemy's error, or psycopg2's own where its cursor is used directly (COPY)."""


def unavailable(error: DriverError) -> Exception:
    """Return the UnavailableError for an error that circumstances cause; the same error if it is a defect.

    DISK_FULL: no space; OVERLOADED: no connection, or no memory; DATABASE_UNAVAILABLE: not reachable, or read-only.
    """
    code = sqlstate(error)
    if code == _DISK_FULL:
        return UnavailableError(Reason.DISK_FULL, "PostgreSQL has no room left; nothing was stored", retry_after=10.0)
    if code.startswith(_INSUFFICIENT_RESOURCES):
        return UnavailableError(
            Reason.OVERLOADED, f"PostgreSQL is at its limit (SQLSTATE {code}); nothing was stored", retry_after=1.0
        )
    if code == _READ_ONLY:
        return UnavailableError(
            Reason.DATABASE_UNAVAILABLE,
            "PostgreSQL takes no writes at this moment, as after a failover; nothing was stored",
            retry_after=1.0,
        )
    if isinstance(error, sa_exc.TimeoutError):
        return UnavailableError(
            Reason.OVERLOADED, "every connection to PostgreSQL is in use; try again", retry_after=1.0
        )
    lost = isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated
    if lost or code.startswith(_CONNECTION_LOST) or isinstance(error, _CONNECTION_ERRORS):
        return UnavailableError(
            Reason.DATABASE_UNAVAILABLE, "PostgreSQL does not answer; nothing was stored", retry_after=1.0
        )
    return error


@contextmanager
def translated_errors(translate: Callable[[DriverError], Exception] = unavailable) -> Iterator[None]:
    """Translate the driver's errors that leave the block: the error firewall of an adapter.

        with translated_errors():
            cursor.copy_expert(…)

    It is a decorator as well.

    Args:
        translate: returns the error of the port for one of the driver, or the same error where that is a defect.
    """
    try:
        yield
    except (sa_exc.SQLAlchemyError, psycopg2.Error) as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error


def never_committed(error: sa_exc.DBAPIError) -> bool:
    """Return whether an error of a commit proves that nothing was committed; False = the outcome is unknown.

    A server that answers a commit with an error and keeps the connection has rolled back. One that goes away, or whose
    answer is lost, may have committed before.
    """
    if isinstance(error.orig, errors.InFailedSqlTransaction):
        return True
    code = sqlstate(error)
    return bool(code) and not error.connection_invalidated and not code.startswith(_CONNECTION_LOST)


def sqlstate(error: DriverError) -> str:
    """Return the server's SQLSTATE code of an error, empty if it has none."""
    original = error.orig if isinstance(error, sa_exc.DBAPIError) else error
    return getattr(original, "pgcode", None) or ""


def connection_failure(error: BaseException) -> str:
    """Return why an attempt to connect failed, on one line; empty for every other error.

    For the operator's log alone, since it names hosts and roles. It holds no password, and no values: there is no
    statement yet. Before a connection exists the driver gives no SQLSTATE, so a wrong password looks like a server
    that is not reachable; this text tells them apart.
    """
    cause = error.__cause__
    if isinstance(cause, sa_exc.OperationalError) and cause.statement is None and not sqlstate(cause):
        return " ".join(str(cause.orig).split())
    return ""

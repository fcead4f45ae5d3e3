"""Connections to PostgreSQL by psycopg2: for statements, and for the replication protocol.

Every session writes dates, times, numbers and bytes in the same form, whatever the server's settings are: the log and a
snapshot have to give the same texts. The driver is loaded when it is needed: it is an extra of the package.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError, UnavailableError

__all__ = ["format_lsn", "open_replication", "open_sql", "parse_lsn", "quote", "translate_errors"]

_SETTINGS = {
    "datestyle": "ISO,YMD",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "client_encoding": "UTF8",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",  # a snapshot is open as long as its tables are published
}


def open_sql(url: sa.URL) -> Any:
    """Open a connection for statements, each its own transaction."""
    connection = _driver().connect(**_parameters(url), application_name="pool-connect")
    connection.autocommit = True
    return connection


def open_replication(url: sa.URL) -> Any:
    """Open a connection of the replication protocol."""
    driver = _driver()
    from psycopg2.extras import LogicalReplicationConnection  # noqa: PLC0415 - see above

    return driver.connect(
        **_parameters(url),
        application_name="pool-connect changes",
        connection_factory=LogicalReplicationConnection,
    )


def _driver() -> Any:
    try:
        import psycopg2  # noqa: PLC0415 - see above
    except ImportError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, "the driver of PostgreSQL is not installed; install exchange-pool[postgresql]"
        ) from error
    return psycopg2


def _parameters(url: sa.URL) -> dict[str, Any]:
    url = url.set(drivername="postgresql+psycopg2")
    _, parameters = url.get_dialect()().create_connect_args(url)
    settings = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    given = parameters.pop("options", "")
    return {"connect_timeout": 20, "keepalives_idle": 30, **parameters, "options": f"{given} {settings}".strip()}


def quote(*names: str) -> str:
    """Return names as identifiers of SQL, joined by dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def parse_lsn(text: str) -> int:
    """Return the number of an LSN such as 0/16B3748."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(number: int) -> str:
    """Return the text of an LSN."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate the driver's errors into the pool's; no message of the server, which may show values.

    Args:
        what: is done, for the message: "read the slot x".

    Raises:
        ConflictError: SOURCE_CHANGED, the slot or its log is gone (SQLSTATE 55000, 42704, 58P01).
        RefusedError: SOURCE_UNAVAILABLE, a right is missing.
        UnavailableError: SOURCE_UNAVAILABLE.
    """
    psycopg2 = _driver()
    from psycopg2 import errors  # noqa: PLC0415 - see above

    try:
        yield
    except PoolError:
        raise
    except errors.InsufficientPrivilege as error:
        raise RefusedError(
            Reason.SOURCE_UNAVAILABLE,
            f"the database does not permit this user to {what}; `pool-connect check` names the right and its statement",
        ) from error
    except errors.ObjectInUse as error:
        raise UnavailableError(
            Reason.SOURCE_UNAVAILABLE,
            f"cannot {what}: another session is using it. After a crash the server ends that session within a minute; "
            "if it is another program, end it",
        ) from error
    except (
        errors.ObjectNotInPrerequisiteState,
        errors.UndefinedObject,
        errors.UndefinedFile,
    ) as error:
        raise ConflictError(
            Reason.SOURCE_CHANGED,
            f"cannot {what}: it is gone, or the database has removed the part of its log that was needed "
            f"({type(error).__name__}). `pool-connect check` says which; `run --resnapshot all` publishes the tables "
            "whole and goes on from there",
        ) from error
    except (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError) as error:
        raise UnavailableError(
            Reason.SOURCE_UNAVAILABLE,
            f"cannot {what}: the database does not answer ({type(error).__name__}); is it there, and is the password "
            "right?",
        ) from error
    except psycopg2.Error as error:
        raise ConflictError(
            Reason.SOURCE_CHANGED,
            f"cannot {what}: the database refuses it ({type(error).__name__}, SQLSTATE {error.pgcode}); "
            "`pool-connect check` says more",
        ) from error

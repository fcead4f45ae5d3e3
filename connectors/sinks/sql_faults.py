"""Whose fault a database's error is: the record's, or the connection's and the configuration's.

A record that the target cannot hold is set aside, and the others go on. Everything else stops the sink: were it taken
for the record's fault, a full disk would empty a whole topic into the quarantine. PostgreSQL says which by SQLSTATE
(appendix A of its manual), MySQL by error number; of other databases the class of the driver's error tells (PEP 249).
"""

from typing import Any

import sqlalchemy as sa

from connectors.port import RejectCode

__all__ = ["cause_of", "fault_of", "field_of"]

# Classes of SQLSTATE: 22 data exception, 23 integrity constraint violation, 44 WITH CHECK OPTION violation, 54 program
# limit exceeded (a row too large for its index), P0001 an exception of the target's own trigger.
_BY_CLASS = {
    "22": RejectCode.TARGET_TYPE,
    "23": RejectCode.TARGET_CONSTRAINT,
    "44": RejectCode.TARGET_CONSTRAINT,
    "54": RejectCode.TOO_LARGE,
    "P0": RejectCode.TARGET_REJECTED,
}
# Of MySQL and MariaDB, those that their drivers take for errors of operation: a text that the column's character set
# cannot hold, a signal of a trigger, a packet or a row that is too large.
_BY_NUMBER = {
    1366: RejectCode.TARGET_TYPE,
    1644: RejectCode.TARGET_REJECTED,
    1153: RejectCode.TOO_LARGE,
    1118: RejectCode.TOO_LARGE,
    4025: RejectCode.TARGET_CONSTRAINT,
    3819: RejectCode.TARGET_CONSTRAINT,
}


def fault_of(error: Exception) -> RejectCode | None:
    """Return the code for a record whose own values the database, or its driver, refuses; None for any other error."""
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return None
    origin: Any = error.orig if isinstance(error, sa.exc.StatementError) else error
    state = getattr(origin, "pgcode", None) or getattr(origin, "sqlstate", None)
    if isinstance(state, str) and len(state) == 5:
        return _BY_CLASS.get(state[:2])
    arguments = getattr(origin, "args", ())
    if arguments and isinstance(arguments[0], int) and arguments[0] in _BY_NUMBER:
        return _BY_NUMBER[arguments[0]]
    if isinstance(error, sa.exc.IntegrityError):
        return RejectCode.TARGET_CONSTRAINT
    # Values that a driver refuses before it sends them (a NUL in a text), or that JSON has no form for.
    refused = isinstance(origin, (ValueError, OverflowError))
    refused = refused or (isinstance(error, sa.exc.StatementError) and isinstance(origin, TypeError))
    return RejectCode.TARGET_TYPE if refused or isinstance(error, sa.exc.DataError) else None


def field_of(error: Exception) -> str:
    """Return the column that the database names in its error; empty where it names none."""
    origin: Any = error.orig if isinstance(error, sa.exc.StatementError) else error
    return getattr(getattr(origin, "diag", None), "column_name", None) or ""


def cause_of(error: Exception) -> str:
    """Return what the driver calls the error, and the constraint that it names: never its text, which holds values."""
    origin: Any = error.orig if isinstance(error, sa.exc.StatementError) else error
    constraint = getattr(getattr(origin, "diag", None), "constraint_name", None)
    return f"{type(origin).__name__}, constraint {constraint}" if constraint else type(origin).__name__

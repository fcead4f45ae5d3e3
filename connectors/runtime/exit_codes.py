"""Exit codes of `pool-connect`: who has to act.

0  done                          3  rows over the limit are quarantined, or a file was set aside
1  the configuration             4  a person must decide: contract, deletes, a second writer, a lost pool
2  source, target or pool is     5  the program itself
   away, or refuses
"""

from enum import IntEnum

from schemas.errors import ConflictError, CorruptError, GoneError, InvalidError, PoolError, Reason, RefusedError
from schemas.errors import UnavailableError as _Unavailable

__all__ = ["ExitCode", "exit_code_for"]


class ExitCode(IntEnum):
    """The exit codes, by who has to act."""

    OK = 0
    CONFIG = 1
    AWAY = 2
    QUARANTINE = 3
    PERSON = 4
    INTERNAL = 5


_BY_REASON = {
    Reason.CONFIG_INVALID: ExitCode.CONFIG,
    Reason.NAME_INVALID: ExitCode.CONFIG,
    Reason.QUARANTINE_LIMIT: ExitCode.QUARANTINE,
    Reason.FILE_REJECTED: ExitCode.QUARANTINE,
    Reason.DELETE_GUARD: ExitCode.PERSON,
    Reason.INTERNAL: ExitCode.INTERNAL,
}


def exit_code_for(error: PoolError) -> ExitCode:
    """Return the exit code of an error."""
    by_reason = _BY_REASON.get(error.reason)
    if by_reason is not None:
        return by_reason
    if isinstance(error, (_Unavailable, RefusedError)):
        return ExitCode.AWAY
    if isinstance(error, (ConflictError, GoneError, CorruptError, InvalidError)):
        return ExitCode.PERSON
    return ExitCode.INTERNAL

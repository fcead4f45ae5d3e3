"""What a command's exit code says: who has to act.

0  done                          3  rows over the limit are quarantined, or a file was set aside
1  the configuration             4  a person must decide: contract, deletes, a second writer, a lost pool
2  source, target or pool is     5  the program itself
away, or refuses
"""

from enum import IntEnum

from schemas.errors import ConflictError, CorruptError, GoneError, InvalidError, PoolError, Reason, RefusedError
from schemas.errors import UnavailableError as _Unavailable

__all__ = ["Exit", "exit_of"]


class Exit(IntEnum):
    """See the module."""

    OK = 0
    CONFIG = 1
    AWAY = 2
    QUARANTINE = 3
    PERSON = 4
    INTERNAL = 5


_BY_REASON = {
    Reason.CONFIG_INVALID: Exit.CONFIG,
    Reason.NAME_INVALID: Exit.CONFIG,
    Reason.QUARANTINE_LIMIT: Exit.QUARANTINE,
    Reason.FILE_REJECTED: Exit.QUARANTINE,
    Reason.DELETE_GUARD: Exit.PERSON,
    Reason.INTERNAL: Exit.INTERNAL,
}


def exit_of(error: PoolError) -> Exit:
    """Return the exit code of an error."""
    by_reason = _BY_REASON.get(error.reason)
    if by_reason is not None:
        return by_reason
    if isinstance(error, (_Unavailable, RefusedError)):
        return Exit.AWAY
    if isinstance(error, (ConflictError, GoneError, CorruptError, InvalidError)):
        return Exit.PERSON
    return Exit.INTERNAL

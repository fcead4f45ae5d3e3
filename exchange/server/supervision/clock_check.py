"""Clock check: whether the clocks of machine and database are to be trusted. Pure but for `is_synchronised`.

    machine and database differ by more than 5 s     one of them is wrong: nothing is signed or released
    both went ahead at once, by more than an hour    the same, unless something vouches for it: a database on another
                                                     machine, whose clock agrees, or a time service (NTP) that keeps
                                                     this one
    both went ahead at once, by less                 taken for right: a virtual machine that was paused looks the same,
                                                     and the log would stand still for an hour at most

Each jump is judged by itself: somebody who sets the machine's clock, where nothing else tells the time, can move it by
less than these bounds again and again. The bounds are against accidents; against that person stands a time service, or
a database on another machine.

A clock that was wrong when the process started, on a machine without another clock, is not found: nothing there knows
better. What it stored, two persons settle (`exchange.control.clock`).
"""

import ctypes
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from exchange.server.clock import TOLERANCE
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = ["ClockReading", "clock_fault", "is_independent", "is_synchronised"]

_ALONE = 3_600_000_000  # microseconds that a clock may go ahead without a witness
_RETRY = 5.0  # seconds
_TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
_TIMEX = 512  # bytes; more than `struct timex` has on any machine
_LOOPBACK = frozenset({"", "localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """One comparison; times in microseconds since 1970 UTC.

    Attributes:
        before, after: the machine's clock before and after the database was asked.
        database: its clock; None where it did not answer.
        ahead: microseconds by which a jump of the machine's clock is held.
        independent: whether the database's clock is that of another machine.
        synchronised: whether a time service keeps the machine's clock.
    """

    before: int
    after: int
    database: int | None
    ahead: int
    independent: bool
    synchronised: bool


def clock_fault(reading: ClockReading) -> PoolError | None:
    """Return what is wrong with the clocks; None where nothing is, so that a held jump may be taken for right."""
    if reading.database is not None:
        over = reading.database - reading.after
        under = reading.before - reading.database
        if max(over, under) > TOLERANCE:
            wrong = "the database's clock" if over > under else "this machine's clock"
            return _jumped(
                f"{wrong} is ahead: this machine has {_text(reading.after)}, the database {_text(reading.database)}"
            )
    if reading.ahead <= _ALONE or reading.synchronised or (reading.independent and reading.database is not None):
        return None
    return _jumped(
        f"this machine's clock went ahead by {reading.ahead // 1_000_000} s at once, to {_text(reading.after)}, and "
        "no time service keeps it. If it is right, start the process again"
    )


def is_independent(url: sa.URL | None) -> bool:
    """Return whether a database has another clock than this machine, as far as its address tells; None = embedded."""
    if url is None:
        return False
    hosts = url.query.get("host", url.host or "")
    host = hosts if isinstance(hosts, str) else hosts[0]
    return host not in _LOOPBACK and not host.startswith("/")


def is_synchronised() -> bool:
    """Return whether the kernel says that a time service keeps this machine's clock (adjtimex(2), read only)."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX))
    except (OSError, AttributeError):  # no Linux
        return False
    return 0 <= state < _TIME_ERROR


def _jumped(found: str) -> UnavailableError:
    return UnavailableError(
        Reason.CLOCK_JUMPED,
        f"{found}. Nothing is signed, released or accepted meanwhile, and no entry carries that time: mend the time "
        "service, and everything goes on by itself",
        retry_after=_RETRY,
    )


def _text(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")

"""Clock of this process: the only module that reads the system time."""

import time
from datetime import UTC, datetime

__all__ = ["microseconds", "utc_now"]


def microseconds() -> int:
    """Return the time of this process's clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1_000


def utc_now() -> datetime:
    """Return the time of this process's clock, aware."""
    return datetime.now(UTC)

"""Retry with exponential backoff and full jitter: which errors are retried, and after which delay.

    UnavailableError        a fault that passes: wait, then retry
    LANE_FENCED and kin     another gateway took the lane over, or lost sight of it: resume the lane, then retry
    everything else         waiting does not help

A delay is uniformly random from 0 to min(60 s, 0.5 s × 2ⁿ): connectors that lost the same gateway at the same moment
do not return at the same moment. Where the pool says how long to wait, that is the minimum.
"""

import random
import threading
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime

from schemas.errors import ConflictError, PoolError, Reason, UnavailableError

__all__ = ["Backoff", "is_retryable", "retry_after_of"]

_BASE = 0.5  # seconds
_CAP = 60.0  # seconds
_LONGEST_WAIT = 3_600.0  # seconds, of what an answer asks for
_RESUMABLE = frozenset({Reason.LANE_FENCED, Reason.SEQUENCE_GAP, Reason.PREVIOUS_ROOT_MISMATCH})


def is_retryable(error: PoolError) -> bool:
    """Return whether the same operation may succeed later."""
    return isinstance(error, UnavailableError) or (isinstance(error, ConflictError) and error.reason in _RESUMABLE)


class Backoff:
    """Delays of one series of failures."""

    def __init__(
        self,
        *,
        give_up_after: float,
        stop: threading.Event,
        monotonic: Callable[[], float],
        random_: Callable[[], float] = random.random,
        base: float = _BASE,
    ) -> None:
        """Start without failures.

        Args:
            give_up_after: seconds of failing without any success after which the error is raised.
            stop: ends a wait.
            monotonic: the clock, in seconds.
            random_: a number uniformly from 0 to 1.
            base: seconds; the maximum of the first delay.
        """
        self._give_up_after = give_up_after
        self._stop = stop
        self._monotonic = monotonic
        self._random = random_
        self._base = base
        self._failures = 0
        self._since = 0.0

    def reset(self) -> None:
        """End the series: an attempt has succeeded."""
        self._failures = 0

    def wait_or_raise(self, error: PoolError) -> None:
        """Wait before the next attempt.

        Raises:
            PoolError: the error itself, when waiting does not help or has lasted long enough. When `stop` is set, it
                returns at once; the caller checks `stop`.
        """
        if not is_retryable(error):
            raise error
        if not self._failures:
            self._since = self._monotonic()
        elif self._monotonic() - self._since > self._give_up_after:
            raise error
        delay = self._random() * min(_CAP, self._base * 2 ** min(self._failures, 10))
        self._failures += 1
        self._stop.wait(max(delay, error.retry_after or 0.0))


def retry_after_of(header: str | None, now: datetime) -> float | None:
    """Return the seconds of a `Retry-After` (RFC 9110, section 10.2.3), an hour at most; None where it says nothing."""
    if not header:
        return None
    try:
        seconds = float(header) if header.isdecimal() else (parsedate_to_datetime(header) - now).total_seconds()
    except (TypeError, ValueError):  # no date, or one without an offset
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)

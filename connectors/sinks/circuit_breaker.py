"""Circuit breaker: after some failures in a row a target is left alone for a while, then tried once.

    closed      calls go through
    open        `require` raises, with the seconds that are left
    half open   the pause is over: one call goes through, and its outcome closes or opens it again

Source: M. Nygard, Release It!, 2nd ed. (2018), section 5.2.
"""

from collections.abc import Callable

from schemas.errors import Reason, UnavailableError

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """The breaker of one target. Used by one thread."""

    def __init__(self, *, threshold: int, pause: float, monotonic: Callable[[], float]) -> None:
        """Start closed.

        Args:
            threshold: failures in a row that open it.
            pause: seconds for which it stays open.
            monotonic: the clock, in seconds.
        """
        self._threshold = threshold
        self._pause = pause
        self._monotonic = monotonic
        self._failures = 0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are refused now."""
        return self._monotonic() < self._until

    def require(self) -> None:
        """Check that a call may be made.

        Raises:
            UnavailableError: TARGET_UNAVAILABLE, it is open.
        """
        left = self._until - self._monotonic()
        if left > 0:
            raise UnavailableError(
                Reason.TARGET_UNAVAILABLE,
                f"the target has failed {self._threshold} times in a row; it is left alone for {left:.0f} s",
                retry_after=left,
            )

    def succeeded(self) -> None:
        """Register an answer: the target lives."""
        self._failures = 0

    def failed(self) -> None:
        """Register a failure; the last one of the threshold, and each one after it, opens the breaker."""
        self._failures += 1
        if self._failures >= self._threshold:
            self._until = self._monotonic() + self._pause

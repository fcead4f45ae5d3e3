"""Serving guard: releases and receipts stop while the log is not signed, and go on by themselves when it is.

A release whose entry nobody signs would be one that nobody can prove. So serving is coupled to signing: where the log
is corrupt, or its oldest unsigned entry is older than `audit.unsigned_seconds`, fetches, appends and resumes are
refused with `log_behind` and a time after which to try again. All other acts go on: a revocation must never wait.

A thread of the process looks at the log once a second (`exchange.server.supervision.log_watch`). A call reads the last
outcome, which costs one attribute.
"""

import structlog

from exchange import metrics
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = ["ServingGuard"]

_RETRY = 5.0  # seconds
_log = structlog.get_logger()


class ServingGuard:
    """Says whether this process may release records and give receipts. Thread-safe; open until it is told otherwise."""

    def __init__(self) -> None:
        self._fault: PoolError | None = None
        metrics.SERVING.set(1)

    @property
    def fault(self) -> PoolError | None:
        """Return why nothing is released, None while it is."""
        return self._fault

    def update(self, fault: PoolError | None) -> None:
        """Set what is wrong with the log; None where nothing is."""
        before, self._fault = self._fault, fault
        metrics.SERVING.set(0 if fault else 1)
        if fault is not None and (before is None or before.reason != fault.reason):
            _log.error("serving_stopped", reason=fault.reason, message=fault.message)
        if fault is None and before is not None:
            _log.warning("serving_resumed")

    def require(self) -> None:
        """Raise unless records may be released and receipts given.

        Raises:
            UnavailableError: LOG_BEHIND.
        """
        fault = self._fault
        if fault is not None:
            raise UnavailableError(
                Reason.LOG_BEHIND,
                "the pool's log is not signed at this moment, so nothing is released and nothing accepted; try again, "
                "the operator sees why",
                details={"cause": str(fault.reason)},
                retry_after=_RETRY,
            )

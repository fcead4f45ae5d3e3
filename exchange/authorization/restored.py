"""Restore guard: a restored pool releases nothing before two persons have settled the restore.

What happened in the last second before the loss is in no log, and where the log is lost nobody can know what was
revoked since the backup. So fetches are refused with `restore_unsettled` until a settlement is in the log; and where
the log is lost, publishing too. All other acts go on: people look, revoke, and settle (`exchange.control.restores`).

A pool that was never restored pays one attribute a call.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.errors import Reason, UnavailableError

__all__ = ["OpenRestore", "RestoreGuard"]

_ASK_AGAIN = 1.0  # seconds
_RETRY = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class OpenRestore:
    """A restore that is not settled: the id of its statement's entry; whether the log survived."""

    statement: str
    whole: bool


class RestoreGuard:
    """Says whether this process may release and accept records. Thread-safe.

    Args:
        ask: returns the restore that is not settled, None where none is. A restore happens while no process runs, so
            that None stays true.
        monotonic: seconds.
    """

    def __init__(
        self, ask: Callable[[], OpenRestore | None] = lambda: None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._settled = False
        self._found: OpenRestore | None = None
        self._asked_at = -_ASK_AGAIN

    def open_restore(self) -> OpenRestore | None:
        """Return the restore that is not settled, as it was found at most a second ago."""
        if self._settled:
            return None
        now = self._monotonic()
        if now - self._asked_at >= _ASK_AGAIN:
            self._found = self._ask()
            self._asked_at = now
            self._settled = self._found is None
        return self._found

    def require_release(self) -> None:
        """Raise unless records may be released.

        Raises:
            UnavailableError: RESTORE_UNSETTLED.
        """
        if not self._settled and (found := self.open_restore()) is not None:
            raise _unsettled(found, "releases nothing")

    def require_accept(self) -> None:
        """Raise unless records may be accepted: also while the restore is not settled, if its log survived.

        Raises:
            UnavailableError: RESTORE_UNSETTLED.
        """
        if not self._settled and (found := self.open_restore()) is not None and not found.whole:
            raise _unsettled(found, "accepts nothing")


def _unsettled(found: OpenRestore, what: str) -> UnavailableError:
    return UnavailableError(
        Reason.RESTORE_UNSETTLED,
        f"the pool was restored from a backup and {what} until two persons have settled it (`pool backup status`); "
        "try again later",
        details={"restore": found.statement},
        retry_after=_RETRY,
    )

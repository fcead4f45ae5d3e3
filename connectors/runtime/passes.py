"""Passes over a source in their time: waits for the next one, by the schedule or by the source's interval.

A wait is short steps in which the clock is read again: a machine that slept, or whose clock was set, is found within
one of them. When the last complete pass began is kept in the ledger, so that a restart neither repeats a pass nor
leaves one out.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from connectors.config.publication_models import PublishConfig
from connectors.state.ledger import Ledger

__all__ = ["Passes"]

_STEP = 30.0  # seconds between two readings of the clock
_BEGUN = "pass_begun"  # of the ledger: when the last complete pass began, ISO 8601
_NEXT = "next_pass"  # of the ledger: when the next one is due; for `status`


class Passes:
    """When the passes of a publication begin."""

    def __init__(self, section: PublishConfig, poll: float, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        """Configure.

        Args:
            section: the publication.
            poll: seconds from the end of a pass to the next one, where there is no schedule; the first begins at once.
            ledger: of the publication.
            clock: of this machine.
        """
        self._schedule = section.schedule.schedule() if section.schedule else None
        self._poll = poll
        self._ledger = ledger
        self._clock = clock
        self._first = True

    def wait(self, stop: threading.Event, notify: Callable[[str], None]) -> bool:
        """Wait until the next pass is due; return True when the connector is stopped first."""
        first, self._first = self._first, False
        if self._schedule is None:
            return stop.is_set() if first else stop.wait(self._poll)
        told = ""
        while not stop.is_set():
            now = self._clock()
            due = self._schedule.due(self._last(), now)
            remaining = (due - now).total_seconds()
            if remaining <= 0:
                return False
            text = due.isoformat(timespec="seconds")
            if text != told:
                told = text
                self._ledger.set_meta(**{_NEXT: text})
                notify(f"the next pass is due at {text}")
            stop.wait(min(remaining, _STEP))
        return True

    def note(self, begun: datetime) -> None:
        """Note a complete pass."""
        self._ledger.set_meta(**{_BEGUN: begun.astimezone(UTC).isoformat(), _NEXT: ""})

    def _last(self) -> datetime | None:
        noted = self._ledger.meta(_BEGUN)
        return datetime.fromisoformat(noted) if noted else None

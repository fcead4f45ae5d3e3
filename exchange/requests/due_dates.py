"""Port of due dates: what a request needs of the rule profile and of the working-day calendar."""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

__all__ = ["DueDates", "Limit", "Pause"]

Pause = tuple[datetime, datetime]
"""From when to when a clock stood still; aware."""


class Limit(StrEnum):
    """A time limit of a request, by name; its length is in the rule profile."""

    UNCONDITIONAL_REPLY = "unconditional_reply"  # 1 working day (decree 809, Art. 21)
    CONDITIONAL_REPLY = "conditional_reply"  # 10 working days (Art. 21)
    DELIVERY = "delivery"  # 20 working days (Art. 22)
    SUPPLEMENT = "supplement"  # decree 809 says nothing: the local profile does


class DueDates(Protocol):
    """Due dates under one rule profile."""

    @property
    def profile(self) -> str:
        """Id and version of the profile, as each step of a request's history names it."""
        ...

    @property
    def most_extension(self) -> int:
        """Working days by which the authority can extend a reply at most (decree 809, Art. 21)."""
        ...

    @property
    def supplement_restarts(self) -> bool:
        """Whether the reply clock restarts when a request is supplemented; otherwise it stood still meanwhile."""
        ...

    def due_at(self, limit: Limit, start: datetime, *, extension: int = 0, pauses: tuple[Pause, ...] = ()) -> datetime:
        """Return the end of the last day of a limit; from this time on, it has run out.

        Args:
            limit: which one.
            start: aware; its day is not counted.
            extension: working days more.
            pauses: spans that are not counted.
        """
        ...

"""Deadlines of requests (时限): until when a provider has to decide, in working days. Pure.

    resource shared without conditions      1 working day     (State Council decree 809, Art. 21)
    resource shared under conditions        10 working days   (Art. 22)

The day of receipt is not counted; days are those of Asia/Shanghai, and the deadline is the end of the last one. Working
days are those of the State Council's notices, as `chinesecalendar` has them. Of a year without a notice yet, Monday to
Friday count, and the deadline is provisional (临时): it is confirmed once the notice is known.

When a request was received its id says, a UUIDv7 that its seal covers. So no column holds it, and none can be moved.
Nothing happens by silence: an overdue request is a mark, never an approval or a refusal.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from enum import StrEnum
from typing import Final

import chinese_calendar

from schemas.identifiers import time_of_uuid7

__all__ = ["Deadline", "DueState", "deadline_of", "submitted_at"]

_UNCONDITIONAL_DAYS: Final = 1
_CONDITIONAL_DAYS: Final = 10
_DAY: Final = timedelta(days=1)
# China has kept one offset without daylight saving time since 1991; a fixed one needs no time zone database.
_SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DueState(StrEnum):
    """How near the deadline of a request is."""

    NORMAL = "normal"  # 正常
    SOON = "soon"  # 临近: today or the next working day is the last one
    OVERDUE = "overdue"  # 超期


@dataclass(frozen=True, slots=True)
class Deadline:
    """Until when a request has to be decided.

    Attributes:
        due_at: the end of the last working day, aware.
        confirmed: every day until then is of a year whose working days are known.
    """

    due_at: datetime
    confirmed: bool

    def state(self, now: datetime) -> DueState:
        """Return how near it is."""
        if now >= self.due_at:
            return DueState.OVERDUE
        last, day, left = self.due_at.astimezone(_SHANGHAI).date() - _DAY, now.astimezone(_SHANGHAI).date(), 0
        while day < last and left <= 1:
            day += _DAY
            left += _working(day)[0]
        return DueState.SOON if left <= 1 else DueState.NORMAL


def submitted_at(grant_id: str) -> datetime:
    """Return when a request was received, by its id.

    Raises:
        ValueError: it is no UUID.
    """
    return _EPOCH + timedelta(microseconds=time_of_uuid7(grant_id))


def deadline_of(received: datetime, *, unconditional: bool) -> Deadline:
    """Return the deadline of a request.

    Args:
        received: aware.
        unconditional: its resource is shared without conditions (无条件共享).
    """
    day, confirmed = received.astimezone(_SHANGHAI).date(), True
    left = _UNCONDITIONAL_DAYS if unconditional else _CONDITIONAL_DAYS
    while left:
        day += _DAY
        working, known = _working(day)
        confirmed &= known
        left -= working
    return Deadline(datetime.combine(day + _DAY, time(), _SHANGHAI), confirmed)


def _working(day: date) -> tuple[bool, bool]:
    """Return whether a day is a working day, and whether that is known and not assumed."""
    try:
        return chinese_calendar.is_workday(day), True
    except NotImplementedError:
        return day.isoweekday() <= 5, False

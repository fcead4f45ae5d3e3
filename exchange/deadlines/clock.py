"""Clocks (时限): until when something has to be done, derived from events, a limit and a calendar. Pure.

    the day of an event is not counted         Civil Code, Art. 201
    a working day counts if the clock ran all through it, so not on the day of receipt, of a pause or of its end
    due at the end of the last day that counts, in Asia/Shanghai
    a last day that is no working day moves to the next one             Civil Code, Art. 203
    an extension adds to the limit; it is granted while the clock runs, not afterwards

What is received on a day without work counts from the next day, as everything does. A pause (补正, 征求第三方意见)
keeps the days that have passed, or restarts the count when it ends; which of the two, the rule says. A pause that
begins after the clock has run out changes nothing: what is late stays late. A limit in hours is exact and knows no
holidays.

A clock is a value; its due instant is computed from it and a calendar at every reading and never stored alone, so that
a notice that comes later is followed by every deadline. Until then a deadline that reaches into an unknown year is
provisional (临时):

    clock = Clock(started_at=received, limit=Limit(10, Unit.WORKING_DAYS))
    clock.due(calendar)                       Due(day=2026-10-20, at=2026-10-21T00:00+08:00, provisional=False)
    clock.extended_by(5).paused(at).resumed(later).due(calendar)
"""

from calendar import monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from enum import StrEnum
from typing import Any, Final

from exchange.deadlines.calendar import Calendar, Day
from schemas.canonical import Json

__all__ = ["LARGEST_LIMIT", "SHANGHAI", "AfterPause", "Clock", "Due", "DueState", "Limit", "Pause", "Unit"]

# China has kept one offset without daylight saving time since 1991; a fixed one needs no time zone database.
SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
LARGEST_LIMIT: Final = 36_600
"""The largest amount of a limit, in any unit: a bound of what computing it costs."""

_DAY: Final = timedelta(days=1)


class Unit(StrEnum):
    """What a limit is counted in."""

    HOURS = "hours"  # 小时: exact, on every day
    DAYS = "days"  # 自然日
    WORKING_DAYS = "working_days"  # 工作日
    MONTHS = "months"
    YEARS = "years"


class AfterPause(StrEnum):
    """How a clock counts when a pause ends."""

    CONTINUE = "continue"  # with what had been left
    RESTART = "restart"  # with the whole limit


class DueState(StrEnum):
    """How near a deadline is."""

    NORMAL = "normal"  # 正常
    SOON = "soon"  # 临近: today or the next working day is the last one
    OVERDUE = "overdue"  # 超期


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount of time.

    Raises:
        ValueError: an amount that is not from 1 to `LARGEST_LIMIT`, or 100 years.
    """

    amount: int
    unit: Unit

    def __post_init__(self) -> None:
        largest = {Unit.MONTHS: 1200, Unit.YEARS: 100}.get(self.unit, LARGEST_LIMIT)
        if not 1 <= self.amount <= largest:
            raise ValueError(f"got {self.amount} {self.unit}; expected from 1 to {largest}")

    def __str__(self) -> str:
        unit = self.unit.replace("_", " ")
        return f"{self.amount} {unit.removesuffix('s') if self.amount == 1 else unit}"


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which a clock stands still; both aware, `until` None while it lasts."""

    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Until when.

    Attributes:
        day: the last day on which it can be done in time, in Asia/Shanghai.
        at: the instant from which it is late, aware: the end of that day; of a limit in hours, the exact time.
        provisional: it depends on a day of a year whose working days are not known yet.
    """

    day: date
    at: datetime
    provisional: bool

    def state(self, now: datetime, calendar: Calendar) -> DueState:
        """Return how near it is."""
        if now >= self.at:
            return DueState.OVERDUE
        second, _ = calendar.count_workdays(now.astimezone(SHANGHAI).date(), 2)
        return DueState.NORMAL if second <= self.day else DueState.SOON


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A limit that runs from an event.

    Attributes:
        started_at: the event that starts it, aware.
        limit: how long.
        extension: how much more was granted, in the unit of the limit.
        pauses: in the order of time; only the last one may still last.
        after_pause: how it counts after a pause.
        to_workday: a last day that is no working day moves to the next one; without effect on hours.

    Raises:
        ValueError: a time that is not aware, pauses out of order, or pauses of a limit in months or years.
    """

    started_at: datetime
    limit: Limit
    extension: int = 0
    pauses: tuple[Pause, ...] = ()
    after_pause: AfterPause = AfterPause.CONTINUE
    to_workday: bool = True

    def __post_init__(self) -> None:
        if self.extension:
            Limit(self.extension, self.limit.unit)  # checks the amount
        times = [self.started_at]
        for pause in self.pauses:
            times += [pause.since] if pause.until is None else [pause.since, pause.until]
        if any(one.utcoffset() is None for one in times):
            raise ValueError("got a time without an offset; expected aware ones")
        if times != sorted(times) or any(pause.until is None for pause in self.pauses[:-1]):
            raise ValueError("got pauses that overlap, end before they begin, or begin before the clock starts")
        if self.pauses and self.limit.unit in {Unit.MONTHS, Unit.YEARS}:
            raise ValueError(f"got a pause of a limit in {self.limit.unit}; expected hours, days or working days")

    def to_json(self) -> dict[str, Json]:
        """Return the clock as a document, to be stored; it holds its limit, so that later profiles do not change it."""
        return {
            "started_at": self.started_at.isoformat(),
            "amount": self.limit.amount,
            "unit": str(self.limit.unit),
            "extension": self.extension,
            "pauses": [[one.since.isoformat(), one.until.isoformat() if one.until else None] for one in self.pauses],
            "after_pause": str(self.after_pause),
            "to_workday": self.to_workday,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Clock":
        """Return the clock of a document of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            started_at=datetime.fromisoformat(document["started_at"]),
            limit=Limit(document["amount"], Unit(document["unit"])),
            extension=document["extension"],
            pauses=tuple(
                Pause(datetime.fromisoformat(since), None if until is None else datetime.fromisoformat(until))
                for since, until in document["pauses"]
            ),
            after_pause=AfterPause(document["after_pause"]),
            to_workday=document["to_workday"],
        )

    @property
    def standing(self) -> bool:
        """Whether a pause lasts."""
        return bool(self.pauses) and self.pauses[-1].until is None

    def extended_by(self, amount: int) -> "Clock":
        """Return the clock with a longer limit; who grants it checks before that the clock still runs."""
        return replace(self, extension=self.extension + amount)

    def paused(self, at: datetime) -> "Clock":
        """Return the clock that stands still from *at* on.

        Raises:
            ValueError: it stands still already, or *at* is before its last event.
        """
        if self.standing:
            raise ValueError("the clock stands still already; end that pause first")
        return replace(self, pauses=(*self.pauses, Pause(at)))

    def resumed(self, at: datetime) -> "Clock":
        """Return the clock that runs again from *at* on.

        Raises:
            ValueError: it does not stand still, or *at* is before the pause.
        """
        if not self.standing:
            raise ValueError("the clock does not stand still; nothing to end")
        return replace(self, pauses=(*self.pauses[:-1], replace(self.pauses[-1], until=at)))

    def due(self, calendar: Calendar) -> Due | None:
        """Return until when; None while it stands still."""
        start, total = self.started_at, self.limit.amount + self.extension
        count = _COUNTS[self.limit.unit]
        left, doubtful = total, False
        due = count(self, start, left, calendar)
        for pause in self.pauses:
            if pause.since >= due.at:
                break  # it had run out before
            if pause.until is None:
                return None
            if self.after_pause is AfterPause.RESTART:
                left = total
                start = pause.until
            elif self.limit.unit is Unit.HOURS:
                start += pause.until - pause.since
            else:
                passed = _days_between(start, pause.since, self.limit.unit, calendar)
                left -= sum(_counts(one, self.limit.unit) for one in passed)
                doubtful |= not all(one.confirmed for one in passed)
                start = pause.until
            due = count(self, start, left, calendar)
        return replace(due, provisional=True) if doubtful else due


def _days_between(since: datetime, until: datetime, unit: Unit, calendar: Calendar) -> list[Day]:
    """Return the whole days between the days of two events; of calendar days their certainty does not matter."""
    last, between = until.astimezone(SHANGHAI).date(), []
    for day in calendar.days_after(since.astimezone(SHANGHAI).date()):
        if day.date >= last:
            break
        between.append(day if unit is Unit.WORKING_DAYS else replace(day, confirmed=True))
    return between


def _counts(day: Day, unit: Unit) -> bool:
    return day.is_workday or unit is Unit.DAYS


def _count_hours(clock: Clock, start: datetime, hours: int, calendar: Calendar) -> Due:
    del clock, calendar
    at = (start + timedelta(hours=hours)).astimezone(SHANGHAI)
    return Due(day=(at - timedelta.resolution).date(), at=at, provisional=False)


def _count_working_days(clock: Clock, start: datetime, left: int, calendar: Calendar) -> Due:
    del clock
    day, confirmed = calendar.count_workdays(start.astimezone(SHANGHAI).date(), left)
    return _end_of(day, provisional=not confirmed)


def _count_days(clock: Clock, start: datetime, left: int, calendar: Calendar) -> Due:
    return _last_day(clock, start.astimezone(SHANGHAI).date() + left * _DAY, calendar)


def _count_months(clock: Clock, start: datetime, left: int, calendar: Calendar) -> Due:
    day = start.astimezone(SHANGHAI).date()
    months = day.year * 12 + day.month - 1 + left
    year, month = divmod(months, 12)
    # Civil Code, Art. 202: the day of the same number, or the last one of a month that has none.
    return _last_day(clock, date(year, month + 1, min(day.day, monthrange(year, month + 1)[1])), calendar)


def _count_years(clock: Clock, start: datetime, left: int, calendar: Calendar) -> Due:
    return _count_months(clock, start, left * 12, calendar)


def _last_day(clock: Clock, day: date, calendar: Calendar) -> Due:
    if not clock.to_workday:
        return _end_of(day, provisional=False)
    here = calendar.day(day)
    doubtful = not here.confirmed
    if not here.is_workday:
        for following in calendar.days_after(day):
            doubtful |= not following.confirmed
            if following.is_workday:
                day = following.date
                break
    return _end_of(day, provisional=doubtful)


def _end_of(day: date, *, provisional: bool) -> Due:
    return Due(day=day, at=datetime.combine(day + _DAY, time(), SHANGHAI), provisional=provisional)


_COUNTS: Final[dict[Unit, Callable[[Clock, datetime, int, Calendar], Due]]] = {
    Unit.HOURS: _count_hours,
    Unit.DAYS: _count_days,
    Unit.WORKING_DAYS: _count_working_days,
    Unit.MONTHS: _count_months,
    Unit.YEARS: _count_years,
}

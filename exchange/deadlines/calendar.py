"""Working-day calendar (工作日历): which days are working days, by whose notice, and whether that is known. Pure.

Each year the State Council's general office arranges the holidays and the weekend days that make up for them. One such
arrangement is an `ArrangedYear`: the days that it names. A day that nobody names is a working day, Monday to Friday.
The notice of a year may move days at the end of the year before it, as the one of 2019 did with 29 December 2018; it
goes before the notice of that year.

A year without an arrangement is not known yet: Monday to Friday count there, except the holidays of a fixed date that
the law has for every year, and every such day says that it is not confirmed. A deadline that reaches such a day is
provisional, and is computed again from the next calendar:

    calendar = Calendar(years, fixed_holidays=[FixedHoliday(1, 1, since=1950), FixedHoliday(10, 1, since=1950)])
    calendar.day(date(2026, 2, 14))         a Saturday, a working day, confirmed, by the notice of 2026
    calendar.day(date(2027, 1, 4))          a working day, not confirmed
    calendar.with_year(arranged_2027)       another calendar; the first one stays as it is

A `Calendar` is immutable and has a `version`, a digest of all that it says, so that an entry can name the calendar that
a deadline was computed from.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

__all__ = ["ArrangedYear", "Calendar", "Day", "FixedHoliday", "NamedDay"]

_DAY: Final = timedelta(days=1)
_DECEMBER: Final = 12
_FRIDAY: Final = 5
_MOST_COUNTED: Final = 10_000  # kept answers of a calendar


@dataclass(frozen=True, slots=True)
class NamedDay:
    """One day that a notice names: a holiday, or a weekend day on which work makes up for one (调休).

    Attributes:
        date: the day.
        is_workday: whether it is a working day.
        notice: number or title of the notice, one line.
    """

    date: date
    is_workday: bool
    notice: str


@dataclass(frozen=True, slots=True)
class ArrangedYear:
    """The arrangement of one year, whole: what it does not name is a working day from Monday to Friday.

    Attributes:
        year: the year that is known by it.
        days: the days that it names, in order, each once: of this year, or of December of the year before.

    Raises:
        ValueError: a day of another time, twice, or out of order.
    """

    year: int
    days: tuple[NamedDay, ...]

    def __post_init__(self) -> None:
        before: date | None = None
        for named in self.days:
            if not self.covers(named.date):
                raise ValueError(
                    f"got {named.date}; expected a day of {self.year}, or of December of {self.year - 1} that its "
                    "notice moves"
                )
            if before is not None and named.date <= before:
                raise ValueError(f"got {named.date} after {before}; expected each day once, in order")
            before = named.date

    def covers(self, day: date) -> bool:
        """Return whether the notice of this year may name a day."""
        return day.year == self.year or (day.year, day.month) == (self.year - 1, _DECEMBER)


@dataclass(frozen=True, slots=True, order=True)
class FixedHoliday:
    """A holiday of a fixed date, which the law has in every year from `since` on."""

    month: int
    day: int
    since: int


@dataclass(frozen=True, slots=True)
class Day:
    """What a calendar says of one day.

    Attributes:
        date: the day.
        is_workday: whether it is a working day.
        notice: the notice that names it; empty where none does.
        confirmed: its year is known; otherwise this is an assumption.
    """

    date: date
    is_workday: bool
    notice: str
    confirmed: bool


class Calendar:
    """Working days of all years.

    Args:
        years: arrangements, each year once.
        fixed_holidays: holidays that the law has in every year; they count where a year is not known.

    Raises:
        ValueError: a year twice.
    """

    def __init__(self, years: Iterable[ArrangedYear], *, fixed_holidays: Iterable[FixedHoliday]) -> None:
        self._years: dict[int, ArrangedYear] = {}
        for arranged in sorted(years, key=lambda one: one.year):
            if arranged.year in self._years:
                raise ValueError(f"got two arrangements of {arranged.year}; expected one of each year")
            self._years[arranged.year] = arranged
        # In the order of the years, so that a later notice goes before an earlier one.
        self._named = {named.date: named for arranged in self._years.values() for named in arranged.days}
        self._fixed = {(one.month, one.day): one for one in fixed_holidays}
        self._counted: dict[tuple[date, int], tuple[date, bool]] = {}

    @property
    def years(self) -> tuple[ArrangedYear, ...]:
        """The years that are known, in order."""
        return tuple(self._years.values())

    @property
    def version(self) -> str:
        """SHA-256 of all that it says, as `sha256:` and 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for arranged in self._years.values():
            digest.update(f"{arranged.year}\n".encode())
            for named in arranged.days:
                digest.update(f"{named.date},{named.is_workday:d},{named.notice}\n".encode())
        for fixed in sorted(self._fixed.values()):
            digest.update(f"{fixed.month}-{fixed.day},{fixed.since}\n".encode())
        return f"sha256:{digest.hexdigest()}"

    def with_year(self, arranged: ArrangedYear) -> "Calendar":
        """Return the calendar in which a year is arranged so, whether it was known before or not."""
        return Calendar([*({**self._years, arranged.year: arranged}.values())], fixed_holidays=self._fixed.values())

    def day(self, day: date) -> Day:
        """Return what the calendar says of a day."""
        confirmed, named = day.year in self._years, self._named.get(day)
        if named is not None:  # also the last days of a year that is not known, of which the next year's notice speaks
            return Day(day, named.is_workday, named.notice, confirmed=True)
        weekday = day.isoweekday() <= _FRIDAY
        if confirmed:
            return Day(day, weekday, "", confirmed=True)
        return Day(day, weekday and not self.is_fixed_holiday(day), "", confirmed=False)

    def is_fixed_holiday(self, day: date) -> bool:
        """Return whether the law has a day as a holiday, whatever the arrangement of its year."""
        fixed = self._fixed.get((day.month, day.day))
        return fixed is not None and day.year >= fixed.since

    def missed_holidays(self, arranged: ArrangedYear) -> tuple[date, ...]:
        """Return the fixed holidays of a year that an arrangement makes working days: it is not whole, or wrong."""
        then = self.with_year(arranged)
        days = [date(arranged.year, fixed.month, fixed.day) for fixed in sorted(self._fixed.values())]
        return tuple(day for day in days if self.is_fixed_holiday(day) and then.is_workday(day))

    def is_workday(self, day: date) -> bool:
        """Return whether a day is a working day, by a notice or by assumption."""
        return self.day(day).is_workday

    def count_workdays(self, day: date, count: int) -> tuple[date, bool]:
        """Return the last of so many working days after *day*, and whether each day up to it is confirmed.

        The answers are kept, since a list computes hundreds of deadlines, of few days and few limits.
        """
        known = self._counted.get((day, count))
        if known is not None:
            return known
        last, confirmed, left = day, True, count
        for following in self.days_after(day):
            confirmed &= following.confirmed
            left -= following.is_workday
            if left <= 0:
                last = following.date
                break
        if len(self._counted) >= _MOST_COUNTED:
            self._counted.clear()
        self._counted[day, count] = last, confirmed
        return last, confirmed

    def days_after(self, day: date) -> Iterator[Day]:
        """Iterate over the days after *day*, working days or not, to the last day that a date can hold."""
        while True:
            day += _DAY
            yield self.day(day)

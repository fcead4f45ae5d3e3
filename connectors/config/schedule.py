"""Schedule of the passes over a source: when the next one is due. Pure.

    schedule: { every: 15m }                                     from the beginning of one pass to that of the next
    schedule: { daily_at: "02:30", timezone: Asia/Shanghai }     at a time of day
    schedule: { cron: "30 2 * * 1-5", timezone: Asia/Shanghai }  the five fields of cron(8), as Debian's reads them

What is due is derived from when the last complete pass began, which the ledger keeps:

    never run before     due at once
    stopped, or the machine slept, over one time or several: due at once, and once
    a pass failed        due at once: it is not complete
    clocks go forward    a time that this day does not have is due at the first moment after the gap
    clocks go back       a time that this day has twice is due the first time alone; `every` and an hour of `*` go on
    clock set back       reckoned from now, since no pass began in the future
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

__all__ = ["Schedule", "parse_cron"]

_FIELDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule; one of the two is set.

    Attributes:
        every: seconds; 0 = by `cron`.
        cron: five fields, by the clock of `timezone`.
    """

    every: float = 0.0
    cron: str = ""
    timezone: str = "UTC"

    def due(self, last: datetime | None, now: datetime) -> datetime:
        """Return when the next pass is due; a time that is not after *now* means at once.

        Args:
            last: when the last complete pass began, with a time zone; None = there was none.
            now: by this machine's clock, with a time zone.

        Raises:
            ValueError: there is no such time within 50 years.
        """
        if last is None:
            return now
        begun = min(last, now)
        if self.every:
            return begun + timedelta(seconds=self.every)
        try:
            return next(CronSim(self.cron, begun.astimezone(ZoneInfo(self.timezone)))).astimezone(UTC)
        except StopIteration:
            raise ValueError(f"cron {self.cron!r} names no time") from None


def parse_cron(text: str) -> str:
    """Return the five fields of a cron expression, separated by single blanks.

    Raises:
        ValueError: it is none, or names no time.
    """
    fields = text.split()
    if len(fields) != _FIELDS:
        raise ValueError('expected the five fields of cron, such as "30 2 * * 1-5": minute hour day month weekday')
    cron = " ".join(fields)
    try:
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{error}; expected minute hour day month weekday, such as 30 2 * * 1-5") from error
    except StopIteration:
        raise ValueError("it names no time, such as 30 February") from None
    return cron

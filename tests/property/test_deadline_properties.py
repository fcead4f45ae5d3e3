"""Properties of clocks: a longer limit is never due earlier, a pause never shortens, the last day is a working day."""

import json
from datetime import UTC, date, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from exchange.deadlines.calendar import ArrangedYear, NamedDay
from exchange.deadlines.clock import SHANGHAI, AfterPause, Clock, Limit, Unit
from exchange.deadlines.shipped import shipped_calendar

CALENDAR = shipped_calendar()
START = datetime(2025, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 4 * 365 * 86_400).map(lambda seconds: START + timedelta(seconds=seconds))
UNITS = st.sampled_from([Unit.WORKING_DAYS, Unit.DAYS, Unit.HOURS])
COUNTED = st.sampled_from([Unit.WORKING_DAYS, Unit.DAYS, Unit.MONTHS, Unit.YEARS])
STEPS = st.lists(st.tuples(st.integers(0, 20 * 86_400), st.integers(0, 20 * 86_400)), max_size=3)


def due_at(clock: Clock) -> datetime:
    due = clock.due(CALENDAR)
    assert due is not None
    return due.at


def clocks(units: st.SearchStrategy[Unit]) -> st.SearchStrategy[Clock]:
    """Build clocks with pauses that have ended."""

    def build(start: datetime, amount: int, unit: Unit, then: AfterPause, steps: list[tuple[int, int]]) -> Clock:
        clock, moment = Clock(started_at=start, limit=Limit(amount, unit), after_pause=then), start
        for wait, length in steps if unit not in {Unit.MONTHS, Unit.YEARS} else []:
            clock = clock.paused(moment + timedelta(seconds=wait))
            moment += timedelta(seconds=wait + length)
            clock = clock.resumed(moment)
        return clock

    return st.builds(build, MOMENTS, st.integers(1, 60), units, st.sampled_from(AfterPause), STEPS)


@given(clocks(st.sampled_from(Unit)))
def test_a_stored_clock_is_the_same(clock: Clock) -> None:
    assert Clock.from_json(json.loads(json.dumps(clock.to_json()))) == clock


@given(clocks(UNITS), st.integers(1, 60))
def test_a_longer_limit_is_due_later(clock: Clock, more: int) -> None:
    assert due_at(clock.extended_by(more)) >= due_at(clock)
    if clock.limit.unit is Unit.WORKING_DAYS and not clock.pauses:
        assert due_at(clock.extended_by(more)) > due_at(clock)


@given(clocks(UNITS), st.integers(0, 30 * 86_400), st.integers(0, 30 * 86_400))
def test_a_pause_never_shortens(clock: Clock, wait: int, length: int) -> None:
    last = clock.pauses[-1].until if clock.pauses else clock.started_at
    assert last is not None
    since = last + timedelta(seconds=wait)
    paused = clock.paused(since)
    assert due_at(paused.resumed(since + timedelta(seconds=length))) >= due_at(clock)
    assert paused.due(CALENDAR) in (None, clock.due(CALENDAR))


@given(clocks(UNITS), st.integers(1, 30 * 86_400))
def test_a_longer_pause_is_never_due_earlier(clock: Clock, more: int) -> None:
    assume(clock.pauses)
    since = clock.pauses[-1].since
    until = clock.pauses[-1].until
    assert until is not None
    shorter = Clock(
        started_at=clock.started_at, limit=clock.limit, pauses=clock.pauses[:-1], after_pause=clock.after_pause
    ).paused(since)
    assert due_at(shorter.resumed(until + timedelta(seconds=more))) >= due_at(shorter.resumed(until))


@given(clocks(COUNTED))
def test_the_last_day_is_a_working_day_after_the_day_of_receipt(clock: Clock) -> None:
    due = clock.due(CALENDAR)
    assert due is not None
    assert CALENDAR.is_workday(due.day)
    assert due.day > clock.started_at.astimezone(SHANGHAI).date()
    assert due.at.astimezone(SHANGHAI).timetz() == datetime(2026, 1, 1, tzinfo=SHANGHAI).timetz()
    assert due.at.astimezone(SHANGHAI).date() == due.day + timedelta(days=1)


@given(MOMENTS, st.integers(1, 60))
def test_as_many_working_days_lie_between_as_the_limit_has(start: datetime, amount: int) -> None:
    due = Clock(started_at=start, limit=Limit(amount, Unit.WORKING_DAYS)).due(CALENDAR)
    assert due is not None
    first = start.astimezone(SHANGHAI).date()
    between = [first + timedelta(days=n) for n in range(1, (due.day - first).days + 1)]
    assert sum(map(CALENDAR.is_workday, between)) == amount
    assert due.provisional is (due.day.year > 2026)


@given(st.datetimes(datetime(2026, 11, 1), datetime(2027, 12, 1)), st.integers(1, 15), st.data())  # noqa: DTZ001
def test_a_notice_confirms_every_deadline_of_its_year(start: datetime, amount: int, data: st.DataObject) -> None:
    first = date(2026, 12, 1)
    named = data.draw(st.dictionaries(st.integers(0, 395), st.booleans(), max_size=40))
    days = tuple(NamedDay(first + timedelta(days=n), named[n], "n") for n in sorted(named))
    later = CALENDAR.with_year(ArrangedYear(2027, days))
    clock = Clock(started_at=start.replace(tzinfo=SHANGHAI), limit=Limit(amount, Unit.WORKING_DAYS))
    due = clock.due(later)
    assert due is not None
    assert due.provisional is (due.day.year > 2027)
    assert later.is_workday(due.day)
    assert clock.due(CALENDAR) == clock.due(shipped_calendar()), "the calendar before it has not changed"

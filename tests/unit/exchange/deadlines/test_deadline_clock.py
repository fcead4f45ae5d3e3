"""Clocks: golden vectors of working days; pauses, extensions, hours, calendar days, months and years."""

from datetime import datetime, timedelta, timezone

import pytest

from exchange.deadlines.calendar_csv import parse_year
from exchange.deadlines.clock import LARGEST_LIMIT, SHANGHAI, AfterPause, Clock, DueState, Limit, Pause, Unit
from exchange.deadlines.shipped import shipped_calendar

CALENDAR = shipped_calendar()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def clock(start: str, amount: int, unit: Unit = Unit.WORKING_DAYS, *, to_workday: bool = True) -> Clock:
    return Clock(started_at=at(start), limit=Limit(amount, unit), to_workday=to_workday)


def last_day(one: Clock) -> str:
    due = one.due(CALENDAR)
    assert due is not None
    return due.day.isoformat()


@pytest.mark.parametrize(
    ("received", "days", "last", "provisional"),
    [
        ("2026-09-30T09:00", 10, "2026-10-20", False),  # over the National Day's week, with the Saturday after it
        ("2026-02-13T09:00", 1, "2026-02-14", False),  # a Saturday on which work is made up for
        ("2026-02-13T09:00", 10, "2026-03-05", False),
        ("2026-01-01T09:00", 1, "2026-01-04", False),  # received on a holiday; a Sunday, and a working day
        ("2026-12-24T09:00", 10, "2027-01-08", True),
        ("2026-11-30T09:00", 1, "2026-12-01", False),
        ("2026-11-30T23:59:59", 1, "2026-12-01", False),
        ("2026-11-27T09:00", 1, "2026-11-30", False),
        ("2026-11-28T09:00", 1, "2026-11-30", False),  # a Saturday
        ("2026-12-31T09:00", 1, "2027-01-04", True),
    ],
)
def test_golden_working_days(received: str, days: int, last: str, provisional: bool) -> None:
    due = clock(received, days).due(CALENDAR)
    assert due is not None
    assert (due.day.isoformat(), due.provisional) == (last, provisional)
    assert due.at == at(f"{last}T00:00") + timedelta(days=1)


def test_days_are_those_of_shanghai_wherever_the_event_was_recorded() -> None:
    evening = datetime(2026, 11, 29, 16, 30, tzinfo=timezone.utc)  # noqa: UP017 - half past midnight in Shanghai
    due = Clock(started_at=evening, limit=Limit(1, Unit.WORKING_DAYS)).due(CALENDAR)
    assert due is not None
    assert due.day.isoformat() == "2026-12-01"


def test_a_notice_confirms_and_moves_what_was_provisional() -> None:
    text = "date,is_workday,notice\n2027-01-01,false,n\n2027-01-02,false,n\n2027-01-03,true,n\n2027-10-01,false,n\n"
    later = CALENDAR.with_year(parse_year(text, 2027, name="x"))
    due = clock("2026-12-24T09:00", 10).due(later)
    assert due is not None
    assert (due.day.isoformat(), due.provisional) == ("2027-01-07", False)


def test_an_extension_adds_to_the_limit() -> None:
    assert last_day(clock("2026-11-30T09:00", 10)) == "2026-12-14"
    assert last_day(clock("2026-11-30T09:00", 10).extended_by(10)) == "2026-12-28"


def test_a_day_on_which_the_clock_stood_still_is_not_counted() -> None:
    paused = clock("2026-11-30T09:00", 10).paused(at("2026-12-03T10:00"))
    assert paused.standing
    assert paused.due(CALENDAR) is None
    # 1 and 2 December have passed; the eight days left begin on the day after the pause.
    assert last_day(paused.resumed(at("2026-12-08T10:00"))) == "2026-12-18"
    assert last_day(paused.resumed(at("2026-12-03T11:00"))) == "2026-12-15"


def test_a_clock_that_starts_anew_has_its_whole_limit() -> None:
    restarting = Clock(
        started_at=at("2026-11-30T09:00"),
        limit=Limit(10, Unit.WORKING_DAYS),
        after_pause=AfterPause.RESTART,
        pauses=(Pause(at("2026-12-03T10:00"), at("2026-12-08T10:00")),),
    )
    assert last_day(restarting) == "2026-12-22"
    assert last_day(restarting.extended_by(5)) == "2026-12-29"


@pytest.mark.parametrize("after_pause", AfterPause)
def test_what_is_late_stays_late(after_pause: AfterPause) -> None:
    late = Clock(started_at=at("2026-11-30T09:00"), limit=Limit(1, Unit.WORKING_DAYS), after_pause=after_pause)
    paused = late.paused(at("2026-12-02T00:00"))
    assert paused.due(CALENDAR) == late.due(CALENDAR)
    assert paused.resumed(at("2026-12-20T00:00")).due(CALENDAR) == late.due(CALENDAR)


def test_hours_are_exact_and_know_no_holidays() -> None:
    due = clock("2026-10-01T15:20", 24, Unit.HOURS).due(CALENDAR)
    assert due is not None
    assert (due.at, due.day.isoformat(), due.provisional) == (at("2026-10-02T15:20"), "2026-10-02", False)
    midnight = clock("2026-10-01T00:00", 24, Unit.HOURS).due(CALENDAR)
    assert midnight is not None
    assert midnight.day.isoformat() == "2026-10-01"
    paused = clock("2026-10-01T15:20", 24, Unit.HOURS).paused(at("2026-10-01T16:20")).resumed(at("2026-10-01T18:20"))
    assert paused.due(CALENDAR) is not None
    assert paused.due(CALENDAR).at == at("2026-10-02T17:20")  # type: ignore[union-attr]


def test_the_last_of_calendar_days_moves_to_a_working_day() -> None:
    assert last_day(clock("2026-09-25T09:00", 7, Unit.DAYS)) == "2026-10-08"  # the second of October is a holiday
    assert last_day(clock("2026-09-25T09:00", 7, Unit.DAYS, to_workday=False)) == "2026-10-02"
    assert last_day(clock("2026-11-30T09:00", 4, Unit.DAYS)) == "2026-12-04"


@pytest.mark.parametrize(
    ("start", "amount", "unit", "last"),
    [
        ("2026-01-31T09:00", 1, Unit.MONTHS, "2026-02-28"),
        ("2026-11-30T09:00", 3, Unit.MONTHS, "2027-02-28"),
        ("2024-02-29T09:00", 3, Unit.YEARS, "2027-02-28"),
        ("2026-11-30T09:00", 3, Unit.YEARS, "2029-11-30"),
    ],
)
def test_months_and_years_end_on_the_day_of_the_same_number(start: str, amount: int, unit: Unit, last: str) -> None:
    assert last_day(clock(start, amount, unit, to_workday=False)) == last


def test_how_near_it_is() -> None:
    due = clock("2026-11-30T09:00", 10).due(CALENDAR)
    assert due is not None
    states = {
        "2026-11-30T10:00": DueState.NORMAL,
        "2026-12-10T10:00": DueState.NORMAL,
        "2026-12-11T10:00": DueState.SOON,  # a Friday: the next working day is the last one
        "2026-12-13T10:00": DueState.SOON,
        "2026-12-14T23:59": DueState.SOON,
        "2026-12-15T00:00": DueState.OVERDUE,
        "2028-01-01T00:00": DueState.OVERDUE,
    }
    assert {now: due.state(at(now), CALENDAR) for now in states} == states


@pytest.mark.parametrize(
    ("amount", "unit"), [(0, Unit.DAYS), (-1, Unit.HOURS), (LARGEST_LIMIT + 1, Unit.WORKING_DAYS), (101, Unit.YEARS)]
)
def test_a_limit_has_bounds(amount: int, unit: Unit) -> None:
    with pytest.raises(ValueError, match="expected from 1 to"):
        Limit(amount, unit)


def test_pauses_are_in_the_order_of_time() -> None:
    running = clock("2026-11-30T09:00", 10)
    with pytest.raises(ValueError, match="stand still"):
        running.resumed(at("2026-12-01T00:00"))
    paused = running.paused(at("2026-12-01T00:00"))
    with pytest.raises(ValueError, match="stands still already"):
        paused.paused(at("2026-12-02T00:00"))
    with pytest.raises(ValueError, match="pauses that overlap"):
        paused.resumed(at("2026-11-30T23:00"))
    with pytest.raises(ValueError, match="pauses that overlap"):
        running.paused(at("2026-11-29T00:00"))
    with pytest.raises(ValueError, match="without an offset"):
        running.paused(datetime(2026, 12, 1))  # noqa: DTZ001 - this is what is refused
    with pytest.raises(ValueError, match="a pause of a limit in years"):
        clock("2026-11-30T09:00", 3, Unit.YEARS).paused(at("2026-12-01T00:00"))

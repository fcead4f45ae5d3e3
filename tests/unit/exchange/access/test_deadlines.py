"""Deadlines of requests: working days, the day of receipt not counted, provisional without a notice."""

from datetime import UTC, datetime, timedelta, timezone

import chinese_calendar
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.access.decision.deadlines import Deadline, DueState, deadline_of, submitted_at
from schemas.identifiers import uuid7

CHINA = timezone(timedelta(hours=8))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=CHINA)


@pytest.mark.parametrize(
    ("received", "unconditional", "due", "confirmed"),
    [
        ("2026-11-30T09:00", True, "2026-12-02", True),  # a Monday; the end of Tuesday
        ("2026-11-30T23:59", True, "2026-12-02", True),
        ("2026-11-27T09:00", True, "2026-12-01", True),  # a Friday; the end of Monday
        ("2026-11-30T09:00", False, "2026-12-15", True),  # ten working days; the end of Monday in two weeks
        ("2026-09-30T09:00", True, "2026-10-09", True),  # before the National Day's week
        ("2026-09-30T09:00", False, "2026-10-21", True),  # with the Saturday that makes up for it
        ("2026-12-31T09:00", True, "2027-01-02", False),  # no notice of 2027 yet: Monday to Friday
        ("2026-12-28T09:00", False, "2027-01-12", False),
    ],
)
def test_golden_deadlines(received: str, unconditional: bool, due: str, confirmed: bool) -> None:
    assert deadline_of(at(received), unconditional=unconditional) == Deadline(at(f"{due}T00:00"), confirmed)


@given(st.integers(0, 60_000_000), st.booleans())
def test_as_many_working_days_lie_between(seconds: int, unconditional: bool) -> None:
    moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    deadline = deadline_of(moment, unconditional=unconditional)
    day, last = moment.astimezone(CHINA).date(), deadline.due_at.astimezone(CHINA).date() - timedelta(days=1)
    days = [day + timedelta(days=n) for n in range(1, (last - day).days + 1)]
    assert sum(map(chinese_calendar.is_workday, days)) == (1 if unconditional else 10)
    assert chinese_calendar.is_workday(last)
    later = deadline_of(moment + timedelta(hours=5), unconditional=unconditional)
    assert later.due_at >= deadline.due_at


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ("2026-11-30T10:00", DueState.NORMAL),
        ("2026-12-10T10:00", DueState.NORMAL),
        ("2026-12-11T10:00", DueState.SOON),  # a Friday: the next working day is the last one
        ("2026-12-13T10:00", DueState.SOON),
        ("2026-12-14T23:59", DueState.SOON),
        ("2026-12-15T00:00", DueState.OVERDUE),
        ("2028-01-01T00:00", DueState.OVERDUE),
    ],
)
def test_how_near_it_is(now: str, state: DueState) -> None:
    assert deadline_of(at("2026-11-30T09:00"), unconditional=False).state(at(now)) is state


def test_when_a_request_was_received_its_id_says() -> None:
    moment = datetime(2026, 11, 30, 1, 2, 3, 456_000, tzinfo=UTC)
    assert submitted_at(uuid7(int(moment.timestamp() * 1_000_000))) == moment
    with pytest.raises(ValueError, match="base 16"):
        submitted_at("no id at all")

"""When a pass is due: by interval, by the clock of a zone, at its changes, after a sleep."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.config.config import ConnectorConfig
from connectors.config.lint import parse_config
from connectors.config.schedule import Schedule, parse_cron

BERLIN = ZoneInfo("Europe/Berlin")
SHANGHAI = ZoneInfo("Asia/Shanghai")
NIGHT = Schedule(cron="30 2 * * *", timezone="Asia/Shanghai")
moments = st.integers(0, 2_500_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
zones = st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
times = st.tuples(st.integers(0, 23), st.integers(0, 59))


def test_what_was_never_published_is_due_at_once() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert NIGHT.due(None, now) == now


def test_a_time_of_day_is_that_of_its_zone() -> None:
    last = datetime(2026, 3, 1, 2, 30, 5, tzinfo=SHANGHAI)
    assert NIGHT.due(last, last) == datetime(2026, 3, 1, 18, 30, tzinfo=UTC)


def test_a_machine_that_slept_over_several_times_has_one_pass_due_at_once() -> None:
    last, now = datetime(2026, 3, 1, 2, 30, tzinfo=SHANGHAI), datetime(2026, 3, 5, 9, tzinfo=SHANGHAI)
    assert NIGHT.due(last, now) <= now
    assert NIGHT.due(now, now) == datetime(2026, 3, 6, 2, 30, tzinfo=SHANGHAI)


def test_a_time_that_a_day_lacks_is_due_after_the_gap() -> None:
    schedule = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    last = datetime(2026, 3, 28, 2, 30, tzinfo=BERLIN)
    assert schedule.due(last, last) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)  # 03:00, when 02:00 would have been


def test_a_time_that_a_day_has_twice_is_due_once() -> None:
    schedule = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    first = schedule.due(datetime(2026, 10, 24, 2, 30, tzinfo=BERLIN), datetime(2026, 10, 24, 3, tzinfo=BERLIN))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert schedule.due(first, first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_an_interval_goes_on_through_a_change_of_the_clocks() -> None:
    schedule = Schedule(every=1800.0)
    last = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    assert schedule.due(last, last) == last + timedelta(minutes=30)


def test_a_clock_that_was_set_back_does_not_wait_for_the_future() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=SHANGHAI)
    assert NIGHT.due(now + timedelta(days=300), now) == datetime(2026, 3, 2, 2, 30, tzinfo=SHANGHAI)
    assert Schedule(every=60.0).due(now + timedelta(days=300), now) == now + timedelta(seconds=60)


@given(moments, zones, times)
def test_a_daily_pass_is_due_within_a_day_and_after_the_last_one(
    last: datetime, zone: str, time: tuple[int, int]
) -> None:
    hour, minute = time
    schedule = Schedule(cron=f"{minute} {hour} * * *", timezone=zone)
    due = schedule.due(last, last)
    assert timedelta() < due - last <= timedelta(hours=26)
    assert schedule.due(due, due) - due >= timedelta(hours=21), "once a day"


@pytest.mark.parametrize("text", ["", "* * * *", "60 2 * * *", "30 2 * * 1-5 2026", "0 0 30 2 *", "@daily", "x"])
def test_what_is_no_cron_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"30 2 \* \* 1-5|30 February"):
        parse_cron(text)


CONFIG = """\
version: 1
connector: drop
exchange: {{ identity: identity/ }}
source: {{ kind: files, path: drop/ }}
publish:
  - resource: item.v1
    schedule: {{ {schedule} }}
"""


@pytest.mark.parametrize(
    ("schedule", "word"),
    [
        ("every: 15m, cron: '30 2 * * *'", "one of"),
        ("timezone: Asia/Shanghai", "one of"),
        ("daily_at: '02:30'", "`timezone:`"),
        ("daily_at: '2:30', timezone: Asia/Shanghai", "02:30"),
        ("daily_at: '25:00', timezone: Asia/Shanghai", "02:30"),
        ("daily_at: '02:30', timezone: Asia/Shangai", 'did you mean "Asia/Shanghai"'),
        ("cron: '61 * * * *', timezone: UTC", "minute"),
        ("every: 0s", "every"),
        ("evry: 15m", 'did you mean "every"'),
    ],
)
def test_lint_names_what_is_wrong_with_a_schedule(schedule: str, word: str) -> None:
    found = parse_config(CONFIG.format(schedule=schedule))
    assert isinstance(found, list), found
    assert any(word in each.message for each in found), found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("every: 15m", Schedule(every=900.0)),
        ("daily_at: 02:30, timezone: Asia/Shanghai", Schedule(cron="30 2 * * *", timezone="Asia/Shanghai")),
        ("cron: '0  4 * * 1-5', timezone: UTC", Schedule(cron="0 4 * * 1-5", timezone="UTC")),
    ],
)
def test_a_schedule_is_what_the_file_says(schedule: str, expected: Schedule) -> None:
    found = parse_config(CONFIG.format(schedule=schedule))
    assert isinstance(found, ConnectorConfig), found
    assert found.publish[0].schedule is not None
    assert found.publish[0].schedule.schedule() == expected

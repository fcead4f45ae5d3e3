"""Working-day calendar: by whose notice, confirmed or assumed; its CSV form with faults by line and column."""

from datetime import date, timedelta

import chinese_calendar
import pytest

from exchange.deadlines.calendar import ArrangedYear, Calendar, FixedHoliday, NamedDay
from exchange.deadlines.calendar_csv import parse_year, write_days
from exchange.deadlines.shipped import shipped_calendar
from schemas.errors import InvalidError, Reason

NOTICE = "国办发明电〔2026〕0号"
HEAD = "date,is_workday,notice\n"
NEXT = f"""{HEAD}2026-12-26,true,{NOTICE}
2027-01-01,false,{NOTICE}
2027-05-01,false,{NOTICE}
2027-10-01,false,{NOTICE}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        parse_year(text, 2027, name="notice.csv")
    assert caught.value.reason is Reason.CONFIG_INVALID
    return caught.value.message.split("\n")


def test_every_day_is_the_one_of_the_package_that_it_comes_from() -> None:
    calendar, day = shipped_calendar(), date(2004, 1, 1)
    while day.year < 2027:
        said = calendar.day(day)
        assert said.is_workday is chinese_calendar.is_workday(day), day
        assert said.confirmed
        day += timedelta(days=1)


@pytest.mark.parametrize("day", ["2026-01-04", "2026-02-14", "2026-02-28", "2026-05-09", "2026-09-20", "2026-10-10"])
def test_the_weekend_days_of_2026_on_which_work_is_made_up_for(day: str) -> None:
    said = shipped_calendar().day(date.fromisoformat(day))
    assert said.is_workday
    assert said.date.isoweekday() > 5
    assert "2026" in said.notice


def test_a_year_without_a_notice_is_assumed_and_says_so() -> None:
    calendar = shipped_calendar()
    for day, working in [("2027-01-04", True), ("2027-01-02", False), ("2027-01-01", False), ("2027-10-01", False)]:
        said = calendar.day(date.fromisoformat(day))
        assert (said.is_workday, said.confirmed, said.notice) == (working, False, "")


def test_a_notice_goes_before_the_one_of_the_year_before_it() -> None:
    before = shipped_calendar()
    after = before.with_year(parse_year(NEXT, 2027, name="notice.csv"))
    saturday = date(2026, 12, 26)
    assert not before.is_workday(saturday)
    assert after.day(saturday).is_workday
    assert after.day(saturday).notice == NOTICE
    assert after.day(date(2027, 6, 1)).confirmed
    assert not before.day(date(2027, 6, 1)).confirmed, "a calendar does not change"
    assert before.version != after.version
    assert [year.year for year in after.years] == list(range(2004, 2028))


def test_a_day_that_the_next_notice_names_is_known_although_its_year_is_not() -> None:
    fixed = [FixedHoliday(1, 1, since=1950)]
    calendar = Calendar([ArrangedYear(2028, (NamedDay(date(2027, 12, 25), True, "n"),))], fixed_holidays=fixed)
    assert calendar.day(date(2027, 12, 25)).confirmed
    assert not calendar.day(date(2027, 12, 24)).confirmed


def test_a_calendar_in_which_a_year_is_known_is_another_version_also_without_a_day_that_is_named() -> None:
    known = Calendar([ArrangedYear(2027, ())], fixed_holidays=[])
    assert known.version != Calendar([], fixed_holidays=[]).version
    assert known.version != Calendar([ArrangedYear(2027, ())], fixed_holidays=[FixedHoliday(1, 1, since=1950)]).version


def test_a_year_stands_once() -> None:
    with pytest.raises(ValueError, match="two arrangements of 2027"):
        Calendar([ArrangedYear(2027, ()), ArrangedYear(2027, ())], fixed_holidays=[])


@pytest.mark.parametrize("day", [date(2026, 11, 30), date(2028, 1, 1)])
def test_a_notice_names_no_day_of_another_year(day: date) -> None:
    with pytest.raises(ValueError, match=r"expected a day of 2027, or of December of 2026"):
        ArrangedYear(2027, (NamedDay(day, False, "n"),))


def test_an_arrangement_that_misses_a_holiday_of_the_law_is_found() -> None:
    arranged = parse_year(NEXT, 2027, name="notice.csv")
    # 2 and 3 October 2027 are a weekend, 2 May is a Sunday
    assert shipped_calendar().missed_holidays(arranged) == ()
    half = parse_year(f"{HEAD}2027-01-01,false,n\n", 2027, name="notice.csv")
    assert shipped_calendar().missed_holidays(half) == (date(2027, 10, 1),)


def test_the_labour_day_has_a_second_day_from_2025_on() -> None:
    calendar = shipped_calendar()
    assert not calendar.is_fixed_holiday(date(2024, 5, 2))
    assert calendar.is_fixed_holiday(date(2025, 5, 2))


def test_what_is_written_is_read_again() -> None:
    year = shipped_calendar().years[-1]
    assert parse_year(write_days(year.days), year.year, name="x") == year


def test_a_spreadsheet_s_own_ways_of_writing_are_read() -> None:
    text = '\ufeffdate,is_workday,notice\r\n2027-01-01,FALSE,"a, b"\r\n\r\n2027-01-02,1,c\r\n'
    days = parse_year(text, 2027, name="x").days
    assert [(one.date.day, one.is_workday, one.notice) for one in days] == [(1, False, "a, b"), (2, True, "c")]


def test_every_fault_is_named_by_line_and_column() -> None:
    text = f"{HEAD}2027-01-01,false,n\n2027-13-01,false,n\n2027-01-03,maybe,n\n2027-01-04,true,\n2027-01-05,true\n"
    assert [fault.partition(": ")[0] for fault in faults(text)] == [
        "notice.csv:3:1",
        "notice.csv:4:12",
        "notice.csv:5:17",
        "notice.csv:6:1",
    ]
    assert faults(f"{HEAD}2027-01-01,false,n\n2027-01-01,true,n\n") == [
        "notice.csv:3:1: got 2027-01-01 a second time; expected each day once"
    ]
    assert faults(f"{HEAD}2026-11-30,false,n\n")[0].startswith("notice.csv:2:1: got 2026-11-30; expected a day of 2027")


def test_a_file_that_is_none_is_refused() -> None:
    assert faults("day,working\n2027-01-01,1\n") == [
        "notice.csv:1:1: got another head; expected date,is_workday,notice"
    ]
    assert faults("")[0].startswith("notice.csv:1:1")
    assert faults(HEAD)[0].startswith("notice.csv:2:1: got no day")
    assert "expected 100000 at most" in faults(HEAD + "x" * 100_001)[0]
    many = [f"{date(2026, 12, 1) + timedelta(days=n)},true,n" for n in range(396)]
    assert len(parse_year(HEAD + "\n".join(many), 2027, name="x").days) == 396
    assert faults(HEAD + "nothing\n" * 50)[-1] == "and 30 more"


@pytest.mark.parametrize("day", ["2027-W01-1", "20270104xx", "2027-1-004", "２０２７-01-04"])
def test_a_date_has_one_form(day: str) -> None:
    assert faults(f"{HEAD}{day},false,n\n")[0].startswith("notice.csv:2:1: got no date")

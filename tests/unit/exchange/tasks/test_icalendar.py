"""Due dates as iCalendar: RFC 5545 as another program reads it, the same ids each time, nobody named."""

import re
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from exchange.tasks.icalendar import calendar_text
from exchange.tasks.model import Task, TaskDue, TaskKind, Urgency

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)


def task(title: str = "population.v1", *, provisional: bool = False, number: int = 1, due: bool = True) -> Task:
    on = date(2026, 5, 7)
    until = TaskDue(on, datetime(2026, 5, 7, 16, tzinfo=UTC), provisional, Urgency.SOON)
    return Task(
        kind=TaskKind.REQUEST, id=f"r-{number}", title=title, state="submitted", acts=("approve", "reject"),
        due=until if due else None,
    )  # fmt: skip


def read(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the properties of a calendar and of its events: lines unfolded (RFC 5545, 3.1), texts as they stand."""
    assert text.endswith("\r\n")
    lines = text.replace("\r\n ", "").removesuffix("\r\n").split("\r\n")
    assert (lines[0], lines[-1]) == ("BEGIN:VCALENDAR", "END:VCALENDAR")
    calendar: dict[str, str] = {}
    events: list[dict[str, str]] = []
    into = calendar
    for line in lines[1:-1]:
        if line == "BEGIN:VEVENT":
            into = {}
        elif line == "END:VEVENT":
            events.append(into)
            into = calendar
        else:
            name, value = line.split(":", 1)
            assert re.fullmatch(r"[A-Z-]+(;VALUE=DATE)?", name), line
            assert name not in into
            into[name] = value
    return calendar, events


def told(value: str) -> str:
    """Return the text of a value (RFC 5545, 3.3.11); a special character that is not escaped fails."""
    assert not re.search(r"(?<!\\)[;,]", re.sub(r"\\[\\;,nN]", "", value))
    return re.sub(r"\\([\\;,nN])", lambda one: "\n" if one[1] in "nN" else one[1], value)


def test_each_due_date_is_an_event_of_one_day_with_an_id_of_its_own() -> None:
    text = calendar_text([task(), task(number=2, provisional=True), task(number=3, due=False)], pool_id="city", now=NOW)
    calendar, (first, second) = read(text)
    assert (calendar["VERSION"], calendar["METHOD"]) == ("2.0", "PUBLISH")
    assert (first["UID"], second["UID"]) == ("request-r-1@city", "request-r-2@city")
    assert (first["DTSTART;VALUE=DATE"], first["DTEND;VALUE=DATE"]) == ("20260507", "20260508")
    assert first["DTSTAMP"] == "20260504T083000Z"
    assert (first["STATUS"], second["STATUS"]) == ("CONFIRMED", "TENTATIVE")
    assert "approve, reject" in told(first["SUMMARY"])
    assert told(second["SUMMARY"]).startswith("暂定 provisional:")


def test_ids_do_not_depend_on_when_and_in_what_order_it_is_read() -> None:
    _, events = read(calendar_text([task(number=1), task(number=2)], pool_id="city", now=NOW))
    _, later = read(calendar_text([task(number=2), task(number=1)], pool_id="city", now=NOW + timedelta(days=3)))
    assert {event["UID"] for event in events} == {event["UID"] for event in later}


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=200))
def test_any_title_is_one_value_of_one_line_whatever_stands_in_it(title: str) -> None:
    text = calendar_text([task(title)], pool_id="city", now=NOW)
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    assert not any(character in text.replace("\r\n", "") for character in "\r\n\x00\x07\x7f")
    _, (event,) = read(text)
    assert event["UID"] == "request-r-1@city"
    kept = title.replace("\r\n", "\n").replace("\r", "\n")
    shown = "".join(" " if (ord(one) < 32 and one != "\n") or ord(one) == 127 else one for one in kept)
    assert told(event["SUMMARY"]) == f"共享申请 {shown} (approve, reject)"

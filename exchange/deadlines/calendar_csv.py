"""CSV form of a calendar: `date,is_workday,notice`, parsed with every fault by line and column. Pure.

    date,is_workday,notice
    2026-01-01,false,国务院办公厅关于2026年部分节假日安排的通知
    2026-01-04,true,国务院办公厅关于2026年部分节假日安排的通知

A file names the days that differ from Monday to Friday; it may name others too. `is_workday` is true or false, or 1 or
0, as spreadsheets write them; a byte order mark is skipped. Every fault of a file is reported, not only the first.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import groupby
from typing import Final

from exchange.deadlines.calendar import ArrangedYear, FixedHoliday, NamedDay
from schemas.errors import InvalidError, Reason

__all__ = ["COLUMNS", "MAX_ROWS", "fixed_holidays_of", "parse_year", "parse_years", "write_days"]

COLUMNS: Final = ("date", "is_workday", "notice")
MAX_ROWS: Final = 400
"""Rows of one year's file at most: each of its days, and those of the December before."""

_LONGEST = 100_000  # characters of one year's file
_MOST_FAULTS = 20
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOST_NOTICE = 200
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


def parse_year(text: str, year: int, *, name: str) -> ArrangedYear:
    """Parse the arrangement of one year.

    Args:
        text: the file.
        year: the year that it arranges.
        name: name of the file in messages.

    Raises:
        InvalidError: CONFIG_INVALID, with each fault as NAME:LINE:COLUMN.
    """
    if len(text) > _LONGEST:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{name}: got {len(text)} characters; expected {_LONGEST} at most, one year's days"
        )
    faults: list[str] = []
    found: dict[date, NamedDay] = {}
    whole = ArrangedYear(year, ())
    for line, named in _rows(text, name, faults):
        if not whole.covers(named.date):
            faults.append(
                f"{name}:{line}:1: got {named.date}; expected a day of {year}, or of December of {year - 1} that its "
                "notice moves"
            )
        elif named.date in found:
            faults.append(f"{name}:{line}:1: got {named.date} a second time; expected each day once")
        found[named.date] = named
        if len(found) > MAX_ROWS:
            faults.append(f"{name}:{line}:1: got more than {MAX_ROWS} days; expected those of one year")
            break
    if not found and not faults:
        faults.append(f"{name}:2:1: got no day; expected the days that the notice of {year} names")
    _check(faults)
    return ArrangedYear(year, tuple(found[day] for day in sorted(found)))


def parse_years(text: str, *, name: str) -> list[ArrangedYear]:
    """Parse arrangements of several years, each day in the year that it is a day of.

    Raises:
        InvalidError: CONFIG_INVALID, as `parse_year`.
    """
    faults: list[str] = []
    rows = [named for _, named in _rows(text, name, faults)]
    _check(faults)
    by_year = groupby(sorted(rows, key=lambda one: one.date), key=lambda one: one.date.year)
    return [ArrangedYear(year, tuple(days)) for year, days in by_year]


def fixed_holidays_of(text: str) -> list[FixedHoliday]:
    """Return the holidays of a fixed date, of a file with the columns month, day, since and clause."""
    return [
        FixedHoliday(int(row["month"]), int(row["day"]), since=int(row["since"]))
        for row in csv.DictReader(io.StringIO(text))
    ]


def write_days(days: Iterable[NamedDay]) -> str:
    """Return days in this form; `parse_year` reads it again."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((one.date.isoformat(), str(one.is_workday).lower(), one.notice) for one in days)
    return out.getvalue()


def _rows(text: str, name: str, faults: list[str]) -> Iterator[tuple[int, NamedDay]]:
    """Iterate over the rows without a fault, with the number of their line; append the faults of the others."""
    lines = text.removeprefix("\ufeff").splitlines()
    head = [column.strip() for column in next(csv.reader(lines[:1]), [])]
    if tuple(head) != COLUMNS:
        faults.append(f"{name}:1:1: got another head; expected {','.join(COLUMNS)}")
        return
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        named = _row(line, f"{name}:{number}", faults)
        if named is not None:
            yield number, named


def _row(line: str, place: str, faults: list[str]) -> NamedDay | None:
    cells = [cell.strip() for cell in next(csv.reader([line]))]
    starts, at = [], 1
    for raw in line.split(",", len(COLUMNS) - 1):
        starts.append(at)
        at += len(raw) + 1
    if len(cells) != len(COLUMNS):
        faults.append(f"{place}:1: got {len(cells)} columns; expected {','.join(COLUMNS)}")
        return None
    day, working, notice = _date(cells[0]), _TRUTH.get(cells[1].lower()), cells[2]
    if day is None:
        faults.append(f"{place}:{starts[0]}: got no date; expected one such as 2027-01-31")
    if working is None:
        faults.append(f"{place}:{starts[1]}: got no truth value; expected true or false (working day or not)")
    if not notice or len(notice) > _MOST_NOTICE or not notice.isprintable():
        faults.append(
            f"{place}:{starts[2]}: got no notice, or one of more than {_MOST_NOTICE} characters; expected its number "
            "or title"
        )
    elif day is not None and working is not None:
        return NamedDay(day, working, notice)
    return None


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None  # ISO 8601 has dates by week too
    except ValueError:
        return None


def _check(faults: list[str]) -> None:
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise InvalidError(Reason.CONFIG_INVALID, "\n".join([*faults[:_MOST_FAULTS], *more]))

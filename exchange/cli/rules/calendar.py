"""Commands `pool calendar`: working days of each year, imported by one person and confirmed by another."""

from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.output import CommandGroup, print_json, print_line, print_rows, print_table, write_text
from exchange.cli.rules.files import read_text
from exchange.deadlines.change_state import ChangeState, RuleKind

__all__ = ["CHANGE_COLUMNS", "add_to"]

CHANGE_COLUMNS = ("id", "kind", "subject", "state", "proposed_by", "decided_by", "decided_at", "reason")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

calendar = typer.Typer(cls=CommandGroup)
calendar.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Working-day calendar (工作日历): imported by one person, confirmed by another."
    app.add_typer(calendar, name="calendar", help=text, no_args_is_help=True)


@calendar.command("list")
def calendar_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the years whose working days are known; in the others deadlines are provisional."""
    print_rows(client(context).list("/calendar"), ("year", "holidays", "workdays", "notices"), as_json=as_json)


@calendar.command("show")
def calendar_show(
    context: typer.Context,
    year: int,
    as_csv: Annotated[bool, typer.Option("--csv", help="as a file that `pool calendar import` takes")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the days of a year that its notice names; every other day is a working day from Monday to Friday."""
    document = client(context).get(f"/calendar/{year}")
    if as_json:
        print_json(document)
    elif as_csv:
        from datetime import date

        from exchange.deadlines.calendar import NamedDay
        from exchange.deadlines.calendar_csv import write_days

        write_text(
            write_days(
                NamedDay(date.fromisoformat(one["date"]), one["is_workday"], one["notice"]) for one in document["days"]
            )
        )
    else:
        print_table([_row(one) for one in document["days"]], ("date", "weekday", "day", "notice"))


@calendar.command("import")
def calendar_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with date,is_workday,notice: the days that the notice names")],
    year: Annotated[int, typer.Option(help="that the notice arranges; it is replaced as a whole")],
) -> None:
    """Propose the working days of a year; another person of the data authority confirms them.

    The file is checked here first, and each fault is named by line and column.
    """
    from exchange.deadlines.calendar_csv import parse_year

    text = read_text(file)
    arranged = parse_year(text, year, name=str(file))
    answer = client(context).post(f"/calendar/{year}", {"content": text})
    off = sum(not one.is_workday for one in arranged.days)
    print_line(f"proposed: calendar of {year}, {off} holidays and {len(arranged.days) - off} working days")
    print_line(f"another person of the data authority confirms it: pool calendar confirm {answer['id']}")


@calendar.command("confirm")
def calendar_confirm(context: typer.Context, change_id: str) -> None:
    """Confirm a calendar that another person has imported; deadlines follow it from now on."""
    answer = client(context).post(f"/rule-changes/{change_id}/confirmation", {"kind": RuleKind.CALENDAR.value})
    print_line(f"in force: calendar of {answer['subject']}")


@calendar.command("reject")
def calendar_reject(context: typer.Context, change_id: str, reason: ReasonOption) -> None:
    """Reject a calendar that was proposed, or withdraw your own."""
    body = {"kind": RuleKind.CALENDAR.value, "reason": reason}
    answer = client(context).post(f"/rule-changes/{change_id}/rejection", body)
    print_line(f"rejected: calendar of {answer['subject']}")


@calendar.command("changes")
def calendar_changes(
    context: typer.Context,
    state: Annotated[ChangeState | None, typer.Option()] = None,
    as_json: JsonOption = False,
) -> None:
    """List imported calendars and who decided on them, newest first; `proposed` ones wait for a second person."""
    query = {"kind": RuleKind.CALENDAR.value, "state": state}
    print_rows(client(context).list("/rule-changes", query), CHANGE_COLUMNS, as_json=as_json)


@calendar.command("change")
def calendar_change(context: typer.Context, change_id: str, as_json: JsonOption = False) -> None:
    """Show an imported calendar as it was proposed, before you confirm it."""
    document = client(context).get(f"/rule-changes/{change_id}")
    if as_json:
        print_json(document)
    else:
        write_text(document["content"])


def _row(day: dict[str, object]) -> dict[str, object]:
    from datetime import date

    weekday = _WEEKDAYS[date.fromisoformat(str(day["date"])).weekday()]
    return {**day, "weekday": weekday, "day": "working day" if day["is_workday"] else "holiday"}

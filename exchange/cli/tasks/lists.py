"""Commands of tasks: `pool task`, the lists of each morning, and the due dates as a calendar (待办)."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from exchange.cli.control import JsonOption, client, connect
from exchange.cli.output import CommandGroup, print_fields, print_line, print_rows

__all__ = ["add_to"]

task = typer.Typer(cls=CommandGroup)
task.callback()(connect)

_COLUMNS = ("kind", "id", "title", "state", "acts", "due_on", "due")


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Tasks (待办): what waits for you, what is overdue, what changed."
    app.add_typer(task, name="task", help=text, no_args_is_help=True)


@task.command("list")
def task_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what waits for you: requests, reviews, confirmations, tickets, cases; with what you may do next."""
    print_rows(client(context).list("/tasks"), _COLUMNS, as_json=as_json, row=_shown)


@task.command("overdue")
def task_overdue(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what waits for you and should have been done by now."""
    print_rows(client(context).list("/tasks/overdue"), _COLUMNS, as_json=as_json, row=_shown)


@task.command("show")
def task_show(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="as `pool task list` has it")],
    task_id: Annotated[str, typer.Argument(metavar="ID", help="of the thing that waits")],
    as_json: JsonOption = False,
) -> None:
    """Show one task: what it is about, what you may do next, since when it waits and until when."""
    print_fields(client(context).get(f"/tasks/{quote(kind, safe='')}/{quote(task_id, safe='')}"), as_json=as_json)


@task.command("changes")
def task_changes(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="time with an offset, such as 2026-05-04T08:00:00+08:00")] = "",
    as_json: JsonOption = False,
) -> None:
    """List what changed since yesterday, or since another time, among what your role takes part in."""
    rows = client(context).list("/tasks/changes", {"since": since} if since else None)
    print_rows(rows, ("at", "kind", "action", "resource", "grant", "state"), as_json=as_json)


@task.command("calendar")
def task_calendar(context: typer.Context, file: Path) -> None:
    """Write the due dates of your tasks as an iCalendar file (.ics), which names no person."""
    text = "".join(client(context).texts("/tasks/calendar"))
    file.write_bytes(text.encode())
    print_line(f"{file}: {text.count('BEGIN:VEVENT')} due dates")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    due = f"{row.get('due_on')} (provisional 暂定)" if row.get("provisional") else row.get("due_on")
    return {**row, "due_on": due}

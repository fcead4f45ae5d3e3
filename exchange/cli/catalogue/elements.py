"""Commands of data elements: `pool element`, the dictionary, lead departments, the report of duplicates."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect, read_document
from exchange.cli.output import CommandGroup, print_fields, print_json, print_line, print_rows

__all__ = ["add_to"]

element = typer.Typer(cls=CommandGroup)
element.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Data elements (数据元), and the source department of each (数源部门)."
    app.add_typer(element, name="element", help=text, no_args_is_help=True)


@element.command("define")
def element_define(context: typer.Context, file: Path) -> None:
    """Define a data element from a YAML or JSON file, or replace its definition."""
    print_json(client(context).post("/elements", read_document(file)))


@element.command("lead")
def element_lead(
    context: typer.Context,
    code: str,
    department: Annotated[str, typer.Option(help="internal id of the department")],
    reason: ReasonOption,
) -> None:
    """Name the lead department of an element, which alone is its source from then on (decree 809, Art. 19)."""
    answer = client(context).post(f"/elements/{code}/lead", {"department": department, "reason": reason})
    print_line(f"{code}: the lead is {answer['lead']}")
    for topic in answer.get("no_source", []):
        print_line(f"{topic} is its source no more; its department updates the entry")


@element.command("list")
def element_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the data elements."""
    columns = ("code", "zh", "en", "type", "length", "level", "standard", "lead")
    print_rows(client(context).list("/elements"), columns, as_json=as_json)


@element.command("show")
def element_show(context: typer.Context, code: str, as_json: JsonOption = False) -> None:
    """Show a data element, the entries in force that are its source, and the fields of schemas that name it."""
    pool = client(context)
    found, fields = pool.get(f"/elements/{code}"), pool.list(f"/elements/{code}/fields")
    if as_json:
        print_json({**found, "fields": fields})
        return
    print_fields(found, as_json=False)
    if fields:
        print_line("")
        print_rows(fields, ("subject", "path", "version"), as_json=False)


@element.command("gaps")
def element_gaps(context: typer.Context, as_json: JsonOption = False) -> None:
    """Report the fields of schemas that name no data element, or one that they do not fit."""
    columns = ("topic", "path", "zh", "element", "problem")
    print_rows(client(context).list("/element-gaps"), columns, as_json=as_json)


@element.command("duplicates")
def element_duplicates(context: typer.Context, as_json: JsonOption = False) -> None:
    """Report elements with several sources, sources beside the lead, and items of one name in several departments."""
    columns = ("kind", "element", "name", "lead", "entries")
    print_rows(client(context).list("/duplicates"), columns, as_json=as_json, row=_row)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "entries": [one["topic"] for one in row["entries"]]}

"""Commands `pool report lineage` and `pool report coverage`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, client
from exchange.cli.output import print_fields, print_line, print_table
from exchange.cli.report.group import ReportForm, report, write_report
from exchange.cli.report.pages import coverage_csv, coverage_html, lineage_csv, lineage_html
from schemas.errors import InvalidError, Reason

__all__ = ["add_to_group"]

_RESOURCE = re.compile(r"(?P<topic>.+\.v\d+)(?:\.(?P<field>.+))?")
_Output = Annotated[Path | None, typer.Option("--output", help="file to write; standard output if not given")]
_Form = Annotated[ReportForm, typer.Option("--format")]
_MOST_BATCHES = 100


def add_to_group() -> None:
    """Register the commands with the group `pool report`."""
    report.command("lineage")(lineage)
    report.command("coverage")(coverage)


def lineage(
    context: typer.Context,
    resource: Annotated[str, typer.Argument(metavar="RESOURCE[.FIELD]", help="such as population.v1.id_number")],
    form: _Form = ReportForm.TEXT,
    as_json: JsonOption = False,
    output: _Output = None,
) -> None:
    """Report the lineage (血缘) of a resource or field: source, schemas, elements, grants, consumers, batches.

    Its newest 100 batches: received, drawn by whom, concerned by which erasures.
    """
    found = _RESOURCE.fullmatch(resource)
    if found is None:
        raise InvalidError(Reason.NAME_INVALID, f"got {resource[:80]!r}; expected RESOURCE or RESOURCE.FIELD")
    path, field = f"/reports/lineage/{found['topic']}", found["field"] or ""
    pool = client(context)
    document: dict[str, Any] = pool.get(path, {"field": field} if field else None)
    document = {**document, "batches": pool.get(f"{path}/batches", {"limit": _MOST_BATCHES})}
    form = ReportForm.JSON if as_json else form
    if form is not ReportForm.TEXT or output is not None:
        write_report(document, form, output, html=lineage_html, csv=lineage_csv)
        return
    print_fields(
        {name: document[name] for name in ("resource", "title", "code", "provider", "provider_name", "state")},
        as_json=False,
    )
    fields = [
        {
            **one,
            "consumers": [f"{each['consumer_name'] or each['consumer']} ({each['mask']})" for each in one["grants"]],
        }
        for one in document["lineage"]
    ]
    print_table(fields, ("name", "zh", "level", "mask", "element", "since_version", "last_version", "consumers"))
    print_table(document["grants"], ("grant", "consumer_name", "state", "purpose", "releases", "records", "last"))
    batches = [
        {
            **one,
            "drawn": [f"{each['consumer_name'] or each['consumer']} {each['records']}" for each in one["drawn"]],
            "erased": len(one["erased"]),
        }
        for one in document["batches"]
    ]
    print_table(batches, ("received_at", "lane", "sequence", "records", "drawn", "erased", "entry"))


def coverage(
    context: typer.Context, form: _Form = ReportForm.TEXT, as_json: JsonOption = False, output: _Output = None
) -> None:
    """Report published resources by department, theme and division, with the empty cells named."""
    document: dict[str, Any] = client(context).get("/reports/coverage")
    form = ReportForm.JSON if as_json else form
    if form is not ReportForm.TEXT or output is not None:
        write_report(document, form, output, html=coverage_html, csv=coverage_csv)
        return
    print_table(document["departments"], ("name", "division", "resources", "themes"))
    print_table(document["themes"], ("theme", "zh", "resources"))
    names = {one["department"]: one["name"] for one in document["departments"]}
    zh = {one["theme"]: one["zh"] for one in document["themes"]}
    empty = document["empty"]
    print_line("without a resource: " + ", ".join(names.get(one, one) for one in empty["departments"]))
    print_line("themes without a resource: " + ", ".join(zh.get(one, one) for one in empty["themes"]))
    print_line("divisions without a resource: " + ", ".join(empty["divisions"]))
    for department, theme in empty["department_themes"]:
        print_line("empty", names.get(department, department), zh.get(theme, theme))

"""Commands `pool report kpi`, `kpis`, `entries` and `events`: figures of supervision, and what is behind them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, client
from exchange.cli.output import print_line, print_rows, print_table
from exchange.cli.report.group import ReportForm, report, write_report
from schemas.errors import InvalidError, Reason

__all__ = ["add_to_group"]

Month = Annotated[str, typer.Option("--month", help="YYYY-MM, of UTC+8; the current one if not given")]
Department = Annotated[str, typer.Option("--department", help="internal id; without it, all that you may read")]
_Output = Annotated[Path | None, typer.Option("--output", help="file to write; standard output if not given")]


class _Kind(StrEnum):
    """Kind of a supervision event."""

    CLOCK = "clock"
    OVERDUE = "overdue"
    REFUSAL = "refusal"
    OUT_OF_SCOPE = "out_of_scope"
    REPEATED = "repeated"
    CORRECTION = "correction"
    VIOLATION = "violation"
    GRANT_ENDED = "grant_ended"


def add_to_group() -> None:
    """Register the commands with the group `pool report`."""
    report.command("kpi")(kpi)
    report.command("kpis")(definitions)
    report.command("entries")(entries)
    report.command("events")(events)


def kpi(
    context: typer.Context,
    month: Month = "",
    department: Department = "",
    form: Annotated[ReportForm, typer.Option("--format")] = ReportForm.TEXT,
    as_json: JsonOption = False,
    from_log: Annotated[
        Path | None, typer.Option("--from-log", help="count from the log's folder or a copy alone, without the pool")
    ] = None,
    key: Annotated[str, typer.Option("--key", help="with --from-log: the log's public key, or its file")] = "",
    size: Annotated[
        int | None, typer.Option("--size", help="with --from-log: entries that count, as `entries` of other figures")
    ] = None,
    output: _Output = None,
) -> None:
    """Report the figures (考核指标) of departments for a month; as HTML they are a scoreboard with the entries behind.

    With --from-log they are counted again from the log's files, which are verified; it ends with 1 if the log is not
    whole.
    """
    from exchange.kpi.scoreboard import scoreboard_csv, scoreboard_html, scoreboard_rows

    form = ReportForm.JSON if as_json else form
    findings: list[str] = []
    if from_log is None:
        query = {name: value for name, value in (("month", month), ("department", department)) if value}
        document: dict[str, Any] = client(context).get("/reports/kpi", query)
    else:
        document, findings = _replayed(from_log, key, month, department, size)
    if form is ReportForm.TEXT and output is None:
        print_line(f"{document['month']}: of {document['entries']} entries of the log of {document['pool']}")
        print_table(scoreboard_rows(document), ("department", "kpi", "name", "value", "clause", "entries"))
    else:
        write_report(document, form, output, html=scoreboard_html, csv=scoreboard_csv)
    if findings:
        print_line(f"the log is not whole: {findings[0]}; run `pool audit verify`", err=True)
        raise typer.Exit(1)


def definitions(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the figures: name, clause and formula in both languages."""
    rows: list[dict[str, Any]] = client(context).list("/reports/kpis")
    print_rows(rows, ("id", "name_zh", "name_en", "clause", "unit", "formula_zh"), as_json=as_json)


def entries(
    context: typer.Context,
    figure: Annotated[str, typer.Argument(help="id of the figure, as in `pool report kpis`")],
    department: Annotated[str, typer.Option("--department", help="internal id of the department whose figure it is")],
    month: Month = "",
    as_json: JsonOption = False,
) -> None:
    """List the entries of the log behind a department's figure."""
    query = {name: value for name, value in (("month", month), ("department", department)) if value}
    rows: list[dict[str, Any]] = client(context).list(f"/reports/kpi/{figure}/entries", query)
    print_rows(rows, ("index", "entry", "time", "measure", "detail", "amount", "grant"), as_json=as_json)


def events(
    context: typer.Context,
    department: Department = "",
    kind: Annotated[_Kind | None, typer.Option("--kind", help="events of this kind alone")] = None,
    since: Annotated[str, typer.Option("--since", help="`sequence` of an event: those from it on")] = "",
    as_json: JsonOption = False,
) -> None:
    """List supervision events (监察事件) in the order of the log: clocks, overdue items, refusals."""
    query = {
        name: value
        for name, value in (("department", department), ("kind", kind and str(kind)), ("since", since))
        if value
    }
    rows: list[dict[str, Any]] = client(context).list("/supervision/events", query)
    columns = ("sequence", "time", "kind", "department", "resource", "grant", "detail", "rule", "due", "clause")
    print_rows(rows, columns, as_json=as_json)


def _replayed(
    folder: Path, key: str, month: str, department: str, size: int | None
) -> tuple[dict[str, Any], list[str]]:
    from exchange.cli.audit import read_key
    from exchange.kpi.replay import replay_log

    if not key or not month:
        raise InvalidError(
            Reason.CONFIG_INVALID, "got --from-log alone; expected also --key (log.pub) and --month YYYY-MM"
        )
    document, findings = replay_log(folder, key=read_key(key), month=month, size=size)
    if department:
        document["departments"] = [one for one in document["departments"] if one["department"] == department]
    return document, findings

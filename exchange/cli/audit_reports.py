"""Commands `pool audit report` and `pool audit stream`: the monthly report, and events for a SIEM.

Both read the log's files (or a copy) with its public key, verify what they read, and need neither database nor pool.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.output import is_damaged, print_line, write_text
from exchange.cli.report.group import write_report

__all__ = ["add_to"]

_PERIOD = 1.0  # seconds between looks at a log that does not grow; the sequencer signs every second


class ReportFormat(StrEnum):
    """Form of a report."""

    CSV = "csv"
    JSON = "json"
    HTML = "html"


class StreamFormat(StrEnum):
    """Form of an event."""

    RFC5424 = "rfc5424"
    JSONL = "jsonl"


Files = Annotated[Path, typer.Option("--files", help="the log's folder (DIR/log), or a copy")]
Key = Annotated[str, typer.Option("--key", help="the log's public key, or the file with it (log.pub)")]


def add_to(audit: typer.Typer) -> None:
    """Register the commands with the group `pool audit`."""
    audit.command("report")(report)
    audit.command("stream")(stream)


def report(
    files: Files,
    key: Key,
    month: Annotated[str, typer.Option("--month", help="YYYY-MM, of UTC+8")],
    form: Annotated[ReportFormat, typer.Option("--format")] = ReportFormat.HTML,
    since: Annotated[Path | None, typer.Option("--since", help="a checkpoint kept outside the pool")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="file to write; standard output if not given")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="address of the control API: for names of departments and resources")
    ] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file")] = None,
    authority: Annotated[Path | None, typer.Option("--authority")] = None,
) -> None:
    """Report a month: who drew what from whom, refusals, changes of rights, erasures, and whether the log is whole.

    Reads and verifies the whole log. Ends with 1 if it is not whole; the report is written all the same.
    """
    from exchange.audit.oversight.monthly_report import monthly_report
    from exchange.audit.oversight.report_csv import report_csv
    from exchange.audit.oversight.report_html import report_html
    from exchange.cli.audit import read_key, read_text

    names, titles = _names(url, token_file, authority)
    document = monthly_report(
        files,
        key=read_key(key),
        month=month,
        now=datetime.now(UTC),
        since=read_text(since) if since else None,
        names=names,
        titles=titles,
    )
    write_report(document, form, output, html=report_html, csv=report_csv)
    whole = document["integrity"]["whole"]
    if not whole:
        print_line("the log is not whole: run `pool audit verify`", err=True)
    raise typer.Exit(0 if whole else 1)


def stream(
    files: Files,
    key: Key,
    cursor: Annotated[Path, typer.Option("--cursor", help="file that holds how far the log was sent")],
    form: Annotated[StreamFormat, typer.Option("--format")] = StreamFormat.RFC5424,
    follow: Annotated[bool, typer.Option("--follow", help="go on as the log grows, until interrupted")] = False,
) -> None:
    """Print signed entries as events for a SIEM, from the cursor on; at least once, in the order of the log.

    An event has no case number, free text or position of a record. Let the receiver drop repeated ids.
    """
    from exchange.audit.oversight.siem import SiemCursor, json_line, signed_events, syslog_line
    from exchange.cli.audit import read_key

    line = syslog_line if form is StreamFormat.RFC5424 else json_line
    place, note_key = SiemCursor(cursor), read_key(key)
    while True:
        sent = False
        for origin, behind, events in signed_events(files, note_key, place):
            write_text("".join(map(line, events)), flush=True)  # before the cursor: what was not written is sent again
            place.write(origin, behind)
            sent = True
        if not follow:
            return
        if not sent:
            time.sleep(_PERIOD)


def _names(
    url: str | None, token_file: Path | None, authority: Path | None
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return names of departments and titles of resources by their ids, if an address was given; else none."""
    if url is None:
        return {}, {}
    from exchange.admin_client import from_options

    client = from_options(None, url, token_file, authority)
    departments: list[dict[str, Any]] = client.list("/departments")
    catalogue: list[dict[str, Any]] = client.list("/catalogue")
    return (
        {one["id"]: one["short_name"] or one["name"] for one in departments if not is_damaged(one)},
        {one["topic"]: one["title"] for one in catalogue if not is_damaged(one)},
    )

"""Group `pool report` and the forms of its documents."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from exchange.cli.control import connect
from exchange.cli.output import CommandGroup, write_text
from schemas.errors import InvalidError, Reason

__all__ = ["ReportForm", "add_to", "report", "write_report"]

report = typer.Typer(cls=CommandGroup)
report.callback()(connect)


class ReportForm(StrEnum):
    """Form of a report."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def add_to(app: typer.Typer) -> None:
    """Register the group with the program."""
    text = "Reports for supervision (共享监督): figures, lineage, coverage."
    app.add_typer(report, name="report", help=text, no_args_is_help=True)


def write_report(
    document: Any,
    form: str,
    output: Path | None,
    *,
    html: Callable[[Any], str],
    csv: Callable[[Any], str],
) -> None:
    """Write a document as HTML, CSV or JSON, to a file or to standard output.

    Raises:
        InvalidError: CONFIG_INVALID, the file cannot be written.
    """
    if form == ReportForm.HTML:
        text = html(document)
    elif form == ReportForm.CSV:
        text = "\ufeff" + csv(document)  # by the mark, spreadsheets know that it is UTF-8
    else:
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    if output is None:
        write_text(text)
        return
    try:
        output.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{output}: {error.strerror}") from error

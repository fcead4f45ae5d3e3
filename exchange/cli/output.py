"""Terminal output of `pool`: every line, table and document that a command prints goes through this module.

What departments wrote (names, purposes, case numbers, reasons) is shown to others, so control characters are escaped
here, at the one place that writes (`schemas.terminal`); no command calls `print`, which the linter and a test refuse.
Progress goes to standard error.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from registry.cli.command_group import CommandGroup
from registry.database.damaged_row import DAMAGED
from schemas.errors import CorruptError, InvalidError, PoolError, Reason, UnavailableError
from schemas.reason_texts import Language, environment_language, reason_text
from schemas.terminal import escape_controls, escape_line

__all__ = [
    "CommandGroup",
    "fail",
    "is_damaged",
    "on_terminal",
    "one_of",
    "print_fields",
    "print_json",
    "print_line",
    "print_lines",
    "print_progress",
    "print_rows",
    "print_table",
    "write_text",
]


def print_line(*cells: str, err: bool = False, flush: bool = False) -> None:
    """Print one line, of one text or of cells with tabs between; *err*: on standard error."""
    stream = sys.stderr if err else sys.stdout
    stream.write("\t".join(map(escape_line, cells)) + "\n")
    if flush:
        stream.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Print texts, each as one line."""
    for line in lines:
        print_line(line)


def write_text(text: str, *, flush: bool = False) -> None:
    """Write a text of several lines as it is, but for control characters."""
    sys.stdout.write(escape_controls(text))
    if flush:
        sys.stdout.flush()


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a document as indented JSON, or, without *indent*, as one line."""
    write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def print_progress(text: str, *, last: bool) -> None:
    """Print progress on standard error, over the line before; the last one stays."""
    sys.stderr.write(f"\r{escape_line(text)}" + "\n" * last)
    sys.stderr.flush()


def print_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere."""
    if not on_terminal():
        for row in rows:
            print_line(*(_cell(row.get(column)) for column in columns))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        # As texts: a string would be read as markup, whose links and styles are control sequences too.
        table.add_row(*(Text(escape_line(_cell(row.get(column)))) for column in columns))
    Console().print(table)


def print_rows(
    rows: list[dict[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    row: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Print a list as the pool answered it, or as a table of some columns; *row* returns an item's row.

    An item that is not one that the pool wrote has the state `damaged` in the table, and nothing else but its name.
    """
    if as_json:
        print_json(rows)
    else:
        print_table([{**one, "state": DAMAGED} if is_damaged(one) else row(one) for one in rows], columns)


def is_damaged(item: Mapping[str, Any]) -> bool:
    """Return whether an item of a list is damaged: not one that the pool wrote, and named alone."""
    return item.get("status") == DAMAGED


def print_fields(document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one item as the pool answered it, or one line for each member."""
    if as_json:
        print_json(document)
        return
    width = max(map(len, document), default=0) + 2
    for name, value in document.items():
        print_line(f"{name.replace('_', ' '):<{width}}{_cell(value) or '-'}")


def one_of(rows: Iterable[dict[str, Any]], what: str, **known: str) -> dict[str, Any]:
    """Return the one item of a list that has these members.

    Raises:
        InvalidError: NOT_FOUND.
        CorruptError: ROW_FORGED, it is damaged.
    """
    for row in rows:
        if is_damaged(row) and all(known.get(name) == value for name, value in row.items() if name != "status"):
            raise CorruptError(
                Reason.ROW_FORGED,
                f"the stored {what} is not one that the pool wrote; it is not used until an auditor has looked "
                "(`pool audit verify --database`)",
            )
        if all(row.get(name) == value for name, value in known.items()):
            return row
    named = " ".join(known.values())[:120]
    raise InvalidError(Reason.NOT_FOUND, f"there is no {what} {named!r} that this account may see; list them first")


def fail(error: PoolError) -> int:
    """Print an error on standard error, and return the exit code: 2 if something is unavailable, else 1.

    The message is English; where the terminal's language is Chinese, what it is about and what to do follow in Chinese.
    """
    print_line(f"{error.reason}: {error.message}", err=True)
    language = environment_language(os.environ)
    if language is not Language.ENGLISH:
        text = reason_text(error.reason, language)
        print_line(f"  {text.title}：{text.help}", err=True)
    for name, value in error.details.items():
        print_line(f"  {name}: {value}", err=True)
    return 2 if isinstance(error, UnavailableError) else 1


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={_cell(inner)}" for name, inner in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)

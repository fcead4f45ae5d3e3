"""Command `pool catalogue inventory`: reads a table of resources, and sends it in parts."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange.cli.catalogue.entries import catalogue
from exchange.cli.control import JsonOption, client
from exchange.cli.output import print_json, print_line, print_table
from schemas.errors import InvalidError, Reason
from schemas.reason_texts import Language

if TYPE_CHECKING:
    from registry.catalogue.inventory import Gap

__all__ = ["add_to_group", "read_inventory"]

_ROWS = 100  # of a part
_CHARACTERS = 50_000  # of a part; a body has 65,536 at most
_MAX_FILE = 64 << 20  # bytes of a CSV file
_MAX_ROWS = 20_000
_COLUMNS = ("row", "column", "heading", "code", "clause", "zh", "en")


def add_to_group() -> None:
    """Register the command with `pool catalogue`."""
    catalogue.command("inventory")(catalogue_inventory)


def catalogue_inventory(
    context: typer.Context,
    file: Path,
    sheet: Annotated[str, typer.Option(help="of a workbook; the only visible one if not given")] = "",
    gaps_to: Annotated[Path | None, typer.Option("--gaps", help="write the gaps to a new CSV file")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the resources of an inventory (盘点), an .xlsx or .csv file, and list every gap by row and column.

    The first line names the elements of the metadata. Repeated with the gaps filled, it drafts the rest. Exit code 1 if
    there are gaps.
    """
    from registry.catalogue.inventory import InventoryHeader, oversized_cells, repeated_rows

    columns, rows = read_inventory(file, sheet)
    header = InventoryHeader(columns)
    found = [*repeated_rows(header, rows), *oversized_cells(header, rows)]
    gaps = [_gap(one) for one in found]
    left_out = {one.row for one in found}
    rows = [one for one in rows if one[0] not in left_out]
    drafts: list[dict[str, Any]] = []
    unchanged: list[int] = []
    pool = client(context)
    for part in _parts(rows):
        body = {"columns": columns, "rows": [{"row": number, "cells": cells} for number, cells in part]}
        answer = pool.post("/catalogue/inventory", body)
        drafts += answer["drafts"]
        unchanged += answer["unchanged"]
        gaps += answer["gaps"]
    gaps.sort(key=lambda one: one["row"])
    if gaps_to is not None:
        _write(gaps_to, gaps)
    if as_json:
        print_json({"drafts": drafts, "unchanged": unchanged, "gaps": gaps})
    else:
        print_line(f"{len(drafts)} drafts, {len(unchanged)} unchanged, {len(gaps)} gaps")
        print_table(gaps, _COLUMNS)
    if gaps:
        raise typer.Exit(1)


def read_inventory(file: Path, sheet: str = "") -> tuple[Sequence[str], list[tuple[int, Sequence[str]]]]:
    """Return the header of a table and its rows, each with its number in the file.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read; FILE_REJECTED, it is no such table, or too large.
    """
    try:
        lines = _workbook(file, sheet) if file.suffix.lower() in {".xlsx", ".xlsm"} else _csv(file)
        header: Sequence[str] = ()
        rows = []
        for number, cells in lines:
            if number == 1:
                header = cells
            elif any(cells):
                rows.append((number, cells))
            if len(rows) > _MAX_ROWS:
                raise InvalidError(Reason.FILE_REJECTED, f"{file.name} has more than {_MAX_ROWS:,} rows; divide it")
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file}: {error.strerror}") from error
    width = max((at for at, heading in enumerate(header, 1) if heading.strip()), default=0)
    return header[:width], [(number, cells[:width]) for number, cells in rows]


def _workbook(file: Path, sheet: str) -> Iterator[tuple[int, Sequence[str]]]:
    from registry.spreadsheet.workbook import Sheet

    table = Sheet(file, sheet)
    faulty = sorted(table.faults)
    if faulty:
        raise InvalidError(
            Reason.FILE_REJECTED,
            f"{file.name} has {len(faulty)} rows that cannot be read, such as row {faulty[0]}: expected "
            f"{table.faults[faulty[0]]}",
        )
    yield from table.rows()


def _csv(file: Path) -> Iterator[tuple[int, Sequence[str]]]:
    if file.stat().st_size > _MAX_FILE:
        raise InvalidError(Reason.FILE_REJECTED, f"{file.name} has more than 64 MiB; divide it")
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("gb18030")
        except UnicodeDecodeError as error:
            raise InvalidError(
                Reason.FILE_REJECTED, f"{file.name} is neither UTF-8 nor GB 18030; save it as CSV UTF-8"
            ) from error
    # `str.splitlines` would also divide a row at U+2028 and other characters that stand in texts.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidError(Reason.FILE_REJECTED, f"{file.name}, line {line}: {error}; save it again as CSV") from error


def _gap(gap: "Gap") -> dict[str, Any]:
    """Return a gap as the pool answers it."""
    return {
        "row": gap.row,
        "column": gap.column,
        "heading": gap.heading,
        "element": gap.fault.element,
        "code": str(gap.fault.code),
        "clause": gap.fault.clause,
        "en": gap.fault.text(Language.ENGLISH),
        "zh": gap.fault.text(Language.CHINESE),
    }


def _parts(rows: Sequence[tuple[int, Sequence[str]]]) -> Iterator[list[tuple[int, Sequence[str]]]]:
    part: list[tuple[int, Sequence[str]]] = []
    size = 0
    for number, cells in rows:
        characters = sum(map(len, cells))
        if part and (len(part) >= _ROWS or size + characters > _CHARACTERS):
            yield part
            part, size = [], 0
        part.append((number, cells))
        size += characters
    if part:
        yield part


def _write(path: Path, gaps: Sequence[dict[str, Any]]) -> None:
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(gaps)
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path}: {error.strerror}") from error

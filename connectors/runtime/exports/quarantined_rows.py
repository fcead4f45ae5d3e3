"""Quarantined rows as a file that a person mends: JSON lines, one row each, written for this user alone, and read back.

    {"id": 17, "portion": "rows.csv", "line": 5, "code": "RANGE", "field": "amount", "expected": "…",
     "row": {"身份证号": "11010519491231002X", "金额": "120.50"}}

Only `id` and `row` are read back. Values are texts as the source has them, or null; a number is read as it is written,
no digit less. A row that could not be split into columns has `row: null` and its text in `original`: its columns are
written by hand, or the line is left out.

JSON lines and not CSV: a spreadsheet makes numbers of identity numbers, and has no null.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from connectors.config.publication_models import PublishConfig
from connectors.publishing.mended_rows import MendedRow
from connectors.sources.json_lines_file import cell_of, parse_json
from connectors.state.quarantine import QuarantineEntry, original_text
from schemas.errors import InvalidError, Reason

__all__ = ["parse_rows", "render_rows"]

_MAX_LINE = 64 * 1024 * 1024  # characters


def render_rows(
    entries: Sequence[QuarantineEntry], section: PublishConfig, columns: Mapping[str, Sequence[str]]
) -> Iterator[bytes]:
    """Return the lines of the file.

    Args:
        entries: open ones of a publication.
        section: of the publication.
        columns: portion → its columns, of those that are not rows of JSON.
    """
    for each in entries:
        row = _row(each, section, columns.get(each.portion))
        line: dict[str, Any] = {
            "id": each.id,
            "portion": each.portion,
            "line": each.line,
            "code": each.code.value,
            "field": each.field,
            "expected": each.message,
            "row": row,
        }
        if row is None:
            line["original"] = original_text(each.original)
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _row(
    entry: QuarantineEntry, section: PublishConfig, columns: Sequence[str] | None
) -> Mapping[str, str | None] | None:
    """Return the columns of a row; None where its text is not that of one row with these columns."""
    text = _text_of(entry, section)
    try:
        found = _texts(_parse(text))
    except (ValueError, TypeError, RecursionError):
        found = None
    if columns is None or (found is not None and found.keys() <= set(columns)):
        return found
    cells = _cells(text, entry.portion, section)
    return dict(zip(columns, cells, strict=True)) if len(cells) == len(columns) else None


def _text_of(entry: QuarantineEntry, section: PublishConfig) -> str:
    if section.format.encoding != "auto":
        try:
            return entry.original.decode(section.format.encoding)
        except UnicodeDecodeError:
            pass
    return original_text(entry.original)


def _cells(text: str, portion: str, section: PublishConfig) -> Sequence[str]:
    name, form = portion.casefold().removesuffix(".gz"), section.format.form
    if form == "excel" or name.endswith((".xlsx", ".xlsm")):
        return text.split("\t")  # the cells of a sheet's row are kept so, without quotes
    delimiter = "\t" if form == "tsv" or name.endswith(".tsv") else section.format.delimiter
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return ()
    return rows[0] if len(rows) == 1 and "\0" not in text else ()


def parse_rows(file: Path) -> list[MendedRow]:
    """Read a mended file.

    Raises:
        InvalidError: CONFIG_INVALID, naming the line that is not of the form, or an entry that is there twice.
    """
    rows: dict[int, MendedRow] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE), ""), 1):
                if not line.strip():
                    continue
                row = _mended(file, number, line)
                if row is None:
                    continue
                if row.entry in rows:
                    raise _malformed(file, number, f"each entry once; {row.entry} is there before")
                rows[row.entry] = row
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} cannot be read as UTF-8 text") from error
    return list(rows.values())


def _mended(file: Path, number: int, line: str) -> MendedRow | None:
    """Return the row of a line; None where nobody has written its columns."""
    try:
        found = _parse(line)
        if found.get("row") is None:
            return None
        return MendedRow(int(found["id"]), _texts(found["row"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _malformed(
            file, number, '{"id": 17, "row": {"column": "text", …}} as `quarantine export` wrote it'
        ) from error


def _malformed(file: Path, number: int, expected: str) -> InvalidError:
    return InvalidError(Reason.CONFIG_INVALID, f"{file.name}:{number}: expected {expected}. Nothing was published")


def _parse(text: str) -> dict[str, Any]:
    found = parse_json(text)  # its numbers stay as they are written: a float would lose digits of an identity number
    if not isinstance(found, dict):
        raise TypeError("no object")
    return found


def _texts(row: Any) -> dict[str, str | None]:
    if not isinstance(row, dict):
        raise TypeError("no object")
    texts = {str(name): cell_of(value) for name, value in row.items()}
    "".join((*texts, *filter(None, texts.values()))).encode()  # half of a surrogate pair raises ValueError
    return texts

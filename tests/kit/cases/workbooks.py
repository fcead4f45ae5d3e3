"""Workbooks (ECMA-376) as bytes of XML, written by the letter of the standard: cells of each type, merged, and errors.

A cell is a text, an int, a float, a bool, None, a date or a datetime (numbers with a date format), or `Raw`: the XML of
the cell's content and its type.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

__all__ = ["Raw", "write_workbook"]

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_RETURNS = {"\r": "&#13;"}  # XML makes one line end of two (1.0, section 2.11)
_HIDDEN = 'state="hidden"'
_RELATIONS_TYPE = "application/vnd.openxmlformats-package.relationships+xml"
_DATE, _TIME = 1, 2  # indices of formats in `_STYLES`
_STYLES = (
    f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font/></fonts><fills count="1"><fill/></fills>'
    '<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>'
    '<cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14" applyNumberFormat="1"/>'
    '<xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>'
)


@dataclass(frozen=True)
class Raw:
    """A cell of a type of its own, such as `Raw("e", "<v>#N/A</v>")`."""

    kind: str
    content: str


def write_workbook(
    path: Path,
    rows: Sequence[Sequence[Any]],
    *,
    merged: Sequence[str] = (),
    sheet: str = "Sheet1",
    hidden_first: bool = False,
    since_1904: bool = False,
) -> None:
    """Write a workbook of one sheet, and of a hidden one before it if wanted."""
    epoch = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)  # noqa: DTZ001 - a workbook has no zones
    names = ["hidden"] * hidden_first + [sheet]
    sheets = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{at}" r:id="r{at}" {_HIDDEN * (name == "hidden")}/>'
        for at, name in enumerate(names, 1)
    )
    properties = '<workbookPr date1904="1"/>' if since_1904 else ""
    relations = "".join(
        f'<Relationship Id="r{at}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{at}.xml"/>'
        for at in range(1, len(names) + 1)
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" ContentType="{_TYPE}.sheet.main+xml"/>'
            f'<Default Extension="rels" ContentType="{_RELATIONS_TYPE}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" Type="{_OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">{properties}<sheets>{sheets}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships">{relations}'
            f'<Relationship Id="styles" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        )
        archive.writestr("xl/styles.xml", _STYLES)
        for at, name in enumerate(names, 1):
            content = [["hidden"]] if name == "hidden" else rows
            archive.writestr(f"xl/worksheets/sheet{at}.xml", _sheet(content, merged, epoch))


def _sheet(rows: Sequence[Sequence[Any]], merged: Sequence[str], epoch: datetime) -> str:
    lines = ""
    for at, row in enumerate(rows, 1):
        cells = "".join(_cell(f"{_letters(column)}{at}", cell, epoch) for column, cell in enumerate(row))
        lines += f'<row r="{at}">{cells}</row>'
    areas = "".join(f'<mergeCell ref="{area}"/>' for area in merged)
    return (
        f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData>'
        f"{f'<mergeCells>{areas}</mergeCells>' if merged else ''}</worksheet>"
    )


def _letters(column: int) -> str:
    return chr(ord("A") + column) if column < 26 else _letters(column // 26 - 1) + _letters(column % 26)


def _cell(name: str, value: Any, epoch: datetime) -> str:  # noqa: PLR0911 - one way out a type
    match value:
        case None:
            return ""
        case Raw():
            return f'<c r="{name}" t="{value.kind}">{value.content}</c>'
        case bool():
            return f'<c r="{name}" t="b"><v>{int(value)}</v></c>'
        case datetime():
            return f'<c r="{name}" s="{_TIME}"><v>{(value - epoch).total_seconds() / 86_400!r}</v></c>'
        case date():
            return f'<c r="{name}" s="{_DATE}"><v>{(value - epoch.date()).days}</v></c>'
        case int() | float():
            return f'<c r="{name}"><v>{value!r}</v></c>'
    return f'<c r="{name}" t="inlineStr"><is><t xml:space="preserve">{escape(str(value), _RETURNS)}</t></is></c>'

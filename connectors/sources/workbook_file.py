"""Workbook parser: one sheet of an Excel file (.xlsx, .xlsm) as a portion; its cells become texts.

    text              as it is
    number            at most 15 significant digits, as Excel has them, without an exponent. A number of 16 digits or
                      more keeps its exponent: it was rounded, and the mapping refuses it where digits matter
    date, time        YYYY-MM-DD, YYYY-MM-DD HH:MM:SS, HH:MM:SS; what the cell's number format makes one
    true, false       true, false
    empty             the empty text

Refused, with the address of the cell, is a row with

    an error value (#N/A, #DIV/0!)            calamine returns an empty text for it
    a formula without a value                 the program that wrote the file has not computed it
    a part of merged cells but their first    which rows the value is meant for, the file does not say
    a value in a column without a name

calamine (a Rust library) reads the values; errors and formulas are found in the sheet's own XML, which it does not
show. In .xls, .xlsb and .ods they cannot be found, so these forms are refused.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import ParseError, fromstring

import python_calamine as calamine
from typing_extensions import Unpack, override

from connectors.port import RejectCode
from connectors.sources.file_portion import (
    BLANKS,
    FilePortion,
    KnownFile,
    Record,
    rejected_file,
    unavailable_file,
)

__all__ = ["WorkbookPortion"]

_FORMS = (".xlsx", ".xlsm")
_MAX_UNPACKED = 2 << 30  # bytes of all parts together
_MAX_PART = 16 << 20  # bytes of a part that is parsed whole
_BLOCK = 1 << 20
_PRECISE = 1e15  # numbers below have 15 digits, all of which Excel keeps
_TAG = re.compile(rb"<(/?)(?:[A-Za-z_][\w.-]*:)?(c|f|v|is)(?=[\s/>])([^<>]*)>")
_ADDRESS = re.compile(rb"""\br\s*=\s*["']([A-Z]{1,3})([0-9]{1,7})["']""")
_IS_ERROR = re.compile(rb"""\bt\s*=\s*["']e["']""")
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_STRICT_RELATION = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"
_NO_ADDRESS = "got an error or a formula without a value in a cell that has no address; save the file again with Excel"


@dataclass(slots=True)
class _Faults:
    """Rows that cannot be read, from 1, and why."""

    rows: dict[int, str] = field(default_factory=dict)

    def add(self, row: int, cell: str, what: str) -> None:
        self.rows.setdefault(row, f"a value in the cell {cell}; got {what}")


class WorkbookPortion(FilePortion):
    """One sheet."""

    def __init__(self, path: Path, **known: Unpack[KnownFile]) -> None:
        """Read the header.

        Raises:
            InvalidError: FILE_REJECTED, it is no such workbook, is protected, or has no usable header.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        super().__init__(path, **known)
        if path.suffix.lower() not in _FORMS:
            raise rejected_file(f"{path.name} is no {' or '.join(_FORMS)}; save the workbook as .xlsx")
        self._faults = _Faults()
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(part.file_size for part in archive.infolist()) > _MAX_UNPACKED:
                    raise rejected_file(f"{path.name} has more than 2 GiB unpacked", RejectCode.TOO_LARGE)
                sheet = self._sheet()
                _find_faults(archive, sheet.name, self._faults)
        except OSError as error:
            raise unavailable_file(path) from error
        except (zipfile.BadZipFile, KeyError, ParseError, RuntimeError, NotImplementedError) as error:
            raise rejected_file(f"{path.name} cannot be read as a workbook; save it again as .xlsx") from error
        for first, last in sheet.merged_cell_ranges or ():
            for row in range(first[0], last[0] + 1):
                if row > first[0] or last[1] > first[1]:
                    cell = f"{_letters(first[1])}{first[0] + 1}"
                    self._faults.add(row + 1, f"{_letters(last[1])}{row + 1}", f"a part of cells merged with {cell}")
        header_row = self.file_format.header_row
        header = next((cells for row, cells in _rows(sheet) if row == header_row), ())
        if header_row in self._faults.rows:
            raise self._rejected_header(self._faults.rows[header_row].partition("got ")[2])
        names = [cell.strip(BLANKS) for cell in header]
        self._named = [at for at, name in enumerate(names) if name]
        self.columns = [names[at] for at in self._named]
        self._require_columns(self.columns)

    @override
    def _records(self) -> Iterator[Record]:
        for row, cells in _rows(self._sheet()):
            if row <= self.file_format.header_row:
                continue
            own = [cells[at] for at in self._named]
            fault = self._faults.rows.get(row)
            if fault is None and not any(cells):
                continue
            original = "\t".join(cells).encode("utf-8", "surrogatepass")
            if fault is None and sum(map(bool, cells)) > sum(map(bool, own)):
                at = next(at for at, cell in enumerate(cells) if cell and at not in self._named)
                fault = f"values in columns with a name; got one in the column {_letters(at)}"
            if fault is not None:
                yield row, fault, original
            elif self._is_last(own):
                return
            else:
                yield row, own, original

    def _sheet(self) -> calamine.CalamineSheet:
        wanted = self.file_format.sheet
        try:
            workbook = calamine.CalamineWorkbook.from_path(self.path)
            if wanted:
                return workbook.get_sheet_by_name(wanted)
            visible = [
                each.name
                for each in workbook.sheets_metadata
                if each.visible == calamine.SheetVisibleEnum.Visible and each.typ == calamine.SheetTypeEnum.WorkSheet
            ]
            if len(visible) == 1:
                return workbook.get_sheet_by_name(visible[0])
        except calamine.PasswordError as error:
            raise rejected_file(f"{self.name} is protected by a password; save it without one") from error
        except calamine.WorksheetNotFound as error:
            raise rejected_file(f"{self.name} has no sheet {wanted!r}, which `format.sheet` names") from error
        except calamine.CalamineError as error:
            raise rejected_file(f"{self.name} cannot be read as a workbook; save it again as .xlsx") from error
        except OSError as error:
            raise unavailable_file(self.path) from error
        raise rejected_file(
            f"{self.name} has {len(visible)} visible sheets; name the one that is meant: `format.sheet`"
        )


def _rows(sheet: calamine.CalamineSheet) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield each row's number in the sheet, from 1, and its cells from the column A on."""
    start = sheet.start
    if start is None:
        return
    for row, cells in enumerate(sheet.iter_rows(), 1):
        yield row, [_text(cell) for cell in cells]


def _text(value: Any) -> str:  # noqa: PLR0911 - one way out a type
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            if abs(value) >= _PRECISE:
                return repr(float(value))
            return format(Decimal(f"{value:.15g}"), "f")
        case datetime():
            return value.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            seconds = int(value.total_seconds())
            return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    raise TypeError(type(value).__name__)


def _find_faults(archive: zipfile.ZipFile, sheet: str, faults: _Faults) -> None:
    """Find cells with an error, and formulas without a value.

    Raises:
        KeyError: a part is missing.
        InvalidError: FILE_REJECTED, such a cell has no address.
    """
    book = fromstring(_part(archive, "xl/workbook.xml"))  # noqa: S314 - expat bounds the expansion of entities
    relations = fromstring(_part(archive, "xl/_rels/workbook.xml.rels"))  # noqa: S314
    (relation,) = {
        each.get(_RELATION) or each.get(_STRICT_RELATION) for each in book.iter() if each.get("name") == sheet
    } - {None}
    target = next(each.attrib["Target"] for each in relations if each.get("Id") == relation)
    name = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    with archive.open(name) as part:
        address: tuple[str, int] | None = None
        is_error = has_formula = has_value = False
        for closing, tag, attributes in _tags(part):
            if tag == b"c" and not closing:
                found = _ADDRESS.search(attributes)
                address = (found[1].decode(), int(found[2])) if found else None
                is_error = _IS_ERROR.search(attributes) is not None
                has_formula = has_value = False
            has_formula |= tag == b"f"
            has_value |= tag in {b"v", b"is"}
            if tag == b"c" and (closing or attributes.endswith(b"/")) and (is_error or (has_formula and not has_value)):
                if address is None:
                    raise rejected_file(_NO_ADDRESS)
                what = "an error" if is_error else "a formula that was not computed"
                faults.add(address[1], f"{address[0]}{address[1]}", what)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as part:
        content = part.read(_MAX_PART + 1)
    if len(content) > _MAX_PART:
        raise rejected_file(f"the workbook's {name} is larger than 16 MiB", RejectCode.TOO_LARGE)
    return content


def _tags(part: IO[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (slash, name, attributes) of the tags of cells and their content."""
    rest = b""
    while block := part.read(_BLOCK):
        block = rest + block
        cut = block.rfind(b"<")
        whole = block.find(b">", cut) >= 0 if cut >= 0 else True
        rest = b"" if whole else block[cut:]
        for found in _TAG.finditer(block if whole else block[:cut]):
            yield found[1], found[2], found[3]


def _letters(column: int) -> str:
    letters = ""
    while column >= 0:
        column, letter = divmod(column, 26)
        letters, column = chr(ord("A") + letter) + letters, column - 1
    return letters

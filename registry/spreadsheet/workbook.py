"""Workbook reader: one sheet of an Excel file (.xlsx, .xlsm); its cells become texts.

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

calamine has memory for every cell between a sheet's first and its last one, and ends the process where there is none.
So before it reads, the parts are unpacked once, to see that they are as large as they say, and the addresses of cells
are read: a sheet of more than 32 million cells, empty ones too, is refused, and one of a million of which hardly any is
there. Texts that cells share are measured (`registry.spreadsheet.shared_strings`).

Connectors publish such files (`connectors.sources.workbook_file`), and a catalogue's inventory is one
(`exchange.cli.catalogue.inventory`).
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final
from xml.etree.ElementTree import ParseError, fromstring
from xml.parsers.expat import ExpatError, ParserCreate

import python_calamine as calamine

from registry.spreadsheet.shared_strings import require_bounded_strings
from schemas.errors import InvalidError, Reason

__all__ = ["FORMS", "Sheet", "letters", "rejected_workbook"]

TOO_LARGE: Final = "TOO_LARGE"
FORMS: Final = (".xlsx", ".xlsm")
"""Endings of the names of such files."""
_MAX_UNPACKED = 2 << 30  # bytes of all parts together
_MAX_PART = 16 << 20  # bytes of a part that is parsed whole
_MAX_CELLS = 32 << 20  # of a sheet, between its first and its last one; calamine takes 32 bytes for each
_FEW_CELLS = 1 << 20  # of which any share may be empty
_LEAST_SHARE = 64  # of more, one of so many is there: a small file takes no gigabyte
_MAX_ROWS, _MAX_COLUMNS = 1 << 20, 1 << 14  # of a sheet (ECMA-376; Excel's own)
_BLOCK = 1 << 20
_PRECISE = 1e15  # numbers below have 15 digits, all of which Excel keeps
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_STRICT_RELATION = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"
_NO_ADDRESS = "got an error or a formula without a value in a cell that has no address; save the file again with Excel"


@dataclass(slots=True)
class Faults:
    """Rows that cannot be read, from 1, and why."""

    rows: dict[int, str] = field(default_factory=dict)

    last_row: int = 0  # that has a cell

    def add(self, row: int, cell: str, what: str) -> None:
        self.rows.setdefault(row, f"a value in the cell {cell}; got {what}")


class Sheet:
    """One sheet of a workbook.

    Attributes:
        name: of the sheet.
        faults: rows that cannot be read, from 1 → why.
    """

    def __init__(self, path: Path, wanted: str = "", *, option: str = "`--sheet`") -> None:
        """Find the sheet, and what of it cannot be read.

        Args:
            path: of the workbook.
            wanted: name of the sheet; empty = the only one that is visible.
            option: by which a person names another one.

        Raises:
            InvalidError: FILE_REJECTED, it is no such workbook, is protected, or has too many cells; the detail `code`
                tells which of the two.
            OSError: it cannot be opened.
        """
        if path.suffix.lower() not in FORMS:
            raise rejected_workbook(f"{path.name} is no {' or '.join(FORMS)}; save the workbook as .xlsx")
        self._path = path
        found = Faults()
        try:
            with zipfile.ZipFile(path) as archive:
                _require_sizes(archive, path.name)
                self.name = self._name_of(wanted, option)
                _find_faults(archive, self.name, found)
                sheet = self._sheet()
        except OSError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, ParseError, ExpatError) as error:
            raise rejected_workbook(f"{path.name} cannot be read as a workbook; save it again as .xlsx") from error
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression that there is not
            raise rejected_workbook(f"{path.name} cannot be read as a workbook; save it again as .xlsx") from error
        _find_merged(sheet, found)
        self.faults = found.rows
        self._loaded: calamine.CalamineSheet | None = sheet  # for those who read the header first

    def rows(self) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield each row's number in the sheet, from 1, and its cells from the column A on.

        Raises:
            InvalidError: FILE_REJECTED.
            OSError: it cannot be opened any more.
        """
        loaded, self._loaded = self._loaded, None
        yield from _rows(self._sheet() if loaded is None else loaded)

    def _name_of(self, wanted: str, option: str) -> str:
        with self._readable_workbook() as workbook:
            if wanted in workbook.sheet_names:
                return wanted
            if wanted:
                raise rejected_workbook(f"{self._path.name} has no sheet {wanted!r}, which {option} names")
            visible = [
                each.name
                for each in workbook.sheets_metadata
                if each.visible == calamine.SheetVisibleEnum.Visible and each.typ == calamine.SheetTypeEnum.WorkSheet
            ]
        if len(visible) == 1:
            return visible[0]
        raise rejected_workbook(
            f"{self._path.name} has {len(visible)} visible sheets; name the one that is meant: {option}"
        )

    def _sheet(self) -> calamine.CalamineSheet:
        with self._readable_workbook() as workbook:
            return workbook.get_sheet_by_name(self.name)

    @contextmanager
    def _readable_workbook(self) -> Iterator[calamine.CalamineWorkbook]:
        name = self._path.name
        try:
            yield calamine.CalamineWorkbook.from_path(self._path)
        except calamine.PasswordError as error:
            raise rejected_workbook(f"{name} is protected by a password; save it without one") from error
        except calamine.CalamineError as error:
            raise rejected_workbook(f"{name} cannot be read as a workbook; save it again as .xlsx") from error


def _find_merged(sheet: calamine.CalamineSheet, faults: Faults) -> None:
    """Find the rows that have a part of merged cells but their first.

    A file may state thousands of ranges, each of all rows, one over the other: each row is looked at once.
    """
    found = bytearray(faults.last_row)  # 1 = the row is known to have one
    for first, last in sheet.merged_cell_ranges or ():
        begin = first[0] if last[1] > first[1] else first[0] + 1
        end = min(last[0] + 1, faults.last_row)
        while (row := found.find(0, begin, end)) >= 0:
            found[row] = 1
            begin = row + 1
            cell = f"{letters(first[1])}{first[0] + 1}"
            faults.add(row + 1, f"{letters(last[1])}{row + 1}", f"a part of cells merged with {cell}")


def rejected_workbook(message: str, code: str = "ROW_SHAPE") -> InvalidError:
    """Return the error for a workbook that is not read."""
    return InvalidError(Reason.FILE_REJECTED, message, details={"code": code})


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


def _require_sizes(archive: zipfile.ZipFile, name: str) -> None:
    """Check that the parts are as large as the archive says, and not too large together.

    Raises:
        InvalidError: FILE_REJECTED.
    """
    parts = archive.infolist()
    if sum(part.file_size for part in parts) > _MAX_UNPACKED:
        raise rejected_workbook(f"{name} has more than 2 GiB unpacked", TOO_LARGE)
    names = {part.filename.lower() for part in parts}
    for part in parts:
        # zipfile stops at the stated size, which says nothing of how much there is.
        stated, part.file_size = part.file_size, part.file_size + 1
        with archive.open(part) as file:
            size = 0
            while block := file.read(_BLOCK):
                size += len(block)
        part.file_size = stated
        if size != stated or len(names) < len(parts):
            raise rejected_workbook(f"{name} has parts that are not what the archive says; save it again as .xlsx")


def _find_faults(archive: zipfile.ZipFile, sheet: str, faults: Faults) -> None:
    """Find cells with an error, and formulas without a value.

    Raises:
        KeyError: a part is missing.
        ValueError: there are several sheets of this name.
        ExpatError: the sheet is no XML.
        InvalidError: FILE_REJECTED, such a cell has no address; the sheet has too many cells.
    """
    book = fromstring(_part(archive, "xl/workbook.xml"))  # noqa: S314 - expat bounds the expansion of entities
    relations = fromstring(_part(archive, "xl/_rels/workbook.xml.rels"))  # noqa: S314
    (relation,) = {
        each.get(_RELATION) or each.get(_STRICT_RELATION) for each in book.iter() if each.get("name") == sheet
    } - {None}
    target = next(each.attrib["Target"] for each in relations if each.get("Id") == relation)
    name = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    cells = _Cells(faults)
    with archive.open(name) as part:
        cells.read(part)
    require_bounded_strings(archive, name, cells.count)


class _Cells:
    """The cells of a sheet, by its XML: where they are, and which have an error or a formula without a value.

    A row and a cell without an address are those after the one before, as calamine counts.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._row, self._column = 1, 1  # of the next one
        self._first: tuple[int, int] | None = None
        self._last = (0, 0)
        self._there = 0
        self._address = ""
        self._at = 0
        self._is_error = self._has_formula = self._has_value = False

    @property
    def count(self) -> int:
        """Return how many cells there are."""
        return self._there

    def read(self, part: IO[bytes]) -> None:
        parser = ParserCreate()
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        while block := part.read(_BLOCK):
            parser.Parse(block)
        parser.Parse(b"", True)
        if self._cells() > max(_FEW_CELLS, self._there * _LEAST_SHARE):
            raise self._too_many()
        self._faults.last_row = self._last[0]

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        match name.rpartition(":")[2]:
            case "row":
                self._row = int(attributes.get("r", self._row))
            case "c":
                self._address = attributes.get("r", "")
                self._place()
                self._is_error = attributes.get("t") == "e"
                self._has_formula = self._has_value = False
            case "f":
                self._has_formula = True
            case "v" | "is":
                self._has_value = True

    def _end(self, name: str) -> None:
        match name.rpartition(":")[2]:
            case "row":
                self._row, self._column = self._row + 1, 1
            case "c" if self._is_error or (self._has_formula and not self._has_value):
                if not self._address:
                    raise rejected_workbook(_NO_ADDRESS)
                what = "an error" if self._is_error else "a formula that was not computed"
                self._faults.add(self._at, self._address, what)

    def _place(self) -> None:
        """Take a cell's address."""
        row, column = self._row, self._column
        if self._address:
            letters = self._address.rstrip("0123456789")
            row, column = int(self._address[len(letters) :]), _number_of(letters)
        self._at, self._column = row, column + 1
        first_row, first_column = self._first or (row, column)
        self._first = min(row, first_row), min(column, first_column)
        self._last = max(row, self._last[0]), max(column, self._last[1])
        self._there += 1
        if row > _MAX_ROWS or column > _MAX_COLUMNS or self._cells() > _MAX_CELLS:
            raise self._too_many()

    def _cells(self) -> int:
        """Return how many cells are between the first and the last one."""
        first = self._first or self._last
        return (self._last[0] - first[0] + 1) * (self._last[1] - first[1] + 1)

    def _too_many(self) -> InvalidError:
        return rejected_workbook(
            f"the sheet has {self._there:,} cells, as far as {letters(self._last[1] - 1)}{self._last[0]}; expected "
            f"{_MAX_CELLS:,} at most, empty ones between them too: delete what stands outside the table",
            TOO_LARGE,
        )


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as part:
        content = part.read(_MAX_PART + 1)
    if len(content) > _MAX_PART:
        raise rejected_workbook(f"the workbook's {name} is larger than 16 MiB", TOO_LARGE)
    return content


def _number_of(letters: str) -> int:
    """Return the number of a column, from 1, by its letters; 0 where there are none."""
    column = 0
    for letter in letters.upper()[:4]:  # a column of four letters is beyond the last one
        column = 26 * column + ord(letter) - ord("A") + 1
    return column


def letters(column: int) -> str:
    """Return the letters of a column, from 0: A, B … Z, AA."""
    text = ""
    while column >= 0:
        column, letter = divmod(column, 26)
        text, column = chr(ord("A") + letter) + text, column - 1
    return text

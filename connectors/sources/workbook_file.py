"""Workbook parser: one sheet of an Excel file (.xlsx, .xlsm) as a portion.

`registry.spreadsheet.workbook` reads it, and says what becomes of its cells. A row that cannot be read is refused with
the address of the cell, and so is a row with a value in a column without a name.
"""

from collections.abc import Iterator
from pathlib import Path

from typing_extensions import Unpack, override

from connectors.sources.file_portion import BLANKS, FilePortion, KnownFile, Record, unavailable_file
from registry.spreadsheet.workbook import Sheet, letters

__all__ = ["WorkbookPortion"]


class WorkbookPortion(FilePortion):
    """One sheet."""

    def __init__(self, path: Path, **known: Unpack[KnownFile]) -> None:
        """Read the header.

        Raises:
            InvalidError: FILE_REJECTED, it is no such workbook, is protected, or has no usable header.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        super().__init__(path, **known)
        try:
            self._sheet = Sheet(path, self.file_format.sheet, option="`format.sheet`")
            header_row = self.file_format.header_row
            header = next((cells for row, cells in self._sheet.rows() if row == header_row), ())
        except OSError as error:
            raise unavailable_file(path) from error
        if header_row in self._sheet.faults:
            raise self._rejected_header(self._sheet.faults[header_row].partition("got ")[2])
        names = [cell.strip(BLANKS) for cell in header]
        self._named = [at for at, name in enumerate(names) if name]
        self.columns = [names[at] for at in self._named]
        self._require_columns(self.columns)

    @override
    def _records(self) -> Iterator[Record]:
        try:
            yield from self._read()
        except OSError as error:
            raise unavailable_file(self.path) from error

    def _read(self) -> Iterator[Record]:
        for row, cells in self._sheet.rows():
            if row <= self.file_format.header_row:
                continue
            own = [cells[at] for at in self._named]
            fault = self._sheet.faults.get(row)
            if fault is None and not any(cells):
                continue
            original = "\t".join(cells).encode("utf-8", "surrogatepass")
            if fault is None and sum(map(bool, cells)) > sum(map(bool, own)):
                at = next(at for at, cell in enumerate(cells) if cell and at not in self._named)
                fault = f"values in columns with a name; got one in the column {letters(at)}"
            if fault is not None:
                yield row, fault, original
            elif self._is_last(own):
                return
            else:
                yield row, own, original

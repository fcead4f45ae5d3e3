"""CSV parser: one file as a portion, every record a row or a reject with its line and its own bytes.

The parser is the standard library's, fed line by line, so that the original text of each record is available for the
quarantine. Every value stays text.

    header     the row that `header_row` names; without blanks at its ends and byte order mark, each name once
    ragged     a row with another number of cells is a reject (ROW_SHAPE), never shifted
    quotes     strict: a stray quote is a reject, and the next line is parsed as a new record
    long       a cell of more than 1,048,576 characters is a reject, and a record of several lines of more than
               `encoding.MAX_LINE`; it ends where its quote is closed
    stop_at    a total row (合计) ends the file

An unclosed quote swallows what follows it. The swallowed rows become one reject whose key is unknown, and that
prevents every void (`connectors.publishing.publisher`): these rows are missing from the rows that were read, not from
the file. Of a record that is too long, the reject keeps the beginning, and names the line on which it ends.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from typing_extensions import Unpack, override

from connectors.sources.encoding import MAX_LINE, assign_characters, open_text
from connectors.sources.file_portion import BLANKS, FileForm, FilePortion, KnownFile, Record, file_form

__all__ = ["CsvPortion"]

_FIELD_LIMIT = 1 << 20  # characters
_KEPT = 2 * _FIELD_LIMIT  # characters of a reject's original
_TOO_LONG = "field limit"  # of the csv module's message; it has one exception for all
_RECORD_TOO_LONG = f"it has more than {MAX_LINE:,} characters"


class _LineRecorder:
    """Lines for the csv module; records those that it consumed since the last record."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._length = 0  # of a record of several lines, in characters
        self.number = 0
        self.consumed: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """Yield the lines; raise `csv.Error` in a record that is too long, after which another iterator goes on."""
        for line in self._file:
            self.number += 1
            self.consumed.append(line)
            if len(self.consumed) > 1:  # `detect_encoding` has found lines that are too long by themselves
                self._length = len(line) + (self._length if len(self.consumed) > 2 else len(self.consumed[0]))
                if self._length > MAX_LINE:
                    raise csv.Error(_RECORD_TOO_LONG)
            yield line

    def skip_to_record_end(self) -> None:
        """Skip the lines up to the end of a record of which the csv module gave up in the middle of a quoted cell.

        A record ends with the first line up to which its quotes are even (RFC 4180, section 2, rules 5 to 7).
        """
        quotes = sum(line.count('"') for line in self.consumed)
        self.consumed = ["".join(self.consumed)[:_KEPT]]
        kept = len(self.consumed[0])
        for line in self._file if quotes % 2 else ():
            self.number += 1
            if kept < _KEPT:
                self.consumed.append(line)
                kept += len(line)
            quotes += line.count('"')
            if quotes % 2 == 0:
                return


class CsvPortion(FilePortion):
    """A whole file."""

    def __init__(self, path: Path, **known: Unpack[KnownFile]) -> None:
        """Read the header.

        Raises:
            InvalidError: FILE_REJECTED, when there is no header, or it names a column twice.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        super().__init__(path, **known)
        self._record_encoding = self.encoding.removesuffix("-sig")  # of a record in the middle of the file
        is_tsv = file_form(path, self.file_format) is FileForm.TSV and self.file_format.delimiter == ","
        self._delimiter = "\t" if is_tsv else self.file_format.delimiter
        self.columns = self._header()

    def _header(self) -> list[str]:
        with open_text(self.path, self.encoding) as file:
            for _ in range(self.file_format.header_row - 1):
                file.readline()
            try:
                cells = next(self._reader(_LineRecorder(file)), [])
            except csv.Error as error:
                raise self._rejected_header(f"a header that cannot be read ({error})") from error
        names = [assign_characters(cell, self.encoding).strip(BLANKS) for cell in cells]
        self._require_columns(names)
        return names

    def _reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    @override
    def _records(self) -> Iterator[Record]:
        """Return (line, cells, original) of each record; what was expected where it cannot be parsed."""
        width = len(self.columns)
        with open_text(self.path, self.encoding) as file:
            csv.field_size_limit(_FIELD_LIMIT)
            source = _LineRecorder(file)
            for _ in range(self.file_format.header_row - 1):
                next(iter(source), None)
                source.consumed.clear()
            reader = self._reader(source)
            next(reader, None)
            while True:
                source.consumed.clear()
                first = source.number + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    expected = f"a record that can be read ({error})"
                    if _TOO_LONG in str(error) or str(error) == _RECORD_TOO_LONG:
                        source.skip_to_record_end()
                        reader = self._reader(source)
                        expected += f"; it ends on line {source.number}"
                    yield first, expected, "".join(source.consumed).encode(self._record_encoding)
                    continue
                if cells is None:
                    return
                if not cells:  # a blank line
                    continue
                text = "".join(source.consumed)
                original = text.encode(self._record_encoding)
                if assign_characters(text, self.encoding) is not text:
                    cells = [assign_characters(cell, self.encoding) for cell in cells]
                if len(cells) != width:
                    yield first, f"{width} cells, as the header has; got {len(cells)}", original
                elif self._is_last(cells):
                    return
                else:
                    yield first, cells, original

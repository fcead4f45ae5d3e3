"""CSV parser: one file as a portion, every record a row or a reject with its line and its own bytes.

The parser is the standard library's, fed line by line, so that the original text of each record is available for the
quarantine. Every value stays text.

    header     the row that `header_row` names; without blanks at its ends and byte order mark, each name once
    ragged     a row with another number of cells is a reject (ROW_SHAPE), never shifted
    quotes     strict: a stray quote is a reject, and the next line is parsed as a new record
    long       a cell of more than 1,048,576 characters is a reject; it ends where its quote is closed
    stop_at    a total row (合计) ends the file

An unclosed quote swallows what follows it. The swallowed rows become one reject whose key is unknown, and that
prevents every void (`connectors.publishing.publisher`): these rows are missing from the rows that were read, not from
the file. Of a record that is too long, the reject keeps the beginning, and names the line on which it ends.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from connectors.port import Reject, RejectCode, Replaces, RowChunk
from connectors.sources.encoding import assign_characters
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["CsvFormat", "CsvPortion"]

_CHUNK = 5_000  # rows
_FIELD_LIMIT = 1 << 20  # characters
_KEPT = 2 * _FIELD_LIMIT  # characters of a reject's original
_TOO_LONG = "field limit"  # of the csv module's message; it has one exception for all
_BLANKS = " \t\r\n\u00a0\u3000\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFormat:
    """Format of a CSV file.

    Attributes:
        encoding: `auto`, or a pinned one (`connectors.sources.encoding`).
        delimiter: between cells.
        header_row: the line that names the columns, from 1.
        stop_column, stop_value: the first row with this text in this column ends the file.
    """

    encoding: str = "auto"
    delimiter: str = ","
    header_row: int = 1
    stop_column: str = ""
    stop_value: str = ""


@dataclass(frozen=True, slots=True)
class FileSignature:
    """Metadata of a file in the file system; it changes when the file does."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "FileSignature":
        """Read it from the file system.

        Raises:
            OSError: the file does not exist.
        """
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class _LineRecorder:
    """Lines for the csv module; records those that it consumed since the last record."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self.number = 0
        self.consumed: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.number += 1
            self.consumed.append(line)
            yield line

    def skip_to_record_end(self) -> None:
        """Skip the lines up to the end of a record of which the csv module gave up in the middle of a quoted cell.

        A record ends with the first line up to which its quotes are even (RFC 4180, section 2, rules 5 to 7).
        """
        quotes = sum(line.count('"') for line in self.consumed)
        kept = sum(map(len, self.consumed))
        for line in self._file if quotes % 2 else ():
            self.number += 1
            if kept < _KEPT:
                self.consumed.append(line)
                kept += len(line)
            quotes += line.count('"')
            if quotes % 2 == 0:
                return


class CsvPortion:
    """A whole file."""

    stable = True

    def __init__(
        self,
        path: Path,
        *,
        identity: bytes,
        encoding: str,
        csv_format: CsvFormat,
        replaces: Replaces,
        signature: FileSignature,
    ) -> None:
        """Read the header.

        Raises:
            InvalidError: FILE_REJECTED, when there is no header, or it names a column twice.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        self.path = path
        self.name = path.name
        self.identity = identity
        self.encoding = encoding
        self.replaces = replaces
        self.signature = signature
        self._csv_format = csv_format
        self._record_encoding = encoding.removesuffix("-sig")  # of a record in the middle of the file
        self.columns = self._header()

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows, in chunks; raise SOURCE_CHANGED if the file changes meanwhile."""
        wanted = list(self.columns) if columns is None else list(columns)
        indices = [self.columns.index(name) for name in wanted]
        keep_text = columns is None
        rows: list[list[str]] = []
        lines: list[int] = []
        originals: list[bytes] = []
        rejects: list[Reject] = []
        for line, cells, text in self._records():
            if isinstance(cells, str):
                rejects.append(_reject(line, cells, text.encode(self._record_encoding)))
            else:
                rows.append(cells)
                lines.append(line)
                if keep_text:
                    originals.append(text.encode(self._record_encoding))
            if len(rows) >= _CHUNK or len(rejects) >= _CHUNK:
                yield _row_chunk(wanted, indices, rows, lines, originals, rejects)
                rows, lines, originals, rejects = [], [], [], []
                self._check_unchanged()
        if rows or rejects:
            yield _row_chunk(wanted, indices, rows, lines, originals, rejects)
        self._check_unchanged()

    def confirm(self) -> None:
        """Do nothing: `connectors.sources.csv_folder` moves and records files."""

    def _open(self) -> io.TextIOWrapper:
        try:
            file = self.path.open(encoding=self.encoding, errors="strict", newline="")
            if file.read(1) != "\ufeff":
                file.seek(0)
        except OSError as error:
            raise _unavailable(self.path) from error
        return file

    def _header(self) -> list[str]:
        with self._open() as file:
            for _ in range(self._csv_format.header_row - 1):
                file.readline()
            try:
                cells = next(csv.reader(file, delimiter=self._csv_format.delimiter, strict=True), [])
            except csv.Error as error:
                raise self._rejected_file(f"a header that cannot be read ({error})") from error
        names = [assign_characters(cell, self.encoding).strip(_BLANKS) for cell in cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not any(names):
            raise self._rejected_file("no header")
        if twice:
            raise self._rejected_file(f"a header that names columns twice: {', '.join(twice)}")
        if self._csv_format.stop_column and self._csv_format.stop_column not in names:
            raise self._rejected_file(f"no column {self._csv_format.stop_column!r}, which `stop_at` names")
        return names

    def _rejected_file(self, what: str) -> InvalidError:
        return InvalidError(
            Reason.FILE_REJECTED,
            f"{self.name} has {what}; expected a row of column names on line {self._csv_format.header_row}",
            details={"code": RejectCode.ROW_SHAPE.value},
        )

    def _records(self) -> Iterator[tuple[int, list[str] | str, str]]:
        """Return (line, cells, text) of each record; the reason instead of cells where it cannot be parsed."""
        width = len(self.columns)
        stop = self.columns.index(self._csv_format.stop_column) if self._csv_format.stop_column else -1
        with self._open() as file:
            csv.field_size_limit(_FIELD_LIMIT)
            source = _LineRecorder(file)
            lines = iter(source)
            reader = csv.reader(lines, delimiter=self._csv_format.delimiter, strict=True)
            for _ in range(self._csv_format.header_row - 1):
                next(lines, None)
            next(reader, None)
            while True:
                source.consumed.clear()
                first = source.number + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    expected = f"a record that can be read ({error})"
                    if _TOO_LONG in str(error):
                        source.skip_to_record_end()
                        expected += f"; it ends on line {source.number}"
                    yield first, expected, "".join(source.consumed)
                    continue
                if cells is None:
                    return
                if not cells:  # a blank line
                    continue
                text = "".join(source.consumed)
                if assign_characters(text, self.encoding) is not text:
                    cells = [assign_characters(cell, self.encoding) for cell in cells]
                if len(cells) != width:
                    yield first, f"{width} cells, as the header has; got {len(cells)}", text
                elif stop >= 0 and cells[stop].strip(_BLANKS) == self._csv_format.stop_value:
                    return
                else:
                    yield first, cells, text

    def _check_unchanged(self) -> None:
        try:
            if FileSignature.of(self.path) == self.signature:
                return
        except OSError as error:
            raise _unavailable(self.path) from error
        raise UnavailableError(
            Reason.SOURCE_CHANGED,
            f"{self.name} changed while it was read; it is read again. Write to another name and rename it when it "
            "is whole",
            retry_after=1.0,
        )


def _unavailable(path: Path) -> UnavailableError:
    return UnavailableError(Reason.SOURCE_UNAVAILABLE, f"{path.name} cannot be opened; is the folder still there?")


def _reject(line: int, expected: str, original: bytes) -> Reject:
    return Reject(line=line, code=RejectCode.ROW_SHAPE, field="", message=f"expected {expected}", original=original)


def _row_chunk(
    names: Sequence[str],
    indices: Sequence[int],
    rows: Sequence[Sequence[str]],
    lines: Sequence[int],
    originals: Sequence[bytes],
    rejects: Sequence[Reject],
) -> RowChunk:
    columns = {
        name: pa.array([row[index] for row in rows], pa.string()) for name, index in zip(names, indices, strict=True)
    }
    return RowChunk(columns=columns, lines=lines, originals=originals, rejects=rejects)

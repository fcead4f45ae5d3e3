"""One CSV file as a portion: every record becomes a row or a reject, with its line and its own bytes.

The reader is the standard library's, fed line by line so that the text of each record is at hand: it is what the
quarantine keeps. Everything stays text.

    header     the row that `header_row` names; blanks cut, a byte order mark gone, no name twice
    ragged     a row with another number of cells is a reject (ROW_SHAPE), never shifted
    quotes     strict: a stray quote is a reject, and the next line is read as a new record
    stop_at    a total row (合计) ends the file

An unclosed quote swallows what follows it. The swallowed rows become one reject whose key unknown, and that
holds back every void (`connectors.publishing.publisher`): they are missing, but not gone.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from connectors.port import Changes, Reject, RejectCode, Replaces
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["CsvFormat", "CsvPortion"]

_CHUNK = 5_000  # rows
_FIELD_LIMIT = 1 << 20  # characters; an unclosed quote ends there
_BLANK = " \t\r\n\u00a0\u3000\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFormat:
    """How a file is to be read.

    Attributes:
        encoding: `auto`, or a pinned one (`connectors.sources.encoding`).
        delimiter: between cells.
        header_row: the line that names the columns, from 1.
        stop_column, stop_value: the first row with this text in this column, and what follows, is not read.
    """

    encoding: str = "auto"
    delimiter: str = ","
    header_row: int = 1
    stop_column: str = ""
    stop_value: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """What the file system says of a file; it changes when the file does."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Signature":
        """Ask the file system.

        Raises:
            OSError: the file is not there.
        """
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class _Lines:
    """Text lines for the csv module; keeps those that it has taken since the last record."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.number += 1
            self.taken.append(line)
            yield line


class CsvPortion:
    """A file, whole; see the module."""

    stable = True

    def __init__(
        self, path: Path, *, identity: bytes, encoding: str, form: CsvFormat, replaces: Replaces, signature: Signature
    ) -> None:
        """Read the header.

        Raises:
            InvalidError: FILE_REJECTED, when there is none, or it names a column twice.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        self.path = path
        self.name = path.name
        self.identity = identity
        self.encoding = encoding
        self.replaces = replaces
        self.signature = signature
        self._form = form
        self._plain = encoding.removesuffix("-sig")  # what a record in the middle of the file is written in
        self.columns = self._header()
        self.expected = 0

    def changes(self, columns: Sequence[str] | None = None) -> Iterator[Changes]:
        """Read the rows; see `connectors.port.Portion`."""
        wanted = list(self.columns) if columns is None else list(columns)
        places = [self.columns.index(name) for name in wanted]
        keep_text = columns is None
        rows: list[list[str]] = []
        lines: list[int] = []
        originals: list[bytes] = []
        rejects: list[Reject] = []
        for line, cells, text in self._records():
            if isinstance(cells, str):
                rejects.append(_reject(line, cells, text.encode(self._plain)))
            else:
                rows.append(cells)
                lines.append(line)
                if keep_text:
                    originals.append(text.encode(self._plain))
            if len(rows) >= _CHUNK or len(rejects) >= _CHUNK:
                yield _changes(wanted, places, rows, lines, originals, rejects)
                rows, lines, originals, rejects = [], [], [], []
                self._unchanged()
        if rows or rejects:
            yield _changes(wanted, places, rows, lines, originals, rejects)
        self._unchanged()

    def done(self) -> None:
        """Nothing: the folder knows what to do with its files."""

    def _open(self) -> io.TextIOWrapper:
        try:
            file = self.path.open(encoding=self.encoding, errors="strict", newline="")
            if file.read(1) != "\ufeff":
                file.seek(0)
        except OSError as error:
            raise _away(self.path) from error
        return file

    def _header(self) -> list[str]:
        with self._open() as file:
            for _ in range(self._form.header_row - 1):
                file.readline()
            try:
                cells = next(csv.reader(file, delimiter=self._form.delimiter, strict=True), [])
            except csv.Error as error:
                raise self._refused(f"a header that cannot be read ({error})") from error
        names = [cell.strip(_BLANK) for cell in cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not any(names):
            raise self._refused("no header")
        if twice:
            raise self._refused(f"a header that names columns twice: {', '.join(twice)}")
        if self._form.stop_column and self._form.stop_column not in names:
            raise self._refused(f"no column {self._form.stop_column!r}, which `stop_at` names")
        return names

    def _refused(self, what: str) -> InvalidError:
        return InvalidError(
            Reason.FILE_REJECTED,
            f"{self.name} has {what}; expected a row of column names on line {self._form.header_row}",
            details={"code": RejectCode.ROW_SHAPE.value},
        )

    def _records(self) -> Iterator[tuple[int, list[str] | str, str]]:
        """Return (line, cells, text) of each record; in place of its cells, the reason why it has none."""
        width = len(self.columns)
        stop = self.columns.index(self._form.stop_column) if self._form.stop_column else -1
        with self._open() as file:
            csv.field_size_limit(_FIELD_LIMIT)
            source = _Lines(file)
            lines = iter(source)
            reader = csv.reader(lines, delimiter=self._form.delimiter, strict=True)
            for _ in range(self._form.header_row - 1):
                next(lines, None)
            next(reader, None)
            while True:
                source.taken.clear()
                first = source.number + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield first, f"a record that can be read ({error})", "".join(source.taken)
                    continue
                if cells is None:
                    return
                if not cells:  # a blank line
                    continue
                text = "".join(source.taken)
                if len(cells) != width:
                    yield first, f"{width} cells, as the header has; got {len(cells)}", text
                elif stop >= 0 and cells[stop].strip(_BLANK) == self._form.stop_value:
                    return
                else:
                    yield first, cells, text

    def _unchanged(self) -> None:
        try:
            if Signature.of(self.path) == self.signature:
                return
        except OSError as error:
            raise _away(self.path) from error
        raise UnavailableError(
            Reason.SOURCE_CHANGED,
            f"{self.name} changed while it was read; it is read again. Write to another name and rename it when it "
            "is whole",
            retry_after=1.0,
        )


def _away(path: Path) -> UnavailableError:
    return UnavailableError(Reason.SOURCE_UNAVAILABLE, f"{path.name} cannot be opened; is the folder still there?")


def _reject(line: int, expected: str, original: bytes) -> Reject:
    return Reject(line=line, code=RejectCode.ROW_SHAPE, field="", message=f"expected {expected}", original=original)


def _changes(
    names: Sequence[str],
    places: Sequence[int],
    rows: Sequence[Sequence[str]],
    lines: Sequence[int],
    originals: Sequence[bytes],
    rejects: Sequence[Reject],
) -> Changes:
    columns = {
        name: pa.array([row[place] for row in rows], pa.string()) for name, place in zip(names, places, strict=True)
    }
    return Changes(columns=columns, lines=lines, originals=originals, rejects=rejects)

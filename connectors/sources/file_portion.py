"""File as a portion: what all forms of files have in common, and which form a file has.

    .csv, any other name           comma (or `format.delimiter`) between cells     connectors.sources.csv_file
    .tsv, .tab                     tabulator between cells                         connectors.sources.csv_file
    .jsonl, .ndjson                a JSON object on each line                      connectors.sources.json_lines_file
    .xlsx, .xlsm                   a sheet of a workbook                           connectors.sources.workbook_file
    one of these texts, and .gz    the same, compressed (RFC 1952)

Every value stays text. A subclass yields its records; this class makes chunks of them, and stops when the file changes
while it is read.
"""

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypedDict

import pyarrow as pa
from typing_extensions import Unpack, override

from connectors.port import Reject, RejectCode, Replaces, RowChunk
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = [
    "BLANKS",
    "DAMAGED",
    "MAX_COLUMNS",
    "MAX_UNPACKED",
    "FileForm",
    "FileFormat",
    "FilePortion",
    "FileSignature",
    "KnownFile",
    "Record",
    "file_form",
    "open_binary",
    "rejected_file",
    "unavailable_file",
]

BLANKS = " \t\r\n\u00a0\u3000\ufeff"
"""Characters around a column's name that are not part of it."""

DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
"""Errors of a compressed file that is damaged or cut."""

MAX_COLUMNS = 1 << 14
"""Columns of a table in a file: those that Excel has."""

MAX_UNPACKED = 16 << 30
"""Bytes of a compressed file, unpacked."""

_CHUNK = 5_000  # rows
_NAMED = 10  # columns of an error

Record: TypeAlias = tuple[int, Sequence[str | None] | str, bytes]
"""(line, cells, original) of a record; what was expected in place of cells where it cannot be read."""


class FileForm(StrEnum):
    """Form of a file."""

    CSV = "csv"
    TSV = "tsv"
    JSON_LINES = "jsonl"
    WORKBOOK = "excel"


_SUFFIXES = {
    ".tsv": FileForm.TSV,
    ".tab": FileForm.TSV,
    ".jsonl": FileForm.JSON_LINES,
    ".ndjson": FileForm.JSON_LINES,
    ".xlsx": FileForm.WORKBOOK,
    ".xlsm": FileForm.WORKBOOK,
    ".xls": FileForm.WORKBOOK,
    ".xlsb": FileForm.WORKBOOK,
    ".ods": FileForm.WORKBOOK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """Format of a file.

    Attributes:
        encoding: `auto`, or a pinned one (`connectors.sources.encoding`); of texts.
        delimiter: between cells, of CSV.
        header_row: the line that names the columns, from 1; of CSV, TSV and sheets.
        stop_column, stop_value: the first row with this text in this column ends the file.
        form: of every file; empty = by its name.
        sheet: name of the sheet of a workbook; empty = the only one that is visible.
    """

    encoding: str = "auto"
    delimiter: str = ","
    header_row: int = 1
    stop_column: str = ""
    stop_value: str = ""
    form: FileForm | None = None
    sheet: str = ""


@dataclass(frozen=True, slots=True)
class FileSignature:
    """Metadata of a file in the file system; it changes when the file does."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "FileSignature":
        """Read it from the file system; of a symbolic link, its own.

        Raises:
            OSError: the file does not exist.
        """
        stat = path.lstat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class KnownFile(TypedDict):
    """What is known of a file before its columns are read; see `FilePortion`."""

    identity: bytes
    encoding: str  # empty for a workbook
    file_format: FileFormat
    replaces: Replaces
    signature: FileSignature


def file_form(path: Path, file_format: FileFormat) -> FileForm:
    """Return the form of a file: the configured one, or that of its name."""
    if file_format.form is not None:
        return file_format.form
    name = path.with_suffix("") if _is_compressed(path) else path
    return _SUFFIXES.get(name.suffix.lower(), FileForm.CSV)


def open_binary(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open a file's content, decompressed where its name ends in `.gz`.

    Raises:
        OSError: the file cannot be opened, or is a symbolic link. What is in it may raise one of `DAMAGED` as it is
            read, and FILE_REJECTED beyond `MAX_UNPACKED`.
    """
    # A link that took the file's place since the folder was listed is not followed.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    return _BoundedGzip(fileobj=file, owned=file) if _is_compressed(path) else file


class _BoundedGzip(gzip.GzipFile):
    """A compressed file that unpacks to so many bytes, and no more."""

    def __init__(self, *, fileobj: BinaryIO, owned: BinaryIO) -> None:
        super().__init__(fileobj=fileobj, mode="rb")
        self._owned = owned

    @override
    def read(self, size: int | None = -1) -> bytes:
        return self._checked(super().read(size))

    @override
    def read1(self, size: int = -1) -> bytes:
        return self._checked(super().read1(size))

    @override
    def close(self) -> None:
        super().close()
        self._owned.close()

    def _checked(self, block: bytes) -> bytes:
        if self.tell() > MAX_UNPACKED:
            raise rejected_file(
                f"the compressed file has more than {MAX_UNPACKED >> 30} GiB unpacked; split it", RejectCode.TOO_LARGE
            )
        return block


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


class FilePortion:
    """A whole file. A subclass sets `columns` and yields `_records`."""

    stable = True
    columns: Sequence[str]

    def __init__(self, path: Path, **known: Unpack[KnownFile]) -> None:
        """Take what is known of the file; a subclass reads its columns."""
        self.path = path
        self.name = path.name
        self.identity = known["identity"]
        self.encoding = known["encoding"]
        self.replaces = known["replaces"]
        self.signature = known["signature"]
        self.file_format = known["file_format"]

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Read the rows, in chunks; raise SOURCE_CHANGED if the file changes meanwhile."""
        wanted = list(self.columns) if columns is None else list(columns)
        indices = [self.columns.index(name) for name in wanted]
        keep_text = columns is None
        rows: list[Sequence[str | None]] = []
        lines: list[int] = []
        originals: list[bytes] = []
        rejects: list[Reject] = []
        for line, cells, original in self._readable():
            if isinstance(cells, str):
                rejects.append(_reject(line, cells, original))
            else:
                rows.append(cells)
                lines.append(line)
                if keep_text:
                    originals.append(original)
            if len(rows) >= _CHUNK or len(rejects) >= _CHUNK:
                yield _row_chunk(wanted, indices, rows, lines, originals, rejects)
                rows, lines, originals, rejects = [], [], [], []
                self._check_unchanged()
        if rows or rejects:
            yield _row_chunk(wanted, indices, rows, lines, originals, rejects)
        self._check_unchanged()

    def _readable(self) -> Iterator[Record]:
        try:
            yield from self._records()
        except DAMAGED as error:  # it was whole when it was first read
            self._check_unchanged()
            raise unavailable_file(self.path) from error

    def confirm(self) -> None:
        """Do nothing: `connectors.sources.drop_folder` moves and records files."""

    def _records(self) -> Iterator[Record]:
        raise NotImplementedError

    def _require_columns(self, names: Sequence[str]) -> None:
        """Check the names of columns, without blanks at their ends.

        Raises:
            InvalidError: FILE_REJECTED.
        """
        if len(names) > MAX_COLUMNS:
            raise rejected_file(
                f"{self.name} has {len(names):,} columns; expected {MAX_COLUMNS:,} at most", RejectCode.TOO_LARGE
            )
        twice = sorted(name for name, count in Counter(names).items() if count > 1)[:_NAMED]
        if not any(names):
            raise self._rejected_header("no header")
        if twice:
            raise self._rejected_header(f"a header that names columns twice: {', '.join(twice)}")
        if self.file_format.stop_column and self.file_format.stop_column not in names:
            raise self._rejected_header(f"no column {self.file_format.stop_column!r}, which `stop_at` names")

    def _rejected_header(self, what: str) -> InvalidError:
        return rejected_file(
            f"{self.name} has {what}; expected a row of column names on line {self.file_format.header_row}"
        )

    def _is_last(self, cells: Sequence[str | None]) -> bool:
        """Return whether a row is that of `stop_at`."""
        if not self.file_format.stop_column:
            return False
        cell = cells[self.columns.index(self.file_format.stop_column)]
        return cell is not None and cell.strip(BLANKS) == self.file_format.stop_value

    def _check_unchanged(self) -> None:
        try:
            if FileSignature.of(self.path) == self.signature:
                return
        except OSError as error:
            raise unavailable_file(self.path) from error
        raise UnavailableError(
            Reason.SOURCE_CHANGED,
            f"{self.name} changed while it was read; it is read again. Write to another name and rename it when it "
            "is whole",
            retry_after=1.0,
        )


def rejected_file(message: str, code: RejectCode = RejectCode.ROW_SHAPE) -> InvalidError:
    """Return the error for a file that is set aside whole."""
    return InvalidError(Reason.FILE_REJECTED, message, details={"code": code.value})


def unavailable_file(path: Path) -> UnavailableError:
    """Return the error for a file that cannot be opened any more."""
    return UnavailableError(Reason.SOURCE_UNAVAILABLE, f"{path.name} cannot be opened; is the folder still there?")


def _reject(line: int, expected: str, original: bytes) -> Reject:
    return Reject(line=line, code=RejectCode.ROW_SHAPE, field="", message=f"expected {expected}", original=original)


def _row_chunk(
    names: Sequence[str],
    indices: Sequence[int],
    rows: Sequence[Sequence[str | None]],
    lines: Sequence[int],
    originals: Sequence[bytes],
    rejects: Sequence[Reject],
) -> RowChunk:
    columns = {
        name: pa.array([row[index] for row in rows], pa.string()) for name, index in zip(names, indices, strict=True)
    }
    return RowChunk(columns=columns, lines=lines, originals=originals, rejects=rejects)

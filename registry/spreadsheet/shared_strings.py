"""Shared strings of a workbook (ECMA-376, 18.4): how much memory they take, before calamine takes it.

A sheet's cell names a shared string by its number, and calamine makes a text of its own for each cell. So a string of a
megabyte that 100,000 cells name is 100 GB, in a file of some kilobytes. The strings are measured, and where their
longest one in every cell would be too much, what the cells name is added up.
"""

import zipfile
from array import array
from xml.parsers.expat import ParserCreate, XMLParserType

from schemas.errors import InvalidError, Reason

__all__ = ["require_bounded_strings"]

_PART = "xl/sharedstrings.xml"
_MAX_PART = 256 << 20  # bytes, unpacked
_MAX_STRINGS = 16 << 20  # calamine takes 24 bytes for each, and its text
_MAX_TEXT = 1 << 30  # bytes of all cells of a sheet, in UTF-8
_BLOCK = 1 << 20


def require_bounded_strings(archive: zipfile.ZipFile, sheet: str, cells: int) -> None:
    """Check that the shared strings, and the cells of a sheet that name them, fit into memory.

    Args:
        archive: the workbook.
        sheet: the sheet's part.
        cells: that the sheet has.

    Raises:
        InvalidError: FILE_REJECTED.
        ExpatError, KeyError, ValueError: it is no workbook.
    """
    part = next((each for each in archive.infolist() if each.filename.lower() == _PART), None)
    if part is None:
        return
    if part.file_size > _MAX_PART:
        raise _too_large(f"{part.file_size >> 20:,} MiB of shared strings; expected {_MAX_PART >> 20} at most")
    strings = _Strings()
    strings.read(archive, part.filename)
    if max(strings.sizes, default=0) * cells <= _MAX_TEXT:
        return
    named = _Named(strings.sizes)
    named.read(archive, sheet)


class _Strings:
    """The sizes of the strings, in bytes of UTF-8."""

    def __init__(self) -> None:
        self.sizes = array("Q")

    def read(self, archive: zipfile.ZipFile, name: str) -> None:
        parser = ParserCreate()
        parser.StartElementHandler = self._begin
        parser.CharacterDataHandler = self._text
        _feed(parser, archive, name)

    def _begin(self, name: str, _: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "si":
            self.sizes.append(0)
            if len(self.sizes) > _MAX_STRINGS:
                raise _too_large(f"more than {_MAX_STRINGS:,} shared strings")

    def _text(self, text: str) -> None:
        if self.sizes:
            self.sizes[-1] += len(text.encode("utf-8", "surrogatepass"))


class _Named:
    """The bytes of the strings that the cells of a sheet name."""

    def __init__(self, sizes: "array[int]") -> None:
        self._sizes = sizes
        self._shared = self._is_value = False
        self._number = ""
        self._total = 0

    def read(self, archive: zipfile.ZipFile, name: str) -> None:
        parser = ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        _feed(parser, archive, name)

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        match name.rpartition(":")[2]:
            case "c":
                self._shared = attributes.get("t") == "s"
            case "v":
                self._is_value, self._number = self._shared, ""

    def _text(self, text: str) -> None:
        if self._is_value and len(self._number) < len("16777216"):
            self._number += text

    def _end(self, name: str) -> None:
        if name.rpartition(":")[2] == "v" and self._is_value:
            self._is_value = False
            number = int(self._number)
            self._total += self._sizes[number] if 0 <= number < len(self._sizes) else 0
            if self._total > _MAX_TEXT:
                raise _too_large(f"cells of more than {_MAX_TEXT >> 20:,} MiB of text")


def _feed(parser: XMLParserType, archive: zipfile.ZipFile, name: str) -> None:
    with archive.open(name) as part:
        while block := part.read(_BLOCK):
            parser.Parse(block)
    parser.Parse(b"", True)


def _too_large(what: str) -> InvalidError:
    message = f"the workbook has {what}; split it, or save it as CSV"
    return InvalidError(Reason.FILE_REJECTED, message, details={"code": "TOO_LARGE"})

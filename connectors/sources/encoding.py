"""Encoding detection: strict decoders tried in a fixed order, not a guess; the last one has to prove itself.

    1. a byte order mark (UTF-8, UTF-16)
    2. UTF-8, strict
    3. GB18030, strict (it holds GBK, what a Chinese spreadsheet writes as "CSV"), if the text can be meant
    4. none: the file is quarantined, with the offset and the line of the first byte that fits neither

UTF-8 comes before GB18030, which accepts almost any bytes as text. Statistical detectors were tried and got 8 of 11
GBK and GB18030 samples wrong, mostly files of ASCII with one Chinese name in them, where this order got all right.
Nothing is ever decoded with `errors="replace"`: one byte that does not fit quarantines the whole file, since a name
that was altered by a decoder looks like a name.

That bytes are valid GB18030 says little: most Big5 is, and most UTF-8. So step 3 refuses text that nobody writes

    a character of the private use area, an unassigned one, a control character
    more than an eighth of kana, Greek, Cyrillic, phonetic and box-drawing characters (Big5 has its commonest there)
    more than half, and several, of characters outside GB 2312
    nine tenths or more of the bytes beyond ASCII are whole Chinese characters in UTF-8, or all but a last one that is
    cut: this is UTF-8 that was damaged or cut

Where such a text is meant, `format.encoding` pins it. The price of a wrong refusal is a file set aside and named; the
price of a wrong acceptance is published names that nobody has.

The file is read once, in blocks; its SHA-256 is computed in the same pass. Text that claims to be GB18030 is read once
more. A line longer than `MAX_LINE` is found in that pass too: parsers read line by line, and would hold all of it.
"""

import codecs
import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from connectors.sources.file_portion import open_binary, unavailable_file
from schemas.record import MAX_BATCH_BYTES

__all__ = ["AUTO", "MAX_LINE", "DecodingFailure", "EncodingResult", "assign_characters", "detect_encoding", "open_text"]

AUTO = "auto"

MAX_LINE = MAX_BATCH_BYTES
"""Characters of a line at most: a record is no larger than a batch."""

_BLOCK = 1 << 20  # bytes
_HEAD = 1 << 16  # bytes, even
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF_32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_CANDIDATES = ("utf-8", "gb18030")
_WHOLE_CHARACTERS = re.compile(  # U+3000 to U+303F, U+4E00 to U+9FFF, U+FF00 to U+FFEF in UTF-8
    rb"(?:\xe3\x80[\x80-\xbf]|\xe4[\xb8-\xbf][\x80-\xbf]|[\xe5-\xe9][\x80-\xbf]{2}|\xef[\xbc-\xbf][\x80-\xbf])+"
)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_CUT_CHARACTER = re.compile(rb"[\xe3-\xef][\x80-\xbf]?\Z")
_FOREIGN = re.compile(  # one between Chinese characters, as in 优の良品, is none
    "(?<![\u4e00-\u9fff])[\u0370-\u052f\u2500-\u257f\u3040-\u312f]+(?![\u4e00-\u9fff])"
    "|[\u0370-\u052f\u2500-\u257f\u3040-\u312f]{2,}"
)
_DOUBTED = re.compile("[^\t\r\n -~\u4e00-\u9fff\u3000-\u303f\uff01-\uff5e]")  # to be looked up
_MEANINGLESS = frozenset({"Cc", "Cn", "Co", "Cs"})

# Characters that GB 18030-2000 placed in the private use area, where Python's codec still has them: their code points
# by GB 18030-2005 (A8BC) and GB 18030-2022 (the others).
_ASSIGNED = {
    **dict(zip(range(0xE78D, 0xE794), (0xFE10, 0xFE12, 0xFE11, 0xFE13, 0xFE14, 0xFE15, 0xFE16), strict=True)),
    **dict(zip(range(0xE794, 0xE797), (0xFE17, 0xFE18, 0xFE19), strict=True)),
    **dict(zip((0xE81E, 0xE826, 0xE82B, 0xE82C, 0xE832, 0xE843, 0xE854, 0xE864), range(0x9FB4, 0x9FBC), strict=True)),
    0xE7C7: 0x1E3F,
}
_REASSIGNED = re.compile("[" + "".join(map(chr, _ASSIGNED)) + "]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingFailure:
    """The first byte that does not fit.

    Attributes:
        offset: of the byte, from 0.
        line: of the file, from 1.
        tried: the encodings that were tried.
        cause: why it does not fit and what to do, where more is known than that it is not text in these encodings.
    """

    offset: int
    line: int
    tried: tuple[str, ...]
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingResult:
    """Encoding and digest of a file.

    Attributes:
        sha256: of its bytes, 32 bytes.
        size: in bytes.
        encoding: name of Python's codec, one that leaves a byte order mark in UTF-16 as U+FEFF; empty when none fits.
        failure: of the decoder that got furthest, when none fits.
        long_line: the first line, from 1, of more than `MAX_LINE` characters; 0 when there is none.
    """

    sha256: bytes
    size: int
    encoding: str
    failure: DecodingFailure | None
    long_line: int = 0


class _StrictDecoder:
    """One strict decoder, fed block by block until it fails."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.failed_at: int | None = None
        self.too_long_at: int | None = None  # a byte in the first line that is too long
        # Python's utf-8-sig counts from after the mark; utf-8 decodes the mark as a character and counts from 0.
        self._decoder = codecs.getincrementaldecoder(encoding.removesuffix("-sig"))("strict")
        self._fed = 0
        self._length = 0  # of the line so far, in characters

    def feed(self, block: bytes, *, final: bool) -> None:
        if self.failed_at is not None:
            return
        pending = len(self._decoder.getstate()[0])
        try:
            self._measure(self._decoder.decode(block, final))
        except UnicodeDecodeError as error:
            # The error counts from the bytes of the previous block that the decoder had buffered.
            self.failed_at = self._fed - pending + error.start
        self._fed += len(block)

    def _measure(self, text: str) -> None:
        """Add a block, which is shorter than `MAX_LINE`: no line within it is too long, so its ends alone count."""
        if self._length + len(text) > MAX_LINE and self.too_long_at is None:
            ends = [at for at in (text.find("\n"), text.find("\r")) if at >= 0]
            if self._length + min(ends, default=len(text)) > MAX_LINE:
                self.too_long_at = self._fed
        end = max(text.rfind("\n"), text.rfind("\r"))
        self._length = self._length + len(text) if end < 0 else len(text) - end - 1


def detect_encoding(path: Path, encoding: str = AUTO) -> EncodingResult:
    """Read the file once; return its digest and the encoding that fits all of it.

    Args:
        path: of the file.
        encoding: `auto`, or the only one to try.

    Raises:
        OSError: the file cannot be read; also one of `connectors.sources.file_portion.DAMAGED`.
        LookupError: Python has no such encoding.
    """
    digest = hashlib.sha256()
    size = 0
    with open_binary(path) as file:
        head = file.read(_HEAD)
        names = (encoding,) if encoding != AUTO else _candidates(head)
        decoders = [_StrictDecoder(name) for name in names]
        file.seek(0)
        block = file.read(_BLOCK)
        while block:
            digest.update(block)
            size += len(block)
            for decoder in decoders:
                decoder.feed(block, final=False)
            block = file.read(_BLOCK)
    for decoder in decoders:
        decoder.feed(b"", final=True)
    fit = next((decoder for decoder in decoders if decoder.failed_at is None), None)
    failure = None
    if fit is None:
        offset = max(decoder.failed_at or 0 for decoder in decoders)
        failure = DecodingFailure(offset=offset, line=_line_of(path, offset, names[0]), tried=names)
    if encoding == AUTO:
        unmarked = _unmarked(head)
        if unmarked is not None:
            failure = unmarked
        elif (fit is None or fit.encoding != "utf-8") and names == _CANDIDATES:
            failure = _damage(path, decoders[0].failed_at or 0, size) or failure or _doubt(path)
    too_long_at = None if fit is None else fit.too_long_at
    return EncodingResult(
        sha256=digest.digest(),
        size=size,
        encoding="" if failure is not None or fit is None else fit.encoding,
        failure=failure,
        long_line=0 if fit is None or too_long_at is None else _line_of(path, too_long_at, fit.encoding),
    )


def assign_characters(text: str, encoding: str) -> str:
    """Return text that Python's codec decoded with the code points that the encoding's current standard gives.

    Source: GB 18030-2005, and GB 18030-2022, table D.1: characters that an earlier edition had in the private use area.
    """
    if encoding.lower().replace("-", "") != "gb18030" or not _REASSIGNED.search(text):
        return text
    return text.translate(_ASSIGNED)


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a file as text, after its byte order mark, with the line ends that it has.

    Raises:
        UnavailableError: SOURCE_UNAVAILABLE.
    """
    try:
        file = io.TextIOWrapper(open_binary(path), encoding=encoding, errors="strict", newline="")
        if file.read(1) != "\ufeff":
            file.seek(0)
    except OSError as error:
        raise unavailable_file(path) from error
    return file


def _candidates(head: bytes) -> tuple[str, ...]:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return (encoding,)
    return _CANDIDATES


def _unmarked(head: bytes) -> DecodingFailure | None:
    """Return a failure for UTF-16 without a byte order mark, and for UTF-32."""
    if head.startswith(_UTF_32_MARKS):
        return DecodingFailure(offset=0, line=1, tried=("utf-32",), cause="UTF-32; save the file again, as UTF-8")
    if b"\0" not in head or head.startswith(tuple(mark for mark, _ in _MARKS)):
        return None
    for name in ("utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(name)("strict").decode(head)
        except UnicodeDecodeError:
            continue
        # Text with single NULs is no UTF-16: two of them make a NUL there, and its letters make rare characters.
        if "\0" not in text and re.search("[\t\n,;|]", text) and not any(map(_is_meaningless, text)):
            cause = f"UTF-16 without a byte order mark; pin `format.encoding: {name}`, or save the file as UTF-8"
            return DecodingFailure(offset=head.index(b"\0"), line=1, tried=("utf-16",), cause=cause)
    return None


def _damage(path: Path, failed_at: int, size: int) -> DecodingFailure | None:
    """Return a failure for UTF-8 that was damaged or cut: nearly all its bytes beyond ASCII are whole characters."""
    beyond_ascii = whole = 0
    cut = b""
    with open_binary(path) as file:
        while block := file.read(_BLOCK):
            beyond_ascii += sum(map(len, _BEYOND_ASCII.findall(block)))
            block = cut + block  # a character may begin in one block and end in the next
            whole += sum(map(len, _WHOLE_CHARACTERS.findall(block)))
            cut = found[0] if (found := _CUT_CHARACTER.search(block)) else b""
    if not whole or (failed_at < size - 3 and whole < 9 * (beyond_ascii - whole)):
        return None
    cause = "the file is UTF-8 that was damaged there, or cut; export and copy it again"
    return DecodingFailure(offset=failed_at, line=_line_of(path, failed_at), tried=("utf-8",), cause=cause)


def _doubt(path: Path) -> DecodingFailure | None:
    """Return a failure for valid GB18030 that is not meant as such; see this module's docstring."""
    characters = common = foreign = meaningless = 0
    for text in _texts(path):
        ascii_count = len(text.encode("ascii", "ignore"))
        characters += len(text) - ascii_count
        common += (len(text.encode("gb2312", "ignore")) - ascii_count) // 2
        foreign += sum(map(len, _FOREIGN.findall(text)))
        meaningless += any(map(_is_meaningless, _DOUBTED.findall(text)))
    rare = characters - common
    if meaningless:
        offset, what = _offset_of(path, _is_meaningless), "characters of the private use area, or unassigned ones"
    elif foreign * 8 > characters:
        offset, what = _offset_of(path, _is_foreign), "kana or other foreign letters"
    elif rare > 1 and rare * 2 > characters:
        offset, what = _offset_of(path, _is_rare), "mostly rare characters"
    else:
        return None
    cause = (
        f"as GB18030 the file has {what}, so it is probably Big5 or another encoding; save it as UTF-8, or pin "
        "`format.encoding` if this is meant"
    )
    return DecodingFailure(offset=offset, line=_line_of(path, offset), tried=_CANDIDATES, cause=cause)


def _texts(path: Path) -> Iterator[str]:
    """Return a file's text in GB18030, in blocks."""
    decoder = codecs.getincrementaldecoder("gb18030")("strict")
    with open_binary(path) as file:
        while block := file.read(_BLOCK):
            yield decoder.decode(block)


def _offset_of(path: Path, is_meant: Callable[[str], bool]) -> int:
    """Return the offset of the first character of this kind, in bytes; 0 where there is none."""
    before = 0
    for text in _texts(path):
        for at, each in enumerate(text):
            if is_meant(each):
                return before + len(text[:at].encode("gb18030"))
        before += len(text.encode("gb18030"))
    return 0


def _is_meaningless(character: str) -> bool:
    if "\U00020000" <= character <= "\U0003fffd":  # ideographs, of editions of Unicode that Python may not know yet
        return False
    return (
        unicodedata.category(character) in _MEANINGLESS
        and character not in "\t\r\n"
        and ord(character) not in _ASSIGNED
    )


def _is_foreign(character: str) -> bool:
    return _FOREIGN.match(character) is not None


def _is_rare(character: str) -> bool:
    return not character.isascii() and not character.encode("gb2312", "ignore")


def _line_of(path: Path, offset: int, encoding: str = "") -> int:
    """Return the line, from 1, of the byte at an offset. Lines end with LF, CR LF or CR, as the parsers count them."""
    # In UTF-16 the bytes of a line end are those of other characters as well.
    wide = encoding if encoding.startswith("utf-16") else "latin-1"
    decoder = codecs.getincrementaldecoder(wide)("replace")
    ends, last = 0, ""
    with open_binary(path) as file:
        left = offset
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            text = last + decoder.decode(block)
            left -= len(block)
            last = "\r" if text.endswith("\r") else ""  # it may be the first half of a line end
            ends += _line_ends(text.removesuffix("\r"))
        if last and not decoder.decode(file.read(2)).startswith("\n"):
            ends += 1  # a byte behind the CR of a CR LF is on the line that it ends
    return ends + 1


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")

"""Search of what a store has on its disk for planted values, in every form in which it may keep them.

A planted value is text of many numbered pieces: a store that cuts it at the ends of its pages and segments still
holds most of the pieces whole, and one piece that is left behind is found.

    PostgreSQL   the bytes of every file: tables, TOAST tables, indexes, write-ahead log, statistics, temporary files.
                 The pool's blocks are stored without compression, and `wal_compression` is off.
    Kafka        the bytes of every file, and the records of every batch of every segment, decompressed
"""

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

__all__ = ["found_in", "planted", "unpacked"]

_PIECES = 40
_BATCH = struct.Struct(">qiibIh")  # base offset, length after it, leader epoch, magic, checksum, attributes
_RECORDS_AT = 61  # bytes before the records of a batch
_CODECS = {0: None, 1: "gzip", 3: "lz4", 4: "zstd"}


def planted(name: str) -> str:
    """Return a value to plant; *name* of eight letters or digits marks each of its pieces."""
    return "".join(f"{name}-{number:02};" for number in range(_PIECES))


def found_in(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Return, by name, the files below a folder that hold a piece of the value planted under it."""
    wanted = {name: re.compile(re.escape(name.encode()) + rb"-\d\d;") for name in names}
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # the server removed it meanwhile
                continue
            forms = [content, *unpacked(path, content)]
            for name, pattern in wanted.items():
                if any(pattern.search(form) for form in forms):
                    found[name].append(str(path.relative_to(folder)))
    return found


def unpacked(path: Path, content: bytes) -> Iterator[bytes]:
    """Return the records of each batch in a Kafka segment, decompressed (Kafka protocol guide, "Record Batch")."""
    if not re.fullmatch(r"\d{20}\.log(\.deleted|\.cleaned|\.swap)?", path.name):
        return
    at = 0
    while at + _BATCH.size <= len(content):
        _, length, _, magic, _, attributes = _BATCH.unpack_from(content, at)
        if magic != 2 or length <= 0:  # the rest of a segment is reserved and empty
            return
        codec, records = _CODECS[attributes & 7], content[at + _RECORDS_AT : at + 12 + length]
        yield pa.input_stream(pa.BufferReader(records), compression=codec).read() if codec and records else records
        at += 12 + length

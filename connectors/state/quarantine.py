"""Quarantine (dead-letter store): rejected rows with reason, line and original bytes. Nothing is dropped silently.

A row is identified by its portion, its line and the digest of its bytes, so reading a file again does not add a second
entry; it counts an attempt. When a portion is read to its end and a row of an earlier pass is not in it any more,
or is good now, its entry is closed; so is that of a changed row when a later change of its key is good. Closed entries
are kept until they are older than `keep`.
"""

import csv
import hashlib
import io
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from connectors.port import Reject, RejectCode
from connectors.state.ledger import Ledger

__all__ = [
    "KEY_SIZE",
    "OVERTAKEN_SINCE",
    "Quarantine",
    "QuarantineEntry",
    "as_csv",
    "escape_formula",
    "original_text",
    "read_entries",
]

KEY_SIZE = 16
"""Bytes of a record key, with which the original of a record begins that a target rejected."""
_MAX_PARAMETERS = 5_000  # of one IN list
OVERTAKEN_SINCE = "overtaken_since"
"""Name in the ledger: from when on `close_overtaken` was called for each release, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEntry:
    """One rejected row.

    Attributes:
        id: for people.
        portion: file or table; a grant's id for records that a target rejected.
        line, code, field, message, original: see `connectors.port.Reject`.
        first_seen, last_seen: ISO 8601.
        attempts: how often it was read.
        open: the row is still bad at its source.
    """

    id: int
    portion: str
    line: int
    code: RejectCode
    field: str
    message: str
    original: bytes
    first_seen: str
    last_seen: str
    attempts: int
    open: bool


class Quarantine:
    """The quarantine of one publication or subscription."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, portion: str, run: int, rejects: Sequence[Reject]) -> None:
        """Add rows."""
        if not rejects:
            return
        now = self._ledger.now()
        with self._ledger.transaction() as sql:
            sql.executemany(
                "INSERT INTO quarantine (portion, line, code, field, message, original, digest, first_seen, last_seen, "
                "attempts, run, open) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, 1) "
                "ON CONFLICT (portion, digest, line) DO UPDATE SET code = excluded.code, field = excluded.field, "
                "message = excluded.message, last_seen = excluded.last_seen, attempts = attempts + 1, "
                "run = excluded.run, open = 1",
                [
                    (
                        portion,
                        each.line,
                        each.code.value,
                        each.field,
                        each.message,
                        each.original,
                        _digest(each.original),
                        now,
                        now,
                        run,
                    )
                    for each in rejects
                ],
            )

    def close_resolved(self, portion: str, run: int) -> None:
        """Close the entries of a portion that this pass over it, to its end, did not add again."""
        with self._ledger.transaction() as sql:
            sql.execute("UPDATE quarantine SET open = 0 WHERE portion = ? AND open AND run < ?", (portion, run))

    def close_overtaken(self, grant: str, keys: Sequence[bytes], recorded_at: Sequence[int]) -> None:
        """Close the entries of records of which a later one is delivered now, or a withdrawal."""
        if not self._ledger.meta(OVERTAKEN_SINCE):
            self._ledger.set_meta(**{OVERTAKEN_SINCE: self._ledger.now()})
        with self._ledger.lock:
            rows = self._ledger.sql.execute(
                "SELECT id, substr(original, 1, ?), line FROM quarantine WHERE portion = ? AND open", (KEY_SIZE, grant)
            ).fetchall()
        if rows:
            latest = dict(zip(keys, recorded_at, strict=True))
            self.close([row[0] for row in rows if latest.get(row[1], -1) >= row[2]])

    def add_keys(self, portion: str, keys: Sequence[tuple[bytes, bytes]]) -> None:
        """Note the keys of entries, by their originals: a later change of the key closes them."""
        with self._ledger.transaction() as sql:
            sql.executemany(
                "INSERT OR REPLACE INTO quarantine_keys SELECT id, ? FROM quarantine WHERE portion = ? AND digest = ? "
                "AND open",
                [(key, portion, _digest(original)) for key, original in keys],
            )

    def close_changed(self, portion: str, keys: Sequence[bytes]) -> None:
        """Close the entries of changes to these keys, of which there is a later one."""
        found: list[int] = []
        with self._ledger.lock:
            sql = self._ledger.sql
            if not sql.execute("SELECT EXISTS (SELECT 1 FROM quarantine_keys)").fetchone()[0]:
                return
            for start in range(0, len(keys), _MAX_PARAMETERS):
                page = keys[start : start + _MAX_PARAMETERS]
                found += [
                    row[0]
                    for row in sql.execute(
                        "SELECT id FROM quarantine_keys JOIN quarantine ON entry = id "  # noqa: S608 - our own text
                        f"WHERE portion = ? AND open AND key IN ({','.join('?' * len(page))})",
                        (portion, *page),
                    )
                ]
        self.close(found)

    def close(self, ids: Sequence[int]) -> None:
        """Close entries."""
        if not ids:
            return
        with self._ledger.transaction() as sql:
            sql.executemany("UPDATE quarantine SET open = 0 WHERE id = ?", [(each,) for each in ids])

    def purge(self, keep: timedelta, now: datetime) -> int:
        """Delete closed entries that were last seen longer ago than `keep`; return their number."""
        before = (now - keep).isoformat(timespec="seconds")
        with self._ledger.transaction() as sql:
            purged = sql.execute("DELETE FROM quarantine WHERE NOT open AND last_seen < ?", (before,)).rowcount
            sql.execute("DELETE FROM quarantine_keys WHERE entry NOT IN (SELECT id FROM quarantine)")
            return purged

    def file_count(self) -> int:
        """Return the number of files that are quarantined whole."""
        with self._ledger.lock:
            return int(self._ledger.sql.execute("SELECT count(*) FROM quarantine WHERE open AND run = 0").fetchone()[0])


def read_entries(sql: sqlite3.Connection, *, everything: bool = False) -> Iterator[QuarantineEntry]:
    """Return the open entries of a ledger's file, or all, in the order of portion and line."""
    last = ("", -1, -1)
    while True:
        rows = sql.execute(
            "SELECT portion, line, id, code, field, message, original, first_seen, last_seen, attempts, open "
            "FROM quarantine WHERE (open OR ?) AND (portion, line, id) > (?, ?, ?) "
            "ORDER BY portion, line, id LIMIT 500",
            (everything, *last),
        ).fetchall()
        if not rows:
            return
        for row in rows:
            yield QuarantineEntry(
                portion=row[0],
                line=row[1],
                id=row[2],
                code=RejectCode(row[3]),
                field=row[4],
                message=row[5],
                original=row[6],
                first_seen=row[7],
                last_seen=row[8],
                attempts=row[9],
                open=bool(row[10]),
            )
        last = tuple(rows[-1][:3])


def as_csv(entries: Iterable[QuarantineEntry]) -> Iterator[bytes]:
    """Return the entries as lines of CSV in UTF-8, the first with a byte order mark for spreadsheets.

    The original is the last column, as text where it is UTF-8 or GB18030 and in hexadecimal digits otherwise;
    a cell that a spreadsheet would execute as a formula gets an apostrophe before it.
    """
    yield b"\xef\xbb\xbf" + _line(["id", "portion", "line", "code", "field", "message", "first_seen", "original"])
    for each in entries:
        cells = [str(each.id), each.portion, str(each.line), each.code.value, each.field, each.message]
        yield _line([*cells, each.first_seen, original_text(each.original)])


def _digest(original: bytes) -> bytes:
    return hashlib.sha256(original).digest()[:16]


def _line(cells: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([escape_formula(cell) for cell in cells])
    return buffer.getvalue().encode()


def escape_formula(cell: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would execute as a formula (CWE-1236)."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


def original_text(original: bytes) -> str:
    """Return the bytes of a row as text: UTF-8 or GB18030, else hexadecimal digits."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return original.decode(encoding)
        except UnicodeDecodeError:
            continue
    return original.hex()

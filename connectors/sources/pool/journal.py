"""Journal of a grant: what was drawn from another pool and is not published yet, on this machine's disk, mode 0600.

    drawn      the state under the grant while it is drawn for a snapshot: the last record of each key. Emptied when the
               snapshot is published and changes are read; until then drawing goes on from where a crash left it
    releases   releases after the snapshot, numbered, as changes; each is deleted when it is published
    keys       record key → the text of the columns that make the key here. A withdrawal names the record key alone

A release and the position after it are stored in one transaction. What is deleted is overwritten in the file
(`secure_delete`), since it may have been erased where it came from.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from connectors.private_file import make_private, named_if_damaged

__all__ = ["DrawnRecord", "KeyTexts", "PoolJournal", "StoredRelease"]

KeyTexts = tuple[str | None, ...]
_MAX_PARAMETERS = 5_000  # of one IN list
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drawn (place INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, recorded_at INTEGER NOT NULL,
    entry TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS releases (number INTEGER PRIMARY KEY, position BLOB NOT NULL, entry TEXT NOT NULL,
    recorded_at INTEGER NOT NULL, changes BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS keys (key BLOB PRIMARY KEY, columns TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class DrawnRecord:
    """One record of the state: record key, microseconds UTC, audit entry of its release, framed value of the view."""

    key: bytes
    recorded_at: int
    entry: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRelease:
    """One release as changes.

    Attributes:
        number: its place among the releases of this journal.
        position: after it, at the pool.
        entry: its audit entry there.
        recorded_at: of its last record, microseconds UTC.
        changes: columns of text, and `_operation`, one row a change.
    """

    number: int
    position: bytes
    entry: str
    recorded_at: int
    changes: pa.RecordBatch


class PoolJournal:
    """The journal of one publication. Used by one thread.

    Raises:
        InvalidError: CONFIG_INVALID, its file is damaged, or a symbolic link.
    """

    def __init__(self, path: Path) -> None:
        make_private(path)
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
        with named_if_damaged(path):
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = FULL")
            self._sql.execute("PRAGMA secure_delete = ON")
            self._sql.executescript(_TABLES)
            if not self.meta("stream"):
                self.begin_again()

    def close(self) -> None:
        """Close the file; what was deleted leaves its write-ahead log too."""
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._sql.close()

    def begin_again(self, grant: bytes = b"") -> None:
        """Forget everything; numbers of this journal from before mean nothing any more."""
        with self._transaction():
            for table in ("meta", "drawn", "releases", "keys"):
                self._sql.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            self._set(stream=secrets.token_bytes(16), grant=grant)

    def meta(self, name: str) -> bytes:
        """Return a value; empty when there is none."""
        row = self._sql.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else b""

    def note(self, **values: bytes) -> None:
        """Store values, all or none."""
        with self._transaction():
            self._set(**values)

    # -- the snapshot ------------------------------------------------------------------------------------------

    def add_drawn(self, records: Sequence[DrawnRecord], position: bytes, entry: str) -> None:
        """Store records of the state, an empty value for one that is withdrawn, and the position after them."""
        with self._transaction():
            self._sql.executemany(
                "INSERT INTO drawn (key, recorded_at, entry, value) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET recorded_at = excluded.recorded_at, entry = excluded.entry, value = excluded.value "
                "WHERE excluded.recorded_at >= recorded_at",
                [(each.key, each.recorded_at, each.entry, each.value) for each in records],
            )
            self._set(drawn_to=position, **({"drawn_entry": entry.encode()} if entry else {}))

    def drawn(self, rows: int) -> Iterator[list[DrawnRecord]]:
        """Return the records that are not withdrawn, by when their keys came first, in pages of so many rows."""
        last = 0
        while page := self._sql.execute(
            "SELECT place, key, recorded_at, entry, value FROM drawn WHERE place > ? AND value <> x'' ORDER BY place "
            "LIMIT ?",
            (last, rows),
        ).fetchall():
            last = page[-1][0]
            yield [DrawnRecord(*row[1:]) for row in page]

    @property
    def has_state(self) -> bool:
        """Return whether a state was drawn, or begun, and is still here."""
        return bool(self.meta("drawn_to"))

    def keep(self, keys: Iterator[Mapping[bytes, KeyTexts]]) -> None:
        """Make the state the beginning of the releases, by its keys."""
        with self._transaction():
            self._sql.execute("DELETE FROM keys")
            for page in keys:
                self._write_keys(page)
            self._set(kept=b"1", position=self.meta("drawn_to"))

    def reopen_state(self) -> None:
        """Go on with drawing a state that was kept, and behind which no release was drawn."""
        self.note(kept=b"")

    def drop_state(self) -> None:
        """Delete the state's values: it is published, and the releases behind it have begun."""
        with self._transaction():
            self._sql.execute("DELETE FROM drawn")
            self._set(drawn_to=b"", drawn_entry=b"")

    # -- releases ----------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """Return the number of the last release; 0 before the first."""
        return int(self.meta("number") or b"0")

    def keys(self, record_keys: Sequence[bytes]) -> dict[bytes, KeyTexts]:
        """Return record key → key columns, of those that were delivered and not withdrawn."""
        found: dict[bytes, KeyTexts] = {}
        for start in range(0, len(record_keys), _MAX_PARAMETERS):
            page = record_keys[start : start + _MAX_PARAMETERS]
            marks = ",".join("?" * len(page))
            rows = self._sql.execute(f"SELECT key, columns FROM keys WHERE key IN ({marks})", page)  # noqa: S608
            found.update((key, tuple(json.loads(columns))) for key, columns in rows)
        return found

    def add_release(
        self, release: StoredRelease, delivered: Mapping[bytes, KeyTexts], withdrawn: Sequence[bytes]
    ) -> None:
        """Store a release, the keys as they are after it, and the position after it."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, release.changes.schema) as writer:
            writer.write_batch(release.changes)
        with self._transaction():
            self._sql.execute(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?)",
                (release.number, release.position, release.entry, release.recorded_at, sink.getvalue().to_pybytes()),
            )
            self._sql.executemany("DELETE FROM keys WHERE key = ?", [(each,) for each in withdrawn])
            self._write_keys(delivered)
            self._set(number=str(release.number).encode(), position=release.position)

    def release_after(self, number: int) -> StoredRelease | None:
        """Return the first release after a number."""
        row = self._sql.execute(
            "SELECT number, position, entry, recorded_at, changes FROM releases WHERE number > ? ORDER BY number "
            "LIMIT 1",
            (number,),
        ).fetchone()
        if row is None:
            return None
        (changes,) = pa.ipc.open_stream(row[4])
        return StoredRelease(number=row[0], position=row[1], entry=row[2], recorded_at=row[3], changes=changes)

    def position_of(self, number: int) -> bytes:
        """Return the position after a release; empty where it is not here (any more)."""
        row = self._sql.execute("SELECT position FROM releases WHERE number = ?", (number,)).fetchone()
        return bytes(row[0]) if row else b""

    def delete_through(self, number: int) -> None:
        """Delete the releases up to a number: they are published."""
        with self._transaction():
            self._sql.execute("DELETE FROM releases WHERE number <= ?", (number,))

    def _write_keys(self, keys: Mapping[bytes, KeyTexts]) -> None:
        self._sql.executemany(
            "INSERT OR REPLACE INTO keys VALUES (?, ?)",
            [(key, json.dumps(columns, ensure_ascii=False)) for key, columns in keys.items()],
        )

    def _set(self, **values: bytes) -> None:
        self._sql.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

"""Key scan, the first pass over a portion: duplicate keys, and published keys that are missing.

Both need the whole portion before anything of it is published. So its keys are read first, into a scratch table beside
the ledger: on disk, because ten million keys do not fit into a department's spare memory.

    add           each key of the first pass, with the number of its rows
    duplicates    keys of several rows: every row of the group is quarantined, or all but the last
    missing_keys  published keys in scope that the portion lacks
    mark_seen     the second pass accepts a key once. A table under writes may return a key twice, or only in the second
                  pass: then its second row is a duplicate after all, or the key is not missing
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connectors.state.ledger import Ledger

__all__ = ["KeyScan"]

_PAGE = 5_000
_MAX_PARAMETERS = 5_000  # of one IN list


class KeyScan:
    """A context manager: the scratch table exists inside it."""

    def __init__(self, ledger: Ledger, scope: int | None) -> None:
        """Configure.

        Args:
            ledger: with the published keys.
            scope: of the keys that the portion voids by lacking them; None = all keys.
        """
        self._ledger = ledger
        self._scope = scope
        self._path = Path(f"{ledger.path}-scan")
        self._sql: sqlite3.Connection = ledger.sql
        self.rows = 0
        self.unreadable = 0
        self._any_twice: bool | None = None  # known after the first pass

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        with self._ledger.lock:
            self._sql.execute("ATTACH ? AS scan", (str(self._path),))
            self._path.chmod(0o600) if self._path.exists() else self._path.touch(mode=0o600)
            # A scratch table: after a crash it is deleted.
            self._sql.execute("PRAGMA scan.journal_mode = OFF")
            self._sql.execute("PRAGMA scan.synchronous = OFF")
            self._sql.execute("PRAGMA scan.cache_size = -32000")
            self._sql.execute(
                "CREATE TABLE scan.seen (key BLOB PRIMARY KEY, rows INTEGER NOT NULL, taken INTEGER NOT NULL DEFAULT 0)"
                " WITHOUT ROWID"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._ledger.lock:
            self._sql.execute("DETACH scan")
        self._path.unlink(missing_ok=True)

    def add(self, keys: Sequence[bytes | None], unparsed: int = 0) -> None:
        """Add the keys of a chunk of the first pass.

        Args:
            keys: of its rows; None where it cannot be read.
            unparsed: number of rows that have no columns at all.
        """
        self._any_twice = None
        readable = [(key,) for key in keys if key is not None]
        self.rows += len(keys) + unparsed
        self.unreadable += len(keys) - len(readable) + unparsed
        with self._ledger.transaction() as sql:
            sql.executemany(
                "INSERT INTO scan.seen (key, rows) VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET rows = rows + 1",
                readable,
            )

    def duplicates(self, keys: Sequence[bytes | None]) -> dict[bytes, int]:
        """Return those of the keys that the first pass had several times, with the number of their rows."""
        if self._any_twice is None:
            self._any_twice = bool(self._count("SELECT EXISTS (SELECT 1 FROM scan.seen WHERE rows > 1)"))
        if not self._any_twice:
            return {}
        return dict(self._select("SELECT key, rows FROM scan.seen WHERE rows > 1 AND key IN", keys))

    def mark_seen(self, keys: Sequence[bytes]) -> set[bytes]:
        """Mark keys as seen by the second pass; return those that it had seen before."""
        distinct = list(dict.fromkeys(keys))
        # One statement a page tells those that are marked now from those that were, or that the first pass lacked.
        marked: set[bytes] = set()
        with self._ledger.transaction() as sql:
            for start in range(0, len(distinct), _MAX_PARAMETERS):
                page = distinct[start : start + _MAX_PARAMETERS]
                rows = sql.execute(
                    "UPDATE scan.seen SET taken = 1 WHERE NOT taken AND key IN "  # noqa: S608 - our own text
                    f"({','.join('?' * len(page))}) RETURNING key",
                    page,
                )
                marked.update(row[0] for row in rows)
            others = [key for key in distinct if key not in marked]
            if not others:
                return set()
            seen = {key for key, _ in self._select("SELECT key, 1 FROM scan.seen WHERE taken AND key IN", others)}
            sql.executemany(
                "INSERT INTO scan.seen (key, rows, taken) VALUES (?, 1, 1) ON CONFLICT (key) DO NOTHING",
                [(key,) for key in others if key not in seen],
            )
        return seen

    def published_digests(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """Return digest and scope of those of the keys that the pool has."""
        found: dict[bytes, tuple[bytes, int]] = {}
        for key, digest, scope in self._select("SELECT key, digest, scope FROM keys WHERE key IN", keys):
            found[key] = (digest, scope)
        return found

    def published_count(self) -> int:
        """Return the number of published keys in scope."""
        return self._count(f"SELECT count(*) FROM main.keys WHERE {self._in_scope}")  # noqa: S608 - our own text

    def missing_count(self) -> int:
        """Return the number of published keys in scope that the portion lacks."""
        return self._count(f"SELECT count(*) FROM main.keys WHERE {self._in_scope} AND {_NOT_SEEN}")  # noqa: S608

    def missing_keys(self) -> Iterator[list[bytes]]:
        """Return these keys, in pages, in order, without those that are acknowledged meanwhile."""
        last = b""
        while True:
            with self._ledger.lock:
                rows = self._sql.execute(
                    f"SELECT key FROM main.keys WHERE key > ? AND {self._in_scope} AND {_NOT_SEEN} "  # noqa: S608
                    "ORDER BY key LIMIT ?",
                    (last, _PAGE),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [row[0] for row in rows]

    @property
    def _in_scope(self) -> str:
        return "1" if self._scope is None else f"scope = {self._scope}"

    def _count(self, statement: str) -> int:
        with self._ledger.lock:
            return int(self._sql.execute(statement).fetchone()[0])

    def _select(self, statement: str, keys: Sequence[bytes | None]) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(keys), _MAX_PARAMETERS):
            page = [key for key in keys[start : start + _MAX_PARAMETERS] if key is not None]
            marks = ",".join("?" * len(page))
            with self._ledger.lock:
                found += self._sql.execute(f"{statement} ({marks})", page).fetchall()
        return found


_NOT_SEEN = "NOT EXISTS (SELECT 1 FROM scan.seen WHERE scan.seen.key = main.keys.key)"

"""The keys of one portion, and what they say against the keys that the pool has.

Two questions need the whole portion before anything of it is published: which keys stand in it twice, and which keys
that were published are missing. So its keys are read first, into a scratch table beside the ledger: on disk, because
ten million keys do not fit into a department's spare memory.

    count     each key of the first reading, with the number of its rows
    twice     keys of several rows: every row of the group is quarantined, or all but the last
    missing   published keys in scope that the portion lacks
    claim     the second reading takes a key once. A table under writes may show a key twice or later: then the
              second one is a duplicate after all, and one that had been missing is not
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connectors.state.ledger import Ledger

__all__ = ["KeyScan"]

_PAGE = 5_000
_PARAMETERS = 5_000  # of one IN list


class KeyScan:
    """A context: the scratch table lives inside it."""

    def __init__(self, ledger: Ledger, scope: int | None) -> None:
        """Make an empty one.

        Args:
            ledger: whose keys it is held against.
            scope: of the keys that the portion voids by lacking them; None = of all.
        """
        self._ledger = ledger
        self._scope = scope
        self._path = Path(f"{ledger.path}-scan")
        self._sql: sqlite3.Connection = ledger.sql
        self.rows = 0
        self.unreadable = 0

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        with self._ledger.lock:
            self._sql.execute("ATTACH ? AS scan", (str(self._path),))
            self._path.chmod(0o600) if self._path.exists() else self._path.touch(mode=0o600)
            # A scratch table: a crash throws it away.
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

    def count(self, keys: Sequence[bytes | None], others: int = 0) -> None:
        """Take the keys of a chunk of the first reading.

        Args:
            keys: of its rows; None where it cannot be read.
            others: rows that have no columns at all.
        """
        readable = [(key,) for key in keys if key is not None]
        self.rows += len(keys) + others
        self.unreadable += len(keys) - len(readable) + others
        with self._ledger.transaction() as sql:
            sql.executemany(
                "INSERT INTO scan.seen (key, rows) VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET rows = rows + 1",
                readable,
            )

    def twice(self, keys: Sequence[bytes | None]) -> dict[bytes, int]:
        """Return those of the keys that the first reading had several times, with the number of their rows."""
        return dict(self._select("SELECT key, rows FROM scan.seen WHERE rows > 1 AND key IN", keys))

    def claim(self, keys: Sequence[bytes]) -> set[bytes]:
        """Take keys in the second reading; give those that it had taken before."""
        taken = {key for key, _ in self._select("SELECT key, 1 FROM scan.seen WHERE taken AND key IN", keys)}
        with self._ledger.transaction() as sql:
            sql.executemany(
                "INSERT INTO scan.seen (key, rows, taken) VALUES (?, 1, 1) ON CONFLICT (key) DO UPDATE SET taken = 1",
                [(key,) for key in keys],
            )
        return taken

    def published(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """Return digest and scope of those of the keys that the pool has."""
        found: dict[bytes, tuple[bytes, int]] = {}
        for key, digest, scope in self._select("SELECT key, digest, scope FROM keys WHERE key IN", keys):
            found[key] = (digest, scope)
        return found

    def known(self) -> int:
        """Return the number of published keys in scope."""
        return self._one(f"SELECT count(*) FROM main.keys WHERE {self._in_scope}")  # noqa: S608 - our own text

    def missing(self) -> int:
        """Return the number of published keys in scope that the portion lacks."""
        return self._one(f"SELECT count(*) FROM main.keys WHERE {self._in_scope} AND {_LACKING}")  # noqa: S608

    def lacking(self) -> Iterator[list[bytes]]:
        """Return those keys, in pages, in order; what is acknowledged meanwhile is no longer among them."""
        last = b""
        while True:
            with self._ledger.lock:
                rows = self._sql.execute(
                    f"SELECT key FROM main.keys WHERE key > ? AND {self._in_scope} AND {_LACKING} "  # noqa: S608
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

    def _one(self, statement: str) -> int:
        with self._ledger.lock:
            return int(self._sql.execute(statement).fetchone()[0])

    def _select(self, statement: str, keys: Sequence[bytes | None]) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(keys), _PARAMETERS):
            page = [key for key in keys[start : start + _PARAMETERS] if key is not None]
            marks = ",".join("?" * len(page))
            with self._ledger.lock:
                found += self._sql.execute(f"{statement} ({marks})", page).fetchall()
        return found


_LACKING = "NOT EXISTS (SELECT 1 FROM scan.seen WHERE scan.seen.key = main.keys.key)"

"""Key scan, the first pass over a portion: duplicate keys, and published keys that are missing.

Both need the whole portion before anything of it is published. So its keys are read first, into a scratch table beside
the ledger: on disk, because ten million keys do not fit into a department's spare memory.

    add           each key of the first pass, with the number of its rows
    duplicates    keys of several rows: every row of the group is quarantined, or all but the last
    missing_keys  published keys in scope that the portion lacks
    mark_seen     the second pass accepts a key once. A table under writes may return a key twice, or only in the second
                  pass: then its second row is a duplicate after all, or the key is not missing
    reached       the place behind which the pass goes on, should it be interrupted

A pass over a portion that can go on (`connectors.port.ResumablePortion`) keeps the table when the process dies, the
source goes away or it is stopped; the next pass over the same portion goes on with it, for a day. Any other error
discards it, and so does a ledger that was set back: what was read before would be published again by nobody.
"""

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connectors.state.ledger import Ledger
from schemas.errors import UnavailableError

__all__ = ["KeyScan", "Reached"]

_PAGE = 5_000
_OLDEST = timedelta(days=1)
_MAX_PARAMETERS = 5_000  # of one IN list


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far a pass is.

    Attributes:
        first_run: number of the run in which it began.
        keys_read: the first pass is at its end; then place and rows are of the second one.
        place, rows: behind which it goes on, and the rows before it.
        keys, unreadable: rows of the first pass, and those of them whose key cannot be read.
    """

    first_run: int
    keys_read: bool = False
    place: bytes = b""
    rows: int = 0
    keys: int = 0
    unreadable: int = 0

    @property
    def usable(self) -> bool:
        """Return whether a pass can go on from here: not where keys were read that have no place."""
        return self.keys_read or bool(self.place) or not self.keys

    def render(self) -> str:
        """Return it as JSON."""
        return json.dumps({**asdict(self), "place": self.place.decode()})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what `render` wrote.

        Raises:
            ValueError, TypeError: something else wrote it.
        """
        found = json.loads(text)
        return cls(**{**found, "place": found["place"].encode()})


class KeyScan:
    """A context manager: the scratch table exists inside it."""

    def __init__(self, ledger: Ledger, scope: int | None, *, identity: str = "", run: int = 0) -> None:
        """Configure.

        Args:
            ledger: with the published keys.
            scope: of the keys that the portion voids by lacking them; None = all keys.
            identity: of the pass, which goes on only where it is equal; empty = it begins again after any interruption.
            run: of this process.
        """
        self._identity = identity
        self.reached = Reached(first_run=run)
        self.finished = False
        self._ledger = ledger
        self._scope = scope
        self._path = Path(f"{ledger.path}-scan")
        self._sql: sqlite3.Connection = ledger.sql
        self._any_twice: bool | None = None  # known after the first pass

    def __enter__(self) -> Self:
        if not (self._identity and self._go_on()):
            self._begin()
        return self

    def _begin(self) -> None:
        self._delete()
        token = secrets.token_hex(16) if self._identity else ""
        self._ledger.set_meta(pass_token=token)
        self._path.touch(mode=0o600)
        with self._ledger.lock:
            self._attach()
            self._sql.execute(
                "CREATE TABLE scan.seen (key BLOB PRIMARY KEY, rows INTEGER NOT NULL, taken INTEGER NOT NULL DEFAULT 0)"
                " WITHOUT ROWID"
            )
            self._sql.execute("CREATE TABLE scan.pass (identity TEXT, token TEXT, begun TEXT, reached TEXT)")
            self._sql.execute(
                "INSERT INTO scan.pass VALUES (?, ?, ?, ?)",
                (self._identity, token, self._ledger.now(), self.reached.render()),
            )

    def _attach(self) -> None:
        self._sql.execute("ATTACH ? AS scan", (str(self._path),))
        if self._identity:  # whole after a crash, of the machine as well
            self._sql.execute("PRAGMA scan.journal_mode = WAL")
            self._sql.execute("PRAGMA scan.synchronous = NORMAL")
        else:
            self._sql.execute("PRAGMA scan.journal_mode = OFF")
            self._sql.execute("PRAGMA scan.synchronous = OFF")
        self._sql.execute("PRAGMA scan.cache_size = -16000")

    def _go_on(self) -> bool:
        """Attach the table of an interrupted pass; return False where there is none that may be gone on with."""
        token = self._ledger.meta("pass_token")
        if not token or not self._path.exists():
            return False
        with self._ledger.lock:
            try:
                self._attach()
                row = self._sql.execute("SELECT identity, token, begun, reached FROM scan.pass").fetchone()
                reached = Reached.parse(row[3])
                if (row[0], row[1]) == (self._identity, token) and reached.usable and self._is_recent(row[2]):
                    self.reached = reached
                    # What the second pass saw behind the place is seen again.
                    self._sql.execute("UPDATE scan.seen SET taken = 0 WHERE taken > ?", (reached.rows,))
                    return True
            except (sqlite3.DatabaseError, ValueError, TypeError):
                pass  # not whole: it begins again
            self._detach()
        return False

    def _is_recent(self, begun: str) -> bool:
        age = datetime.fromisoformat(self._ledger.now()) - datetime.fromisoformat(begun)
        return timedelta() <= age < _OLDEST

    def _detach(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError):
            self._sql.execute("DETACH scan")

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._ledger.lock:
            self._detach()
        kept = self._identity and not self.finished and (error is None or isinstance(error, UnavailableError))
        if not kept:
            self._ledger.set_meta(pass_token="")
            self._delete()

    def save(self, reached: "Reached") -> None:
        """Note how far the pass is, before what it says is given up in memory."""
        self.reached = reached
        with self._ledger.transaction() as sql:
            sql.execute("UPDATE scan.pass SET reached = ?", (reached.render(),))

    def end_keys(self) -> None:
        """Note that the first pass is at its end."""
        if not self.reached.keys_read:
            self.save(replace(self.reached, keys_read=True, place=b"", rows=0))

    @property
    def rows(self) -> int:
        """Return the number of rows of the first pass."""
        return self.reached.keys

    @property
    def unreadable(self) -> int:
        """Return the number of its rows whose key cannot be read."""
        return self.reached.unreadable

    def add(self, keys: Sequence[bytes | None], unparsed: int = 0, place: bytes = b"") -> None:
        """Add the keys of a chunk of the first pass.

        Args:
            keys: of its rows; None where it cannot be read.
            unparsed: number of rows that have no columns at all.
            place: behind the chunk.
        """
        self._any_twice = None
        readable = [(key,) for key in keys if key is not None]
        before = self.reached
        self.reached = replace(
            before,
            place=place,
            rows=before.rows + len(keys),
            keys=before.keys + len(keys) + unparsed,
            unreadable=before.unreadable + len(keys) - len(readable) + unparsed,
        )
        with self._ledger.transaction() as sql:
            sql.execute("UPDATE scan.pass SET reached = ?", (self.reached.render(),))
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

    def mark_seen(self, keys: Sequence[bytes], rows: int) -> set[bytes]:
        """Mark keys of a chunk, before which there were so many rows; return those that were seen before."""
        distinct = list(dict.fromkeys(keys))
        # One statement a page tells those that are marked now from those that were, or that the first pass lacked.
        marked: set[bytes] = set()
        with self._ledger.transaction() as sql:
            for start in range(0, len(distinct), _MAX_PARAMETERS):
                page = distinct[start : start + _MAX_PARAMETERS]
                found = sql.execute(
                    "UPDATE scan.seen SET taken = ? WHERE NOT taken AND key IN "  # noqa: S608 - our own text
                    f"({','.join('?' * len(page))}) RETURNING key",
                    [rows + 1, *page],
                )
                marked.update(row[0] for row in found)
            others = [key for key in distinct if key not in marked]
            if not others:
                return set()
            seen = {key for key, _ in self._select("SELECT key, 1 FROM scan.seen WHERE taken AND key IN", others)}
            sql.executemany(
                "INSERT INTO scan.seen (key, rows, taken) VALUES (?, 1, ?) ON CONFLICT (key) DO NOTHING",
                [(key, rows + 1) for key in others if key not in seen],
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

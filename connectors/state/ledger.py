"""Ledger of a connector: its durable state on its own disk, one SQLite file a publication, mode 0600.

    standing    checkpoint: the last batch that the pool has acknowledged, with its root and source position
    outbox      batches that were signed and may have been sent, in order. A batch is written here before it is sent, so
                that a retry after any crash sends the same bytes and gets the same receipt
    keys        key → digest of its record as last acknowledged, and the scope that stated it: an unchanged row is not
                published, a changed one is marked `again`, a missing one becomes a void
    key_batches, voided   the batch that last published a key, or voided it: a restored pool may have lost it
    corrections keys whose next record is published as a correction (校核), by an order of the department
    tracked     the batches of which these two know: others may have been sent by an earlier program
    lost_receipts         receipts of batches that a restored pool has lost: what it had accepted; and those of the lane
                          of a department that merged into another
    receipts    the pool's answers, whole: the department's own proof of what it gave, to be verified later
                (`exchange.client.receipts`) with the key that the pool named, `receipt_key` in meta
    files       contents that were published or quarantined (`connectors.sources.drop_folder`)
    quarantine  rows with reason, line and original bytes (`connectors.state.quarantine`)
    quarantine_keys       keys of those of its entries that a later change of the key closes
    runs        the balance of each portion: rows read = published + quarantined + unchanged

The receipt of a batch and what it changes (checkpoint, outbox, keys) are one transaction. The file can be lost: the
pool has the last batch of the lane, and the publisher says what a loss costs. Memory does not grow with the size of a
portion, only tables on disk do; SQLite's cache is bounded. A file of an earlier version is migrated when it is opened.

The thread that sends batches and the one that reads receipts share the connection: one lock guards it.
"""

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from typing_extensions import override

from connectors.private_file import make_private, named_if_damaged
from connectors.sources.drop_folder import FileHistory, FileRecord
from connectors.sources.file_portion import FileSignature
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.names import Lane
from schemas.record import NO_ROOT, OffsetRange, Receipt

__all__ = ["KeyUpdate", "LaneCheckpoint", "Ledger", "RunReport", "StoredBatch"]

_VERSION = 2
_MAX_RUNS = 10_000  # reports that are kept
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE standing (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, root BLOB NOT NULL,
    position BLOB NOT NULL, complete INTEGER NOT NULL);
CREATE TABLE outbox (sequence INTEGER PRIMARY KEY, root BLOB NOT NULL, batch BLOB NOT NULL, effects BLOB NOT NULL);
CREATE TABLE keys (key BLOB PRIMARY KEY, digest BLOB NOT NULL, scope INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE scopes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE receipts (sequence INTEGER PRIMARY KEY, root BLOB NOT NULL, entry_id TEXT NOT NULL,
    leaf_hash BLOB NOT NULL, runs TEXT NOT NULL, signature BLOB NOT NULL, records INTEGER NOT NULL, at TEXT NOT NULL,
    source_position BLOB);
CREATE TABLE files (sha256 BLOB NOT NULL, fingerprint BLOB NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, done INTEGER NOT NULL,
    applied INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (name, sha256, fingerprint));
CREATE TABLE quarantine (id INTEGER PRIMARY KEY, portion TEXT NOT NULL, line INTEGER NOT NULL, code TEXT NOT NULL,
    field TEXT NOT NULL, message TEXT NOT NULL, original BLOB NOT NULL, digest BLOB NOT NULL,
    first_seen TEXT NOT NULL, last_seen TEXT NOT NULL, attempts INTEGER NOT NULL, run INTEGER NOT NULL,
    open INTEGER NOT NULL, UNIQUE (portion, digest, line));
CREATE TABLE runs (id INTEGER PRIMARY KEY, portion TEXT NOT NULL, started TEXT NOT NULL, ended TEXT,
    read INTEGER NOT NULL DEFAULT 0, published INTEGER NOT NULL DEFAULT 0, quarantined INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0, voided INTEGER NOT NULL DEFAULT 0, outcome TEXT NOT NULL DEFAULT '');
"""
# Neither a log nor the part of a table before a cursor is read twice: the table is, whole.
_FORGET_POSITIONS = "DELETE FROM meta WHERE name IN ('change_start', 'cursor_position', 'cursor_pending', 'pass_token')"
_MIGRATIONS = {  # version of a file → statements that bring it to the next
    1: "ALTER TABLE receipts ADD COLUMN source_position BLOB;",  # null: the receipt was kept without it
}
# Beside the tables of the version, which a program of before goes on with: it neither reads nor writes these.
_MORE_TABLES = """
CREATE TABLE IF NOT EXISTS key_batches (key BLOB PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS voided (key BLOB PRIMARY KEY, scope INTEGER NOT NULL, sequence INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tracked (one INTEGER PRIMARY KEY CHECK (one = 1), first INTEGER NOT NULL,
    last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine_keys (entry INTEGER PRIMARY KEY, key BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS quarantine_keys_by_key ON quarantine_keys (key);
CREATE TABLE IF NOT EXISTS lost_receipts AS SELECT * FROM receipts WHERE 0;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCheckpoint:
    """The last acknowledged batch; `complete`: every key that was ever published is in `keys`."""

    sequence: int
    root: bytes
    position: bytes
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """One batch of the outbox, as serialized by `connectors.publishing.outbox`."""

    sequence: int
    root: bytes
    content: bytes
    effects: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUpdate:
    """The keys that an acknowledged batch changes: with their digests, or voided; and their scope.

    `corrected`: those of its corrections. They are not kept over a crash: the key is published as one again.
    """

    keys: Sequence[tuple[bytes, bytes]]
    voided: Sequence[bytes]
    scope: int
    corrected: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The balance of one portion; `read` = `published` + `quarantined` + `unchanged` when it came to its end.

    `total`: rows that it has, for a progress bar; 0 = not known. It is not stored.
    """

    id: int
    portion: str
    read: int = 0
    published: int = 0
    quarantined: int = 0
    unchanged: int = 0
    voided: int = 0
    outcome: str = ""
    total: int = 0


class Ledger(FileHistory):
    """The state of one publication or subscription."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime]) -> None:
        """Open or create the file, and lock it until `close`.

        Raises:
            UnavailableError: LEDGER_IN_USE, when another process of this machine has locked it.
            InvalidError: CONFIG_INVALID, when a later version of the program wrote it; it is damaged, or a symbolic
                link.
        """
        self.path = path
        self._clock = clock
        lock = path.with_suffix(".lock")
        make_private(lock)
        self._lock_file = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock_file)
            raise UnavailableError(
                Reason.LEDGER_IN_USE, f"another connector already works on {path}; stop it, or wait for its end"
            ) from error
        self.lock = threading.RLock()
        try:
            make_private(path)  # under the lock: a descriptor that is closed ends all locks of SQLite in this process
            with named_if_damaged(path):
                self.sql = connect(path)
        except InvalidError:
            os.close(self._lock_file)
            raise
        version = self.sql.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self.sql.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version in _MIGRATIONS:
            migration = " ".join(_MIGRATIONS[each] for each in range(version, _VERSION))
            self.sql.executescript(f"BEGIN; {migration} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            self.close()
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{path} has version {version}, this program knows {_VERSION}; update it"
            )
        self.sql.executescript(_MORE_TABLES)

    def close(self) -> None:
        """Close and unlock the file."""
        if self._lock_file < 0:
            return
        self.sql.close()
        os.close(self._lock_file)
        self._lock_file = -1

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction; an error rolls it back."""
        with self.lock:
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield self.sql
            except BaseException:
                self.sql.execute("ROLLBACK")
                raise
            self.sql.execute("COMMIT")

    def now(self) -> str:
        """Return the clock's time, ISO 8601."""
        return self._clock().isoformat(timespec="seconds")

    # -- meta -------------------------------------------------------------------------------------------------

    def set_meta(self, **values: str) -> None:
        """Store values by name, for `status`."""
        with self.transaction() as sql:
            sql.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def meta(self, name: str) -> str:
        """Return a value; empty when there is none."""
        with self.lock:
            row = self.sql.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    # -- checkpoint and outbox ---------------------------------------------------------------------------------

    def checkpoint(self) -> LaneCheckpoint | None:
        """Return the last acknowledged batch; None in a new ledger."""
        with self.lock:
            row = self.sql.execute("SELECT sequence, root, position, complete FROM standing").fetchone()
        if row is None:
            return None
        return LaneCheckpoint(sequence=row[0], root=row[1], position=row[2], complete=bool(row[3]))

    def reset_to(self, checkpoint: LaneCheckpoint, *, discard_digests: bool = False) -> None:
        """Set the checkpoint to the last batch of the lane at the pool, and empty the outbox.

        Args:
            checkpoint: at the pool.
            discard_digests: the digests may be older than the records in the pool: keep the keys (they are needed for
                voids), delete their digests and the history of files.
        """
        with self.transaction() as sql:
            _write_checkpoint(sql, checkpoint)
            sql.execute("DELETE FROM outbox")
            if discard_digests:
                sql.execute("UPDATE keys SET digest = x''")
                sql.execute("DELETE FROM files")
                sql.execute("DELETE FROM meta WHERE name IN ('cursor_position', 'cursor_pending', 'pass_token')")

    def receipt_root(self, sequence: int) -> bytes | None:
        """Return the root of a batch by its receipt; None without one."""
        with self.lock:
            row = self.sql.execute("SELECT root FROM receipts WHERE sequence = ?", (sequence,)).fetchone()
        return row[0] if row else None

    def set_back(self, checkpoint: LaneCheckpoint) -> int:
        """Go back to an earlier batch, as a restored pool has; return the number of keys that are published again.

        Keys of the batches after it lose their digests, and those that were voided after it are missing again, so that
        the next pass publishes or voids them. Where an earlier program sent some of these batches, all keys lose their
        digests. Files are read again. The receipts of the lost batches are kept apart.
        """
        last = checkpoint.sequence
        with self.transaction() as sql:
            own = sql.execute("SELECT last FROM tracked WHERE first <= ? + 1", (last,)).fetchone()
            (sent,) = sql.execute("SELECT sequence FROM standing").fetchone()
            known = own is not None and own[0] == sent
            _write_checkpoint(sql, checkpoint)
            sql.execute("DELETE FROM outbox")
            sql.execute("DELETE FROM files")
            sql.execute(_FORGET_POSITIONS)
            sql.execute("INSERT INTO lost_receipts SELECT * FROM receipts WHERE sequence > ?", (last,))
            sql.execute("DELETE FROM receipts WHERE sequence > ?", (last,))
            sql.execute("INSERT OR IGNORE INTO keys SELECT key, x'', scope FROM voided WHERE sequence > ?", (last,))
            sql.execute("DELETE FROM voided WHERE sequence > ?", (last,))
            sql.execute("UPDATE tracked SET last = ?", (last,))
            if not known:
                return sql.execute("UPDATE keys SET digest = x''").rowcount
            return sql.execute(
                "UPDATE keys SET digest = x'' WHERE key IN (SELECT key FROM key_batches WHERE sequence > ?)", (last,)
            ).rowcount

    def take_over(self) -> None:
        """Begin a lane of its own, before its first batch, with the keys that another department's lane has published.

        What was not acknowledged is published again, and every portion is read again; nothing that the pool has is
        published twice. The receipts of the other lane are kept apart.
        """
        with self.transaction() as sql:
            (complete,) = sql.execute("SELECT complete FROM standing").fetchone() or (1,)
            _write_checkpoint(sql, LaneCheckpoint(sequence=0, root=NO_ROOT, position=b"", complete=bool(complete)))
            sql.execute("DELETE FROM outbox")
            sql.execute("DELETE FROM files")
            sql.execute(_FORGET_POSITIONS)
            sql.execute("INSERT INTO lost_receipts SELECT * FROM receipts")
            sql.execute("DELETE FROM receipts")
            sql.execute("DELETE FROM key_batches")
            sql.execute("DELETE FROM voided")
            sql.execute("DELETE FROM tracked")

    def add_to_outbox(self, batch: StoredBatch) -> None:
        """Store a batch, before it is sent."""
        with self.transaction() as sql:
            sql.execute(
                "INSERT INTO outbox VALUES (?, ?, ?, ?)", (batch.sequence, batch.root, batch.content, batch.effects)
            )

    def outbox(self) -> list[StoredBatch]:
        """Return the batches that are not acknowledged, in order."""
        with self.lock:
            rows = self.sql.execute("SELECT sequence, root, batch, effects FROM outbox ORDER BY sequence").fetchall()
        return [StoredBatch(sequence=row[0], root=row[1], content=row[2], effects=row[3]) for row in rows]

    def drop_from_outbox(self, sequence: int) -> None:
        """Delete this batch and those after it: the pool has not appended them."""
        with self.transaction() as sql:
            sql.execute("DELETE FROM outbox WHERE sequence >= ?", (sequence,))

    def acknowledge(
        self, sequence: int, root: bytes, position: bytes, update: KeyUpdate, records: int, receipt: Receipt | None
    ) -> None:
        """Record that the pool has a batch. `receipt` is None where only the chain of roots proves it."""
        with self.transaction() as sql:
            complete = sql.execute("SELECT complete FROM standing").fetchone()[0]
            _write_checkpoint(
                sql, LaneCheckpoint(sequence=sequence, root=root, position=position, complete=bool(complete))
            )
            sql.execute("DELETE FROM outbox WHERE sequence <= ?", (sequence,))
            _update_keys(sql, update)
            _track(sql, update, sequence)
            if receipt is not None:
                runs = json.dumps([[run.partition, run.first, run.last] for run in receipt.runs])
                sql.execute(
                    "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        sequence,
                        root,
                        receipt.entry_id,
                        receipt.leaf_hash,
                        runs,
                        receipt.signature,
                        records,
                        self.now(),
                        receipt.source_position,
                    ),
                )

    def receipts(self) -> Iterator[Receipt]:
        """Return the receipts as they came, in order, without those that an earlier version stored in part."""
        lane = Lane.parse(self.meta("lane").partition(" ")[2])
        last = -1
        while True:
            with self.lock:
                rows = self.sql.execute(
                    "SELECT sequence, root, entry_id, leaf_hash, runs, signature, source_position FROM receipts "
                    "WHERE source_position IS NOT NULL AND sequence > ? ORDER BY sequence LIMIT 500",
                    (last,),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                yield Receipt(
                    lane=lane,
                    sequence=row[0],
                    root=row[1],
                    entry_id=row[2],
                    leaf_hash=row[3],
                    runs=tuple(
                        OffsetRange(partition=each[0], first=each[1], last=each[2]) for each in json.loads(row[4])
                    ),
                    signature=row[5],
                    source_position=row[6],
                )
            last = rows[-1][0]

    def add_keys(self, keys: Sequence[tuple[bytes, bytes]], scope: int) -> None:
        """Record keys of which the pool is known to have these contents."""
        with self.transaction() as sql:
            _update_keys(sql, KeyUpdate(keys=keys, voided=(), scope=scope))

    def order_correction(self, key: bytes) -> bool:
        """Have the next record of a key published as a correction; return whether the key was published at all."""
        with self.transaction() as sql:
            known = sql.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone() is not None
            if known:
                sql.execute("INSERT OR IGNORE INTO corrections VALUES (?)", (key,))
        return known

    def corrections(self) -> frozenset[bytes]:
        """Return the keys whose next record is published as a correction."""
        with self.lock:
            return frozenset(bytes(key) for (key,) in self.sql.execute("SELECT key FROM corrections"))

    def scope_id(self, name: str) -> int:
        """Return the id of a scope; 0 for the empty name."""
        if not name:
            return 0
        with self.transaction() as sql:
            sql.execute("INSERT OR IGNORE INTO scopes (name) VALUES (?)", (name,))
            return int(sql.execute("SELECT id FROM scopes WHERE name = ?", (name,)).fetchone()[0])

    # -- runs --------------------------------------------------------------------------------------------------

    def begin_run(self, portion: str) -> RunReport:
        """Insert the report of a portion."""
        with self.transaction() as sql:
            sql.execute("DELETE FROM runs WHERE id <= (SELECT max(id) FROM runs) - ?", (_MAX_RUNS,))
            cursor = sql.execute("INSERT INTO runs (portion, started) VALUES (?, ?)", (portion, self.now()))
            return RunReport(id=int(cursor.lastrowid or 0), portion=portion)

    def end_run(self, run: RunReport) -> None:
        """Write the final report of a portion."""
        with self.transaction() as sql:
            sql.execute(
                "UPDATE runs SET ended = ?, read = ?, published = ?, quarantined = ?, unchanged = ?, voided = ?, "
                "outcome = ? WHERE id = ?",
                (
                    self.now(),
                    run.read,
                    run.published,
                    run.quarantined,
                    run.unchanged,
                    run.voided,
                    run.outcome,
                    run.id,
                ),
            )

    # -- files (FileHistory) -----------------------------------------------------------------------------------

    @override
    def find_by_signature(self, name: str, signature: FileSignature, fingerprint: bytes) -> FileRecord | None:
        return self._find_file(
            "name = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ? AND fingerprint = ?",
            (name, signature.size, signature.mtime_ns, signature.ctime_ns, signature.inode, fingerprint),
        )

    @override
    def find_by_digest(self, sha256: bytes, fingerprint: bytes) -> FileRecord | None:
        return self._find_file("sha256 = ? AND fingerprint = ?", (sha256, fingerprint))

    @override
    def latest(self, name: str | None) -> FileRecord | None:
        return self._find_file("done AND (? IS NULL OR name = ?)", (name, name))

    @override
    def record(self, file_record: FileRecord, fingerprint: bytes) -> None:
        with self.transaction() as sql:
            order = sql.execute("SELECT coalesce(max(applied), 0) + 1 FROM files").fetchone()[0]
            self._write(sql, file_record, fingerprint, order)

    @override
    def record_alias(self, file_record: FileRecord, fingerprint: bytes) -> None:
        with self.transaction() as sql:
            self._write(sql, file_record, fingerprint, 0)

    def _write(self, sql: sqlite3.Connection, file_record: FileRecord, fingerprint: bytes, order: int) -> None:
        signature = file_record.signature
        sql.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name, sha256, fingerprint) DO UPDATE "
            "SET size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, "
            "inode = excluded.inode, done = excluded.done, applied = max(applied, excluded.applied), at = excluded.at",
            (
                file_record.sha256,
                fingerprint,
                file_record.name,
                signature.size,
                signature.mtime_ns,
                signature.ctime_ns,
                signature.inode,
                file_record.done,
                order,
                self.now(),
            ),
        )

    def _find_file(self, where: str, parameters: Iterable[object]) -> FileRecord | None:
        with self.lock:
            row = self.sql.execute(
                "SELECT name, sha256, size, mtime_ns, ctime_ns, inode, done FROM files "  # noqa: S608 - our own text
                f"WHERE {where} ORDER BY applied DESC LIMIT 1",
                tuple(parameters),
            ).fetchone()
        if row is None:
            return None
        return FileRecord(name=row[0], sha256=row[1], signature=FileSignature(*row[2:6]), done=bool(row[6]))


def connect(path: Path) -> sqlite3.Connection:
    """Open a ledger's file: durable at each commit, with a cache of 16 MB at most."""
    sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    sql.execute("PRAGMA journal_mode = WAL")  # the first that reads the file
    sql.execute("PRAGMA synchronous = FULL")
    sql.execute("PRAGMA cache_size = -16000")
    return sql


def _update_keys(sql: sqlite3.Connection, update: KeyUpdate) -> None:
    """Write keys with their digests, and delete the voided ones."""
    sql.executemany(
        "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET digest = excluded.digest, "
        "scope = excluded.scope",
        [(key, digest, update.scope) for key, digest in update.keys],
    )
    sql.executemany("DELETE FROM keys WHERE key = ?", [(key,) for key in update.voided])
    sql.executemany("DELETE FROM corrections WHERE key = ?", [(key,) for key in update.corrected])


def _track(sql: sqlite3.Connection, update: KeyUpdate, sequence: int) -> None:
    """Note the batch of each key; begin again where an earlier program has sent the batch before."""
    changed = sql.execute("UPDATE tracked SET last = ? WHERE last IN (?, ?)", (sequence, sequence, sequence - 1))
    if changed.rowcount == 0:
        sql.execute("INSERT OR REPLACE INTO tracked VALUES (1, ?, ?)", (sequence, sequence))
    sql.executemany("INSERT OR REPLACE INTO key_batches VALUES (?, ?)", [(key, sequence) for key, _ in update.keys])
    sql.executemany(
        "INSERT OR REPLACE INTO voided VALUES (?, ?, ?)", [(key, update.scope, sequence) for key in update.voided]
    )


def _write_checkpoint(sql: sqlite3.Connection, checkpoint: LaneCheckpoint) -> None:
    sql.execute(
        "INSERT OR REPLACE INTO standing VALUES (1, ?, ?, ?, ?)",
        (checkpoint.sequence, checkpoint.root or NO_ROOT, checkpoint.position, checkpoint.complete),
    )

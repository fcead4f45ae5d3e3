"""PostgreSQL adapter of the sequencer's store: indexes of entries, checkpoints, backlog.

Only one sequencer at a time assigns indexes: each call takes an advisory lock for its own transaction and no longer.
No leader is elected: a sequencer that died, was paused or lost its connection holds nothing after at most five
seconds (its session ends with it, or as idle in a transaction), and any other continues where it stopped.

An entry gets an index only with a valid tag of a registered process (`exchange.audit.entry_tags`). Any other row is
marked as refused and reported; the entries behind it are placed as usual. `pool audit verify --database` names what was
refused, and a row that somebody has marked so that an entry with a valid tag stays out.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from exchange.audit.entry_tags import EntryTags, id_of, process_of
from exchange.audit.search.authenticity import RegisteredProcesses
from exchange.audit.search.postgres import uuid_text
from exchange.audit.store import Backlog, CheckpointRow, LogStore, PlacedLeaf, SigningState, no_entry
from registry.database.errors import unavailable
from schemas.audit import is_done
from schemas.errors import CorruptError, Reason
from schemas.merkle import leaf_hash

__all__ = ["PostgresLog"]

_ROUNDS = 16  # batches of nothing but refused rows in one call: a flood of them delays entries by seconds only
_STREAM = 2_000  # rows that a streaming read has in memory at a time

_IDLE_TIMEOUT = sa.text("SET LOCAL idle_in_transaction_session_timeout = '5s'")
_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(7092442203119412340)")
_LOG_SIZE = sa.text("""
SELECT (SELECT coalesce(max(leaf_index) + 1, 0) FROM audit_entry),
       (SELECT coalesce(max(size), 0) FROM audit_checkpoint)
""")
_NEXT = sa.text("""
SELECT seq, CAST(id AS text) AS id, leaf, leaf_hash, tag FROM audit_entry
WHERE leaf_index IS NULL AND NOT refused ORDER BY seq LIMIT :limit FOR UPDATE
""")
_ASSIGN = sa.text("""
UPDATE audit_entry AS e SET leaf_index = :first + placed.number - 1
FROM unnest(CAST(:placed AS bigint[])) WITH ORDINALITY AS placed (seq, number) WHERE e.seq = placed.seq
""")
_REFUSE = sa.text("UPDATE audit_entry SET refused = true WHERE seq = ANY(CAST(:refused AS bigint[]))")
_PLACED = sa.text("""
SELECT leaf_index, leaf, leaf_hash FROM audit_entry
WHERE leaf_index >= :start AND (CAST(:end AS bigint) IS NULL OR leaf_index < :end) ORDER BY leaf_index
""")
_INDEX_OF = sa.text("SELECT leaf_index FROM audit_entry WHERE id = CAST(:id AS uuid) AND NOT refused")
_LATEST = sa.text("SELECT size, root, note, at FROM audit_checkpoint ORDER BY size DESC LIMIT 1")
_COVERING = sa.text("SELECT size, root, note, at FROM audit_checkpoint WHERE size > :index ORDER BY size LIMIT 1")
_OF_SIZE = sa.text("SELECT size, root, note, at FROM audit_checkpoint WHERE size = :size")
_PUT = sa.text("""
INSERT INTO audit_checkpoint (size, root, note, at) VALUES (:size, :root, :note, :at) ON CONFLICT (size) DO NOTHING
""")
_BACKLOG = sa.text("SELECT count(*), min(at) FROM audit_entry WHERE leaf_index IS NULL AND NOT refused")
# The first placed entry beyond the checkpoint comes before the first that waits for a place. Each is one step of an
# index, however long the backlog is.
_SIGNING = sa.text("""
WITH latest AS (SELECT size, root, at FROM audit_checkpoint ORDER BY size DESC LIMIT 1),
placed AS (
  SELECT id, at FROM audit_entry WHERE leaf_index = coalesce((SELECT size FROM latest), 0)
), waiting AS (
  SELECT id, at FROM audit_entry WHERE leaf_index IS NULL AND NOT refused ORDER BY seq LIMIT 1
)
SELECT coalesce((SELECT size FROM latest), 0) AS size, (SELECT root FROM latest) AS root,
  coalesce((SELECT at FROM latest), 0) AS signed,
  CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now,
  CAST(coalesce((SELECT id FROM placed), (SELECT id FROM waiting)) AS text) AS id,
  coalesce((SELECT at FROM placed), (SELECT at FROM waiting)) AS at
""")
_OF_ACTION = sa.text("""
SELECT leaf_index, leaf, leaf_hash, tag FROM audit_entry
WHERE action = :action AND decision = 'allow' AND NOT refused AND (
  :signed OR leaf_index IS NULL OR leaf_index >= coalesce((SELECT max(size) FROM audit_checkpoint), 0)
) ORDER BY seq DESC LIMIT :limit
""")
_OWN = 100


class PostgresLog(LogStore):
    """The adapter of `LogStore`.

    Args:
        engine: of the database.
        tags: with the keys of all roles that write entries, in a process that assigns indexes.
        report: called with the id and the process of each entry that is refused.
    """

    def __init__(
        self,
        engine: sa.Engine,
        tags: EntryTags,
        *,
        report: Callable[[str, str], None] = lambda _entry, _process: None,
    ) -> None:
        self._engine = engine
        self._tags = tags
        self._report = report
        self._processes = RegisteredProcesses(tags)

    @override
    def assign_indexes(self, limit: int) -> int | None:
        with self._transaction() as connection:
            connection.execute(_IDLE_TIMEOUT)
            if not connection.execute(_LOCK).scalar_one():
                return None
            first, covered = connection.execute(_LOG_SIZE).one()
            if first < covered:
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    f"the log has {first} placed entries, and a checkpoint covers {covered}: entries were removed; "
                    "nothing is signed until an auditor has looked (`pool audit verify`)",
                )
            for _ in range(_ROUNDS):
                placed, refused = self._examine(connection, limit)
                if refused:
                    connection.execute(_REFUSE, {"refused": [seq for seq, _, _ in refused]})
                for _, entry, process in refused:
                    self._report(entry, process)
                if placed or not refused:
                    break
            if placed:
                connection.execute(_ASSIGN, {"first": first, "placed": placed})
        return len(placed)

    def _examine(self, connection: sa.Connection, limit: int) -> tuple[list[int], list[tuple[int, str, str]]]:
        """Lock the next entries; return the rows to place, in order, and those to refuse, with entry and process."""
        placed: list[int] = []
        refused: list[tuple[int, str, str]] = []
        for row in connection.execute(_NEXT, {"limit": limit}):
            # A leaf with its tag under another id would be an earlier entry once more, or one in another's place.
            if self._is_ours(connection, row) and id_of(bytes(row.leaf)) == row.id:
                placed.append(row.seq)
            else:
                refused.append((row.seq, row.id, process_of(bytes(row.leaf))))
        return placed, refused

    @contextmanager
    @override
    def placed(self, start: int, end: int | None = None) -> Iterator[Iterator[PlacedLeaf]]:
        try:
            with self._engine.connect() as connection:
                streaming = connection.execution_options(yield_per=_STREAM)
                with streaming.execute(_PLACED, {"start": start, "end": end}) as rows:
                    yield (PlacedLeaf(index=at, leaf=bytes(leaf), leaf_hash=bytes(digest)) for at, leaf, digest in rows)
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error

    @override
    def index_of(self, entry_id: str) -> int | None:
        uuid = uuid_text(entry_id)
        if uuid is None:
            raise no_entry()
        with self._transaction() as connection:
            found = connection.execute(_INDEX_OF, {"id": uuid}).one_or_none()
        if found is None:
            raise no_entry()
        index: int | None = found.leaf_index
        return index

    @override
    def latest_checkpoint(self) -> CheckpointRow | None:
        with self._transaction() as connection:
            found = connection.execute(_LATEST).one_or_none()
        return None if found is None else _checkpoint(found)

    @override
    def covering_checkpoint(self, index: int) -> CheckpointRow | None:
        with self._transaction() as connection:
            found = connection.execute(_COVERING, {"index": index}).one_or_none()
        return None if found is None else _checkpoint(found)

    @override
    def put_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
        with self._transaction() as connection:
            connection.execute(_PUT, {"size": row.size, "root": row.root, "note": row.note, "at": row.at})
            stored = _checkpoint(connection.execute(_OF_SIZE, {"size": row.size}).one())
            if stored.root != row.root:
                raise _second_tree(row.size)
            return stored

    @override
    def backlog(self) -> Backlog:
        with self._transaction() as connection:
            count, oldest = connection.execute(_BACKLOG).one()
        return Backlog(count=count, oldest=oldest)

    @override
    def signing_state(self) -> SigningState:
        with self._transaction() as connection:
            row = connection.execute(_SIGNING).one()
        oldest = None if row.id is None else (row.id, row.at)
        return SigningState(size=row.size, root=bytes(row.root or b""), oldest=oldest, signed=row.signed, now=row.now)

    @override
    def gateway_entries(self, action: str, *, unsigned: bool = False) -> list[bytes]:
        with self._transaction() as connection:
            rows = connection.execute(_OF_ACTION, {"action": action, "signed": not unsigned, "limit": _OWN}).all()
            return [
                bytes(row.leaf)
                for row in rows
                if self._processes.role_of(connection, process_of(bytes(row.leaf))) == "gateway"
                and self._is_ours(connection, row)
                and is_done(json.loads(bytes(row.leaf)), action)
            ]

    def _is_ours(self, connection: sa.Connection, row: Any) -> bool:
        process, digest = process_of(bytes(row.leaf)), bytes(row.leaf_hash)
        role = self._processes.role_of(connection, process)
        return leaf_hash(bytes(row.leaf)) == digest and self._tags.holds(role, process, digest, row.tag)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error


def _second_tree(size: int) -> CorruptError:
    """Return the error of a checkpoint that contradicts a stored one."""
    return CorruptError(
        Reason.LOG_CORRUPT,
        f"a checkpoint of size {size} with another root is stored; one of two trees is forged, and nothing is signed "
        "until an auditor has looked (`pool audit verify`)",
    )


def _checkpoint(row: sa.Row[*tuple[Any, ...]]) -> CheckpointRow:
    size, root, note, at = row
    return CheckpointRow(size=size, root=bytes(root), note=note, at=at)

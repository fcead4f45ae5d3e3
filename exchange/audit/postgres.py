"""Entries and receipts in PostgreSQL.

Two statements for an entry, however many go together: its number, its row. Both belong to the act's own transaction.
"""

import secrets
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange.audit.store import Found, NewLeaf, Query, Reach
from exchange.audit.tables import audit_entry, audit_receipt, metadata
from exchange.work import Work, connection_of
from registry.postgres_failures import unavailable
from registry.prepared import Prepared
from schemas.audit import AuditEntry
from schemas.errors import ConflictError, CorruptError, Reason
from schemas.names import Lane
from schemas.record import Receipt, Run

__all__ = ["PostgresEntries", "PostgresReceipts", "columns_of", "metadata", "uuid_text"]

_KEY_SIZE = 16

_OPEN_LINES = sa.text("""
INSERT INTO audit_line (process, line, counter) SELECT :process, k, 0 FROM generate_series(1, :lines) AS k
""")

# A line that nobody holds; its row stays locked until the transaction ends.
_NUMBER = Prepared(
    "audit_number",
    """
WITH free AS (
  SELECT process, line FROM audit_line WHERE process = :process
  LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE audit_line AS l SET counter = l.counter + :count
FROM free WHERE l.process = free.process AND l.line = free.line
RETURNING l.line, l.counter
""",
    process="text",
    count="bigint",
)

# All lines are held: wait for one of them.
_NUMBER_WAITING = sa.text("""
UPDATE audit_line SET counter = counter + :count
WHERE process = :process AND line = 1 + (:pick % (SELECT nullif(count(*), 0) FROM audit_line WHERE process = :process))
RETURNING line, counter
""")

_ADD = Prepared(
    "audit_add",
    """
INSERT INTO audit_entry
  (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number)
SELECT id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number
FROM unnest(:id, :leaf, :leaf_hash, :at, :action, :decision, :actor_department, :resource, :grant_id, :purpose,
  :case_number) WITH ORDINALITY AS new
  (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number, ordinal)
ORDER BY ordinal
""",
    id="uuid[]",
    leaf="bytea[]",
    leaf_hash="bytea[]",
    at="bigint[]",
    action="text[]",
    decision="text[]",
    actor_department="text[]",
    resource="text[]",
    grant_id="text[]",
    purpose="text[]",
    case_number="text[]",
)

_RECEIPT_COLUMNS = "lane, sequence, root, runs, CAST(entry_id AS text), leaf_hash, source_position, signature"
_GET_RECEIPT = sa.text(
    f"SELECT {_RECEIPT_COLUMNS} FROM audit_receipt WHERE lane = :lane AND sequence = :sequence"  # noqa: S608
)
_LAST_RECEIPT = sa.text(
    f"SELECT {_RECEIPT_COLUMNS} FROM audit_receipt WHERE lane = :lane ORDER BY sequence DESC LIMIT 1"  # noqa: S608
)
_REACH = sa.text(
    f"SELECT {_RECEIPT_COLUMNS}, keys FROM audit_receipt WHERE lane = :lane AND sequence = :sequence"  # noqa: S608
)

# One step of the index a lane, however many receipts it has.
_LASTS = sa.text("""
WITH RECURSIVE lanes AS (
  (SELECT lane FROM audit_receipt ORDER BY lane LIMIT 1)
  UNION ALL
  SELECT (SELECT r.lane FROM audit_receipt r WHERE r.lane > lanes.lane ORDER BY r.lane LIMIT 1)
  FROM lanes WHERE lanes.lane IS NOT NULL
)
SELECT lane, (SELECT max(sequence) FROM audit_receipt r WHERE r.lane = lanes.lane)
FROM lanes WHERE lane IS NOT NULL
""")

_PRUNE_KEYS = sa.text("""
UPDATE audit_receipt AS r SET keys = NULL FROM audit_entry AS e
WHERE e.id = r.entry_id AND e.at < :before AND r.keys IS NOT NULL
""")


def uuid_text(text: str) -> str | None:
    """Give a UUID in its usual form; None for text that is none, which no row can have as its id."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def columns_of(entry: AuditEntry) -> dict[str, str | int]:
    """Give the search columns of an entry: what they must equal in its row."""
    return {
        "id": entry.id,
        "at": entry.at,
        "action": str(entry.action),
        "decision": str(entry.decision),
        "actor_department": entry.actor.department if entry.actor else "",
        "resource": entry.resource,
        "grant_id": entry.grant.id if entry.grant else "",
        "purpose": entry.purpose,
        "case_number": entry.case,
    }


class PostgresEntries:
    """See `exchange.audit.store.EntryStore`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def open_lines(self, work: Work, process: str, lines: int) -> None:
        """See `EntryStore.open_lines`."""
        try:
            connection_of(work).execute(_OPEN_LINES, {"process": process, "lines": lines})
        except sa_exc.IntegrityError as error:
            raise ConflictError(
                Reason.ALREADY_EXISTS, f"a process named {process!r} already counts; give each start a new name"
            ) from error

    def number(self, work: Work, process: str, count: int) -> tuple[str, int]:
        """See `EntryStore.number`."""
        connection = connection_of(work)
        row = _NUMBER.one_or_none(connection, {"process": process, "count": count})
        if row is None:
            waiting = {"process": process, "count": count, "pick": secrets.randbits(16)}
            row = connection.execute(_NUMBER_WAITING, waiting).one_or_none()
        if row is None:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the counting lines of {process!r} are gone; they are made at the start and never removed",
            )
        line, counter = row
        return f"{process}#{line}", counter - count + 1

    def add(self, work: Work, leaves: Sequence[NewLeaf]) -> None:
        """See `EntryStore.add`."""
        rows: list[dict[str, Any]] = [
            columns_of(leaf.entry) | {"leaf": leaf.leaf, "leaf_hash": leaf.leaf_hash} for leaf in leaves
        ]
        try:
            _ADD.run(connection_of(work), {name: [row[name] for row in rows] for name in rows[0]})
        except sa_exc.IntegrityError as error:
            raise ConflictError(
                Reason.ALREADY_EXISTS, "an entry of this id is in the log; ids are made anew"
            ) from error

    def find(self, query: Query) -> list[Found]:
        """See `EntryStore.find`."""
        entry_id = None if query.entry is None else uuid_text(query.entry)
        if query.entry is not None and entry_id is None:
            return []
        table = audit_entry.c
        wanted = sa.select(table.leaf_index, table.leaf, table.leaf_hash)
        equal: list[tuple[sa.ColumnElement[Any], str | None]] = [
            (table.actor_department, query.department),
            (table.resource, query.resource),
            (table.purpose, query.purpose),
            (table.case_number, query.case),
            (table.grant_id, query.grant),
            (table.action, query.action),
            (table.decision, query.decision),
            (table.id, entry_id),
        ]
        for column, value in equal:
            if value is not None:
                wanted = wanted.where(column == value)
        if query.since is not None:
            wanted = wanted.where(table.at >= query.since)
        if query.until is not None:
            wanted = wanted.where(table.at < query.until)
        wanted = wanted.order_by(table.at.desc(), table.seq.desc()).limit(query.limit)
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(wanted).all()
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error
        return [Found(index=index, leaf=bytes(leaf), leaf_hash=bytes(digest)) for index, leaf, digest in rows]


class PostgresReceipts:
    """See `exchange.audit.store.ReceiptStore`."""

    def put(self, work: Work, receipts: Sequence[tuple[Receipt, Sequence[bytes]]]) -> None:
        """See `ReceiptStore.put`."""
        rows = [
            {
                "lane": str(receipt.lane),
                "sequence": receipt.sequence,
                "root": receipt.root,
                "runs": [number for run in receipt.runs for number in (run.partition, run.first, run.last)],
                "entry_id": receipt.entry_id,
                "leaf_hash": receipt.leaf_hash,
                "source_position": receipt.source_position,
                "signature": receipt.signature,
                "keys": b"".join(keys) or None,
            }
            for receipt, keys in receipts
        ]
        try:
            connection_of(work).execute(sa.insert(audit_receipt), rows)
        except sa_exc.IntegrityError as error:
            first, last = receipts[0][0], receipts[-1][0]
            raise ConflictError(
                Reason.ALREADY_EXISTS,
                f"lane {first.lane} has a receipt of one of the batches {first.sequence} to {last.sequence}; read it",
            ) from error

    def get(self, work: Work, lane: Lane, sequence: int) -> Receipt | None:
        """See `ReceiptStore.get`."""
        found = connection_of(work).execute(_GET_RECEIPT, {"lane": str(lane), "sequence": sequence}).one_or_none()
        return None if found is None else _receipt(found)

    def last(self, work: Work, lane: Lane) -> Receipt | None:
        """See `ReceiptStore.last`."""
        found = connection_of(work).execute(_LAST_RECEIPT, {"lane": str(lane)}).one_or_none()
        return None if found is None else _receipt(found)

    def lasts(self, work: Work) -> dict[Lane, int]:
        """See `ReceiptStore.lasts`."""
        return {Lane.parse(lane): sequence for lane, sequence in connection_of(work).execute(_LASTS)}

    def reach(self, work: Work, lane: Lane, sequence: int) -> Reach | None:
        """See `ReceiptStore.reach`."""
        found = connection_of(work).execute(_REACH, {"lane": str(lane), "sequence": sequence}).one_or_none()
        if found is None:
            return None
        packed = found[8]
        keys = None
        if packed is not None:
            keys = tuple(bytes(packed[at : at + _KEY_SIZE]) for at in range(0, len(packed), _KEY_SIZE))
        return Reach(receipt=_receipt(found), keys=keys)

    def prune_keys(self, work: Work, before: int) -> int:
        """See `ReceiptStore.prune_keys`."""
        return connection_of(work).execute(_PRUNE_KEYS, {"before": before}).rowcount


def _receipt(row: sa.Row[*tuple[Any, ...]]) -> Receipt:
    lane, sequence, root, runs, entry_id, leaf_hash, source_position, signature = row[:8]
    return Receipt(
        lane=Lane.parse(lane),
        sequence=sequence,
        root=bytes(root),
        runs=tuple(Run(partition=runs[at], first=runs[at + 1], last=runs[at + 2]) for at in range(0, len(runs), 3)),
        entry_id=entry_id,
        leaf_hash=bytes(leaf_hash),
        source_position=bytes(source_position),
        signature=bytes(signature),
    )

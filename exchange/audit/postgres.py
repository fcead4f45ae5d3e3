"""PostgreSQL adapter of the stores of audit entries and receipts.

One statement stores the entries of an act, however many they are, and moves their gapless sequence
(`exchange.audit.gapless_sequence`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg2 import errors
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from exchange.audit.entry_tags import EntryTags
from exchange.audit.gapless_sequence import GaplessSequences
from exchange.audit.search.authenticity import EntryAuthenticity, SignedHashes
from exchange.audit.search.postgres import find_entries, find_tail
from exchange.audit.store import (
    EntryQuery,
    EntryStore,
    NewLeaf,
    NumberLeaves,
    ReceiptStore,
    StoredLeaf,
    Tail,
    TailQuery,
    id_exists,
)
from exchange.audit.tables import audit_process, audit_receipt, metadata
from registry.database.prepared_statement import PreparedStatement
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of, postgres_of
from schemas.audit import AuditEntry
from schemas.errors import ConflictError, CorruptError, PoolError, Reason
from schemas.names import Lane
from schemas.record import OffsetRange, Receipt

__all__ = ["PostgresEntries", "PostgresReceipts", "columns_of", "metadata"]

_SEQUENCE = {"process": "text", "number": "integer", "before": "bigint", "after": "bigint"}
_COLUMNS = {
    "id": "uuid",
    "leaf": "bytea",
    "leaf_hash": "bytea",
    "at": "bigint",
    "action": "text",
    "decision": "text",
    "actor_department": "text",
    "resource": "text",
    "grant_id": "text",
    "purpose": "text",
    "case_number": "text",
    "actor": "text",
    "reason": "text",
    "tag": "bytea",
}

# Where the sequence is not at :before, the entry has no id, which the table refuses.
_ADD_ONE = PreparedStatement(
    "audit_add_one",
    """
WITH sequence AS (
  UPDATE audit_line SET counter = :after
  WHERE process = :process AND line = :number AND counter = :before RETURNING line
)
INSERT INTO audit_entry
  (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number,
   actor, reason, tag)
SELECT CASE WHEN EXISTS (SELECT FROM sequence) THEN :id END,
  :leaf, :leaf_hash, :at, :action, :decision, :actor_department, :resource, :grant_id, :purpose, :case_number,
  :actor, :reason, :tag
""",
    **_SEQUENCE,
    **_COLUMNS,
)
_ADD_MANY = PreparedStatement(
    "audit_add_many",
    """
WITH sequence AS (
  UPDATE audit_line SET counter = :after
  WHERE process = :process AND line = :number AND counter = :before RETURNING line
)
INSERT INTO audit_entry
  (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number,
   actor, reason, tag)
SELECT CASE WHEN EXISTS (SELECT FROM sequence) THEN id END,
  leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number,
  actor, reason, tag
FROM unnest(
  :id, :leaf, :leaf_hash, :at, :action, :decision, :actor_department, :resource, :grant_id, :purpose, :case_number,
  :actor, :reason, :tag
) WITH ORDINALITY AS new
  (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number, actor, reason,
   tag, ordinal)
ORDER BY ordinal
""",
    **_SEQUENCE,
    **{name: f"{kind}[]" for name, kind in _COLUMNS.items()},
)

_RECEIPT_COLUMNS = "lane, sequence, root, runs, CAST(entry_id AS text), leaf_hash, source_position, signature"
_GET_RECEIPT = sa.text(
    f"SELECT {_RECEIPT_COLUMNS} FROM audit_receipt WHERE lane = :lane AND sequence = :sequence"  # noqa: S608
)
_LAST_RECEIPT = sa.text(
    f"SELECT {_RECEIPT_COLUMNS} FROM audit_receipt WHERE lane = :lane ORDER BY sequence DESC LIMIT 1"  # noqa: S608
)

# One step of the index for each lane, however many receipts it has.
_LAST_SEQUENCES = sa.text("""
WITH RECURSIVE lanes AS (
  (SELECT lane FROM audit_receipt ORDER BY lane LIMIT 1)
  UNION ALL
  SELECT (SELECT r.lane FROM audit_receipt r WHERE r.lane > lanes.lane ORDER BY r.lane LIMIT 1)
  FROM lanes WHERE lanes.lane IS NOT NULL
)
SELECT lane, (SELECT max(sequence) FROM audit_receipt r WHERE r.lane = lanes.lane)
FROM lanes WHERE lane IS NOT NULL
""")

# The same for the lanes of some connectors: `0` follows `/`, so that the bounds hold the lanes of one and no others.
LASTS_OF = sa.text(f"""
SELECT lasts.* FROM unnest(CAST(:departments AS text[]), CAST(:connectors AS text[])) AS asked (department, connector)
CROSS JOIN LATERAL (
  WITH RECURSIVE heads AS (
    (SELECT {_RECEIPT_COLUMNS} FROM audit_receipt
     WHERE lane > asked.department || '/' || asked.connector || '/'
       AND lane < asked.department || '/' || asked.connector || '0'
     ORDER BY lane DESC, sequence DESC LIMIT 1)
    UNION ALL
    SELECT next.* FROM heads CROSS JOIN LATERAL (
      SELECT {_RECEIPT_COLUMNS} FROM audit_receipt AS r
      WHERE r.lane > asked.department || '/' || asked.connector || '/' AND r.lane < heads.lane
      ORDER BY r.lane DESC, r.sequence DESC LIMIT 1) AS next
  )
  SELECT * FROM heads
) AS lasts
""")  # noqa: S608 - names of columns

_GET_ORDER = sa.text("SELECT keys, void_leaves FROM audit_receipt WHERE lane = :lane AND sequence = :sequence")
_GET_RUNS = sa.text("""
SELECT r.lane, r.sequence, r.runs
FROM unnest(CAST(:lanes AS text[]), CAST(:sequences AS bigint[])) AS wanted (lane, sequence)
JOIN audit_receipt AS r ON r.lane = wanted.lane AND r.sequence = wanted.sequence
""")
_PRUNE_KEYS = sa.text("""
UPDATE audit_receipt AS r SET keys = NULL, void_leaves = NULL FROM audit_entry AS e
WHERE e.id = r.entry_id AND e.at < :before AND r.keys IS NOT NULL
""")


def columns_of(entry: AuditEntry) -> dict[str, str | int | bytes]:
    """Return the search columns of an entry, as its row must have them."""
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
        "actor": entry.actor.id if entry.actor else "",
        "reason": "" if entry.reason is None else str(entry.reason),
    }


class PostgresEntries(EntryStore):
    """The adapter of `EntryStore`.

    Args:
        engine: for searches.
        tags: of the process's role.
        hashes: of the signed log, with which searches compare what they find; None where there is no folder of it.
    """

    def __init__(self, engine: sa.Engine, tags: EntryTags, hashes: SignedHashes | None = None) -> None:
        self._engine = engine
        self._authenticity = EntryAuthenticity(tags, hashes)
        self._tags = tags
        self._sequences = GaplessSequences()

    @override
    def open_sequences(self, work: UnitOfWork, process: str) -> None:
        self._sequences.open(postgres_of(work), process)
        values = {"process": process, "role": self._tags.role, "tag": self._tags.registration(process)}
        connection_of(work).execute(sa.insert(audit_process).values(values))

    @override
    def add(self, work: UnitOfWork, process: str, leaves: NumberLeaves, *, last: bool = False) -> list[NewLeaf]:
        transaction = postgres_of(work)
        sequence = self._sequences.acquire(transaction, process)
        before = sequence.current
        new = [*leaves(f"{process}#{sequence.number}", before + 1)]
        rows = [
            columns_of(leaf.entry)
            | {"leaf": leaf.leaf, "leaf_hash": leaf.leaf_hash, "tag": self._tags.tag(process, leaf.leaf_hash)}
            for leaf in new
        ]
        alone, after = len(new) == 1, before + len(new)
        values: dict[str, Any] = rows[0] if alone else {name: [row[name] for row in rows] for name in _COLUMNS}
        values |= {"process": process, "number": sequence.number, "before": before, "after": after}

        def on_violation(error: sa_exc.IntegrityError) -> PoolError:
            if isinstance(error.orig, errors.UniqueViolation):
                return id_exists()
            sequence.tampered = True
            return CorruptError(
                Reason.LOG_CORRUPT,
                f"the gapless sequence {sequence.number} of {process!r} is not at {before}, where this process left "
                "it: another program has changed its row; verify the log against its database",
            )

        transaction.write(_ADD_ONE if alone else _ADD_MANY, values, on_violation=on_violation, last=last)
        sequence.current = after
        return new

    @override
    def find(self, query: EntryQuery) -> list[StoredLeaf]:
        return find_entries(self._engine, query, self._authenticity)

    @override
    def tail(self, query: TailQuery) -> Tail:
        return find_tail(self._engine, query, self._authenticity)


class PostgresReceipts(ReceiptStore):
    """The adapter of `ReceiptStore`."""

    @override
    def put(
        self,
        work: UnitOfWork,
        receipts: Sequence[tuple[Receipt, Sequence[bytes]]],
        void_leaves: Mapping[int, bytes] | None = None,
    ) -> None:
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
                "void_leaves": (void_leaves or {}).get(receipt.sequence),
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

    @override
    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        found = connection_of(reader).execute(_GET_RECEIPT, {"lane": str(lane), "sequence": sequence}).one_or_none()
        return None if found is None else _receipt(found)

    @override
    def order(self, reader: Reader, lane: Lane, sequence: int) -> tuple[bytes, bytes] | None:
        values = {"lane": str(lane), "sequence": sequence}
        found = connection_of(reader).execute(_GET_ORDER, values).one_or_none()
        return None if found is None else (bytes(found.keys or b""), bytes(found.void_leaves or b""))

    @override
    def runs(
        self, reader: Reader, batches: Collection[tuple[Lane, int]]
    ) -> Mapping[tuple[Lane, int], Sequence[OffsetRange]]:
        names = {str(lane): lane for lane, _ in batches}
        values = {"lanes": [str(lane) for lane, _ in batches], "sequences": [sequence for _, sequence in batches]}
        rows = connection_of(reader).execute(_GET_RUNS, values)
        return {(names[lane], sequence): _ranges(runs) for lane, sequence, runs in rows}

    @override
    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        found = connection_of(reader).execute(_LAST_RECEIPT, {"lane": str(lane)}).one_or_none()
        return None if found is None else _receipt(found)

    @override
    def last_sequences(self, reader: Reader) -> dict[Lane, int]:
        return {Lane.parse(lane): sequence for lane, sequence in connection_of(reader).execute(_LAST_SEQUENCES)}

    @override
    def lasts_of(self, reader: Reader, connectors: Collection[tuple[str, str]]) -> Sequence[Receipt]:
        asked = {"departments": [one[0] for one in connectors], "connectors": [one[1] for one in connectors]}
        return [_receipt(row) for row in connection_of(reader).execute(LASTS_OF, asked)]

    @override
    def prune_keys(self, work: UnitOfWork, before: int) -> int:
        return connection_of(work).execute(_PRUNE_KEYS, {"before": before}).rowcount


def _ranges(runs: Sequence[int]) -> tuple[OffsetRange, ...]:
    return tuple(
        OffsetRange(partition=runs[at], first=runs[at + 1], last=runs[at + 2]) for at in range(0, len(runs), 3)
    )


def _receipt(row: sa.Row[*tuple[Any, ...]]) -> Receipt:
    lane, sequence, root, runs, entry_id, leaf_hash, source_position, signature = row
    return Receipt(
        lane=Lane.parse(lane),
        sequence=sequence,
        root=bytes(root),
        runs=_ranges(runs),
        entry_id=entry_id,
        leaf_hash=bytes(leaf_hash),
        source_position=bytes(source_position),
        signature=bytes(signature),
    )

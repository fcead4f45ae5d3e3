"""Entries and receipts in PostgreSQL.

One statement for the entries of an act, however many they are: it moves their counting line and stores them.
"""

import threading
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from psycopg2 import errors
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from exchange.audit.store import EntryStore, Found, NewLeaf, NumberLeaves, Query, Reach, ReceiptStore, not_opened
from exchange.audit.tables import audit_entry, audit_receipt, metadata
from registry.database.errors import unavailable
from registry.database.prepared_statement import PreparedStatement
from registry.database.unit_of_work import PostgresUnitOfWork, Reader, UnitOfWork, connection_of, postgres_of
from schemas.audit import AuditEntry
from schemas.errors import ConflictError, CorruptError, PoolError, Reason
from schemas.names import Lane
from schemas.record import Receipt, Run

__all__ = ["PostgresEntries", "PostgresReceipts", "columns_of", "metadata", "uuid_text"]

_KEY_SIZE = 16

_OPEN_LINES = sa.text("INSERT INTO audit_line (process, line, counter) VALUES (:process, 1, 0)")
_ANOTHER_LINE = sa.text("INSERT INTO audit_line (process, line, counter) VALUES (:process, :line, 0)")

# A line that does not stand where its process left it gives an entry without an id, which the table refuses.
_ADD = """
WITH line AS (
  UPDATE audit_line SET counter = :after WHERE process = :process AND line = :line AND counter = :before RETURNING line
)
INSERT INTO audit_entry
  (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, purpose, case_number)
SELECT CASE WHEN EXISTS (SELECT 1 FROM line) THEN {id} END,
  {leaf}, {leaf_hash}, {at}, {action}, {decision}, {actor_department}, {resource}, {grant_id}, {purpose}, {case_number}
"""
_LINE = {"process": "text", "line": "integer", "before": "bigint", "after": "bigint"}
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
}
_ADD_ONE = PreparedStatement(
    "audit_add_one", _ADD.format(**{name: f":{name}" for name in _COLUMNS}), **_LINE, **_COLUMNS
)
_ADD_MANY = PreparedStatement(
    "audit_add_many",
    _ADD.format(**{name: name for name in _COLUMNS})
    + f"FROM unnest({', '.join(f':{name}' for name in _COLUMNS)}) WITH ORDINALITY AS new "
    f"({', '.join(_COLUMNS)}, ordinal) ORDER BY ordinal",
    **_LINE,
    **{name: f"{kind}[]" for name, kind in _COLUMNS.items()},
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
    """Return a UUID in its usual form; None for text that is none, which no row can have as its id."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def columns_of(entry: AuditEntry) -> dict[str, str | int | bytes]:
    """Return the search columns of an entry: what they must equal in its row."""
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


class _Line:
    """A counting line of this process, held by one work at a time.

    Attributes:
        number: 1, 2, 3 … within the process.
        stands: its counter after the last commit; None for a line that no commit has stored yet.
        reached: its counter within the work that holds it.
        moved: somebody else has moved it.
    """

    def __init__(self, number: int, stands: int | None) -> None:
        self.number = number
        self.stands = stands
        self.reached = stands or 0
        self.moved = False


class _Lines:
    """The lines of one process that no work holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = [_Line(1, 0)]
        self._highest = 1

    def take(self) -> _Line:
        """Return the line that was let go last, so that few are used; a new one where all are held."""
        with self._lock:
            if self._free:
                return self._free.pop()
            self._highest += 1
            return _Line(self._highest, None)

    def let_go(self, line: _Line, committed: bool | None) -> None:
        """Take a line back, unless it has never been or unknown where it stands."""
        if committed:
            line.stands = line.reached
        if committed is None or line.stands is None or line.moved:
            return
        line.reached = line.stands
        with self._lock:
            self._free.append(line)


class PostgresEntries(EntryStore):
    """See `exchange.audit.store.EntryStore`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lines: dict[str, _Lines] = {}
        self._held: dict[tuple[PostgresUnitOfWork, str], _Line] = {}

    @override
    def open_lines(self, work: UnitOfWork, process: str) -> None:
        try:
            connection_of(work).execute(_OPEN_LINES, {"process": process})
        except sa_exc.IntegrityError as error:
            raise ConflictError(
                Reason.ALREADY_EXISTS, f"a process named {process!r} already counts; give each start a new name"
            ) from error
        self._lines[process] = _Lines()

        def opened(committed: bool | None) -> None:
            if not committed:
                del self._lines[process]

        postgres_of(work).on_completion(opened)

    @override
    def add(self, work: UnitOfWork, process: str, leaves: NumberLeaves, *, last: bool = False) -> list[NewLeaf]:
        within = postgres_of(work)
        line = self._line(within, process)
        before = line.reached
        new = [*leaves(f"{process}#{line.number}", before + 1)]
        rows = [columns_of(leaf.entry) | {"leaf": leaf.leaf, "leaf_hash": leaf.leaf_hash} for leaf in new]
        alone, after = len(new) == 1, before + len(new)
        values: dict[str, Any] = rows[0] if alone else {name: [row[name] for row in rows] for name in _COLUMNS}
        values |= {"process": process, "line": line.number, "before": before, "after": after}

        def refusal(error: sa_exc.IntegrityError) -> PoolError:
            if isinstance(error.orig, errors.UniqueViolation):
                return ConflictError(Reason.ALREADY_EXISTS, "an entry of this id is in the log; ids are made anew")
            line.moved = True
            return CorruptError(
                Reason.LOG_CORRUPT,
                f"the counting line {line.number} of {process!r} does not stand at {before}, where this process left "
                "it: somebody else has changed its row; verify the log against its database",
            )

        within.write(_ADD_ONE if alone else _ADD_MANY, values, refusal=refusal, last=last)
        line.reached = after
        return new

    def _line(self, work: PostgresUnitOfWork, process: str) -> _Line:
        """Return the line that a work holds, from its first entry until its end."""
        held = self._held.get((work, process))
        if held is not None:
            return held
        lines = self._lines.get(process)
        if lines is None:
            raise not_opened(process)
        line = self._held[work, process] = lines.take()

        def let_go(committed: bool | None) -> None:
            del self._held[work, process]
            lines.let_go(line, committed)

        work.on_completion(let_go)
        if line.stands is None:
            work.connection.execute(_ANOTHER_LINE, {"process": process, "line": line.number})
        return line

    @override
    def find(self, query: Query) -> list[Found]:
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


class PostgresReceipts(ReceiptStore):
    """See `exchange.audit.store.ReceiptStore`."""

    @override
    def put(self, work: UnitOfWork, receipts: Sequence[tuple[Receipt, Sequence[bytes]]]) -> None:
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

    @override
    def get(self, reader: Reader, lane: Lane, sequence: int) -> Receipt | None:
        found = connection_of(reader).execute(_GET_RECEIPT, {"lane": str(lane), "sequence": sequence}).one_or_none()
        return None if found is None else _receipt(found)

    @override
    def last(self, reader: Reader, lane: Lane) -> Receipt | None:
        found = connection_of(reader).execute(_LAST_RECEIPT, {"lane": str(lane)}).one_or_none()
        return None if found is None else _receipt(found)

    @override
    def lasts(self, reader: Reader) -> dict[Lane, int]:
        return {Lane.parse(lane): sequence for lane, sequence in connection_of(reader).execute(_LASTS)}

    @override
    def reach(self, reader: Reader, lane: Lane, sequence: int) -> Reach | None:
        found = connection_of(reader).execute(_REACH, {"lane": str(lane), "sequence": sequence}).one_or_none()
        if found is None:
            return None
        packed = found[8]
        keys = None
        if packed is not None:
            keys = tuple(bytes(packed[at : at + _KEY_SIZE]) for at in range(0, len(packed), _KEY_SIZE))
        return Reach(receipt=_receipt(found), keys=keys)

    @override
    def prune_keys(self, work: UnitOfWork, before: int) -> int:
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

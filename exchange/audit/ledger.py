"""Audit ledger: writes entries as leaves, within the transaction of the act that they record.

    ledger = AuditLedger(store, process="gw1@019a…")
    ledger.open(database)                     once, at the start of the process
    with database.begin() as work:
        ...the act...
        hashes = ledger.write(work, [entry])  the last thing that is written

Changes of tagged rows (`registry.database.row_tags`) that were made in the transaction are noted in its first entry,
in `data.rows`; what does not fit goes into entries of their own that follow. So each row that carries authority is
accounted for by an entry, and an old row that is put back is one that a later entry has replaced.

Leaving the block commits: the entry is durable, and only then may data leave or an answer be given. If the
transaction rolls back, the act, its entry and the entry's number are undone together. The sequencer puts the leaf into
the signed log within a second or so; the leaf hash is what a receipt promises.
"""

from collections.abc import Sequence
from dataclasses import replace

from exchange.audit.store import EntryStore, NewLeaf
from registry.database.row_tags import noted
from registry.database.unit_of_work import Database, UnitOfWork, take_row_changes
from schemas.audit import ROWS_CHANGED, AuditEntry, to_leaf
from schemas.canonical import Json
from schemas.identifiers import random_id, uuid7
from schemas.merkle import leaf_hash

__all__ = ["AuditLedger"]

_MAX_NOTES = 24_000  # bytes of changes in one entry, so that its leaf stays below 65,535


class AuditLedger:
    """Numbers entries, makes their leaves and stores them.

    Args:
        store: where the leaves are stored.
        process: names one start of one gateway process, such as `gw1@` and a UUIDv7; never used again.
    """

    def __init__(self, store: EntryStore, *, process: str) -> None:
        self._store = store
        self._process = process

    def open(self, database: Database) -> None:
        """Register the process, so that it may write entries; once, before the first entry.

        Raises:
            ConflictError: ALREADY_EXISTS, another start has registered under this name: give each start a new one.
            UnavailableError: the store does not answer.
        """
        with database.begin() as work:
            self._store.open_sequences(work, self._process)

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        """Number the entries, store them within *work*, and return their leaf hashes, in order.

        `gateway` and `counter` of the entries are overwritten; all other fields are stored as given.

        Args:
            work: the act's transaction.
            entries: the entries of the act.
            last: nothing else is done in *work*. They are then sent with its commit, which saves a round trip to the
                database, and leaving the work raises what this would.

        Raises:
            InvalidError: REQUEST_INVALID, an entry has no canonical form or its leaf is longer than 65,535 bytes.
            ConflictError: ALREADY_EXISTS, an entry of this id is there.
            CorruptError: LOG_CORRUPT, another program has changed the counter of the process's gapless sequence.
            UnavailableError: the store does not answer; nothing may be released.
        """
        if not entries:
            return []
        changes = [noted(change) for change in take_row_changes(work)]
        noting = _with_changes(entries, changes) if changes else entries

        def number(sequence: str, first: int) -> list[NewLeaf]:
            return [_leaf(replace(entry, gateway=sequence, counter=first + k)) for k, entry in enumerate(noting)]

        stored = self._store.add(work, self._process, number, last=last)
        return [leaf.leaf_hash for leaf in stored[: len(entries)]]


def _with_changes(entries: Sequence[AuditEntry], changes: Sequence[list[str]]) -> list[AuditEntry]:
    """Return the entries with changes of rows: in the first one what fits, in further entries the rest."""
    chunks: list[list[Json]] = [[]]
    size = 0
    for change in changes:
        size += sum(len(part.encode()) + 4 for part in change)
        if size > _MAX_NOTES and chunks[-1]:
            chunks.append([])
            size = sum(len(part.encode()) + 4 for part in change)
        chunks[-1].append([*change])
    first, *others = entries
    result = [replace(first, data={**first.data, "rows": chunks[0]}), *others]
    for chunk in chunks[1:]:
        following = replace(
            first,
            id=uuid7(first.at),
            salt=random_id(),
            action=ROWS_CHANGED,
            grant=None,
            flow=None,
            data={"of": first.id, "rows": chunk},
        )
        result.append(following)
    return result


def _leaf(entry: AuditEntry) -> NewLeaf:
    leaf = to_leaf(entry)
    return NewLeaf(entry=entry, leaf=leaf, leaf_hash=leaf_hash(leaf))

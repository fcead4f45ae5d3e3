"""Audit ledger: writes entries as leaves, within the transaction of the act that they record.

    ledger = AuditLedger(store, process="gw1@019a…")
    ledger.open(database)                     once, at the start of the process
    with database.begin() as work:
        ...the act...
        hashes = ledger.write(work, [entry])  the last thing that is written

Leaving the block commits: the entry is durable, and only then may data leave or an answer be given. If the
transaction rolls back, the act, its entry and the entry's number are undone together. The sequencer puts the leaf into
the signed log within a second or so; the leaf hash is what a receipt promises.
"""

from collections.abc import Sequence
from dataclasses import replace

from exchange.audit.store import EntryStore, NewLeaf
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.audit import AuditEntry, to_leaf
from schemas.merkle import leaf_hash

__all__ = ["AuditLedger"]


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

        def number(sequence: str, first: int) -> list[NewLeaf]:
            return [_leaf(replace(entry, gateway=sequence, counter=first + k)) for k, entry in enumerate(entries)]

        return [leaf.leaf_hash for leaf in self._store.add(work, self._process, number, last=last)]


def _leaf(entry: AuditEntry) -> NewLeaf:
    leaf = to_leaf(entry)
    return NewLeaf(entry=entry, leaf=leaf, leaf_hash=leaf_hash(leaf))

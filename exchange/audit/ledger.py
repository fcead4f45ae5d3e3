"""The ledger: an entry becomes a leaf, within the transaction of the act that it tells of.

    ledger = Ledger(store, process="gw1@019a…")
    ledger.open(works)                        once, at the start of the process
    with works.begin() as work:
        ...the act...
        hashes = ledger.write(work, [entry])  the last thing that is written

Leaving the block commits: the entry is durable, and only then may data leave or an answer be given. Rolled back,
neither the act nor its entry nor its number has ever been. The sequencer puts the leaf into the signed log within a
second or so; the leaf hash is what a receipt promises.
"""

from collections.abc import Sequence
from dataclasses import replace

from exchange.audit.store import EntryStore, NewLeaf
from registry.database.unit_of_work import Database, UnitOfWork
from schemas.audit import AuditEntry, to_leaf
from schemas.merkle import leaf_hash

__all__ = ["Ledger"]


class Ledger:
    """Numbers entries, makes their leaves and stores them.

    Args:
        store: where the leaves stay.
        process: names one start of one gateway process, such as `gw1@` and a UUIDv7; never used again.
    """

    def __init__(self, store: EntryStore, *, process: str) -> None:
        self._store = store
        self._process = process

    def open(self, database: Database) -> None:
        """Let the process count; once, before the first entry.

        Raises:
            ConflictError: ALREADY_EXISTS, another start counts under this name: give each start a new one.
            UnavailableError: the store does not answer.
        """
        with database.begin() as work:
            self._store.open_lines(work, self._process)

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        """Number the entries, store them within *work*, and give their leaf hashes, in order.

        `gateway` and `counter` of the entries are overwritten; everything else stands as given.

        Args:
            work: the act's own.
            entries: what is told of it.
            last: nothing else is done in *work*. They then go with its commit, one way to the database less, and
                leaving the work raises what this would.

        Raises:
            InvalidError: REQUEST_INVALID, an entry has no canonical form or its leaf is longer than 65,535 bytes.
            ConflictError: ALREADY_EXISTS, an entry of this id is there.
            CorruptError: LOG_CORRUPT, somebody else has moved the process's counting line.
            UnavailableError: the store does not answer; nothing may be released.
        """
        if not entries:
            return []

        def numbered(line: str, first: int) -> list[NewLeaf]:
            return [_leaf(replace(entry, gateway=line, counter=first + k)) for k, entry in enumerate(entries)]

        return [leaf.leaf_hash for leaf in self._store.add(work, self._process, numbered, last=last)]


def _leaf(entry: AuditEntry) -> NewLeaf:
    leaf = to_leaf(entry)
    return NewLeaf(entry=entry, leaf=leaf, leaf_hash=leaf_hash(leaf))

"""Collector of figures: a consumer of the signed log that goes on from its stored position (checkpointing).

    read       the entries behind the position, as far as a checkpoint covers them, each compared with the log's tiles
    fold       into facts and events, with what earlier entries said of the same grants and resources
    store      facts, events and the new position in one transaction: each entry counts exactly once

It runs where the log is signed. Nothing waits for it: a figure says how many entries of the log it is of.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from exchange.audit.store import CheckpointRow, PlacedLeaf
from exchange.kpi.facts import LogFold, names_in
from exchange.kpi.store import KpiStore, Progress
from registry.database.unit_of_work import Database
from schemas.audit import read_leaf
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.merkle import leaf_hash

__all__ = ["Collector", "PlacedLog"]

_BATCH = 500  # entries of one transaction


class PlacedLog(Protocol):
    """The log, as far as its entries have indexes."""

    def placed(self, start: int, end: int | None = None) -> AbstractContextManager[Iterator[PlacedLeaf]]:
        """Stream placed leaves from an index on, in order."""
        ...

    def latest_checkpoint(self) -> CheckpointRow | None:
        """Return the checkpoint of the largest size."""
        ...


class Collector:
    """Reads the log into the store, batch by batch.

    Args:
        database: opens transactions.
        log: the entries.
        store: takes the figures.
        signed_hash: returns the leaf hash of an index in the log's files of a size; None where they lack it.
    """

    def __init__(
        self,
        *,
        database: Database,
        log: PlacedLog,
        store: KpiStore,
        signed_hash: Callable[[int, int], bytes | None],
    ) -> None:
        self._database = database
        self._log = log
        self._store = store
        self._signed_hash = signed_hash

    def step(self) -> int:
        """Take the next entries; return their number, 0 where there are none or others were faster.

        Raises:
            CorruptError: LOG_CORRUPT, an entry is missing, or not the one that was signed.
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        checkpoint = self._log.latest_checkpoint()
        with self._database.read() as reader:
            before = self._store.progress(reader)
        size = 0 if checkpoint is None else checkpoint.size
        if size <= before.entries:
            return 0
        end = min(size, before.entries + _BATCH)
        entries = [*self._entries(before.entries, end, size)]
        grants, resources = names_in(entries)
        with self._database.read() as reader:
            fold = LogFold(self._store.known(reader, grants, resources))
        newest = before.newest
        for position, entry in enumerate(entries, start=before.entries):
            newest = max(newest, entry["at"])
            fold.take(position, entry)
        with self._database.begin() as work:
            # What was known was read before: it is stored only where nobody else has moved the position since.
            stored = self._store.put(work, before, Progress(end, newest), fold)
        return len(entries) if stored else 0

    def _entries(self, start: int, end: int, size: int) -> "Iterator[dict[str, Any]]":
        expected = start
        with self._log.placed(start, end) as leaves:
            for one in leaves:
                signed = self._signed_hash(one.index, size)
                if one.index != expected or leaf_hash(one.leaf) != one.leaf_hash or signed not in {None, one.leaf_hash}:
                    raise _not_signed(expected)
                expected += 1
                try:
                    yield read_leaf(one.leaf)
                except InvalidError as error:
                    raise _not_signed(one.index) from error
        if expected != end:
            raise _not_signed(expected)


def _not_signed(index: int) -> CorruptError:
    return CorruptError(
        Reason.LOG_CORRUPT,
        f"the stored entry {index} is not the one that was signed, or is missing; figures stay as they were before it, "
        "run `pool audit verify --database`",
    )

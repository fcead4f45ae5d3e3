"""Group store: what several releases of one transaction read and write, one statement for all of them (group commit).

A release alone uses `exchange.access.grants.store`. The invariants are the same; two things differ, so that one grant
does not hold up, or fail, the releases of the others:

* `lock` leaves out a grant that another transaction is changing at this moment, instead of waiting for it. It leaves
  out an unknown and a forged one, too: the fetch of each alone says why.
* `add_released` and `replace_positions` return for which grants they did it; the others are as they were.

Rows are locked in the order of the grants' ids, so that two groups never wait for each other; a group waits for a lock
for a quarter of a second at most, and its members are then fetched one by one.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from typing_extensions import override

from exchange.access.grants.store import AccessStore, GrantPosition
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.access import Grant
from schemas.errors import PoolError, RefusedError

__all__ = ["Count", "GroupStore", "MemoryGroupStore", "PositionChange"]


@dataclass(frozen=True, slots=True)
class Count:
    """Records to be added to a grant's count of the day, and the most that it may reach; None = no limit."""

    records: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class PositionChange:
    """Positions as `GroupStore.lock_positions` returned them, None for none, and those to store in their place."""

    stored: GrantPosition | None
    new: GrantPosition


class GroupStore(Protocol):
    """Reads and writes of the releases of one group; all grants of a call are different ones."""

    def get(self, reader: Reader, grant_ids: Collection[str]) -> Mapping[str, Grant]:
        """Return the current versions, without a lock; those that are unknown or forged are left out."""
        ...

    def lock(self, work: UnitOfWork, grant_ids: Collection[str]) -> Mapping[str, Grant]:
        """Return the current versions under shared locks; those being changed, unknown or forged are left out."""
        ...

    def released(self, reader: Reader, grant_ids: Collection[str], day: date) -> Mapping[str, int]:
        """Return how many records were released on a day under each grant; one without any is left out."""
        ...

    def add_released(self, work: UnitOfWork, counts: Mapping[str, Count], day: date) -> Collection[str]:
        """Add to the day's counts, each within its limit; return the grants to whose count was added."""
        ...

    def lock_positions(self, work: UnitOfWork, grant_ids: Collection[str]) -> Mapping[str, GrantPosition]:
        """Return the stored positions, which nobody else changes until the transaction ends.

        A grant without any is left out, and not locked.
        """
        ...

    def replace_positions(self, work: UnitOfWork, changes: Mapping[str, PositionChange]) -> Collection[str]:
        """Replace positions that are locked, or add the first ones; return the grants whose positions were stored.

        The others got their first ones from another transaction meanwhile.
        """
        ...


class MemoryGroupStore(GroupStore):
    """In-memory adapter: one grant after the other, in the store of single releases."""

    def __init__(self, store: AccessStore) -> None:
        self._store = store

    @override
    def get(self, reader: Reader, grant_ids: Collection[str]) -> Mapping[str, Grant]:
        found = {}
        for grant_id in grant_ids:
            with suppress(PoolError):
                found[grant_id] = self._store.get(reader, grant_id)
        return found

    @override
    def lock(self, work: UnitOfWork, grant_ids: Collection[str]) -> Mapping[str, Grant]:
        return self.get(work, grant_ids)

    @override
    def released(self, reader: Reader, grant_ids: Collection[str], day: date) -> Mapping[str, int]:
        counts = {grant_id: self._store.released(reader, grant_id, day) for grant_id in grant_ids}
        return {grant_id: count for grant_id, count in counts.items() if count}

    @override
    def add_released(self, work: UnitOfWork, counts: Mapping[str, Count], day: date) -> Collection[str]:
        added = []
        for grant_id, count in counts.items():
            with suppress(RefusedError):
                self._store.add_released(work, grant_id, day, count.records, count.limit)
                added.append(grant_id)
        return added

    @override
    def lock_positions(self, work: UnitOfWork, grant_ids: Collection[str]) -> Mapping[str, GrantPosition]:
        found = {grant_id: self._store.position(work, grant_id) for grant_id in grant_ids}
        return {grant_id: position for grant_id, position in found.items() if position != GrantPosition()}

    @override
    def replace_positions(self, work: UnitOfWork, changes: Mapping[str, PositionChange]) -> Collection[str]:
        for grant_id, change in changes.items():
            self._store.replace_position(work, grant_id, expected=change.stored or GrantPosition(), new=change.new)
        return list(changes)

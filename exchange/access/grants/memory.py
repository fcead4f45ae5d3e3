"""In-memory adapter of the grant store, for rules and for speed; `exchange.access.grants.store` says what it keeps."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import islice
from typing import TypeVar

from typing_extensions import override

from exchange.access.decision.purposes import SEED, Purpose
from exchange.access.grants.grant_json import from_text, grant_hash, to_text
from exchange.access.grants.row_mac import MacedRow, RowMac
from exchange.access.grants.store import (
    AccessStore,
    DeliveredRun,
    GrantOrder,
    GrantPosition,
    GrantQuery,
    GrantVersion,
    cursor_behind,
    newest_proven,
    position_moved,
    quota_exhausted,
    unknown_grant,
    version_conflict,
)
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import MemoryUnitOfWork, Reader, UnitOfWork
from schemas.access import Grant, GrantState
from schemas.errors import CorruptError
from schemas.names import ResourceName

__all__ = ["MemoryAccessStore"]

_ACTIVE = frozenset({GrantState.ACTIVE})
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass
class _Tables:
    versions: dict[str, list[tuple[MacedRow, str, datetime]]] = field(default_factory=dict)
    quotas: dict[tuple[str, date], int] = field(default_factory=dict)
    positions: dict[str, GrantPosition] = field(default_factory=dict)
    delivered: dict[tuple[str, int], tuple[DeliveredRun, ...]] = field(default_factory=dict)
    purposes: dict[str, Purpose] = field(default_factory=dict)


class MemoryAccessStore(AccessStore):
    """In-memory adapter. `MemoryDatabase` runs one transaction at a time, so a lock is a look-up."""

    def __init__(self, row_mac: RowMac) -> None:
        self._row_mac = row_mac
        self._tables = _Tables()

    @override
    def put(self, work: UnitOfWork, grant: Grant, *, entry_id: str, at: datetime) -> GrantVersion:
        history = self._tables.versions.get(grant.id, [])
        if grant.version != len(history) + 1:
            raise version_conflict(grant, len(history))
        row = self._row_mac.protect(grant.id, to_text(grant))
        self._set(work, self._tables.versions, grant.id, [*history, (row, entry_id, at)])
        return GrantVersion(grant=grant, hash=grant_hash(grant), entry_id=entry_id, recorded_at=at)

    @override
    def get(self, reader: Reader, grant_id: str) -> Grant:
        del reader
        history = self._tables.versions.get(grant_id)
        if not history:
            raise unknown_grant()
        return self._row_mac.verify(grant_id, history[-1][0])

    @override
    def lock_shared(self, work: UnitOfWork, grant_id: str) -> Grant:
        return self.get(work, grant_id)

    @override
    def lock_for_update(self, work: UnitOfWork, grant_id: str) -> Grant:
        return self.get(work, grant_id)

    @override
    def last_proven(self, reader: Reader, grant_id: str) -> Grant:
        del reader
        return newest_proven(self._row_mac, grant_id, (row for row, _, _ in self._tables.versions[grant_id]))

    @override
    def lock_to_end(self, work: UnitOfWork, grant_id: str) -> tuple[Grant, bool]:
        try:
            return self.get(work, grant_id), False
        except CorruptError:
            return self.last_proven(work, grant_id), True

    @override
    def put_over_damaged(self, work: UnitOfWork, grant: Grant, *, entry_id: str, at: datetime) -> GrantVersion:
        history = self._tables.versions[grant.id]
        grant = replace(grant, version=len(history) + 1)
        return self.put(work, grant, entry_id=entry_id, at=at)

    @override
    def lock_holding(self, work: UnitOfWork, consumer: str, resource: ResourceName) -> None:
        del work, consumer, resource

    @override
    def versions(self, reader: Reader, grant_id: str) -> Sequence[GrantVersion]:
        del reader
        return [
            GrantVersion(grant=self._row_mac.verify(grant_id, row), hash=row.hash, entry_id=entry, recorded_at=at)
            for row, entry, at in self._tables.versions.get(grant_id, [])
        ]

    @override
    def list(self, reader: Reader, query: GrantQuery) -> Sequence[Grant]:
        grants = (self.get(reader, grant_id) for grant_id in sorted(self._tables.versions) if grant_id > query.after)
        return [grant for grant in grants if _matches(query, grant)][: query.limit]

    @override
    def page(self, reader: Reader, query: GrantQuery) -> Sequence[Grant | DamagedRow]:
        every = [self.get(reader, grant_id) for grant_id in sorted(self._tables.versions)]
        keyed = [(_place(query.order, one), one) for one in every if _matches(query, one)]
        keyed.sort(key=lambda pair: pair[0], reverse=query.order is GrantOrder.NEWEST)
        if query.after:
            behind = [place for place, _ in keyed].index(query.after) + 1
            keyed = keyed[behind:]
        return [one for _, one in keyed][: query.limit]

    @override
    def versions_page(
        self, reader: Reader, grant_id: str, *, after: int, limit: int
    ) -> Sequence[GrantVersion | DamagedRow]:
        return self.versions(reader, grant_id)[after : after + limit]

    @override
    def released_days(self, reader: Reader, grant_id: str, *, limit: int) -> Sequence[tuple[date, int]]:
        del reader
        days = [(day, count) for (one, day), count in self._tables.quotas.items() if one == grant_id]
        return sorted(days, reverse=True)[:limit]

    @override
    def count(self, reader: Reader, consumer: str, states: Collection[GrantState], most: int) -> int:
        del reader
        return len(self._ids(GrantQuery(consumer=consumer, states=frozenset(states), limit=most)))

    @override
    def state_counts(self, reader: Reader, *, party: str | None, most: int) -> dict[GrantState, int]:
        del reader
        counted = {
            state: len(self._ids(GrantQuery(party=party, states=frozenset({state}), limit=most)))
            for state in GrantState
        }
        return {state: count for state, count in counted.items() if count}

    @override
    def overdue(self, reader: Reader, now: datetime, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        del reader
        return self._ids(GrantQuery(states=_ACTIVE, expires_before=now, after=after, limit=limit))

    @override
    def active(self, reader: Reader, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        del reader
        return self._ids(GrantQuery(states=_ACTIVE, after=after, limit=limit))

    def _ids(self, query: GrantQuery) -> Sequence[str]:
        latest = ((grant_id, history[-1][0]) for grant_id, history in sorted(self._tables.versions.items()))
        found = (
            grant_id for grant_id, row in latest if grant_id > query.after and _matches(query, from_text(row.text))
        )
        return list(islice(found, query.limit))

    @override
    def released(self, reader: Reader, grant_id: str, day: date) -> int:
        del reader
        return self._tables.quotas.get((grant_id, day), 0)

    @override
    def add_released(self, work: UnitOfWork, grant_id: str, day: date, count: int, limit: int | None) -> int:
        total = self.released(work, grant_id, day) + count
        if limit is not None and total > limit:
            raise quota_exhausted(limit)
        self._set(work, self._tables.quotas, (grant_id, day), total)
        return total

    @override
    def position(self, reader: Reader, grant_id: str) -> GrantPosition:
        del reader
        return self._tables.positions.get(grant_id, GrantPosition())

    @override
    def replace_position(self, work: UnitOfWork, grant_id: str, *, expected: GrantPosition, new: GrantPosition) -> None:
        if self.position(work, grant_id) != expected:
            raise position_moved()
        self._set(work, self._tables.positions, grant_id, new)

    @override
    def delivered_runs(self, reader: Reader, grant_id: str, generation: int, after: int) -> Sequence[DeliveredRun]:
        del reader
        return [run for run in self._tables.delivered.get((grant_id, generation), ()) if run.last > after]

    @override
    def replace_delivered_runs(self, work: UnitOfWork, grant_id: str, generation: int, run: DeliveredRun) -> None:
        stored = self._tables.delivered.get((grant_id, generation), ())
        kept = [one for one in stored if one.last < run.first]
        self._set(work, self._tables.delivered, (grant_id, generation), (*kept, run))

    @override
    def seed_purposes(self, work: UnitOfWork, purposes: Iterable[Purpose] = SEED) -> None:
        for purpose in purposes:
            if purpose.id not in self._tables.purposes:
                self._set(work, self._tables.purposes, purpose.id, purpose)

    @override
    def purposes(self, reader: Reader) -> Sequence[Purpose]:
        del reader
        return [self._tables.purposes[purpose_id] for purpose_id in sorted(self._tables.purposes)]

    @override
    def listed_purposes(self, reader: Reader) -> Sequence[Purpose | DamagedRow]:
        return self.purposes(reader)

    @staticmethod
    def _set(work: UnitOfWork, table: dict[_K, _V], key: _K, value: _V) -> None:
        before = table.get(key)
        table[key] = value
        if isinstance(work, MemoryUnitOfWork):
            work.on_rollback(lambda: _restore(table, key, before))


def _restore(table: dict[_K, _V], key: _K, before: _V | None) -> None:
    if before is None:
        del table[key]
    else:
        table[key] = before


def _place(order: GrantOrder, grant: Grant) -> str:
    return cursor_behind(order, grant.expires, grant.id)


def _matches(query: GrantQuery, grant: Grant) -> bool:
    return (
        query.consumer in {None, grant.consumer}
        and query.provider in {None, grant.provider}
        and query.party in {None, grant.consumer, grant.provider}
        and query.topic in {None, grant.topic}
        and query.resource in {None, grant.topic.name}
        and (query.states is None or grant.state in query.states)
        and (query.expires_from is None or grant.expires >= query.expires_from)
        and (query.expires_before is None or grant.expires < query.expires_before)
    )

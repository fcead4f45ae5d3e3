"""Grant store: port for grants, quotas, consumers' positions and purposes; `memory` and `postgres` are its adapters.

Invariants of every adapter:

* **Versions are immutable.** `put` adds version n + 1 and makes it the current one (optimistic concurrency: a caller
  that read another version than the current one gets a conflict). Earlier versions remain readable.
* **No release follows a revocation.** `lock_shared` locks the current version until the transaction ends. Releases
  share the lock; a change of the grant (`lock_for_update`) waits for them, and they for it.
* **A forged row is refused.** Each version has the hash of its text and a MAC over the hash
  (`exchange.access.grants.row_mac`). Text, hash or MAC changed in the database, or one grant's row copied over that of
  another: `CorruptError`. That the current version is the newest one, only the audit log can prove; `entry_id` leads to
  its leaf.
* **A quota is never exceeded**, not by parallel releases either: the counter is increased in the transaction of the
  entry, and only within the limit.
* **One decision at a time on what a department holds.** `lock_holding` makes approvals of one consumer's grants on one
  resource follow each other, so that each sees what the others brought about.
* **Positions are replaced by compare-and-set**: of two consumers of one grant that read the same position, one gets a
  conflict.

The stores never begin or commit: a write joins the `UnitOfWork` that it is given, a read takes any `Reader`.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import Protocol

from exchange.access.decision.purposes import SEED, Purpose
from exchange.access.grants.row_mac import MacedRow, RowMac, forged_grant
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.access import Grant, GrantState
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, RefusedError
from schemas.names import ResourceName, Topic

__all__ = [
    "AccessStore",
    "DeliveredRun",
    "GrantOrder",
    "GrantPosition",
    "GrantQuery",
    "GrantVersion",
    "cursor_behind",
    "newest_proven",
    "position_moved",
    "quota_day",
    "quota_exhausted",
    "unknown_grant",
    "version_conflict",
]


# China has kept one offset without daylight saving time since 1991; a fixed one needs no time zone database.
_SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")


def quota_day(moment: datetime) -> date:
    """Return the day of Asia/Shanghai on which a release counts.

    Raises:
        InvalidError: REQUEST_INVALID, for a time without an offset from UTC.
    """
    if moment.utcoffset() is None:
        raise InvalidError(Reason.REQUEST_INVALID, "got a time without an offset from UTC; times are aware")
    return moment.astimezone(_SHANGHAI).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantVersion:
    """One version as stored.

    Attributes:
        grant: the version.
        hash: SHA-256 of its canonical text, 32 bytes; it is in the entry's leaf.
        entry_id: the audit entry of the event that made it.
        recorded_at: when it was stored, aware.
    """

    grant: Grant
    hash: bytes
    entry_id: str
    recorded_at: datetime


class GrantOrder(StrEnum):
    """Order of a list of grants."""

    ID = "id"  # of creation: ids are UUIDv7
    NEWEST = "newest"
    EXPIRES = "expires"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantQuery:
    """Which grants to list; None does not limit.

    Attributes:
        consumer: department that has or asks for it.
        provider: department that provides.
        party: either of the two.
        topic: resource and major.
        resource: in any major.
        states: any of these.
        expires_from: aware; inclusive.
        expires_before: aware; exclusive.
        order: of a `page`; every other list is in the order of ids.
        after: cursor behind which the page begins; in the order of ids, an id.
        limit: at most so many.
    """

    consumer: str | None = None
    provider: str | None = None
    party: str | None = None
    topic: Topic | None = None
    resource: ResourceName | None = None
    states: frozenset[GrantState] | None = None
    expires_from: datetime | None = None
    expires_before: datetime | None = None
    order: GrantOrder = GrantOrder.ID
    after: str = ""
    limit: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPosition:
    """Stored positions of a grant's consumer; empty bytes = none yet.

    Attributes:
        committed: the position that it has acknowledged, an opaque token.
        released: the position up to which records were released; those before it are released `again`.
        tracked: the position below which `delivered_runs` says what was delivered, and the generation it is of.
        runs: releases whose delivered keys were stored.
    """

    committed: bytes = b""
    released: bytes = b""
    tracked: bytes = b""
    runs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredRun:
    """Keys that a grant's releases *first* to *last* delivered or withdrew: one release, or several merged.

    `events` is opaque here (`exchange.records.reading.delivered_keys`).
    """

    first: int
    last: int
    events: bytes


class AccessStore(Protocol):
    """Store of grants, quotas, positions and purposes."""

    def put(self, work: UnitOfWork, grant: Grant, *, entry_id: str, at: datetime) -> GrantVersion:
        """Add a version and make it the current one.

        Raises:
            ConflictError: VERSION_CONFLICT, unless it is the current version's successor (or 1, for a new grant).
        """
        ...

    def get(self, reader: Reader, grant_id: str) -> Grant:
        """Return the current version, without a lock.

        Raises:
            InvalidError: GRANT_UNKNOWN.
            CorruptError: GRANT_FORGED.
        """
        ...

    def lock_shared(self, work: UnitOfWork, grant_id: str) -> Grant:
        """Return the current version under a shared lock: it remains current until the transaction ends.

        Raises:
            InvalidError: GRANT_UNKNOWN.
            CorruptError: GRANT_FORGED.
        """
        ...

    def lock_for_update(self, work: UnitOfWork, grant_id: str) -> Grant:
        """Return the current version under an exclusive lock, which is held until the transaction ends.

        Raises:
            InvalidError: GRANT_UNKNOWN.
            CorruptError: GRANT_FORGED.
        """
        ...

    def last_proven(self, reader: Reader, grant_id: str) -> Grant:
        """Return the newest version that the pool wrote, where the current row is damaged.

        Raises:
            CorruptError: GRANT_FORGED, the pool wrote none.
        """
        ...

    def lock_to_end(self, work: UnitOfWork, grant_id: str) -> tuple[Grant, bool]:
        """Return the version from which a grant can be ended, under an exclusive lock; and whether its row is damaged.

        It is the current version. Where the pool did not write that one, it is the newest version that it wrote: who
        has edited the row of a grant must not keep others from ending it.

        Raises:
            InvalidError: GRANT_UNKNOWN.
            CorruptError: GRANT_FORGED, the pool wrote none of its versions: there is nothing to end.
        """
        ...

    def put_over_damaged(self, work: UnitOfWork, grant: Grant, *, entry_id: str, at: datetime) -> GrantVersion:
        """Add a version in place of a damaged current one, with the next number that no stored version has."""
        ...

    def lock_holding(self, work: UnitOfWork, consumer: str, resource: ResourceName) -> None:
        """Lock what a department holds of a resource, until the transaction ends; before any grant is locked."""
        ...

    def versions(self, reader: Reader, grant_id: str) -> Sequence[GrantVersion]:
        """Return every version, oldest first; none for an unknown grant.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        ...

    def list(self, reader: Reader, query: GrantQuery) -> Sequence[Grant]:
        """Return current versions in the order of their ids.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        ...

    def page(self, reader: Reader, query: GrantQuery) -> Sequence[Grant | DamagedRow]:
        """Return current versions in the order of the query, for a list: a row that the pool did not write is named.

        Raises:
            InvalidError: REQUEST_INVALID, for a cursor of another order.
        """
        ...

    def versions_page(
        self, reader: Reader, grant_id: str, *, after: int, limit: int
    ) -> Sequence[GrantVersion | DamagedRow]:
        """Return versions after a number, oldest first, for a list: a row that the pool did not write is named."""
        ...

    def released_days(self, reader: Reader, grant_id: str, *, limit: int) -> Sequence[tuple[date, int]]:
        """Return the newest days on which records were released under a grant, and how many, newest first."""
        ...

    def count(self, reader: Reader, consumer: str, states: Collection[GrantState], most: int) -> int:
        """Return how many grants of a consumer are in any of these states, counted up to *most*."""
        ...

    def state_counts(self, reader: Reader, *, party: str | None, most: int) -> dict[GrantState, int]:
        """Return how many grants are in each state that has some, of all or of a department, each up to *most*."""
        ...

    def overdue(self, reader: Reader, now: datetime, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        """Return the ids of active grants whose time is over at *now*, in their order, at most so many after *after*.

        No row is verified: a forged one may be among them, and does not hide the others.
        """
        ...

    def active(self, reader: Reader, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        """Return the ids of active grants in their order, at most so many after *after*; no row is verified."""
        ...

    def released(self, reader: Reader, grant_id: str, day: date) -> int:
        """Return how many records were released under the grant on a day (`quota_day`)."""
        ...

    def add_released(self, work: UnitOfWork, grant_id: str, day: date, count: int, limit: int | None) -> int:
        """Add to the day's count and return the new total.

        Raises:
            RefusedError: QUOTA_EXHAUSTED, when the total would pass *limit*; nothing is added.
        """
        ...

    def position(self, reader: Reader, grant_id: str) -> GrantPosition:
        """Return the stored positions; empty ones before the first release."""
        ...

    def replace_position(self, work: UnitOfWork, grant_id: str, *, expected: GrantPosition, new: GrantPosition) -> None:
        """Replace the positions, if they are still the *expected* ones (compare-and-set).

        Raises:
            ConflictError: VERSION_CONFLICT, when they are not.
        """
        ...

    def delivered_runs(self, reader: Reader, grant_id: str, generation: int, after: int) -> Sequence[DeliveredRun]:
        """Return the runs of a generation of the grant's topic whose last release is later than *after*, in order."""
        ...

    def replace_delivered_runs(self, work: UnitOfWork, grant_id: str, generation: int, run: DeliveredRun) -> None:
        """Store a run in place of those that it was merged from: all from its first release on."""
        ...

    def seed_purposes(self, work: UnitOfWork, purposes: Iterable[Purpose] = SEED) -> None:
        """Add the purposes that do not exist yet; the others are not changed."""
        ...

    def purposes(self, reader: Reader) -> Sequence[Purpose]:
        """Return all purposes, retired ones too, in the order of their ids."""
        ...

    def listed_purposes(self, reader: Reader) -> Sequence[Purpose | DamagedRow]:
        """Return all purposes as `purposes` does, for a list: a row that the pool did not write is named."""
        ...


def cursor_behind(order: GrantOrder, expires: datetime, grant_id: str) -> str:
    """Return the cursor behind a grant: its id, in the order of ends also its end."""
    if order is not GrantOrder.EXPIRES:
        return grant_id
    end = expires.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f"{end}/{grant_id}"


def newest_proven(row_mac: RowMac, grant_id: str, rows: Iterable[MacedRow]) -> Grant:
    """Return the newest version of a grant among the rows that the pool wrote.

    Raises:
        CorruptError: GRANT_FORGED, it wrote none of them.
    """
    proven = []
    for row in rows:
        with suppress(CorruptError):
            proven.append(row_mac.verify(grant_id, row))
    if not proven:
        raise forged_grant(grant_id)
    return max(proven, key=lambda grant: grant.version)


def version_conflict(grant: Grant, current: int) -> ConflictError:
    """Return the error of a version that does not follow the current one (0 = there is none)."""
    return ConflictError(
        Reason.VERSION_CONFLICT,
        f"got version {grant.version} of a grant whose current one is {current}; read it again and repeat the change",
    )


def unknown_grant() -> InvalidError:
    """Return the error of a grant that does not exist."""
    return InvalidError(Reason.GRANT_UNKNOWN, "no such grant; ask for the list of your grants")


def quota_exhausted(limit: int) -> RefusedError:
    """Return the error of a release that the day's quota does not allow."""
    return RefusedError(
        Reason.QUOTA_EXHAUSTED,
        f"the release would exceed the day's {limit} records; ask for fewer, or continue after 00:00 UTC+8",
    )


def position_moved() -> ConflictError:
    """Return the error of a position that another consumer has moved."""
    return ConflictError(
        Reason.VERSION_CONFLICT, "another consumer of this grant has moved its position; read the position again"
    )

"""PostgreSQL adapter of the grant store: grants, quotas, positions and purposes.

`access_grant` has the current version of each grant, in one row that releases lock FOR SHARE and changes FOR UPDATE;
`access_grant_version` has every version and is only ever inserted into. The current text is in both tables: a release
then needs one row of one table, and PostgreSQL, having waited for the lock, returns that row as it is after the wait (a
join would return the other table's row as it was before).

Columns beside the text (consumer, state, …) only serve to find rows. What a grant says is read from its text alone,
which the MAC protects.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from itertools import count as numbers_from
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from typing_extensions import override

from exchange.access.decision.purposes import SEED, Purpose
from exchange.access.grants.grant_json import to_text
from exchange.access.grants.page_postgres import select_counts, select_page
from exchange.access.grants.row_mac import MacedRow, RowMac
from exchange.access.grants.store import (
    AccessStore,
    DeliveredRun,
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
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, derived, proven, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.access import Grant, GrantState
from schemas.errors import CorruptError
from schemas.names import ResourceName

__all__ = ["PostgresAccessStore", "metadata"]

metadata = sa.MetaData()
_ID = sa.Text(collation="C")  # ordered by code point, as everywhere else
_DIGEST = sa.LargeBinary(32)
_MOMENT = sa.DateTime(timezone=True)

_grant = sa.Table(
    "access_grant",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("hash", _DIGEST, nullable=False),
    sa.Column("seal", _DIGEST, nullable=False),
    sa.Column("consumer", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("expires", _MOMENT, nullable=False),
    sa.Index("access_grant_consumer", "consumer", "id"),
    sa.Index("access_grant_provider", "provider", "id"),
    sa.Index("access_grant_topic", "topic", "id"),
    sa.Index("access_grant_state_expires", "state", "expires"),
    sa.Index("access_grant_state", "state", "id"),
    sa.Index("access_grant_expires", "expires", "id"),
    sa.Index("access_grant_consumer_expires", "consumer", "expires", "id"),
    sa.Index("access_grant_provider_expires", "provider", "expires", "id"),
    sa.Index("access_grant_consumer_state", "consumer", "state"),
    sa.Index("access_grant_provider_state", "provider", "state"),
    sa.Index("access_grant_resource", "topic", "id", postgresql_ops={"topic": "text_pattern_ops"}),
    info=proven("a MAC of its own, the seal; its version and hash are in the entry of the act that made it"),
)
_version = sa.Table(
    "access_grant_version",
    metadata,
    sa.Column("grant_id", _ID, sa.ForeignKey("access_grant.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("hash", _DIGEST, nullable=False),
    sa.Column("seal", _DIGEST, nullable=False),
    sa.Column("entry_id", sa.Text, nullable=False),
    sa.Column("recorded_at", _MOMENT, nullable=False),
    info=proven("a MAC of its own, the seal; its version and hash are in the entry of the act that made it"),
)
_quota = sa.Table(
    "access_quota",
    metadata,
    sa.Column("grant_id", _ID, sa.ForeignKey("access_grant.id"), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("released", sa.BigInteger, nullable=False),
    info=derived(
        "sums of the counts in the entries of releases; a lower one lets a consumer draw more of what it was granted, "
        "and verification finds it (quota.lowered)"
    ),
)
_position = sa.Table(
    "access_position",
    metadata,
    sa.Column("grant_id", _ID, sa.ForeignKey("access_grant.id"), primary_key=True),
    sa.Column("committed", sa.LargeBinary, nullable=False),
    sa.Column("released", sa.LargeBinary, nullable=False),
    sa.Column("tracked", sa.LargeBinary, nullable=False, server_default="", comment="generation and offsets"),
    sa.Column("runs", sa.BigInteger, nullable=False, server_default="0", comment="the last one of access_delivered"),
    info=derived(
        "the ranges of releases are in their entries, and verification finds one that is missing (fetch.gap); one that "
        "is moved back repeats what was delivered"
    ),
)
_delivered = sa.Table(
    "access_delivered",
    metadata,
    sa.Column("grant_id", _ID, sa.ForeignKey("access_grant.id"), primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, primary_key=True, autoincrement=False, comment="number of a release"),
    sa.Column("first", sa.BigInteger, nullable=False, comment="less than `last` where several were merged"),
    sa.Column("events", sa.LargeBinary, nullable=False, comment="24 bytes each: keys, offsets, delivered or withdrawn"),
    info=derived("the deliveries are in the entries; a row that is changed withdraws too many keys, or too few"),
)
# Pseudonyms do not compress.
_PLAIN = sa.DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy's own signature lacks types
    "ALTER TABLE access_delivered ALTER COLUMN events SET STORAGE EXTERNAL"
)
sa.event.listen(_delivered, "after_create", _PLAIN)
_purpose = sa.Table(
    "access_purpose",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("parent", _ID, sa.ForeignKey("access_purpose.id")),
    sa.Column("zh", sa.Text, nullable=False),
    sa.Column("en", sa.Text, nullable=False),
    sa.Column("dpv", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    *tag_columns(),
    info=tagged("access"),
)

# On the fetch path, but for FOR UPDATE, which is for changes of a grant.
_LOCK_SHARED = sa.text("SELECT text, hash, seal FROM access_grant WHERE id = :id FOR SHARE")
_LOCK_FOR_UPDATE = sa.text("SELECT text, hash, seal FROM access_grant WHERE id = :id FOR UPDATE")
_LOCK_HOLDING = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:holding, 0))")
_ADD_RELEASED = sa.text(
    """
    INSERT INTO access_quota AS q (grant_id, day, released)
    SELECT :id, :day, :count WHERE CAST(:limit AS bigint) IS NULL OR :count <= :limit
    ON CONFLICT (grant_id, day) DO UPDATE SET released = q.released + :count
    WHERE CAST(:limit AS bigint) IS NULL OR q.released + :count <= :limit
    RETURNING released
    """
)
_REPLACE_POSITION = sa.text(
    """
    UPDATE access_position SET committed = :committed, released = :released, tracked = :tracked, runs = :runs
    WHERE grant_id = :id AND committed = :expected_committed AND released = :expected_released
        AND tracked = :expected_tracked AND runs = :expected_runs
    """
)
_DELIVERED_RUNS = sa.text(
    """
    SELECT first, last, events FROM access_delivered
    WHERE grant_id = :id AND generation = :generation AND last > :after ORDER BY last
    """
)
_DELETE_DELIVERED = sa.text(
    "DELETE FROM access_delivered WHERE grant_id = :id AND generation = :generation AND last >= :first"
)
_ADD_DELIVERED = sa.text(
    "INSERT INTO access_delivered (grant_id, generation, last, first, events) "
    "VALUES (:id, :generation, :last, :first, :events)"
)


def stored_quotas(connection: sa.Connection) -> Iterator[tuple[str, date, int]]:
    """Yield the counts of all days: grant, day, records released."""
    for row in connection.execute(sa.select(_quota)):
        yield row.grant_id, row.day, row.released


class PostgresAccessStore(AccessStore):
    """PostgreSQL adapter. Every call runs on the connection of the reader or unit of work that it is given.

    Args:
        row_mac: protects the rows of grants.
        tags: makes and checks the tags of the other rows.
    """

    def __init__(self, row_mac: RowMac, tags: RowTags) -> None:
        self._row_mac = row_mac
        self._tags = tags

    @override
    def put(self, work: UnitOfWork, grant: Grant, *, entry_id: str, at: datetime) -> GrantVersion:
        connection = connection_of(work)
        row = self._row_mac.protect(grant.id, to_text(grant))
        current = _columns(grant, row)
        if grant.version == 1:
            statement: sa.Executable = pg.insert(_grant).values(id=grant.id, **current).on_conflict_do_nothing()
        else:
            statement = (
                sa.update(_grant).where(_grant.c.id == grant.id, _grant.c.version == grant.version - 1).values(current)
            )
        if connection.execute(statement).rowcount != 1:
            current_version = connection.scalar(sa.select(_grant.c.version).where(_grant.c.id == grant.id))
            raise version_conflict(grant, current_version or 0)
        return _add_version(work, grant, row, entry_id, at)

    @override
    def put_over_damaged(self, work: UnitOfWork, grant: Grant, *, entry_id: str, at: datetime) -> GrantVersion:
        connection = connection_of(work)
        taken = set(connection.execute(sa.select(_version.c.version).where(_version.c.grant_id == grant.id)).scalars())
        free = next(number for number in numbers_from(grant.version) if number not in taken)
        grant = replace(grant, version=free)
        row = self._row_mac.protect(grant.id, to_text(grant))
        connection.execute(sa.update(_grant).where(_grant.c.id == grant.id).values(_columns(grant, row)))
        return _add_version(work, grant, row, entry_id, at)

    @override
    def get(self, reader: Reader, grant_id: str) -> Grant:
        return self._verify(
            grant_id,
            connection_of(reader)
            .execute(sa.select(_grant.c.text, _grant.c.hash, _grant.c.seal).where(_grant.c.id == grant_id))
            .one_or_none(),
        )

    @override
    def lock_shared(self, work: UnitOfWork, grant_id: str) -> Grant:
        return self._verify(grant_id, connection_of(work).execute(_LOCK_SHARED, {"id": grant_id}).one_or_none())

    @override
    def lock_for_update(self, work: UnitOfWork, grant_id: str) -> Grant:
        return self._verify(grant_id, connection_of(work).execute(_LOCK_FOR_UPDATE, {"id": grant_id}).one_or_none())

    @override
    def last_proven(self, reader: Reader, grant_id: str) -> Grant:
        columns = (_version.c.text, _version.c.hash, _version.c.seal)
        rows = connection_of(reader).execute(sa.select(*columns).where(_version.c.grant_id == grant_id))
        stored = (MacedRow(row.text, bytes(row.hash), bytes(row.seal)) for row in rows)
        return newest_proven(self._row_mac, grant_id, stored)

    @override
    def lock_to_end(self, work: UnitOfWork, grant_id: str) -> tuple[Grant, bool]:
        try:
            return self.lock_for_update(work, grant_id), False
        except CorruptError:
            return self.last_proven(work, grant_id), True

    @override
    def lock_holding(self, work: UnitOfWork, consumer: str, resource: ResourceName) -> None:
        connection_of(work).execute(_LOCK_HOLDING, {"holding": f"grant holding {consumer} {resource}"})

    @override
    def versions(self, reader: Reader, grant_id: str) -> Sequence[GrantVersion]:
        rows = connection_of(reader).execute(
            sa.select(_version).where(_version.c.grant_id == grant_id).order_by(_version.c.version)
        )
        return [self._version_of(row) for row in rows]

    @override
    def list(self, reader: Reader, query: GrantQuery) -> Sequence[Grant]:
        rows = connection_of(reader).execute(_select(query))
        return [self._verify(row.id, (row.text, row.hash, row.seal)) for row in rows]

    @override
    def page(self, reader: Reader, query: GrantQuery) -> Sequence[Grant | DamagedRow]:
        def read(after: str, most: int) -> Sequence[Any]:
            return connection_of(reader).execute(select_page(_grant, replace(query, after=after, limit=most))).all()

        def keep(rows: Sequence[Any]) -> Iterator[Grant | DamagedRow]:
            for row in rows:
                try:
                    yield self._verify(row.id, (row.text, row.hash, row.seal))
                except CorruptError:
                    self._tags.report_refused(_grant, {"id": row.id})
                    damaged = DamagedRow.of(behind(row), id=row.id)
                    if damaged is not None:
                        yield damaged

        def behind(row: Any) -> str:
            return cursor_behind(query.order, row.expires, row.id)

        return collect(read, keep, behind, after=query.after, limit=query.limit)

    @override
    def versions_page(
        self, reader: Reader, grant_id: str, *, after: int, limit: int
    ) -> Sequence[GrantVersion | DamagedRow]:
        which = (_version.c.grant_id == grant_id) & (_version.c.version > after)
        rows = connection_of(reader).execute(sa.select(_version).where(which).order_by(_version.c.version).limit(limit))
        found: list[GrantVersion | DamagedRow] = []
        for row in rows:
            try:
                found.append(self._version_of(row))
            except CorruptError:
                self._tags.report_refused(_version, {"grant_id": grant_id, "version": row.version})
                found.append(DamagedRow(names={"version": str(row.version)}, cursor=str(row.version)))
        return found

    @override
    def released_days(self, reader: Reader, grant_id: str, *, limit: int) -> Sequence[tuple[date, int]]:
        rows = connection_of(reader).execute(
            sa.select(_quota.c.day, _quota.c.released)
            .where(_quota.c.grant_id == grant_id)
            .order_by(_quota.c.day.desc())
            .limit(limit)
        )
        return [(row.day, row.released) for row in rows]

    @override
    def count(self, reader: Reader, consumer: str, states: Collection[GrantState], most: int) -> int:
        chosen = _grant.c.state.in_([state.value for state in states])
        found = sa.select(_grant.c.id).where(_grant.c.consumer == consumer, chosen).limit(most).subquery()
        return connection_of(reader).scalar(sa.select(sa.func.count()).select_from(found)) or 0

    @override
    def state_counts(self, reader: Reader, *, party: str | None, most: int) -> dict[GrantState, int]:
        rows = connection_of(reader).execute(select_counts(_grant, party, most))
        return {GrantState(row.state): min(row.found, most) for row in rows if row.found}

    @override
    def overdue(self, reader: Reader, now: datetime, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        statement = (
            sa.select(_grant.c.id)
            .where(_grant.c.state == GrantState.ACTIVE.value, _grant.c.expires < now, _grant.c.id > after)
            .order_by(_grant.c.id)
            .limit(limit)
        )
        return list(connection_of(reader).execute(statement).scalars())

    @override
    def active(self, reader: Reader, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        statement = (
            sa.select(_grant.c.id)
            .where(_grant.c.state == GrantState.ACTIVE.value, _grant.c.id > after)
            .order_by(_grant.c.id)
            .limit(limit)
        )
        return list(connection_of(reader).execute(statement).scalars())

    @override
    def released(self, reader: Reader, grant_id: str, day: date) -> int:
        statement = sa.select(_quota.c.released).where(_quota.c.grant_id == grant_id, _quota.c.day == day)
        return connection_of(reader).scalar(statement) or 0

    @override
    def add_released(self, work: UnitOfWork, grant_id: str, day: date, count: int, limit: int | None) -> int:
        parameters = {"id": grant_id, "day": day, "count": count, "limit": limit}
        total = connection_of(work).scalar(_ADD_RELEASED, parameters)
        if total is None:
            raise quota_exhausted(limit or 0)
        return int(total)

    @override
    def position(self, reader: Reader, grant_id: str) -> GrantPosition:
        columns = (_position.c.committed, _position.c.released, _position.c.tracked, _position.c.runs)
        statement = sa.select(*columns).where(_position.c.grant_id == grant_id)
        row = connection_of(reader).execute(statement).one_or_none()
        return (
            GrantPosition()
            if row is None
            else GrantPosition(
                committed=bytes(row.committed), released=bytes(row.released), tracked=bytes(row.tracked), runs=row.runs
            )
        )

    @override
    def replace_position(self, work: UnitOfWork, grant_id: str, *, expected: GrantPosition, new: GrantPosition) -> None:
        connection = connection_of(work)
        replaced = connection.execute(
            _REPLACE_POSITION,
            {
                "id": grant_id,
                "committed": new.committed,
                "released": new.released,
                "tracked": new.tracked,
                "runs": new.runs,
                "expected_committed": expected.committed,
                "expected_released": expected.released,
                "expected_tracked": expected.tracked,
                "expected_runs": expected.runs,
            },
        ).rowcount
        if replaced == 0 and expected == GrantPosition():
            replaced = connection.execute(
                pg.insert(_position)
                .values(
                    grant_id=grant_id,
                    committed=new.committed,
                    released=new.released,
                    tracked=new.tracked,
                    runs=new.runs,
                )
                .on_conflict_do_nothing()
            ).rowcount
        if replaced == 0:
            raise position_moved()

    @override
    def delivered_runs(self, reader: Reader, grant_id: str, generation: int, after: int) -> Sequence[DeliveredRun]:
        values = {"id": grant_id, "generation": generation, "after": after}
        rows = connection_of(reader).execute(_DELIVERED_RUNS, values)
        return [DeliveredRun(first=row.first, last=row.last, events=bytes(row.events)) for row in rows]

    @override
    def replace_delivered_runs(self, work: UnitOfWork, grant_id: str, generation: int, run: DeliveredRun) -> None:
        connection = connection_of(work)
        values = {"id": grant_id, "generation": generation, "first": run.first}
        if run.first != run.last:
            connection.execute(_DELETE_DELIVERED, values)
        connection.execute(_ADD_DELIVERED, {**values, "last": run.last, "events": run.events})

    @override
    def seed_purposes(self, work: UnitOfWork, purposes: Iterable[Purpose] = SEED) -> None:
        for purpose in purposes:
            values = {
                "id": purpose.id,
                "parent": purpose.parent,
                "zh": purpose.zh,
                "en": purpose.en,
                "dpv": purpose.dpv,
                "active": purpose.active,
            }
            row = self._tags.new(_purpose, values)
            if connection_of(work).execute(pg.insert(_purpose).values(row).on_conflict_do_nothing()).rowcount:
                self._tags.note_new(work, _purpose, row)

    @override
    def purposes(self, reader: Reader) -> Sequence[Purpose]:
        rows = connection_of(reader).execute(sa.select(_purpose).order_by(_purpose.c.id))
        return [_purpose_of(row) for row in self._tags.valid(_purpose, rows)]

    @override
    def listed_purposes(self, reader: Reader) -> Sequence[Purpose | DamagedRow]:
        rows = connection_of(reader).execute(sa.select(_purpose).order_by(_purpose.c.id))
        return self._tags.listed(_purpose, rows, _purpose_of, lambda row: DamagedRow.of(id=row["id"]))

    def _version_of(self, row: Any) -> GrantVersion:
        return GrantVersion(
            grant=self._verify(row.grant_id, (row.text, row.hash, row.seal)),
            hash=bytes(row.hash),
            entry_id=row.entry_id,
            recorded_at=row.recorded_at,
        )

    def _verify(self, grant_id: str, row: Sequence[Any] | None) -> Grant:
        if row is None:
            raise unknown_grant()
        text, digest, mac = row
        return self._row_mac.verify(grant_id, MacedRow(text, bytes(digest), bytes(mac)))


def _select(query: GrantQuery) -> "sa.Select[Any]":
    statement = sa.select(_grant.c.id, _grant.c.text, _grant.c.hash, _grant.c.seal).where(_grant.c.id > query.after)
    if query.consumer is not None:
        statement = statement.where(_grant.c.consumer == query.consumer)
    if query.provider is not None:
        statement = statement.where(_grant.c.provider == query.provider)
    if query.party is not None:
        statement = statement.where(sa.or_(_grant.c.consumer == query.party, _grant.c.provider == query.party))
    if query.topic is not None:
        statement = statement.where(_grant.c.topic == str(query.topic))
    if query.resource is not None:
        statement = statement.where(sa.func.starts_with(_grant.c.topic, f"{query.resource}.v"))
    if query.states is not None:
        statement = statement.where(_grant.c.state.in_([state.value for state in query.states]))
    if query.expires_before is not None:
        statement = statement.where(_grant.c.expires < query.expires_before)
    return statement.order_by(_grant.c.id).limit(query.limit)


def _columns(grant: Grant, row: MacedRow) -> dict[str, Any]:
    return {
        "text": row.text,
        "hash": row.hash,
        "seal": row.mac,
        "version": grant.version,
        "consumer": grant.consumer,
        "provider": grant.provider,
        "topic": str(grant.topic),
        "state": grant.state.value,
        "expires": grant.expires,
    }


def _add_version(work: UnitOfWork, grant: Grant, row: MacedRow, entry_id: str, at: datetime) -> GrantVersion:
    values = {"grant_id": grant.id, "version": grant.version, "entry_id": entry_id, "recorded_at": at}
    stored = {"text": row.text, "hash": row.hash, "seal": row.mac}
    connection_of(work).execute(sa.insert(_version).values({**values, **stored}))
    return GrantVersion(grant=grant, hash=row.hash, entry_id=entry_id, recorded_at=at)


def _purpose_of(row: Mapping[str, Any]) -> Purpose:
    return Purpose(id=row["id"], parent=row["parent"], zh=row["zh"], en=row["en"], dpv=row["dpv"], active=row["active"])

"""PostgreSQL adapter of the hub's store: binary COPY for claims, staged upsert for golden records, locks by group.

Claims are only added, so they go in by COPY. Golden records go by COPY into a staging table of the session and from
there by INSERT … ON CONFLICT, in the order of their handles: MERGE does not resolve races, and its plan turns with the
size of the table.
"""

import hmac
import io
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from psycopg2 import errors as driver_errors
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import postgresql as pg
from typing_extensions import override

from exchange.hub.fold.claim import Instant, Position
from exchange.hub.fold.identity import BUCKETS, Handle
from exchange.hub.store import tables
from exchange.hub.store.copy_format import binary_rows
from exchange.hub.store.model import (
    ConflictRow,
    DrawPosition,
    GoldenFlag,
    GoldenRow,
    ItemRow,
    LinkRow,
    Mark,
    SealedClaim,
    WrappedKey,
)
from exchange.hub.store.store import HubStore, claim_taken, closures, mark_ended, mark_stands, position_moved
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.errors import CorruptError, Reason
from schemas.record import Operation

__all__ = ["PostgresHub"]

_FAMILY: Final = "hub"
_PLACE: Final = struct.Struct(">HIHQ")
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('hub-bucket-group', :group))")
_LAST_BATCHES = sa.text("""
SELECT last.* FROM unnest(CAST(:buckets AS smallint[])) AS wanted (bucket), LATERAL (
    SELECT * FROM hub_batch WHERE hub_batch.bucket = wanted.bucket ORDER BY applied DESC LIMIT 1
) AS last
""")

_CLAIM_COLUMNS = (
    "handle, resource, generation, part, off, applied, op, item, valid_from, valid_to, recorded_at, schema, sealed"
)
_CLAIM_WIDTHS = (0, 2, 4, 2, 8, 8, 2, 0, 8, 8, 8, 4, 0)
_GOLDEN_COLUMNS = "handle, library, rules, applied, flags, sealed, prov"
_GOLDEN_WIDTHS = (0, 0, 4, 8, 4, 0, 0)
_ITEM_COLUMNS = "library, item, handle, rules, applied, flags, sealed, prov"
_ITEM_WIDTHS = (0, 0, 0, 4, 8, 4, 0, 0)


class PostgresHub(HubStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags and MACs of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def lock_group(self, work: UnitOfWork, group: int) -> None:
        connection_of(work).execute(_LOCK, {"group": group})

    @override
    def position(self, reader: Reader, grant: str, group: int) -> DrawPosition | None:
        table = tables.position
        own = (table.c.grant_id == grant) & (table.c.bucket_group == group)
        row = connection_of(reader).execute(sa.select(table).where(own)).one_or_none()
        if row is None:
            return None
        found = DrawPosition(grant=grant, group=group, position=bytes(row.position), vector=tuple(row.vector))
        if not hmac.compare_digest(bytes(row.mac), self._position_mac(found)):
            raise self._tags.put_back(table, row)
        return found

    @override
    def move_position(self, work: UnitOfWork, before: DrawPosition | None, after: DrawPosition) -> None:
        table = tables.position
        values = {"position": after.position, "vector": [*after.vector], "mac": self._position_mac(after)}
        if before is None:
            new = pg.insert(table).values(grant_id=after.grant, bucket_group=after.group, **values)
            done = connection_of(work).execute(new.on_conflict_do_nothing())
        else:
            same = (
                (table.c.grant_id == after.grant)
                & (table.c.bucket_group == after.group)
                & (table.c.position == before.position)
                & (table.c.mac == self._position_mac(before))
            )
            done = connection_of(work).execute(sa.update(table).where(same).values(**values))
        if done.rowcount != 1:
            raise position_moved()

    @override
    def next_batch(self, work: UnitOfWork, buckets: Collection[int], at: Instant, entry: str) -> Mapping[int, int]:
        if not buckets:
            return {}
        table = tables.batch
        connection = connection_of(work)
        lasts = connection.execute(_LAST_BATCHES, {"buckets": sorted(set(buckets))})
        before = {row.bucket: (row.applied, row.at) for row in map(self._checked_batch, lasts)}
        rows = []
        for bucket in sorted(set(buckets)):
            applied, last = before.get(bucket, (0, at - 1))
            values = {"bucket": bucket, "applied": applied + 1, "at": max(at, last + 1), "entry": entry}
            rows.append({**values, "mac": self._batch_mac(values)})
        connection.execute(sa.insert(table), rows)
        return {row["bucket"]: row["applied"] for row in rows}

    @override
    def last_batches(self, reader: Reader) -> Mapping[int, int]:
        lasts = connection_of(reader).execute(_LAST_BATCHES, {"buckets": [*range(BUCKETS)]})
        return {row.bucket: row.applied for row in map(self._checked_batch, lasts)}

    @override
    def batches(self, reader: Reader, bucket: int) -> Sequence[Instant]:
        table = tables.batch
        statement = sa.select(table).where(table.c.bucket == bucket).order_by(table.c.applied)
        rows = [self._checked_batch(row) for row in connection_of(reader).execute(statement)]
        if [row.applied for row in rows] != [*range(1, len(rows) + 1)]:
            raise CorruptError(
                Reason.ROW_FORGED, f"batches of the bucket {bucket} are missing in hub_batch; the hub removes none"
            )
        return [row.at for row in rows]

    @override
    def add_keys(self, work: UnitOfWork, keys: Sequence[WrappedKey]) -> None:
        if keys:
            rows = [
                {"handle": one.handle, "wrapped": one.wrapped, "kek": one.kek, "erased_at": one.erased_at}
                for one in sorted(keys, key=lambda one: one.handle)
            ]
            connection_of(work).execute(pg.insert(tables.key).on_conflict_do_nothing(), rows)

    @override
    def lock_keys(self, work: UnitOfWork, handles: Collection[Handle]) -> Mapping[Handle, WrappedKey]:
        return _keys(work, handles, "FOR SHARE")

    @override
    def keys(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, WrappedKey]:
        return _keys(reader, handles, "")

    @override
    def subjects(self, reader: Reader, after: bytes, limit: int) -> Sequence[Handle]:
        table = tables.key
        statement = sa.select(table.c.handle).where(table.c.handle > after).order_by(table.c.handle).limit(limit)
        return [Handle(bytes(one)) for one in connection_of(reader).execute(statement).scalars()]

    @override
    def erase_key(self, work: UnitOfWork, handle: Handle, at: Instant) -> bool:
        table = tables.key
        there = (table.c.handle == handle) & table.c.wrapped.is_not(None)
        statement = sa.update(table).where(there).values(wrapped=None, erased_at=at)
        return connection_of(work).execute(statement).rowcount == 1

    @override
    def rewrap(self, work: UnitOfWork, keys: Sequence[WrappedKey]) -> int:
        changed = 0
        table = tables.key
        for one in sorted(keys, key=lambda one: one.handle):
            there = (table.c.handle == one.handle) & table.c.wrapped.is_not(None)
            statement = sa.update(table).where(there).values(wrapped=one.wrapped, kek=one.kek)
            changed += connection_of(work).execute(statement).rowcount
        return changed

    @override
    def keys_of_month(self, reader: Reader, kek: int, after: bytes, limit: int) -> Sequence[WrappedKey]:
        table = tables.key
        own = (table.c.kek == kek) & table.c.wrapped.is_not(None) & (table.c.handle > after)
        statement = sa.select(table).where(own).order_by(table.c.handle).limit(limit)
        return [_key(row) for row in connection_of(reader).execute(statement)]

    @override
    def add_claims(self, work: UnitOfWork, claims: Sequence[SealedClaim]) -> None:
        rows = (
            (
                one.handle, one.position.resource, one.position.generation, one.position.partition,
                one.position.offset, one.applied, int(one.operation), one.item, one.valid_from, one.valid_to,
                one.recorded_at, one.schema, one.sealed,
            )
            for one in sorted(claims, key=lambda one: (one.handle, one.position))
        )  # fmt: skip
        try:
            _copy(work, f"COPY hub_claim ({_CLAIM_COLUMNS}) FROM STDIN (FORMAT binary)", _CLAIM_WIDTHS, rows)
        except driver_errors.UniqueViolation as error:
            raise claim_taken() from error

    @override
    def claims(self, reader: Reader, handles: Collection[Handle]) -> Sequence[SealedClaim]:
        statement = sa.text(
            f"SELECT {_CLAIM_COLUMNS} FROM hub_claim WHERE handle = ANY(CAST(:handles AS bytea[]))"  # noqa: S608
            " ORDER BY handle, resource, generation, part, off"
        )
        rows = connection_of(reader).execute(statement, {"handles": sorted(handles)})
        return [
            SealedClaim(
                handle=Handle(bytes(row.handle)),
                position=Position(row.resource, row.generation, row.part, row.off),
                item=bytes(row.item),
                operation=Operation(row.op),
                applied=row.applied,
                recorded_at=row.recorded_at,
                valid_from=row.valid_from,
                valid_to=row.valid_to,
                schema=row.schema,
                sealed=None if row.sealed is None else bytes(row.sealed),
            )
            for row in rows
        ]

    @override
    def handles_of(self, reader: Reader, resource: int, items: Collection[bytes]) -> Mapping[bytes, frozenset[Handle]]:
        statement = sa.text(
            "SELECT DISTINCT item, handle FROM hub_claim"
            " WHERE resource = :resource AND item = ANY(CAST(:items AS bytea[]))"
        )
        found: dict[bytes, set[Handle]] = {}
        for row in connection_of(reader).execute(statement, {"resource": resource, "items": sorted(items)}):
            found.setdefault(bytes(row.item), set()).add(Handle(bytes(row.handle)))
        return {item: frozenset(handles) for item, handles in found.items()}

    @override
    def add_links(self, work: UnitOfWork, links: Collection[LinkRow]) -> None:
        if links:
            rows = [
                {
                    "left_handle": one.left,
                    "right_handle": one.right,
                    "claim": _packed(one.claim),
                    "applied": one.applied,
                }
                for one in sorted(links)
            ]
            connection_of(work).execute(pg.insert(tables.link).on_conflict_do_nothing(), rows)

    @override
    def related(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, frozenset[Handle]]:
        statement = sa.text(
            "SELECT left_handle, right_handle FROM hub_link WHERE left_handle = ANY(CAST(:handles AS bytea[]))"
            " UNION SELECT left_handle, right_handle FROM hub_link WHERE right_handle = ANY(CAST(:handles AS bytea[]))"
        )
        connection = connection_of(reader)

        def neighbours(some: frozenset[Handle]) -> list[tuple[Handle, Handle]]:
            rows = connection.execute(statement, {"handles": sorted(some)})
            return [(Handle(bytes(row.left_handle)), Handle(bytes(row.right_handle))) for row in rows]

        return closures(handles, neighbours)

    @override
    def put_golden(self, work: UnitOfWork, rows: Sequence[GoldenRow]) -> None:
        staged = (
            (one.handle, one.library, one.rules, one.applied, int(one.flags), one.sealed, one.prov)
            for one in sorted(rows, key=lambda one: one.handle)
        )
        _upsert(work, "hub_golden", _GOLDEN_COLUMNS, _GOLDEN_WIDTHS, ("handle",), staged)

    @override
    def golden(self, reader: Reader, handles: Collection[Handle]) -> Mapping[Handle, GoldenRow]:
        statement = sa.text(
            f"SELECT {_GOLDEN_COLUMNS} FROM hub_golden WHERE handle = ANY(CAST(:handles AS bytea[]))"  # noqa: S608
        )
        found = {}
        for row in connection_of(reader).execute(statement, {"handles": sorted(handles)}):
            handle = Handle(bytes(row.handle))
            found[handle] = GoldenRow(
                handle=handle, library=row.library, rules=row.rules, applied=row.applied,
                flags=GoldenFlag(row.flags), sealed=bytes(row.sealed), prov=bytes(row.prov),
            )  # fmt: skip
        return found

    @override
    def drop_golden(self, work: UnitOfWork) -> None:
        for table in (tables.golden, tables.item):
            connection_of(work).execute(sa.delete(table))

    @override
    def put_items(self, work: UnitOfWork, rows: Sequence[ItemRow]) -> None:
        staged = (
            (one.library, one.item, one.handle, one.rules, one.applied, int(one.flags), one.sealed, one.prov)
            for one in sorted(rows, key=lambda one: (one.library, one.item))
        )
        _upsert(work, "hub_item", _ITEM_COLUMNS, _ITEM_WIDTHS, ("library", "item"), staged)

    @override
    def items(self, reader: Reader, library: str, handles: Collection[Handle]) -> Sequence[ItemRow]:
        statement = sa.text(
            f"SELECT {_ITEM_COLUMNS} FROM hub_item"  # noqa: S608
            " WHERE handle = ANY(CAST(:handles AS bytea[])) AND library = :library ORDER BY item"
        )
        rows = connection_of(reader).execute(statement, {"handles": sorted(handles), "library": library})
        return [
            ItemRow(
                library=row.library, item=bytes(row.item), handle=Handle(bytes(row.handle)), rules=row.rules,
                applied=row.applied, flags=GoldenFlag(row.flags), sealed=bytes(row.sealed), prov=bytes(row.prov),
            )
            for row in rows
        ]  # fmt: skip

    @override
    def open_conflicts(self, reader: Reader, handles: Collection[Handle]) -> Sequence[ConflictRow]:
        statement = sa.text(
            "SELECT handle, library, field, winner, loser, opened FROM hub_conflict"
            " WHERE handle = ANY(CAST(:handles AS bytea[])) AND closed IS NULL"
        )
        rows = connection_of(reader).execute(statement, {"handles": sorted(handles)})
        return [_conflict(row) for row in rows]

    @override
    def conflicts_in(self, reader: Reader, library: str, limit: int) -> Sequence[ConflictRow]:
        statement = sa.text(
            "SELECT handle, library, field, winner, loser, opened FROM hub_conflict"
            " WHERE library = :library AND closed IS NULL ORDER BY field, loser, winner, handle LIMIT :limit"
        )
        rows = connection_of(reader).execute(statement, {"library": library, "limit": limit})
        return [_conflict(row) for row in rows]

    @override
    def put_conflicts(self, work: UnitOfWork, rows: Sequence[ConflictRow]) -> None:
        if rows:
            statement = pg.insert(tables.conflict)
            key = [column.name for column in tables.conflict.primary_key.columns]
            values = [
                {
                    "handle": one.handle, "library": one.library, "field": one.field, "winner": _packed(one.winner),
                    "loser": _packed(one.loser), "opened": one.opened, "closed": one.closed,
                }
                for one in sorted(rows, key=lambda one: (one.handle, one.library, one.field, one.winner, one.loser))
            ]  # fmt: skip
            closing = statement.on_conflict_do_update(index_elements=key, set_={"closed": statement.excluded.closed})
            connection_of(work).execute(closing, values)

    @override
    def add_mark(self, work: UnitOfWork, mark: Mark) -> None:
        table = tables.mark
        connection = connection_of(work)
        connection.execute(_LOCK, {"group": -1 - mark.handle[0]})
        same = _same_mark(mark) & table.c.to_applied.is_(None)
        if connection.execute(sa.select(sa.exists().where(same))).scalar_one():
            raise mark_stands()
        values = {
            "handle": mark.handle, "library": mark.library, "field": mark.field, "kind": mark.kind,
            "from_applied": mark.from_applied, "to_applied": mark.to_applied, "ticket": mark.ticket,
        }  # fmt: skip
        try:
            with connection.begin_nested():
                self._tags.insert(work, table, values)
        except sa_exc.IntegrityError as error:
            raise mark_stands() from error

    @override
    def end_mark(self, work: UnitOfWork, mark: Mark, applied: int) -> None:
        table = tables.mark
        stands = _same_mark(mark) & (table.c.from_applied == mark.from_applied) & table.c.to_applied.is_(None)
        if len(self._tags.change(work, table, stands, {"to_applied": applied})) != 1:
            raise mark_ended()

    @override
    def marks(self, reader: Reader, handles: Collection[Handle]) -> Sequence[Mark]:
        table = tables.mark
        named = table.c.handle == sa.any_(sa.cast(sorted(handles), pg.ARRAY(sa.LargeBinary)))
        rows = connection_of(reader).execute(sa.select(table).where(named).order_by(*table.primary_key.columns))
        return [_mark(self._tags.checked(table, row)) for row in rows]

    @override
    def number_resources(self, work: UnitOfWork, names: Collection[str]) -> None:
        table = tables.resource
        connection = connection_of(work)
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('hub-resources', 0))"))
        known = self.resources(work)
        last = max(known.values(), default=0)
        for number, name in enumerate(sorted(set(names) - set(known)), last + 1):
            self._tags.insert(work, table, {"name": name, "number": number})

    @override
    def resources(self, reader: Reader) -> Mapping[str, int]:
        table = tables.resource
        checked = (self._tags.checked(table, row) for row in connection_of(reader).execute(sa.select(table)))
        return {row["name"]: row["number"] for row in checked}

    def _position_mac(self, one: DrawPosition) -> bytes:
        text = f"hub-position {one.grant} {one.group} {one.position.hex()} {' '.join(map(str, one.vector))}"
        return self._tags.mac(_FAMILY, text.encode())

    def _batch_mac(self, row: Mapping[str, Any]) -> bytes:
        return self._tags.mac(
            _FAMILY, f"hub-batch {row['bucket']} {row['applied']} {row['at']} {row['entry']}".encode()
        )

    def _checked_batch(self, row: Any) -> Any:
        if not hmac.compare_digest(bytes(row.mac), self._batch_mac(row._asdict())):
            raise self._tags.put_back(tables.batch, row)
        return row


def _keys(reader: Reader, handles: Collection[Handle], lock: str) -> Mapping[Handle, WrappedKey]:
    statement = sa.text(
        "SELECT handle, wrapped, kek, erased_at FROM hub_key"  # noqa: S608 - the lock is a constant of this module
        f" WHERE handle = ANY(CAST(:handles AS bytea[])) ORDER BY handle {lock}"
    )
    rows = [_key(row) for row in connection_of(reader).execute(statement, {"handles": sorted(handles)})]
    return {row.handle: row for row in rows}


def _key(row: Any) -> WrappedKey:
    return WrappedKey(
        handle=Handle(bytes(row.handle)),
        wrapped=None if row.wrapped is None else bytes(row.wrapped),
        kek=row.kek,
        erased_at=row.erased_at,
    )


def _conflict(row: sa.Row[Any]) -> ConflictRow:
    return ConflictRow(
        handle=Handle(bytes(row.handle)),
        library=row.library,
        field=row.field,
        winner=_unpacked(row.winner),
        loser=_unpacked(row.loser),
        opened=row.opened,
    )


def _same_mark(mark: Mark) -> sa.ColumnElement[bool]:
    table = tables.mark
    return (
        (table.c.handle == mark.handle)
        & (table.c.library == mark.library)
        & (table.c.field == mark.field)
        & (table.c.kind == mark.kind)
    )


def _mark(row: Mapping[str, Any]) -> Mark:
    return Mark(
        handle=Handle(bytes(row["handle"])),
        library=row["library"],
        field=row["field"],
        kind=row["kind"],
        from_applied=row["from_applied"],
        to_applied=row["to_applied"],
        ticket=row["ticket"],
    )


def _packed(place: Position) -> bytes:
    return _PLACE.pack(*place)


def _unpacked(packed: bytes) -> Position:
    return Position(*_PLACE.unpack(bytes(packed)))


def _copy(work: UnitOfWork, statement: str, widths: Sequence[int], rows: Iterable[Sequence[Any]]) -> None:
    driver = connection_of(work).connection.driver_connection
    assert driver is not None  # noqa: S101 - it is in a transaction
    with driver.cursor() as cursor:
        cursor.copy_expert(statement, io.BytesIO(binary_rows(widths, rows)), 1 << 20)


def _upsert(
    work: UnitOfWork, table: str, columns: str, widths: Sequence[int], key: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    staged = [*rows]
    if not staged:
        return
    connection = connection_of(work)
    connection.execute(
        sa.text(f"CREATE TEMPORARY TABLE IF NOT EXISTS stage_{table} (LIKE {table}) ON COMMIT DELETE ROWS")
    )
    _copy(work, f"COPY pg_temp.stage_{table} ({columns}) FROM STDIN (FORMAT binary)", widths, staged)
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ") if name not in key)
    connection.execute(
        sa.text(
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM pg_temp.stage_{table} ORDER BY {', '.join(key)}"  # noqa: S608
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
        )
    )
    connection.execute(sa.text(f"DELETE FROM pg_temp.stage_{table}"))  # noqa: S608 - a second call in this transaction

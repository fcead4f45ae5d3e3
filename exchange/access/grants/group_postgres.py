"""PostgreSQL adapter of the group store: one statement for all grants of a group, in the order of their ids."""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import date
from typing import Any

from typing_extensions import override

from exchange.access.grants.group import Count, GroupStore, PositionChange
from exchange.access.grants.row_mac import MacedRow, RowMac
from exchange.access.grants.store import GrantPosition
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.access import Grant
from schemas.errors import CorruptError

__all__ = ["PostgresGroupStore"]

_GET = "SELECT id, text, hash, seal FROM access_grant WHERE id = ANY (%(ids)s::text[])"
# The timeout is for every lock of the transaction: a group gives way, so that it neither waits long nor dies with a
# transaction that locks the same rows in another order.
_LOCK = f"SET LOCAL lock_timeout = 250; {_GET} ORDER BY id FOR SHARE SKIP LOCKED"
_RELEASED = "SELECT grant_id, released FROM access_quota WHERE grant_id = ANY (%(ids)s::text[]) AND day = %(day)s"
_ADD_RELEASED = """
INSERT INTO access_quota AS q (grant_id, day, released)
SELECT new.id, %(day)s, new.records
FROM unnest(%(ids)s::text[], %(records)s::bigint[], %(limits)s::bigint[]) AS new (id, records, most)
WHERE new.most IS NULL OR new.records <= new.most
ORDER BY new.id COLLATE "C"
ON CONFLICT (grant_id, day) DO UPDATE SET released = q.released + excluded.released
WHERE coalesce(q.released + excluded.released <= (%(limited)s::jsonb ->> q.grant_id)::bigint, true)
RETURNING grant_id
"""
_LOCK_POSITIONS = """
SELECT grant_id, committed, released, tracked, runs FROM access_position
WHERE grant_id = ANY (%(ids)s::text[]) ORDER BY grant_id FOR UPDATE
"""
_REPLACE_POSITIONS = """
INSERT INTO access_position AS p (grant_id, committed, released, tracked, runs)
SELECT * FROM unnest(
    %(ids)s::text[], %(committed)s::bytea[], %(released)s::bytea[], %(tracked)s::bytea[], %(runs)s::bigint[]
) AS new (id, committed, released, tracked, runs)
ORDER BY new.id COLLATE "C"
ON CONFLICT (grant_id) DO UPDATE
SET committed = excluded.committed, released = excluded.released, tracked = excluded.tracked, runs = excluded.runs
WHERE p.grant_id = ANY (%(locked)s::text[])
RETURNING grant_id
"""


class PostgresGroupStore(GroupStore):
    """PostgreSQL adapter. Every call runs on the connection of the reader or unit of work that it is given.

    Args:
        row_mac: protects the rows of grants.
    """

    def __init__(self, row_mac: RowMac) -> None:
        self._row_mac = row_mac

    @override
    def get(self, reader: Reader, grant_ids: Collection[str]) -> Mapping[str, Grant]:
        return self._verified(connection_of(reader).exec_driver_sql(_GET, {"ids": list(grant_ids)}))

    @override
    def lock(self, work: UnitOfWork, grant_ids: Collection[str]) -> Mapping[str, Grant]:
        return self._verified(connection_of(work).exec_driver_sql(_LOCK, {"ids": list(grant_ids)}))

    @override
    def released(self, reader: Reader, grant_ids: Collection[str], day: date) -> Mapping[str, int]:
        if not grant_ids:
            return {}
        rows = connection_of(reader).exec_driver_sql(_RELEASED, {"ids": list(grant_ids), "day": day})
        return {row.grant_id: row.released for row in rows}

    @override
    def add_released(self, work: UnitOfWork, counts: Mapping[str, Count], day: date) -> Collection[str]:
        limited = {grant_id: one.limit for grant_id, one in counts.items() if one.limit is not None}
        values = {
            "day": day,
            "ids": list(counts),
            "records": [one.records for one in counts.values()],
            "limits": [one.limit for one in counts.values()],
            "limited": json.dumps(limited),
        }
        return list(connection_of(work).exec_driver_sql(_ADD_RELEASED, values).scalars())

    @override
    def lock_positions(self, work: UnitOfWork, grant_ids: Collection[str]) -> Mapping[str, GrantPosition]:
        rows = connection_of(work).exec_driver_sql(_LOCK_POSITIONS, {"ids": list(grant_ids)})
        return {
            row.grant_id: GrantPosition(
                committed=bytes(row.committed), released=bytes(row.released), tracked=bytes(row.tracked), runs=row.runs
            )
            for row in rows
        }

    @override
    def replace_positions(self, work: UnitOfWork, changes: Mapping[str, PositionChange]) -> Collection[str]:
        new = [change.new for change in changes.values()]
        values = {
            "ids": list(changes),
            "committed": [one.committed for one in new],
            "released": [one.released for one in new],
            "tracked": [one.tracked for one in new],
            "runs": [one.runs for one in new],
            "locked": [grant_id for grant_id, change in changes.items() if change.stored is not None],
        }
        return list(connection_of(work).exec_driver_sql(_REPLACE_POSITIONS, values).scalars())

    def _verified(self, rows: Iterable[Any]) -> Mapping[str, Grant]:
        found = {}
        for row in rows:
            with suppress(CorruptError):
                mac = MacedRow(row.text, bytes(row.hash), bytes(row.seal))
                found[row.id] = self._row_mac.verify(row.id, mac)
        return found

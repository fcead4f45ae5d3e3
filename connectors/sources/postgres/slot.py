"""Replication slot: what makes the database keep its log for this connector, and what that costs on its disk."""

from dataclasses import dataclass
from typing import Any

from connectors.sources.postgres.connection import parse_lsn

__all__ = ["SlotState", "copy_slot", "create_temporary_slot", "drop_slot", "find_slot"]

_V17 = 170_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """A slot as `pg_replication_slots` shows it.

    Attributes:
        plugin, database: of a logical slot.
        temporary: it ends with its session.
        active_pid: of the session that reads it; 0 = none.
        confirmed: LSN up to which its reader has confirmed.
        wal_status: `reserved`, `extended`, `unreserved` or `lost`; empty = unknown.
        retained: bytes of the log that it holds back.
        invalidation: why it is lost, from version 17 on; else empty.
    """

    plugin: str
    database: str
    temporary: bool
    active_pid: int
    confirmed: int
    wal_status: str
    retained: int
    invalidation: str

    @property
    def lost(self) -> bool:
        """Return whether the log that it needs was removed."""
        return self.wal_status == "lost" or bool(self.invalidation)


def find_slot(sql: Any, name: str) -> SlotState | None:
    """Return a slot of the cluster; None when there is none of this name."""
    reason = "coalesce(invalidation_reason, '')" if sql.info.server_version >= _V17 else "''"
    with sql.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(plugin, ''), coalesce(database, ''), temporary, coalesce(active_pid, 0), "  # noqa: S608
            "coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(wal_status, ''), coalesce(pg_wal_lsn_diff("
            "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), "
            f"0)::bigint, {reason} FROM pg_replication_slots WHERE slot_name = %s",
            (name,),
        )
        row = cursor.fetchone()
    if row is None:
        return None
    return SlotState(
        plugin=row[0],
        database=row[1],
        temporary=row[2],
        active_pid=row[3],
        confirmed=parse_lsn(row[4]),
        wal_status=row[5],
        retained=row[6],
        invalidation=row[7],
    )


def create_temporary_slot(replication: Any, name: str) -> tuple[int, str]:
    """Create a slot that ends with the session; return its consistent point, and the snapshot of that moment.

    The server waits until every transaction that is open now has ended. The snapshot lives until the next command.
    """
    with replication.cursor() as cursor:
        cursor.execute(f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
        row = cursor.fetchone()
    return parse_lsn(row[1]), row[2]


def copy_slot(sql: Any, source: str, name: str) -> None:
    """Create a permanent slot with the position of another one."""
    with sql.cursor() as cursor:
        cursor.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false)", (source, name))


def drop_slot(sql: Any, name: str) -> None:
    """Drop a slot that nobody reads."""
    with sql.cursor() as cursor:
        cursor.execute("SELECT pg_drop_replication_slot(%s)", (name,))

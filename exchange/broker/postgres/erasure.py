"""Erasure on the PostgreSQL broker: values of a key are destroyed where PostgreSQL keeps them.

    erase_key     the blocks are rewritten with the leaf hash in the place of each value; positions and tags stay right
    destroy_old   what the rewriting left behind: row versions that are dead, and write-ahead log that holds the value

A dead row version keeps its bytes, and a vacuum leaves them in the file. So the topic's table is written again (VACUUM
FULL), which locks it for as long as that takes, some seconds a gigabyte. It copies row versions that a transaction may
still see: it begins when no transaction is left that is older than the rewriting.

Write-ahead log (WAL): a checkpoint makes the segments before it superfluous, and PostgreSQL renames them for later use
with their content in them. So recycling is switched off for the moment, each segment that was recycled before is
written over, and after another checkpoint the old ones are deleted. This takes a superuser, which the pool's role of an
embedded PostgreSQL is; otherwise `destroy_old` says so, and the database's administrator does it.

Not reached by either: archived WAL, replicas' WAL, backups, and blocks of the disk that deleted files occupied.
"""

import time
from collections.abc import Sequence

import sqlalchemy as sa

from exchange.broker.postgres.block_tags import TopicTags
from exchange.broker.postgres.blocks import ERASED, Block, erase_in_block, positions_in
from exchange.broker.postgres.retention import lock_block, lock_partition, replace_block
from exchange.broker.postgres.tables import block_table_of
from exchange.broker.rules import KEY_SIZE
from registry.database.unit_of_work import PostgresDatabase, connection_of
from schemas.errors import Reason, UnavailableError

__all__ = ["destroy_old", "erase_key"]

_WAIT = 60.0  # seconds for older transactions to end
_POLL = 0.1  # seconds
_CHECKPOINTS = 20  # until the old segments are gone

# `position` finds the bytes anywhere; where a key begins is checked in the block.
_BLOCKS_OF_KEY = """
SELECT last FROM broker_stretch
WHERE topic_id = %(topic)s AND partition = %(partition)s AND first < %(before)s AND position(%(key)s::bytea IN keys) > 0
ORDER BY last
"""

_OLDER = """
SELECT (SELECT count(*) FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND age(backend_xmin) > age(%(xid)s::xid))
     + (SELECT count(*) FROM pg_prepared_xacts)
"""
_XID = "SELECT pg_current_xact_id()::xid::text"
_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_SEGMENTS = "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name"
_FUTURE_SEGMENTS = f"{_SEGMENTS} > pg_walfile_name(pg_current_wal_lsn())"
_OLD_SEGMENTS = f"{_SEGMENTS} < %(name)s"
_CURRENT_SEGMENT = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"
_NEXT_SEGMENT = "SELECT pg_logical_emit_message(true, 'pool', 'erasure'), pg_switch_wal()"


def erase_key(database: PostgresDatabase, tags: TopicTags, partition: int, key: bytes, before: int) -> int:
    """Destroy the values of a key before a position; return their number. A repeated call finds none.

    Raises:
        RecordsCorruptError: a block is not the one that the pool wrote; it stays as it is.
    """
    values = {"topic": tags.topic_id, "partition": partition, "key": key, "before": before}
    with database.begin() as work:
        lasts = list(connection_of(work).exec_driver_sql(_BLOCKS_OF_KEY, values).scalars())
    erased = 0
    for last in lasts:
        with database.begin() as work:
            connection = connection_of(work)
            lock_partition(connection, tags, partition)
            block = lock_block(connection, tags, partition, last)
            if block is None:  # retention was faster
                continue
            chosen = _values_of(block, key, before)
            if any(chosen):
                replace_block(connection, tags, block, erase_in_block(block, chosen))
                erased += sum(chosen)
    return erased


def _values_of(block: Block, key: bytes, before: int) -> list[bool]:
    """Return which records of a block have a value that is to be destroyed."""
    lengths = memoryview(block.lengths).cast("i")
    return [
        block.keys[KEY_SIZE * index : KEY_SIZE * index + KEY_SIZE] == key
        and position < before
        and lengths[index] >= 0
        and not block.marks[index] & ERASED
        for index, position in enumerate(positions_in(block.first, block.count, block.positions))
    ]


def destroy_old(database: PostgresDatabase, topic_ids: Sequence[int]) -> bool:
    """Destroy what was in these topics' tables and is no longer; return whether the write-ahead log is free of it too.

    Raises:
        UnavailableError: OVERLOADED, an older transaction did not end; nothing was done, try again.
    """
    with database.begin() as work:
        xid = connection_of(work).exec_driver_sql(_XID).scalar_one()
    with database.read() as reader:
        connection = connection_of(reader)
        _await_older(connection, xid)
        superuser = connection.exec_driver_sql(_IS_SUPERUSER).scalar_one()
        for topic_id in topic_ids:
            connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {block_table_of(topic_id)}")
        if superuser:
            # The most common values of small blocks: the new statistics have none of it, the old row versions do.
            connection.exec_driver_sql("VACUUM (FULL) pg_catalog.pg_statistic")
        return bool(superuser) and _delete_old_segments(connection)


def _await_older(connection: sa.Connection, xid: str) -> None:
    """Wait until every transaction has ended that may see row versions from before *xid*."""
    give_up = time.monotonic() + _WAIT
    while connection.exec_driver_sql(_OLDER, {"xid": xid}).scalar_one():
        if time.monotonic() >= give_up:
            raise UnavailableError(
                Reason.OVERLOADED,
                f"a transaction of the database runs for more than {_WAIT:.0f} s; old rows can be destroyed after it",
                retry_after=_WAIT,
            )
        time.sleep(_POLL)


def _delete_old_segments(connection: sa.Connection) -> bool:
    """Delete the WAL from before now, and return whether it is gone: an archiver or a replica may still hold it."""
    execute = connection.exec_driver_sql
    execute("ALTER SYSTEM SET wal_recycle = off")
    execute("SELECT pg_reload_conf()")
    try:
        execute("CHECKPOINT")
        for _ in range(execute(_FUTURE_SEGMENTS).scalar_one() + 1):
            execute(_NEXT_SEGMENT)
        first_new = execute(_CURRENT_SEGMENT).scalar_one()
        for _ in range(_CHECKPOINTS):
            execute("CHECKPOINT")
            # Later names: segments that a checkpoint recycled before it had learnt of the setting.
            if not execute(_OLD_SEGMENTS, {"name": first_new}).scalar_one():
                if not execute(_FUTURE_SEGMENTS).scalar_one():
                    return True
                execute(_NEXT_SEGMENT)
            time.sleep(_POLL)
        return False
    finally:
        execute("ALTER SYSTEM RESET wal_recycle")
        execute("SELECT pg_reload_conf()")

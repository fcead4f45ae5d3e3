"""PostgreSQL adapter of the retractions.

An advisory lock of the topic orders retractions and releases, since a topic has no row before its first retraction.
PostgreSQL serves waiters in turn, so a steady flow of releases (shared locks) cannot hold a retraction back.

The chain of MACs needs the head before it, which would take a round trip to read. So a process remembers the head that
it saw last, and its statement changes nothing if another process was faster; then it is sent again, from the head that
it returned.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from typing_extensions import override

from exchange.erasure.retractions import NO_RETRACTIONS, Head, Retraction, RetractionStore, StoredRetraction
from exchange.erasure.tables import retraction_version
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.names import Topic

__all__ = ["PostgresRetractions", "chain_existing"]

_LOCK_CLASS = 1_163_022_917  # of these advisory locks; no other code uses it

# The lock is a statement of its own: one that waits for a lock still sees the tables as they were before the wait.
_ADD = """
SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(topic)s));
WITH head AS (
    INSERT INTO erasure_retraction_version AS v (topic, version, chain)
    SELECT %(topic)s, %(version)s + 1, %(next)s
    WHERE %(version)s = 0 OR EXISTS (SELECT FROM erasure_retraction_version WHERE topic = %(topic)s)
    ON CONFLICT (topic) DO UPDATE SET version = excluded.version, chain = excluded.chain
    WHERE v.version = %(version)s AND coalesce(v.chain, '') = %(chain)s
    RETURNING v.version
), added AS (
    INSERT INTO erasure_retraction (topic, key, partition, position, version, at)
    SELECT %(topic)s, new.key, new.partition, new.position, head.version,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM head, unnest(%(keys)s::bytea[], %(partitions)s::smallint[], %(positions)s::bigint[])
        AS new (key, partition, position)
)
SELECT (SELECT count(*) FROM head) AS added, v.version, v.chain
FROM (VALUES (1)) AS one LEFT JOIN erasure_retraction_version v ON v.topic = %(topic)s
"""

_JOIN = """
SELECT pg_advisory_xact_lock_shared(%(lock)s, hashtext(%(topic)s));
SELECT v.version, v.chain FROM (VALUES (1)) AS one LEFT JOIN erasure_retraction_version v ON v.topic = %(topic)s
"""

_EXISTING = (
    "SELECT key, partition, position, version, at FROM erasure_retraction WHERE topic = %(topic)s ORDER BY version"
)
_SET_CHAIN = "UPDATE erasure_retraction_version SET chain = %(chain)s WHERE topic = %(topic)s"
_INCOMPLETE = "SELECT topic FROM erasure_retraction_version WHERE NOT complete ORDER BY topic"
_COMPLETE = "UPDATE erasure_retraction_version SET complete = true WHERE topic = %(topic)s"
# One statement, so that the head is that of the rows.
_NEWER = """
SELECT v.version AS newest, v.chain, r.key, r.partition, r.position, r.version, r.at
FROM (VALUES (1)) AS one
LEFT JOIN erasure_retraction_version v ON v.topic = %(topic)s
LEFT JOIN erasure_retraction r ON r.topic = %(topic)s AND r.version > %(version)s
LIMIT %(limit)s
"""
_OF_KEYS = """
SELECT DISTINCT ON (key) key, partition, position, version, at FROM erasure_retraction
WHERE topic = %(topic)s AND key = ANY (%(keys)s::bytea[]) ORDER BY key, position DESC, version
"""


class PostgresRetractions(RetractionStore):
    """PostgreSQL adapter. Every call runs on the connection of the reader or unit of work that it is given.

    Args:
        tags: makes the MACs of chains, and reports those that are broken.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags
        # Perhaps not the newest, or of a transaction that was rolled back: the statement compares.
        self._seen: dict[Topic, Head] = {}

    @override
    def add(self, work: UnitOfWork, topic: Topic, retractions: Sequence[Retraction]) -> None:
        # Of a key voided twice the later one: it covers all that the earlier one does.
        last = {one.key: one for one in sorted(retractions, key=lambda one: one.position)}
        values: dict[str, Any] = {
            "lock": _LOCK_CLASS,
            "topic": str(topic),
            "keys": list(last),
            "partitions": [one.partition for one in last.values()],
            "positions": [one.position for one in last.values()],
        }
        head = self._seen.get(topic, NO_RETRACTIONS)
        while True:
            chain = _chain(self._tags, topic, head.version + 1, head.chain, last.values())
            of_head = {"version": head.version, "chain": head.chain, "next": chain}
            row = connection_of(work).exec_driver_sql(_ADD, values | of_head).one()
            if row.added:
                self._seen[topic] = Head(head.version + 1, chain)
                return
            head = _head(row.version, row.chain)  # the lock is held: it is the same the next time

    @override
    def incomplete(self, reader: Reader) -> list[Topic]:
        return list(map(Topic.parse, connection_of(reader).exec_driver_sql(_INCOMPLETE).scalars()))

    @override
    def complete(self, work: UnitOfWork, topic: Topic) -> None:
        connection_of(work).exec_driver_sql(_COMPLETE, {"topic": str(topic)})

    @override
    def join(self, work: UnitOfWork, topic: Topic) -> Head:
        values = {"lock": _LOCK_CLASS, "topic": str(topic)}
        row = connection_of(work).exec_driver_sql(_JOIN, values).one()
        head = self._seen[topic] = _head(row.version, row.chain)
        return head

    @override
    def newer(self, reader: Reader, topic: Topic, after: Head, limit: int) -> tuple[list[StoredRetraction], Head]:
        values = {"topic": str(topic), "version": after.version, "limit": limit}
        rows = connection_of(reader).exec_driver_sql(_NEWER, values).all()
        head = _head(rows[0].newest, rows[0].chain)
        found = sorted((_stored(row) for row in rows if row.key is not None), key=lambda one: (one.version, one.key))
        if len(found) >= limit:
            return [*found], head
        chain = after.chain
        for version, group in groupby(found, key=lambda one: one.version):
            chain = _chain(self._tags, topic, version, chain, group)
        if chain != head.chain or head.version < after.version:
            raise self._tags.put_back(retraction_version, {"topic": str(topic)})
        last = {one.key: one for one in sorted(found, key=lambda one: (one.position, -one.version))}
        return list(last.values()), head

    @override
    def of_keys(self, reader: Reader, topic: Topic, keys: Sequence[bytes]) -> list[StoredRetraction]:
        values = {"topic": str(topic), "keys": list(set(keys))}
        return list(map(_stored, connection_of(reader).exec_driver_sql(_OF_KEYS, values)))


def _chain(tags: RowTags, topic: Topic, version: int, before: bytes, retractions: Iterable[Retraction]) -> bytes:
    """Return the MAC over a version's retractions and the MAC before it (empty for the first), 32 bytes."""
    name = str(topic).encode()
    parts = [len(name).to_bytes(2), name, version.to_bytes(8), len(before).to_bytes(1), before]
    for one in sorted(retractions, key=lambda one: one.key):
        parts += (len(one.key).to_bytes(1), one.key, one.partition.to_bytes(2), one.position.to_bytes(8, signed=True))
    return tags.mac("erasure", b"retractions\0" + b"".join(parts))


def chain_existing(work: UnitOfWork, tags: RowTags) -> int:
    """Make the chains of the retractions that were there before chains, as they are; return how many there are."""
    connection, number = connection_of(work), 0
    for name in connection.exec_driver_sql("SELECT topic FROM erasure_retraction_version").scalars().all():
        rows = connection.exec_driver_sql(_EXISTING, {"topic": name})
        chain = b""
        for version, group in groupby(map(_stored, rows), key=lambda one: one.version):
            retractions = list(group)
            number += len(retractions)
            chain = _chain(tags, Topic.parse(name), version, chain, retractions)
        connection.exec_driver_sql(_SET_CHAIN, {"topic": name, "chain": chain or None})
    return number


def _head(version: int | None, chain: Any) -> Head:
    return Head(version or 0, b"" if chain is None else bytes(chain))


def _stored(row: Any) -> StoredRetraction:
    return StoredRetraction(
        key=bytes(row.key), partition=row.partition, position=row.position, version=row.version, at=row.at
    )

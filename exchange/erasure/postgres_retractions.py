"""PostgreSQL adapter of the retractions.

An advisory lock of the topic orders retractions and releases, since a topic has no row before its first retraction.
PostgreSQL serves waiters in turn, so a steady flow of releases (shared locks) cannot hold a retraction back.
"""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from exchange.erasure.retractions import Retraction, RetractionStore, StoredRetraction
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.names import Topic

__all__ = ["PostgresRetractions"]

_LOCK_CLASS = 1_163_022_917  # of these advisory locks; no other code uses it

# The lock is a statement of its own: one that waits for a lock still sees the tables as they were before the wait.
_ADD = """
SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(topic)s));
INSERT INTO erasure_retraction_version AS v (topic, version) VALUES (%(topic)s, 1)
ON CONFLICT (topic) DO UPDATE SET version = v.version + 1;
INSERT INTO erasure_retraction AS r (topic, key, partition, position, version, at)
SELECT %(topic)s, new.key, new.partition, new.position,
    (SELECT version FROM erasure_retraction_version WHERE topic = %(topic)s),
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM unnest(%(keys)s::bytea[], %(partitions)s::smallint[], %(positions)s::bigint[]) AS new (key, partition, position)
ON CONFLICT (topic, key) DO UPDATE
SET partition = excluded.partition, position = excluded.position, version = excluded.version, at = excluded.at
WHERE r.position < excluded.position
"""

_JOIN = """
SELECT pg_advisory_xact_lock_shared(%(lock)s, hashtext(%(topic)s));
SELECT coalesce((SELECT version FROM erasure_retraction_version WHERE topic = %(topic)s), 0)
"""

_INCOMPLETE = "SELECT topic FROM erasure_retraction_version WHERE NOT complete ORDER BY topic"
_COMPLETE = "UPDATE erasure_retraction_version SET complete = true WHERE topic = %(topic)s"
_COLUMNS = "SELECT key, partition, position, version, at FROM erasure_retraction"
_NEWER = f"{_COLUMNS} WHERE topic = %(topic)s AND version > %(version)s LIMIT %(limit)s"
_OF_KEYS = f"{_COLUMNS} WHERE topic = %(topic)s AND key = ANY (%(keys)s::bytea[])"


class PostgresRetractions(RetractionStore):
    """PostgreSQL adapter. Every call runs on the connection of the reader or unit of work that it is given."""

    @override
    def add(self, work: UnitOfWork, topic: Topic, retractions: Sequence[Retraction]) -> None:
        # Of a key voided twice the later one: a statement may not change a row twice.
        last = {one.key: one for one in sorted(retractions, key=lambda one: one.position)}
        values: dict[str, Any] = {
            "lock": _LOCK_CLASS,
            "topic": str(topic),
            "keys": list(last),
            "partitions": [one.partition for one in last.values()],
            "positions": [one.position for one in last.values()],
        }
        connection_of(work).exec_driver_sql(_ADD, values)

    @override
    def incomplete(self, reader: Reader) -> list[Topic]:
        return list(map(Topic.parse, connection_of(reader).exec_driver_sql(_INCOMPLETE).scalars()))

    @override
    def complete(self, work: UnitOfWork, topic: Topic) -> None:
        connection_of(work).exec_driver_sql(_COMPLETE, {"topic": str(topic)})

    @override
    def join(self, work: UnitOfWork, topic: Topic) -> int:
        values = {"lock": _LOCK_CLASS, "topic": str(topic)}
        version: int = connection_of(work).exec_driver_sql(_JOIN, values).scalar_one()
        return version

    @override
    def newer(self, reader: Reader, topic: Topic, version: int, limit: int) -> list[StoredRetraction]:
        values = {"topic": str(topic), "version": version, "limit": limit}
        return list(map(_stored, connection_of(reader).exec_driver_sql(_NEWER, values)))

    @override
    def of_keys(self, reader: Reader, topic: Topic, keys: Sequence[bytes]) -> list[StoredRetraction]:
        values = {"topic": str(topic), "keys": list(set(keys))}
        return list(map(_stored, connection_of(reader).exec_driver_sql(_OF_KEYS, values)))


def _stored(row: Any) -> StoredRetraction:
    return StoredRetraction(
        key=bytes(row.key), partition=row.partition, position=row.position, version=row.version, at=row.at
    )

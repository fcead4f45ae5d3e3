"""The outbox in PostgreSQL, and who empties it: one process at a time, whichever comes first."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from typing_extensions import override

from registry.postgres.subjects import PostgresSubjects, joining, transaction
from registry.postgres.tables import outbox as table
from registry.postgres.tables import reference, schema, subject, version
from registry.schemas_topic.outbox import Outbox, snapshot_records
from registry.schemas_topic.records import Record

__all__ = ["PostgresOutbox"]

_TURN = 0x5C4E_3A50  # an advisory lock's number; nobody else's in this database


class PostgresOutbox(Outbox):
    """See `registry.schemas_topic.outbox.Outbox`.

    Args:
        engine: connections to a database with the tables of `registry.postgres.tables`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @override
    def append(self, records: Iterable[Record]) -> None:
        rows = [{"key": record.key, "value": record.value} for record in records]
        if rows:
            with transaction(self._engine) as connection:
                connection.execute(sa.insert(table), rows)

    @override
    def waiting(self, limit: int) -> list[tuple[int, Record]]:
        oldest = sa.select(table).order_by(table.c.number).limit(limit)
        with transaction(self._engine) as connection:
            return [(row.number, Record(row.key, row.value)) for row in connection.execute(oldest)]

    @override
    def sent(self, numbers: Sequence[int]) -> None:
        with transaction(self._engine) as connection:
            connection.execute(sa.delete(table).where(table.c.number.in_(list(numbers))))

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Hold the turn of sending until the block ends; gives whether it was to be had.

        What is read and forgotten within is one transaction: a process that dies has sent, but forgotten nothing, and
        the next one sends the same in the same order.
        """
        with transaction(self._engine) as connection, joining(connection):
            yield bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_TURN))).scalar_one())

    def fill(self) -> int:
        """Replace what waits by everything that the registry holds; give the number of records.

        Nobody can change the registry meanwhile, so that no older state follows a newer one.
        """
        with transaction(self._engine) as connection, joining(connection):
            names = ", ".join(each.name for each in (subject, version, schema, reference))
            connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE MODE"))
            connection.execute(sa.delete(table))
            records = list(snapshot_records(PostgresSubjects(self._engine)))
            self.append(records)
            return len(records)

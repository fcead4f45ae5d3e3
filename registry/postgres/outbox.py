"""The outbox in PostgreSQL, and who empties it: one process at a time, whichever comes first."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.postgres.subjects import PostgresSubjects
from registry.postgres.tables import outbox as table
from registry.postgres.tables import reference, schema, subject, version
from registry.schemas_topic.outbox import Outbox, snapshot_records
from registry.schemas_topic.records import Record

__all__ = ["PostgresOutbox"]

_TURN = 0x5C4E_3A50  # an advisory lock's number; nobody else's in this database


class PostgresOutbox(Outbox):
    """The outbox in the table of `registry.postgres.tables`."""

    @override
    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        rows = [{"key": record.key, "value": record.value} for record in records]
        if rows:
            connection_of(work).execute(sa.insert(table), rows)

    @override
    def waiting(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        oldest = sa.select(table).order_by(table.c.number).limit(limit)
        return [(row.number, Record(row.key, row.value)) for row in connection_of(reader).execute(oldest)]

    @override
    def sent(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        connection_of(work).execute(sa.delete(table).where(table.c.number.in_(list(numbers))))

    def take_turn(self, work: UnitOfWork) -> bool:
        """Take the turn of sending until the transaction ends; return whether it was free (an advisory lock).

        What is read and removed in that transaction is removed only once it is sent: a process that dies has sent, but
        removed nothing, and the next one sends the same in the same order.
        """
        lock = sa.select(sa.func.pg_try_advisory_xact_lock(_TURN))
        return bool(connection_of(work).execute(lock).scalar_one())

    def fill(self, work: UnitOfWork) -> int:
        """Replace what waits by everything that the registry holds; return the number of records.

        The tables are locked against changes meanwhile, so that no older state follows a newer one.
        """
        connection = connection_of(work)
        names = ", ".join(each.name for each in (subject, version, schema, reference))
        connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE MODE"))
        connection.execute(sa.delete(table))
        records = list(snapshot_records(PostgresSubjects(), work))
        self.append(work, records)
        return len(records)

"""PostgreSQL adapter of the outbox; an advisory lock lets one process at a time send it."""

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

_LOCK = 0x5C4E_3A50  # number of the advisory lock; unique in this database


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

    def try_lock(self, work: UnitOfWork) -> bool:
        """Take the advisory lock of the sender until the transaction ends; return whether it was free.

        Records are deleted in that transaction, after they are sent: a process that dies in between has deleted
        nothing, and the next one sends the same records in the same order.
        """
        lock = sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))
        return bool(connection_of(work).execute(lock).scalar_one())

    def fill(self, work: UnitOfWork) -> int:
        """Replace the waiting records by everything that the registry contains; return the number of records.

        The tables are locked against changes meanwhile, so that no older state follows a newer one.
        """
        connection = connection_of(work)
        names = ", ".join(each.name for each in (subject, version, schema, reference))
        connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE MODE"))
        connection.execute(sa.delete(table))
        records = list(snapshot_records(PostgresSubjects(), work))
        self.append(work, records)
        return len(records)

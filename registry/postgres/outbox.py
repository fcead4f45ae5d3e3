"""PostgreSQL adapter of the outbox; an advisory lock lets one process at a time send its records."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from typing_extensions import override

from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.postgres import statements
from registry.postgres.subjects import PostgresSubjects
from registry.postgres.tables import outbox as table
from registry.schemas_topic.outbox import Outbox, snapshot_records
from registry.schemas_topic.records import Record

__all__ = ["PostgresOutbox"]


class PostgresOutbox(Outbox):
    """Outbox in the table `registry_outbox`.

    Args:
        subjects: what a snapshot is made of.
    """

    def __init__(self, subjects: PostgresSubjects) -> None:
        self._subjects = subjects

    @override
    def append(self, work: UnitOfWork, records: Iterable[Record]) -> None:
        rows = [{"key": record.key, "value": record.value} for record in records]
        if rows:
            connection_of(work).execute(sa.insert(table), rows)

    @override
    def pending(self, reader: Reader, limit: int) -> list[tuple[int, Record]]:
        oldest = sa.select(table).order_by(table.c.number).limit(limit)
        return [(row.number, Record(row.key, row.value)) for row in connection_of(reader).execute(oldest)]

    @override
    def remove(self, work: UnitOfWork, numbers: Sequence[int]) -> None:
        connection_of(work).execute(sa.delete(table).where(table.c.number.in_(list(numbers))))

    def try_lock(self, work: UnitOfWork) -> bool:
        """Lock the outbox for sending until the transaction ends; return whether it was free.

        The records that the transaction reads are removed only when it commits, after they were sent: a process that
        dies has sent them, but removed none, and the next one sends the same in the same order (at least once).
        """
        return bool(connection_of(work).execute(statements.TRY_SENDER_LOCK).scalar_one())

    def fill(self, work: UnitOfWork) -> int:
        """Replace the pending records by a snapshot of the registry; return their number.

        The tables are locked against changes meanwhile, so that no older state follows a newer one.
        """
        connection = connection_of(work)
        connection.execute(statements.LOCK_TABLES)
        connection.execute(sa.delete(table))
        records = list(snapshot_records(self._subjects, work))
        self.append(work, records)
        return len(records)

"""PostgreSQL adapter of the erasures; every row carries a tag, as two persons' decision stands in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.erasure.erasures import Erasure, ErasureState, ErasureStore, not_allowed
from exchange.erasure.tables import request as table
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.names import Topic

__all__ = ["PostgresErasures"]


class PostgresErasures(ErasureStore):
    """Store of erasures in the table `erasure_request`.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def add(self, work: UnitOfWork, erasure: Erasure) -> None:
        self._tags.insert(work, table, {"id": erasure.id, **_columns(erasure)})

    @override
    def change(self, work: UnitOfWork, changed: Erasure, expected: ErasureState) -> None:
        # The row's lock orders concurrent changes; the second finds another state.
        current = (table.c.id == changed.id) & (table.c.state == expected.value)
        if len(self._tags.change(work, table, current, _columns(changed))) != 1:
            raise not_allowed(changed)

    @override
    def get(self, reader: Reader, erasure_id: str) -> Erasure | None:
        row = connection_of(reader).execute(sa.select(table).where(table.c.id == erasure_id)).one_or_none()
        return None if row is None else _erasure(self._tags.checked(table, row))

    @override
    def list(self, reader: Reader, state: ErasureState | None = None) -> Sequence[Erasure]:
        statement = sa.select(table).order_by(table.c.id)
        if state is not None:
            statement = statement.where(table.c.state == state.value)
        return [_erasure(row) for row in self._tags.valid(table, connection_of(reader).execute(statement))]

    @override
    def page(self, reader: Reader, *, after: str, limit: int) -> Sequence[Erasure | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            statement = sa.select(table).where(table.c.id > key).order_by(table.c.id).limit(most)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> Sequence[Erasure | DamagedRow]:
            return self._tags.listed(table, rows, _erasure, lambda row: DamagedRow.of(id=row["id"], about=row["topic"]))

        return collect(read, keep, lambda row: str(row.id), after=after, limit=limit)


def _columns(erasure: Erasure) -> dict[str, Any]:
    return {
        "topic": str(erasure.topic),
        "key": erasure.key,
        "partition": erasure.partition,
        "reason": erasure.reason,
        "state": erasure.state.value,
        "proposed_by": erasure.proposed_by,
        "proposed_at": erasure.proposed_at,
        "decided_by": erasure.decided_by,
        "decided_at": erasure.decided_at,
        "before": erasure.before,
        "destroyed": erasure.destroyed,
        "done_at": erasure.done_at,
    }


def _erasure(row: Mapping[str, Any]) -> Erasure:
    return Erasure(
        id=row["id"],
        topic=Topic.parse(row["topic"]),
        key=bytes(row["key"]),
        partition=row["partition"],
        reason=row["reason"],
        state=ErasureState(row["state"]),
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        before=row["before"],
        destroyed=row["destroyed"],
        done_at=row["done_at"],
    )

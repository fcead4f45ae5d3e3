"""PostgreSQL adapter of rule changes; every row carries a tag, as two persons' decision stands in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.deadlines.changes import ChangeState, RuleChange, RuleChangeStore, RuleKind, decided_before
from exchange.deadlines.tables import change as table
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of

__all__ = ["PostgresRuleChanges"]

# A subject need not have a row yet that could be locked.
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('deadline-rule-change/' || :kind, 0))")


class PostgresRuleChanges(RuleChangeStore):
    """Store of rule changes in the table `deadline_rule_change`.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def add(self, work: UnitOfWork, change: RuleChange) -> None:
        values = {
            "id": change.id,
            "kind": change.kind.value,
            "subject": change.subject,
            "content": change.content,
            "state": change.state.value,
            "proposed_by": change.proposed_by,
            "proposed_at": change.proposed_at,
            "decided_by": change.decided_by,
            "decided_at": change.decided_at,
            "reason": change.reason,
        }
        self._tags.insert(work, table, values)

    @override
    def decide(self, work: UnitOfWork, change: RuleChange) -> None:
        connection_of(work).execute(_LOCK, {"kind": change.kind.value})
        if change.state is ChangeState.IN_FORCE:
            earlier = (
                (table.c.kind == change.kind.value)
                & (table.c.subject == change.subject)
                & (table.c.state == ChangeState.IN_FORCE.value)
            )
            self._tags.change(work, table, earlier, {"state": ChangeState.SUPERSEDED.value})
        values = {
            "state": change.state.value,
            "decided_by": change.decided_by,
            "decided_at": change.decided_at,
            "reason": change.reason,
        }
        proposed = (table.c.id == change.id) & (table.c.state == ChangeState.PROPOSED.value)
        if len(self._tags.change(work, table, proposed, values)) != 1:
            raise decided_before(self.get(work, change.id) or change)

    @override
    def get(self, reader: Reader, change_id: str) -> RuleChange | None:
        row = connection_of(reader).execute(sa.select(table).where(table.c.id == change_id)).one_or_none()
        return None if row is None else _read(self._tags.checked(table, row))

    @override
    def in_force(self, reader: Reader) -> Sequence[RuleChange]:
        statement = (
            sa.select(table)
            .where(table.c.state == ChangeState.IN_FORCE.value)
            .order_by(sa.collate(table.c.kind, "C"), table.c.subject)
        )
        return [_read(self._tags.checked(table, row)) for row in connection_of(reader).execute(statement)]

    @override
    def page(
        self,
        reader: Reader,
        *,
        kind: RuleKind | None = None,
        state: ChangeState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[RuleChange | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            statement = sa.select(table).order_by(table.c.id.desc()).limit(most)
            if key:
                statement = statement.where(table.c.id < key)
            if kind is not None:
                statement = statement.where(table.c.kind == kind.value)
            if state is not None:
                statement = statement.where(table.c.state == state.value)
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> Sequence[RuleChange | DamagedRow]:
            return self._tags.listed(table, rows, _read, lambda row: DamagedRow.of(id=row["id"]))

        return collect(read, keep, lambda row: str(row.id), after=before, limit=limit)


def _read(row: Mapping[str, Any]) -> RuleChange:
    return RuleChange(
        id=row["id"],
        kind=RuleKind(row["kind"]),
        subject=row["subject"],
        content=row["content"],
        state=ChangeState(row["state"]),
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        reason=row["reason"],
    )

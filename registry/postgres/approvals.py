"""PostgreSQL adapter of the store of approvals."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from registry.governance.approvals import Approval, ApprovalState, ApprovalStore
from registry.postgres.tables import approval as table

__all__ = ["PostgresApprovals"]


class PostgresApprovals(ApprovalStore):
    """Store of requests in the table `registry_approval`; every row carries a tag.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def add(self, work: UnitOfWork, approval: Approval) -> None:
        self._tags.insert(work, table, {"id": approval.id, **_columns(approval)})

    @override
    def transition(self, work: UnitOfWork, approval: Approval, expected: ApprovalState) -> bool:
        # The row's lock orders concurrent transitions; the second finds another state.
        current = (table.c.id == approval.id) & (table.c.state == expected.value)
        return len(self._tags.change(work, table, current, _columns(approval))) == 1

    @override
    def get(self, reader: Reader, approval_id: str) -> Approval | None:
        row = connection_of(reader).execute(sa.select(table).where(table.c.id == approval_id)).one_or_none()
        return None if row is None else _approval(self._tags.checked(table, row))

    @override
    def find(
        self,
        reader: Reader,
        *,
        subject: str | None = None,
        state: ApprovalState | None = None,
        fingerprint: bytes | None = None,
    ) -> list[Approval]:
        rows = _rows(reader, subject, state, fingerprint)
        return [_approval(row) for row in self._tags.valid(table, rows)]

    @override
    def listed(
        self, reader: Reader, *, subject: str | None = None, state: ApprovalState | None = None
    ) -> list[Approval | DamagedRow]:
        rows = _rows(reader, subject, state, None)
        return self._tags.listed(table, rows, _approval, lambda row: DamagedRow.of(id=row["id"], about=row["subject"]))


def _rows(reader: Reader, subject: str | None, state: ApprovalState | None, fingerprint: bytes | None) -> Iterable[Any]:
    statement = sa.select(table).order_by(table.c.id)
    if subject is not None:
        statement = statement.where(table.c.subject == subject)
    if state is not None:
        statement = statement.where(table.c.state == state.value)
    if fingerprint is not None:
        statement = statement.where(table.c.shape == fingerprint)
    return connection_of(reader).execute(statement)


def _columns(approval: Approval) -> dict[str, Any]:
    return {
        "subject": approval.subject,
        "shape": approval.fingerprint,
        "text": approval.text,
        "findings": json.dumps(approval.findings, ensure_ascii=False),
        "because": approval.reason,
        "asked_by": approval.asked_by,
        "asked_at": approval.asked_at,
        "state": approval.state.value,
        "decided_by": approval.decided_by,
        "decided_at": approval.decided_at,
        "answer": approval.answer,
    }


def _approval(row: Mapping[str, Any]) -> Approval:
    return Approval(
        id=row["id"],
        subject=row["subject"],
        fingerprint=bytes(row["shape"]),
        text=row["text"],
        findings=tuple(json.loads(row["findings"])),
        reason=row["because"],
        asked_by=row["asked_by"],
        asked_at=row["asked_at"],
        state=ApprovalState(row["state"]),
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        answer=row["answer"],
    )

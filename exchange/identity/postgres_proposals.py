"""PostgreSQL adapter of the proposals of accounts and invitations."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.identity.postgres import metadata
from exchange.identity.proposals import Proposal, ProposalKind, ProposalState, ProposalStore
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of
from schemas.access import Role

__all__ = ["PostgresProposals", "metadata"]

_ID = sa.Text(collation="C")
_MOMENT = sa.DateTime(timezone=True)

_proposal = sa.Table(
    "identity_proposal",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("department", _ID, nullable=False),
    sa.Column("subject", _ID, nullable=False),
    sa.Column("role", sa.Text),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("proposed_by", sa.Text, nullable=False),
    sa.Column("proposed_at", _MOMENT, nullable=False),
    sa.Column("expires_at", _MOMENT, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", _MOMENT),
    sa.Column("reason", sa.Text, nullable=False),
    *tag_columns(),
    sa.CheckConstraint("state <> 'confirmed' OR decided_by <> proposed_by", name="identity_proposal_two_persons"),
    sa.Index("identity_proposal_department", "department", "state"),
    info=tagged("identity"),
)


class PostgresProposals(ProposalStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def add(self, work: UnitOfWork, proposal: Proposal) -> None:
        values = {
            "id": proposal.id,
            "kind": proposal.kind.value,
            "department": proposal.department,
            "subject": proposal.subject,
            "role": None if proposal.role is None else proposal.role.value,
            "person": proposal.person,
            "digest": proposal.digest,
            "proposed_by": proposal.proposed_by,
            "proposed_at": proposal.proposed_at,
            "expires_at": proposal.expires_at,
            "state": proposal.state.value,
            "decided_by": proposal.decided_by,
            "decided_at": proposal.decided_at,
            "reason": proposal.reason,
        }
        self._tags.insert(work, _proposal, values)

    @override
    def decide(self, work: UnitOfWork, proposal: Proposal) -> bool:
        values = {
            "state": proposal.state.value,
            "decided_by": proposal.decided_by,
            "decided_at": proposal.decided_at,
            "reason": proposal.reason,
        }
        still_open = (_proposal.c.id == proposal.id) & (_proposal.c.state == ProposalState.OPEN.value)
        return len(self._tags.change(work, _proposal, still_open, values)) == 1

    @override
    def get(self, reader: Reader, proposal_id: str) -> Proposal | None:
        row = connection_of(reader).execute(sa.select(_proposal).where(_proposal.c.id == proposal_id)).one_or_none()
        return None if row is None else _read(self._tags.checked(_proposal, row))

    @override
    def find(
        self,
        reader: Reader,
        *,
        department: str | None = None,
        state: ProposalState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[Proposal]:
        def keep(rows: Sequence[Any]) -> list[Proposal]:
            return [_read(row) for row in self._tags.valid(_proposal, rows)]

        read = partial(_rows, reader, department, state)
        return collect(read, keep, lambda row: str(row.id), after=before, limit=limit)

    @override
    def page(
        self,
        reader: Reader,
        *,
        department: str | None = None,
        state: ProposalState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[Proposal | DamagedRow]:
        def keep(rows: Sequence[Any]) -> list[Proposal | DamagedRow]:
            return self._tags.listed(_proposal, rows, _read, lambda row: DamagedRow.of(id=row["id"]))

        read = partial(_rows, reader, department, state)
        return collect(read, keep, lambda row: str(row.id), after=before, limit=limit)


def _rows(reader: Reader, department: str | None, state: ProposalState | None, before: str, most: int) -> Sequence[Any]:
    statement = sa.select(_proposal).order_by(_proposal.c.id.desc()).limit(most)
    if before:
        statement = statement.where(_proposal.c.id < before)
    if department is not None:
        statement = statement.where(_proposal.c.department == department)
    if state is not None:
        statement = statement.where(_proposal.c.state == state.value)
    return connection_of(reader).execute(statement).all()


def _read(row: Mapping[str, Any]) -> Proposal:
    return Proposal(
        id=row["id"],
        kind=ProposalKind(row["kind"]),
        department=row["department"],
        subject=row["subject"],
        role=None if row["role"] is None else Role(row["role"]),
        person=row["person"],
        digest=bytes(row["digest"]),
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        expires_at=row["expires_at"],
        state=ProposalState(row["state"]),
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        reason=row["reason"],
    )

"""Calendars and rule profiles that two persons confirm (ADR 0091)."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "deadline_rule_change",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(collation="C"), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(32)),
        sa.CheckConstraint(
            "state NOT IN ('in_force', 'superseded') OR decided_by <> proposed_by",
            name="deadline_rule_change_two_persons",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "deadline_rule_change_in_force",
        "deadline_rule_change",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("state = 'in_force'"),
    )

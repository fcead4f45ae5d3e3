"""Correction tickets, and the notices that follow (ADR 0096)."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_IS_OPEN = "state IN ('corrected', 'opened', 'verifying')"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "correction_ticket",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("topic", sa.Text(collation="C"), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("raiser", sa.Text(collation="C"), nullable=False),
        sa.Column("raised_by", sa.Text(), nullable=False),
        sa.Column("record_key", sa.LargeBinary(), nullable=False),
        sa.Column("claim", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(collation="C"), nullable=False),
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("state", sa.Text(collation="C"), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("overdue_at", sa.DateTime(timezone=True)),
        sa.Column("transfers", sa.Integer(), nullable=False),
        sa.Column("reported_by", sa.Text(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("correct_generation", sa.Integer()),
        sa.Column("correct_position", sa.BigInteger()),
        sa.Column("correction_entry", sa.Text(), nullable=False),
        sa.Column("told", sa.Integer()),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32)),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "correction_ticket_once",
        "correction_ticket",
        ["grant_id", "record", "field"],
        unique=True,
        postgresql_where=sa.text(_IS_OPEN),
    )
    op.create_index("correction_ticket_record", "correction_ticket", ["topic", "record"])
    op.create_index("correction_ticket_raiser", "correction_ticket", ["raiser", "id"])
    op.create_index("correction_ticket_source", "correction_ticket", ["source", "id"])
    op.create_index("correction_ticket_provider", "correction_ticket", ["provider", "id"])
    op.create_index("correction_ticket_open", "correction_ticket", ["id"], postgresql_where=sa.text(_IS_OPEN))
    op.create_table(
        "correction_notice",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("ticket", sa.Text(collation="C"), nullable=False),
        sa.Column("topic", sa.Text(collation="C"), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("consumer", sa.Text(collation="C"), nullable=False),
        sa.Column("record_key", sa.LargeBinary(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_by", sa.Text(), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32)),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("correction_notice_ticket", "correction_notice", ["ticket", "grant_id"], unique=True)
    op.create_index("correction_notice_consumer", "correction_notice", ["consumer", "id"])

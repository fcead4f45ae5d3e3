"""Approvals of what a registration takes back, and the outbox to a topic of schemas."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "registry_approval",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("shape", sa.LargeBinary(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.CheckConstraint("decided_by <> asked_by OR decided_by = ''", name="registry_approval_two_people"),
        sa.PrimaryKeyConstraint("id"),
        comment="requests to take a classification back, and what became of them",
    )
    op.create_index("registry_approval_subject", "registry_approval", ["subject", "state"], unique=False)
    op.create_table(
        "registry_outbox",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        comment="changes that are not on the topic yet, written with the change itself",
    )

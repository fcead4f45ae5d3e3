"""Reports of connectors, and indexes for the lists of connectors and invitations (ADR 0076)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "identity_report",
        sa.Column("department", sa.Text(collation="C"), nullable=False),
        sa.Column("connector", sa.Text(collation="C"), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("program", sa.Text(), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", pg.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("department", "connector"),
    )
    # In the place of the index of holders, whose columns it begins with.
    op.create_index(
        "identity_certificate_newest",
        "identity_certificate",
        ["department", "connector", "not_after", "serial"],
        unique=False,
    )
    op.drop_index("identity_certificate_holder", table_name="identity_certificate")
    op.create_index("identity_invitation_made", "identity_invitation", ["created_at", "digest"], unique=False)
    op.create_index(
        "identity_invitation_department", "identity_invitation", ["department", "created_at", "digest"], unique=False
    )

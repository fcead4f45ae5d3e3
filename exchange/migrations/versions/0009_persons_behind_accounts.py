"""Accounts name their person and their tokens end; proposals of one person that another confirms.

Accounts that are there name no person yet, and their tokens end 90 days from now. The first account's token, which was a
data authority's, adds the first two data authorities that name their persons, and nothing else any more. Their rows get
their first tags after this.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column("identity_account", sa.Column("person", sa.Text(), nullable=False, server_default=""))
    op.alter_column("identity_account", "person", server_default=None)
    op.add_column("identity_account", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE identity_account SET expires_at = now() + INTERVAL '90 days'")
    op.alter_column("identity_account", "expires_at", nullable=False)
    op.execute("UPDATE identity_account SET role = 'bootstrap' WHERE name = 'bootstrap' AND created_by = 'init'")
    op.create_table(
        "identity_account_use",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "identity_proposal",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("department", sa.Text(collation="C"), nullable=False),
        sa.Column("subject", sa.Text(collation="C"), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.CheckConstraint("state <> 'confirmed' OR decided_by <> proposed_by", name="identity_proposal_two_persons"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("identity_proposal_department", "identity_proposal", ["department", "state"], unique=False)

"""Share requests beside their grants (ADR 0094)."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "share_request",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("consumer", sa.Text(collation="C"), nullable=False),
        sa.Column("provider", sa.Text(collation="C"), nullable=False),
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("state", sa.Text(collation="C"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("share_request_state", "share_request", ["state", "id"])
    op.create_index("share_request_consumer", "share_request", ["consumer", "id"])
    op.create_index("share_request_provider", "share_request", ["provider", "id"])

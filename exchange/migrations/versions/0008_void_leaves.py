"""Leaf hashes of voids beside the receipts: a stored batch with voids can be compared with its entry."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column("audit_receipt", sa.Column("void_leaves", sa.LargeBinary(), nullable=True))

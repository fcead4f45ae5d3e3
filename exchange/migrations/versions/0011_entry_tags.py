"""Tags of entries, and the processes that write them; `pool migrate` tags entries that still wait (ADR 0055)."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "audit_process",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("process"),
    )
    op.add_column("audit_entry", sa.Column("tag", sa.LargeBinary(length=32), nullable=True))
    op.add_column("audit_entry", sa.Column("refused", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_index("audit_entry_waiting", table_name="audit_entry")
    op.create_index(
        "audit_entry_waiting",
        "audit_entry",
        ["seq"],
        unique=False,
        postgresql_where=sa.text("leaf_index IS NULL AND NOT refused"),
    )

"""Violation cases, and how far the log was read for them (ADR 0097)."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "violation_case",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("occurrence", sa.Text(collation="C"), nullable=False),
        sa.Column("respondent", sa.Text(collation="C"), nullable=False),
        sa.Column("reporter", sa.Text(collation="C"), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("occurrence"),
    )
    op.create_index("violation_case_respondent", "violation_case", ["respondent", "id"])
    op.create_index(
        "violation_case_reporter", "violation_case", ["reporter", "id"], postgresql_where=sa.text("reporter <> ''")
    )
    op.create_index("violation_case_open", "violation_case", ["id"], postgresql_where=sa.text("state <> 'closed'"))
    op.create_index(
        "violation_case_grant", "violation_case", ["grant_id", "id"], postgresql_where=sa.text("grant_id <> ''")
    )
    op.create_table(
        "violation_log_position",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )

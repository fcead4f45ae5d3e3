"""Retractions: values of a voided key that are not released again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "erasure_retraction_version",
        sa.Column("topic", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic"),
    )
    op.create_table(
        "erasure_retraction",
        sa.Column("topic", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="pseudonym, 16 bytes"),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=False, comment="of the void: values before it are not released"
        ),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False, comment="microseconds UTC, the database's clock"),
        sa.PrimaryKeyConstraint("topic", "key"),
    )
    op.create_index("erasure_retraction_version_of_topic", "erasure_retraction", ["topic", "version"], unique=False)

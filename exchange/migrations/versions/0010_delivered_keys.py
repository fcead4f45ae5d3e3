"""Delivered keys: what a grant delivered, so that a withdrawal names nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column(
        "access_position",
        sa.Column("tracked", sa.LargeBinary(), server_default="", nullable=False, comment="generation and offsets"),
    )
    op.add_column(
        "access_position",
        sa.Column(
            "runs", sa.BigInteger(), server_default="0", nullable=False, comment="the last one of access_delivered"
        ),
    )
    op.create_table(
        "access_delivered",
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), autoincrement=False, nullable=False, comment="number of a release"),
        sa.Column("first", sa.BigInteger(), nullable=False, comment="less than `last` where several were merged"),
        sa.Column(
            "events",
            sa.LargeBinary(),
            nullable=False,
            comment="24 bytes each: keys, offsets, delivered or withdrawn",
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["access_grant.id"]),
        sa.PrimaryKeyConstraint("grant_id", "generation", "last"),
    )
    op.execute("ALTER TABLE access_delivered ALTER COLUMN events SET STORAGE EXTERNAL")

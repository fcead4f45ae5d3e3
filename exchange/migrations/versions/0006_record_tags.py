"""Tags of the PostgreSQL broker's rows, and the range that each block covers; `pool migrate` makes the first ones."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Go on to this revision."""
    for table in ("broker_topic", "broker_partition"):
        op.add_column(table, sa.Column("tag", sa.LargeBinary(), nullable=True))
    op.add_column(
        "broker_stretch",
        sa.Column("begins", sa.BigInteger(), nullable=True, comment="first offset that the block covers"),
    )
    op.add_column(
        "broker_stretch",
        sa.Column("ends", sa.BigInteger(), nullable=True, comment="last offset that the block covers"),
    )
    op.add_column(
        "broker_stretch",
        sa.Column("digest", sa.LargeBinary(), nullable=True, comment="SHA-256 of the records' bytes"),
    )
    op.add_column("broker_stretch", sa.Column("tag", sa.LargeBinary(), nullable=True))

"""Catalogue records: full metadata of entries, and the versions of their procedure (ADR 0084)."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "registry_catalogue_record",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("name", "major"),
        comment="full metadata of entries, and where each stands in its procedure",
    )
    op.create_index(
        "registry_catalogue_record_state", "registry_catalogue_record", ["state", "name", "major"], unique=False
    )
    op.create_index(
        "registry_catalogue_record_provider", "registry_catalogue_record", ["provider", "name", "major"], unique=False
    )
    op.create_table(
        "registry_catalogue_record_version",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["name", "major"], ["registry_catalogue_record.name", "registry_catalogue_record.major"]
        ),
        sa.PrimaryKeyConstraint("name", "major", "version"),
    )

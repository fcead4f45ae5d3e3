"""Data elements: the dictionary, and which entries are the source of which (ADR 0089)."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "registry_data_element",
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("code"),
        comment="the dictionary of data elements, and the lead department of each",
    )
    op.create_table(
        "registry_element_source",
        sa.Column("element", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("element", "name", "major"),
        comment="which entries in force are the source of which data elements",
    )
    op.create_index("registry_element_source_entry", "registry_element_source", ["name", "major"], unique=False)

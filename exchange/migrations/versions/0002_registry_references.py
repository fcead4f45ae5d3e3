"""Schemas that refer to others, and ids that came by import."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column("registry_schema", sa.Column("twin", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.drop_constraint("registry_schema_key_key", "registry_schema", type_="unique")
    op.create_unique_constraint("registry_schema_content", "registry_schema", ["key", "twin"])
    op.create_table(
        "registry_reference",
        sa.Column("schema_id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["schema_id"], ["registry_schema.id"]),
        sa.PrimaryKeyConstraint("schema_id", "subject", "version"),
        comment="which schemas need which versions: the reverse of registry_schema.reference_list",
    )
    op.create_index("registry_reference_target", "registry_reference", ["subject", "version"], unique=False)

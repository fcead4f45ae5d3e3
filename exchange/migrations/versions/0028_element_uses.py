"""Which schemas use which data elements (ADR 0100)."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Go on to this revision. No schema of before names an element: the attribute is new."""
    op.create_table(
        "registry_element_use",
        sa.Column("element", sa.Text(collation="C"), nullable=False),
        sa.Column("subject", sa.Text(collation="C"), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("element", "subject", "path"),
        comment="which fields of the newest version of a subject name which data elements",
    )
    op.create_index("registry_element_use_subject", "registry_element_use", ["subject"], unique=False)

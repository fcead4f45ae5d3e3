"""Chains of MACs over retractions; a key's earlier retractions stay, so that the chain can be computed again."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column(
        "erasure_retraction_version",
        sa.Column(
            "chain",
            sa.LargeBinary(),
            nullable=True,
            comment="MAC over the newest version's retractions and the MAC before it",
        ),
    )
    op.drop_constraint("erasure_retraction_pkey", "erasure_retraction", type_="primary")
    op.create_primary_key("erasure_retraction_pkey", "erasure_retraction", ["topic", "key", "version"])

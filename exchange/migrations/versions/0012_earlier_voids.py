"""Voids from before retractions: the topics that are there now are read once, before the pool serves."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column(
        "erasure_retraction_version",
        sa.Column(
            "complete",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="every void of the topic is a retraction; false for one from before retractions",
        ),
    )
    op.execute(
        "INSERT INTO erasure_retraction_version (topic, version, complete) "
        "SELECT name || '.v' || major, 0, false FROM registry_catalogue "
        "ON CONFLICT (topic) DO UPDATE SET complete = false"
    )

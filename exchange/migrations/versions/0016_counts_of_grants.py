"""Indexes for counts of grants by department and state (ADR 0069)."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Go on to this revision."""
    for side in ("consumer", "provider"):
        op.create_index(f"access_grant_{side}_state", "access_grant", [side, "state"], unique=False)

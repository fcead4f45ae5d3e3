"""Indexes for lists of grants by state, resource and end (ADR 0069)."""

from alembic import op

revision = "0015"
down_revision = "0014"

_INDEXES = (
    ("access_grant_state", ("state", "id")),
    ("access_grant_expires", ("expires", "id")),
    ("access_grant_consumer_expires", ("consumer", "expires", "id")),
    ("access_grant_provider_expires", ("provider", "expires", "id")),
)


def upgrade() -> None:
    """Go on to this revision."""
    for name, columns in _INDEXES:
        op.create_index(name, "access_grant", [*columns], unique=False)
    op.create_index(
        "access_grant_resource",
        "access_grant",
        ["topic", "id"],
        unique=False,
        postgresql_ops={"topic": "text_pattern_ops"},
    )

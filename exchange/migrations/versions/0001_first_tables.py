"""Everything, as the rooms' metadata has it."""

from alembic import op

from exchange.migrations import METADATA

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go on to this revision."""
    for metadata in METADATA:
        metadata.create_all(op.get_bind())

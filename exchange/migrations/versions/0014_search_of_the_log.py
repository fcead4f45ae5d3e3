"""Columns and indexes for searches of the log by actor, reason, act of control and denial (ADR 0060).

`pool migrate` fills the columns of earlier entries from their leaves.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_OF_CONTROL = (
    "action NOT IN ('exchange:records:publish', 'exchange:lane:resume', 'exchange:records:fetch', "
    "'exchange:records:commit')"
)
_DENIED = "decision = 'deny'"
_INDEXES = (
    ("audit_entry_purpose", ("purpose", "at"), "purpose <> ''"),
    ("audit_entry_actor", ("actor", "at"), None),
    ("audit_entry_act", ("action", "at"), _OF_CONTROL),
    ("audit_entry_department_act", ("actor_department", "action", "at"), _OF_CONTROL),
    ("audit_entry_resource_act", ("resource", "action", "at"), _OF_CONTROL),
    ("audit_entry_denied", ("at",), _DENIED),
    ("audit_entry_denied_by", ("actor_department", "at"), _DENIED),
    ("audit_entry_denied_of", ("resource", "at"), _DENIED),
    ("audit_entry_denied_because", ("reason", "at"), _DENIED),
    ("audit_entry_unfilled", ("seq",), "actor IS NULL"),
)


def upgrade() -> None:
    """Go on to this revision."""
    op.add_column("audit_entry", sa.Column("actor", sa.Text(), nullable=True))
    op.add_column("audit_entry", sa.Column("reason", sa.Text(), nullable=True))
    for name, columns, where in _INDEXES:
        op.create_index(
            name, "audit_entry", [*columns], unique=False, postgresql_where=None if where is None else sa.text(where)
        )

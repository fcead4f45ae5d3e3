"""Table of rule changes: one row a change, of which those in force are the pool's own calendars and profiles."""

import sqlalchemy as sa

from registry.database.row_tags import tag_columns, tagged

__all__ = ["change", "metadata"]

metadata = sa.MetaData()

change = sa.Table(
    "deadline_rule_change",
    metadata,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text(collation="C"), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("proposed_by", sa.Text, nullable=False),
    sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("reason", sa.Text, nullable=False),
    *tag_columns(),
    sa.CheckConstraint(
        "state NOT IN ('in_force', 'superseded') OR decided_by <> proposed_by", name="deadline_rule_change_two_persons"
    ),
    sa.Index(
        "deadline_rule_change_in_force",
        "kind",
        "subject",
        unique=True,
        postgresql_where=sa.text("state = 'in_force'"),
    ),
    info=tagged("access"),
)

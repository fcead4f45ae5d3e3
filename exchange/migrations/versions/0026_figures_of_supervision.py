"""Figures of supervision and events, derived from the log (ADR 0098). The pool fills them from the log by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

_ID = sa.Text(collation="C")


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "kpi_progress",
        sa.Column("name", _ID, nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "kpi_resource",
        sa.Column("resource", _ID, nullable=False),
        sa.Column("provider", _ID, nullable=False),
        sa.PrimaryKeyConstraint("resource"),
    )
    op.create_table(
        "kpi_grant",
        sa.Column("grant_id", _ID, nullable=False),
        sa.Column("consumer", _ID, nullable=False),
        sa.Column("provider", _ID, nullable=False),
        sa.Column("resource", _ID, nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("grant_id"),
    )
    op.create_table(
        "kpi_span",
        sa.Column("grant_id", _ID, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.Uuid(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("consumer", _ID, nullable=False),
        sa.Column("provider", _ID, nullable=False),
        sa.Column("resource", _ID, nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("grant_id", "position"),
    )
    op.create_index("kpi_span_consumer", "kpi_span", ["consumer", "since"])
    op.create_table(
        "kpi_fact",
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("month", _ID, nullable=False),
        sa.Column("department", _ID, nullable=False),
        sa.Column("measure", _ID, nullable=False),
        sa.Column("detail", _ID, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("grant_id", _ID, nullable=False),
        sa.Column("entry", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("position", "ordinal"),
    )
    op.create_index("kpi_fact_figure", "kpi_fact", ["month", "department", "measure", "detail", "position", "ordinal"])
    op.create_index("kpi_fact_drawn", "kpi_fact", ["grant_id", "at"], postgresql_where=sa.text("measure = 'drawn'"))
    op.create_table(
        "kpi_sum",
        sa.Column("month", _ID, nullable=False),
        sa.Column("department", _ID, nullable=False),
        sa.Column("measure", _ID, nullable=False),
        sa.Column("detail", _ID, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", "department", "measure", "detail"),
    )
    op.create_table(
        "supervision_event",
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", _ID, nullable=False),
        sa.Column("department", _ID, nullable=False),
        sa.Column("action", _ID, nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("grant_id", _ID, nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("due", sa.Text(), nullable=False),
        sa.Column("clause", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("position", "ordinal"),
    )
    op.create_index("supervision_event_department", "supervision_event", ["department", "position", "ordinal"])
    op.create_index("supervision_event_kind", "supervision_event", ["kind", "position", "ordinal"])
    op.create_index("supervision_event_both", "supervision_event", ["department", "kind", "position", "ordinal"])

"""Search of the catalogue; the entries that there are get their tokens (ADR 0092)."""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

from registry.catalogue.search import text_vector

revision = "0020"
down_revision = "0019"

_INSERT = sa.text(
    "INSERT INTO registry_catalogue_search"
    " (name, major, provider, share_type, level, state, theme, words, metadata_words) VALUES"
    " (:name, :major, :provider, :share_type, :level, :state, '', CAST(:words AS tsvector), ''::tsvector)"
)


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "registry_catalogue_search",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("share_type", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("theme", sa.Text(), nullable=False),
        sa.Column("words", pg.TSVECTOR(), nullable=False),
        sa.Column("metadata_words", pg.TSVECTOR(), nullable=False),
        sa.PrimaryKeyConstraint("name", "major"),
        comment="texts of catalogue entries as tokens (registry.catalogue.search)",
    )
    for column in ("words", "metadata_words"):
        name = f"registry_catalogue_search_{column}"
        op.create_index(name, "registry_catalogue_search", [column], unique=False, postgresql_using="gin")
    connection = op.get_bind()
    for name, major, body in connection.execute(sa.text("SELECT name, major, body FROM registry_catalogue")).all():
        entry = json.loads(body)
        texts = [("A", entry["title"]), ("B", entry.get("abstract", "")), ("B", f"{name} {entry['code']}")]
        connection.execute(
            _INSERT,
            {
                "name": name,
                "major": major,
                "provider": entry["provider"],
                "share_type": entry["share_type"],
                "level": entry["level"],
                "state": entry["state"],
                "words": text_vector(texts),
            },
        )

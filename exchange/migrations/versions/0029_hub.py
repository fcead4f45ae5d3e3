"""Claims, golden records, keys, rules and positions of the shared-records hub (ADR 0105)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Go on to this revision."""
    _keys_and_claims()
    _golden()
    _reports()
    _positions()
    _rules()


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(collation="C"), nullable=False)


def _tag() -> tuple[sa.Column[int], sa.Column[bytes]]:
    return (
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.LargeBinary(length=32), nullable=True),
    )


def _keys_and_claims() -> None:
    op.create_table(
        "hub_key",
        _bytes("handle"),
        _bytes("wrapped", nullable=True),
        sa.Column("kek", sa.SmallInteger(), nullable=False),
        _number("erased_at", nullable=True),
        sa.PrimaryKeyConstraint("handle"),
    )
    op.create_index("hub_key_month", "hub_key", ["kek", "handle"], postgresql_where=sa.text("wrapped IS NOT NULL"))
    op.create_table(
        "hub_claim",
        _bytes("handle"),
        sa.Column("resource", sa.SmallInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("part", sa.SmallInteger(), nullable=False),
        _number("off"),
        _number("applied"),
        sa.Column("op", sa.SmallInteger(), nullable=False),
        _bytes("item"),
        _number("valid_from", nullable=True),
        _number("valid_to", nullable=True),
        _number("recorded_at"),
        sa.Column("schema", sa.Integer(), nullable=False),
        _bytes("sealed", nullable=True),
        sa.PrimaryKeyConstraint("handle", "resource", "generation", "part", "off"),
    )
    op.create_index("hub_claim_item", "hub_claim", ["resource", "item"])


def _golden() -> None:
    op.create_table(
        "hub_golden",
        _bytes("handle"),
        sa.Column("library", sa.Text(), nullable=False),
        sa.Column("rules", sa.Integer(), nullable=False),
        _number("applied"),
        sa.Column("flags", sa.Integer(), nullable=False),
        _bytes("sealed"),
        _bytes("prov"),
        sa.PrimaryKeyConstraint("handle"),
        postgresql_with={"fillfactor": 85},
    )
    op.create_table(
        "hub_item",
        _name("library"),
        _bytes("item"),
        _bytes("handle"),
        sa.Column("rules", sa.Integer(), nullable=False),
        _number("applied"),
        sa.Column("flags", sa.Integer(), nullable=False),
        _bytes("sealed"),
        _bytes("prov"),
        sa.PrimaryKeyConstraint("library", "item"),
        postgresql_with={"fillfactor": 85},
    )
    op.create_index("hub_item_handle", "hub_item", ["handle", "library"])


def _reports() -> None:
    op.create_table(
        "hub_link",
        _bytes("left_handle"),
        _bytes("right_handle"),
        _bytes("claim"),
        _number("applied"),
        sa.PrimaryKeyConstraint("left_handle", "right_handle"),
    )
    op.create_index("hub_link_right", "hub_link", ["right_handle"])
    op.create_table(
        "hub_conflict",
        _bytes("handle"),
        _name("library"),
        _name("field"),
        _bytes("winner"),
        _bytes("loser"),
        _number("opened"),
        _number("closed", nullable=True),
        sa.PrimaryKeyConstraint("handle", "library", "field", "winner", "loser", "opened"),
    )
    op.create_index("hub_conflict_open", "hub_conflict", ["handle"], postgresql_where=sa.text("closed IS NULL"))
    op.create_table(
        "hub_mark",
        _bytes("handle"),
        _name("library"),
        _name("field"),
        _name("kind"),
        _number("from_applied"),
        _number("to_applied", nullable=True),
        sa.Column("ticket", sa.Text(), nullable=False),
        *_tag(),
        sa.PrimaryKeyConstraint("handle", "library", "field", "kind", "from_applied"),
    )


def _positions() -> None:
    op.create_table(
        "hub_batch",
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        _number("applied"),
        _number("at"),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("bucket", "applied"),
    )
    op.create_table(
        "hub_position",
        _name("grant_id"),
        sa.Column("bucket_group", sa.SmallInteger(), nullable=False),
        _bytes("position"),
        sa.Column("vector", pg.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("grant_id", "bucket_group"),
    )


def _rules() -> None:
    op.create_table(
        "hub_resource",
        _name("name"),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        *_tag(),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("number"),
    )
    op.create_table(
        "hub_rules",
        _name("library"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("procedure", sa.Text(), nullable=False),
        *_tag(),
        sa.PrimaryKeyConstraint("library", "version"),
    )
    op.create_index(
        "hub_rules_active", "hub_rules", ["library"], unique=True, postgresql_where=sa.text("state = 'active'")
    )

"""Tables of the hub. Values and keys of subjects are sealed; who is meant stands nowhere but as a keyed handle.

`hub_claim` and `hub_key` are in every backup; golden records are made again from them. Rows of a sealed value prove
themselves by its authenticated encryption, which covers every column; positions and batches have a MAC of their own,
since they change without an act; what a person decided carries a row tag.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from registry.database.row_tags import derived, proven, tag_columns, tagged

__all__ = [
    "batch",
    "claim",
    "conflict",
    "golden",
    "item",
    "key",
    "link",
    "mark",
    "metadata",
    "position",
    "resource",
    "rules",
]

_ID = sa.Text(collation="C")
_FAMILY = "hub"

metadata = sa.MetaData()


def _handle(name: str = "handle", *, primary: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, primary_key=primary, nullable=False)


key = sa.Table(
    "hub_key",
    metadata,
    _handle(primary=True),
    sa.Column("wrapped", sa.LargeBinary),  # NULL once it is erased
    sa.Column("kek", sa.SmallInteger, nullable=False),
    sa.Column("erased_at", sa.BigInteger),
    sa.Index("hub_key_month", "kek", "handle", postgresql_where=sa.text("wrapped IS NOT NULL")),
    info=proven("a wrapped key is authenticated with its subject and month, and opens what was sealed with it alone"),
)

claim = sa.Table(
    "hub_claim",
    metadata,
    _handle(primary=True),
    sa.Column("resource", sa.SmallInteger, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("part", sa.SmallInteger, primary_key=True),
    sa.Column("off", sa.BigInteger, primary_key=True),
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("op", sa.SmallInteger, nullable=False),
    sa.Column("item", sa.LargeBinary, nullable=False),
    sa.Column("valid_from", sa.BigInteger),
    sa.Column("valid_to", sa.BigInteger),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary),  # NULL where the subject had been erased before the record came
    sa.Index("hub_claim_item", "resource", "item"),
    info=proven("sealed with its subject's key, with every column as associated data"),
)

golden = sa.Table(
    "hub_golden",
    metadata,
    _handle(primary=True),
    sa.Column("library", sa.Text, nullable=False),
    sa.Column("rules", sa.Integer, nullable=False),
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("flags", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("prov", sa.LargeBinary, nullable=False),
    info=proven("sealed with its subject's key, with every column as associated data; made again from the claims"),
    postgresql_with={"fillfactor": 85},
)

item = sa.Table(
    "hub_item",
    metadata,
    sa.Column("library", _ID, primary_key=True),
    sa.Column("item", sa.LargeBinary, primary_key=True),
    _handle(),
    sa.Column("rules", sa.Integer, nullable=False),
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("flags", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("prov", sa.LargeBinary, nullable=False),
    sa.Index("hub_item_handle", "handle", "library"),
    info=proven("sealed with its subject's key, with every column as associated data; made again from the claims"),
    postgresql_with={"fillfactor": 85},
)

link = sa.Table(
    "hub_link",
    metadata,
    _handle("left_handle", primary=True),
    _handle("right_handle", primary=True),
    sa.Column("claim", sa.LargeBinary, nullable=False),
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Index("hub_link_right", "right_handle"),
    info=derived("it says which claims to read together; what joins subjects is in the sealed claims"),
)

conflict = sa.Table(
    "hub_conflict",
    metadata,
    _handle(primary=True),
    sa.Column("library", _ID, primary_key=True),
    sa.Column("field", _ID, primary_key=True),
    sa.Column("winner", sa.LargeBinary, primary_key=True),
    sa.Column("loser", sa.LargeBinary, primary_key=True),
    sa.Column("opened", sa.BigInteger, primary_key=True),
    sa.Column("closed", sa.BigInteger),
    sa.Index("hub_conflict_open", "handle", postgresql_where=sa.text("closed IS NULL")),
    info=derived("a report; whether a field is in conflict stands in the golden record's provenance, which is sealed"),
)

mark = sa.Table(
    "hub_mark",
    metadata,
    _handle(primary=True),
    sa.Column("library", _ID, primary_key=True),
    sa.Column("field", _ID, primary_key=True),
    sa.Column("kind", _ID, primary_key=True),
    sa.Column("from_applied", sa.BigInteger, primary_key=True),
    sa.Column("to_applied", sa.BigInteger),
    sa.Column("ticket", sa.Text, nullable=False),
    *tag_columns(),
    info=tagged(_FAMILY),
)

batch = sa.Table(
    "hub_batch",
    metadata,
    sa.Column("bucket", sa.SmallInteger, primary_key=True),
    sa.Column("applied", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    info=proven("a MAC over it; without one, numbers and times are refused"),
)

position = sa.Table(
    "hub_position",
    metadata,
    sa.Column("grant_id", _ID, primary_key=True),
    sa.Column("bucket_group", sa.SmallInteger, primary_key=True),
    sa.Column("position", sa.LargeBinary, nullable=False),
    sa.Column("vector", pg.ARRAY(sa.BigInteger), nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    info=proven("a MAC over it; an older one has records drawn again, which the claims of their places refuse"),
)

resource = sa.Table(
    "hub_resource",
    metadata,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("number", sa.SmallInteger, nullable=False, unique=True),
    *tag_columns(),
    info=tagged(_FAMILY),
)

rules = sa.Table(
    "hub_rules",
    metadata,
    sa.Column("library", _ID, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),  # canonical JSON
    sa.Column("procedure", sa.Text, nullable=False),  # JSON: who proposed, agreed and activated it, and when
    *tag_columns(),
    sa.Index("hub_rules_active", "library", unique=True, postgresql_where=sa.text("state = 'active'")),
    info=tagged(_FAMILY),
)

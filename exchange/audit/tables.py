"""Tables of the audit stores in PostgreSQL. Rows are only added, with three exceptions.

    audit_process       one start of a process that writes entries a row, with the tag of its role
    audit_line          the gapless sequences of gateway processes; their counters rise
    audit_entry         one leaf a row; `leaf_index` is set once, by the sequencer, or `refused`
    audit_receipt       one acknowledged batch a row; `keys` may be pruned
    audit_checkpoint    one signed checkpoint a row

The columns of `audit_entry` that repeat what the leaf says serve the search and are compared with the leaf by
`verify_database`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from registry.database.row_tags import derived, proven

__all__ = [
    "DENIED",
    "OF_CONTROL",
    "RECORD_ACTS",
    "audit_checkpoint",
    "audit_entry",
    "audit_line",
    "audit_process",
    "audit_receipt",
    "metadata",
]

metadata = sa.MetaData()

RECORD_ACTS = (
    "exchange:records:publish",
    "exchange:lane:resume",
    "exchange:records:fetch",
    "exchange:records:commit",
)
"""Acts of which a pool has millions; the indexes of the others leave them out."""
OF_CONTROL = f"action NOT IN ({', '.join(repr(action) for action in RECORD_ACTS)})"
DENIED = "decision = 'deny'"

_HASH = sa.LargeBinary(32)
_ID = sa.Uuid(as_uuid=False)

audit_process = sa.Table(
    "audit_process",
    metadata,
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("tag", _HASH, nullable=False),
    info=proven("a tag with the key of the role (`exchange.audit.entry_tags`)"),
)

audit_line = sa.Table(
    "audit_line",
    metadata,
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("counter", sa.BigInteger, nullable=False),
    postgresql_with={"fillfactor": 10},  # each act updates one: leave room on the page (HOT updates)
    info=derived("the process keeps its counters in memory; the entries hold every number, and a gap is found"),
)

audit_entry = sa.Table(
    "audit_entry",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", _ID, nullable=False, unique=True),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    sa.Column("leaf_hash", _HASH, nullable=False),
    sa.Column("leaf_index", sa.BigInteger),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("actor_department", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("grant_id", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("case_number", sa.Text, nullable=False),
    sa.Column("tag", _HASH),  # NULL = from before entries had tags, or inserted by somebody else
    sa.Column("refused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("actor", sa.Text),  # NULL = from before the column; `pool migrate` and `pool audit reindex` fill it
    sa.Column("reason", sa.Text),
    sa.Index("audit_entry_place", "leaf_index", unique=True, postgresql_where=sa.text("leaf_index IS NOT NULL")),
    sa.Index("audit_entry_waiting", "seq", postgresql_where=sa.text("leaf_index IS NULL AND NOT refused")),
    sa.Index("audit_entry_at", "at"),
    sa.Index("audit_entry_resource", "resource", "at"),
    sa.Index("audit_entry_department", "actor_department", "at"),
    sa.Index("audit_entry_grant", "grant_id", "at", postgresql_where=sa.text("grant_id <> ''")),
    sa.Index("audit_entry_case", "case_number", "at", postgresql_where=sa.text("case_number <> ''")),
    sa.Index("audit_entry_purpose", "purpose", "at", postgresql_where=sa.text("purpose <> ''")),
    sa.Index("audit_entry_actor", "actor", "at"),
    # Acts of control and denials are a few per cent of the log, so their indexes cost the record path nothing.
    sa.Index("audit_entry_act", "action", "at", postgresql_where=sa.text(OF_CONTROL)),
    sa.Index("audit_entry_department_act", "actor_department", "action", "at", postgresql_where=sa.text(OF_CONTROL)),
    sa.Index("audit_entry_resource_act", "resource", "action", "at", postgresql_where=sa.text(OF_CONTROL)),
    sa.Index("audit_entry_denied", "at", postgresql_where=sa.text(DENIED)),
    sa.Index("audit_entry_denied_by", "actor_department", "at", postgresql_where=sa.text(DENIED)),
    sa.Index("audit_entry_denied_of", "resource", "at", postgresql_where=sa.text(DENIED)),
    sa.Index("audit_entry_denied_because", "reason", "at", postgresql_where=sa.text(DENIED)),
    sa.Index("audit_entry_unfilled", "seq", postgresql_where=sa.text("actor IS NULL")),
    info=proven("a tag with the key of its process's role until it is signed, the signed log afterwards"),
)

audit_receipt = sa.Table(
    "audit_receipt",
    metadata,
    sa.Column("lane", sa.Text(collation="C"), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("runs", pg.ARRAY(sa.BigInteger), nullable=False),  # partition, first, last, partition, first …
    sa.Column("entry_id", _ID, nullable=False, unique=True),
    sa.Column("leaf_hash", _HASH, nullable=False),
    sa.Column("source_position", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("keys", sa.LargeBinary),  # 16 bytes a record; NULL = pruned, or unknown to the sweeper
    sa.Column("void_leaves", sa.LargeBinary),  # 32 bytes a void, masked; NULL = no voids, or unknown
    info=proven("the pool's signature over it, and the leaf hash of its entry"),
)

audit_checkpoint = sa.Table(
    "audit_checkpoint",
    metadata,
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", _HASH, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    info=proven("the signature of the log's key"),
)


@sa.event.listens_for(audit_receipt, "after_create")
def _store_keys_uncompressed(_table: sa.Table, connection: sa.Connection, **_: object) -> None:
    # Pseudonyms are random bytes: compressing 16 kB of them with each batch would cost time and gain nothing.
    connection.execute(sa.text("ALTER TABLE audit_receipt ALTER COLUMN keys SET STORAGE EXTERNAL"))

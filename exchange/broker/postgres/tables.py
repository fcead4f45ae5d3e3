"""Tables of the PostgreSQL broker.

    broker_topic       name, number of partitions, retention, generation
    broker_partition   both ends of each partition; the row whose lock orders the positions
    broker_stretch     the records: one row is a block, up to 256 KiB of one batch's records in one partition (see
                       `blocks`); partitioned by topic
    broker_lane        the epoch of each lane, which says which gateway owns it
    broker_receipt     the latest receipts of each lane

The tags are made by `block_tags`; null only in rows of a pool that was not migrated to its end.

A topic's partition of `broker_stretch` is created with the topic; `metadata.create_all` creates the rest.
"""

import sqlalchemy as sa

from registry.database.row_tags import derived

__all__ = ["block", "block_table_of", "lane", "metadata", "partition", "receipt", "topic"]

metadata = sa.MetaData()

topic = sa.Table(
    "broker_topic",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("partitions", sa.SmallInteger, nullable=False),
    sa.Column("keep", sa.Text, nullable=False),
    sa.Column("retention", sa.BigInteger, comment="microseconds; null keeps for ever"),
    sa.Column("generation", sa.Integer, nullable=False, server_default="1"),
    sa.Column("tag", sa.LargeBinary),
    info=derived("has a tag of its own (`block_tags`); who may read or write is decided elsewhere"),
)

partition = sa.Table(
    "broker_partition",
    metadata,
    sa.Column("topic_id", sa.ForeignKey("broker_topic.id"), primary_key=True, autoincrement=False),
    sa.Column("partition", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("earliest", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("latest", sa.BigInteger, nullable=False, server_default="0", comment="one past the last record"),
    sa.Column("recorded_at", sa.BigInteger, nullable=False, server_default="0", comment="of the last record"),
    sa.Column("compacted", sa.BigInteger, nullable=False, server_default="0", comment="up to here no key stands twice"),
    sa.Column("tag", sa.LargeBinary),
    # Each append updates these rows: free space on the page allows heap-only updates.
    postgresql_with={"fillfactor": "20"},
    info=derived("a tag of its own, made by `block_tags`; the entry of each batch has the positions of its records"),
)

block = sa.Table(
    "broker_stretch",
    metadata,
    sa.Column("topic_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("partition", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False, comment="bytes of data"),
    sa.Column("keys", sa.LargeBinary, nullable=False),
    sa.Column("marks", sa.LargeBinary, nullable=False),
    sa.Column("lengths", sa.LargeBinary, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("valid", sa.LargeBinary, nullable=False),
    sa.Column("positions", sa.LargeBinary, nullable=False),
    sa.Column("begins", sa.BigInteger, comment="first offset that the block covers"),
    sa.Column("ends", sa.BigInteger, comment="last offset that the block covers"),
    sa.Column("digest", sa.LargeBinary, comment="SHA-256 of the records' bytes"),
    sa.Column("tag", sa.LargeBinary),
    sa.Index("broker_stretch_recorded_at", "topic_id", "partition", "recorded_at", "last"),
    postgresql_partition_by="LIST (topic_id)",
    info=derived("a tag of its own, made by `block_tags`; the entry of each batch has the root over its records"),
)

# PostgreSQL's own compression (pglz) runs at 50 MB/s and keys do not compress at all.
_PLAIN = sa.DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy's own signature lacks types
    "ALTER TABLE broker_stretch ALTER COLUMN data SET STORAGE EXTERNAL, ALTER COLUMN keys SET STORAGE EXTERNAL"
)
sa.event.listen(block, "after_create", _PLAIN)

lane = sa.Table(
    "broker_lane",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    info=derived("which gateway may append next; batches are numbered in signed receipts and in entries"),
)

receipt = sa.Table(
    "broker_receipt",
    metadata,
    sa.Column("lane_id", sa.ForeignKey("broker_lane.id"), primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("source_position", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("runs", sa.Text, nullable=False, comment="partition:first-last, separated by spaces"),
    info=derived("each batch's entry and signed receipt say the same"),
)


def block_table_of(topic_id: int) -> str:
    """Return the name of the partition of `broker_stretch` that holds one topic's records."""
    return f"broker_stretch_{topic_id:d}"

"""Tables of what may no longer be released, and of what is destroyed.

erasure_retraction_version   one row a topic: the version of its newest retractions, and the MAC that ends their chain
erasure_retraction           one row a key and version: the position of the retraction; never changed, never deleted
"""

import sqlalchemy as sa

from registry.database.row_tags import proven, tag_columns, tagged

__all__ = ["metadata", "request", "retraction", "retraction_version"]

metadata = sa.MetaData()

retraction_version = sa.Table(
    "erasure_retraction_version",
    metadata,
    sa.Column("topic", sa.Text(collation="C"), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column(
        "complete",
        sa.Boolean,
        nullable=False,
        server_default=sa.text("true"),
        comment="every void of the topic is a retraction; false for one from before retractions",
    ),
    sa.Column("chain", sa.LargeBinary, comment="MAC over the newest version's retractions and the MAC before it"),
    info=proven("the chain of MACs over the topic's retractions; `complete` only says what is still to be read"),
)

retraction = sa.Table(
    "erasure_retraction",
    metadata,
    sa.Column("topic", sa.Text(collation="C"), primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True, comment="pseudonym, 16 bytes"),
    sa.Column("partition", sa.SmallInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False, comment="of the void: values before it are not released"),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False, comment="microseconds UTC, the database's clock"),
    sa.Index("erasure_retraction_version_of_topic", "topic", "version"),
    info=proven(
        "the chain of MACs in erasure_retraction_version, but for `at`, which decides only whether a consumer is told "
        "of a void; and by the voids among the topic's records (`pool broker verify`)"
    ),
)

request = sa.Table(
    "erasure_request",
    metadata,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("topic", sa.Text(collation="C"), nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False, comment="pseudonym, 16 bytes"),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("proposed_by", sa.Text, nullable=False),
    sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("before", sa.BigInteger),
    sa.Column("destroyed", sa.BigInteger),
    sa.Column("done_at", sa.DateTime(timezone=True)),
    *tag_columns(),
    sa.CheckConstraint("decided_by <> proposed_by", name="erasure_request_two_persons"),
    info=tagged("erasure"),
)

"""Tables of what may no longer be released, and of what is destroyed.

erasure_retraction_version   one row a topic: the version of its newest retractions
erasure_retraction           one row a key: the position of its last retraction
"""

import sqlalchemy as sa

from registry.database.row_tags import derived, tag_columns, tagged

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
    info=derived("a counter for caches of the rows below"),
)

retraction = sa.Table(
    "erasure_retraction",
    metadata,
    sa.Column("topic", sa.Text(collation="C"), primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True, comment="pseudonym, 16 bytes"),
    sa.Column("partition", sa.SmallInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False, comment="of the void: values before it are not released"),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False, comment="microseconds UTC, the database's clock"),
    sa.Index("erasure_retraction_version_of_topic", "topic", "version"),
    info=derived(
        "the voids are records of the topic, and each release has its entry; a row taken away lets out earlier values "
        "to consumers that were granted them, and to nobody else"
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

"""Tables of what may no longer be released.

erasure_retraction_version   one row a topic: the version of its newest retractions
erasure_retraction           one row a key: the position of its last retraction
"""

import sqlalchemy as sa

from registry.database.row_tags import derived

__all__ = ["metadata", "retraction", "retraction_version"]

metadata = sa.MetaData()

retraction_version = sa.Table(
    "erasure_retraction_version",
    metadata,
    sa.Column("topic", sa.Text(collation="C"), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
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

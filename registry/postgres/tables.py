"""Tables of the registry in PostgreSQL."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from registry.database.row_tags import derived, hashed, tag_columns, tagged, untagged

__all__ = [
    "approval",
    "catalogue",
    "catalogue_record",
    "catalogue_record_version",
    "catalogue_search",
    "catalogue_version",
    "data_element",
    "department",
    "department_version",
    "element_source",
    "element_use",
    "metadata",
    "outbox",
    "reference",
    "schema",
    "subject",
    "version",
]

metadata = sa.MetaData()
_CREATED_AT = untagged("the database's clock at the insertion; nothing is decided by it")

schema = sa.Table(
    "registry_schema",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("key", sa.LargeBinary(32), nullable=False),
    sa.Column("shape", sa.LargeBinary(32), nullable=False, index=True),  # the fingerprint
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("reference_list", sa.Text, nullable=False),  # JSON, [[name, subject, version, schema id] …]
    sa.Column("metadata", sa.Text),  # JSON as submitted: text, because jsonb would reorder it
    sa.Column("rule_set", sa.Text),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now(), info=_CREATED_AT),
    # 0 for the id that this registry assigned to a content; the id itself for another one of it that was imported
    sa.Column(
        "twin",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        info=untagged("it chooses between ids of one and the same content"),
    ),
    *tag_columns(),
    sa.UniqueConstraint("key", "twin", name="registry_schema_content"),
    comment="what an id stands for, for ever: rows are neither changed nor deleted",
    info=tagged("registry"),
)

subject = sa.Table(
    "registry_subject",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # '' has the global settings
    sa.Column("hidden", sa.Boolean, nullable=False),
    sa.Column("config", sa.Text),
    sa.Column("mode", sa.Text),
    *tag_columns(),
    info=tagged("registry"),
    comment="one row a subject: its settings, and the lock that makes it have one writer",
)

version = sa.Table(
    "registry_version",
    metadata,
    sa.Column("subject", sa.Text, sa.ForeignKey("registry_subject.name"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("schema_id", sa.Integer, sa.ForeignKey("registry_schema.id"), nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False, info=hashed()),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now(), info=_CREATED_AT),
    # Those of the schema with this id, under the version's tag: a list of versions need not read the schemas.
    sa.Column("key", sa.LargeBinary(32)),
    sa.Column("shape", sa.LargeBinary(32)),
    *tag_columns(),
    sa.Index("registry_version_content", "subject", "schema_id"),
    info=tagged("registry"),
)

reference = sa.Table(
    "registry_reference",
    metadata,
    sa.Column("schema_id", sa.Integer, sa.ForeignKey("registry_schema.id"), primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Index("registry_reference_target", "subject", "version"),
    info=derived(
        "the reverse of registry_schema.reference_list, which is tagged; it serves searches and deletion only"
    ),
    comment="which schemas need which versions: the reverse of registry_schema.reference_list",
)

department = sa.Table(
    "registry_department",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("uscc", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    *tag_columns(),
    sa.UniqueConstraint("uscc", name="registry_department_uscc"),
    info=tagged("directory"),
)

department_version = sa.Table(
    "registry_department_version",
    metadata,
    sa.Column("id", sa.Text, sa.ForeignKey("registry_department.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    *tag_columns(),
    info=tagged("directory"),
)

catalogue = sa.Table(
    "registry_catalogue",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("major", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    *tag_columns(),
    info=tagged("directory"),
)

catalogue_version = sa.Table(
    "registry_catalogue_version",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("major", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    *tag_columns(),
    sa.ForeignKeyConstraint(["name", "major"], ["registry_catalogue.name", "registry_catalogue.major"]),
    info=tagged("directory"),
)

catalogue_record = sa.Table(
    "registry_catalogue_record",
    metadata,
    sa.Column("name", sa.Text(collation="C"), primary_key=True),
    sa.Column("major", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    *tag_columns(),
    sa.Index("registry_catalogue_record_state", "state", "name", "major"),
    sa.Index("registry_catalogue_record_provider", "provider", "name", "major"),
    info=tagged("directory"),
    comment="full metadata of entries, and where each stands in its procedure",
)

catalogue_record_version = sa.Table(
    "registry_catalogue_record_version",
    metadata,
    sa.Column("name", sa.Text(collation="C"), primary_key=True),
    sa.Column("major", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    *tag_columns(),
    sa.ForeignKeyConstraint(["name", "major"], ["registry_catalogue_record.name", "registry_catalogue_record.major"]),
    info=tagged("directory"),
)

catalogue_search = sa.Table(
    "registry_catalogue_search",
    metadata,
    sa.Column("name", sa.Text(collation="C"), primary_key=True),
    sa.Column("major", sa.Integer, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("share_type", sa.Text, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("theme", sa.Text, nullable=False),
    sa.Column("words", postgresql.TSVECTOR, nullable=False),
    sa.Column("metadata_words", postgresql.TSVECTOR, nullable=False),
    sa.Column("names", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("metadata_names", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Index("registry_catalogue_search_words", "words", postgresql_using="gin"),
    sa.Index("registry_catalogue_search_metadata_words", "metadata_words", postgresql_using="gin"),
    info=derived("made from registry_catalogue and its records, from which what a search finds is read"),
    comment="texts of catalogue entries as tokens (registry.catalogue.search)",
)

data_element = sa.Table(
    "registry_data_element",
    metadata,
    sa.Column("code", sa.Text(collation="C"), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    *tag_columns(),
    info=tagged("directory"),
    comment="the dictionary of data elements, and the lead department of each",
)

element_source = sa.Table(
    "registry_element_source",
    metadata,
    sa.Column("element", sa.Text(collation="C"), primary_key=True),
    sa.Column("name", sa.Text(collation="C"), primary_key=True),
    sa.Column("major", sa.Integer, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    *tag_columns(),
    sa.Index("registry_element_source_entry", "name", "major"),
    info=tagged("directory"),
    comment="which entries in force are the source of which data elements",
)

element_use = sa.Table(
    "registry_element_use",
    metadata,
    sa.Column("element", sa.Text(collation="C"), primary_key=True),
    sa.Column("subject", sa.Text(collation="C"), primary_key=True),
    sa.Column("path", sa.Text(collation="C"), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Index("registry_element_use_subject", "subject"),
    info=derived("made from the schemas, which are tagged; it serves lists alone"),
    comment="which fields of the newest version of a subject name which data elements",
)

approval = sa.Table(
    "registry_approval",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("shape", sa.LargeBinary(32), nullable=False),  # the fingerprint
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("findings", sa.Text, nullable=False),  # JSON, a list of sentences
    sa.Column("because", sa.Text, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("answer", sa.Text, nullable=False),
    sa.CheckConstraint("decided_by <> asked_by OR decided_by = ''", name="registry_approval_two_people"),
    *tag_columns(),
    sa.Index("registry_approval_subject", "subject", "state"),
    info=tagged("registry"),
    comment="requests to take a classification back, and what became of them",
)

outbox = sa.Table(
    "registry_outbox",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("key", sa.Text, nullable=False),  # JSON, as Confluent's registry writes it on its topic
    sa.Column("value", sa.Text),  # null: a tombstone
    info=derived("a copy on its way to a topic for other programs; no decision reads it or the topic"),
    comment="changes that are not on the topic yet, written with the change itself",
)

"""Everything of release 0.1."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go on to this revision."""
    op.create_table(
        "access_grant",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seal", sa.LargeBinary(length=32), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("access_grant_consumer", "access_grant", ["consumer", "id"], unique=False)
    op.create_index("access_grant_provider", "access_grant", ["provider", "id"], unique=False)
    op.create_index("access_grant_state_expires", "access_grant", ["state", "expires"], unique=False)
    op.create_index("access_grant_topic", "access_grant", ["topic", "id"], unique=False)
    op.create_table(
        "access_purpose",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("parent", sa.Text(collation="C"), nullable=True),
        sa.Column("zh", sa.Text(), nullable=False),
        sa.Column("en", sa.Text(), nullable=False),
        sa.Column("dpv", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["parent"], ["access_purpose.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "access_grant_version",
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seal", sa.LargeBinary(length=32), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["access_grant.id"]),
        sa.PrimaryKeyConstraint("grant_id", "version"),
    )
    op.create_table(
        "access_position",
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("committed", sa.LargeBinary(), nullable=False),
        sa.Column("released", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["access_grant.id"]),
        sa.PrimaryKeyConstraint("grant_id"),
    )
    op.create_table(
        "access_quota",
        sa.Column("grant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("released", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["access_grant.id"]),
        sa.PrimaryKeyConstraint("grant_id", "day"),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("size"),
    )
    op.create_table(
        "audit_entry",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("leaf_index", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("actor_department", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("case_number", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("audit_entry_at", "audit_entry", ["at"], unique=False)
    op.create_index(
        "audit_entry_case",
        "audit_entry",
        ["case_number", "at"],
        unique=False,
        postgresql_where=sa.text("case_number <> ''"),
    )
    op.create_index("audit_entry_department", "audit_entry", ["actor_department", "at"], unique=False)
    op.create_index(
        "audit_entry_grant", "audit_entry", ["grant_id", "at"], unique=False, postgresql_where=sa.text("grant_id <> ''")
    )
    op.create_index(
        "audit_entry_place",
        "audit_entry",
        ["leaf_index"],
        unique=True,
        postgresql_where=sa.text("leaf_index IS NOT NULL"),
    )
    op.create_index("audit_entry_resource", "audit_entry", ["resource", "at"], unique=False)
    op.create_index(
        "audit_entry_waiting", "audit_entry", ["seq"], unique=False, postgresql_where=sa.text("leaf_index IS NULL")
    )
    op.create_table(
        "audit_line",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process", "line"),
        postgresql_with={"fillfactor": 10},
    )
    op.create_table(
        "audit_receipt",
        sa.Column("lane", sa.Text(collation="C"), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("runs", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("entry_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("source_position", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("keys", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("lane", "sequence"),
        sa.UniqueConstraint("entry_id"),
    )
    op.create_table(
        "broker_lane",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "broker_stretch",
        sa.Column("topic_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False, comment="bytes of data"),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.Column("marks", sa.LargeBinary(), nullable=False),
        sa.Column("lengths", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("valid", sa.LargeBinary(), nullable=False),
        sa.Column("positions", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "partition", "last"),
        postgresql_partition_by="LIST (topic_id)",
    )
    op.create_index(
        "broker_stretch_recorded_at", "broker_stretch", ["topic_id", "partition", "recorded_at", "last"], unique=False
    )
    op.create_table(
        "broker_topic",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("partitions", sa.SmallInteger(), nullable=False),
        sa.Column("keep", sa.Text(), nullable=False),
        sa.Column("retention", sa.BigInteger(), nullable=True, comment="microseconds; null keeps for ever"),
        sa.Column("generation", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "broker_partition",
        sa.Column("topic_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("earliest", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("latest", sa.BigInteger(), server_default="0", nullable=False, comment="one past the last record"),
        sa.Column("recorded_at", sa.BigInteger(), server_default="0", nullable=False, comment="of the last record"),
        sa.Column(
            "compacted", sa.BigInteger(), server_default="0", nullable=False, comment="up to here no key stands twice"
        ),
        sa.ForeignKeyConstraint(["topic_id"], ["broker_topic.id"]),
        sa.PrimaryKeyConstraint("topic_id", "partition"),
        postgresql_with={"fillfactor": "20"},
    )
    op.create_table(
        "broker_receipt",
        sa.Column("lane_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("source_position", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("runs", sa.Text(), nullable=False, comment="partition:first-last, separated by spaces"),
        sa.ForeignKeyConstraint(["lane_id"], ["broker_lane.id"]),
        sa.PrimaryKeyConstraint("lane_id", "sequence"),
    )
    op.create_table(
        "identity_account",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("department", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "identity_certificate",
        sa.Column("serial", sa.Text(collation="C"), nullable=False),
        sa.Column("department", sa.Text(collation="C"), nullable=False),
        sa.Column("connector", sa.Text(collation="C"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=False),
        sa.Column("revoked_because", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("identity_certificate_holder", "identity_certificate", ["department", "connector"], unique=False)
    op.create_table(
        "identity_invitation",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("department", sa.Text(collation="C"), nullable=False),
        sa.Column("connector", sa.Text(collation="C"), nullable=True),
        sa.Column("invited_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "identity_signing_key",
        sa.Column("department", sa.Text(collation="C"), nullable=False),
        sa.Column("connector", sa.Text(collation="C"), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("public_key", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("department", "connector", "since"),
    )
    op.create_index(
        "identity_signing_key_current",
        "identity_signing_key",
        ["department", "connector"],
        unique=True,
        postgresql_where=sa.text("until IS NULL"),
    )
    op.create_table(
        "registry_catalogue",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", "major"),
    )
    op.create_table(
        "registry_department",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("uscc", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uscc", name="registry_department_uscc"),
    )
    op.create_table(
        "registry_schema",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("shape", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("reference_list", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("rule_set", sa.Text(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
        comment="what an id stands for, for ever: rows are neither changed nor deleted",
    )
    op.create_index(op.f("ix_registry_schema_shape"), "registry_schema", ["shape"], unique=False)
    op.create_table(
        "registry_subject",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("config", sa.Text(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        comment="one row a subject: its settings, and the lock that makes it have one writer",
    )
    op.create_table(
        "registry_catalogue_version",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["name", "major"], ["registry_catalogue.name", "registry_catalogue.major"]),
        sa.PrimaryKeyConstraint("name", "major", "version"),
    )
    op.create_table(
        "registry_department_version",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["registry_department.id"]),
        sa.PrimaryKeyConstraint("id", "version"),
    )
    op.create_table(
        "registry_version",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("schema_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["schema_id"], ["registry_schema.id"]),
        sa.ForeignKeyConstraint(["subject"], ["registry_subject.name"]),
        sa.PrimaryKeyConstraint("subject", "number"),
    )
    op.create_index(op.f("ix_registry_version_schema_id"), "registry_version", ["schema_id"], unique=False)
    op.create_index("registry_version_content", "registry_version", ["subject", "schema_id"], unique=False)
    # Values are stored as they are: PostgreSQL's own compression runs at 50 MB/s, and keys do not compress.
    op.execute(
        "ALTER TABLE broker_stretch ALTER COLUMN data SET STORAGE EXTERNAL, ALTER COLUMN keys SET STORAGE EXTERNAL"
    )
    op.execute("ALTER TABLE audit_receipt ALTER COLUMN keys SET STORAGE EXTERNAL")

"""SQL statements of the registry, each a named constant; `registry.postgres.subjects` and `.outbox` execute them.

Statements of the hot path are prepared: the server plans them once for each connection.
"""

# ruff: noqa: S608 - what is put into the statements are names of columns, from the tables' definitions

import sqlalchemy as sa

from registry.database.prepared_statement import PreparedStatement
from registry.database.row_tags import columns_of
from registry.postgres.tables import schema, subject, version

__all__ = [
    "ADD_CONTENT",
    "ADD_VERSION",
    "ALL_VERSIONS",
    "IMPORT_CONTENT",
    "LATEST_VERSION",
    "LOCK_SUBJECT",
    "LOCK_SUBJECTS",
    "LOCK_TABLES",
    "REFERRERS",
    "RESERVE_ID",
    "SCHEMA",
    "SCHEMA_BY_GUID",
    "SETTINGS",
    "SKIP_USED_IDS",
    "TAG_CONTENT",
    "TRY_SENDER_LOCK",
    "VERSION",
    "VERSIONS",
    "VERSIONS_BY_FINGERPRINT",
    "VERSIONS_BY_SCHEMA_ID",
    "VERSION_TEXT",
]

_VERSION = columns_of(version, "v.")
_LISTED = columns_of(version, "v.", without_text=True)
_SCHEMA = columns_of(schema)

# --- versions --------------------------------------------------------------------------------------------------------

VERSIONS = PreparedStatement(
    "registry_versions",
    f"""
SELECT {_LISTED}
FROM registry_version v
WHERE v.subject = :name ORDER BY v.number
""",
    name="text",
)
VERSIONS_BY_FINGERPRINT = PreparedStatement(
    "registry_versions_by_fingerprint",
    f"""
SELECT {_VERSION}
FROM registry_version v
WHERE v.subject = :name AND v.shape = :fingerprint ORDER BY v.number
""",
    name="text",
    fingerprint="bytea",
)
VERSIONS_BY_SCHEMA_ID = PreparedStatement(
    "registry_versions_by_schema_id",
    f"""
SELECT {_LISTED}
FROM registry_version v
WHERE v.schema_id = :id ORDER BY v.subject COLLATE "C", v.number
""",
    id="integer",
)
LATEST_VERSION = PreparedStatement(
    "registry_latest_version",
    f"""
SELECT {_VERSION}
FROM registry_version v
WHERE v.subject = :name AND NOT v.deleted ORDER BY v.number DESC LIMIT 1
""",
    name="text",
)
VERSION = PreparedStatement(
    "registry_version",
    f"""
SELECT {_VERSION}
FROM registry_version v
WHERE v.subject = :name AND v.number = :number
""",
    name="text",
    number="integer",
)
ALL_VERSIONS = PreparedStatement(
    "registry_all_versions",
    f"""
SELECT {_LISTED}
FROM registry_version v JOIN registry_subject n ON n.name = v.subject
WHERE NOT n.hidden ORDER BY v.subject COLLATE "C", v.number
""",
)
REFERRERS = PreparedStatement(
    "registry_referrers",
    f"""
SELECT {_LISTED}
FROM registry_version v
WHERE v.schema_id IN (
  SELECT r.schema_id FROM registry_reference r
  WHERE r.subject = :name AND (:number IS NULL OR r.version = :number)
)
ORDER BY v.subject COLLATE "C", v.number
""",
    name="text",
    number="integer",
)
VERSION_TEXT = PreparedStatement(
    "registry_version_text",
    f"SELECT {columns_of(version)} FROM registry_version WHERE subject = :name AND number = :number",
    name="text",
    number="integer",
)
ADD_VERSION = PreparedStatement(
    "registry_add_version",
    """
INSERT INTO registry_version (subject, number, schema_id, text, deleted, key, shape, row_version, tag)
VALUES (:subject, :number, :schema_id, :text, :deleted, :key, :shape, :row_version, :tag)
ON CONFLICT DO NOTHING RETURNING number
""",
    subject="text",
    number="integer",
    schema_id="integer",
    text="text",
    deleted="boolean",
    key="bytea",
    shape="bytea",
    row_version="bigint",
    tag="bytea",
)

# --- schemas ---------------------------------------------------------------------------------------------------------

SCHEMA = PreparedStatement(
    "registry_schema",
    f"""
SELECT {_SCHEMA} FROM registry_schema WHERE id = :id
""",
    id="integer",
)
SCHEMA_BY_GUID = PreparedStatement(
    "registry_schema_by_guid",
    f"""
SELECT {_SCHEMA} FROM registry_schema
WHERE key >= :lowest AND key <= :highest ORDER BY id LIMIT 1
""",
    lowest="bytea",
    highest="bytea",
)

# Only a new content takes an id from the sequence. The version is added in the same statement: one round trip for both.
# Tags cover the id, so they follow in a second one (TAG_CONTENT), in the same transaction.
ADD_CONTENT = PreparedStatement(
    "registry_add_content",
    """
WITH existing AS (
  SELECT id FROM registry_schema WHERE key = :key AND twin = 0
), created AS (
  INSERT INTO registry_schema (key, shape, kind, text, reference_list, metadata, rule_set, origin, row_version)
  SELECT :key, :fingerprint, :schema_type, :text, :references, :metadata, :rule_set, :origin, :row_version
  WHERE NOT EXISTS (SELECT 1 FROM existing)
  ON CONFLICT DO NOTHING RETURNING id
), content AS (
  SELECT id, false AS created FROM existing UNION ALL SELECT id, true FROM created
), added AS (
  INSERT INTO registry_version (subject, number, schema_id, text, deleted, key, shape, row_version)
  SELECT :origin, :number, id, :text, false, :key, :fingerprint, :row_version FROM content
  ON CONFLICT DO NOTHING RETURNING number
)
SELECT id, created, EXISTS (SELECT 1 FROM added) AS added FROM content
""",
    key="bytea",
    fingerprint="bytea",
    schema_type="text",
    text="text",
    references="text",
    metadata="text",
    rule_set="text",
    origin="text",
    number="integer",
    row_version="bigint",
)
TAG_CONTENT = PreparedStatement(
    "registry_tag_content",
    """
WITH tagged AS (
  UPDATE registry_schema SET tag = :schema_tag WHERE id = :id AND :schema_tag IS NOT NULL
)
UPDATE registry_version SET tag = :version_tag WHERE subject = :subject AND number = :number
""",
    id="integer",
    schema_tag="bytea",
    subject="text",
    number="integer",
    version_tag="bytea",
)

IMPORT_CONTENT = sa.text("""
INSERT INTO registry_schema
  (id, key, shape, kind, text, reference_list, metadata, rule_set, origin, row_version, tag, twin)
OVERRIDING SYSTEM VALUE
SELECT :id, :key, :shape, :kind, :text, :reference_list, :metadata, :rule_set, :origin, :row_version, :tag,
  CASE WHEN EXISTS (SELECT 1 FROM registry_schema WHERE key = :key AND twin = 0) THEN CAST(:id AS integer) ELSE 0 END
ON CONFLICT DO NOTHING RETURNING id
""")

RESERVE_ID = sa.text("""
SELECT setval(pg_get_serial_sequence('registry_schema', 'id'), CAST(:id AS bigint))
WHERE CAST(:id AS bigint) > coalesce((
  SELECT last_value FROM pg_sequences
  WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('registry_schema', 'id')
), 0)
""")

SKIP_USED_IDS = sa.text("""
SELECT setval(pg_get_serial_sequence('registry_schema', 'id'), m)
FROM (SELECT max(id) AS m FROM registry_schema) AS highest
WHERE m > coalesce((
  SELECT last_value FROM pg_sequences
  WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('registry_schema', 'id')
), 0)
""")

# --- subjects and settings -------------------------------------------------------------------------------------------

# One round trip for the lock, the subject's settings and those of the scopes around it.
LOCK_SUBJECT = PreparedStatement(
    "registry_lock_subject",
    """
WITH created AS (
  INSERT INTO registry_subject (name, hidden, row_version, tag) VALUES (:name, :hidden, :row_version, :tag)
  ON CONFLICT DO NOTHING RETURNING name, hidden, config, mode, row_version, tag
), existing AS (
  SELECT name, hidden, config, mode, row_version, tag FROM registry_subject WHERE name = :name FOR UPDATE
)
SELECT 'created' AS kind, name, hidden, config, mode, row_version, tag FROM created
UNION ALL SELECT 'existing', name, hidden, config, mode, row_version, tag FROM existing
UNION ALL SELECT 'scope', name, hidden, config, mode, row_version, tag FROM registry_subject WHERE name = ANY(:scopes)
""",
    name="text",
    hidden="boolean",
    row_version="bigint",
    tag="bytea",
    scopes="text[]",
)

# In one order, whatever the database's collation, so that two changes cannot wait for each other.
LOCK_SUBJECTS = sa.text("""
SELECT 1 FROM registry_subject WHERE name = ANY(:names) ORDER BY name COLLATE "C" FOR UPDATE
""")

# Those without settings too: the tag alone tells a subject that has none from one whose settings were taken away.
SETTINGS = sa.text(f"SELECT {columns_of(subject)} FROM registry_subject WHERE name = ANY(:names)")

# --- outbox ----------------------------------------------------------------------------------------------------------

TRY_SENDER_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(1548630608)")
"""An advisory lock, released when the transaction ends; no other code uses this number."""

LOCK_TABLES = sa.text(
    "LOCK TABLE registry_subject, registry_version, registry_schema, registry_reference IN SHARE MODE"
)

"""SQL statements of the registry, by name; `registry.postgres.subjects` executes them.

Those that are executed thousands of times a second are prepared statements: planned once a connection.
"""

import sqlalchemy as sa

from registry.database.prepared_statement import PreparedStatement

__all__ = [
    "ADD",
    "BY_GUID",
    "BY_SHAPE",
    "LATEST",
    "LISTED",
    "LOCK",
    "LOCK_ALL",
    "NUMBERED",
    "PUT",
    "REFERRERS",
    "RESERVE",
    "RESTORE",
    "SCHEMA",
    "SETTINGS",
    "SKIP_TAKEN",
    "TEXT",
    "USES",
    "VERSIONS",
]

_VERSION = "v.subject, v.number, v.schema_id, s.key, s.shape, v.deleted"
_FROM = "FROM registry_version v JOIN registry_schema s ON s.id = v.schema_id"
VERSIONS = PreparedStatement(
    "registry_versions",
    f"SELECT {_VERSION} {_FROM} WHERE v.subject = :name ORDER BY v.number",
    name="text",
)
BY_SHAPE = PreparedStatement(
    "registry_by_shape",
    f"SELECT {_VERSION}, v.text {_FROM} WHERE v.subject = :name AND s.shape = :shape ORDER BY v.number",
    name="text",
    shape="bytea",
)
USES = PreparedStatement(
    "registry_uses",
    f'SELECT {_VERSION} {_FROM} WHERE v.schema_id = :id ORDER BY v.subject COLLATE "C", v.number',
    id="integer",
)
LATEST = PreparedStatement(
    "registry_latest",
    f"SELECT {_VERSION}, v.text {_FROM} WHERE v.subject = :name AND NOT v.deleted ORDER BY v.number DESC LIMIT 1",
    name="text",
)
NUMBERED = PreparedStatement(
    "registry_numbered",
    f"SELECT {_VERSION}, v.text {_FROM} WHERE v.subject = :name AND v.number = :number",
    name="text",
    number="integer",
)
LISTED = PreparedStatement(
    "registry_listed",
    f"SELECT {_VERSION} {_FROM} JOIN registry_subject n ON n.name = v.subject "
    'WHERE NOT n.hidden ORDER BY v.subject COLLATE "C", v.number',
)
REFERRERS = PreparedStatement(
    "registry_referrers",
    f"SELECT {_VERSION} {_FROM} WHERE v.schema_id IN (SELECT r.schema_id FROM registry_reference r "  # noqa: S608
    "WHERE r.subject = :name AND (:number IS NULL OR r.version = :number)) "
    'ORDER BY v.subject COLLATE "C", v.number',
    name="text",
    number="integer",
)
TEXT = PreparedStatement(
    "registry_text",
    "SELECT text FROM registry_version WHERE subject = :name AND number = :number",
    name="text",
    number="integer",
)
_COLUMNS = "id, key, shape, kind, text, reference_list, metadata, rule_set, origin"
SCHEMA = PreparedStatement(
    "registry_schema_of",
    f"SELECT {_COLUMNS} FROM registry_schema WHERE id = :id",  # noqa: S608 - constants
    id="integer",
)
BY_GUID = PreparedStatement(
    "registry_by_guid",
    f"SELECT {_COLUMNS} FROM registry_schema WHERE key >= :least AND key <= :most ORDER BY id LIMIT 1",  # noqa: S608
    least="bytea",
    most="bytea",
)

# One round trip for the lock, the subject's settings and those of the outer scopes.
LOCK = PreparedStatement(
    "registry_lock",
    """
WITH made AS (
  INSERT INTO registry_subject (name, hidden) VALUES (:name, :hidden) ON CONFLICT DO NOTHING RETURNING 1
), held AS (
  SELECT config, mode FROM registry_subject WHERE name = :name FOR UPDATE
)
SELECT 'made' AS kind, '' AS name, NULL AS config, NULL AS mode FROM made
UNION ALL SELECT 'held', '', config, mode FROM held
UNION ALL SELECT 'scope', name, config, mode FROM registry_subject WHERE name = ANY(:scopes)
""",
    name="text",
    hidden="boolean",
    scopes="text[]",
)

# In one order, independent of the database's collation, so that two changes never wait for each other.
LOCK_ALL = sa.text("""SELECT 1 FROM registry_subject WHERE name = ANY(:names) ORDER BY name COLLATE "C" FOR UPDATE""")

SETTINGS = sa.text("""
SELECT name, config, mode FROM registry_subject
WHERE name = ANY(:names) AND (config IS NOT NULL OR mode IS NOT NULL)
""")

# An id is taken from the sequence only for a new content. The version is inserted by the same statement, so that both
# cost one round trip.
PUT = PreparedStatement(
    "registry_put",
    """
WITH known AS (
  SELECT id FROM registry_schema WHERE key = :key AND twin = 0
), new AS (
  INSERT INTO registry_schema (key, shape, kind, text, reference_list, metadata, rule_set, origin)
  SELECT :key, :shape, :kind, :text, :references, :metadata, :rule_set, :origin WHERE NOT EXISTS (SELECT 1 FROM known)
  ON CONFLICT DO NOTHING RETURNING id
), one AS (
  SELECT id, false AS made FROM known UNION ALL SELECT id, true FROM new
), added AS (
  INSERT INTO registry_version (subject, number, schema_id, text, deleted)
  SELECT :origin, :number, id, :text, false FROM one ON CONFLICT DO NOTHING RETURNING number
)
SELECT id, made, EXISTS (SELECT 1 FROM added) AS added FROM one
""",
    key="bytea",
    shape="bytea",
    kind="text",
    text="text",
    references="text",
    metadata="text",
    rule_set="text",
    origin="text",
    number="integer",
)

RESTORE = sa.text("""
INSERT INTO registry_schema (id, key, shape, kind, text, reference_list, metadata, rule_set, origin, twin)
OVERRIDING SYSTEM VALUE
SELECT :id, :key, :shape, :kind, :text, :references, :metadata, :rule_set, :origin,
  CASE WHEN EXISTS (SELECT 1 FROM registry_schema WHERE key = :key AND twin = 0) THEN CAST(:id AS integer) ELSE 0 END
ON CONFLICT DO NOTHING RETURNING id
""")

_SEQUENCE = "pg_get_serial_sequence('registry_schema', 'id')"
RESERVE = sa.text(f"""
SELECT setval({_SEQUENCE}, CAST(:id AS bigint))
WHERE CAST(:id AS bigint) > coalesce((SELECT last_value FROM pg_sequences WHERE
  format('%I.%I', schemaname, sequencename) = {_SEQUENCE}), 0)
""")  # noqa: S608 - a constant
SKIP_TAKEN = sa.text(f"""
SELECT setval({_SEQUENCE}, m) FROM (SELECT max(id) AS m FROM registry_schema) AS highest
WHERE m > coalesce((SELECT last_value FROM pg_sequences WHERE
  format('%I.%I', schemaname, sequencename) = {_SEQUENCE}), 0)
""")  # noqa: S608 - a constant

ADD = PreparedStatement(
    "registry_add",
    """
INSERT INTO registry_version (subject, number, schema_id, text, deleted)
VALUES (:subject, :number, :schema_id, :text, false) ON CONFLICT DO NOTHING RETURNING number
""",
    subject="text",
    number="integer",
    schema_id="integer",
    text="text",
)

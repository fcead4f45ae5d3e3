"""Rows of a large audit log for tests of its search: made by PostgreSQL itself, skewed as a real log is.

One hundred departments, 1,000 resources, 5,000 grants; a few have most of the entries. Of 100,000 entries 300 are
denials, 2,000 acts of control, 8 approvals and 2 suspensions; the others are publications, releases and commits.
"""

import sqlalchemy as sa

DEPARTMENT = "019a0000-0000-7000-8000-0000000000{:02d}"
"""The id of a department by its number; 00 has most entries, 99 fewest."""
QUIET = "019a0000-0000-7000-8000-00000000ffff"
"""A department without any entry."""

_FILL = sa.text("""
INSERT INTO audit_entry
  (id, leaf, leaf_hash, leaf_index, at, action, decision, actor_department, actor, resource, grant_id, purpose,
   case_number, reason)
SELECT id, leaf, sha256('\\x00'::bytea || leaf), index, at, action, decision, department, actor, resource, grant_id,
  purpose, case_number, reason
FROM (
  SELECT drawn.*, convert_to(
    '{"action":"' || action || '","actor":{"department":"' || department || '","id":"' || actor
    || '","kind":"machine","role":"connector","zone":"default"},"algorithms":{"digest":"sha-256",'
    || '"pseudonym":"hmac-sha256"},"at":' || at || ',"counter":' || n || ',"data":{"count":' || n % 500
    || ',"delivered":"r' || repeat(md5(n::text), 3) || '","from":[' || n || '],"generation"\\:1,"root":"'
    || repeat(md5(n::text), 2) || '","to":[' || n + 500 || ']},"decision":"' || decision
    || '","gateway":"gw1@019a0000-0000-7000-8000-000000000001#1","id":"' || id || '","pool":"bench","purpose":"'
    || purpose || '",' || CASE WHEN reason = '' THEN '' ELSE '"reason":"' || reason || '",' END
    || '"resource":"' || resource || '","salt":"' || md5('s' || n) || '","version"\\:1}', 'UTF8') AS leaf
  FROM (
    SELECT n, n - 1 AS index, CAST(md5('id' || n) AS uuid) AS id,
      CAST(:start AS bigint) + n * 1000000 AS at,
      kind.action, kind.decision,
      '019a0000-0000-7000-8000-0000000000' || lpad(CAST(d AS text), 2, '0') AS department,
      CASE WHEN kind.control THEN 'user-' || d || '-' || h % 5 ELSE 'sink-' || h % 3 END AS actor,
      'resource-' || r || '.v1' AS resource,
      CASE WHEN kind.action IN ('exchange:records:fetch', 'exchange:records:commit')
           THEN 'grant-' || d * 50 + r % 50 ELSE '' END AS grant_id,
      CASE WHEN kind.action IN ('exchange:records:fetch', 'exchange:records:commit')
           THEN 'purpose-' || h % 20 ELSE '' END AS purpose,
      CASE WHEN kind.action = 'exchange:records:fetch' THEN 'CASE-' || h % 5000 ELSE '' END AS case_number,
      CASE WHEN kind.decision = 'deny' THEN CASE WHEN n % 100000 = 1 THEN 'same_person'
           ELSE (ARRAY['quota_exhausted', 'grant_suspended', 'purpose_mismatch', 'grant_expired'])[1 + h % 4] END
           ELSE '' END AS reason
    FROM (
      SELECT n, h, CAST(floor(100 * power((h % 10007) / 10007.0, 3)) AS int) AS d,
        CAST(floor(1000 * power((h / 10007 % 9973) / 9973.0, 3)) AS int) AS r
      FROM (SELECT n, abs(CAST(hashint8(n) AS bigint)) AS h
            FROM generate_series(CAST(:first AS bigint), :last) AS n) AS numbers
    ) AS skewed,
    LATERAL (
      SELECT CASE
          WHEN n % 12500 = 7 THEN 'exchange:grant:approve'
          WHEN n % 50000 = 9 THEN 'exchange:grant:suspend'
          WHEN n % 1000 BETWEEN 3 AND 22
            THEN (ARRAY['registry:catalogue:read', 'exchange:grant:read', 'audit:log:read',
                        'identity:connector:renew'])[1 + h % 4]
          WHEN n % 1000 < 3 OR h % 100 < 40 THEN 'exchange:records:fetch'
          WHEN h % 100 < 75 THEN 'exchange:records:publish'
          ELSE 'exchange:records:commit' END AS action,
        CASE WHEN n % 1000 < 3 THEN 'deny' ELSE 'allow' END AS decision,
        n % 12500 = 7 OR n % 50000 = 9 OR n % 1000 BETWEEN 3 AND 22 AS control
    ) AS kind
  ) AS drawn
) AS made
ORDER BY n
""")


def fill(engine: sa.Engine, count: int, *, start: int, chunk: int = 250_000) -> None:
    """Add so many entries, a second apart from *start* (microseconds UTC) on, and let the planner look at them."""
    for first in range(1, count + 1, chunk):
        with engine.begin() as connection:
            values = {"first": first, "last": min(count, first + chunk - 1), "start": start}
            connection.execute(_FILL, values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE audit_entry"))

"""Objects of a database that the pool did not make, and by which its statements do something else than they say.

A trigger returns another row than the one that was written, a view in a table's place answers the pool and the
verification differently, a function in front of PostgreSQL's own states another time. The pool makes tables alone.
"""

from collections.abc import Iterator

import sqlalchemy as sa

from exchange import migrations

__all__ = ["foreign_objects"]

_TABLES = """
SELECT wanted.name, c.oid, c.relkind, c.relrowsecurity
FROM unnest(CAST(:names AS text[])) AS wanted (name) LEFT JOIN pg_catalog.pg_class AS c
ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(wanted.name) ORDER BY wanted.name
"""
# With their parts: rows of a topic's part can have a trigger of their own.
_OF_TABLES = """
WITH RECURSIVE whole (oid) AS (
    SELECT unnest(CAST(:oids AS oid[])) UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN whole ON i.inhparent = whole.oid
)
SELECT 'trigger' AS kind, CAST(t.tgname AS text) AS name, CAST(t.tgrelid AS regclass)::text AS of_table
FROM pg_catalog.pg_trigger AS t JOIN whole ON t.tgrelid = whole.oid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'rule', CAST(r.rulename AS text), CAST(r.ev_class AS regclass)::text
FROM pg_catalog.pg_rewrite AS r JOIN whole ON r.ev_class = whole.oid
WHERE r.rulename <> '_RETURN'  -- which is what a view is
ORDER BY 3, 2
"""
_FUNCTIONS = """
SELECT CAST(p.oid AS regprocedure)::text FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (pg_catalog.current_schemas(false)) AND n.nspname <> 'pg_catalog' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend AS d
    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
) ORDER BY 1
"""
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}


def foreign_objects(connection: sa.Connection) -> Iterator[str]:
    """Yield a sentence for each object that stands between the pool and its tables.

    What an extension brought is the administrator's own matter. Functions count where the pool's statements find them.
    """
    names = [table.name for metadata in migrations.METADATA for table in metadata.sorted_tables]
    oids = []
    for row in connection.execute(sa.text(_TABLES), {"names": names}):
        if row.oid is None:
            yield f"the table {row.name} is not there"
            continue
        oids.append(row.oid)
        if row.relkind not in {"r", "p"}:
            yield f"{row.name} is {_KINDS.get(row.relkind, 'no table')}; the pool made a table"
        elif row.relrowsecurity:
            yield f"the table {row.name} has row-level security, which can hide rows"
    for kind, name, table in connection.execute(sa.text(_OF_TABLES), {"oids": oids}):
        yield f"{table} has the {kind} {name}, which the pool did not make"
    for function in connection.execute(sa.text(_FUNCTIONS)).scalars():
        yield f"the function {function} is found by the pool's statements, and the pool did not make it"
    schemas = connection.execute(sa.text("SELECT pg_catalog.current_schemas(true)")).scalar_one()
    if schemas[0] != "pg_catalog":
        yield f"the search path {', '.join(schemas)} puts other functions in front of PostgreSQL's own"

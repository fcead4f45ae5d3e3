"""Facts of a database and its tables that publishing its changes depends on, from its catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from connectors.sources.postgres.connection import quote
from connectors.sources.postgres.pgoutput import Identity

__all__ = ["ColumnFacts", "DatabaseFacts", "TableFacts", "read_database", "read_table"]

_V13 = 130_000
_V15 = 150_000
_TABLE = """
SELECT c.oid, c.relkind, c.relreplident, c.reltoastrelid <> 0 OR c.relkind = 'p',
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'),
       pg_get_userbyid(c.relowner), c.relpersistence
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), coalesce(b.typname, t.typname), a.attstorage <> 'p',
       a.attgenerated <> ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_IDENTITY = """
SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey::smallint[]) k
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k
WHERE i.indrelid = %s AND CASE WHEN %s = 'i' THEN i.indisreplident ELSE i.indisprimary END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """One column; `out_of_line`: its values may be stored out of line (TOAST)."""

    name: str
    type: str
    base: str
    out_of_line: bool
    generated: bool

    def as_text(self) -> str:
        """Return the expression of its text (`connectors.sources.postgres.text_form`)."""
        name = quote(self.name)
        if self.base == "bytea":  # an empty text would be null
            return f"CASE WHEN octet_length({name}) = 0 THEN '\\x' ELSE encode({name}, 'hex') END"
        return f"CAST(CAST({name} AS numeric) AS text)" if self.base == "money" else f"CAST({name} AS text)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """One table.

    Attributes:
        table: `schema.name`.
        kind: `pg_class.relkind`: r table, p partitioned, v view, m materialized view, f foreign.
        logged: its changes are in the log; not so of unlogged and temporary tables.
        identity: its replica identity.
        identity_columns: columns of which the old row of a change is sent; all of them where it is full.
        columns: those that the publication sends, or would send.
        readable: this user may SELECT.
        owner: its role.
        published: the publication names it, whole.
        filtered: the publication sends some rows only.
    """

    schema: str
    name: str
    kind: str
    logged: bool
    identity: Identity
    identity_columns: frozenset[str]
    columns: Sequence[ColumnFacts]
    readable: bool
    owner: str
    published: bool
    filtered: bool

    @property
    def table(self) -> str:
        """Return `schema.name`."""
        return f"{self.schema}.{self.name}"

    @property
    def partitioned(self) -> bool:
        """Return whether its rows are in its partitions."""
        return self.kind == "p"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """A database and its server.

    Attributes:
        version: as a number, 150018 for 15.18.
        name, user: of database and role.
        encoding: of the database.
        recovery: it is a standby.
        wal_level: a setting.
        max_slot_bytes: `max_slot_wal_keep_size` in bytes; -1 = unlimited.
        free_slots: of `max_replication_slots`.
        replication: the role may use the replication protocol.
        publication: None where there is none, else the kinds of changes that it lacks, such as `delete`.
    """

    version: int
    name: str
    user: str
    encoding: str
    recovery: bool
    wal_level: str
    max_slot_bytes: int
    free_slots: int
    replication: bool
    publication: Sequence[str] | None


def read_database(sql: Any, publication: str) -> DatabaseFacts:
    """Read the facts of the database."""
    version = sql.info.server_version
    # Versions before 13 have no limit at all.
    limit = (
        "(SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')" if version >= _V13 else "-1"
    )
    with sql.cursor() as cursor:
        cursor.execute(
            "SELECT current_database(), current_user, current_setting('server_encoding'), pg_is_in_recovery(), "  # noqa: S608
            f"current_setting('wal_level'), {limit}, current_setting('max_replication_slots')::int - "
            "(SELECT count(*) FROM pg_replication_slots), (SELECT rolreplication OR rolsuper FROM pg_roles WHERE "
            "rolname = current_user)"
        )
        row = cursor.fetchone()
        cursor.execute(
            "SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = %s", (publication,)
        )
        sends = cursor.fetchone()
    kinds = ("insert", "update", "delete", "truncate")
    return DatabaseFacts(
        version=version,
        name=row[0],
        user=row[1],
        encoding=row[2],
        recovery=row[3],
        wal_level=row[4],
        max_slot_bytes=row[5] if row[5] < 0 else row[5] * 1024 * 1024,
        free_slots=row[6],
        replication=row[7],
        publication=None if sends is None else [kind for kind, sent in zip(kinds, sends, strict=True) if not sent],
    )


def read_table(sql: Any, table: str, publication: str) -> TableFacts | None:
    """Read the facts of a table; None when it is not there, or this user may not see it."""
    schema, _, name = table.rpartition(".")
    schema = schema or "public"
    with sql.cursor() as cursor:
        cursor.execute(_TABLE, (schema, name))
        row = cursor.fetchone()
        if row is None:
            return None
        cursor.execute(_COLUMNS, (row[0],))
        columns = [
            ColumnFacts(name=each[0], type=each[1], base=each[2], out_of_line=each[3] and row[3], generated=each[4])
            for each in cursor.fetchall()
        ]
        cursor.execute(_IDENTITY, (row[0], row[2]))
        keys = [each[0] for each in cursor.fetchall()]
        listed = "attnames::text[], rowfilter" if sql.info.server_version >= _V15 else "NULL, NULL"
        cursor.execute(
            f"SELECT {listed} FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s",  # noqa: S608
            (publication, schema, name),
        )
        sent = cursor.fetchone()
    identity = Identity(row[2])
    # From version 18 on a publication may send generated columns; the list of what it sends says so.
    names = set(sent[0]) if sent is not None and sent[0] is not None else None
    kept = [each for each in columns if (not each.generated if names is None else each.name in names)]
    identity_columns = {
        Identity.FULL: frozenset(each.name for each in columns),
        Identity.NOTHING: frozenset[str](),
    }.get(identity, frozenset(keys))
    return TableFacts(
        schema=schema,
        name=name,
        kind=row[1],
        logged=row[6] == "p",
        identity=identity,
        identity_columns=identity_columns,
        columns=kept,
        readable=row[4],
        owner=row[5],
        published=sent is not None,
        filtered=sent is not None and sent[1] is not None,
    )

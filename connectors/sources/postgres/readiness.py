"""Readiness of a database for publishing its changes: findings, each with the statement that mends it. Pure.

A connector's run checks the same as `pool-connect check`, and stops at the first failure: what is not ready would lose
changes later, or harm the database that it reads.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from connectors.sources.postgres.catalogue import DatabaseFacts, TableFacts
from connectors.sources.postgres.connection import quote
from connectors.sources.postgres.pgoutput import Identity
from schemas.errors import InvalidError, Reason

__all__ = [
    "Finding",
    "Toast",
    "Verdict",
    "check_database",
    "check_read_right",
    "check_table",
    "check_time_zones",
    "raise_first",
]

_OLDEST = 140_000  # messages for the heartbeat


class Verdict(StrEnum):
    """How a finding ends."""

    OK = "ok"
    WARN = "WARN"
    FAIL = "FAIL"


class Toast(StrEnum):
    """Where a value comes from that is stored out of line, did not change, and so is not sent."""

    REQUIRE_FULL = "require_full"  # the old row, which is sent under REPLICA IDENTITY FULL
    REREAD = "reread"  # the table, later than the change


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding, with what mends it.

    Attributes:
        verdict: how it ends.
        subject: what it is about: a setting, a table.
        message: what was found, and as whom the statements are run.
        statements: SQL to paste.
        settings: lines of the configuration to paste.
    """

    verdict: Verdict
    subject: str
    message: str
    statements: Sequence[str] = ()
    settings: Sequence[str] = ()


def raise_first(findings: Collection[Finding]) -> None:
    """Raise the first failure, if there is one.

    Raises:
        InvalidError: CONFIG_INVALID, with its statements.
    """
    for each in findings:
        if each.verdict is Verdict.FAIL:
            raise InvalidError(
                Reason.CONFIG_INVALID, " ".join([f"{each.subject}: {each.message}", *each.statements, *each.settings])
            )


def check_database(
    facts: DatabaseFacts, *, publication: str, accept_unbounded_wal: bool, kept: bool
) -> Iterator[Finding]:
    """Check the server, the role and the publication; see `check_table` for the tables.

    Args:
        facts: of the database.
        publication: its name.
        accept_unbounded_wal: a person accepts that a stopped connector may fill the server's disk.
        kept: the log is already kept for this connector, so it needs no new slot.
    """
    if facts.version < _OLDEST:
        yield _failure(
            "version", f"PostgreSQL {facts.version // 10_000} has no messages in its log; 14 or later is needed"
        )
    if facts.recovery:
        yield _failure("standby", "this server is a standby; name its primary in the configuration")
    if facts.wal_level != "logical":
        yield _failure(
            "wal_level",
            f'is "{facts.wal_level}", changes need "logical". As a superuser; then restart the server:',
            "ALTER SYSTEM SET wal_level = 'logical';",
        )
    if facts.max_slot_bytes < 0 and not accept_unbounded_wal:
        yield _failure(
            "wal limit",
            "max_slot_wal_keep_size is unlimited: a stopped connector could fill the server's disk. As a superuser, "
            "with a size that the disk has to spare (or `accept_unbounded_wal: true` in the configuration):",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';",
            "SELECT pg_reload_conf();",
        )
    yield from _check_role(facts, kept=kept)
    yield from _check_publication(facts, publication)


def _check_role(facts: DatabaseFacts, *, kept: bool) -> Iterator[Finding]:
    if not facts.replication:
        yield _failure(
            "replication right",
            f"{facts.user} may not use replication. As a superuser:",
            f"ALTER ROLE {quote(facts.user)} REPLICATION;",
        )
    if facts.free_slots < (1 if kept else 2):
        yield _failure(
            "slots",
            f"{facts.free_slots} of max_replication_slots are free; a snapshot needs one, and the connector another. "
            "As a superuser; then restart the server:",
            "ALTER SYSTEM SET max_replication_slots = 20;",
        )
    if facts.encoding == "SQL_ASCII":
        yield _failure(
            "encoding", "the database has no encoding (SQL_ASCII): its texts cannot be known; use another mode"
        )


def _check_publication(facts: DatabaseFacts, publication: str) -> Iterator[Finding]:
    if facts.publication is None:
        yield _failure(
            "publication",
            f"{publication} is not there. `pool-connect setup --print-sql` prints all of its statements",
            f"CREATE PUBLICATION {quote(publication)};",
        )
    elif facts.publication:
        yield _failure(
            "publication",
            f"{publication} does not send {', '.join(facts.publication)}. As its owner:",
            f"ALTER PUBLICATION {quote(publication)} SET (publish = 'insert, update, delete, truncate');",
        )


def check_table(
    facts: TableFacts | None,
    table: str,
    *,
    publication: str,
    user: str,
    key: Sequence[str],
    columns: Collection[str],
    toast: Toast,
) -> Iterator[Finding]:
    """Check one table.

    Args:
        facts: of the table; None when it is not there.
        table: its name.
        publication: that has to send it.
        user: who reads it.
        key: columns that make the record's key.
        columns: columns that a record may be made of.
        toast: of the configuration.
    """
    if facts is None:
        yield _failure(table, f"is not there, or {user} may not see it")
        return
    quoted = quote(facts.schema, facts.name)
    if facts.kind not in ("r", "p") or not facts.logged:
        yield _failure(
            table, "is a view, a foreign or an unlogged table: its changes are in no log; use `mode: snapshot`"
        )
        return
    yield from check_read_right(facts, user=user)
    yield from _check_identity(facts, quoted, key, columns, toast)
    if not facts.published:
        statements = [f"ALTER PUBLICATION {quote(publication)} ADD TABLE {quoted};"]
        if facts.partitioned:
            statements.insert(0, f"ALTER PUBLICATION {quote(publication)} SET (publish_via_partition_root = true);")
        yield _failure(
            table, f"the publication {publication} does not send it under this name. As its owner:", *statements
        )
    if facts.filtered:
        yield _failure(
            table,
            f"the publication {publication} sends some of its rows only, so a row that leaves the filter would look "
            "deleted. As its owner, publish it whole:",
            f"ALTER PUBLICATION {quote(publication)} DROP TABLE {quoted};",
            f"ALTER PUBLICATION {quote(publication)} ADD TABLE {quoted};",
        )


def check_read_right(facts: TableFacts, *, user: str) -> Iterator[Finding]:
    """Check that a role may read a table, a view or a materialized view."""
    if not facts.readable:
        yield _failure(
            facts.table,
            f"{user} may not read it. As {facts.owner}:",
            f"GRANT USAGE ON SCHEMA {quote(facts.schema)} TO {quote(user)};",
            f"GRANT SELECT ON {quote(facts.schema, facts.name)} TO {quote(user)};",
        )


def check_time_zones(facts: TableFacts, fields: Mapping[str, str]) -> Iterator[Finding]:
    """Check that what a time means is known where the database does not say it.

    Args:
        facts: of the table.
        fields: column → field, of the columns that fill a moment in UTC and have no `timezone:` in the configuration.
    """
    without = [each.name for each in facts.columns if each.base == "timestamp" and each.name in fields]
    if without:
        several = f"column {without[0]} has" if len(without) == 1 else f"columns {', '.join(without)} have"
        yield Finding(
            verdict=Verdict.FAIL,
            subject=facts.table,
            message=f"the {several} times without a zone, and the contract wants moments in UTC: every row would be "
            "rejected. Name the zone that the department writes its times in, under `columns:`, such as:",
            settings=[
                f"{json.dumps(name, ensure_ascii=False)}: {{ as: {fields[name]}, timezone: Asia/Shanghai }}"
                for name in without
            ],
        )


def _check_identity(
    facts: TableFacts, quoted: str, key: Sequence[str], columns: Collection[str], toast: Toast
) -> Iterator[Finding]:
    full = f"ALTER TABLE {quoted} REPLICA IDENTITY FULL;"
    if not facts.identity_columns:
        yield _failure(
            facts.table,
            "has no replica identity: once it is published, every UPDATE and DELETE of its applications would fail. "
            f"As {facts.owner}, a primary key, or:",
            full,
        )
        return
    outside = [name for name in key if name not in facts.identity_columns]
    if outside:
        yield _failure(
            facts.table,
            f"{', '.join(outside)} of the record's key would not be sent with a deleted row. As {facts.owner}:",
            full,
        )
    stored_out = [each.name for each in facts.columns if each.out_of_line and each.name in columns]
    if facts.identity is Identity.FULL or not stored_out:
        return
    several = f"column {stored_out[0]}" if len(stored_out) == 1 else f"columns {', '.join(stored_out)}"
    if toast is Toast.REREAD:
        yield Finding(
            verdict=Verdict.WARN,
            subject=facts.table,
            message=f"{several} can be stored out of line; where a change lacks a value, it is read from the table, "
            "later than the change (`toast: reread`)",
        )
    elif not outside:
        yield _failure(
            facts.table,
            f"{several} can be stored out of line, and a change would lack the value. As {facts.owner}; or exclude the "
            "column, or set `toast: reread`:",
            full,
        )


def _failure(table: str, message: str, *statements: str) -> Finding:
    return Finding(verdict=Verdict.FAIL, subject=table, message=message, statements=statements)

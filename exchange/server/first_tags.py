"""First tags of rows that were there before their table had tags: once for each table, by `pool migrate` (ADR 0045).

Which tables have had their first tags stands in `secrets/tagged-tables.json`, beside the keys and not in the database:
else somebody who sets a revision back in the database could insert rows and let the next migration tag them. A new pool
marks every table when it is made, so that no row of it ever gets a tag later.

An attacker who came before the migration is not found by tags. So a row gets its first tag only if an entry of the log
accounts for it, where that can be checked (accounts, certificates, signing keys, invitations, departments, catalogue
entries); the others stay without a tag, are refused, and are printed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from exchange.audit.entry_tags import EntryTags, process_of
from exchange.audit.tables import audit_entry, audit_process
from exchange.erasure.postgres_retractions import chain_existing
from exchange.erasure.tables import retraction_version
from exchange.identity.keyfile import replace_private
from exchange.server.row_tags import tagged_tables
from registry.database.row_tags import RowTags, key_text
from registry.database.unit_of_work import Database, RowChange, UnitOfWork, connection_of, note_row_change
from schemas.access import Action
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = ["FirstTags", "mark_all", "tag_existing_rows"]

_MARKER = "tagged-tables.json"
_RETRACTIONS = retraction_version.name  # a chain of MACs (exchange.erasure.postgres_retractions)
_ENTRIES = audit_entry.name  # entries are tagged in another way than rows (exchange.audit.entry_tags)
_BATCH = 1_000  # rows updated at a time
_Entry: TypeAlias = Mapping[str, Any]


@dataclass(slots=True)
class FirstTags:
    """What the first tagging did.

    Attributes:
        tagged: rows that got a tag, by table.
        unaccounted: rows that got none, since no entry of the log made them; table and key.
        unchecked: tables whose rows got tags without a look at the log.
        retractions: that got their first chains of MACs.
    """

    tagged: dict[str, int] = field(default_factory=dict)
    unaccounted: list[tuple[str, str]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    retractions: int = 0

    def lines(self) -> Iterator[str]:
        """Return what an operator must read."""
        if self.tagged:
            yield f"rows that carry authority got their first tags: {sum(self.tagged.values())}"
        if self.retractions:
            yield f"not checked against the log: {self.retractions} retractions; `pool broker verify` compares them"
        for table in self.unchecked:
            yield f"not checked against the log: {table}, {self.tagged[table]} rows"
        for table, key in self.unaccounted:
            yield f"NOT tagged, and refused from now on, since no entry of the log made it: {table} {key}"


def mark_all(secrets: Path) -> None:
    """Mark every tagged table: a new pool has no row from before."""
    _write_marker(secrets, {_ENTRIES, _RETRACTIONS} | {table.name for table in tagged_tables()})


def tag_existing_rows(
    database: Database, tags: RowTags, entry_tags: EntryTags, secrets: Path, record: Callable[[UnitOfWork], None]
) -> FirstTags:
    """Tag the rows of each table that has not had its first tags; return what was done.

    A crash before the marker is written repeats it: rows that have a tag are left as they are.

    Args:
        database: migrated; the pool does not run.
        tags: with the pool's keys.
        entry_tags: of the operator's role: entries that still wait for their place get tags too, and their processes
            are registered under this role.
        secrets: the folder of the keys.
        record: writes the entry that notes the first tags, in the same transaction.

    Raises:
        InvalidError: CONFIG_INVALID, the marker cannot be read.
    """
    marked = _read_marker(secrets)
    new = [table for table in tagged_tables() if table.name not in marked]
    done = FirstTags()
    if not new and {_ENTRIES, _RETRACTIONS} <= marked:
        return done
    with database.begin() as work:
        log = _Log(connection_of(work))
        for table in new:
            _tag_table(work, tags, table, log, done)
        if _ENTRIES not in marked:
            _tag_waiting(connection_of(work), entry_tags)
        if _RETRACTIONS not in marked:
            done.retractions = chain_existing(work, tags)
        if done.tagged:
            record(work)
    _write_marker(secrets, marked | {_ENTRIES, _RETRACTIONS} | {table.name for table in new})
    return done


def _tag_table(work: UnitOfWork, tags: RowTags, table: sa.Table, log: "_Log", done: FirstTags) -> None:
    connection = connection_of(work)
    accounts_for = _CHECKS.get(table.name)
    key = [*table.primary_key.columns]
    statement = (
        sa.update(table)
        .where(*(column == sa.bindparam(f"key_{column.name}") for column in key))
        .values(row_version=1, tag=sa.bindparam("new_tag"))
    )
    values = []
    for found in connection.execute(sa.select(table).where(table.c.tag.is_(None)).order_by(*key)):
        row = {**found._mapping, "row_version": 1}  # noqa: SLF001 - its public name
        if accounts_for is not None and not accounts_for(log, row):
            done.unaccounted.append((table.name, key_text(table, row)))
            continue
        tag = tags.tag(table, row)
        values.append({f"key_{column.name}": row[column.name] for column in key} | {"new_tag": tag})
        note_row_change(work, RowChange(table.name, key_text(table, row), None, tag))
    for start in range(0, len(values), _BATCH):
        connection.execute(statement, values[start : start + _BATCH])
    if values:
        done.tagged[table.name] = len(values)
        if accounts_for is None:
            done.unchecked.append(table.name)


def _tag_waiting(connection: sa.Connection, tags: EntryTags) -> None:
    """Tag the entries that have no place in the log yet: those of a pool that was stopped in the last second."""
    waiting = audit_entry.c.leaf_index.is_(None) & audit_entry.c.tag.is_(None)
    for row in connection.execute(
        sa.select(audit_entry.c.seq, audit_entry.c.leaf, audit_entry.c.leaf_hash).where(waiting)
    ):
        process = process_of(bytes(row.leaf))
        known = {"process": process, "role": tags.role, "tag": tags.registration(process)}
        connection.execute(pg.insert(audit_process).values(known).on_conflict_do_nothing())
        tag = tags.tag(process, bytes(row.leaf_hash))
        connection.execute(sa.update(audit_entry).where(audit_entry.c.seq == row.seq).values(tag=tag))


class _Log:
    """What the entries of the acts on identities, departments and the catalogue say, signed or not."""

    def __init__(self, connection: sa.Connection) -> None:
        self._entries: dict[str, list[_Entry]] = {}
        self._connection = connection

    def of(self, action: Action) -> list[_Entry]:
        """Return the entries of acts of a kind that were allowed and did not fail."""
        if action not in self._entries:
            rows = self._connection.execute(
                sa.text("SELECT leaf FROM audit_entry WHERE action = :action AND decision = 'allow' ORDER BY seq"),
                {"action": str(action)},
            )
            entries = ({"data": {}, **json.loads(bytes(leaf))} for (leaf,) in rows)
            self._entries[action] = [one for one in entries if "failed" not in one["data"]]
        return self._entries[action]


def _account(log: _Log, row: Mapping[str, Any]) -> bool:
    if row["name"] == "bootstrap" and row["created_by"] == "init" and row["role"] == "bootstrap":
        return True  # made with the pool, before it had a log
    return any(
        one.get("resource") == row["name"]
        and one["data"].get("role") == row["role"]
        and one["data"].get("department", "") == row["department"]
        for one in log.of(Action.USER_ADD)
    )


def _certificate(log: _Log, row: Mapping[str, Any]) -> bool:
    issued = (*log.of(Action.CONNECTOR_ENROL), *log.of(Action.CONNECTOR_RENEW))
    if not any(one["data"].get("certificate") == row["serial"] and _is_holder(one, row) for one in issued):
        return False
    revoked = any(row["serial"] in one["data"].get("certificates", ()) for one in log.of(Action.CONNECTOR_REVOKE))
    return row["revoked_at"] is not None or not revoked


def _signing_key(log: _Log, row: Mapping[str, Any]) -> bool:
    public = bytes(row["public_key"]).hex()
    return any(
        one["data"].get("signing_key") == public and _is_holder(one, row) for one in log.of(Action.CONNECTOR_ENROL)
    )


def _is_holder(entry: _Entry, row: Mapping[str, Any]) -> bool:
    actor = entry.get("actor") or {}
    return (actor.get("department"), actor.get("id")) == (row["department"], row["connector"])


def _invitation(log: _Log, row: Mapping[str, Any]) -> bool:
    return any(
        one.get("resource") == row["department"]
        and one["data"].get("connector") == (row["connector"] or "*")
        and (one.get("actor") or {}).get("id") == row["invited_by"]
        for one in log.of(Action.DEPARTMENT_INVITE)
    )


def _department(log: _Log, row: Mapping[str, Any]) -> bool:
    # Renamed ones keep no entry of their first name in this row: only a first version can be compared.
    name = json.loads(row["body"])["short_name"]
    return row["version"] > 1 or any(one.get("resource") == name for one in log.of(Action.DEPARTMENT_REGISTER))


def _catalogue(log: _Log, row: Mapping[str, Any]) -> bool:
    topic = str(Topic.parse(f"{row['name']}.v{row['major']}"))
    needed = [Action.CATALOGUE_DRAFT]
    body = json.loads(row["body"])
    if body["state"] == "published":
        needed.append(Action.CATALOGUE_PUBLISH)
    if body["state"] == "archived":
        needed.append(Action.CATALOGUE_ARCHIVE)
    acts = [[one for one in log.of(action) if one.get("resource") == topic] for action in needed]
    drafted = any((one.get("actor") or {}).get("department") in {body["provider"], None, ""} for one in acts[0])
    return drafted and all(acts)


_CHECKS: Mapping[str, Callable[[_Log, Mapping[str, Any]], bool]] = {
    "identity_account": _account,
    "identity_certificate": _certificate,
    "identity_signing_key": _signing_key,
    "identity_invitation": _invitation,
    "registry_department": _department,
    "registry_catalogue": _catalogue,
}


def _read_marker(secrets: Path) -> set[str]:
    path = secrets / _MARKER
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{path} cannot be read; restore it from the backup of the keys"
        ) from error
    return {str(name) for name in content}


def _write_marker(secrets: Path, tables: set[str]) -> None:
    replace_private(secrets / _MARKER, json.dumps(sorted(tables), indent=2).encode() + b"\n")

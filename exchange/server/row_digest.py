"""Row digest: a periodic entry with the number and the digest of the rows of each tagged table.

The sequencer writes it every `PERIOD` seconds if a row has changed since the last one. The tables are locked against
changes meanwhile, for milliseconds: so each entry behind it in the table of entries notes only changes that came after
it. Before, and at its start, the sequencer takes the rows as they are, takes back what entries noted since the newest
digest, and must get that digest again: else something was put back, changed or removed, and verification names it.
Honest changes are no finding, because their entries note them.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
import structlog

from exchange import metrics
from exchange.audit.entry_tags import EntryTags, process_of
from exchange.server.row_tags import tagged_tables
from exchange.server.row_watch import Versions, read_versions
from registry.database.unit_of_work import Database, UnitOfWork, connection_of
from schemas.audit import DIGEST_OF_ROWS
from schemas.canonical import Json
from schemas.errors import PoolError
from schemas.merkle import leaf_hash

__all__ = ["PERIOD", "RowDigests", "digests_of", "keep_digests", "rewound"]

PERIOD = 600.0  # seconds
_log = structlog.get_logger()
_LOCK_TIMEOUT = sa.text("SET LOCAL lock_timeout = '200ms'")
_NEWEST = sa.text("""
SELECT seq, leaf, tag FROM audit_entry WHERE action = :action AND NOT refused ORDER BY seq DESC LIMIT 1
""")
_SINCE = sa.text("""
SELECT leaf, tag FROM audit_entry
WHERE seq > :seq AND NOT refused AND decision = 'allow' AND action NOT LIKE 'exchange:records:%' ORDER BY seq
""")
_PROCESS = sa.text("SELECT role, tag FROM audit_process WHERE process = :process")


def digests_of(rows: Versions) -> dict[str, Json]:
    """Return number and digest of the rows of each table: SHA-256 over keys and tags in the order of the keys."""
    tables: dict[str, list[tuple[str, str]]] = {table.name: [] for table in tagged_tables()}
    for (table, key), (_, tag) in rows.items():
        tables.setdefault(table, []).append((key, tag))
    return {name: [len(found), _digest(found)] for name, found in sorted(tables.items())}


def _digest(rows: list[tuple[str, str]]) -> str:
    lines = (json.dumps(row, ensure_ascii=False) for row in sorted(rows))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def rewound(rows: Versions, changes: list[list[str]]) -> Versions:
    """Return the rows as they were before changes that entries noted, newest last."""
    before = dict(rows)
    for table, key, former, _ in reversed(changes):
        if former:
            before[table, key] = (0, former)
        else:
            before.pop((table, key), None)
    return before


class RowDigests:
    """Writes and checks the digests.

    Args:
        database: opens transactions.
        record: writes an entry with an action and data in a transaction.
        tags: with the keys of all roles, to know an entry that the pool wrote.
    """

    def __init__(
        self, database: Database, record: Callable[[UnitOfWork, str, Mapping[str, Json]], None], tags: EntryTags
    ) -> None:
        self._database = database
        self._record = record
        self._tags = tags

    def check(self) -> list[str]:
        """Return the tables whose rows are not what the newest digest and the entries since then make of them."""
        with self._database.begin() as work:
            connection = connection_of(work)
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            newest = connection.execute(_NEWEST, {"action": DIGEST_OF_ROWS}).one_or_none()
            if newest is None:
                return []
            roles: dict[str, str] = {}  # by registered process
            changes: list[list[str]] = []
            for row in (newest, *connection.execute(_SINCE, {"seq": newest.seq}).all()):
                if not self._is_ours(connection, row, roles):
                    return ["audit_entry"]  # the digest, or an entry after it, was changed or made up
                if row is not newest:
                    changes += json.loads(bytes(row.leaf)).get("data", {}).get("rows", [])
            now = digests_of(rewound(read_versions(connection), changes))
        then = json.loads(bytes(newest.leaf))["data"]["tables"]
        return [name for name, expected in then.items() if now.get(name) != expected]

    def write(self) -> bool:
        """Write an entry if a row has changed since the newest one; return whether it did.

        Raises:
            UnavailableError: a change of a row takes long at this moment; the next turn tries again.
        """
        names = ", ".join(table.name for table in tagged_tables())
        with self._database.begin() as work:
            connection = connection_of(work)
            connection.execute(_LOCK_TIMEOUT)
            connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE MODE"))
            tables = digests_of(read_versions(connection))
            newest = connection.execute(_NEWEST, {"action": DIGEST_OF_ROWS}).one_or_none()
            if newest is not None and json.loads(bytes(newest.leaf)).get("data", {}).get("tables") == tables:
                return False
            self._record(work, DIGEST_OF_ROWS, {"tables": tables})
        return True

    def _is_ours(self, connection: sa.Connection, row: Any, roles: dict[str, str]) -> bool:
        """Return whether a process of the pool wrote the leaf of a row, as its tag proves."""
        leaf = bytes(row.leaf)
        process = process_of(leaf)
        if process not in roles:
            known = connection.execute(_PROCESS, {"process": process}).one_or_none()
            registered = known is not None and self._tags.is_registered(known.role, process, known.tag)
            roles[process] = known.role if known is not None and registered else ""
        return self._tags.holds(roles[process], process, leaf_hash(leaf), row.tag)


def keep_digests(digests: RowDigests, stop: threading.Event) -> None:
    """Every `PERIOD` seconds check the newest digest, and write another if a row has changed.

    None is written while the check fails: it would make what was put back the state to compare with.
    """
    reported: set[str] = set()
    while not stop.is_set():
        try:
            wrong = set(digests.check())
            for table in sorted(wrong - reported):
                metrics.ROWS_PUT_BACK.labels(table, "digest").inc()
                _log.error("rows_differ_from_digest", table=table)
            reported = wrong
            if not wrong:
                digests.write()
        except PoolError as error:
            _log.warning("upkeep_failed", task="digest", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see exchange.server.background
            _log.error("upkeep_failed", task="digest", error=type(error).__name__)
        stop.wait(PERIOD)

"""What `status` and `quarantine` read: the ledgers alone, so they answer while the connector runs, and while it cannot.

The files are opened read-only; the connector's lock is not asked for.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from connectors.config.config import ConnectorConfig
from connectors.port import RejectCode
from connectors.runtime import assembly
from connectors.state.quarantine import Quarantined

__all__ = ["StreamStatus", "quarantined", "statuses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """One publication or subscription.

    Attributes:
        stream: its resource or grant.
        direction: `publish` or `subscribe`.
        state: how its last run ended: done, stopped, a reason code, running; `never` before the first.
        last_success: ISO 8601, empty = never.
        sequence: of the last acknowledged batch.
        last_entry: audit entry of the last receipt or release.
        unacknowledged: batches in the outbox.
        keys: published keys that are known.
        read, published, quarantined, unchanged, voided: of the last run.
        in_quarantine: open entries by reason.
        voids_held: missing keys that wait for unreadable ones.
        certificate_expires, grant_expires: ISO 8601, as last told by the pool.
        ledger_lost: since when the ledger does not know every key, ISO 8601.
    """

    stream: str
    direction: str
    state: str = "never"
    last_success: str = ""
    sequence: int = 0
    last_entry: str = ""
    unacknowledged: int = 0
    keys: int = 0
    read: int = 0
    published: int = 0
    quarantined: int = 0
    unchanged: int = 0
    voided: int = 0
    in_quarantine: dict[str, int]
    voids_held: int = 0
    certificate_expires: str = ""
    grant_expires: str = ""
    ledger_lost: str = ""


def statuses(config: ConnectorConfig) -> list[StreamStatus]:
    """Return the state of every stream of a configuration."""
    streams = [("publish", each.resource) for each in config.publish]
    streams += [("subscribe", each.grant) for each in config.subscribe]
    return [_status(direction, stream, assembly.ledger_path(config, stream)) for direction, stream in streams]


def quarantined(config: ConnectorConfig, *, everything: bool = False) -> Iterator[tuple[str, Quarantined]]:
    """Return (stream, entry) of the quarantines of all streams."""
    for each in (*(entry.resource for entry in config.publish), *(entry.grant for entry in config.subscribe)):
        path = assembly.ledger_path(config, each)
        if not path.exists():
            continue
        with closing(_open(path)) as sql:
            rows = sql.execute(
                "SELECT id, portion, line, code, field, message, original, first_seen, last_seen, attempts, open "
                "FROM quarantine WHERE open OR ? ORDER BY portion, line, id",
                (everything,),
            )
            for row in rows:
                facts: dict[str, Any] = {**dict(row), "code": RejectCode(row["code"]), "open": bool(row["open"])}
                yield each, Quarantined(**facts)


def _open(path: Path) -> sqlite3.Connection:
    sql = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)
    sql.row_factory = sqlite3.Row
    return sql


def _status(direction: str, stream: str, path: Path) -> StreamStatus:
    if not path.exists():
        return StreamStatus(stream=stream, direction=direction, in_quarantine={})
    with closing(_open(path)) as sql:
        facts = dict(sql.execute("SELECT name, value FROM meta").fetchall())
        standing = sql.execute("SELECT sequence, complete FROM standing").fetchone()
        run = sql.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 1").fetchone()
        receipt = sql.execute("SELECT entry_id FROM receipts ORDER BY sequence DESC LIMIT 1").fetchone()
        counts = sql.execute("SELECT code, count(*) FROM quarantine WHERE open GROUP BY code ORDER BY code").fetchall()
        return StreamStatus(
            stream=stream,
            direction=direction,
            state=(run["outcome"] or "running") if run else "never",
            last_success=facts.get("last_success", ""),
            sequence=standing["sequence"] if standing else 0,
            last_entry=receipt["entry_id"] if receipt else facts.get("last_entry", ""),
            unacknowledged=sql.execute("SELECT count(*) FROM outbox").fetchone()[0],
            keys=sql.execute("SELECT count(*) FROM keys").fetchone()[0],
            read=run["read"] if run else 0,
            published=run["published"] if run else 0,
            quarantined=run["quarantined"] if run else 0,
            unchanged=run["unchanged"] if run else 0,
            voided=run["voided"] if run else 0,
            in_quarantine=dict(counts),
            voids_held=int(facts.get("voids_held", "0")),
            certificate_expires=_moment(facts.get("certificate_expires", "")),
            grant_expires=_moment(facts.get("grant_expires", "")),
            ledger_lost=facts.get("ledger_lost_at", ""),
        )


def _moment(micros: str) -> str:
    if not micros or micros == "0":
        return ""
    return datetime.fromtimestamp(int(micros) // 1_000_000, UTC).isoformat(timespec="seconds")

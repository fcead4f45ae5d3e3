"""Status of the streams and the quarantined rows, from the ledgers alone, whether the connector runs or not.

The files are opened read-only, without the connector's lock.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.runtime import assembly
from connectors.state.quarantine import QuarantineEntry, read_entries
from connectors.state.read_only import open_read_only

__all__ = ["StreamStatus", "quarantined", "read_status", "statuses"]

_COUNTED = 64 * 1024 * 1024  # bytes of a ledger whose keys are counted where nobody has asked for it


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """One publication or subscription.

    Attributes:
        stream: its resource or grant.
        direction: `publish` or `subscribe`.
        state: how its last run ended: done, stopped, replayed, a reason code, running; `never` before the first.
        last_success: ISO 8601, empty = never.
        sequence: of the last acknowledged batch.
        last_entry: audit entry of the last receipt or release.
        unacknowledged: batches in the outbox.
        keys: published keys.
        read, published, quarantined, unchanged, voided: of the last run.
        in_quarantine: open entries by reason.
        files_set_aside: files that are quarantined whole.
        voids_held: missing keys that are not voided while other keys cannot be read.
        certificate_expires, grant_expires: ISO 8601, as the pool last stated.
        stopped: why no later change of the table is published; a person has to look.
        next_pass: when the next pass is due by the schedule, ISO 8601; empty = without one, or it runs.
        way: how late commits are found, of a table that is read by a cursor.
        waiting: what holds its horizon back.
        reconciled: when its last reading of the whole began. ISO 8601.
        ledger_lost: when the ledger was lost; keys published before may be missing in it. ISO 8601.
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
    files_set_aside: int = 0
    voids_held: int = 0
    certificate_expires: str = ""
    grant_expires: str = ""
    ledger_lost: str = ""
    stopped: str = ""
    next_pass: str = ""
    way: str = ""
    waiting: str = ""
    reconciled: str = ""


def statuses(config: ConnectorConfig) -> list[StreamStatus]:
    """Return the state of every stream of a configuration."""
    streams = [("publish", each.resource) for each in config.publish]
    streams += [("subscribe", each.grant) for each in config.subscribe]
    return [_status(direction, stream, assembly.ledger_path(config, stream)) for direction, stream in streams]


def read_status(config: ConnectorConfig, direction: str, stream: str) -> StreamStatus:
    """Return the state of one stream, for a look every minute: keys of a large ledger are not counted, and are 0.

    Raises:
        sqlite3.Error: the ledger cannot be read now; it is being made, say.
    """
    return _status(direction, stream, assembly.ledger_path(config, stream), counted=_COUNTED)


def quarantined(config: ConnectorConfig, *, everything: bool = False) -> Iterator[tuple[str, QuarantineEntry]]:
    """Return (stream, entry) of the quarantines of all streams."""
    for stream in (*(each.resource for each in config.publish), *(each.grant for each in config.subscribe)):
        path = assembly.ledger_path(config, stream)
        if not path.exists():
            continue
        with closing(_open(path)) as sql:
            for entry in read_entries(sql, everything=everything):
                yield stream, entry


def _open(path: Path) -> sqlite3.Connection:
    sql = open_read_only(path)
    sql.row_factory = sqlite3.Row
    return sql


def _status(direction: str, stream: str, path: Path, *, counted: int | None = None) -> StreamStatus:
    if not path.exists():
        return StreamStatus(stream=stream, direction=direction, in_quarantine={})
    counts_keys = counted is None or path.stat().st_size <= counted
    with closing(_open(path)) as sql:
        meta = dict(sql.execute("SELECT name, value FROM meta").fetchall())
        checkpoint = sql.execute("SELECT sequence, complete FROM standing").fetchone()
        run = sql.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 1").fetchone()
        receipt = sql.execute("SELECT entry_id FROM receipts ORDER BY sequence DESC LIMIT 1").fetchone()
        counts = sql.execute("SELECT code, count(*) FROM quarantine WHERE open GROUP BY code ORDER BY code").fetchall()
        return StreamStatus(
            stream=stream,
            direction=direction,
            state=(run["outcome"] or "running") if run else "never",
            last_success=meta.get("last_success", ""),
            sequence=checkpoint["sequence"] if checkpoint else 0,
            last_entry=receipt["entry_id"] if receipt else meta.get("last_entry", ""),
            unacknowledged=sql.execute("SELECT count(*) FROM outbox").fetchone()[0],
            keys=sql.execute("SELECT count(*) FROM keys").fetchone()[0] if counts_keys else 0,
            read=run["read"] if run else 0,
            published=run["published"] if run else 0,
            quarantined=run["quarantined"] if run else 0,
            unchanged=run["unchanged"] if run else 0,
            voided=run["voided"] if run else 0,
            in_quarantine=dict(counts),
            files_set_aside=sql.execute("SELECT count(*) FROM quarantine WHERE open AND run = 0").fetchone()[0],
            voids_held=int(meta.get("voids_held", "0")),
            certificate_expires=_iso_time(meta.get("certificate_expires", "")),
            grant_expires=_iso_time(meta.get("grant_expires", "")),
            ledger_lost=meta.get("ledger_lost_at", ""),
            stopped=meta.get("change_stopped", ""),
            next_pass=meta.get("next_pass", ""),
            way=meta.get("cursor_way", ""),
            waiting=meta.get("cursor_waiting", ""),
            reconciled=meta.get("cursor_reconciled", ""),
        )


def _iso_time(micros: str) -> str:
    if not micros or micros == "0":
        return ""
    return datetime.fromtimestamp(int(micros) // 1_000_000, UTC).isoformat(timespec="seconds")

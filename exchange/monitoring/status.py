"""Status of a pool on its own machine, for `pool status`: whatever can be read, whether the pool runs or not.

    ports.json          the processes that this folder started, and their addresses
    /readyz, /metrics   of each process that listens for metrics: checks, alarms, lanes that cannot be read
    the database        what is signed, counts, size; read-only, and never started: the embedded one may be down
    files               ends of certificates, room on the disk, the last backup

No key is read and nothing is decided, so the rows are counted as they are stored: tags are not checked, and
`pool audit verify` compares rows with the log. What does not answer is left out and named.
"""

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import exc as sa_exc

from exchange.config import Config
from exchange.monitoring.alarms import OpenAlarm, Sample, Severity, open_alarms
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.supervision.host_facts import (
    LastBackup,
    certificate_ends,
    disk_free_ratio,
    last_backup,
)

__all__ = ["SOON", "Health", "PoolCounts", "PoolStatus", "ProcessStatus", "read_status"]

SOON: Final = timedelta(days=30)
"""Time before its end in which a certificate of the pool is named."""

_OVERDUE = timedelta(days=9)  # a connector renews its certificate ten days before it ends
_PATIENCE = 5.0  # seconds for an answer
_MOST = 1_000  # certificates of connectors
_OPEN_REQUESTS = ("submitted", "supplement", "countersigned", "approved", "in_dispute")
_COUNTS = sa.text("""
SELECT (SELECT count(*) FROM registry_department WHERE body::json ->> 'status' = 'active') AS departments,
       (SELECT count(DISTINCT (department, connector)) FROM identity_certificate
         WHERE revoked_at IS NULL AND not_after > now()) AS connectors,
       (SELECT count(*) FROM access_grant WHERE state = 'active') AS grants,
       (SELECT count(*) FROM access_grant WHERE state = 'suspended') AS suspended,
       (SELECT count(*) FROM access_grant WHERE state = ANY(:requests)) AS requests,
       pg_database_size(current_database()) AS size
""")
# Without a place in the log, or with one that no checkpoint covers: two branches, each with its index.
_SIGNED = sa.text("""
WITH unsigned AS (
    SELECT at FROM audit_entry WHERE leaf_index IS NULL AND NOT refused
    UNION ALL
    SELECT at FROM audit_entry WHERE leaf_index >= (SELECT coalesce(max(size), 0) FROM audit_checkpoint))
SELECT (SELECT at FROM audit_checkpoint ORDER BY size DESC LIMIT 1) AS signed,
       (SELECT count(*) FROM unsigned) AS waiting, (SELECT min(at) FROM unsigned) AS oldest
""")
_NOT_RENEWED = sa.text("""
SELECT department, connector, max(not_after) AS ends FROM identity_certificate
 WHERE revoked_at IS NULL GROUP BY department, connector
HAVING max(not_after) > now() AND max(not_after) < now() + make_interval(secs => :seconds)
 ORDER BY ends, department, connector LIMIT :most
""")


class Health(StrEnum):
    """The whole in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # a check fails, a critical alarm is open, or a process is gone
    NOT_RUNNING = "not_running"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One process that a file of the folder names.

    Attributes:
        roles: it serves.
        pid, version, started: of the process; the version is empty of a program from before.
        running: whether the process exists.
        checks: those of `/readyz` by name; None where it has no listener for metrics, or does not answer there.
        samples: of `/metrics`.
    """

    roles: tuple[str, ...]
    pid: int
    version: str
    started: str
    running: bool
    checks: Mapping[str, Mapping[str, Any]] | None
    samples: tuple[Sample, ...] = field(default=(), repr=False)

    @property
    def failing(self) -> dict[str, str]:
        """Return what is wrong with it, by check."""
        failed = {name: one for name, one in (self.checks or {}).items() if not one["ok"]}
        return {name: f"{one.get('reason', '')}: {one.get('detail', '')}".strip(": ") for name, one in failed.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """What the database says; times aware, sizes in bytes."""

    departments: int
    connectors: int
    grants: int
    suspended: int
    requests: int
    size: int
    signed: datetime | None
    waiting: int
    oldest: datetime | None
    not_renewed: tuple[tuple[str, datetime], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The status of a pool at one moment.

    Attributes:
        pool, folder: which one.
        at: the moment, aware.
        processes: this machine's.
        database: what it says; None where it does not answer, and `fault` says why.
        signed: when the log was last signed, by the database, else by the log's folder; None if it never was.
        unsigned_seconds: the bound for entries without a signature.
        disk: bytes free and in all, of the folder's disk.
        certificates: the pool's own that end soon, by use.
        backup: the last one.
        alarms: that are open.
    """

    pool: str
    folder: Path
    at: datetime
    processes: tuple[ProcessStatus, ...]
    database: PoolCounts | None
    fault: str
    signed: datetime | None
    unsigned_seconds: int
    disk: tuple[int, int]
    certificates: Mapping[str, datetime]
    backup: LastBackup | None
    alarms: tuple[OpenAlarm, ...]

    @property
    def lanes_stopped(self) -> int | None:
        """Return how many lanes could not be read at the last sweep; None where no process says so."""
        found = [s.value for one in self.processes for s in one.samples if s.metric == "pool_lanes_unreadable"]
        return int(max(found)) if found else None

    @property
    def unsigned(self) -> float:
        """Return the seconds for which the oldest entry without an index has waited."""
        oldest = None if self.database is None else self.database.oldest
        return 0.0 if oldest is None else max(0.0, (self.at - oldest).total_seconds())

    @property
    def health(self) -> Health:
        """Return the whole in one word; a warning alone is healthy."""
        if not any(one.running for one in self.processes):
            return Health.NOT_RUNNING
        wrong = (
            self.database is None,
            self.unsigned > self.unsigned_seconds,
            any(not one.running or one.failing for one in self.processes),
            any(one.alarm.severity is Severity.CRITICAL for one in self.alarms),
        )
        return Health.DEGRADED if any(wrong) else Health.HEALTHY

    def document(self) -> dict[str, Any]:
        """Return it as JSON; times are ISO 8601 in UTC, ages seconds, sizes bytes."""
        counts = self.database
        return {
            "pool": self.pool,
            "at": _iso(self.at),
            "health": str(self.health),
            "processes": [
                {"roles": list(one.roles), "pid": one.pid, "version": one.version, "started": one.started}
                | {"running": one.running, "checks": None if one.checks is None else dict(one.checks)}
                for one in self.processes
            ],
            "signing": {
                "last_signature": _iso(self.signed),
                "waiting": None if counts is None else counts.waiting,
                "oldest_seconds": None if counts is None else round(self.unsigned, 1),
            },
            "database": {"fault": self.fault} if counts is None else {"size": counts.size},
            "disk": {"free": self.disk[0], "total": self.disk[1]},
            "counts": None
            if counts is None
            else {
                "departments": counts.departments,
                "connectors": counts.connectors,
                "grants": counts.grants,
                "suspended": counts.suspended,
                "open_requests": counts.requests,
            },
            "lanes_stopped": self.lanes_stopped,
            "certificates": [{"certificate": use, "ends": _iso(ends)} for use, ends in self.certificates.items()],
            "not_renewed": []
            if counts is None
            else [{"connector": who, "ends": _iso(ends)} for who, ends in counts.not_renewed],
            "backup": None
            if self.backup is None
            else {
                "at": _iso(self.backup.at),
                "age_seconds": int((self.at - self.backup.at).total_seconds()),
                "folder": self.backup.folder,
            },
            "alarms": [
                {
                    "name": one.alarm.name,
                    "severity": str(one.alarm.severity),
                    "meaning": one.alarm.meaning,
                    "labels": dict(one.labels),
                    "runbook": f"docs/runbook.md#{one.alarm.section}",
                }
                for one in self.alarms
            ],
        }


def read_status(config: Config) -> PoolStatus:
    """Read the status of a pool on this machine; what does not answer within seconds is left out."""
    now = datetime.now(UTC)
    processes = tuple(_processes(config))
    database, fault = _database(config)
    ends = certificate_ends(config)
    backup = last_backup(config.folder)
    samples = [sample for one in processes for sample in one.samples]
    if not samples:  # nobody listens for metrics, so what this command sees itself is judged
        samples = list(_own_samples(config, now, ends, backup))
        samples += [Sample("pool_serving", {}, 1.0)] if any(one.running for one in processes) else []
    return PoolStatus(
        pool=config.pool_id,
        folder=config.folder,
        at=now,
        processes=processes,
        database=database,
        fault=fault,
        signed=_signed_in_folder(config) if database is None else database.signed,
        unsigned_seconds=config.audit.unsigned_seconds,
        disk=_disk(config.folder),
        certificates={use: end for use, end in ends.items() if end - now < SOON},
        backup=backup,
        alarms=tuple(_distinct(open_alarms(samples))),
    )


def _own_samples(
    config: Config, now: datetime, ends: Mapping[str, datetime], backup: LastBackup | None
) -> Iterator[Sample]:
    yield Sample("pool_disk_free_ratio", {}, disk_free_ratio(config.folder))
    yield Sample("pool_backup_age_seconds", {}, float("inf") if backup is None else (now - backup.at).total_seconds())
    for use, end in ends.items():
        yield Sample("pool_certificate_seconds_left", {"certificate": use}, (end - now).total_seconds())


def _distinct(found: Iterator[OpenAlarm]) -> Iterator[OpenAlarm]:
    """Leave out what several processes of the machine say of the same thing."""
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for one in found:
        key = one.alarm.name, tuple(sorted(one.labels.items()))
        if key not in seen:
            seen.add(key)
            yield one


def _processes(config: Config) -> Iterator[ProcessStatus]:
    try:
        named = json.loads(config.path("ports.json").read_text(encoding="utf-8")).get("processes", {})
    except (OSError, ValueError):
        return
    by_pid: dict[int, list[str]] = {}
    for role, one in named.items():
        by_pid.setdefault(int(one["pid"]), []).append(role)
    for pid, roles in by_pid.items():
        one = named[roles[0]]
        running = _exists(pid)
        address = one["addresses"].get("metrics") if running else None
        answer = None if address is None else _get(address, "/readyz")
        metrics = None if answer is None or address is None else _get(address, "/metrics")
        yield ProcessStatus(
            roles=tuple(sorted(roles)),
            pid=pid,
            version=one.get("version", ""),
            started=one["started"],
            running=running,
            checks=_unanswered(address) if answer is None else json.loads(answer)["checks"],
            samples=() if metrics is None else tuple(_samples(metrics)),
        )


def _unanswered(address: str | None) -> dict[str, dict[str, Any]] | None:
    if address is None:
        return None
    return {"readyz": {"ok": False, "reason": "no_answer", "detail": f"{address} does not answer in {_PATIENCE:.0f} s"}}


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("pool_"):
                yield Sample(sample.name, sample.labels, sample.value)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _get(address: str, path: str) -> str | None:
    """Return the answer of a process's listener for metrics, whatever its status; None without one."""
    host, port = address.rsplit(":", 1)
    try:
        with closing(http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_PATIENCE)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None


def _database(config: Config) -> tuple[PoolCounts | None, str]:
    url = config.database_url
    if url is None:
        embedded = EmbeddedPostgres(config.folder)
        if not embedded.running():
            return None, "the embedded PostgreSQL does not run"
        try:
            url = embedded.url_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            return None, f"{embedded.url_file}: {error.strerror}"
    options = f"-c default_transaction_read_only=on -c statement_timeout={int(_PATIENCE * 1000)}"
    arguments = {"connect_timeout": int(_PATIENCE), "options": options}
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
    try:
        with engine.connect() as connection:
            return _counts(connection), ""
    except sa_exc.SQLAlchemyError as error:
        return None, f"PostgreSQL does not answer ({type(error).__name__})"


def _counts(connection: sa.Connection) -> PoolCounts:
    counted = connection.execute(_COUNTS, {"requests": list(_OPEN_REQUESTS)}).one()
    signed = connection.execute(_SIGNED).one()
    overdue = connection.execute(_NOT_RENEWED, {"seconds": _OVERDUE.total_seconds(), "most": _MOST}).all()
    return PoolCounts(
        departments=counted.departments,
        connectors=counted.connectors,
        grants=counted.grants,
        suspended=counted.suspended,
        requests=counted.requests,
        size=counted.size,
        signed=_moment(signed.signed),
        waiting=signed.waiting,
        oldest=_moment(signed.oldest),
        not_renewed=tuple((f"{row.department}/{row.connector}", row.ends) for row in overdue),
    )


def _signed_in_folder(config: Config) -> datetime | None:
    """Return when the checkpoint of the log's folder was written; None where this machine has none."""
    try:
        return datetime.fromtimestamp(config.path("log", "checkpoint").stat().st_mtime, UTC)
    except OSError:
        return None


def _disk(folder: Path) -> tuple[int, int]:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")

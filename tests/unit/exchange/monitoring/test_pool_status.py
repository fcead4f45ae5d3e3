"""What `pool status` says of a folder whose pool does not run, and of one that does, in 80 columns."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from exchange.cli import main
from exchange.identity.authority import Authority
from exchange.monitoring.alarms import ALARMS, OpenAlarm, Severity
from exchange.monitoring.status import Health, PoolCounts, PoolStatus, ProcessStatus
from exchange.monitoring.status_text import status_lines
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.supervision.host_facts import LastBackup, last_backup, note_backup
from tests.kit.world import in_process

NOW = datetime(2026, 11, 30, 10, 0, tzinfo=UTC)


def folder(tmp_path: Path, since: datetime) -> Path:
    """A pool's folder without keys, whose authority was made at a moment, and whose database is nowhere."""
    Authority.create(tmp_path / "ca", "city", since)
    (tmp_path / "ca" / "authority.key").unlink()
    (tmp_path / "pool.toml").write_text(
        'pool_id = "city"\norigin = "city/audit"\ngateway = "localhost:1"\ndatabase = "${env:ADDRESS}"\n'
    )
    return tmp_path


def ask(data: Path, *arguments: str) -> CompletedProcess[str]:
    return in_process.run(main, "status", "--data", data, *arguments)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADDRESS", "postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    return folder(tmp_path, datetime.now(UTC) - timedelta(days=3630))


def test_a_pool_that_does_not_run_ends_with_2_and_says_what_its_folder_tells(data: Path) -> None:
    (data / "log").mkdir()
    (data / "log" / "checkpoint").write_text("city/audit\n7\n")
    note_backup(data, LastBackup(at=datetime.now(UTC) - timedelta(days=3), folder="/backups/a"))
    done = ask(data)
    assert done.returncode == 2
    assert "city: NOT RUNNING" in done.stdout
    assert "PostgreSQL does not answer" in done.stdout
    assert "nobody" not in done.stdout, "nothing of the database's address is said"
    assert "of the authority: ends" in done.stdout
    assert "/backups/a" in done.stdout
    found = json.loads(ask(data, "--json").stdout)
    assert found["health"] == "not_running"
    assert {one["name"] for one in found["alarms"]} == {"PoolNotRunning", "PoolCertificateEnds", "PoolBackupOld"}
    assert datetime.fromisoformat(found["signing"]["last_signature"]).tzinfo is not None
    assert found["backup"]["age_seconds"] >= 3 * 86_400


def test_a_process_that_was_killed_is_gone(data: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    gone = {"pid": child, "started": NOW.isoformat(), "addresses": {"metrics": "127.0.0.1:1"}}
    (data / "ports.json").write_text(json.dumps({"processes": {"gateway": gone, "sequencer": gone}}))
    done = ask(data)
    assert done.returncode == 2
    assert f"gateway, sequencer: GONE (was process {child}" in done.stdout


def test_a_process_that_does_not_answer_fails(data: Path) -> None:
    stuck = {"pid": os.getpid(), "started": NOW.isoformat(), "addresses": {"metrics": "127.0.0.1:1"}}
    (data / "ports.json").write_text(json.dumps({"processes": {"gateway": stuck}}))
    done = ask(data)
    assert done.returncode == 1
    assert "FAILS readyz: no_answer" in done.stdout


def test_an_address_of_the_database_that_may_not_be_read_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = data / "pool.toml"
    config.write_text(config.read_text().replace('database = "${env:ADDRESS}"\n', ""))
    assert "the embedded PostgreSQL does not run" in ask(data).stdout
    monkeypatch.setattr(EmbeddedPostgres, "running", lambda _: True)
    found = json.loads(ask(data, "--json").stdout)
    assert found["database"] == {"fault": f"{data}/database-url: No such file or directory"}


def test_the_note_of_the_last_backup_is_read_back(tmp_path: Path) -> None:
    assert last_backup(tmp_path) is None
    noted = LastBackup(at=NOW, folder="/backups/b")
    note_backup(tmp_path, noted)
    assert last_backup(tmp_path) == noted
    (tmp_path / "last-backup.json").write_text("{")
    assert last_backup(tmp_path) is None


def status(**changes: object) -> PoolStatus:
    process = ProcessStatus(
        roles=("gateway", "registry", "sequencer"),
        pid=12,
        version="0.1.0",
        started=NOW.isoformat(),
        running=True,
        checks={name: {"ok": True} for name in ("database", "clock", "keys", "log", "signing", "broker", "restore")},
    )
    counts = PoolCounts(
        departments=40,
        connectors=90,
        grants=1_200,
        suspended=3,
        requests=17,
        size=48_000_000_000,
        signed=NOW - timedelta(seconds=4),
        waiting=2,
        oldest=NOW - timedelta(seconds=1),
        not_renewed=tuple((f"department-{n}/connector", NOW + timedelta(days=n)) for n in range(12)),
    )
    given: dict[str, object] = {
        "pool": "city",
        "folder": Path("/srv/pool"),
        "at": NOW,
        "processes": (process,),
        "database": counts,
        "fault": "",
        "signed": counts.signed,
        "unsigned_seconds": 60,
        "disk": (50_000_000_000, 100_000_000_000),
        "certificates": {"listeners": NOW + timedelta(days=20)},
        "backup": LastBackup(at=NOW - timedelta(hours=5), folder="/backups/c"),
        "alarms": (),
    }
    return PoolStatus(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("alarms", [(), tuple(OpenAlarm(one, {"check": "restore"}) for one in ALARMS)])
def test_every_line_fits_80_columns(alarms: tuple[OpenAlarm, ...]) -> None:
    lines = status_lines(status(alarms=alarms))
    assert max(map(len, lines)) <= 80, [line for line in lines if len(line) > 80]
    assert lines[0].startswith("city: ")


def test_the_whole_at_a_glance() -> None:
    text = "\n".join(status_lines(status()))
    for said in (
        "city: healthy",
        "last signature 2026-11-30T09:59:56Z (4 s ago); 2 entries wait, the oldest for 1 s",
        "48.0 GB",
        "50.0 GB of 100.0 GB free (50%)",
        "40 departments, 90 connectors, 1200 grants in force",
        "of the listeners: ends 2026-12-20T10:00:00Z",
        "connector department-0/connector has not renewed",
        "and 2 connectors more",
        "2026-11-30T05:00:00Z (5 h ago), /backups/c",
        "none is open",
    ):
        assert said in text.replace("\n" + " " * 14, " "), text


def open_now(severity: Severity) -> tuple[OpenAlarm, ...]:
    return (OpenAlarm(next(one for one in ALARMS if one.severity is severity), {}),)


def test_a_critical_alarm_degrades_and_a_warning_does_not() -> None:
    assert status(alarms=open_now(Severity.WARNING)).health is Health.HEALTHY
    assert status(alarms=open_now(Severity.CRITICAL)).health is Health.DEGRADED


def test_an_entry_that_waits_too_long_degrades() -> None:
    assert status(unsigned_seconds=1).health is Health.HEALTHY
    assert status(at=NOW + timedelta(seconds=60)).health is Health.DEGRADED

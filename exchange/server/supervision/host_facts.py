"""Facts of a pool's host: room on the disk, ends of the pool's own certificates, age of the last backup.

Read from files that are no secret (certificates, `last-backup.json`), by `/metrics` of every process when it is
scraped, and by `pool status`.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509

from exchange import metrics
from exchange.config import Config, KafkaBroker

__all__ = ["LastBackup", "certificate_ends", "disk_free_ratio", "export", "last_backup", "note_backup"]

_LAST_BACKUP = "last-backup.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBackup:
    """The last backup that this folder's pool was told of: when it was made, aware, and where."""

    at: datetime
    folder: str


def note_backup(folder: Path, backup: LastBackup) -> None:
    """Write down that a pool was backed up, in its folder."""
    file = folder / _LAST_BACKUP
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps({"at": backup.at.isoformat(), "folder": backup.folder}) + "\n", encoding="utf-8")
    temporary.replace(file)


def last_backup(folder: Path) -> LastBackup | None:
    """Return the last backup; None where there was none, or its note cannot be read."""
    try:
        noted = json.loads((folder / _LAST_BACKUP).read_text(encoding="utf-8"))
        return LastBackup(at=datetime.fromisoformat(noted["at"]), folder=str(noted["folder"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def disk_free_ratio(folder: Path) -> float:
    """Return the share of the disk of a folder that is free; NaN where it cannot be read."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return float("nan")
    return found.free / found.total


def certificate_ends(config: Config) -> dict[str, datetime]:
    """Return when the pool's own certificates end, aware, by their use; those that cannot be read are left out."""
    files = {"listeners": config.path("ca", "server.crt"), "authority": config.path("ca", "authority.crt")}
    if isinstance(config.broker, KafkaBroker):
        files["kafka"] = config.path(str(config.broker.certificate))  # an absolute path stays as it is
    return dict(_ends(files))


def _ends(files: dict[str, Path]) -> Iterator[tuple[str, datetime]]:
    for use, file in files.items():
        try:
            yield use, x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            continue


def export(config: Config) -> None:
    """Register the facts with the metrics of this process; each is read when they are scraped."""

    def seconds_left(use: str) -> float:
        ends = certificate_ends(config).get(use)
        return float("nan") if ends is None else (ends - datetime.now(UTC)).total_seconds()

    def backup_age() -> float:
        last = last_backup(config.folder)
        return float("inf") if last is None else (datetime.now(UTC) - last.at).total_seconds()

    metrics.DISK_FREE.set_function(lambda: disk_free_ratio(config.folder))
    metrics.BACKUP_AGE.set_function(backup_age)
    for use in certificate_ends(config):
        metrics.CERTIFICATE_LEFT.labels(use).set_function(partial(seconds_left, use))

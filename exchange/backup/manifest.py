"""Manifest of a backup: what it covers, with the SHA-256 of every file, and a MAC that the pool's keys prove.

    manifest.json        the document below
    manifest.mac         HMAC-SHA256 over its bytes, with a key of the pool; checked wherever the keys are there
    database.dump        all tables, in the custom format of pg_dump, of one snapshot
    log/                 the log's tiles and checkpoint, cut to the checkpoint that the snapshot holds
    log.pub, pool.toml   public key of the log, and configuration
    erasures.jsonl       list of erasures, where there are any

A hash that fits shows that a file is whole, not who wrote it: the MAC does.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from schemas.errors import CorruptError, InvalidError, Reason

__all__ = [
    "DUMP",
    "LOG",
    "MAC",
    "MAC_KEY",
    "MANIFEST",
    "Manifest",
    "ManifestFile",
    "files_below",
    "mac_fits",
    "mac_of",
    "sha256_of",
]

MANIFEST, MAC, DUMP, LOG = "manifest.json", "manifest.mac", "database.dump", "log"
MAC_KEY = "backup-manifest"
"""Name of the key of the manifest's MAC."""
_FORMAT = 1
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of the backup: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup covers.

    Attributes:
        pool: the pool's id. origin: the log's name.
        made_at: ISO 8601, UTC, by the database's clock, of the snapshot.
        generation: of the pool: 0 until it is restored for the first time.
        revision: of the database's schema.
        server: version of the PostgreSQL server, such as 180001. client: that of pg_dump.
        entries: number of entries in the dump. log_size: those of them that its newest checkpoint covers.
        log_root: root of that checkpoint, in hexadecimal; empty for a log that was never signed.
        rows: by tagged table, number and digest of its rows, as `exchange.server.row_digest` computes them.
        broker: "postgres", whose records are in the dump, or "kafka", whose records are not.
        files: by path, all files but the manifest and its MAC.
    """

    pool: str
    origin: str
    made_at: str
    generation: int
    revision: str
    server: int
    client: int
    entries: int
    log_size: int
    log_root: str
    rows: Mapping[str, Any]
    broker: str
    files: Mapping[str, ManifestFile] = field(default_factory=dict)
    format: int = _FORMAT

    def to_bytes(self) -> bytes:
        """Return the document."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def read(cls, folder: Path) -> tuple[Self, bytes]:
        """Read the manifest of a backup; return it, and its bytes.

        Raises:
            InvalidError: CONFIG_INVALID, the folder is no backup, or one of a later version.
        """
        path = folder / MANIFEST
        try:
            content = path.read_bytes()
            document = json.loads(content)
            if document["format"] != _FORMAT:
                raise InvalidError(
                    Reason.CONFIG_INVALID,
                    f"{path} has format {document['format']}, this program knows {_FORMAT}; use a newer program",
                )
            document["files"] = {name: ManifestFile(**one) for name, one in document["files"].items()}
            found = cls(**document)
        except OSError as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{folder} is no backup: {path} cannot be read") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{path} is no manifest of a backup") from error
        return found, content

    def check_files(self, folder: Path) -> Iterator[str]:
        """Yield a sentence for each file that is missing, was changed, or does not belong to the backup."""
        there = set(files_below(folder)) - {MANIFEST, MAC}
        for name, expected in sorted(self.files.items()):
            if name not in there:
                yield f"{name} is missing"
            elif (folder / name).stat().st_size != expected.size or sha256_of(folder / name) != expected.sha256:
                yield f"{name} is not the file that was backed up: another size or SHA-256"
        for name in sorted(there - set(self.files)):
            yield f"{name} does not belong to the backup"


def files_below(folder: Path) -> list[str]:
    """Return the paths of all files in a folder, relative to it; anything but plain files and folders is refused.

    Raises:
        CorruptError: LOG_CORRUPT, there is a link or a device.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CorruptError(Reason.LOG_CORRUPT, f"{path} is a link or a device; a backup holds plain files only")
        if path.is_file():
            found.append(str(path.relative_to(folder)))
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def mac_of(manifest: bytes, key: bytes) -> bytes:
    """Return the content of the file of the MAC."""
    return hmac.digest(key, b"exchange-pool/backup/1\n" + manifest, "sha256").hex().encode() + b"\n"


def mac_fits(folder: Path, manifest: bytes, key: bytes) -> bool:
    """Return whether the MAC beside a manifest was made with this key."""
    try:
        return hmac.compare_digest((folder / MAC).read_bytes(), mac_of(manifest, key))
    except OSError:
        return False

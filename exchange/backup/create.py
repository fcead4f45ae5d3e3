"""Create a backup: one snapshot of the database, the log cut to the checkpoint in it, and the sealed keys apart.

    (1) snapshot     a read-only transaction exports it; checkpoint, revision and digests of rows are read in it
    (2) dump         pg_dump reads the same snapshot
    (3) log          the tiles of the tree that the snapshot's checkpoint covers, whatever was signed since
    (4) keys         secrets/ and ca/, sealed, into a file outside the backup: who has one of the two has nothing
    (5) manifest     SHA-256 of every file, and a MAC

The pool may be running. The folder appears under its name when it is complete, so that a crash leaves none that looks
like a backup.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange.audit.note import FileSigner, open_note, parse_checkpoint
from exchange.backup.client_tools import check_server, dump_tool
from exchange.backup.log_copy import copy_log
from exchange.backup.manifest import (
    DUMP,
    LOG,
    MAC,
    MAC_KEY,
    MANIFEST,
    Manifest,
    ManifestFile,
    files_below,
    mac_of,
    sha256_of,
)
from exchange.backup.sealed_file import SealingKey, seal
from exchange.config import Config, KafkaBroker
from exchange.identity.keyfile import create_private, private_folder, read_private
from exchange.identity.secrets import FileSecrets
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.row_digest import digests_of
from exchange.server.row_watch import read_versions
from exchange.server.supervision.host_facts import LastBackup, note_backup
from registry.database.errors import unavailable
from schemas.errors import InvalidError, Reason

__all__ = ["Backup", "create_backup", "database_of"]

ERASURES = "erasures.jsonl"
PUBLIC = ("log.pub", "pool.toml")
_KEYS = ("secrets", "ca")
_REVISION = sa.text("SELECT version_num FROM alembic_version")
_SERVER = sa.text("SELECT current_setting('server_version_num')::int, now()")
_ENTRIES = sa.text("SELECT count(*) FROM audit_entry")
_CHECKPOINT = sa.text("SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1")


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made: its folder, the sealed keys, what it covers, and the client tool that was used."""

    folder: Path
    sealed: Path
    manifest: Manifest
    tool: Path


def create_backup(config: Config, out: Path, sealed: Path, key: SealingKey, *, pg_bin: Path | None = None) -> Backup:
    """Create a backup of a pool.

    Args:
        config: of the pool; the folder must hold all keys.
        out: folder to write; must not exist.
        sealed: file to write with the sealed keys, outside of *out*; must not exist.
        key: seals them.
        pg_bin: folder with PostgreSQL's client tools; None = where they usually are.

    Raises:
        InvalidError: ALREADY_EXISTS; CONFIG_INVALID, no client tool fits, or a key is missing.
        CorruptError: LOG_CORRUPT, log and database contradict each other.
        UnavailableError: the database does not answer.
    """
    _check_new(out, sealed)
    secrets = FileSecrets.open(config.path("secrets"))
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    private_folder(part)
    try:
        with database_of(config) as url:
            manifest, tool = _dump(config, url, part, pg_bin)
        for name in (*PUBLIC, ERASURES):
            if config.path(name).exists():
                create_private(part / name, config.path(name).read_bytes())
        # After the dump: an erasure between the two is then in both, or in the list alone, which a restore replays.
        _seal_keys(config, sealed, key)
        content = _with_files(manifest, part).to_bytes()
        create_private(part / MANIFEST, content)
        create_private(part / MAC, mac_of(content, secrets.named_key(MAC_KEY)))
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    note_backup(config.folder, LastBackup(at=datetime.fromisoformat(manifest.made_at), folder=str(out.resolve())))
    return Backup(out, sealed, Manifest.read(out)[0], tool)


def _check_new(out: Path, sealed: Path) -> None:
    if sealed.resolve().is_relative_to(out.resolve()):
        raise InvalidError(
            Reason.CONFIG_INVALID, "the sealed keys belong to another place than the backup; give a file outside of it"
        )
    for path in (out, sealed):
        if path.exists():
            raise InvalidError(Reason.ALREADY_EXISTS, f"{path} exists; a backup never overwrites anything")
        if not path.resolve().parent.is_dir():
            raise InvalidError(Reason.CONFIG_INVALID, f"{path.parent} is no folder; create it first")


def _dump(config: Config, url: sa.URL, out: Path, pg_bin: Path | None) -> tuple[Manifest, Path]:
    """Write dump and log of one snapshot; return the manifest without its files, and the tool."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            version, now = connection.execute(_SERVER).one()
            server = check_server(version)
            tool = dump_tool(server, pg_bin)
            snapshot: str = connection.execute(sa.text("SELECT pg_export_snapshot()")).scalar_one()
            revision: str = connection.execute(_REVISION).scalar_one()
            note = connection.execute(_CHECKPOINT).scalar_one_or_none()
            entries: int = connection.execute(_ENTRIES).scalar_one()
            rows = digests_of(read_versions(connection))
            arguments = ("--format=custom", "--compress=1", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
            tool.run(url, *arguments, f"--file={out / DUMP}")
            (out / DUMP).chmod(0o600)
    except sa_exc.SQLAlchemyError as error:
        raise unavailable(error) from error
    finally:
        engine.dispose()
    size, root = 0, ""
    if note is not None:
        signer = FileSigner.load(config.path("secrets", "log.key"), config.origin)
        checkpoint = parse_checkpoint(open_note(note, [signer.key]))
        copy_log(config.path("log"), out / LOG, checkpoint, note)
        size, root = checkpoint.size, checkpoint.root.hex()
    manifest = Manifest(
        pool=config.pool_id,
        origin=config.origin,
        made_at=now.isoformat(),
        generation=0,
        revision=revision,
        server=version,
        client=tool.major,
        entries=entries,
        log_size=size,
        log_root=root,
        rows=rows,
        broker="kafka" if isinstance(config.broker, KafkaBroker) else "postgres",
    )
    return manifest, tool.path


def _with_files(manifest: Manifest, folder: Path) -> Manifest:
    files = {
        name: ManifestFile((folder / name).stat().st_size, sha256_of(folder / name)) for name in files_below(folder)
    }
    return replace(manifest, files=files)


def _seal_keys(config: Config, file: Path, key: SealingKey) -> None:
    if not create_private(file, seal(_keys(config), key)):
        raise InvalidError(Reason.ALREADY_EXISTS, f"{file} exists; give the keys of each backup a file of its own")


def _keys(config: Config) -> dict[str, bytes]:
    """Return the files of the keys, and those of the broker that are in the pool's folder, by their paths."""
    paths = [path for name in _KEYS for path in sorted(config.path(name).rglob("*")) if path.is_file()]
    if isinstance(config.broker, KafkaBroker):
        own = (config.broker.authority, config.broker.certificate, config.broker.key)
        paths += [config.path(str(path)) for path in own if not path.is_absolute()]
    found = {}
    for path in paths:
        name = str(path.relative_to(config.folder))
        # Half-written files of a process that was killed begin with a dot.
        if not path.name.startswith("."):
            found[name] = read_private(path) if name.startswith("secrets/") else path.read_bytes()
    return found


@contextmanager
def database_of(config: Config) -> Iterator[sa.URL]:
    """Yield the address of the pool's database; an embedded server that does not run is started for the block."""
    configured = config.database_url
    if configured is not None:
        yield sa.make_url(configured)
        return
    embedded = EmbeddedPostgres(config.folder)
    if embedded.running():
        yield sa.make_url(embedded.url_file.read_text().strip())
        return
    url = embedded.start()
    try:
        yield url
    finally:
        embedded.stop()

"""Backup of a pool: one snapshot, the log cut to it, the keys apart; verified without a server."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.backup.create import Backup, create_backup
from exchange.backup.manifest import MANIFEST
from exchange.backup.sealed_file import SealingKey, open_sealed
from exchange.backup.verify import verify_backup
from exchange.config import Config
from exchange.server.composition import App
from exchange.server.initialise import initialise
from exchange.server.roles import Role
from schemas.errors import InvalidError, Reason
from tests.kit.world.postgres import ServerOfDebian, fresh_database

pytestmark = pytest.mark.postgres
KEY = SealingKey(key=b"k" * 32)


def make(folder: Path, url: sa.URL) -> Config:
    """Make a pool on an external database, whose log is signed."""
    folder.mkdir()
    address = folder / "address"
    address.write_text(url.render_as_string(hide_password=False))
    config = initialise(folder, pool_id="p", database=f"${{file:{address}}}")
    app = App.open(config, roles=frozenset(Role))
    try:
        assert app.sequencer.step().size
    finally:
        app.close()
    return config


@pytest.fixture(scope="module")
def pool(postgres_server: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    with fresh_database(postgres_server) as url:
        yield make(tmp_path_factory.mktemp("backup") / "pool", url)


@pytest.fixture(scope="module")
def made(pool: Config) -> Backup:
    return create_backup(pool, pool.folder.parent / "b", pool.folder.parent / "keys", KEY)


@pytest.fixture
def copied(made: Backup, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "b"))


def kinds(folder: Path, made: Backup) -> set[str]:
    return set(verify_backup(folder, sealed=(made.sealed, KEY))[1].counts)


def test_a_backup_is_whole_and_holds_no_secret(made: Backup, pool: Config) -> None:
    manifest, report, skipped = verify_backup(made.folder, sealed=(made.sealed, KEY))
    assert report.ok, report.lines()
    assert manifest.log_size == report.entries > 0
    assert len(skipped) == 1, "but for the auditor's key everything was checked"
    sealed = open_sealed(made.sealed, KEY)
    assert {"secrets/topic.master", "secrets/log.key", "ca/authority.key"} <= set(sealed)
    stored = b"".join(path.read_bytes() for path in made.folder.rglob("*") if path.is_file())
    assert not [name for name, content in sealed.items() if ".key" in name and content in stored]
    assert made.folder.stat().st_mode & 0o077 == 0
    assert made.sealed.stat().st_mode & 0o077 == 0
    assert b"postgresql" not in (made.folder / MANIFEST).read_bytes(), "no address of a database"


def test_a_backup_overwrites_nothing(made: Backup, pool: Config, tmp_path: Path) -> None:
    for out, sealed in ((made.folder, tmp_path / "k"), (tmp_path / "o", made.sealed)):
        with pytest.raises(InvalidError) as refused:
            create_backup(pool, out, sealed, KEY)
        assert refused.value.reason is Reason.ALREADY_EXISTS
    with pytest.raises(InvalidError, match="outside of it"):
        create_backup(pool, tmp_path / "o", tmp_path / "o" / "k", KEY)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["database.dump", "pool.toml", "log/checkpoint"])
def test_a_changed_file_is_named(made: Backup, copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    assert "backup.file" in kinds(copied, made)


def test_a_file_too_many_and_one_too_few_are_named(made: Backup, copied: Path) -> None:
    (copied / "log.pub").rename(copied / "more")
    _, report, _ = verify_backup(made.folder, sealed=(made.sealed, KEY))
    assert report.ok
    (copied / "log.pub").write_text((made.folder / "log.pub").read_text())
    assert kinds(copied, made) == {"backup.file"}


def test_a_manifest_that_the_backup_s_holder_wrote_anew_is_refused(made: Backup, copied: Path) -> None:
    path = copied / MANIFEST
    path.write_text(path.read_text().replace('"generation": 0', '"generation": 7'))
    assert verify_backup(copied)[1].ok, "hashes alone cannot show it"
    assert kinds(copied, made) == {"backup.manifest"}


def test_a_row_that_no_entry_made_is_found_in_the_dump(postgres_server: sa.URL, tmp_path: Path) -> None:
    with fresh_database(postgres_server) as url:
        config = make(tmp_path / "pool", url)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            table = connection.execute(sa.text("SELECT count(*) FROM access_purpose")).scalar_one()
            connection.execute(
                sa.text("UPDATE access_purpose SET tag = sha256(tag) WHERE id = (SELECT min(id) FROM access_purpose)")
            )
            connection.execute(sa.text("UPDATE audit_entry SET leaf = leaf || ' ' WHERE leaf_index = 0"))
        engine.dispose()
        assert table
        made = create_backup(config, tmp_path / "b", tmp_path / "k", KEY)
        assert kinds(made.folder, made) == {"row.unaccounted", "dump.entry"}


@pytest.mark.skipif(not ServerOfDebian.installed(), reason="needs postgresql-15")
def test_an_external_server_of_an_older_version_gets_the_tool_of_its_version() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pool-pg15-"))
    folder.chmod(0o755)
    server = ServerOfDebian(folder)
    try:
        config = make(folder / "pool", server.start())
        made = create_backup(config, folder / "b", folder / "k", KEY)
        assert (made.manifest.server // 10_000, made.manifest.client) == (15, 15)
        assert verify_backup(made.folder, sealed=(made.sealed, KEY))[1].ok
        with pytest.raises(InvalidError, match="no pg_dump of version 15"):
            create_backup(config, folder / "c", folder / "l", KEY, pg_bin=folder)
        assert not (folder / "l").exists()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)

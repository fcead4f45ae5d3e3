"""Real PostgreSQL for tests: one embedded cluster a session, one empty database a test.

Under pytest a cluster does not wait for the disk (`fsync`), which is half of the time of making and dropping databases.
A commit is in the kernel's cache all the same: what kills a server, or all of them, loses nothing. Tests that fill a
disk, and benches, have clusters as the pool makes them.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from exchange.server.embedded_postgres import EmbeddedPostgres

_sync = True


def configure(*, sync: bool) -> None:
    """Set whether clusters that are made from now on wait for the disk, as they do without this call."""
    global _sync  # noqa: PLW0603 - one setting of the process, as the seed is
    _sync = sync


def syncs() -> bool:
    """Return whether they wait for the disk."""
    return _sync


def without_fsync(data: Path) -> None:
    """Change the settings of a stopped cluster, so that it does not wait for the disk."""
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write("fsync = 'off'\n")


@contextmanager
def cluster() -> Iterator[sa.URL]:
    """Start a cluster in a scratch folder; stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pool-test-"))
    folder.chmod(0o755)  # the server's own user must pass through
    embedded = EmbeddedPostgres(folder)
    try:
        url = embedded.start()
        if not _sync:
            _end_fsync(url)
        yield url
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server: sa.URL) -> Iterator[sa.URL]:
    """Make an empty database and drop it at the end, connections or not."""
    name = f"t_{uuid.uuid4().hex}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    try:
        yield server.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()


def _end_fsync(server: sa.URL) -> None:
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")


def end_sessions(url: sa.URL) -> None:
    """Let the server end every other session of a database, as a restart does."""
    other = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    other.dispose()

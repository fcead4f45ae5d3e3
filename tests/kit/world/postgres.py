"""Real PostgreSQL for tests: one embedded cluster a session, one empty database a test."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from exchange.server.embedded_postgres import EmbeddedPostgres


@contextmanager
def cluster() -> Iterator[sa.URL]:
    """Start a cluster in a scratch folder; stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pool-test-"))
    folder.chmod(0o755)  # the server's own user must pass through
    embedded = EmbeddedPostgres(folder)
    try:
        yield embedded.start()
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


def end_sessions(url: sa.URL) -> None:
    """Let the server end every other session of a database, as a restart does."""
    other = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    other.dispose()

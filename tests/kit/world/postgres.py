"""Real PostgreSQL for tests: one embedded cluster a session, one empty database a test; and a server of Debian's.

Under pytest a cluster does not wait for the disk (`fsync`), which is half of the time of making and dropping databases.
A commit is in the kernel's cache all the same: what kills a server, or all of them, loses nothing. Tests that fill a
disk, and benches, have clusters as the pool makes them.
"""

import secrets
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from typing_extensions import override

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
def logical_cluster() -> Iterator[sa.URL]:
    """Start a cluster whose log can be decoded, with a limit to what a slot may hold back; see `cluster`."""
    folder = Path(tempfile.mkdtemp(prefix="pool-logical-"))
    folder.chmod(0o755)
    settings = {
        "wal_level": "logical",
        "max_slot_wal_keep_size": "2GB",
        "max_prepared_transactions": "5",
        "max_replication_slots": "20",
        **({} if _sync else {"fsync": "off"}),
    }
    embedded = EmbeddedPostgres(folder, settings)
    try:
        yield embedded.start()
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server: sa.URL) -> Iterator[sa.URL]:
    """Make an empty database and drop it at the end, connections or not."""
    name = _new_name()
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    try:
        yield server.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()


class DatabasePool:
    """Empty databases of one server, each for one test at a time.

    To make and drop a database takes some tenths of a second: the server writes all that it holds in memory. So a
    database is emptied after its test and goes to the next one under another name: what an earlier test has left
    running does not find it. One that has more than tables (schemas, extensions, publications, settings) is dropped.
    """

    def __init__(self, server: sa.URL) -> None:
        self._server = server
        self._admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._empty: list[str] = []

    @contextmanager
    def database(self) -> Iterator[sa.URL]:
        """Lend an empty database."""
        name = self._empty.pop() if self._empty else self._made()
        try:
            yield self._server.set(database=name)
        finally:
            self._take_back(name)

    def _made(self) -> str:
        name = _new_name()
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        return name

    def _take_back(self, name: str) -> None:
        again = _new_name()
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" RENAME TO "{again}"')
            connection.exec_driver_sql(f'ALTER DATABASE "{again}" ALLOW_CONNECTIONS true')
        if self._emptied(again):
            self._empty.append(again)
        else:
            with self._admin.connect() as connection:
                connection.exec_driver_sql(f'DROP DATABASE "{again}" WITH (FORCE)')

    def _emptied(self, name: str) -> bool:
        """Remove the tables of a database; return whether nothing else is in it."""
        engine = sa.create_engine(self._server.set(database=name), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            more = connection.exec_driver_sql(_MORE_THAN_TABLES).scalar_one()
            if not more:
                connection.exec_driver_sql("DROP SCHEMA public CASCADE")
                connection.exec_driver_sql("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
                connection.exec_driver_sql("GRANT USAGE ON SCHEMA public TO PUBLIC")
        return not more


_MORE_THAN_TABLES = """
SELECT (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema'))
     + (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql')
     + (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_event_trigger)
     + (SELECT count(*) FROM pg_largeobject_metadata) + (SELECT count(*) FROM pg_default_acl)
     + (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database())
"""


def _new_name() -> str:
    return f"t_{uuid.uuid4().hex}"


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


class ServerOfDebian(EmbeddedPostgres):
    """The server of Debian's own package, as an external one of an older version."""

    programs = Path("/usr/lib/postgresql/15")

    @classmethod
    def installed(cls) -> bool:
        """Return whether the package is here."""
        return (cls.programs / "bin" / "initdb").exists()

    @override
    def _binaries(self) -> Path:
        return self.programs


class ExternalServer:
    """A server that the pool does not run, reached over TCP: its administrator is a role, each pool's is another."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = server.start()
        self.administrator = url.set(host="127.0.0.1", port=port, query={})
        for name, value in (("listen_addresses", "127.0.0.1"), ("port", str(port))):
            _execute(url, f"ALTER SYSTEM SET {name} = '{value}'")
        server.stop()
        server.start()

    def database(self, name: str) -> sa.URL:
        """Make a database and the role that owns it, which is no superuser; return its address as that role."""
        password = secrets.token_urlsafe(16)
        _execute(self.administrator, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        _execute(self.administrator, f"CREATE DATABASE {name} OWNER {name} ENCODING UTF8 TEMPLATE template0")
        return self.administrator.set(username=name, password=password, database=name)

    def reader(self, database: sa.URL) -> sa.URL:
        """Return the address of a database as a role that reads everything and changes nothing."""
        name, password = f"{database.database}_reader", secrets.token_urlsafe(16)
        _execute(self.administrator, f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE pg_read_all_data")
        return database.set(username=name, password=password)

    def lose(self, database: sa.URL) -> None:
        """Drop a database with its connections."""
        _execute(self.administrator, f"DROP DATABASE {database.database} WITH (FORCE)")


@contextmanager
def external_server() -> Iterator[ExternalServer]:
    """Start an external server, of Debian's version where it is installed; stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pool-external-"))
    folder.chmod(0o755)
    server = ServerOfDebian(folder) if ServerOfDebian.installed() else EmbeddedPostgres(folder)
    try:
        yield ExternalServer(server)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _execute(url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()

"""Real MariaDB for tests, from Debian's package mariadb-server-core: one server a session, an empty database a test.

Mark such a test `needs_package("mariadb-server-core", program="mariadbd")`.
"""

import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.kit.patience import PATIENCE

_SCRIPTS = Path("/usr/share/mysql")

__all__ = ["fresh_database", "server"]


@contextmanager
def server(*, rights: bool = False) -> Iterator[sa.URL]:
    """Start a server on a socket of a scratch folder, for this user alone; stop and remove it at the end.

    Args:
        rights: it has users and their rights; without, everybody may do everything.
    """
    folder = Path(tempfile.mkdtemp(prefix="pool-test-maria-"))
    data, listener = folder / "data", folder / "s"
    data.mkdir()
    if rights:
        _make_users(data)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                f"--datadir={data}",
                f"--socket={listener}",
                "--skip-networking",
                *([] if rights else ["--skip-grant-tables"]),
                "--user=root",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=32M",
            ],
            stdout=log,
            stderr=log,
        )
    url = sa.make_url(f"mariadb+pymysql://root@localhost/?unix_socket={listener}")
    try:
        _wait(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server_: sa.URL) -> Iterator[sa.URL]:
    """Make an empty database and drop it at the end."""
    name = f"t_{uuid.uuid4().hex}"
    admin = sa.create_engine(server_, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
    try:
        yield server_.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name}"))
        admin.dispose()


def _make_users(data: Path) -> None:
    """Make the tables of users and rights, as `mariadb-install-db` does: root without a password."""
    scripts = [_SCRIPTS / f"mysql_system_tables{suffix}.sql" for suffix in ("", "_data")]
    statements = ["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket = NULL;"]
    program = "\n".join([*statements, *(script.read_text() for script in scripts)])
    command = ["mariadbd", "--no-defaults", "--bootstrap", f"--datadir={data}", "--user=root"]
    subprocess.run(command, input=program, text=True, check=True, capture_output=True)


def _wait(url: sa.URL, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            # Not by the driver, which leaves a socket behind where nobody listens yet.
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(url.query["unix_socket"]))
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(errors="replace")[-3000:]) from None
            time.sleep(0.05)
        else:
            return

"""Client tools of PostgreSQL: finds the pg_dump and pg_restore that fit a server, and runs them.

pg_dump refuses a server that is newer than itself, so that a tool of the server's major version or a later one is
needed, and the nearest is taken: what a later pg_dump writes may be readable by servers of later versions only. The
embedded PostgreSQL brings its own tools. For an external one they are looked for in this order:

    the folder given by --pg-bin · PATH · /usr/lib/postgresql/*/bin · /usr/pgsql-*/bin · the embedded server's own

No password is on a command line: it is in a file of mode 0600 for as long as the tool runs.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from exchange.server.embedded_postgres import EmbeddedPostgres
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["LEAST_SERVER", "ClientTool", "archive_reader", "check_server", "dump_tool", "restore_tool"]

LEAST_SERVER = 15
"""Major version of the oldest server that is supported: the oldest that the tests run on."""

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_SYSTEM = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
_NEW_ARCHIVE = 17  # from here on pg_dump writes archives that earlier tools do not read, with settings of its own


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A program of PostgreSQL and its major version."""

    path: Path
    major: int

    def run(self, url: sa.URL | None, *arguments: str, stdout: int = subprocess.DEVNULL) -> None:
        """Run it to its end.

        Args:
            url: of the database; None for work on a file alone.
            arguments: all but the connection.
            stdout: where its output goes.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, it failed; the message is its own, without the address.
        """
        with _connection(url) as (connection, environment):
            done = subprocess.run(
                [str(self.path), *connection, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=environment,
                check=False,
            )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-600:]
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE, f"{self.path.name} ended with {done.returncode}: {said}"
            )

    @contextmanager
    def output(self, *arguments: str) -> Iterator[Iterator[bytes]]:
        """Run it on a file, and yield the lines that it writes.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, it failed.
        """
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [str(self.path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            try:
                yield process.stdout
            except BaseException:
                process.kill()
                raise
            if process.wait() != 0:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-600:]
                raise UnavailableError(
                    Reason.DATABASE_UNAVAILABLE, f"{self.path.name} ended with {process.returncode}: {said}"
                )


def check_server(version: int) -> int:
    """Return the major version of a server.

    Raises:
        InvalidError: CONFIG_INVALID, it is older than the oldest that is supported.
    """
    major = version // 10_000
    if major < LEAST_SERVER:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"got a PostgreSQL server of version {major}; expected {LEAST_SERVER} or later. Upgrade it first",
        )
    return major


def dump_tool(server: int, folder: Path | None = None) -> ClientTool:
    """Return the pg_dump that fits a server of this major version.

    Raises:
        InvalidError: CONFIG_INVALID, there is none; says which are there and which is needed.
    """
    return _nearest("pg_dump", server, folder, f"the server is PostgreSQL {server}")


def restore_tool(*, client: int, server: int, target: int, folder: Path | None = None) -> ClientTool:
    """Return the pg_restore that reads an archive and writes to a server.

    Args:
        client: major version of the pg_dump that wrote it.
        server: of the server that it is from.
        target: of the server that gets it.
        folder: with the tools; None = where they usually are.

    Raises:
        InvalidError: CONFIG_INVALID, the server is too old for the backup, or there is no such tool.
    """
    least = max(server, _NEW_ARCHIVE if client >= _NEW_ARCHIVE else 0)
    if target < least:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"got a target server of PostgreSQL {target}; the backup was made from version {server} with a pg_dump of "
            f"version {client}, and needs a server of version {least} or later",
        )
    found = _nearest("pg_restore", client, folder, f"the backup was made by pg_dump {client}")
    if found.major >= _NEW_ARCHIVE > target:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"got pg_restore {found.major} for a server of PostgreSQL {target}, which does not know its settings; "
            f"install the client tools of version {max(client, target)} (--pg-bin names their folder)",
        )
    return found


def archive_reader(client: int, folder: Path | None = None) -> ClientTool | None:
    """Return a pg_restore that reads what a pg_dump of this major version wrote; None where there is none."""
    try:
        return _nearest("pg_restore", client, folder, "")
    except InvalidError:
        return None


def _nearest(name: str, least: int, folder: Path | None, why: str) -> ClientTool:
    found = sorted(_installed(name, folder), key=lambda tool: tool.major)
    for tool in found:
        if tool.major >= least:
            return tool
    there = ", ".join(f"{tool.path} ({tool.major})" for tool in found) or "none"
    raise InvalidError(
        Reason.CONFIG_INVALID,
        f"got no {name} of version {least} or later, which is needed since {why}; found: {there}. Install the client "
        f"tools of PostgreSQL {least} (Debian: postgresql-client-{least}), or name their folder with --pg-bin",
    )


def _installed(name: str, folder: Path | None) -> Iterator[ClientTool]:
    """Yield the tools of this name, each major version once, those of the first places first."""
    seen: set[int] = set()
    for place in _places(folder):
        path = place / name
        if not os.access(path, os.X_OK):
            continue
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, env=_environment(), check=False)
        match = _VERSION.search(done.stdout)
        if done.returncode == 0 and match is not None and (major := int(match[1])) not in seen:
            seen.add(major)
            yield ClientTool(path, major)


def _places(folder: Path | None) -> Sequence[Path]:
    if folder is not None:
        return [folder]
    on_path = shutil.which("pg_dump")
    places = [Path(on_path).parent] if on_path else []
    for pattern in _SYSTEM:
        places += sorted(Path("/").glob(pattern[1:]))
    with contextlib.suppress(InvalidError):  # the extra is not installed
        places.append(EmbeddedPostgres.binaries() / "bin")
    return places


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LANG": "C", "TZ": "UTC", "PGCONNECT_TIMEOUT": "10"}


@contextmanager
def _connection(url: sa.URL | None) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield the argument that names the database, without a password, and the environment, with a file that has it."""
    environment = _environment()
    if url is None:
        yield [], environment
        return
    password = url.password or url.query.get("password")
    bare = sa.URL.create(
        "postgresql",
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query={name: value for name, value in url.query.items() if name != "password"},
    )
    with tempfile.TemporaryDirectory(prefix="pool-pgpass-") as folder:
        if password:
            file = Path(folder) / "pgpass"
            file.touch(mode=0o600)
            escaped = str(password).replace("\\", "\\\\").replace(":", "\\:")
            file.write_text(f"*:*:*:*:{escaped}\n")
            environment["PGPASSFILE"] = str(file)
        yield [f"--dbname={bare.render_as_string(hide_password=False)}"], environment

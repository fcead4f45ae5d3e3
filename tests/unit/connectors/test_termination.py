"""A command that is ended by a signal leaves nothing of what it drew: a timer's limit, a closed terminal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Signals that whoever runs the tests ignores (`nohup`, a background job) are not ignored in the command.
_COMMAND = """
import os, signal, sys, tempfile, time
for each in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from connectors import cli

@cli.app.command("draw")
def draw():
    with tempfile.TemporaryDirectory(prefix="pool-connect-") as scratch:
        open(os.path.join(scratch, "drawn.sqlite3"), "w").close()
        print("drawn", flush=True)
        time.sleep(300)

cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_ended_removes_its_scratch_folder(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "draw"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"drawn\n"
        assert [*tmp_path.iterdir()] != []
        process.send_signal(number)
        code = process.wait()
    assert [*tmp_path.iterdir()] == []
    assert code != 0
    if number is not signal.SIGINT:
        assert code == 128 + number

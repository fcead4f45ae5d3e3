"""Failpoints: off unless twice asked for, loud when on, and deadly only where they say."""

import subprocess
import sys

import pytest

from schemas import failpoints
from schemas.errors import InvalidError, Reason

PROGRAM = """
import sys
from schemas import failpoints
failpoints.arm(allowed=sys.argv[1] == "told")
for _ in range(200):
    failpoints.reached("after_produce")
print("lived", flush=True)
failpoints.reached("after_entry")
print("reached the end", flush=True)
"""


def program(told: str, variable: str) -> "subprocess.CompletedProcess[str]":
    environment = {"POOL_FAILPOINTS": variable} if variable else {}
    command = [sys.executable, "-c", PROGRAM, told]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_process_that_was_told_so_kills_itself_at_the_named_place_and_says_so() -> None:
    done = program("told", "after_entry:kill:1")
    assert done.returncode == -9
    assert done.stdout == "lived\n"
    assert "ARMED" in done.stderr
    assert done.stderr.endswith("FAILPOINT after_entry: SIGKILL\n")


def test_the_environment_alone_stops_the_program_before_it_starts() -> None:
    done = program("not told", "after_entry:kill:1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "failpoints = true" in done.stderr


def test_nothing_happens_without_the_variable() -> None:
    done = program("told", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lived\nreached the end\n", "")


@pytest.mark.parametrize(
    "text", ["after_entry", "after_entry:stop:1", "after_lunch:kill:1", "after_entry:kill:2", "after_entry:kill:x", ","]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidError) as raised:
        failpoints.arm(allowed=True, environment={failpoints.VARIABLE: text})
    assert raised.value.reason is Reason.CONFIG_INVALID
    failpoints.reached("after_entry")  # and nothing is armed: we are still here

"""Processes beside the first one: a child that hangs holds up neither the end of the pool nor the watch over others."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.server.supervision import child_processes
from exchange.server.supervision.child_processes import ChildProcesses
from schemas.errors import InvalidError, Reason, UnavailableError
from tests.kit.patience import PATIENCE

HANGS = "import sys; sys.stdin.read()"
ENDS = "raise SystemExit(3)"
# Serves when it is started first, and hangs at its start when it is started again.
SERVES_ONCE = """
import pathlib, sys
mark = pathlib.Path(sys.argv[3], sys.argv[5])
if not mark.exists():
    mark.touch()
    print('ready {"http": "127.0.0.1:1", "metrics": "127.0.0.1:2"}', flush=True)
sys.stdin.read()
"""
PRINTS = "import sys; print('x' * 100_000 + '\\nready {}', flush=True); print('y' * 1_000_000); sys.stdin.read()"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(child_processes, "_PROGRAM", request.param)


def children(folder: Path, *names: str, bound: float = PATIENCE) -> ChildProcesses:
    return ChildProcesses(folder, names, bound)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ChildProcesses]]:
    """Those that a test starts; they are ended after it."""
    every: list[ChildProcesses] = []
    yield every
    for one in every:
        one.end()


@pytest.mark.parametrize("program", [HANGS], indirect=True)
@pytest.mark.usefixtures("program")
def test_a_pool_that_shall_end_does_not_wait_for_a_child_that_hangs_at_its_start(
    tmp_path: Path, started: list[ChildProcesses]
) -> None:
    found = children(tmp_path, "control", "registry")
    started.append(found)
    looks = iter(range(10))
    with pytest.raises(UnavailableError) as caught:
        found.start(lambda: next(looks) > 3)
    assert caught.value.reason is Reason.SHUTTING_DOWN
    assert not any(check.ok for check in found.checks())


@pytest.mark.parametrize("program", [ENDS], indirect=True)
@pytest.mark.usefixtures("program")
def test_a_child_that_ends_at_its_start_is_an_error_of_the_start(tmp_path: Path, started: list[ChildProcesses]) -> None:
    found = children(tmp_path, "control")
    started.append(found)
    with pytest.raises(InvalidError) as caught:
        found.start(lambda: False)
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("program", [SERVES_ONCE], indirect=True)
@pytest.mark.usefixtures("program")
def test_a_child_that_hangs_when_it_is_started_again_is_given_up_after_the_bound(
    tmp_path: Path, started: list[ChildProcesses]
) -> None:
    found = children(tmp_path, "control", "registry", bound=0.5)
    started.append(found)
    found.start(lambda: False)
    assert found.addresses == {"http": "127.0.0.1:1"}
    assert all(check.ok for check in found.checks())
    killed = found._children[0].process
    assert killed is not None
    killed.kill()
    killed.wait()
    given_up = threading.Event()
    watch = threading.Thread(target=found.watch, args=(given_up.set, threading.Event()), daemon=True)
    watch.start()
    assert given_up.wait(PATIENCE)
    assert found.gave_up
    assert [check.ok for check in found.checks()] == [False, True]


@pytest.mark.parametrize("program", [PRINTS], indirect=True)
@pytest.mark.usefixtures("program")
def test_what_a_child_prints_does_not_stop_it(tmp_path: Path, started: list[ChildProcesses]) -> None:
    found = children(tmp_path, "control")
    started.append(found)
    found.start(lambda: False)
    process = found._children[0].process
    assert process is not None
    found.end()
    assert process.returncode == 0, "it has printed all, and ended when its input did"


@pytest.mark.parametrize("program", [HANGS], indirect=True)
@pytest.mark.usefixtures("program")
def test_none_is_started_after_the_end(tmp_path: Path) -> None:
    found = children(tmp_path, "control")
    found.end()
    with pytest.raises(InvalidError):
        found.start(lambda: False)
    assert found._children[0].process is None


def test_a_child_imports_nothing_from_the_folder_in_which_the_pool_was_started(
    tmp_path: Path, started: list[ChildProcesses], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted, mark = tmp_path / "exchange", tmp_path / "mark"
    planted.mkdir()
    (planted / "__init__.py").write_text(f"open({json.dumps(str(mark))}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    found = children(tmp_path / "none", "control")
    started.append(found)
    with pytest.raises(InvalidError):
        found.start(lambda: False)
    assert not mark.exists()

"""Process supervisor of `pool serve` with `processes = "several"`: the processes beside the first one.

    async with beside(folder, ("control", "registry"), end) as children:
        children.addresses      of their listeners
        children.checks()       for `/readyz`

The first process serves records; the control API with enrolment, and the registry, have an interpreter of their own
each, so that many calls at one listener cost callers of the others little (ADR 0110). A child that ends is started
again, at once and then with growing pauses; after `restart_seconds` of the configuration the pool ends with `GAVE_UP`,
so that the init system restarts it, or tells somebody.

A child's standard input is a pipe from its parent, at whose end it stops: it does not outlive its parent, however that
ends.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import structlog

from exchange import metrics
from exchange.api.health import HealthCheck
from exchange.server import background
from exchange.server.supervision.restart_policy import RestartPolicy
from schemas.errors import InvalidError, Reason

__all__ = ["ChildProcesses", "beside", "end_with_parent"]

_PROGRAM = "from exchange.cli import main; main()"
_PERIOD = 0.5  # seconds between two looks
_GRACE = 15.0  # seconds for a child to end
_log = structlog.get_logger()


@dataclass
class _Child:
    name: str
    policy: RestartPolicy
    process: subprocess.Popen[str] | None = None
    ready: bool = False


class ChildProcesses:
    """The processes beside this one.

    Args:
        folder: of the pool.
        names: of the processes (`exchange.server.roles.CHILDREN`).
        bound: seconds of an outage of one of them after which the pool ends.
    """

    def __init__(self, folder: Path, names: Sequence[str], bound: float) -> None:
        self._folder = folder
        self._children = [_Child(name, RestartPolicy(bound)) for name in names]
        self.addresses: dict[str, str] = {}
        self.gave_up = False

    def start(self) -> None:
        """Start them all and wait until they serve.

        Raises:
            InvalidError: CONFIG_INVALID, one has ended before it served; its messages are in this process's.
        """
        for child in self._children:
            self._start(child)
        for child in self._children:
            if not self._wait_until_ready(child):
                raise InvalidError(
                    Reason.CONFIG_INVALID, f"the process {child.name} has ended at its start; see its message above"
                )

    def checks(self) -> list[HealthCheck]:
        """Return one check for each of them."""
        return [
            HealthCheck(name=child.name, ok=True)
            if child.ready and _running(child)
            else HealthCheck(
                name=child.name,
                ok=False,
                reason=str(Reason.SHUTTING_DOWN),
                detail=f"the process has ended; {child.policy.attempts} attempts to start it again",
            )
            for child in self._children
        ]

    def watch(self, give_up: Callable[[], object], stop: threading.Event) -> None:
        """Start again what has ended, until *stop*; call *give_up* where one cannot be started."""
        while not stop.wait(_PERIOD):
            for child in self._children:
                self._look(child, stop)
            if self.gave_up:
                give_up()
                return

    def end(self) -> None:
        """End them, and wait for it."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            with suppress(OSError):
                _pipe(process.stdin).close()
        until = time.monotonic() + _GRACE
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _pipe(process.stdout).close()

    def _start(self, child: _Child) -> None:
        command = (sys.executable, "-c", _PROGRAM, "serve", "--data", str(self._folder), "--child", child.name)
        child.ready = False
        child.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _wait_until_ready(self, child: _Child) -> bool:
        line = "" if child.process is None else _pipe(child.process.stdout).readline()
        if not line.startswith("ready "):
            return False
        addresses = json.loads(line.removeprefix("ready "))
        self.addresses |= {name: address for name, address in addresses.items() if name != "metrics"}
        child.ready = True
        return True

    def _look(self, child: _Child, stop: threading.Event) -> None:
        now = time.monotonic()
        if _running(child):
            child.policy.found_running(now)
            return
        first = not child.policy.outage(now)
        child.policy.found_dead(now)
        if first:
            code = None if child.process is None else child.process.returncode
            _log.error("child_process_ended", process=child.name, code=code)
        if child.policy.is_over(now):
            self.gave_up = True
            _log.critical("child_process_given_up", process=child.name, attempts=child.policy.attempts)
            return
        if child.policy.wait(now) or stop.is_set():
            return
        if child.process is not None:
            for pipe in (child.process.stdin, child.process.stdout):
                with suppress(OSError):
                    _pipe(pipe).close()
        self._start(child)
        succeeded = self._wait_until_ready(child)
        metrics.CHILD_RESTARTS.labels(child.name, "started" if succeeded else "failed").inc()
        child.policy.attempted(time.monotonic(), succeeded=succeeded)
        _log.warning("child_process_restarted", process=child.name, succeeded=succeeded)


@asynccontextmanager
async def beside(
    folder: Path, names: Sequence[str], bound: float, end: Callable[[], object]
) -> AsyncIterator[ChildProcesses]:
    """Run processes beside this one for the duration of the block; *end*, called from a thread, ends this one."""
    children = ChildProcesses(folder, names, bound)
    try:
        await asyncio.to_thread(children.start)
        async with background.in_thread("children", partial(children.watch, end)):
            yield children
    finally:
        await asyncio.to_thread(children.end)


def end_with_parent() -> None:
    """Make this process stop, as SIGTERM does, when its standard input ends."""

    def wait() -> None:
        with suppress(OSError, ValueError):
            sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _running(child: _Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process was started without a pipe")
    return stream

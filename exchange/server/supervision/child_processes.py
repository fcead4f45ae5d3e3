"""Process supervisor of `pool serve` with `processes = "several"`: the processes beside the first one.

    async with beside(folder, ("control", "registry"), bound, end=end, is_stopping=stop.is_set) as children:
        children.addresses      of their listeners
        children.checks()       for `/readyz`

The first process serves records; the control API with enrolment, and the registry, have an interpreter of their own
each, so that many calls at one listener cost callers of the others little (ADR 0102). A child that ends is started
again, at once and then with growing pauses; after `restart_seconds` of the configuration without one that serves, the
pool ends with `GAVE_UP`, so that the init system restarts it, or tells somebody.

A child's standard input is a pipe from its parent, at whose end it stops: it does not outlive its parent, however that
ends. Its standard output is read by a thread of the parent: nothing here waits for a child that says nothing.
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
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["ChildProcesses", "beside", "end_with_parent"]

_PROGRAM = "from exchange.cli import main; main()"
_PERIOD = 0.5  # seconds between two looks
_START_PERIOD = 0.05  # seconds, while the first start is waited for
_GRACE = 15.0  # seconds for a child to end
_log = structlog.get_logger()


@dataclass
class _Child:
    name: str
    policy: RestartPolicy
    process: subprocess.Popen[str] | None = None
    ready: bool = False
    starting: bool = False  # started again, and its outcome is open


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
        self._lock = threading.Lock()  # a child that is started, and the end of all
        self._ending = False
        self.addresses: dict[str, str] = {}
        self.gave_up = False

    def start(self, is_stopping: Callable[[], bool]) -> None:
        """Start them all and wait until they serve, or until this process shall end.

        Raises:
            InvalidError: CONFIG_INVALID, one has ended before it served; its messages are in this process's.
            UnavailableError: SHUTTING_DOWN, this process shall end.
        """
        for child in self._children:
            self._start(child)
        for child in self._children:
            while not child.ready:
                if is_stopping():
                    raise UnavailableError(Reason.SHUTTING_DOWN, "told to stop while the start waited")
                if not _running(child):
                    raise InvalidError(
                        Reason.CONFIG_INVALID, f"the process {child.name} has ended at its start; see its message above"
                    )
                time.sleep(_START_PERIOD)

    def checks(self) -> list[HealthCheck]:
        """Return one check for each of them."""
        return [
            HealthCheck(name=child.name, ok=True)
            if child.ready and _running(child)
            else HealthCheck(
                name=child.name,
                ok=False,
                reason=str(Reason.SHUTTING_DOWN),
                detail=f"the process {'does not serve yet' if _running(child) else 'has ended'}; "
                f"{child.policy.attempts} attempts to start it again",
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
        """End them, and wait for it; none is started after this."""
        with self._lock:
            self._ending = True
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

    def _start(self, child: _Child) -> None:
        # Safe path: with -c alone, modules of the folder in which the pool was started would come before its own.
        command = (sys.executable, "-P", "-c", _PROGRAM, "serve", "--data", str(self._folder), "--child", child.name)
        with self._lock:
            if self._ending:
                return
            child.ready = False
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            child.process = process
        threading.Thread(target=self._read, args=(child, process), name=f"output {child.name}", daemon=True).start()

    def _read(self, child: _Child, process: "subprocess.Popen[str]") -> None:
        """Read what a child prints until it ends: once its addresses, when it serves."""
        with _pipe(process.stdout) as output:
            for line in output:
                if line.startswith("ready ") and child.process is process:
                    addresses = json.loads(line.removeprefix("ready "))
                    self.addresses |= {name: address for name, address in addresses.items() if name != "metrics"}
                    child.ready = True

    def _look(self, child: _Child, stop: threading.Event) -> None:
        now = time.monotonic()
        running = _running(child)
        if child.starting and (child.ready or not running):
            self._started(child, now)
        if running and child.ready:
            child.policy.found_running(now)
            return
        if not running:
            self._found_dead(child, now)
        if child.policy.is_over(now):
            self.gave_up = True
            _log.critical("child_process_given_up", process=child.name, attempts=child.policy.attempts)
            return
        if running or child.policy.wait(now) or stop.is_set():
            return
        if child.process is not None:
            with suppress(OSError):
                _pipe(child.process.stdin).close()
        try:
            child.starting = True
            self._start(child)
        except OSError as error:  # no process or no memory is free
            _log.error("child_process_not_started", process=child.name, error=error.strerror)
            self._started(child, time.monotonic())

    def _found_dead(self, child: _Child, now: float) -> None:
        first = not child.policy.outage(now)
        child.policy.found_dead(now)
        if first:
            code = None if child.process is None else child.process.returncode
            _log.error("child_process_ended", process=child.name, code=code)

    def _started(self, child: _Child, now: float) -> None:
        """Note the outcome of a start: it serves, or has ended before."""
        child.starting = False
        metrics.CHILD_RESTARTS.labels(child.name, "started" if child.ready else "failed").inc()
        child.policy.attempted(now, succeeded=child.ready)
        _log.warning("child_process_restarted", process=child.name, succeeded=child.ready)


@asynccontextmanager
async def beside(
    folder: Path,
    names: Sequence[str],
    bound: float,
    *,
    end: Callable[[], object],
    is_stopping: Callable[[], bool],
) -> AsyncIterator[ChildProcesses]:
    """Run processes beside this one for the duration of the block.

    Args:
        folder: of the pool.
        names: of the processes.
        bound: seconds of an outage of one of them after which this process ends.
        end: called from a thread, ends this process.
        is_stopping: called from a thread, returns whether this process shall end.
    """
    children = ChildProcesses(folder, names, bound)
    try:
        await asyncio.to_thread(children.start, is_stopping)
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

"""Health checks of a process: what `/livez` and `/readyz` answer, for each role.

    livez     event_loop, one check for each background loop, embedded_postgres (its owner)
    readyz    database, clock, keys, and of a gateway or a sequencer log and signing, of a gateway broker and restore

Nothing is asked when a probe comes. The log watch asks the database once a second, a `ProbeWatch` each the broker and
whether a restore is settled, and the event loop sets a time ten times a second. What has not been asked successfully
for `STALE` seconds fails, so a database that hangs fails like one that refuses.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from exchange.api.health import HealthCheck
from exchange.server.roles import Role
from exchange.server.supervision.log_watch import LogWatch
from exchange.server.supervision.loop_liveness import LOOPS
from exchange.server.supervision.postgres_supervisor import PostgresSupervisor
from schemas.errors import PoolError, Reason, UnavailableError

__all__ = ["STALE", "EventLoopWatch", "ProbeWatch", "live_checks", "ready_checks"]

STALE = 15.0  # seconds
_LOOP_PERIOD = 0.1  # seconds
_PROBE_PERIOD = 5.0  # seconds
_log = structlog.get_logger()


class EventLoopWatch:
    """Measures how late the event loop runs what is due."""

    def __init__(self) -> None:
        self._due = time.monotonic()

    def late(self) -> float:
        """Return the seconds by which it is late."""
        return max(0.0, time.monotonic() - self._due)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measure until the block ends."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            self._due = time.monotonic() + _LOOP_PERIOD
            await asyncio.sleep(_LOOP_PERIOD)


class ProbeWatch:
    """Asks something regularly, and holds the last answer.

    Args:
        name: of the check that reads it.
        probe: raises a PoolError while the answer is no.
        reason: of the check until the first answer, and where the last one is older than `STALE`.
    """

    def __init__(self, name: str, probe: Callable[[], object], reason: Reason) -> None:
        self.name = name
        self.reason = reason
        self._probe = probe
        self.fault: PoolError | None = UnavailableError(reason, "it was not asked yet")
        self.looked = time.monotonic()

    def look(self) -> None:
        """Ask once."""
        try:
            self._probe()
        except PoolError as error:
            self.fault = error
        else:
            self.fault = None
        self.looked = time.monotonic()

    def watch(self, stop: threading.Event) -> None:
        """Ask every five seconds."""
        while not stop.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - see exchange.server.background
                _log.error("upkeep_failed", task=self.name, error=type(error).__name__)
            stop.wait(_PROBE_PERIOD)


def live_checks(loop: EventLoopWatch, supervisor: PostgresSupervisor | None) -> list[HealthCheck]:
    """Return the checks of `/livez`."""
    checks = [HealthCheck(name="event_loop", ok=True, detail=f"{loop.late():.1f} s late")]
    for state in LOOPS.states():
        said = f"in a turn for {state.seconds:.0f} s" if state.alive else "the thread has ended"
        checks.append(HealthCheck(name=state.name, ok=state.ok, reason="" if state.ok else "stuck", detail=said))
    if supervisor is not None:
        said = "given up: the process ends" if supervisor.gave_up else ""
        checks.append(
            HealthCheck(
                name="embedded_postgres",
                ok=not supervisor.gave_up,
                reason=str(Reason.DATABASE_UNAVAILABLE) if supervisor.gave_up else "",
                detail=said,
            )
        )
    return checks


def ready_checks(
    roles: frozenset[Role], log: LogWatch, probes: Sequence[ProbeWatch], keys: Sequence[Path]
) -> list[HealthCheck]:
    """Return the checks of `/readyz` of a process of these roles."""
    now = time.monotonic()
    checks = [
        _answered("database", log.database, now - log.looked, Reason.DATABASE_UNAVAILABLE),
        _found("clock", log.clock_fault),
        _keys(keys),
    ]
    if roles & {Role.GATEWAY, Role.SEQUENCER}:
        fault = log.fault
        behind = fault if fault is not None and fault.reason is Reason.LOG_BEHIND else None
        other = behind is None and fault is not None and fault.reason is not Reason.CLOCK_JUMPED
        corrupt = fault if other else None
        checks.append(_found("log", corrupt))
        waiting = f"the oldest unsigned entry has waited for {log.age():.0f} s"
        checks.append(_found("signing", behind, waiting))
    return [*checks, *(_answered(one.name, one.fault, now - one.looked, one.reason) for one in probes)]


def _found(name: str, fault: PoolError | None, otherwise: str = "") -> HealthCheck:
    if fault is None:
        return HealthCheck(name=name, ok=True, detail=otherwise)
    return HealthCheck(name=name, ok=False, reason=str(fault.reason), detail=fault.message)


def _answered(name: str, fault: PoolError | None, seconds: float, reason: Reason) -> HealthCheck:
    if fault is None and seconds > STALE:
        return HealthCheck(name=name, ok=False, reason=str(reason), detail=f"it has not answered for {seconds:.0f} s")
    return _found(name, fault)


def _keys(files: Sequence[Path]) -> HealthCheck:
    """Return whether the key files of the roles, which were read at the start, are still there for the next one."""
    missing = [file.name for file in files if not os.access(file, os.R_OK)]
    if missing:
        return HealthCheck(
            name="keys", ok=False, reason=str(Reason.CONFIG_INVALID), detail=f"missing: {', '.join(missing)}"
        )
    return HealthCheck(name="keys", ok=True)

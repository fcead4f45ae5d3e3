"""Health checks of a process: what `/livez` and `/readyz` answer, for each role.

    livez     event_loop, one check for each background loop, embedded_postgres (its owner)
    readyz    database, keys, and of a gateway or a sequencer log and signing, of a gateway broker

Nothing is asked when a probe comes. The log watch asks the database once a second, `watch_broker` asks the broker, and
the event loop sets a time ten times a second. What has not been asked successfully for `STALE` seconds fails, so a
database that hangs fails like one that refuses.
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

__all__ = ["STALE", "BrokerWatch", "EventLoopWatch", "live_checks", "ready_checks"]

STALE = 15.0  # seconds
_LOOP_PERIOD = 0.1  # seconds
_BROKER_PERIOD = 5.0  # seconds
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


class BrokerWatch:
    """Asks the broker regularly; `probe` raises a PoolError while it does not answer."""

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self.fault: PoolError | None = UnavailableError(Reason.BROKER_UNAVAILABLE, "it was not asked yet")
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
                _log.error("upkeep_failed", task="broker", error=type(error).__name__)
            stop.wait(_BROKER_PERIOD)


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
    roles: frozenset[Role], log: LogWatch, broker: BrokerWatch | None, keys: Sequence[Path]
) -> list[HealthCheck]:
    """Return the checks of `/readyz` of a process of these roles."""
    now = time.monotonic()
    checks = [_answered("database", log.database, now - log.looked, Reason.DATABASE_UNAVAILABLE), _keys(keys)]
    if roles & {Role.GATEWAY, Role.SEQUENCER}:
        fault = log.fault
        corrupt = fault if fault is not None and fault.reason is not Reason.LOG_BEHIND else None
        behind = fault if fault is not None and corrupt is None else None
        checks.append(_found("log", corrupt))
        waiting = f"the oldest unsigned entry has waited for {log.age():.0f} s"
        checks.append(_found("signing", behind, waiting))
    if broker is not None:
        checks.append(_answered("broker", broker.fault, now - broker.looked, Reason.BROKER_UNAVAILABLE))
    return checks


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

"""Process health: starts what watches a process, by role, and holds what its health checks read.

health = await stack.enter_async_context(supervised(app, roles, end))
health_api.create(health.live, health.ready)
…
return health.exit_code
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from exchange.api.health import HealthCheck
from exchange.server import background
from exchange.server.composition import App
from exchange.server.roles import Role, key_paths
from exchange.server.supervision.postgres_supervisor import GAVE_UP, PostgresSupervisor
from exchange.server.supervision.readiness import EventLoopWatch, ProbeWatch, live_checks, ready_checks
from schemas.errors import Reason

__all__ = ["ProcessHealth", "supervised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHealth:
    """The health of one process.

    Attributes:
        live, ready: return the checks of `/livez` and `/readyz`, at once.
        supervisor: of the embedded PostgreSQL, in the process that owns it.
    """

    live: Callable[[], list[HealthCheck]]
    ready: Callable[[], list[HealthCheck]]
    supervisor: PostgresSupervisor | None

    @property
    def exit_code(self) -> int:
        """Return the code with which the process ends: 0, or `GAVE_UP`."""
        return GAVE_UP if self.supervisor is not None and self.supervisor.gave_up else 0


@asynccontextmanager
async def supervised(app: App, roles: frozenset[Role], end: Callable[[], object]) -> AsyncIterator[ProcessHealth]:
    """Watch a process until the block ends; *end*, called from a thread, makes it end."""
    async with AsyncExitStack() as stack:
        loop = EventLoopWatch()
        await stack.enter_async_context(loop.running())
        supervisor = None
        if app.embedded is not None:
            supervisor = PostgresSupervisor(app.embedded, float(app.config.embedded.restart_seconds))
            supervise = partial(supervisor.supervise, end)
            await stack.enter_async_context(background.in_thread("postgres-supervisor", supervise))
        probes: list[ProbeWatch] = []
        if Role.GATEWAY in roles:
            probes = [
                ProbeWatch("broker", app.broker.ping, Reason.BROKER_UNAVAILABLE),
                ProbeWatch("restore", app.restored.require_release, Reason.RESTORE_UNSETTLED),
            ]
        for probe in probes:
            await stack.enter_async_context(background.in_thread(probe.name, probe.watch))
        keys = key_paths(roles, app.config.folder)
        yield ProcessHealth(
            live=partial(live_checks, loop, supervisor),
            ready=partial(ready_checks, roles, app.log_watch, probes, keys),
            supervisor=supervisor,
        )

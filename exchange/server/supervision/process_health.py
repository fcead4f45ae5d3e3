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
from exchange.server.supervision.child_processes import ChildProcesses
from exchange.server.supervision.postgres_supervisor import GAVE_UP, PostgresSupervisor
from exchange.server.supervision.readiness import EventLoopWatch, ProbeWatch, live_checks, ready_checks
from schemas.errors import Reason

__all__ = ["ProcessHealth", "supervised"]


@dataclass(slots=True, kw_only=True)
class ProcessHealth:
    """The health of one process.

    Attributes:
        live, own: return the checks of `/livez` and `/readyz`, at once; without those of the processes beside.
        supervisor: of the embedded PostgreSQL, in the process that owns it.
        children: processes beside this one.
    """

    live: Callable[[], list[HealthCheck]]
    own: Callable[[], list[HealthCheck]]
    supervisor: PostgresSupervisor | None
    children: ChildProcesses | None = None

    def watch_children(self, children: ChildProcesses) -> None:
        """Let `/readyz` tell of the processes beside this one from now on."""
        self.children = children

    def ready(self) -> list[HealthCheck]:
        """Return the checks of `/readyz`."""
        return [*self.own(), *([] if self.children is None else self.children.checks())]

    @property
    def exit_code(self) -> int:
        """Return the code with which the process ends: 0, or `GAVE_UP`."""
        given_up = (self.supervisor, self.children)
        return GAVE_UP if any(one is not None and one.gave_up for one in given_up) else 0


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
            own=partial(ready_checks, roles, app.log_watch, probes, keys),
            supervisor=supervisor,
        )

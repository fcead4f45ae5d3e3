"""Standing of the certificates that hold open calls, asked of the database twice a second.

The enforcer asks with each act. A stream on which nothing happens would never be asked about, so its certificate is
asked about here, by the same look-up (`exchange.authorization.attribute_sources`). `pool_calls_ended_total` counts what
is ended for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Final

import structlog

from exchange.access.decision.roles import Standing
from schemas.access import Actor
from schemas.errors import PoolError

__all__ = ["PERIOD", "Standings"]

_log = structlog.get_logger()
PERIOD: Final = 0.5  # seconds
_Look = Callable[[Iterable[Actor]], Mapping[str, Standing]]


class Standings:
    """What is known of certificates, at most `PERIOD` old. All calls are made in one event loop.

    Args:
        look: returns the standings of actors by certificate; runs in the executor.
        executor: of its own, so that busy calls do not delay it.
        clock: seconds, monotonic.
    """

    def __init__(self, look: _Look, executor: Executor, clock: Callable[[], float]) -> None:
        self._look = look
        self._executor = executor
        self._clock = clock
        self._known: dict[str, tuple[Standing, float]] = {}
        self._asked: dict[str, asyncio.Task[Standing]] = {}

    def known(self, actor: Actor) -> Standing | None:
        """Return what was last found out about a certificate; None = nothing lately."""
        found = self._known.get(actor.certificate)
        return None if found is None else found[0]

    async def current(self, actor: Actor) -> Standing:
        """Return the standing of a certificate, as of `PERIOD` ago at most. Callers at the same time share a query.

        Raises:
            UnavailableError: the database does not answer.
        """
        found = self._known.get(actor.certificate)
        if found is not None and self._clock() - found[1] < PERIOD:
            return found[0]
        task = self._asked.get(actor.certificate)
        if task is None:
            task = asyncio.create_task(self._ask(actor))
            self._asked[actor.certificate] = task
        return await asyncio.shield(task)

    async def refresh(self, actors: Iterable[Actor]) -> dict[str, Standing]:
        """Ask about all these certificates; return those that are not active. Forget all others.

        Where the database does not answer, what was known stays, and nothing is returned.
        """
        asked = list(actors)
        at = self._clock()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._executor, self._look, asked)
        except PoolError as error:
            _log.warning("standings_unknown", reason=error.reason)
            return {}
        # Those that were refused stay known for a while: they come again.
        kept = {
            certificate: known
            for certificate, known in self._known.items()
            if known[0] is not Standing.ACTIVE and at - known[1] < 60.0
        }
        self._known = kept | {certificate: (standing, at) for certificate, standing in found.items()}
        return {certificate: standing for certificate, standing in found.items() if standing is not Standing.ACTIVE}

    async def _ask(self, actor: Actor) -> Standing:
        at = self._clock()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._executor, self._look, [actor])
            standing = found.get(actor.certificate, Standing.REVOKED)
            self._known[actor.certificate] = (standing, at)
            return standing
        finally:
            del self._asked[actor.certificate]

"""Fair scheduler: every call that takes a thread takes a turn of its department before (`fair_queue`).

    gRPC              `run`, which also runs the call in a thread
    control API       `turn`, around the request, from its body's end until its answer begins
    registry          `turn`, around what runs in a thread; what is answered from memory takes none

One process has one scheduler for all its listeners, so that a department that calls all of them has one share. A call
that finds a slot free goes to its thread at once: no queue, no other thread and no lock of its own. A slot is held
until the thread has ended, also where the caller has gone; else calls that are cancelled would fill the threads.

Long polls wait in coroutines, and publish streams between their batches, without a slot.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from exchange import metrics
from exchange.api.admission.fair_queue import GROUP, UNKNOWN, FairQueue, Flow, Full
from schemas.access import Actor
from schemas.errors import Reason, UnavailableError

__all__ = ["FairScheduler", "Turn", "flow_of", "flow_of_source", "flow_of_topic"]

_T = TypeVar("_T")
_RETRY_AFTER = 1.0  # seconds


def flow_of(actor: Actor) -> Flow:
    """Return the flow of a caller: its department, or an account that has none."""
    if actor.department:
        return Flow(actor.department, actor.id)
    return Flow(f"account {actor.id}", kind="authority")


def flow_of_source(source: str) -> Flow:
    """Return the flow of a caller who is not known yet: all of them share, and take turns by source."""
    return Flow(UNKNOWN, source, UNKNOWN)


def flow_of_topic(topic: str) -> Flow:
    """Return the flow of what is done for consumers of several departments together."""
    return Flow(f"topic {topic}", kind=GROUP)


class Turn:
    """A slot within an `async with` block, or until `end`."""

    __slots__ = ("_flow", "_held", "_scheduler")

    def __init__(self, scheduler: "FairScheduler", flow: Flow) -> None:
        self._scheduler = scheduler
        self._flow = flow
        self._held = False

    async def __aenter__(self) -> Self:
        await self._scheduler.begin(self._flow)
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Release the slot; a second call does nothing."""
        if self._held:
            self._held = False
            self._scheduler.end(self._flow)


class FairScheduler:
    """The slots of one process. All calls are made in one event loop.

    Args:
        threads: in which `run` runs calls; as many as there are slots, so that nothing waits there.
        slots: calls of all listeners that run at once.
        share: of these, calls of one department that is alone.
        contended: of these, calls of one department beside others.
        limit: calls of one department that wait.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        threads: Executor,
        *,
        slots: int,
        share: int,
        contended: int,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._queue = FairQueue[asyncio.Future[None]](slots, share, limit, contended=contended, clock=clock)

    async def run(self, flow: Flow, work: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function in a thread, when its flow has its turn.

        Raises:
            UnavailableError: OVERLOADED, as many calls of its department wait as may.
        """
        if not self._queue.take(flow):
            await self._wait(flow)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        try:
            self._threads.submit(self._work, loop, future, flow, work, arguments)
        except BaseException:
            self.end(flow)
            raise
        return await future

    def turn(self, flow: Flow) -> Turn:
        """Return a context manager that holds a slot within its block."""
        return Turn(self, flow)

    async def begin(self, flow: Flow) -> None:
        """Take a slot, and wait for it where none is free; `end` gives it back.

        Raises:
            UnavailableError: OVERLOADED.
        """
        if not self._queue.take(flow):
            await self._wait(flow)

    def end(self, flow: Flow) -> None:
        """Release a slot, and run the calls whose turn it is."""
        self._queue.give_back(flow)
        self._serve()

    def _serve(self) -> None:
        while (waiting := self._queue.next()) is not None:
            if not waiting.done():  # else it was cancelled, and gives the slot back itself
                waiting.set_result(None)

    async def _wait(self, flow: Flow) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            ticket = self._queue.wait(flow, future)
        except Full:
            metrics.ADMISSION_REFUSED.labels("queue", flow.kind).inc()
            raise UnavailableError(
                Reason.OVERLOADED,
                "your department has as many calls waiting at this gateway as it may have; wait for some of them, then "
                "try again",
                retry_after=_RETRY_AFTER,
            ) from None
        self._serve()  # its department may be alone by now
        started = time.monotonic()
        gauge = metrics.CALLS_WAITING.labels(flow.kind)
        gauge.inc()
        try:
            await future
        except asyncio.CancelledError:
            if not self._queue.discard(ticket):  # it had its turn in the same moment
                self.end(flow)
            raise
        finally:
            gauge.dec()
            metrics.CALL_WAIT_SECONDS.labels(flow.kind).observe(time.monotonic() - started)

    def _work(
        self,
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[Any]",
        flow: Flow,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        result: Any = None
        error: BaseException | None = None
        if not future.cancelled():  # else its caller has gone before it began
            try:
                result = work(*arguments)
            except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
                # No future takes a StopIteration: the caller would wait without end.
                error = RuntimeError("a call raised StopIteration") if isinstance(raised, StopIteration) else raised
        with suppress(RuntimeError):  # the loop is closed, and nothing waits any more
            loop.call_soon_threadsafe(self._settle, future, flow, result, error)

    def _settle(self, future: "asyncio.Future[Any]", flow: Flow, result: Any, error: BaseException | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self.end(flow)

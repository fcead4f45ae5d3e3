"""Long poll without threads: one watch a topic wakes every coroutine that waits for new records.

    version = growth.version(topic)                before reading
    nothing = await groups.fetch(topic, call)      one coroutine for each long poll
    await growth.wait(topic, version, timeout)

A version taken before the read cannot miss what was appended between the read and the wait.

What wakes at one moment is fetched together, so that entries share a transaction (group commit). Calls of a topic wait
while as many groups of it run as may; the next group takes all that have come meanwhile, up to a bound. So a group is
as large as the gateway is behind: one consumer that wakes alone is fetched alone and at once, and of a thousand that
wake together some dozens share each read, each decision's attributes and each commit (`exchange.records.group_fetch`).
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import structlog

from exchange.api.admission.fair_queue import Flow, RoundRobin
from exchange.api.admission.scheduler import flow_of, flow_of_topic
from exchange.broker.port import Broker
from exchange.records.group_fetch import FetchCall, Outcome
from exchange.records.release import Release
from schemas.errors import PoolError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["FetchGroups", "TopicGrowth"]

_log = structlog.get_logger()
_MAX_CALLS = 64  # of one group
_MAX_GROUPS = 2  # of one topic at a time: one computes while the database works for the other

_Together: TypeAlias = Callable[[Sequence[FetchCall]], Iterator[Mapping[int, Outcome]]]
_Waiting: TypeAlias = tuple[FetchCall, "asyncio.Future[Outcome]"]


class _TopicVersion:
    def __init__(self) -> None:
        self.number = 0
        self.changed = asyncio.Event()

    def increase(self) -> None:
        self.number += 1
        self.changed.set()
        self.changed = asyncio.Event()


class TopicGrowth:
    """Growth of the topics that are polled. `wait` runs on one event loop; `version` may be called in any thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._versions: dict[Topic, _TopicVersion] = {}
        self._watches = ExitStack()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._closed = False

    def version(self, topic: Topic) -> int:
        """Return the topic's version, which rises when it may have grown; the first call for a topic starts its watch.

        Raises:
            UnavailableError: SHUTTING_DOWN, after `close`; what `Broker.watch` raises, and the next call tries again.
        """
        current = self._versions.get(topic)
        return (self._start(topic) if current is None else current).number

    def watched(self, topic: Topic) -> int | None:
        """Return the topic's version; None while it has no watch, which `version` starts. It never waits."""
        current = self._versions.get(topic)
        return None if current is None else current.number

    def _start(self, topic: Topic) -> _TopicVersion:
        loop = self._loop
        with self._lock:
            version = self._versions.get(topic)
            if version is not None:  # another thread was faster
                return version
            if self._closed:
                raise UnavailableError(Reason.SHUTTING_DOWN, "this gateway is stopping; call another", retry_after=1.0)
            version = _TopicVersion()
            increase = version.increase

            def wake() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(increase)

            # Stored once the watch is active: without one, its readers would wait until their timeout.
            self._watches.enter_context(self._broker.watch(topic, wake))
            self._versions[topic] = version
            return version

    async def wait(self, topic: Topic, version: int, timeout: float) -> bool:  # noqa: ASYNC109 - a poll's own timeout
        """Wait until the topic may have grown since *version*; return False after *timeout* seconds."""
        current = self._versions[topic]
        if current.number != version:
            return True
        try:
            await asyncio.wait_for(current.changed.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Stop all watches."""
        with self._lock:
            self._closed = True
            self._watches.close()


class FetchGroups:
    """Groups the fetches of long polls by topic; on one event loop.

    Args:
        together: does the fetches of several calls, in a thread.
        alone: does one fetch, in a thread.
        run: runs a function in a thread, in the turn of the flow that it is called with.
        max_waiting: calls of one department, on one topic, that may wait.
    """

    def __init__(
        self,
        together: _Together,
        alone: Callable[[FetchCall], Release],
        run: Callable[..., Awaitable[Any]],
        *,
        max_waiting: int,
    ) -> None:
        self._together = together
        self._alone = alone
        self._run = run
        self._max_waiting = max_waiting
        self._waiting: dict[Topic, RoundRobin[_Waiting]] = {}
        self._groups: Counter[Topic] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetch(self, topic: Topic, call: FetchCall) -> Release:
        """Return what `FetchService.fetch` returns for a grant of this topic.

        Raises:
            PoolError: what it raises.
            UnavailableError: OVERLOADED, too many calls wait.
        """
        flow = flow_of(call.actor)
        waiting = self._waiting.get(topic)
        if waiting is None:
            waiting = self._waiting[topic] = RoundRobin()
        elif waiting.count(flow.department) >= self._max_waiting:
            raise UnavailableError(
                Reason.OVERLOADED,
                "your department has as many calls waiting at this gateway as it may have; wait for some of them, then "
                "try again",
                retry_after=0.5,
            )
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting.add(flow, (call, future))
        if self._groups[topic] < _MAX_GROUPS:
            self._groups[topic] += 1
            task = asyncio.create_task(self._work(topic))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        outcome = await future
        if outcome is None:
            released: Release = await self._run(flow, self._alone, call)
            return released
        if isinstance(outcome, PoolError):
            raise outcome
        return outcome

    async def _work(self, topic: Topic) -> None:
        """Do groups until no call of the topic waits."""
        try:
            while group := self._take(topic):
                await self._do(topic, group)
        finally:
            self._groups[topic] -= 1
            if not self._groups[topic]:
                del self._groups[topic]
                if not self._waiting.get(topic):
                    self._waiting.pop(topic, None)

    def _take(self, topic: Topic) -> list[_Waiting]:
        """Take the calls of the next group; departments, and connectors of each, take turns."""
        waiting, group = self._waiting.get(topic), list[_Waiting]()
        while waiting is not None and len(group) < _MAX_CALLS and (found := waiting.pop()) is not None:
            _, (call, future) = found
            if not future.done():  # else its caller has gone
                group.append((call, future))
        return group

    async def _do(self, topic: Topic, group: list[_Waiting]) -> None:
        try:
            if len(group) > 1:
                await self._run(_flow(topic, group), self._fetch, group, asyncio.get_running_loop())
        except Exception as error:  # noqa: BLE001 - each is then fetched alone, and raises its own
            # Type alone: a library's message may contain a record's values.
            _log.warning("fetch_group_failed", calls=len(group), error=type(error).__name__)
        finally:
            for _, future in group:
                _resolve(future, None)

    def _fetch(self, group: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        for outcomes in self._together([call for call, _ in group]):
            loop.call_soon_threadsafe(_deliver, group, outcomes)


def _flow(topic: Topic, group: Sequence[_Waiting]) -> Flow:
    """Return whose turn a group takes: its department's, or the topic's where there are several."""
    flows = {flow_of(call.actor) for call, _ in group}
    if len({flow.department for flow in flows}) == 1:
        return flows.pop()
    return flow_of_topic(str(topic))


def _deliver(group: list[_Waiting], outcomes: Mapping[int, Outcome]) -> None:
    for index, outcome in outcomes.items():
        _resolve(group[index][1], outcome)


def _resolve(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)

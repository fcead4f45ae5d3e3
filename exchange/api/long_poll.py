"""Long poll without threads: one watch a topic wakes every coroutine that waits for new records.

    version = growth.version(topic)         before reading
    nothing = await read(...)
    await growth.wait(topic, version, timeout)

A version taken before the read cannot miss what was appended between the read and the wait.
"""

import asyncio
import threading
from contextlib import ExitStack

from exchange.broker.port import Broker
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic

__all__ = ["TopicGrowth"]


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

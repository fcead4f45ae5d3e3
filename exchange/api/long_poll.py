"""Long polls without threads: one watch a topic wakes every coroutine that waits for it.

    ticket = tails.ticket(topic)        before reading
    nothing = await read(...)
    await tails.grown(topic, ticket, timeout)

A ticket taken before the read cannot miss what came between the read and the wait.
"""

import asyncio
import threading
from contextlib import ExitStack

from exchange.broker.port import Broker
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic

__all__ = ["TopicGrowth"]


class _Tail:
    def __init__(self) -> None:
        self.count = 0
        self.changed = asyncio.Event()

    def grow(self) -> None:
        self.count += 1
        self.changed.set()
        self.changed = asyncio.Event()


class TopicGrowth:
    """The ends of the topics that somebody waits for. Lives on one event loop; tickets are given in any thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._tails: dict[Topic, _Tail] = {}
        self._watches = ExitStack()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._closed = False

    def ticket(self, topic: Topic) -> int:
        """Return the number of growths seen so far; the first call for a topic starts its watch.

        Raises:
            UnavailableError: SHUTTING_DOWN, after `close`; what `Broker.watch` raises, and the next call tries again.
        """
        tail = self._tails.get(topic)
        return (self._start(topic) if tail is None else tail).count

    def _start(self, topic: Topic) -> _Tail:
        loop = self._loop
        with self._lock:
            tail = self._tails.get(topic)
            if tail is not None:  # another thread was faster
                return tail
            if self._closed:
                raise UnavailableError(Reason.SHUTTING_DOWN, "this gateway is stopping; call another", retry_after=1.0)
            tail = _Tail()
            grow = tail.grow

            def wake() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(grow)

            # Stored after the watch stands: a tail without one would keep its readers waiting forever.
            self._watches.enter_context(self._broker.watch(topic, wake))
            self._tails[topic] = tail
            return tail

    async def grown(self, topic: Topic, ticket: int, timeout: float) -> bool:  # noqa: ASYNC109 - a poll's own limit
        """Wait until the topic may have grown since *ticket*; False after *timeout* seconds."""
        tail = self._tails[topic]
        if tail.count != ticket:
            return True
        try:
            await asyncio.wait_for(tail.changed.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            self._closed = True
            self._watches.close()

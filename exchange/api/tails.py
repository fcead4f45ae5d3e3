"""Long polls without threads: one watch a topic wakes every coroutine that waits for it.

    ticket = tails.ticket(topic)        before reading
    nothing = await read(...)
    await tails.grown(topic, ticket, timeout)

A ticket taken before the read cannot miss what came between the read and the wait.
"""

import asyncio
from contextlib import ExitStack

from exchange.broker.port import Broker
from schemas.names import Topic

__all__ = ["Tails"]


class _Tail:
    def __init__(self) -> None:
        self.count = 0
        self.changed = asyncio.Event()

    def grow(self) -> None:
        self.count += 1
        self.changed.set()
        self.changed = asyncio.Event()


class Tails:
    """The ends of the topics that somebody waits for. Lives on one event loop."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._tails: dict[Topic, _Tail] = {}
        self._watches = ExitStack()
        self._loop = asyncio.get_running_loop()

    def ticket(self, topic: Topic) -> int:
        """Give the number of growths seen so far; the first call for a topic starts its watch."""
        tail = self._tails.get(topic)
        if tail is None:
            tail = self._tails[topic] = _Tail()
            loop, grow = self._loop, tail.grow

            def wake() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(grow)

            self._watches.enter_context(self._broker.watch(topic, wake))
        return tail.count

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
        self._watches.close()

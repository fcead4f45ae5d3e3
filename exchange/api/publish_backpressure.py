"""What of the publish streams waits for its turn, and how much of it may.

A batch is checked as it comes and appended in its turn; in between it is memory. A peer that sends and does not read
its answers must not fill the gateway: what does not fit stays with the peer.

Two bounds. A stream's `StreamWindow` keeps a connector that is quicker than its appends from piling up. The
process's `MemoryBudget` keeps all of them together within the memory there is: a gateway that would not fit any more
reads no further from the streams of those who have most waiting, and gRPC then holds their sending back. Nobody is
refused.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from exchange import metrics
from exchange.records.publish import CheckedBatch
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.record import MAX_BATCH_RECORDS

__all__ = ["STREAMS", "MemoryBudget", "PendingBatch", "Received", "StreamQuota", "StreamWindow", "settled"]

_WAITING = 16  # batches of one stream that wait for their turn, beside those being appended
STREAMS = 8  # of one connector at once
_WAITING_BYTES = 64 * 1024 * 1024  # their size; one batch is always let in
_COPIES = 2  # of a batch's bytes: as it came, and record by record
_RECORD = 128  # bytes that a record takes beside its value: objects, key, partition

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that is being checked, or was, and waits for its turn."""

    sequence: int
    check: asyncio.Task[CheckedBatch]
    size: int
    weight: int


class StreamWindow:
    """Bounds what waits: what does not fit stays with the peer, whose sending gRPC then holds back."""

    def __init__(self) -> None:
        self._batches = self._bytes = 0
        self._left = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Wait until a batch of *size* bytes fits, or nothing else is there."""
        while self._batches and (self._batches >= _WAITING or self._bytes + size > _WAITING_BYTES):
            self._left.clear()
            await self._left.wait()
        self._batches += 1
        self._bytes += size

    def leave(self, batches: int, size: int) -> None:
        """Make room."""
        self._batches -= batches
        self._bytes -= size
        self._left.set()


@dataclass(frozen=True, slots=True)
class Received:
    """A batch as it came. `weight`: bytes of memory that it takes; of small records many times its size."""

    request: wire.PublishRequest
    size: int
    weight: int

    @classmethod
    def of(cls, request: wire.PublishRequest) -> Self:
        """Measure a batch."""
        size = request.ByteSize()  # once: it costs as much as to send it
        return cls(request, size, _COPIES * size + _RECORD * min(len(request.plain.marks), MAX_BATCH_RECORDS))


class MemoryBudget:
    """Bounds what is held of all streams of a process together, and shares it out among connectors.

    A connector may go on as long as what is held for it is less than what is still free (the dynamic threshold of
    Choudhury and Hahne, 1998). So one alone may fill half of it, two a third each, and a part is always left for who
    comes next: those with most wait first, and those with little not at all. One for whom nothing is held may always
    go on: others who never take their answers cannot shut it out.

    A batch's size is known when it has come, so what is held may exceed the bound by one batch a stream. All of it
    happens in one event loop.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._held: Counter[tuple[str, str]] = Counter()
        self._given = asyncio.Event()

    def stream(self, connector: tuple[str, str]) -> "StreamQuota":
        """Begin a stream of a connector."""
        return StreamQuota(self, connector)

    def may_go_on(self, connector: tuple[str, str]) -> bool:
        """Return whether another batch of the connector may be read."""
        held = self._held[connector]
        return held == 0 or held < self._most - self._total

    async def turn(self, connector: tuple[str, str]) -> None:
        """Wait until another batch of the connector may be read."""
        if not self.may_go_on(connector):
            metrics.PUBLISH_HELD_BACK.inc()
        while not self.may_go_on(connector):
            self._given.clear()
            await self._given.wait()

    def move(self, connector: tuple[str, str], weight: int) -> None:
        """Take note that so much more is held for a connector, or less."""
        self._held[connector] += weight
        self._total += weight
        if not self._held[connector]:
            del self._held[connector]
        if weight < 0:
            self._given.set()
        metrics.PUBLISH_WAITING_BYTES.set(self._total)


class StreamQuota:
    """What one stream holds of a budget."""

    def __init__(self, budget: MemoryBudget, connector: tuple[str, str]) -> None:
        self._budget = budget
        self._connector = connector
        self._held = 0
        self._under_way: asyncio.Task[Any] | None = None

    async def reading(self, requests: AsyncIterable[wire.PublishRequest]) -> AsyncIterator[Received]:
        """Return the stream's batches, each held from now on; read none before its turn."""
        await self._budget.turn(self._connector)
        async for request in requests:
            received = Received.of(request)
            self._held += received.weight
            self._budget.move(self._connector, received.weight)
            yield received
            del request, received  # not to be held while it waits
            await self._budget.turn(self._connector)

    def give(self, weight: int) -> None:
        """Return back what is answered."""
        self._held -= weight
        self._budget.move(self._connector, -weight)

    async def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for work that nobody can call back: it goes on where the stream is cut off meanwhile."""
        self._under_way = asyncio.create_task(work)
        return await asyncio.shield(self._under_way)

    def close(self, closed: Callable[[], None]) -> None:
        """Return everything back when the stream has ended and its work as well, and call *closed*.

        A thread that appends holds its batches whether its stream is there or not. Were they counted no more, who cuts
        off stream after stream could fill the memory, and every thread of the gateway.
        """

        def close(_: object = None) -> None:
            self.give(self._held)
            closed()

        if self._under_way is None or self._under_way.done():
            close()
        else:
            self._under_way.add_done_callback(close)


def settled(checks: set[asyncio.Task[CheckedBatch]], check: asyncio.Task[CheckedBatch]) -> None:
    """Take note of a check's end; its error is its stream's, or nobody's, and never asyncio's to print."""
    checks.discard(check)
    if not check.cancelled():
        check.exception()

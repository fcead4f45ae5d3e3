"""Publish backpressure: a window for each stream and a memory budget for all, for batches that wait for their append.

A batch is checked when it arrives and appended in its turn; in between it takes memory. A peer that sends and does not
read its answers must not fill the gateway's memory: what does not fit is not read, and gRPC's flow control stops the
peer's sending.

There are three limits. `StreamWindow` limits the batches of one stream that wait for their append. `MemoryBudget`
limits the memory of all streams of a process together: when it is short, the streams of the connectors with the most
pending bytes are not read further. No connector is refused. `FLOW_CONTROL` limits what the transport holds of a stream
that is not read: gRPC's default window follows its estimate of bandwidth times delay, and on a slow machine it grew to
tens of megabytes for each stream, which no budget counts.
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

__all__ = [
    "FLOW_CONTROL",
    "MAX_STREAMS",
    "MemoryBudget",
    "PendingBatch",
    "ReceivedBatch",
    "StreamQuota",
    "StreamWindow",
    "on_check_done",
]

_MAX_BATCHES = 16  # of one stream that wait for their append, beside those being appended
MAX_STREAMS = 8  # of one connector at once
_MAX_BYTES = 64 * 1024 * 1024  # of these; a single batch is always admitted
_COPIES = 2  # of a batch's bytes: as received, and record by record
_RECORD_OVERHEAD = 128  # bytes of a record beside its value: objects, key, partition

# Options of a gRPC server: a fixed window for each stream (RFC 9113, section 5.2) instead of one that grows. It is what
# each of thousands of calls may make the gateway hold before anybody reads; a message that is being read gets as much
# as it needs. A path of 10 ms carries 25 MB a second of each stream, and more with larger batches.
FLOW_CONTROL: tuple[tuple[str, int], ...] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch whose check runs or has ended, and which waits for its append."""

    sequence: int
    check: asyncio.Task[CheckedBatch]
    size: int
    weight: int


class StreamWindow:
    """Limits the batches and bytes of one stream that wait for their append."""

    def __init__(self) -> None:
        self._batches = self._bytes = 0
        self._freed = asyncio.Event()

    async def acquire(self, size: int) -> None:
        """Wait until a batch of *size* bytes fits, or no other batch waits."""
        while self._batches and (self._batches >= _MAX_BATCHES or self._bytes + size > _MAX_BYTES):
            self._freed.clear()
            await self._freed.wait()
        self._batches += 1
        self._bytes += size

    def release(self, batches: int, size: int) -> None:
        """Free the space of batches that leave the queue."""
        self._batches -= batches
        self._bytes -= size
        self._freed.set()


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """A batch as received. `weight`: bytes of memory that it takes; with small records many times its size."""

    request: wire.PublishRequest
    size: int
    weight: int

    @classmethod
    def of(cls, request: wire.PublishRequest) -> Self:
        """Return a batch with its size and weight."""
        size = request.ByteSize()  # once: it costs as much as serializing the batch
        return cls(request, size, _COPIES * size + _RECORD_OVERHEAD * min(len(request.plain.marks), MAX_BATCH_RECORDS))


class MemoryBudget:
    """Limits the pending bytes of all streams of a process together, and divides them among connectors.

    The streams of a connector are read as long as its pending bytes are fewer than the free ones (the dynamic threshold
    of Choudhury and Hahne, 1998). So one connector alone may fill half of the budget, two a third each, and a part is
    always left for the next one: the connectors with the most pending bytes wait first, and those with few not at all.
    A connector without pending bytes is always read: others that never read their answers cannot lock it out.

    A batch's size is known only when it has been received, so the pending bytes may exceed the limit by one batch a
    stream. All calls are made in one event loop.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._pending: Counter[tuple[str, str]] = Counter()
        self._freed = asyncio.Event()

    def open_stream(self, connector: tuple[str, str]) -> "StreamQuota":
        """Return the quota of a new stream of a connector."""
        return StreamQuota(self, connector)

    def has_capacity(self, connector: tuple[str, str]) -> bool:
        """Return whether another batch of the connector may be read."""
        pending = self._pending[connector]
        return pending == 0 or pending < self._limit - self._total

    async def wait_for_capacity(self, connector: tuple[str, str]) -> None:
        """Wait until another batch of the connector may be read."""
        if not self.has_capacity(connector):
            metrics.PUBLISH_HELD_BACK.inc()
        while not self.has_capacity(connector):
            self._freed.clear()
            await self._freed.wait()

    def adjust(self, connector: tuple[str, str], weight: int) -> None:
        """Add to a connector's pending bytes; a negative *weight* frees them."""
        self._pending[connector] += weight
        self._total += weight
        if not self._pending[connector]:
            del self._pending[connector]
        if weight < 0:
            self._freed.set()
        metrics.PUBLISH_WAITING_BYTES.set(self._total)


class StreamQuota:
    """The part of a budget that one stream uses."""

    def __init__(self, budget: MemoryBudget, connector: tuple[str, str]) -> None:
        self._budget = budget
        self._connector = connector
        self._pending = 0
        self._running: asyncio.Task[Any] | None = None

    async def read(self, requests: AsyncIterable[wire.PublishRequest]) -> AsyncIterator[ReceivedBatch]:
        """Return the stream's batches, each counted as pending; read the next one only while the budget allows it."""
        await self._budget.wait_for_capacity(self._connector)
        async for request in requests:
            received = ReceivedBatch.of(request)
            self._pending += received.weight
            self._budget.adjust(self._connector, received.weight)
            yield received
            del request, received  # not to be held while it waits
            await self._budget.wait_for_capacity(self._connector)

    def release(self, weight: int) -> None:
        """Free the memory of batches that are answered."""
        self._pending -= weight
        self._budget.adjust(self._connector, -weight)

    async def run_to_completion(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for work that cannot be cancelled: it continues if the stream is closed meanwhile."""
        self._running = asyncio.create_task(work)
        return await asyncio.shield(self._running)

    def close(self, on_closed: Callable[[], None]) -> None:
        """Free everything when the stream and its running append have ended, and call *on_closed*.

        A thread that appends holds its batches even if their stream was closed. If they were no longer counted, a
        client that closes stream after stream could fill the memory and occupy every thread of the gateway.
        """

        def close(_: object = None) -> None:
            self.release(self._pending)
            on_closed()

        if self._running is None or self._running.done():
            close()
        else:
            self._running.add_done_callback(close)


def on_check_done(checks: set[asyncio.Task[CheckedBatch]], check: asyncio.Task[CheckedBatch]) -> None:
    """Done callback of a check: forget it, and retrieve its error, which asyncio would otherwise print."""
    checks.discard(check)
    if not check.cancelled():
        check.exception()

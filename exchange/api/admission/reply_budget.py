"""Reply backpressure: a memory budget for answers of fetches, from before they are made until gRPC has written them.

An answer that its consumer does not read stays in the gateway: gRPC sends as much as the consumer's windows take, and
keeps the rest. So memory is reserved before a fetch begins, for the largest answer that it may have; when the answer is
made, what it takes is counted; when gRPC has written it, or its call has ended, that is given back. A fetch for which
there is no memory waits, in a coroutine: a consumer that stops reading is held back, and nothing is refused.

A department may reserve as long as what it holds fits into what is free (the dynamic threshold of Choudhury and Hahne,
1998), and each of its connectors three quarters of that. One department alone may hold half of the budget, two a third
each. A department that holds nothing always gets one answer, so nobody is locked out by others that do not read; the
budget may be exceeded by that.

    reserved = await budget.reserve(flow, weight_of(max_bytes))
    reserved.settle(weight_of(size))
    reserved.release()                  after the answer was written
"""

import asyncio
from collections import Counter, OrderedDict, deque
from typing import Final

from exchange import metrics
from exchange.api.admission.fair_queue import Flow

__all__ = ["ReplyBudget", "Reservation", "weight_of"]

_COPIES: Final = 3  # of an answer's bytes: the message, its serialized form, and what gRPC keeps of that
_RECORD_BYTES: Final = 128  # of a record beside its value: key, time, offset
_CONNECTOR_SHARE: Final = 0.75

_Waiting = tuple[int, "asyncio.Future[None]"]


def weight_of(size: int, records: int = 0) -> int:
    """Return the bytes of memory that an answer takes.

    Args:
        size: bytes of its values.
        records: of it.
    """
    return _COPIES * size + _RECORD_BYTES * records


class Reservation:
    """What one answer holds; `release` gives it back, once."""

    __slots__ = ("_budget", "_flow", "_held")

    def __init__(self, budget: "ReplyBudget", flow: Flow, held: int) -> None:
        self._budget = budget
        self._flow = flow
        self._held: int | None = held

    def settle(self, weight: int) -> None:
        """Hold what the answer takes instead of what was reserved."""
        if self._held is not None:
            change, self._held = weight - self._held, weight
            self._budget.adjust(self._flow, change)

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._held is not None:
            held, self._held = self._held, None
            self._budget.adjust(self._flow, -held)


class ReplyBudget:
    """The memory of all answers of a process. All calls are made in one event loop.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._departments: Counter[str] = Counter()
        self._connectors: Counter[Flow] = Counter()
        self._waiting: OrderedDict[Flow, deque[_Waiting]] = OrderedDict()

    @property
    def total(self) -> int:
        """Bytes that are reserved or held."""
        return self._total

    async def reserve(self, flow: Flow, weight: int) -> Reservation:
        """Reserve memory for an answer of a connector; wait while there is none for it."""
        if flow in self._waiting or not self._fits(flow, weight):
            metrics.REPLIES_HELD_BACK.inc()
            await self._wait(flow, weight)
        else:
            self.adjust(flow, weight)
        return Reservation(self, flow, weight)

    def adjust(self, flow: Flow, change: int) -> None:
        """Add to what a connector holds; what is freed goes to those that wait."""
        if not change:
            return
        self._total += change
        self._departments[flow.department] += change
        self._connectors[flow] += change
        if not self._departments[flow.department]:
            del self._departments[flow.department]
        if not self._connectors[flow]:
            del self._connectors[flow]
        metrics.REPLY_BYTES.set(self._total)
        if change < 0 and self._waiting:
            self._serve()

    def _fits(self, flow: Flow, weight: int) -> bool:
        held = self._departments.get(flow.department, 0)
        if not held:
            return True
        free = self._limit - self._total
        return held + weight <= free and self._connectors.get(flow, 0) + weight <= _CONNECTOR_SHARE * free

    async def _wait(self, flow: Flow, weight: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(flow, deque())
        waiting.append((weight, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it was given its memory in the same moment
                self.adjust(flow, -weight)
            elif (weight, future) in waiting:
                # At once: until something is freed, calls that come and go would pile up.
                waiting.remove((weight, future))
                self._serve()  # what is behind it may be smaller
            raise

    def _serve(self) -> None:
        """Give memory to those that wait and fit: one of each connector in turn."""
        served = True
        while served:
            served = False
            for flow, waiting in tuple(self._waiting.items()):
                while waiting and waiting[0][1].done():  # its caller has gone
                    waiting.popleft()
                if waiting and self._fits(flow, waiting[0][0]):
                    weight, future = waiting.popleft()
                    self.adjust(flow, weight)
                    future.set_result(None)
                    served = True
                    self._waiting.move_to_end(flow)
                if not waiting:
                    del self._waiting[flow]

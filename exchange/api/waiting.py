"""What of a publish stream waits for its turn, and how much of it may.

A batch is checked as it comes and appended in its turn; in between it is memory. A peer that sends and does not read
its answers must not fill the gateway: what does not fit stays with the peer.
"""

import asyncio
from dataclasses import dataclass

from exchange.publish import Checked

__all__ = ["STREAMS", "Room", "Waiting", "settled"]

_WAITING = 16  # batches of one stream that wait for their turn, beside those being appended
STREAMS = 8  # of one connector at once
_WAITING_BYTES = 64 * 1024 * 1024  # their size; one batch is always let in


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that is being checked, or was, and waits for its turn."""

    sequence: int
    check: asyncio.Task[Checked]
    size: int


class Room:
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


def settled(checks: set[asyncio.Task[Checked]], check: asyncio.Task[Checked]) -> None:
    """Take note of a check's end; its error is its stream's, or nobody's, and never asyncio's to print."""
    checks.discard(check)
    if not check.cancelled():
        check.exception()

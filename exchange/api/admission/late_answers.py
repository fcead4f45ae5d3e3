"""Late answers: what comes again and again at once is answered later, so that it comes less often.

A refused call costs little, and hundreds a second of them cost as much as the work of all others: gRPC accepts calls
one after another, and each answer is written in the event loop. A caller that tries again at once is slowed by the only
thing that it waits for, its answer. A late answer keeps a call open, so only so many are late; the others are answered
at once.
"""

import asyncio
import random

__all__ = ["LateAnswers"]


class LateAnswers:
    """The calls whose answers are late. All calls are made in one event loop.

    Args:
        limit: calls that are late at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._late = 0

    async def wait(self, seconds: float) -> None:
        """Wait for half of the seconds to one and a half; 0, or too many wait: not at all."""
        if seconds and self._late < self._limit:
            self._late += 1
            try:
                # Those that began together do not come again together.
                await asyncio.sleep(seconds * (0.5 + random.random()))  # noqa: S311 - nothing secret
            finally:
                self._late -= 1

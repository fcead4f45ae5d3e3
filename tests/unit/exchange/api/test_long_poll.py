"""One watch a topic, whoever asks first, and none that nobody holds."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from exchange.api.long_poll import TopicGrowth
from schemas.errors import Reason, UnavailableError
from tests.kit.cases.grants import POPULATION


class Watched:
    """A broker of which only `watch` is asked."""

    def __init__(self) -> None:
        self.wakes: list[Callable[[], None]] = []
        self.closed = 0
        self.error: Exception | None = None

    def watch(self, topic: object, wake: Callable[[], None]) -> AbstractContextManager[None]:
        del topic
        if self.error is not None:
            raise self.error
        return self._watch(wake)

    @contextmanager
    def _watch(self, wake: Callable[[], None]) -> Iterator[None]:
        self.wakes.append(wake)
        yield
        self.closed += 1


class Together(dict[Any, Any]):
    """Lets the first two look-ups, of two threads, both find nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = itertools.count()
        self.both = threading.Barrier(2)

    def get(self, key: Any, default: Any = None) -> Any:
        found = super().get(key, default)
        if next(self.looks) < 2:
            self.both.wait(10)
        return found


def growth_of(broker: Any) -> TopicGrowth:
    return TopicGrowth(broker)


def test_two_first_callers_share_one_watch_that_wakes_both() -> None:
    async def both() -> None:
        broker = Watched()
        growth = growth_of(broker)
        growth._versions = Together()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as threads:
            one = loop.run_in_executor(threads, growth.version, POPULATION)
            two = loop.run_in_executor(threads, growth.version, POPULATION)
            versions = [await one, await two]
        assert len(broker.wakes) == 1
        waiting = [asyncio.create_task(growth.wait(POPULATION, version, 10)) for version in versions]
        await asyncio.sleep(0)
        await asyncio.to_thread(broker.wakes[0])
        assert await asyncio.gather(*waiting) == [True, True]
        growth.close()
        assert broker.closed == 1

    asyncio.run(both())


def test_a_watch_that_could_not_begin_is_tried_again() -> None:
    async def again() -> None:
        broker = Watched()
        broker.error = UnavailableError(Reason.BROKER_UNAVAILABLE, "away")
        growth = growth_of(broker)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                growth.version(POPULATION)
        broker.error = None
        version = growth.version(POPULATION)
        broker.wakes[0]()
        assert await growth.wait(POPULATION, version, 10)
        growth.close()

    asyncio.run(again())


def test_no_watch_begins_after_the_end() -> None:
    async def late() -> None:
        broker = Watched()
        growth = growth_of(broker)
        growth.close()
        with pytest.raises(UnavailableError) as caught:
            growth.version(POPULATION)
        assert caught.value.reason is Reason.SHUTTING_DOWN
        assert broker.wakes == []

    asyncio.run(late())

"""The fair scheduler: calls in threads by turns, whatever becomes of their callers."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from exchange.api.admission.fair_queue import ALONE_SECONDS, Flow
from exchange.api.admission.scheduler import FairScheduler, flow_of
from schemas.errors import Reason, UnavailableError
from tests.kit.cases.grants import a_connector
from tests.kit.patience import PATIENCE

BUSY, CALM = Flow("busy", "a"), Flow("calm", "b")
Clock = Callable[[], float]
Scene = Callable[[FairScheduler, "Gate"], Coroutine[Any, Any, None]]


class Gate:
    """Holds calls in their threads until it is opened."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self._open = threading.Event()

    def hold(self, name: str) -> str:
        self.entered.append(name)
        assert self._open.wait(PATIENCE)
        return name

    def open(self) -> None:
        self._open.set()


def play(
    scene: Scene, *, slots: int = 4, share: int = 2, contended: int = 2, limit: int = 100, clock: Clock = time.monotonic
) -> None:
    async def main() -> None:
        gate = Gate()
        with ThreadPoolExecutor(slots) as threads:
            try:
                scheduler = FairScheduler(
                    threads, slots=slots, share=share, contended=contended, limit=limit, clock=clock
                )
                await scene(scheduler, gate)
            finally:
                gate.open()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a thread has no other way to tell
            await asyncio.sleep(0.005)


def test_a_department_with_many_calls_waits_for_itself_and_another_s_run_at_once() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        many = [asyncio.create_task(scheduler.run(BUSY, gate.hold, f"busy {number}")) for number in range(50)]
        await until(lambda: len(gate.entered) == 2)
        assert await scheduler.run(CALM, lambda: "done") == "done"
        assert len(gate.entered) == 2
        gate.open()
        assert await asyncio.gather(*many) == [f"busy {number}" for number in range(50)]

    play(scene)


def test_a_full_queue_is_refused_with_a_delay_and_another_department_s_is_not() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        many = [asyncio.create_task(scheduler.run(BUSY, gate.hold, str(number))) for number in range(2 + 16)]
        await until(lambda: len(gate.entered) == 2)
        with pytest.raises(UnavailableError) as refused:
            await scheduler.run(BUSY, gate.hold, "one more")
        assert refused.value.reason is Reason.OVERLOADED
        assert refused.value.retry_after
        assert await scheduler.run(CALM, lambda: 1) == 1
        gate.open()
        await asyncio.gather(*many)

    play(scene, limit=16)


def test_the_slot_of_a_caller_that_has_gone_is_free_when_its_thread_is() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        gone = [asyncio.create_task(scheduler.run(BUSY, gate.hold, "gone")) for _ in range(2)]
        await until(lambda: len(gate.entered) == 2)
        for one in gone:
            one.cancel()
        waits = asyncio.create_task(scheduler.run(BUSY, lambda: "ran"))
        left = asyncio.create_task(scheduler.run(BUSY, lambda: "never"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(*gone, left, return_exceptions=True)
        assert not waits.done()
        assert scheduler._queue.count("busy") == (2, 1)
        gate.open()
        assert await waits == "ran"
        await until(lambda: scheduler._queue.count("busy") == (0, 0))

    play(scene)


def test_one_that_goes_in_the_moment_of_its_turn_gives_it_back() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        del gate
        first = scheduler.turn(BUSY)
        await first.__aenter__()
        waits = asyncio.create_task(scheduler.begin(BUSY))
        await asyncio.sleep(0)
        first.end()
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert scheduler._queue.count("busy") == (0, 0)

    play(scene, share=1)


def test_errors_are_raised_where_the_call_is_waited_for() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        del gate

        def fails() -> None:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "down")

        def stops() -> None:
            raise StopIteration

        for work, error in ((fails, UnavailableError), (stops, RuntimeError)):
            with pytest.raises(error):
                await scheduler.run(BUSY, work)
        assert scheduler._queue.running == 0

    play(scene)


def test_turns_of_requests_and_calls_in_threads_are_the_same_slots() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        async with scheduler.turn(BUSY), scheduler.turn(BUSY):
            waits = asyncio.create_task(scheduler.run(BUSY, lambda: "ran"))
            assert await scheduler.run(CALM, lambda: 1) == 1
            assert not waits.done()
        assert await waits == "ran"
        del gate

    play(scene)


def test_beside_another_department_s_call_a_department_runs_one_at_a_time() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        async with scheduler.turn(CALM):
            many = [asyncio.create_task(scheduler.run(BUSY, gate.hold, str(number))) for number in range(10)]
            await until(lambda: gate.entered)
            assert scheduler._queue.count("busy") == (1, 9)
            gate.open()
            await asyncio.gather(*many)

    play(scene, contended=1)


def test_one_that_is_alone_since_runs_more_when_its_next_call_comes() -> None:
    async def scene(scheduler: FairScheduler, gate: Gate) -> None:
        calm = scheduler.turn(CALM)
        await calm.__aenter__()
        calls = [asyncio.create_task(scheduler.run(BUSY, gate.hold, str(number))) for number in range(2)]
        await until(lambda: gate.entered)
        calm.end()
        now[0] += ALONE_SECONDS
        assert scheduler._queue.count("busy") == (1, 1)
        calls.append(asyncio.create_task(scheduler.run(BUSY, gate.hold, "next")))
        await until(lambda: len(gate.entered) == 2)
        assert scheduler._queue.count("busy") == (2, 1)
        assert gate.entered == ["0", "1"], "nobody is overtaken"
        gate.open()
        await asyncio.gather(*calls)

    now = [0.0]
    play(scene, contended=1, clock=lambda: now[0])


def test_whose_turn_it_is_is_the_department_s_and_within_it_the_connector_s() -> None:
    actor = a_connector()
    assert flow_of(actor) == Flow(actor.department, actor.id)

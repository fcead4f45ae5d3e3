"""Reply backpressure: what one consumer does not take is bounded, and no other's loss."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from exchange.api.admission.fair_queue import Flow
from exchange.api.admission.reply_budget import ReplyBudget, Reservation, weight_of

A1, A2, B = Flow("a", "1"), Flow("a", "2"), Flow("b", "1")


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


async def reserved(budget: ReplyBudget, flow: Flow, weight: int, most: int = 100) -> list[Reservation]:
    """Reserve as often as it does not wait."""
    held = []
    for _ in range(most):
        task = asyncio.create_task(budget.reserve(flow, weight))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            break
        held.append(task.result())
    return held


def test_one_department_holds_half_at_most_and_a_connector_less() -> None:
    async def scene() -> None:
        budget = ReplyBudget(1_000)
        one = await reserved(budget, A1, 10)
        assert 380 <= budget.total <= 430  # three sevenths
        both = await reserved(budget, A2, 10)
        assert budget.total == 500
        other = await reserved(budget, B, 10)
        assert 100 <= 10 * len(other) <= 250
        for held in (*one, *both, *other):
            held.release()
        assert budget.total == 0
        assert not budget._departments
        assert not budget._connectors
        assert not budget._waiting

    play(scene())


def test_a_department_that_holds_nothing_always_gets_one_answer() -> None:
    async def scene() -> None:
        budget = ReplyBudget(100)
        held = [await budget.reserve(Flow(f"d{number}"), 60) for number in range(5)]
        assert len(held) == 5

    play(scene())


def test_who_waits_gets_what_is_given_back_in_turn() -> None:
    async def scene() -> None:
        budget = ReplyBudget(100)
        first = await budget.reserve(A1, 50)
        order: list[str] = []

        async def wait(flow: Flow, name: str) -> Reservation:
            held = await budget.reserve(flow, 30)
            order.append(name)
            return held

        tasks = [asyncio.create_task(wait(A1, "1 first")), asyncio.create_task(wait(A1, "1 second"))]
        tasks.append(asyncio.create_task(wait(A2, "2 first")))
        gone = asyncio.create_task(wait(A2, "gone"))
        await asyncio.sleep(0)
        gone.cancel()
        assert not any(task.done() for task in tasks)
        first.settle(10)
        first.release()
        first.release()
        for _ in range(3):
            await asyncio.sleep(0)
        assert order[0] == "1 first"
        for task in tasks:
            (await task).release()
        assert set(order) == {"1 first", "1 second", "2 first"}
        assert budget.total == 0

    play(scene())


def test_one_that_goes_in_the_moment_in_which_it_gets_its_memory_gives_it_back() -> None:
    async def scene() -> None:
        budget = ReplyBudget(100)
        first = await budget.reserve(A1, 50)
        waits = asyncio.create_task(budget.reserve(A1, 50))
        await asyncio.sleep(0)
        first.release()
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert budget.total == 0

    play(scene())


def test_what_was_reserved_for_the_largest_answer_is_given_back_when_it_is_smaller() -> None:
    async def scene() -> None:
        budget = ReplyBudget(100)
        held = await budget.reserve(A1, weight_of(16))
        waits = asyncio.create_task(budget.reserve(A1, 49))
        await asyncio.sleep(0)
        assert not waits.done()
        held.settle(weight_of(0))
        assert (await waits) is not None

    play(scene())


def test_calls_that_come_and_go_leave_nothing_and_hold_up_nobody_behind_them() -> None:
    async def scene() -> None:
        budget = ReplyBudget(100)
        held = await budget.reserve(A1, 40)
        for _ in range(50):
            assert await reserved(budget, A1, 60) == []
        assert not budget._waiting, "what has gone is kept"
        large, small = (asyncio.create_task(budget.reserve(A1, weight)) for weight in (60, 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not small.done(), "its turn is after the large one's"
        large.cancel()
        (await small).release()
        held.release()
        assert budget.total == 0

    play(scene())

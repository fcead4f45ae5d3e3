"""What of a publish stream may wait: so many batches, so many bytes, and never a word from asyncio."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from exchange.api.admission import publish_backpressure
from exchange.api.admission.publish_backpressure import MemoryBudget, ReceivedBatch, StreamWindow, on_check_done
from schemas.proto.pool.v1 import exchange_pb2 as wire


def test_a_room_bounds_batches_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_backpressure, "_MAX_BATCHES", 3)
    monkeypatch.setattr(publish_backpressure, "_MAX_BYTES", 100)

    async def run() -> None:
        window = StreamWindow()
        await asyncio.wait_for(window.acquire(500), 1)  # one is always let in
        late = asyncio.create_task(window.acquire(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not late.done()
        window.release(1, 500)
        await asyncio.wait_for(late, 1)
        await asyncio.wait_for(window.acquire(98), 1)
        await asyncio.wait_for(window.acquire(1), 1)
        fourth = asyncio.create_task(window.acquire(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not fourth.done()
        window.release(2, 99)
        await asyncio.wait_for(fourth, 1)

    asyncio.run(run())


A, B, C, D = (("d", name) for name in "abcd")


def filled(budget: MemoryBudget, connector: tuple[str, str], by: int = 1) -> int:
    """Read on for a connector until it has to wait; give what is then held for it."""
    held = 0
    while budget.has_capacity(connector):
        budget.adjust(connector, by)
        held += by
    return held


def test_one_alone_may_fill_half_and_each_further_one_what_is_still_free() -> None:
    budget = MemoryBudget(120)
    assert filled(budget, A) == 60
    assert filled(budget, B) == 30
    assert filled(budget, C) == 15
    budget.adjust(A, -60)
    assert (filled(budget, C), filled(budget, B)) == (30, 8), "what one gives back is there for the others"


def test_with_everything_full_those_who_hold_something_wait_and_who_holds_nothing_does_not() -> None:
    budget = MemoryBudget(100)
    for connector in (A, B, C):
        budget.adjust(connector, 40)
    assert [budget.has_capacity(each) for each in (A, B, C, D)] == [False, False, False, True]
    budget.adjust(D, 1)
    assert not budget.has_capacity(D), "one batch at a time while others let nothing go"
    budget.adjust(D, -1)
    assert budget.has_capacity(D)


def test_who_waits_goes_on_when_enough_is_given_back_and_those_with_least_first() -> None:
    async def run() -> None:
        budget = MemoryBudget(100)
        budget.adjust(A, 50)
        budget.adjust(B, 30)
        order: list[str] = []

        async def wait(name: str, connector: tuple[str, str]) -> None:
            await budget.wait_for_capacity(connector)
            order.append(name)

        waiting_for = [asyncio.create_task(wait("a", A)), asyncio.create_task(wait("b", B))]
        await asyncio.sleep(0)
        budget.adjust(A, -5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == []
        budget.adjust(A, -10)
        for _ in range(4):
            await asyncio.sleep(0)
        assert order == ["b"]
        budget.adjust(B, -30)
        await asyncio.wait_for(asyncio.gather(*waiting_for), 1)

    asyncio.run(run())


def test_a_stream_that_ends_gives_back_what_it_held_and_reads_nothing_out_of_turn() -> None:
    async def run() -> None:
        budget = MemoryBudget(10_000)
        read = 0

        async def requests() -> AsyncIterator[wire.PublishRequest]:
            nonlocal read
            for sequence in range(1, 100):
                read += 1
                yield wire.PublishRequest(sequence=sequence, root=bytes(500))

        share = budget.open_stream(A)
        weight = ReceivedBatch.of(wire.PublishRequest(sequence=1, root=bytes(500))).weight
        batches = share.read(requests())

        async def draw() -> None:
            async for _ in batches:
                pass

        drawing = asyncio.create_task(draw())
        for _ in range(300):
            await asyncio.sleep(0)
        assert read == -(-5_000 // weight) == 5
        share.release(weight)
        for _ in range(300):
            await asyncio.sleep(0)
        assert read == 6
        drawing.cancel()
        share.close(lambda: None)
        assert budget.has_capacity(A)
        assert filled(budget, B, 1_000) == 5_000

    asyncio.run(run())


def test_small_records_weigh_what_they_take_and_not_what_was_sent() -> None:
    small = wire.PublishRequest()
    small.plain.marks = bytes(10_000)
    small.plain.values.values = bytes(10_000)
    assert ReceivedBatch.of(small).weight > 1_280_000
    lying = wire.PublishRequest()
    lying.plain.marks = bytes(5_000_000)  # refused by its form: nothing is made of its records
    assert ReceivedBatch.of(lying).weight < 12_000_000


def test_an_error_that_nobody_waits_for_is_not_printed() -> None:
    said: list[dict[str, Any]] = []

    async def bad() -> Any:
        raise ValueError("11010519491231002X")

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        checks: set[asyncio.Task[Any]] = set()
        check = asyncio.create_task(bad())
        checks.add(check)
        check.add_done_callback(lambda task: on_check_done(checks, task))
        await asyncio.sleep(0.01)
        assert not checks
        del check

    asyncio.run(run())
    assert said == []

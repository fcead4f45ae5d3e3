"""What of a publish stream may wait: so many batches, so many bytes, and never a word from asyncio."""

import asyncio
from typing import Any

import pytest

from exchange.api import waiting
from exchange.api.waiting import Room, settled


def test_a_room_bounds_batches_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_WAITING", 3)
    monkeypatch.setattr(waiting, "_WAITING_BYTES", 100)

    async def run() -> None:
        room = Room()
        await asyncio.wait_for(room.enter(500), 1)  # one is always let in
        late = asyncio.create_task(room.enter(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not late.done()
        room.leave(1, 500)
        await asyncio.wait_for(late, 1)
        await asyncio.wait_for(room.enter(98), 1)
        await asyncio.wait_for(room.enter(1), 1)
        fourth = asyncio.create_task(room.enter(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not fourth.done()
        room.leave(2, 99)
        await asyncio.wait_for(fourth, 1)

    asyncio.run(run())


def test_an_error_that_nobody_waits_for_is_not_printed() -> None:
    said: list[dict[str, Any]] = []

    async def bad() -> Any:
        raise ValueError("11010519491231002X")

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        checks: set[asyncio.Task[Any]] = set()
        check = asyncio.create_task(bad())
        checks.add(check)
        check.add_done_callback(lambda task: settled(checks, task))
        await asyncio.sleep(0.01)
        assert not checks
        del check

    asyncio.run(run())
    assert said == []

"""The thread pool of the REST API: results and errors come back, and threads end with it."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from registry.rest.thread_pool import ThreadPool
from tests.kit.patience import PATIENCE


def test_results_and_errors_come_back_and_the_loop_goes_on_meanwhile() -> None:
    pool, gate = ThreadPool(2), threading.Event()

    def fail() -> None:
        raise KeyError("x")

    async def main() -> None:
        waiting = asyncio.create_task(pool.run(lambda: gate.wait(20)))
        assert await pool.run(lambda: 7) == 7
        with pytest.raises(KeyError):
            await pool.run(fail)
        assert not waiting.done()
        gate.set()
        assert await waiting

    asyncio.run(main())


def test_no_more_calls_run_at_once_than_there_are_threads() -> None:
    pool, lock, running, most = ThreadPool(3), threading.Lock(), 0, 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    async def main() -> None:
        await asyncio.gather(*(pool.run(call) for _ in range(20)))

    asyncio.run(main())
    assert most == 3


def test_a_call_whose_caller_is_gone_harms_no_other() -> None:
    pool, gate = ThreadPool(1), threading.Event()

    async def main() -> None:
        gone = asyncio.create_task(pool.run(lambda: gate.wait(20)))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        assert await pool.run(lambda: 7) == 7

    asyncio.run(main())
    assert asyncio.run(pool.run(lambda: 8)) == 8, "another event loop may use it"


def test_its_threads_end_with_it() -> None:
    before = {*threading.enumerate()}
    pool = ThreadPool(4)
    asyncio.run(pool.run(lambda: None))
    threads = {*threading.enumerate()} - before
    assert len(threads) == 4
    del pool
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_call_that_raises_stop_iteration_leaves_nobody_waiting() -> None:
    pool = ThreadPool(1)
    nothing: Iterator[int] = iter(())

    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(pool.run(lambda: next(nothing)), PATIENCE)
        assert await pool.run(lambda: 7) == 7

    asyncio.run(main())

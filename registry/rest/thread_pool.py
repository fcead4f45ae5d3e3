"""Thread pool: runs calls that wait for the database, while the event loop goes on.

It does what `concurrent.futures` does, with fewer locks and wake-ups between a thread and the event loop. The number of
threads is a compromise. Threads that are busy at once take turns at the interpreter, so that many make each short call
slower; with few, some long calls (a list of all schemas) keep every short one waiting. Eight are also fewer than the
connections that a process keeps to its database, so no call waits for one.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["ThreadPool"]

_T = TypeVar("_T")
_THREADS = 8

_Task = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]
_Tasks = SimpleQueue[_Task | None]


class ThreadPool:
    """Runs calls in threads, which end when this is garbage.

    Args:
        threads: at most.
    """

    def __init__(self, threads: int = _THREADS) -> None:
        self._count = threads
        self._tasks: _Tasks = SimpleQueue()
        self._started = False

    async def run(self, call: Callable[[], _T]) -> _T:
        """Run a call in one of the threads; return what it returns, raise what it raises."""
        if not self._started:
            self._start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._tasks.put((loop, future, call))
        return await future

    def _start(self) -> None:
        self._started = True
        for number in range(self._count):
            threading.Thread(target=_work, args=(self._tasks,), name=f"registry_{number}", daemon=True).start()
        weakref.finalize(self, _stop, self._tasks, self._count)


def _work(tasks: _Tasks) -> None:
    while True:
        task = tasks.get()
        if task is None:
            return
        loop, future, call = task
        del task
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            if isinstance(error, StopIteration):  # no future takes it: the caller would wait without end
                error = RuntimeError("a call raised StopIteration")
            settle = partial(_raise, future, error)
        else:
            settle = partial(_return, future, result)
        with suppress(RuntimeError):  # the loop is closed, and nothing waits any more
            loop.call_soon_threadsafe(settle)
        del loop, future, call, settle


def _return(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _raise(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _stop(tasks: _Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)

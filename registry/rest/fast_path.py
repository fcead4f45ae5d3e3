"""The short way: the calls that serializers make most, without routing, parameters and dependencies.

    GET   /schemas/ids/{id}       GET   /subjects/{s}/versions/{v}
    POST  /subjects/{s}           POST  /subjects/{s}/versions

They are the same functions of `registry.rest.subjects` and `registry.rest.schemas`, called with the defaults of their
parameters; a call that states any goes the long way. They wait for the database, so they run in threads: in few, since
threads that wake up for one answer after another hand the interpreter to and fro and all come later for it.
"""

import asyncio
import logging
import re
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from registry.rest.errors import Dialect, failure
from registry.rest.requests import read_body
from registry.rest.schemas import SchemaCalls
from registry.rest.subjects import SubjectCalls
from schemas.errors import PoolError

__all__ = ["Short", "unexpected"]

_log = logging.getLogger(__name__)
_PATH = re.compile(r"/subjects/([^/]+)(?:(/versions)(?:/([^/]+))?)?")
_ID = re.compile(r"/schemas/ids/([1-9][0-9]{0,8})")
_THREADS = 8


class Short:
    """Serves what can go the short way.

    Args:
        calls: the functions on subjects.
        schemas: those on schemas.
        dialect: whose words errors are told in.
        threads: that wait for the database.
    """

    def __init__(self, calls: SubjectCalls, schemas: SchemaCalls, *, dialect: Dialect, threads: int = _THREADS) -> None:
        self._calls = calls
        self._schemas = schemas
        self._dialect = dialect
        self._hands = _Hands(threads)

    def call(self, method: str, path: str) -> Callable[..., Any] | None:
        """Return the function for a path without parameters; None where the call must go the long way."""
        if method == "GET" and (known := _ID.fullmatch(path)) is not None:
            return partial(self._schemas.by_id, schema_id=int(known[1]))
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        subject, versions, number = found.groups()
        if method == "GET" and number:
            return partial(self._calls.version_, subject=subject, version=number)
        if method == "POST" and not number:
            return partial(self._calls.register if versions else self._calls.look_up, subject=subject)
        return None

    async def answer(self, call: Callable[..., Any], request: Request) -> Response:
        """Carry a call out."""
        try:
            if request.method == "POST":
                call = partial(call, body=await read_body(request))
            found = await self._hands.carry_out(partial(call, request))
        except PoolError as error:
            return failure(error, self._dialect)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        except Exception:  # noqa: BLE001 - what a framework's outermost handler does
            _log.exception("unexpected")
            return unexpected()
        return found if isinstance(found, Response) else JSONResponse(found)


_Task = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class _Hands:
    """Threads that carry calls out; as an executor, with fewer locks and wake-ups between them and the event loop.

    They begin with the first call and end when this is forgotten.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._begun = False

    async def carry_out(self, call: Callable[[], Any]) -> Any:
        """Carry a call out in one of the threads; give what it gives, raise what it raises."""
        if not self._begun:
            self._begin()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._tasks.put((loop, future, call))
        return await future

    def _begin(self) -> None:
        self._begun = True
        for number in range(self._count):
            threading.Thread(target=_work, args=(self._tasks,), name=f"registry_{number}", daemon=True).start()
        weakref.finalize(self, _dismiss, self._tasks, self._count)


def _work(tasks: "SimpleQueue[_Task | None]") -> None:
    while True:
        task = tasks.get()
        if task is None:
            return
        loop, future, call = task
        del task
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            tell = partial(_fail, future, error)
        else:
            tell = partial(_tell, future, result)
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(tell)
        del loop, future, call, tell


def _tell(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _dismiss(tasks: "SimpleQueue[_Task | None]", count: int) -> None:
    for _ in range(count):
        tasks.put(None)


def unexpected() -> Response:
    """Answer where the registry itself is at fault; the text could hold anything, so the trace goes to the log."""
    return JSONResponse({"error_code": 50001, "message": "Internal error; the registry's log says more"}, 500)

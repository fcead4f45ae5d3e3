"""The short way: the calls that serializers make most, without routing, parameters and dependencies.

    GET   /subjects/{s}/versions/{v}     POST  /subjects/{s}      POST  /subjects/{s}/versions

They are the same functions of `registry.api_subjects`, called with the defaults of their parameters; a call that
states any goes the long way. They wait for the database, so they run in threads: in few, since threads that wake up
for one answer after another hand the interpreter to and fro and all come later for it.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from registry.api_subjects import SubjectCalls
from registry.failures import Dialect, failure
from registry.rest import read_body
from schemas.errors import PoolError

__all__ = ["Short", "unexpected"]

_log = logging.getLogger(__name__)
_PATH = re.compile(r"/subjects/([^/]+)(?:(/versions)(?:/([^/]+))?)?")
_THREADS = 4


class Short:
    """Serves what can go the short way.

    Args:
        calls: the functions.
        dialect: whose words errors are told in.
        threads: that wait for the database.
    """

    def __init__(self, calls: SubjectCalls, *, dialect: Dialect, threads: int = _THREADS) -> None:
        self._calls = calls
        self._dialect = dialect
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="registry")

    def call(self, method: str, path: str) -> Callable[..., Any] | None:
        """Give the function for a path without parameters; None where the call must go the long way."""
        if not path.startswith("/subjects/"):
            return None
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
            found = await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, request))
        except PoolError as error:
            return failure(error, self._dialect)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        except Exception:  # noqa: BLE001 - what a framework's outermost handler does
            _log.exception("unexpected")
            return unexpected()
        return found if isinstance(found, Response) else JSONResponse(found)


def unexpected() -> Response:
    """Answer where the registry itself is at fault; the text could hold anything, so the trace goes to the log."""
    return JSONResponse({"error_code": 50001, "message": "Internal error; the registry's log says more"}, 500)

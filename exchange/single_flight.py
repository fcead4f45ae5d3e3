"""Single flight: concurrent calls with the same key share one execution (request coalescing).

Eight batches of one stream ask the attribute store the same at the same moment: does this connector exist, is the
topic published, which key signs? Calls that arrive while an execution for their key is running wait for the next one,
which runs once for all of them. Nothing is cached: a result serves only the calls that were waiting before its
execution began, so it is never older than the caller's own execution would have been.
"""

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class SingleFlight(Generic[_K, _V]):
    """Runs a function once for all callers that wait for its result. Thread-safe.

    Args:
        run: computes the result; what it raises, every waiting caller gets, each a copy of its own.
    """

    def __init__(self, run: Callable[[_K], _V]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._queued: dict[_K, Future[_V]] = {}  # the next execution, still open to callers
        self._running: dict[_K, Future[_V]] = {}

    def __call__(self, key: _K) -> _V:
        """Return the result for *key*, of an execution that began after this call."""
        with self._lock:
            flight = self._queued.get(key)
            leader = flight is None
            if flight is None:
                flight = self._queued[key] = Future()
            before = self._running.get(key)
        if leader:
            if before is not None:
                before.exception()  # waits; its outcome belongs to others
            with self._lock:
                del self._queued[key]
                self._running[key] = flight
            try:
                flight.set_result(self._run(key))
            except BaseException as error:
                flight.set_exception(error)
                raise
            finally:
                with self._lock:
                    if self._running.get(key) is flight:
                        del self._running[key]
            return flight.result()
        failure = flight.exception()  # waits
        if failure is not None:
            raise _copy_of(failure) from failure
        return flight.result()


def _copy_of(error: BaseException) -> BaseException:
    """Return a follower's own error: one object raised in several threads gets all their tracebacks mixed."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - a class whose constructor takes other arguments than it stores
        made = type(error).__new__(type(error))
        made.args = error.args
        made.__dict__.update(error.__dict__)
        return made

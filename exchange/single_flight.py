"""One question for all who ask it at the same time.

Eight batches of one stream ask the same of the registers at the same moment: does this connector stand, is the topic
published, which key signs? A wave gathers those who come while the question before theirs is still being asked, and
asks once for all of them. Nothing is kept: an answer serves only those who were there before its question was put, so
it is never older than the caller's own question would have been.
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
    """Asks a question once for all who wait for its answer. Thread-safe.

    Args:
        ask: gives the answer; what it raises, everybody of the wave gets, each a copy of its own.
    """

    def __init__(self, ask: Callable[[_K], _V]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._forming: dict[_K, Future[_V]] = {}
        self._asked: dict[_K, Future[_V]] = {}

    def __call__(self, key: _K) -> _V:
        """Return the answer to *key*, asked after this call began."""
        with self._lock:
            wave = self._forming.get(key)
            first = wave is None
            if wave is None:
                wave = self._forming[key] = Future()
            before = self._asked.get(key)
        if first:
            if before is not None:
                before.exception()  # waits; whatever it was, it is not ours
            with self._lock:
                del self._forming[key]
                self._asked[key] = wave
            try:
                wave.set_result(self._ask(key))
            except BaseException as error:
                wave.set_exception(error)
                raise
            finally:
                with self._lock:
                    if self._asked.get(key) is wave:
                        del self._asked[key]
            return wave.result()
        failure = wave.exception()  # waits
        if failure is not None:
            raise _another(failure) from failure
        return wave.result()


def _another(error: BaseException) -> BaseException:
    """Return a follower an error of its own: one object raised in several threads gets all their tracebacks mixed."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - a class that is made of other arguments than it keeps
        made = type(error).__new__(type(error))
        made.args = error.args
        made.__dict__.update(error.__dict__)
        return made

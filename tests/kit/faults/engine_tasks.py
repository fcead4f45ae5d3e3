"""Tasks for the tests of the worker processes: each misbehaves in one way that a real engine can."""

import os
import resource
import signal
import time
from pathlib import Path

import pyarrow as pa

from schemas.errors import InvalidError, Reason


def echo(definition):
    """Return the definition and the input back, and say which process did it."""
    return lambda parts: [definition, str(os.getpid()).encode(), *parts]


def counted(definition):
    """Return how often it was compiled in this process."""
    compiled.append(definition)
    return lambda _: [str(compiled.count(definition)).encode()]


compiled = []


def sleep(_):
    def task(parts):
        time.sleep(float(parts[0]))
        return [str(os.getpid()).encode()]

    return task


def hold(_):
    """Wait until the file is there, then say which process did it."""

    def task(parts):
        while not Path(parts[0].decode()).exists():
            time.sleep(0.01)
        return [str(os.getpid()).encode()]

    return task


def spin(_):
    """Hold the interpreter's lock: no thread of this process runs, no Python signal handler is called."""

    def task(parts):
        sum(range(10**12))
        return []

    return task


def die(_):
    """Die of the signal named first, unless the file named second is there; leave that file behind."""

    def task(parts):
        mark = Path(parts[1].decode()) if parts[1] else None
        if mark is not None and mark.exists():
            return [b"survived"]
        if mark is not None:
            mark.touch()
        os.kill(os.getpid(), getattr(signal, parts[0].decode()))
        time.sleep(60)
        return []

    return task


def eat(_):
    return lambda parts: [bytes(bytearray(int(parts[0])))[:1]]


def eat_arrow(_):
    return lambda parts: [bytes(pa.allocate_buffer(int(parts[0]))[:1])]


def limits(_):
    return lambda _: [str(resource.getrlimit(resource.RLIMIT_CORE)).encode(), os.environ["RUST_BACKTRACE"].encode()]


def panic(_):
    """Fail as a Rust panic does: with an error that is no Exception, and a value in its message."""

    class PanicException(BaseException):
        pass

    def task(parts):
        raise PanicException("110101199003071234")

    return task


def refuse(_):
    def task(parts):
        raise InvalidError(Reason.RECORD_INVALID, "got 1; expected 2", details={"rows": "3"}, retry_after=None)

    return task


def fail(_):
    def task(parts):
        raise KeyError("110101199003071234")

    return task

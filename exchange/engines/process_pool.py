"""Process pool: pure `bytes → bytes` work under a deadline and a memory limit, one worker process a core.

An Avro engine can be made to loop forever or to eat all memory. Python can neither interrupt a loop that has released
the interpreter lock nor catch an abort, and a process that forked after the engine ran would hang. Hence worker
processes that are spawned (never forked), each owned by one call at a time:

* A call waits with a deadline. When it passes, or when the process dies, that one process is killed and replaced;
  every other call goes on. A kernel timer ends the process too, should its parent be stopped.
* A batch whose process died is tried once more on another one: the machine may have been short of memory for a reason
  that is not the batch. A second death makes it invalid. Running over the memory limit makes it invalid at once.
* At most `queue` calls wait for a process; a further one is rejected (OVERLOADED).
* Fewer than `small` records are worked in the calling thread, which is faster than the round trip to a process; with
  n = 0 everything is.
* A process ends when its parent does, whatever it is doing, and leaves no core file: that would hold records.

What is run is a `TaskSpec`: a kind (an importable function) and a definition, say a schema's text. A process compiles
a definition once and caches it by its digest, so that the text travels once. Only plain bytes and JSON travel, no
pickles: a process that hostile bytes have taken over gains nothing over its parent.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Self

from exchange.engines.worker_process import (
    Compile,
    CompiledTasks,
    Parts,
    Status,
    Task,
    TaskSpec,
    decode_error,
    receive,
    send,
)
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["Compile", "Parts", "ProcessPool", "Task", "TaskSpec"]

_START_TIMEOUT = 60.0  # seconds for a process to start
_MIN_SHARE = 0.25  # of the time allowed that must remain when work begins
_SERVE: Final = "from exchange.engines.worker_process import serve; serve()"


class ProcessPool:
    """The worker processes. Thread-safe; use as a context manager or close it.

    Args:
        n: number of processes, one a core; 0 runs everything in the calling thread, without deadline or limit.
        deadline: seconds that one call may take, its wait for a process included.
        memory: bytes that a process may take beyond what it has when it starts.
        queue: calls that may wait.
        small: a call with fewer records than this is worked in its own thread.
        replaced: called with "deadline" or "died" whenever a process is replaced, for the metrics.

    Raises:
        UnavailableError: INTERNAL, when the processes do not start.
    """

    def __init__(
        self,
        n: int,
        *,
        deadline: float = 10.0,
        memory: int = 1 << 30,
        queue: int = 64,
        small: int = 30,
        replaced: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._n, self._deadline, self._memory = n, deadline, memory
        self._queue, self._small, self._replaced = queue, small, replaced
        self._compiled = CompiledTasks()
        lock = threading.Lock()
        self._state = threading.Condition(lock)
        self._free = threading.Condition(lock)  # of its own, so that one process wakes one call and not all
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._waiting = 0
        self._closed = False
        try:
            for _ in range(n):
                self._idle.append(_Process(memory))
            for process in self._idle:
                process.await_ready()
        except OSError as error:
            for process in self._idle:
                process.end()
            raise UnavailableError(Reason.INTERNAL, "the engine processes did not start; see their messages") from error
        self._all.update(self._idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, spec: TaskSpec, parts: Parts, *, records: int, deadline: float | None = None) -> Parts:
        """Run a task on byte strings.

        Args:
            spec: what to run.
            parts: its input, passed on as it is.
            records: how many records that is.
            deadline: seconds for this call, if other than the usual.

        Raises:
            PoolError: what the task raised, as it raised it.
            InvalidError: RECORD_INVALID, two processes died of it; BATCH_TOO_LARGE, it took more than the memory
                allowed.
            UnavailableError: OVERLOADED, too many calls wait or the deadline has passed; SHUTTING_DOWN; INTERNAL,
                the task raised an error that is not of the pool.
        """
        if self.in_thread(records):
            return self._compiled.run(spec, parts)
        allowed = self._deadline if deadline is None else deadline
        until = time.monotonic() + allowed
        for last in (False, True):
            process = self._acquire(until, least=0.0 if last else _MIN_SHARE * allowed)
            try:
                status, answer = process.call(spec, parts, until)
                failure = decode_error(answer) if status == Status.FAILED else None
            except TimeoutError as error:
                self._replace(process, "deadline")
                raise _overloaded("the work was not done before its deadline; send fewer records") from error
            except OSError as error:
                self._replace(process, "died")
                if last:
                    raise InvalidError(
                        Reason.RECORD_INVALID,
                        "got a batch that brought two engine processes down; send it in smaller parts to find out "
                        "which record does",
                    ) from error
                continue
            except BaseException:
                self._replace(process, "abandoned")  # its answer is still to come, and no call would read it
                raise
            self._release(process)
            if failure is not None:
                raise failure
            return answer
        raise AssertionError  # pragma: no cover - the second attempt returns or raises

    def in_thread(self, records: int) -> bool:
        """Return whether a call for so many records is worked in the calling thread.

        Raises:
            UnavailableError: SHUTTING_DOWN, it is not worked at all any more.
        """
        if self._closed:
            raise _shutting_down()
        return not self._n or records < self._small

    def close(self, patience: float = 5.0) -> None:
        """Reject new calls, let running calls finish, then end the processes. Idempotent.

        Args:
            patience: seconds for the running calls; those that take longer raise UnavailableError.
        """
        with self._state:
            self._closed = True
            self._free.notify_all()
            self._state.notify_all()
            self._state.wait_for(lambda: len(self._idle) == len(self._all), patience)
            idle, self._idle = self._idle, []
            busy = self._all.difference(idle)
            self._all.clear()
        for process in idle:
            process.end()
        for process in busy:
            process.kill()  # the call that owns it sees it die, and cleans up

    def _acquire(self, until: float, least: float) -> "_Process":
        with self._state:
            if not self._idle and self._waiting >= self._queue:
                raise _overloaded(f"{self._waiting} calls wait for an engine process already")
            self._waiting += 1
            try:
                self._free.wait_for(lambda: self._idle or self._closed, until - time.monotonic())
            finally:
                self._waiting -= 1
            if self._closed:
                raise _shutting_down()
            if not self._idle:
                raise _overloaded("no engine process was free before the deadline")
            if until - time.monotonic() < least:  # it would be killed in mid-work, and every waiting call wait for that
                self._free.notify()
                raise _overloaded("an engine process was free only shortly before the deadline")
            return self._idle.pop()

    def _release(self, process: "_Process") -> None:
        with self._state:
            pooled = process in self._all
            if pooled:
                self._idle.append(process)
                self._free.notify()
                self._state.notify_all()
        if not pooled:
            process.end()

    def _replace(self, process: "_Process", why: str) -> None:
        process.end()
        with self._state:
            self._all.discard(process)
            self._state.notify_all()
            if self._closed:
                raise _shutting_down()
        self._replaced(why)
        threading.Thread(target=self._start_another, name="engine-start", daemon=True).start()

    def _start_another(self) -> None:
        delay = 0.1
        while True:
            process = _Process.started(self._memory)
            with self._state:
                if process is not None and not self._closed:
                    self._all.add(process)
                    self._idle.append(process)
                    self._free.notify()
                    self._state.notify_all()
                    return
                if not self._closed:
                    self._state.wait_for(lambda: self._closed, delay)
                closed = self._closed
            if process is not None:
                process.end()
            if closed:
                return
            delay = min(2 * delay, 10.0)


class _Process:
    """One worker process, and the parent's end of its socket. Its errors are OSErrors; TimeoutError is one."""

    def __init__(self, memory: int) -> None:
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):  # few context switches for a batch; the kernel takes less if it allows less
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        alive, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(  # safe path: no module comes from the folder the pool was started in
                [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno()), str(alive), str(memory)],
                pass_fds=(theirs.fileno(), alive),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an operator's Ctrl-C goes to the parent, which stops in order
                env={**os.environ, "RUST_BACKTRACE": "0"},  # a panic would cost 145 µs instead of 9
            )
        except BaseException:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(alive)
        self._socket = ours
        self._defined: set[bytes] = set()  # digests of the tasks whose definition it has

    @classmethod
    def started(cls, memory: int) -> "_Process | None":
        """Start one and wait until it is ready; None when it does not start."""
        try:
            process = cls(memory)
        except OSError:
            return None
        try:
            process.await_ready()
        except OSError:
            process.end()
            return None
        return process

    def await_ready(self) -> None:
        """Send it the import path, and wait for its answer."""
        send(self._socket, Status.OK, [json.dumps(sys.path).encode()], until=time.monotonic() + _START_TIMEOUT)
        receive(self._socket, time.monotonic() + _START_TIMEOUT)

    def call(self, spec: TaskSpec, parts: Parts, until: float) -> tuple[int, Parts]:
        allowed = max(until - time.monotonic(), 0.001)
        definition = [spec.kind.encode(), spec.definition]
        if spec.digest not in self._defined:
            send(self._socket, Status.UNKNOWN, definition, spec.digest, until=until)
        send(self._socket, Status.OK, parts, spec.digest, allowed, until=until)
        status, _, _, content = receive(self._socket, until)
        if status == Status.UNKNOWN:  # its cache has dropped the task since
            self._defined.discard(spec.digest)
            return self.call(spec, parts, until)
        self._defined.add(spec.digest)
        return status, content

    def kill(self) -> None:
        """Kill it; from any thread. The socket stays open for the call that owns it."""
        self._process.kill()

    def end(self) -> None:
        """Kill it and release its resources; called once, by its owner alone."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        os.close(self._lifeline)


def _overloaded(what: str) -> UnavailableError:
    return UnavailableError(Reason.OVERLOADED, f"{what}; try again later", retry_after=1.0)


def _shutting_down() -> UnavailableError:
    return UnavailableError(Reason.SHUTTING_DOWN, "the engine processes are ending; try again later", retry_after=1.0)

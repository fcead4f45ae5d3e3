"""Engine processes: pure `bytes → bytes` work under a deadline and a memory limit, one process a core.

An Avro engine can be made to loop for ever or to eat all memory, Python can neither interrupt a loop that has
released the lock of the interpreter nor catch an abort, and a process that forked after the engine ran would
hang. Hence processes of their own, started afresh (never forked), each owned by one call at a time:

* A call waits with a deadline. When it passes, or when the process dies, that one process is killed and
  replaced; every other call goes on. A kernel timer ends the process too, should its parent be stopped.
* A batch whose process died is tried once more on another one: the machine's memory may have been short for no
  fault of the batch. Dying twice makes it invalid. Running over the memory limit makes it invalid at once.
* At most `queue` calls wait for a process; a further one is refused (OVERLOADED).
* Fewer than `small` records are worked in the calling thread, which is faster than the way to a process and back;
  with n = 0 everything is.
* A process ends when its parent does, whatever it is doing, and leaves no core file: that would hold records.

What is run is a `Program`: a kind (an importable function) and a definition, say a schema's text. A process
compiles a definition once and knows it by its digest afterwards, so that the text travels once. Only plain bytes
and JSON travel, no pickles: a process that hostile bytes have taken over gains nothing over its parent.
"""

import gc
import hashlib
import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeAlias

import pyarrow as pa

from schemas import errors
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError

__all__ = ["Compile", "Parts", "Program", "Task", "Workers", "serve"]

Parts: TypeAlias = Sequence[bytes]
Task: TypeAlias = Callable[[Parts], Parts]
"""What a program does: byte strings in, byte strings out, no effect outside."""

Compile: TypeAlias = Callable[[bytes], Task]
"""A kind of program: definition → task."""

_CACHE = 256  # programs that a process keeps; the least recently used goes first
_GRACE = 1.0  # seconds after the deadline at which the kernel ends a process whose parent did not
_BOOT = 60.0  # seconds for a process to start
_OK, _UNKNOWN, _FAILED = range(3)
_HEAD: Final = struct.Struct("<BI32sd")  # a message: word, number of parts, digest, seconds allowed
_SERVE = "from exchange.workers import serve; serve()"


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be run. Immutable, cheap to keep, the same in every process.

    Attributes:
        kind: "module:function" of a `Compile`.
        definition: its argument.
        digest: SHA-256 over both: how processes know it.
    """

    kind: str
    definition: bytes
    digest: bytes

    @classmethod
    def of(cls, kind: str, definition: bytes) -> Self:
        """Make a program of its kind and definition."""
        return cls(kind, definition, hashlib.sha256(kind.encode() + b"\0" + definition).digest())


class Workers:
    """The processes. Thread-safe; use as a context manager or close it.

    Args:
        n: number of processes, one a core; 0 runs everything in the calling thread, without deadline or limit.
        deadline: seconds that one call may take, its wait for a process included.
        memory: bytes that a process may take beyond what it has when it starts.
        queue: calls that may wait.
        small: below so many records a call is worked in its own thread.
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
        self._programs = _Programs()
        self._state = threading.Condition()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._waiting = 0
        self._closed = False
        try:
            for _ in range(n):
                self._all.add(_Process(memory))
            for process in self._all:
                process.await_ready()
        except OSError as error:
            self.close()
            raise UnavailableError(Reason.INTERNAL, "the engine processes did not start; see their messages") from error
        self._idle.extend(self._all)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, program: Program, parts: Parts, *, records: int, deadline: float | None = None) -> Parts:
        """Run a program on byte strings.

        Args:
            program: what to run.
            parts: its input, passed on as it is.
            records: how many records that is.
            deadline: seconds for this call, if other than the usual.

        Raises:
            PoolError: what the program raised, as it raised it.
            InvalidError: RECORD_INVALID, two processes died of it; BATCH_TOO_LARGE, it took more than the memory
                allowed.
            UnavailableError: OVERLOADED, too many calls wait or the deadline has passed; SHUTTING_DOWN; INTERNAL,
                the program failed in a way that it does not know.
        """
        if not self._n or records < self._small:
            if self._closed:
                raise _shutting_down()
            return self._programs.run(program, parts)
        until = time.monotonic() + (self._deadline if deadline is None else deadline)
        for last in (False, True):
            process = self._take(until)
            try:
                answer = process.ask(program, parts, until)
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
            except BaseException:
                self._replace(process, "abandoned")  # its answer is still to come, and nobody would read it
                raise
            else:
                self._give_back(process)
                return answer.parts()
        raise AssertionError  # pragma: no cover - the second attempt returns or raises

    def close(self) -> None:
        """End the processes; calls that are under way or wait raise UnavailableError. Can be called again."""
        with self._state:
            self._closed = True
            ending = list(self._all)
            self._all.clear()
            self._idle.clear()
            self._state.notify_all()
        for process in ending:
            process.kill()

    def _take(self, until: float) -> "_Process":
        with self._state:
            if not self._idle and self._waiting >= self._queue:
                raise _overloaded(f"{self._waiting} calls wait for an engine process already")
            self._waiting += 1
            try:
                self._state.wait_for(lambda: self._idle or self._closed, until - time.monotonic())
            finally:
                self._waiting -= 1
            if self._closed:
                raise _shutting_down()
            if not self._idle:
                raise _overloaded("no engine process was free before the deadline")
            return self._idle.pop()

    def _give_back(self, process: "_Process") -> None:
        with self._state:
            if not self._closed:
                self._idle.append(process)
                self._state.notify()

    def _replace(self, process: "_Process", why: str) -> None:
        process.kill()
        with self._state:
            self._all.discard(process)
            if self._closed:
                raise _shutting_down()
        self._replaced(why)
        threading.Thread(target=self._start_another, name="engine-start", daemon=True).start()

    def _start_another(self) -> None:
        delay = 0.1
        while not self._closed:
            process = None
            try:
                process = _Process(self._memory)
                process.await_ready()
            except OSError:
                if process is not None:
                    process.kill()
                time.sleep(delay)
                delay = min(2 * delay, 10.0)
                continue
            with self._state:
                if not self._closed:
                    self._all.add(process)
                    self._idle.append(process)
                    self._state.notify()
                    return
            process.kill()


@dataclass(frozen=True, slots=True)
class _Answer:
    word: int
    content: list[bytes]

    def parts(self) -> Parts:
        if self.word == _OK:
            return self.content
        fault = json.loads(self.content[0])
        kind = getattr(errors, fault["kind"])
        raise kind(
            Reason(fault["reason"]), fault["message"], details=fault["details"], retry_after=fault["retry_after"]
        )


class _Process:
    """One engine process, and the parent's end of its socket. Its errors are OSErrors; TimeoutError is one."""

    def __init__(self, memory: int) -> None:
        ours, theirs = socket.socketpair()
        alive, self._life = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno()), str(alive), str(memory)],
                pass_fds=(theirs.fileno(), alive),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an operator's Ctrl-C goes to the parent, which stops in order
                env={**os.environ, "RUST_BACKTRACE": "0"},  # a panic would cost 145 µs instead of 9
            )
        except BaseException:
            ours.close()
            os.close(self._life)
            raise
        finally:
            theirs.close()
            os.close(alive)
        self._socket = ours
        self._known: set[bytes] = set()
        self._ended = threading.Lock()

    def await_ready(self) -> None:
        _send(self._socket, _OK, [json.dumps(sys.path).encode()], until=time.monotonic() + _BOOT)
        _receive(self._socket, time.monotonic() + _BOOT)

    def ask(self, program: Program, parts: Parts, until: float) -> _Answer:
        allowed = max(until - time.monotonic(), 0.001)
        definition = [program.kind.encode(), program.definition]
        if program.digest not in self._known:
            _send(self._socket, _UNKNOWN, definition, program.digest, until=until)
        _send(self._socket, _OK, parts, program.digest, allowed, until=until)
        word, _, _, content = _receive(self._socket, until)
        if word == _UNKNOWN:  # it has forgotten the program since
            self._known.discard(program.digest)
            return self.ask(program, parts, until)
        self._known.add(program.digest)
        return _Answer(word, content)

    def kill(self) -> None:
        with self._ended:
            if self._process.returncode is None:
                self._process.kill()
                self._process.wait()
                self._socket.close()
                os.close(self._life)


@dataclass(slots=True)
class _Programs:
    """Compiled programs by digest, bounded. Thread-safe: at worst two threads compile the same one."""

    _tasks: OrderedDict[bytes, Task] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, program: Program, parts: Parts) -> Parts:
        task = self.find(program.digest)
        return (task or self.add(program))(parts)

    def find(self, digest: bytes) -> Task | None:
        with self._lock:
            task = self._tasks.get(digest)
            if task is not None:
                self._tasks.move_to_end(digest)
            return task

    def add(self, program: Program) -> Task:
        module, _, name = program.kind.partition(":")
        compile_: Compile = getattr(importlib.import_module(module), name)
        task = compile_(program.definition)
        with self._lock:
            self._tasks[program.digest] = task
            while len(self._tasks) > _CACHE:
                self._tasks.popitem(last=False)
        return task


def serve() -> None:
    """Be an engine process: the entry point of the processes that `Workers` starts."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    life, memory = int(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    sys.path[:] = json.loads(_receive(connection, None)[3][0])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own end: it needs no lock of the interpreter
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_taken() + memory,) * 2)
    pa.set_cpu_count(1)
    gc.freeze()
    programs, defined = _Programs(), OrderedDict[bytes, Program]()
    _send(connection, _OK, [])
    while True:
        try:
            word, digest, allowed, parts = _receive(connection, None)
        except OSError:
            return
        if word == _UNKNOWN:
            defined[digest] = Program(parts[0].decode(), parts[1], digest)
            continue
        signal.setitimer(signal.ITIMER_REAL, allowed + _GRACE)
        task = programs.find(digest)
        program = defined.pop(digest, None)
        if task is None and program is None:
            _send(connection, _UNKNOWN, [])
            continue
        try:
            if task is None:
                assert program is not None  # noqa: S101 - for the type checker
                task = programs.add(program)
            result = (_OK, task(parts))
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException
            result = (_FAILED, [_fault(error)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(connection, *result)


def _end_with_parent(life: int) -> None:
    os.read(life, 1)  # returns when the last writing end, the parent's, is closed
    os._exit(1)


def _taken() -> int:
    """Give the bytes of address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _fault(error: BaseException) -> bytes:
    if isinstance(error, MemoryError):
        error = InvalidError(
            Reason.BATCH_TOO_LARGE, "got a batch that takes more memory than allowed; send fewer records"
        )
    if not isinstance(error, PoolError):
        # The type alone: the message of a foreign error may hold a record's value.
        error = UnavailableError(Reason.INTERNAL, f"an engine failed with {type(error).__name__}; tell an operator")
    return json.dumps(
        {
            "kind": type(error).__name__,
            "reason": error.reason,
            "message": error.message,
            "details": error.details,
            "retry_after": error.retry_after,
        }
    ).encode()


def _send(
    connection: socket.socket,
    word: int,
    parts: Parts,
    digest: bytes = bytes(32),
    allowed: float = 0.0,
    *,
    until: float | None = None,
) -> None:
    head = _HEAD.pack(word, len(parts), digest, allowed) + struct.pack(f"<{len(parts)}Q", *map(len, parts))
    for part in (head, *parts):
        connection.settimeout(_left(until))
        connection.sendall(part)


def _receive(connection: socket.socket, until: float | None) -> tuple[int, bytes, float, list[bytes]]:
    word, count, digest, allowed = _HEAD.unpack(_exactly(connection, _HEAD.size, until))
    sizes = struct.unpack(f"<{count}Q", _exactly(connection, 8 * count, until))
    return word, digest, allowed, [_exactly(connection, size, until) for size in sizes]


def _exactly(connection: socket.socket, size: int, until: float | None) -> bytes:
    if not size:
        return b""
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        connection.settimeout(_left(until))
        read = connection.recv_into(view[got:])
        if not read:
            raise ConnectionResetError
        got += read
    return bytes(data)


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _overloaded(what: str) -> UnavailableError:
    return UnavailableError(Reason.OVERLOADED, f"{what}; try again later", retry_after=1.0)


def _shutting_down() -> UnavailableError:
    return UnavailableError(Reason.SHUTTING_DOWN, "the engine processes are ending; try again later", retry_after=1.0)

"""One engine process, and what passes between it and its parent (`exchange.engines.process_pool`).

A message is a word, a digest, the seconds allowed and some byte strings. The parent sends a program's definition
(UNKNOWN, since the process does not know it yet) and work (OK); the process answers OK with byte strings, FAILED with
an error as JSON, or UNKNOWN when it has forgotten the program since. Only plain bytes and JSON travel, no pickles: a
process that hostile bytes have taken over gains nothing over its parent.
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
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeAlias

import pyarrow as pa

from schemas.errors import ERROR_CLASSES, InvalidError, PoolError, Reason, UnavailableError

__all__ = [
    "FAILED",
    "OK",
    "UNKNOWN",
    "Compile",
    "CompiledTasks",
    "Parts",
    "Task",
    "TaskSpec",
    "raised",
    "receive",
    "send",
    "serve",
]

Parts: TypeAlias = Sequence[bytes]
Task: TypeAlias = Callable[[Parts], Parts]
"""What a program does: byte strings in, byte strings out, no effect outside."""

Compile: TypeAlias = Callable[[bytes], Task]
"""A kind of program: definition → task."""

OK, UNKNOWN, FAILED = range(3)

_CACHE = 256  # programs that a process keeps; the least recently used goes first
_GRACE = 1.0  # seconds after the deadline at which the kernel ends a process whose parent did not
_MOST_PARTS, _MOST_BYTES = 64, 1 << 28  # of a message: what is beyond is none of ours
_HEAD: Final = struct.Struct("<BI32sd")  # a message: word, number of parts, digest, seconds allowed


@dataclass(frozen=True, slots=True)
class TaskSpec:
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


@dataclass(slots=True)
class CompiledTasks:
    """Compiled programs by digest, bounded. Thread-safe: at worst two threads compile the same one."""

    _tasks: OrderedDict[bytes, Task] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, program: TaskSpec, parts: Parts) -> Parts:
        """Run a program, compiling it if it is new."""
        task = self.find(program.digest)
        return (task or self.add(program))(parts)

    def find(self, digest: bytes) -> Task | None:
        """Return the task of a program, None when it is not kept."""
        with self._lock:
            task = self._tasks.get(digest)
            if task is not None:
                self._tasks.move_to_end(digest)
            return task

    def add(self, program: TaskSpec) -> Task:
        """Compile a program and keep it."""
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
    sys.path[:] = json.loads(receive(connection, None)[3][0])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own end: it needs no lock of the interpreter
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_taken() + memory,) * 2)
    pa.set_cpu_count(1)
    gc.freeze()
    programs, defined = CompiledTasks(), OrderedDict[bytes, TaskSpec]()
    send(connection, OK, [])
    while True:
        try:
            word, digest, allowed, parts = receive(connection, None)
        except OSError:
            return
        if word == UNKNOWN:
            defined[digest] = TaskSpec(parts[0].decode(), parts[1], digest)
            continue
        task = programs.find(digest)
        program = defined.pop(digest, None)
        if task is None and program is None:
            send(connection, UNKNOWN, [])
            continue
        signal.setitimer(signal.ITIMER_REAL, allowed + _GRACE)
        try:
            if task is None:
                assert program is not None  # noqa: S101 - for the type checker
                task = programs.add(program)
            result = (OK, task(parts))
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException
            result = (FAILED, [_fault(error)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(connection, *result)


def _end_with_parent(life: int) -> None:
    os.read(life, 1)  # returns when the last writing end, the parent's, is closed
    os._exit(1)


def _taken() -> int:
    """Return the bytes of address space that this process has now."""
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


_ERRORS: Final[Mapping[str, type[PoolError]]] = {each.__name__: each for each in ERROR_CLASSES}


def raised(parts: Parts) -> PoolError:
    """Return the error of a FAILED answer.

    Raises:
        OSError: the answer is none; the process cannot be trusted any more.
    """
    try:
        fault = json.loads(parts[0])
        return _ERRORS[fault["kind"]](
            Reason(fault["reason"]), fault["message"], details=fault["details"], retry_after=fault["retry_after"]
        )
    except (ValueError, LookupError, TypeError) as error:
        raise ConnectionAbortedError from error


def send(
    connection: socket.socket,
    word: int,
    parts: Parts,
    digest: bytes = bytes(32),
    allowed: float = 0.0,
    *,
    until: float | None = None,
) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone; TimeoutError, *until* (monotonic seconds) has passed.
    """
    head = _HEAD.pack(word, len(parts), digest, allowed) + struct.pack(f"<{len(parts)}Q", *map(len, parts))
    for part in (head, *parts):
        connection.settimeout(_left(until))
        connection.sendall(part)


def receive(connection: socket.socket, until: float | None) -> tuple[int, bytes, float, list[bytes]]:
    """Receive one message: word, digest, seconds allowed, byte strings.

    Raises:
        OSError: as `send`, or the message is too large to be one.
    """
    word, count, digest, allowed = _HEAD.unpack(_exactly(connection, _HEAD.size, until))
    if count > _MOST_PARTS:
        raise ConnectionAbortedError
    sizes = struct.unpack(f"<{count}Q", _exactly(connection, 8 * count, until))
    if sum(sizes) > _MOST_BYTES:
        raise ConnectionAbortedError
    return word, digest, allowed, [_exactly(connection, size, until) for size in sizes]


def _exactly(connection: socket.socket, size: int, until: float | None) -> bytes:
    if not size:
        return b""
    if until is None:  # one call of the kernel for the whole, where there is no deadline
        connection.settimeout(None)
        whole = connection.recv(size, socket.MSG_WAITALL)
        if len(whole) < size:
            raise ConnectionResetError
        return whole
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

"""Worker process: its main loop, and the protocol between it and its parent (`exchange.engines.process_pool`).

A message is a status, a digest, the seconds allowed and some byte strings. The parent sends a task's definition
(UNKNOWN, since the process does not have it yet) and a call (OK). The process answers OK with byte strings, FAILED
with an error as JSON, or UNKNOWN when its cache has dropped the task since. Only plain bytes and JSON travel, no
pickles: a process that hostile bytes have taken over gains nothing over its parent.
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
from enum import IntEnum
from pathlib import Path
from typing import Final, Self, TypeAlias

import pyarrow as pa

from schemas.errors import ERROR_CLASSES, InvalidError, PoolError, Reason, UnavailableError

__all__ = [
    "Compile",
    "CompiledTasks",
    "Parts",
    "Status",
    "Task",
    "TaskSpec",
    "decode_error",
    "receive",
    "send",
    "serve",
]

Parts: TypeAlias = Sequence[bytes]
Task: TypeAlias = Callable[[Parts], Parts]
"""A compiled task: byte strings in, byte strings out, no effect outside."""

Compile: TypeAlias = Callable[[bytes], Task]
"""A kind of task: definition → task."""


class Status(IntEnum):
    """First byte of a message."""

    OK = 0  # a call, or its result
    UNKNOWN = 1  # a task's definition, or the request for one
    FAILED = 2  # an error


_CACHE_SIZE = 256  # compiled tasks in a process; the least recently used is dropped first
_GRACE = 1.0  # seconds after the deadline at which the kernel ends a process whose parent did not
_MAX_PARTS, _MAX_BYTES = 64, 1 << 28  # of a message; more cannot come from this protocol
_HEAD: Final = struct.Struct("<BI32sd")  # a message: status, number of parts, digest, seconds allowed


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Which task to run. Immutable, cheap to store, the same in every process.

    Attributes:
        kind: "module:function" of a `Compile`.
        definition: its argument.
        digest: SHA-256 over both: the key of the processes' caches.
    """

    kind: str
    definition: bytes
    digest: bytes

    @classmethod
    def of(cls, kind: str, definition: bytes) -> Self:
        """Build the specification of a task from its kind and definition."""
        return cls(kind, definition, hashlib.sha256(kind.encode() + b"\0" + definition).digest())


@dataclass(slots=True)
class CompiledTasks:
    """LRU cache of compiled tasks by digest. Thread-safe: at worst two threads compile the same one."""

    _tasks: OrderedDict[bytes, Task] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, spec: TaskSpec, parts: Parts) -> Parts:
        """Run a task; compile it first if it is not cached."""
        task = self.get(spec.digest)
        return (task or self.compile(spec))(parts)

    def get(self, digest: bytes) -> Task | None:
        """Return a cached task; None if it is not cached."""
        with self._lock:
            task = self._tasks.get(digest)
            if task is not None:
                self._tasks.move_to_end(digest)
            return task

    def compile(self, spec: TaskSpec) -> Task:
        """Compile a task and cache it."""
        module, _, name = spec.kind.partition(":")
        compile_: Compile = getattr(importlib.import_module(module), name)
        task = compile_(spec.definition)
        with self._lock:
            self._tasks[spec.digest] = task
            while len(self._tasks) > _CACHE_SIZE:
                self._tasks.popitem(last=False)
        return task


def serve() -> None:
    """Run the main loop of a worker process: the entry point of the processes that `ProcessPool` starts."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    lifeline, memory = int(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()
    sys.path[:] = json.loads(receive(connection, None)[3][0])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ended by the kernel, which needs no interpreter lock
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory,) * 2)
    pa.set_cpu_count(1)
    gc.freeze()
    compiled, definitions = CompiledTasks(), OrderedDict[bytes, TaskSpec]()
    send(connection, Status.OK, [])
    while True:
        try:
            status, digest, allowed, parts = receive(connection, None)
        except OSError:
            return
        if status == Status.UNKNOWN:
            definitions[digest] = TaskSpec(parts[0].decode(), parts[1], digest)
            continue
        task = compiled.get(digest)
        spec = definitions.pop(digest, None)
        if task is None and spec is None:
            send(connection, Status.UNKNOWN, [])
            continue
        signal.setitimer(signal.ITIMER_REAL, allowed + _GRACE)
        result: tuple[Status, Parts]
        try:
            if task is None:
                assert spec is not None  # noqa: S101 - for the type checker
                task = compiled.compile(spec)
            result = (Status.OK, task(parts))
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException
            result = (Status.FAILED, [_encode_error(error)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(connection, *result)


def _exit_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when the last writing end, the parent's, is closed
    os._exit(1)


def _address_space() -> int:
    """Return the bytes of address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _encode_error(error: BaseException) -> bytes:
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


def decode_error(parts: Parts) -> PoolError:
    """Return the error of a FAILED answer.

    Raises:
        OSError: the answer is malformed; the process cannot be trusted any more.
    """
    try:
        found = json.loads(parts[0])
        return _ERRORS[found["kind"]](
            Reason(found["reason"]), found["message"], details=found["details"], retry_after=found["retry_after"]
        )
    except (ValueError, LookupError, TypeError) as error:
        raise ConnectionAbortedError from error


def send(
    connection: socket.socket,
    status: Status,
    parts: Parts,
    digest: bytes = bytes(32),
    allowed: float = 0.0,
    *,
    until: float | None = None,
) -> None:
    """Send one message.

    Raises:
        OSError: the other side has closed; TimeoutError, *until* (monotonic seconds) has passed.
    """
    head = _HEAD.pack(status, len(parts), digest, allowed) + struct.pack(f"<{len(parts)}Q", *map(len, parts))
    for part in (head, *parts):
        connection.settimeout(_remaining(until))
        connection.sendall(part)


def receive(connection: socket.socket, until: float | None) -> tuple[int, bytes, float, list[bytes]]:
    """Receive one message: status, digest, seconds allowed, byte strings.

    Raises:
        OSError: as `send`, or the message is larger than the protocol allows.
    """
    status, count, digest, allowed = _HEAD.unpack(_receive_exactly(connection, _HEAD.size, until))
    if count > _MAX_PARTS:
        raise ConnectionAbortedError
    sizes = struct.unpack(f"<{count}Q", _receive_exactly(connection, 8 * count, until))
    if sum(sizes) > _MAX_BYTES:
        raise ConnectionAbortedError
    return status, digest, allowed, [_receive_exactly(connection, size, until) for size in sizes]


def _receive_exactly(connection: socket.socket, size: int, until: float | None) -> bytes:
    if not size:
        return b""
    if until is None:  # one system call for the whole, where there is no deadline
        connection.settimeout(None)
        whole = connection.recv(size, socket.MSG_WAITALL)
        if len(whole) < size:
            raise ConnectionResetError
        return whole
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        connection.settimeout(_remaining(until))
        read = connection.recv_into(view[got:])
        if not read:
            raise ConnectionResetError
        got += read
    return bytes(data)


def _remaining(until: float | None) -> float | None:
    if until is None:
        return None
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds

"""LISTEN/NOTIFY notifications: PostgreSQL's between gateways, a direct call within one.

One thread with one connection per adapter both sends and receives. NOTIFY is sent outside the append's transaction:
within it, it would take a lock of the whole database until the commit is on disk, and all topics would commit one
after the other. Several appends become one notification. What a crash loses is a hint: readers have a polling period
of their own, and while there is no connection every watcher is called once a period.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

__all__ = ["Notifications"]

_CHANNEL = "broker_grown"


class Notifications:
    """The watchers of one adapter's topics, and the thread that receives other adapters' notifications.

    Args:
        engine: where the thread's connection comes from; it is taken out of the engine's pool.
        period: seconds between two attempts to connect, while there is no connection, and between two checks of an
            idle one.
    """

    def __init__(self, engine: sa.Engine, period: float) -> None:
        self._engine = engine
        self._period = period
        self._lock = threading.Lock()
        self._watchers: dict[int, list[Callable[[], None]]] = {}
        self._pending: set[int] = set()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._self_pipe_read, self._self_pipe_write = os.pipe()

    @contextmanager
    def watch(self, topic_id: int, wake: Callable[[], None]) -> Iterator[None]:
        """Call *wake* when the topic may have grown, until the block ends."""
        with self._lock:
            self._watchers.setdefault(topic_id, []).append(wake)
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._watchers[topic_id].remove(wake)

    def notify(self, topic_id: int) -> None:
        """Call this adapter's watchers of the topic now, and notify other adapters soon."""
        with self._lock:
            first = not self._pending
            self._pending.add(topic_id)
            self._start()
            if first and not self._stopping.is_set():
                os.write(self._self_pipe_write, b".")
        self._wake(topic_id)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._stopping.set()
            os.write(self._self_pipe_write, b".")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._self_pipe_read)
        os.close(self._self_pipe_write)

    def _start(self) -> None:
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="broker-notifications", daemon=True)
            self._thread.start()

    def _wake(self, topic_id: int | None) -> None:
        with self._lock:
            wakes = [
                wake for each, wakes in self._watchers.items() if topic_id is None or each == topic_id for wake in wakes
            ]
        for wake in wakes:
            with contextlib.suppress(Exception):  # a watcher's error must not reach the append
                wake()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = self._connect()
            except (psycopg2.Error, sa_exc.SQLAlchemyError):
                self._back_off()
                continue
            try:
                self._listen(connection)
            except (psycopg2.Error, OSError):
                self._back_off()
            finally:
                with contextlib.suppress(psycopg2.Error):
                    connection.close()

    def _connect(self) -> Any:
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        assert connection is not None  # noqa: S101 - it was just made
        connection.autocommit = True
        connection.cursor().execute(f"LISTEN {_CHANNEL}")
        return connection

    def _listen(self, connection: Any) -> None:
        self._wake(None)  # for notifications that came while there was no connection
        own = connection.info.backend_pid
        while not self._stopping.is_set():
            ready, _, _ = select.select([connection, self._self_pipe_read], [], [], self._period)
            if self._self_pipe_read in ready:
                self._send(connection)
            elif not ready:
                connection.cursor().execute("SELECT 1")
            connection.poll()
            received = {int(notice.payload) for notice in connection.notifies if notice.pid != own}
            connection.notifies.clear()
            for topic_id in received:
                self._wake(topic_id)

    def _send(self, connection: Any) -> None:
        with self._lock:
            os.read(self._self_pipe_read, 64)
            topics, self._pending = sorted(self._pending), set()
        if topics:
            connection.cursor().execute(
                "SELECT pg_notify(%s, topic::text) FROM unnest(%s::int[]) AS topic", (_CHANNEL, topics)
            )

    def _back_off(self) -> None:
        self._wake(None)
        self._stopping.wait(self._period)

"""How PostgreSQL wakes those who wait: NOTIFY between gateways, a direct call within one.

One thread with one connection per adapter both sends and hears. Sending stands outside the append's transaction:
a NOTIFY within it would take a lock of the whole database until its commit is on disk, and all topics would
commit one after the other. Several appends become one notification. What is lost in a crash is a hint: readers
have a polling period of their own, and while the connection is away every watcher is woken once a period.
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

__all__ = ["Wakes"]

_CHANNEL = "broker_grown"


class Wakes:
    """Those who watch topics of one adapter, and the thread that hears of other adapters' appends.

    Args:
        engine: where the thread's connection comes from; it is taken out of the engine's pool.
        period: seconds between two attempts to connect, while there is no connection, and between two looks whether
            it still holds.
    """

    def __init__(self, engine: sa.Engine, period: float) -> None:
        self._engine = engine
        self._period = period
        self._lock = threading.Lock()
        self._watchers: dict[int, list[Callable[[], None]]] = {}
        self._grown: set[int] = set()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._ear, self._mouth = os.pipe()

    @contextmanager
    def watch(self, topic_id: int, wake: Callable[[], None]) -> Iterator[None]:
        """Call *wake* when the topic may have grown, as long as the block lasts."""
        with self._lock:
            self._watchers.setdefault(topic_id, []).append(wake)
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._watchers[topic_id].remove(wake)

    def grown(self, topic_id: int) -> None:
        """Wake this adapter's watchers of the topic now, and other adapters' soon."""
        with self._lock:
            first = not self._grown
            self._grown.add(topic_id)
            self._start()
            if first and not self._stopping.is_set():
                os.write(self._mouth, b".")
        self._wake(topic_id)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._stopping.set()
            os.write(self._mouth, b".")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._ear)
        os.close(self._mouth)

    def _start(self) -> None:
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="broker-wakes", daemon=True)
            self._thread.start()

    def _wake(self, topic_id: int | None) -> None:
        with self._lock:
            wakes = [
                wake for each, wakes in self._watchers.items() if topic_id is None or each == topic_id for wake in wakes
            ]
        for wake in wakes:
            with contextlib.suppress(Exception):  # a watcher's fault is its own
                wake()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = self._connect()
            except (psycopg2.Error, sa_exc.SQLAlchemyError):
                self._pause()
                continue
            try:
                self._converse(connection)
            except (psycopg2.Error, OSError):
                self._pause()
            finally:
                with contextlib.suppress(psycopg2.Error):
                    connection.close()

    def _connect(self) -> Any:
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        assert connection is not None  # noqa: S101 - a connection just made has its driver's half
        connection.autocommit = True
        connection.cursor().execute(f"LISTEN {_CHANNEL}")
        return connection

    def _converse(self, connection: Any) -> None:
        self._wake(None)  # whatever was said while nobody listened
        own = connection.info.backend_pid
        while not self._stopping.is_set():
            ready, _, _ = select.select([connection, self._ear], [], [], self._period)
            if self._ear in ready:
                self._speak(connection)
            elif not ready:
                connection.cursor().execute("SELECT 1")
            connection.poll()
            heard = {int(notice.payload) for notice in connection.notifies if notice.pid != own}
            connection.notifies.clear()
            for topic_id in heard:
                self._wake(topic_id)

    def _speak(self, connection: Any) -> None:
        with self._lock:
            os.read(self._ear, 64)
            grown, self._grown = sorted(self._grown), set()
        if grown:
            connection.cursor().execute(
                "SELECT pg_notify(%s, topic::text) FROM unnest(%s::int[]) AS topic", (_CHANNEL, grown)
            )

    def _pause(self) -> None:
        self._wake(None)
        self._stopping.wait(self._period)

"""Worker of a change publisher: sends one table's changes while another thread reads the log."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from connectors.port import TableChanges
from connectors.publishing.change_groups import ChangeGroups
from connectors.publishing.change_table import ChangeTable
from connectors.publishing.outbox import RecordGroup

__all__ = ["ChangeWorkers", "Flight"]

_TICK = 0.5  # seconds between two looks at whether to go on
_QUEUED = 4  # batches of one table that wait for the pool
_AT_ONCE = 8  # batches of one table between two confirmations at most


class Flight:
    """A batch that was handed out: done, when every table's part of it is acknowledged."""

    def __init__(self, position: int, parts: int) -> None:
        self.position = position
        self._parts = parts
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Return whether all of it is acknowledged."""
        return self._parts == 0

    def part_done(self) -> None:
        """Register that a table's part of it is acknowledged."""
        with self._lock:
            self._parts -= 1


class _Worker(threading.Thread):
    """Sends one table's changes."""

    def __init__(self, table: ChangeTable) -> None:
        super().__init__(name=f"changes-{table.name}", daemon=True)
        self.error: BaseException | None = None
        self._table = table
        self._queue: queue.Queue[tuple[TableChanges, Flight] | None] = queue.Queue(_QUEUED)
        self._taken: list[Flight] = []
        self._abandoned = threading.Event()

    def offer(self, changes: TableChanges, flight: Flight) -> bool:
        """Queue changes; return False when there is no room for them within a moment."""
        try:
            self._queue.put((changes, flight), timeout=_TICK)
        except queue.Full:
            return False
        return True

    def finish(self) -> None:
        """Let it end after what is queued."""
        while self.is_alive():
            try:
                self._queue.put(None, timeout=_TICK)
            except queue.Full:
                continue
            return

    def abandon(self) -> None:
        """Let it end after what it is sending."""
        self._abandoned.set()

    def run(self) -> None:
        """Send until told to end."""
        try:
            while not self._abandoned.is_set():
                try:
                    item = self._queue.get(timeout=_TICK)
                except queue.Empty:
                    continue
                if item is None:
                    return
                self._send(item)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads
            self.error = error

    def _send(self, first: tuple[TableChanges, Flight]) -> None:
        groups = self._table.groups
        if groups is None:
            raise RuntimeError("the table has no position")
        self._taken = []
        self._table.lane.send(self._table.session.outbox, self._supply(groups, first), groups)
        groups.acknowledged()
        self._table.ledger.end_run(replace(groups.counters.run, outcome="streaming"))
        for flight in self._taken:
            flight.part_done()

    def _supply(self, groups: ChangeGroups, item: "tuple[TableChanges, Flight] | None") -> Iterator[RecordGroup]:
        """Return the records of what is queued now."""
        while item is not None:
            changes, flight = item
            self._taken.append(flight)
            yield from groups.groups(changes)
            if len(self._taken) == _AT_ONCE or self._abandoned.is_set():
                return
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is None:
                self._queue.put(None)


class ChangeWorkers:
    """One worker a table; a context manager, at whose end they have ended."""

    def __init__(self, tables: Mapping[str, ChangeTable]) -> None:
        self._workers = {name: _Worker(table) for name, table in tables.items()}

    def __enter__(self) -> Self:
        for worker in self._workers.values():
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.abandon()
        for worker in self._workers.values():
            worker.join()

    def offer(self, changes: TableChanges, flight: Flight) -> bool:
        """Queue changes of a table; return False when there is no room for them within a moment."""
        return self._workers[changes.table].offer(changes, flight)

    def check(self) -> None:
        """Raise what ended a worker, if anything did."""
        for worker in self._workers.values():
            if worker.error is not None:
                raise worker.error

    def finish(self, meanwhile: Callable[[], None]) -> None:
        """Wait until all that is queued is sent; raise what ended a worker.

        Args:
            meanwhile: called every moment.
        """
        for worker in self._workers.values():
            worker.finish()
        while any(worker.is_alive() for worker in self._workers.values()):
            meanwhile()
            for worker in self._workers.values():
                worker.join(_TICK / len(self._workers))
        self.check()
        meanwhile()

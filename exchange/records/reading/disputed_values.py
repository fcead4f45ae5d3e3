"""Disputed values of a read: records on which a correction ticket (校核) is open, for the mark in a fetch's answer.

A disputed value is served as any other, with a mark: a person with valid paper proof must not wait for the correction
(document 51 of 2016, Art. 15). A record that was published as a correction has no mark, and a grant that does not show
the disputed field tells nothing of it.

A process keeps the open tickets of all topics and reads them again when a fetch finds them older than a second. While
there are none, a fetch compares two numbers for it. Where they cannot be read, those of before are used: that a value
is disputed is information beside the record, and never a reason to hold it back.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from exchange.broker.port import ReadResult
from exchange.corrections.model import shows
from exchange.corrections.store import CorrectionStore, DisputedRecords
from exchange.records.reading.selection import Truths
from registry.database.unit_of_work import Database
from schemas.access import Grant
from schemas.errors import PoolError
from schemas.record import Operation

__all__ = ["DisputedValues"]

_SECONDS = 1.0


class DisputedValues:
    """Finds what of a read is disputed. Thread-safe.

    Args:
        store: of tickets.
        database: opens readers.
        monotonic: seconds.
    """

    def __init__(
        self, store: CorrectionStore, database: Database, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._database = database
        self._monotonic = monotonic
        self._records: DisputedRecords = {}
        self._until = -1.0  # by that clock, until when they are used
        self._lock = threading.Lock()

    def marked(self, grant: Grant, read: ReadResult) -> Truths | None:
        """Return which records of a read show a grant's consumer a disputed value; None if none does."""
        if self._monotonic() >= self._until:
            self._refresh()
        records = self._records.get(grant.topic)
        if not records:
            return None
        shown = {field for field in grant.fields if shows(grant, field)}
        disputed = {record for record, fields in records.items() if not shown.isdisjoint(fields)}
        return _marked(read, disputed) if disputed else None

    def _refresh(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # another thread reads them
        try:
            with suppress(PoolError), self._database.read() as reader:
                self._records = self._store.disputed(reader)
            self._until = self._monotonic() + _SECONDS
        finally:
            self._lock.release()


def _marked(read: ReadResult, disputed: set[bytes]) -> Truths | None:
    marks = np.zeros(len(read), np.bool_)
    base = 0
    for part in read.partitions:
        for index, key in enumerate(part.keys):
            if key in disputed and part.values[index] and part.mark(index) & 15 != Operation.CORRECT:
                marks[base + index] = True
        base += len(part)
    return marks if marks.any() else None

"""Delivery tracking: what a grant delivered, kept where every gateway finds it (the events: `delivered_keys`).

A release adds its events to the store in the transaction of its entry, for the positions that no release has covered
before. So the store is complete below `GrantPosition.tracked`, and beyond it nothing was delivered. A position's token
says how many releases with events there were when it was made: a gateway that has read so many needs no look-up in the
database, and one that has not reads the newer ones.

What a pool of the version before has delivered is found in the topic again, once, before the grant's next fetch.
"""

import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from exchange.access.grants.store import AccessStore, DeliveredRun, GrantPosition
from exchange.broker.port import Broker, ReadResult
from exchange.records.ports import GrantViews
from exchange.records.reading.delivered_keys import EMPTY, Events, Run, State, halves, merge
from exchange.records.reading.selection import Selection, Truths
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from schemas.access import Grant, History
from schemas.errors import GoneError, Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["Delivered", "DeliveryTracking", "is_tracked"]

_CACHED_EVENTS = 20_000_000  # of all grants in one gateway: 480 MB
_MERGED = 16  # runs of the store become one, 16 of those again one
_MAX_EVENTS = 1_000_000  # of a merged run in the store: 24 MB
_READ_RECORDS = 16_384
_READ_BYTES = 16 * 1024 * 1024
_SCAN_SECONDS = 5.0


def is_tracked(grant: Grant) -> bool:
    """Return whether a withdrawal under the grant could name a key that it did not deliver.

    It could not where every record of the topic is within the grant.
    """
    return grant.withdrawals and (grant.row_filter is not None or grant.history is not History.ALL)


class Delivered:
    """What a grant had delivered before a fetch; read from the store when it is asked for."""

    def __init__(self, tracking: "DeliveryTracking", grant: Grant, generation: int, runs: int) -> None:
        self._tracking, self._grant, self._generation, self._runs = tracking, grant, generation, runs
        self._events = Events()
        self._tracked: Positions | None = None  # below which the store is complete; read when it is first needed

    def withdrawn(
        self, read: ReadResult, delivered: Truths, candidates: Truths, left_out: Truths | None = None
    ) -> Truths:
        """Return which candidates of a read are withdrawals; the reads of one fetch come in order."""
        keys = [key for part in read.partitions for key in part.keys]
        if not candidates.any():
            self._events.add(keys, delivered)
            return candidates
        tracked = None if left_out is None else self._tracked_of(read)
        state = self._tracking.state(self._grant.stream_id, self._generation, self._runs)
        offsets = (offset for part in read.partitions for offset in part.offsets)
        return self._events.withdrawn(state, keys, offsets, delivered, candidates, left_out, tracked)

    def _tracked_of(self, read: ReadResult) -> Truths:
        """Return which records lie at positions that a release has covered before; all its events are then read."""
        if self._tracked is None:
            self._tracked, runs = self._tracking.tracked(self._grant, self._generation)
            self._runs = max(self._runs, runs)
        ends = self._tracked or (0,) * (1 + max((part.partition for part in read.partitions), default=0))
        parts = [np.asarray(part.offsets, np.uint64) < np.uint64(ends[part.partition]) for part in read.partitions]
        return np.concatenate([np.zeros(0, np.bool_), *parts])


class DeliveryTracking:
    """Reads and writes what grants delivered. Thread-safe."""

    def __init__(
        self,
        database: Database,
        access: AccessStore,
        broker: Broker,
        views: GrantViews,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        limit: int = _CACHED_EVENTS,
    ) -> None:
        self._database = database
        self._access = access
        self._broker = broker
        self._views = views
        self._monotonic = monotonic
        self._limit = limit
        self._states: OrderedDict[tuple[str, int], State] = OrderedDict()
        self._lock = threading.Lock()

    def before(self, grant: Grant, generation: int, runs: int) -> Delivered:
        """Return what the grant had delivered at a position whose token names *runs* releases."""
        return Delivered(self, grant, generation, runs)

    def tracked(self, grant: Grant, generation: int) -> tuple[Positions, int]:
        """Return below which positions the store is complete (empty: nowhere), and how many releases it has.

        Read in one statement, so that these releases have all events below these positions.
        """
        with self._database.read() as reader:
            stored = self._access.position(reader, grant.stream_id)
        return _tracked(stored, generation), stored.runs

    def state(self, grant_id: str, generation: int, runs: int) -> State:
        """Return a state of at least *runs* releases."""
        with self._lock:
            state = self._states.get((grant_id, generation), EMPTY)
        if state.count >= runs:
            return state
        with self._database.read() as reader:
            return self._load(reader, grant_id, generation, state)

    def complete(self, grant: Grant, topic: Topic, generation: int, position: Positions, floor: Positions) -> int:
        """Track what was delivered before a position; return how many releases with events there are.

        Called where no token of this version vouches for it. Usually there is nothing to do.

        Raises:
            UnavailableError: OVERLOADED, there is more to find out than fits one call; call again.
            ConflictError: VERSION_CONFLICT, another call did the same at this moment.
        """
        until = self._monotonic() + _SCAN_SECONDS
        while True:
            with self._database.read() as reader:
                stored = self._access.position(reader, grant.stream_id)
            released = _unpack(stored.released)
            tracked = _tracked(stored, generation) or floor
            if len(released) != len(floor):
                return stored.runs
            end = tuple(min(pair) for pair in zip(position, released, strict=True))
            if all(at >= last for at, last in zip(tracked, end, strict=True)):
                return stored.runs
            if self._monotonic() > until:
                raise UnavailableError(
                    Reason.OVERLOADED,
                    "the pool is finding out what this grant delivered before the pool was upgraded; fetch again from "
                    "the same position",
                    retry_after=1.0,
                )
            self._track(grant, topic, generation, stored, tracked, end)

    def record(
        self,
        work: UnitOfWork,
        grant: Grant,
        generation: int,
        stored: GrantPosition,
        moved: GrantPosition,
        new: Selection,
    ) -> tuple[GrantPosition, Run]:
        """Store what a release delivers; return the positions to be stored with it, and its run.

        The caller stores them by compare-and-set in the same transaction, and calls `released` after its commit.
        """
        heads, tails = halves(new.keys)
        tracked = _tracked(stored, generation)
        positions = np.asarray(new.offsets, np.uint64)
        delivered = np.diff(np.frombuffer(new.values.offsets, "<i4")) > 0
        if tracked:
            partitions = (heads % np.uint64(len(tracked))).astype(np.int64)
            fresh = positions >= np.asarray(tracked, np.uint64)[partitions]
            heads, tails, positions, delivered = heads[fresh], tails[fresh], positions[fresh], delivered[fresh]
        ends = tuple(max(pair) for pair in zip(tracked or new.next, new.next, strict=True))
        run = Run.of(heads, tails, positions, delivered)
        moved = replace(moved, tracked=_pack(generation, ends))
        if len(run):
            moved = replace(moved, runs=stored.runs + 1)
            self._store(work, grant.stream_id, generation, moved.runs, run)
        return moved, run

    def released(self, grant: Grant, generation: int, stored: GrantPosition, run: Run) -> None:
        """Take a run that was committed into the copy of this process."""
        key = (grant.stream_id, generation)
        with self._lock:
            state = self._states.get(key, EMPTY)
            if len(run) and state.count == stored.runs:
                self._keep(key, state.with_run(run, stored.runs + 1))

    def _track(
        self, grant: Grant, topic: Topic, generation: int, stored: GrantPosition, tracked: Positions, end: Positions
    ) -> None:
        """Track the deliveries of some more records."""
        ends = self._broker.ends(topic)
        after = tuple(
            max(at, first) if at < last else latest
            for at, last, first, latest in zip(tracked, end, ends.earliest, ends.latest, strict=True)
        )
        try:
            read = self._broker.read(topic, after, max_records=_READ_RECORDS, max_bytes=_READ_BYTES)
        except GoneError:  # retention was faster: the next call begins behind it
            return
        values = [value for part in read.partitions for value in part.values]
        keys = [key for part in read.partitions for key in part.keys]
        offsets = np.fromiter((offset for part in read.partitions for offset in part.offsets), np.uint64, len(keys))
        lasts = [np.full(len(part), end[part.partition], np.uint64) for part in read.partitions]
        within = offsets < np.concatenate([np.zeros(0, np.uint64), *lasts])
        selected = self._views.apply(grant, values).selected & within if values else np.zeros(0, np.bool_)
        gone = self.before(grant, generation, stored.runs).withdrawn(read, selected, within & ~selected)
        leaving = selected | gone
        heads, tails = halves(keys)
        run = Run.of(heads[leaving], tails[leaving], offsets[leaving], selected[leaving])
        reached = tuple(
            at if at >= last else max(at, min(last, next_))
            for at, last, next_ in zip(tracked, end, read.next, strict=True)
        )
        if read.next == after:  # no more records: what lies between them are markers, or was removed
            reached = tuple(max(pair) for pair in zip(tracked, end, strict=True))
        moved = replace(stored, tracked=_pack(generation, reached), runs=stored.runs + (1 if len(run) else 0))
        with self._database.begin() as work:
            self._access.replace_position(work, grant.stream_id, expected=stored, new=moved)
            if len(run):
                self._store(work, grant.stream_id, generation, moved.runs, run)
        self.released(grant, generation, stored, run)

    def _store(self, work: UnitOfWork, grant_id: str, generation: int, number: int, run: Run) -> None:
        """Store a run; merge those before it where their number is a multiple of 16, of 256 and so on."""
        span = _MERGED
        first, merged = number, run
        while number % span == 0:
            earlier = self._access.delivered_runs(work, grant_id, generation, number - span)
            runs = [Run.from_bytes(one.events) for one in earlier if number - span < one.first and one.last < first]
            if sum(map(len, runs)) + len(merged) > _MAX_EVENTS:
                break
            first, merged, span = number - span + 1, merge([*runs, merged]), span * _MERGED
        new = DeliveredRun(first=first, last=number, events=merged.to_bytes())
        self._access.replace_delivered_runs(work, grant_id, generation, new)

    def _load(self, reader: Reader, grant_id: str, generation: int, state: State) -> State:
        """Read the runs that are newer than a state; one that was merged brings some again, which changes nothing."""
        for stored in self._access.delivered_runs(reader, grant_id, generation, state.count):
            state = state.with_run(Run.from_bytes(stored.events), stored.last)
        key = (grant_id, generation)
        with self._lock:
            if state.count >= self._states.get(key, EMPTY).count:
                self._keep(key, state)
        return state

    def _keep(self, key: tuple[str, int], state: State) -> None:
        self._states[key] = state
        self._states.move_to_end(key)
        while len(self._states) > 1 and sum(map(len, self._states.values())) > self._limit:
            self._states.popitem(last=False)


def _tracked(stored: GrantPosition, generation: int) -> Positions:
    """Return below which positions deliveries are tracked; empty if none of this generation are."""
    numbers = _unpack(stored.tracked)
    return numbers[1:] if numbers and numbers[0] == generation else ()


def _pack(generation: int, positions: Sequence[int]) -> bytes:
    return struct.pack(f"<{1 + len(positions)}Q", generation, *positions)


def _unpack(vector: bytes) -> Positions:
    return struct.unpack(f"<{len(vector) // 8}Q", vector)

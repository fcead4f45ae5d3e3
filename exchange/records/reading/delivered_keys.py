"""Delivered keys: which keys a grant had delivered at a position of its topic. Pure, on columns.

A withdrawal may name only what the grant delivered before. That is a function of the stream: a void or a record that
does not match is a withdrawal if the last record of its key before it, from the grant's beginning on, was delivered. So
a replay from any position gives the same answers, and no mark of a connector is believed.

    event    (key, position, delivered or withdrawn); what a release with records adds, and nothing else
    run      events of one release, or of several merged: three columns, sorted by key, then by position
    state    the runs of a grant so far; a look-up asks for the last event of a key below a position

A run is 24 bytes an event. Runs of one state are merged as they come (each at least twice as long as the next), and a
merged run holds an event only where it differs from the one before it of the same key: a state of n keys takes 24 n
bytes and some, whatever was delivered how often.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exchange.records.reading.selection import Truths
from schemas.errors import CorruptError, Reason

__all__ = ["EMPTY", "Events", "Run", "State", "halves", "merge"]

Column = npt.NDArray[np.uint64]
_ROW = 24  # bytes of an event


@dataclass(frozen=True, slots=True)
class Run:
    """Events, sorted by both halves of the key, then by position.

    Attributes:
        heads, tails: first and last 8 bytes of the keys, as big-endian numbers.
        versions: 2 × position, and 1 where the record was delivered.
    """

    heads: Column
    tails: Column
    versions: Column

    @classmethod
    def of(cls, heads: Column, tails: Column, positions: Column, delivered: Truths) -> "Run":
        """Sort events into a run."""
        versions = positions * np.uint64(2) + delivered.astype(np.uint64)
        order = np.lexsort((versions, tails, heads))
        return cls(heads[order], tails[order], versions[order])

    @classmethod
    def from_bytes(cls, data: bytes) -> "Run":
        """Read a run as `to_bytes` wrote it.

        Raises:
            CorruptError: LOG_CORRUPT, it is none.
        """
        if len(data) % _ROW:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"got {len(data)} bytes of delivered keys; expected {_ROW} each. Restore the table access_delivered",
            )
        columns = np.frombuffer(data, "<u8").astype(np.uint64).reshape(3, -1)
        return cls(columns[0], columns[1], columns[2])

    def to_bytes(self) -> bytes:
        """Return the columns one after another, little-endian."""
        return b"".join(column.astype("<u8").tobytes() for column in (self.heads, self.tails, self.versions))

    def __len__(self) -> int:
        return len(self.heads)

    def last_before(self, heads: Column, tails: Column, before: Column) -> npt.NDArray[np.int8]:
        """Return, for each of n keys, the last event below a position: 1 delivered, 0 withdrawn, -1 none."""
        found = np.full(len(heads), -1, np.int8)
        begins = np.searchsorted(self.heads, heads, "left")
        ends = np.searchsorted(self.heads, heads, "right")
        at = ends - 1
        waiting = np.flatnonzero(ends > begins)
        while len(waiting):
            index = at[waiting]
            fits = (self.tails[index] == tails[waiting]) & (self.versions[index] >> np.uint64(1) < before[waiting])
            found[waiting[fits]] = (self.versions[index[fits]] & np.uint64(1)).astype(np.int8)
            waiting = waiting[~fits]
            at[waiting] -= 1
            waiting = waiting[at[waiting] >= begins[waiting]]
        return found


def merge(runs: Sequence[Run]) -> Run:
    """Return the runs as one, without events that repeat the one before them of the same key."""
    heads = np.concatenate([run.heads for run in runs])
    tails = np.concatenate([run.tails for run in runs])
    versions = np.concatenate([run.versions for run in runs])
    order = np.lexsort((versions, tails, heads))
    heads, tails, versions = heads[order], tails[order], versions[order]
    repeats = np.zeros(len(heads), np.bool_)
    repeats[1:] = (
        (heads[1:] == heads[:-1])
        & (tails[1:] == tails[:-1])
        & (versions[1:] & np.uint64(1) == versions[:-1] & np.uint64(1))
    )
    return Run(heads[~repeats], tails[~repeats], versions[~repeats])


@dataclass(frozen=True, slots=True)
class State:
    """The events of a grant's releases 1 to `count`, perhaps more; immutable.

    Attributes:
        count: releases with events.
        runs: oldest first.
    """

    count: int
    runs: tuple[Run, ...]

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def with_run(self, run: Run, count: int) -> "State":
        """Return the state with a newer run, up to release *count*."""
        runs = [*self.runs, run]
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            runs[-2:] = [merge(runs[-2:])]
        return State(count, tuple(runs))

    def delivered(self, heads: Column, tails: Column, before: Column) -> Truths:
        """Return which of n keys had been delivered, and not withdrawn since, at a position each."""
        found = np.full(len(heads), -1, np.int8)
        waiting = np.argsort(heads)  # searches in order touch less memory
        for run in reversed(self.runs):
            found[waiting] = run.last_before(heads[waiting], tails[waiting], before[waiting])
            waiting = waiting[found[waiting] < 0]
        result: Truths = found == 1
        return result


EMPTY = State(0, ())


class Events:
    """What a fetch has selected so far: finds the withdrawals among the records that follow."""

    def __init__(self) -> None:
        self._earlier: list[tuple[Sequence[bytes], Truths]] = []  # keys of reads, and which were delivered
        self._heads: Column = np.zeros(0, np.uint64)
        self._tails: Column = np.zeros(0, np.uint64)
        self._delivered: Truths = np.zeros(0, np.bool_)

    def add(self, keys: Sequence[bytes], delivered: Truths) -> None:
        """Add a read of which nothing can be a withdrawal."""
        self._earlier.append((keys, delivered))

    def withdrawn(
        self,
        state: State,
        keys: Sequence[bytes],
        offsets: Iterable[int],
        delivered: Truths,
        candidates: Truths,
        left_out: Truths | None = None,
        tracked: Truths | None = None,
    ) -> Truths:
        """Add a read of n records; return which of its candidates are withdrawals.

        Args:
            state: of the releases before this fetch.
            keys: pseudonyms; records of one key are in the order of their offsets.
            offsets: of the records.
            delivered: those that leave with a value.
            candidates: voids, and records that do not match or are left out.
            left_out: candidates whose value a later void retracts. What was delivered before such a record is withdrawn
                with it; but it does not tell that nothing was: the void behind it is told to every target that may
                still have the value.
            tracked: with `left_out`: the records at whose positions the state is complete, since a release has covered
                them before. There the state alone answers: what a replay leaves out was delivered once, so that what
                this fetch has seen is less than what happened.
        """
        for earlier, selected in self._earlier:
            heads, tails = halves(earlier)
            self._extend(heads[selected], tails[selected], selected[selected])
        self._earlier = []
        heads, tails = halves(keys)
        if left_out is not None:
            return self._one_by_one(
                state,
                heads,
                tails,
                np.fromiter(offsets, np.uint64),
                delivered,
                candidates,
                left_out,
                np.zeros(len(keys), np.bool_) if tracked is None else tracked,
            )
        rows = np.flatnonzero(delivered | candidates)
        known = len(self._heads)
        self._extend(heads[rows], tails[rows], delivered[rows])
        order = np.lexsort((self._tails, self._heads))  # stable: the events of one key stay in their order
        same = (self._heads[order][1:] == self._heads[order][:-1]) & (self._tails[order][1:] == self._tails[order][:-1])
        before = np.full(len(order), -1, np.int8)  # the event before each of the same key
        before[order[1:]] = np.where(same, self._delivered[order][:-1].astype(np.int8), -1)
        last = before[known:]
        unknown = (last < 0) & candidates[rows]
        if unknown.any():
            asked = rows[unknown]
            positions = np.fromiter(offsets, np.uint64, len(keys))[asked]
            last[unknown] = state.delivered(heads[asked], tails[asked], positions)
        gone = np.zeros(len(keys), np.bool_)
        gone[rows] = (last == 1) & candidates[rows]
        return gone

    def _one_by_one(
        self,
        state: State,
        heads: Column,
        tails: Column,
        offsets: Column,
        delivered: Truths,
        candidates: Truths,
        left_out: Truths,
        tracked: Truths,
    ) -> Truths:
        gone = np.zeros(len(heads), np.bool_)
        gone[candidates] = state.delivered(heads[candidates], tails[candidates], offsets[candidates])
        kept, after = delivered | candidates, delivered.copy()  # after: whether the key is delivered behind each record
        again = left_out & tracked
        after[again] = state.delivered(heads[again], tails[again], offsets[again] + np.uint64(1))
        earlier = zip(self._heads.tolist(), self._tails.tolist(), strict=True)
        last = dict(zip(earlier, self._delivered.tolist(), strict=True))
        for index in np.flatnonzero(delivered | candidates).tolist():
            key = int(heads[index]), int(tails[index])
            if not delivered[index] and not tracked[index]:
                gone[index] = last.get(key, bool(gone[index]))
                if left_out[index] and not gone[index]:
                    kept[index] = False
                    continue
            last[key] = bool(after[index])
        self._extend(heads[kept], tails[kept], after[kept])
        return gone

    def _extend(self, heads: Column, tails: Column, delivered: Truths) -> None:
        self._heads = np.concatenate((self._heads, heads))
        self._tails = np.concatenate((self._tails, tails))
        self._delivered = np.concatenate((self._delivered, delivered))


def halves(keys: Sequence[bytes]) -> tuple[Column, Column]:
    """Return the first and the last 8 bytes of 16-byte keys, as big-endian numbers."""
    both = np.frombuffer(b"".join(keys), ">u8").astype(np.uint64)
    return both[::2], both[1::2]

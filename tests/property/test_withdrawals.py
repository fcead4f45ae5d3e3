"""Whatever a topic's history is: a withdrawal names what was delivered and not withdrawn since, and nothing else.

The oracle is a dictionary: key → whether its last record was delivered.
"""

import random
from dataclasses import dataclass

import numpy as np
import pytest

from exchange.records.reading.delivered_keys import EMPTY, Events, Run, State, halves, merge
from schemas.errors import CorruptError
from tests.kit.share import count, random_of

HISTORIES = count(10_000, 300)


@dataclass(frozen=True)
class Record:
    key: bytes
    offset: int
    matches: bool


def history(draw: random.Random) -> list[Record]:
    """Return records of few keys, of which some share the first half; offsets have gaps."""
    heads = [draw.randbytes(8) for _ in range(draw.randrange(1, 6))]
    keys = [draw.choice(heads) + draw.randbytes(8) for _ in range(draw.randrange(1, 12))]
    offset, records = 0, []
    for _ in range(draw.randrange(60)):
        offset += draw.choice((1, 1, 1, 2, 7))
        records.append(Record(draw.choice(keys), offset, draw.random() < 0.6))
    return records


def naive(records: list[Record]) -> list[bool]:
    shown: dict[bytes, bool] = {}
    gone = []
    for record in records:
        gone.append(not record.matches and shown.get(record.key, False))
        shown[record.key] = record.matches
    return gone


class Reader:
    """A grant's consumer: fetches of several reads, whose events become runs."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.state = EMPTY
        self.stored: list[Run] = []

    def read(self, records: list[Record], *, store: bool) -> list[bool]:
        """Fetch all of it in pieces; return which records are withdrawals."""
        found: list[bool] = []
        at = 0
        while at < len(records):
            fetch = records[at : at + self.draw.randrange(1, 20)]
            at += len(fetch)
            events, gone = Events(), []
            while fetch:
                page = fetch[: self.draw.randrange(1, 12)]
                fetch = fetch[len(page) :]
                gone += self._page(events, page)
            pages = records[at - len(gone) : at]
            found += gone
            if store:
                self._store(pages, gone)
        return found

    def _page(self, events: Events, page: list[Record]) -> list[bool]:
        keys, matches = [record.key for record in page], np.array([record.matches for record in page])
        if matches.all():
            events.add(keys, matches)
            return [False] * len(page)
        offsets = [record.offset for record in page]
        return events.withdrawn(self.state, keys, offsets, matches, ~matches).tolist()

    def _store(self, records: list[Record], gone: list[bool]) -> None:
        leaving = [record for record, left in zip(records, gone, strict=True) if record.matches or left]
        if not leaving:
            return
        heads, tails = halves([record.key for record in leaving])
        positions = np.array([record.offset for record in leaving], np.uint64)
        run = Run.of(heads, tails, positions, np.array([record.matches for record in leaving]))
        assert Run.from_bytes(run.to_bytes()).to_bytes() == run.to_bytes()
        self.stored.append(run)
        self.state = self.state.with_run(run, self.state.count + 1)


@pytest.mark.counted
def test_withdrawals_are_those_of_a_dictionary_and_every_replay_gives_the_same() -> None:
    draw = random_of("withdrawals")
    for _ in range(HISTORIES):
        records = history(draw)
        expected = naive(records)
        reader = Reader(draw)
        assert reader.read(records, store=True) == expected
        begin = draw.randrange(len(records) + 1)
        assert reader.read(records[begin:], store=False) == expected[begin:], "from any position, in other pieces"
        # Another gateway: it has the runs from the store, some merged, one of them twice.
        other = Reader(draw)
        if reader.stored:
            some = draw.randrange(len(reader.stored)) + 1
            other.state = EMPTY.with_run(merge(reader.stored[:some]), some)
            for run in reader.stored[draw.randrange(some + 1) :]:
                other.state = other.state.with_run(run, other.state.count + 1)
        assert other.read(records[begin:], store=False) == expected[begin:]


def test_a_state_does_not_grow_with_repeated_deliveries() -> None:
    key = halves([b"k" * 16])
    state = EMPTY
    for offset in range(100):
        state = state.with_run(Run.of(*key, np.array([offset], np.uint64), np.array([True])), offset + 1)
    assert len(state) < 8
    assert state.delivered(*key, np.array([1], np.uint64)).tolist() == [True]
    assert state.delivered(*key, np.array([0], np.uint64)).tolist() == [False], "before its first delivery"


def test_columns_that_are_cut_are_refused() -> None:
    with pytest.raises(CorruptError, match="access_delivered"):
        Run.from_bytes(bytes(23))


def test_a_state_is_not_changed_by_a_newer_one() -> None:
    key = halves([b"k" * 16])
    before = EMPTY.with_run(Run.of(*key, np.array([5], np.uint64), np.array([True])), 1)
    after = before.with_run(Run.of(*key, np.array([9], np.uint64), np.array([False])), 2)
    at = np.array([10], np.uint64)
    assert (before.delivered(*key, at).tolist(), after.delivered(*key, at).tolist()) == ([True], [False])
    assert isinstance(after, State)


@pytest.mark.counted
def test_a_void_reaches_every_target_that_may_still_have_the_value() -> None:
    """Whatever was delivered before a key was retracted, and wherever a target begins again, it loses the key."""
    draw = random_of("retractions")
    for _ in range(HISTORIES):
        records = history(draw)
        live = Reader(draw)
        targets = [set[bytes]()]  # what a target has after each record
        for record, gone in zip(records, live.read(records, store=True), strict=True):
            has = targets[-1] | {record.key} if record.matches else targets[-1]
            targets.append(has - {record.key} if gone else has)
        if not records:
            continue
        retracted = draw.choice(records).key
        void = Record(retracted, records[-1].offset + 1, matches=False)
        delivered = np.array([record.matches and record.key != retracted for record in [*records, void]])
        left_out = np.array([record.key == retracted for record in records] + [False])
        # From where it stands, from a state that it was set back to, or from the beginning with all that it has.
        begin = draw.randrange(len(records) + 1)
        for begin_at, target in ((len(records), targets[-1]), (begin, targets[begin]), (0, targets[-1])):
            rest = [*records, void][begin_at:]
            keys, offsets = [record.key for record in rest], [record.offset for record in rest]
            shown = delivered[begin_at:]
            tracked = np.arange(begin_at, len(records) + 1) < len(records)
            gone = Events().withdrawn(live.state, keys, offsets, shown, ~shown, left_out[begin_at:], tracked)
            assert retracted not in target or any(gone[index] for index, key in enumerate(keys) if key == retracted)
            ever = {record.key for record in records if record.matches}
            assert {key for key, left in zip(keys, gone, strict=True) if left} <= ever


def replay_retracted(draw: random.Random, state: State, records: list[Record], voids: list[Record]) -> list[bool]:
    """Fetch records whose keys were retracted by the voids behind them, in pieces; return which are withdrawals."""
    retracted, rest, found = {void.key for void in voids}, [*records, *voids], list[bool]()
    while len(found) < len(rest):
        events, left = Events(), draw.randrange(1, 20)
        while left > 0 and len(found) < len(rest):
            page = rest[len(found) : len(found) + draw.randrange(1, 12)]
            left -= len(page)
            tracked = np.array([one.offset < voids[0].offset for one in page])
            covered = np.array([one.key in retracted for one in page]) & tracked
            shown = np.array([one.matches for one in page]) & ~covered
            keys, offsets = [one.key for one in page], [one.offset for one in page]
            left_out = covered if covered.any() else None
            found += events.withdrawn(state, keys, offsets, shown, ~shown, left_out, tracked).tolist()
    return found


@pytest.mark.counted
def test_replays_are_equal_where_keys_were_retracted() -> None:
    """What a replay leaves out was delivered once: in whatever pieces it is fetched, the withdrawals are the same."""
    draw = random_of("replays of retractions")
    for _ in range(HISTORIES):
        records = history(draw)
        live = Reader(draw)
        live.read(records, store=True)
        keys = sorted({record.key for record in draw.sample(records, min(len(records), 3))})
        voids = [Record(key, records[-1].offset + at, matches=False) for at, key in enumerate(keys, 1)]
        if voids:
            first, second = (replay_retracted(draw, live.state, records, voids) for _ in range(2))
            assert first == second

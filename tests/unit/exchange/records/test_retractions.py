"""Which records of a batch are retractions, and what they keep back of a read."""

import struct
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from exchange.broker.memory import MemoryBroker
from exchange.broker.port import Ends, PartitionRecords, ReadResult
from exchange.erasure.retractions import MemoryRetractions, Retraction
from exchange.records.retractions import RetractionCache, has_retraction, read_retractions, retractions_in
from registry.database.unit_of_work import MemoryDatabase
from schemas.errors import CorruptError, UnavailableError
from schemas.names import Topic
from schemas.record import Positions
from tests.kit.cases.broker import batch, fresh_topic, lane_of

NOW = 1_800_000_000_000_000
UPSERT, VOID = 0x21, 0x23
FROM, UNTIL = struct.pack("<qq", NOW, 0), struct.pack("<qq", 0, NOW)
TOPIC = Topic.parse("permits.v1")


def key(number: int) -> bytes:
    return struct.pack("<QQ", number % 3, number)  # many with the same first half


def read(*records: tuple[int, int, bool], partition: int = 0) -> ReadResult:
    """Return a read of (number of the key, offset, is a void)."""
    part = PartitionRecords(
        partition=partition,
        offsets=[offset for _, offset, _ in records],
        keys=[key(number) for number, _, _ in records],
        values=[None if is_void else b"value" for _, _, is_void in records],
        recorded_at=[NOW] * len(records),
        mark=lambda _: UPSERT,
        valid=lambda _: b"",
    )
    return ReadResult(partitions=(part,), next=(0,))


class Pool:
    def __init__(self, limit: int = 1000) -> None:
        self.db = MemoryDatabase()
        self.store = MemoryRetractions(lambda: NOW)
        self.cache = RetractionCache(self.store, self.db, limit=limit)

    def add(self, number: int, position: int) -> None:
        with self.db.begin() as work:
            self.store.add(work, TOPIC, [Retraction(key=key(number), partition=0, position=position)])

    def hidden(self, of: ReadResult) -> list[bool]:
        """Return what a release of this read finds hidden in the end."""
        while True:
            blocked = self.cache.blocked(TOPIC, of)
            with self.db.begin() as work:
                if self.cache.still_blocked(work, TOPIC, of, blocked):
                    return [False] * len(of) if blocked is None else blocked.hidden.tolist()


@pytest.mark.parametrize(
    ("mark", "valid", "expected"),
    [(UPSERT, b"", False), (VOID, b"", True), (VOID, bytes(16), True), (VOID, FROM, False), (VOID, UNTIL, True)],
)
def test_a_void_is_a_retraction_unless_it_states_from_when_it_is_valid(mark: int, valid: bytes, expected: bool) -> None:
    assert has_retraction(bytes([UPSERT, mark]), bytes(16) + valid if valid else b"") is expected


def test_the_retractions_of_a_batch_have_the_positions_of_their_voids() -> None:
    broker, topic = MemoryBroker(), fresh_topic()
    broker.create_topic(topic)
    marks = bytes([UPSERT, VOID, VOID, UPSERT, VOID] * 8)
    valid = b"".join([FROM if index % 5 == 4 else bytes(16) for index in range(40)])
    first = batch(lane_of(topic), 1, range(40))
    second = batch(lane_of(topic), 2, range(40), marks=marks)
    second = replace(second, valid=valid)
    for sent in (first, second):
        (appended,) = broker.append([sent], lambda *_: None)
    found = retractions_in(second, appended)
    stored = broker.read(topic, (0,) * 4, max_records=1000, max_bytes=1 << 20)
    voids = {
        (part.partition, offset, part.keys[index])
        for part in stored.partitions
        for index, offset in enumerate(part.offsets)
        if part.values[index] is None and part.valid(index) != FROM
    }
    assert {(one.partition, one.position, one.key) for one in found} == voids
    assert len(found) == 16
    assert sorted(map(repr, read_retractions(broker, appended))) == sorted(map(repr, found))
    assert retractions_in(first, appended) == []


def test_the_retractions_behind_an_open_transaction_are_waited_for() -> None:
    """A gateway that was killed leaves a transaction open; what another one committed behind it cannot be read yet."""

    class Behind(MemoryBroker):
        readable: Positions | None = None

        def ends(self, topic: Topic) -> Ends:
            found = super().ends(topic)
            return found if self.readable is None else replace(found, latest=self.readable)

    broker, topic = Behind(), fresh_topic()
    broker.create_topic(topic)
    (appended,) = broker.append([batch(lane_of(topic), 1, range(40), marks=bytes([VOID] * 40))], lambda *_: None)
    latest = broker.ends(topic).latest
    for broker.readable in ((0, *latest[1:]), (*latest[:3], latest[3] - 1)):
        with pytest.raises(UnavailableError) as waits:
            read_retractions(broker, appended)
        assert waits.value.retry_after
    broker.readable = None
    assert len(read_retractions(broker, appended)) == 40


@pytest.mark.parametrize("limit", [1000, 1], ids=["cached", "too many to cache"])
def test_a_value_before_the_void_of_its_key_is_hidden_and_one_after_it_is_not(limit: int) -> None:
    pool = Pool(limit)
    pool.add(1, 10)
    pool.add(4, 30)
    assert pool.hidden(read((1, 9, False), (1, 11, False), (4, 12, False), (7, 13, False), (2, 14, False))) == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_what_is_retracted_after_the_selection_is_found_before_the_release() -> None:
    pool, of = Pool(), read((1, 5, False), (2, 6, False))
    blocked = pool.cache.blocked(TOPIC, of)
    assert blocked is None
    pool.add(9, 20)
    with pool.db.begin() as work:
        assert pool.cache.still_blocked(work, TOPIC, of, blocked), "another key"
    pool.add(2, 21)
    with pool.db.begin() as work:
        assert not pool.cache.still_blocked(work, TOPIC, of, blocked)
    assert pool.hidden(of) == [False, True]


def test_a_grant_approved_after_the_retraction_is_not_told_of_the_void() -> None:
    pool = Pool()
    pool.add(1, 10)
    blocked = pool.cache.blocked(TOPIC, read((1, 10, True), (1, 5, True), (1, 11, True), (2, 12, True)))
    assert blocked is not None
    before, after = (datetime.fromtimestamp(NOW // 1_000_000 + seconds, UTC) for seconds in (-1, 1))
    assert blocked.silent(before).tolist() == [False] * 4
    assert blocked.silent(None).tolist() == [False] * 4
    assert blocked.silent(after).tolist() == [True, True, False, False]


def test_nothing_is_released_from_a_store_that_was_set_back() -> None:
    pool = Pool()
    pool.add(1, 10)
    pool.add(2, 10)
    assert pool.hidden(read((1, 5, False), (2, 5, False))) == [True, True]
    pool.store.__init__(lambda: NOW)  # type: ignore[misc]
    pool.add(2, 10)
    with pytest.raises(CorruptError):
        pool.hidden(read((1, 5, False), (2, 5, False)))


def test_topics_that_were_not_read_lately_make_room() -> None:
    pool = Pool(limit=3)
    for number in range(3):
        pool.add(number, 10)
    other = Topic.parse("others.v1")
    with pool.db.begin() as work:
        pool.store.add(work, other, [Retraction(key=key(1), partition=0, position=10)])
    assert pool.hidden(read((1, 5, False))) == [True]
    blocked = pool.cache.blocked(other, read((1, 5, False)))
    assert blocked is not None
    assert sum(len(one) for one in pool.cache._cached.values() if one is not None) <= 3
    assert pool.hidden(read((1, 5, False), (2, 5, False))) == [True, True]

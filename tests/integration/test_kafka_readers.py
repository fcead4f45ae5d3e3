"""Many subscribers on few consumers, and what they are told when retention is faster than they are."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import cast

import pytest
from kafka import TopicPartition

from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.consumers import Fetched, _PooledConsumer, partition_records
from exchange.broker.kafka.message import Message
from exchange.broker.kafka.read_check import columns_of
from exchange.broker.kafka.settings import admin
from exchange.broker.port import ReadResult
from schemas.errors import GoneError, Reason
from schemas.names import Topic
from tests.kit.cases.broker import KEY, append, at_once, batch, fresh_topic, lane_of, read_all
from tests.kit.patience import PATIENCE
from tests.kit.world.kafka import Node

pytestmark = pytest.mark.kafka


@pytest.fixture
def broker(kafka_node: Node) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(kafka_node.settings(max_consumers=2), key=KEY)
    yield broker
    broker.close()


@pytest.fixture
def assigned(monkeypatch: pytest.MonkeyPatch) -> list[Topic]:
    """Note every consumer that is assigned again."""
    noted: list[Topic] = []
    real = _PooledConsumer.assign

    def assign(pooled: _PooledConsumer, topic: Topic, at: object) -> None:
        noted.append(topic)
        real(pooled, topic, at)  # type: ignore[arg-type]

    monkeypatch.setattr(_PooledConsumer, "assign", assign)
    return noted


def filled(broker: KafkaBroker, batches: int, *, size: int = 0) -> Topic:
    topic = fresh_topic("readers")
    broker.create_topic(topic)
    for first in range(1, batches + 1, 4):
        numbers = range(first, min(first + 4, batches + 1))
        append(broker, *(batch(lane_of(topic), number, range(1000), size=size) for number in numbers))
    return topic


class Place(tuple[int, ...]):  # noqa: SLOT001 - a tuple of any length can have none
    """Positions that tell when they were looked up: a caller that has looked them up is in a flight."""

    looked: threading.Event

    def __hash__(self) -> int:
        self.looked.set()
        return super().__hash__()


def test_those_who_wake_at_the_same_place_share_a_read(broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = filled(broker, 1)
    places = [Place((0,) * broker.topic(topic).partitions) for _ in range(15)]
    for place in places:
        place.looked = threading.Event()
    go = threading.Event()
    reads: list[Topic] = []
    real = broker._consumers.read

    def held(topic: Topic, *place: object, **bounds: int) -> Fetched:
        reads.append(topic)
        assert go.wait(60)
        return real(topic, *place, **bounds)  # type: ignore[arg-type]

    monkeypatch.setattr(broker._consumers, "read", held)

    def let_go() -> None:
        assert all(place.looked.wait(60) for place in places)
        go.set()

    def read(place: Place) -> ReadResult:
        return broker.read(topic, place, max_records=10_000, max_bytes=10**8)

    *slices, _ = at_once(*[partial(read, place) for place in places], let_go)
    assert all(sum(len(records.offsets) for records in each.partitions) for each in slices)  # a read may stop early
    assert len(reads) == len({id(each) for each in slices}) == 2


class Touchy:
    """A message whose headers are parsed at the first call: two threads in it at once are the end of the process."""

    def __init__(self) -> None:
        self.busy, self.torn = 0, False

    def headers(self) -> list[tuple[str, bytes]]:
        self.busy += 1
        time.sleep(0.002)
        self.torn = self.torn or self.busy > 1
        self.busy -= 1
        return [("ce_type", b"pool.upsert.first")]

    def offset(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return (0, 0)

    key = value = bytes


def test_readers_who_share_a_slice_look_at_its_headers_one_at_a_time() -> None:
    message = Touchy()
    records = partition_records(0, columns_of([cast("Message", message)]))
    at_once(*[lambda: (records.mark(0), records.valid(0))] * 8)
    assert not message.torn


def test_twenty_readers_on_two_consumers_each_get_everything(broker: KafkaBroker) -> None:
    topics = [filled(broker, 2) for _ in range(4)]
    readers = [lambda topic=topic: read_all(broker, topic, step=400) for topic in topics * 5]
    assert [len(found) for found in at_once(*readers)] == [2000] * 20  # type: ignore[arg-type]
    assert broker._consumers._open_count == 2


def test_a_reader_who_goes_on_keeps_his_consumer(broker: KafkaBroker, assigned: list[Topic]) -> None:
    topic = filled(broker, 8)
    position, count, reads = broker.ends(topic).earliest, 0, 0
    while count < 7000:
        part = broker.read(topic, position, max_records=300, max_bytes=1 << 20)
        position, count, reads = part.next, count + len(part), reads + 1
    assert reads >= 20
    assert len(assigned) <= 3


def test_at_the_end_no_consumer_goes_on_asking(broker: KafkaBroker, assigned: list[Topic]) -> None:
    topic = filled(broker, 1)
    assert len(read_all(broker, topic)) == 1000
    limit = time.monotonic() + PATIENCE
    while any(pooled.topic is not None for pooled in broker._consumers._idle):
        assert time.monotonic() < limit
        broker._consumers.unassign_idle()
        time.sleep(0.1)
    before = len(assigned)
    latest = broker.ends(topic).latest
    for _ in range(5):
        assert len(broker.read(topic, latest, max_records=10, max_bytes=1000)) == 0
    assert len(assigned) == before


def test_a_reader_whom_retention_overtakes_is_told_and_nothing_is_skipped(
    broker: KafkaBroker, kafka_node: Node
) -> None:
    topic, noise = fresh_topic("readers"), random.Random(5)
    broker.create_topic(topic, retention=timedelta(days=30))
    for number in range(1, 21):  # 20 MB that do not compress: far more than a consumer fetches ahead
        sent = batch(lane_of(topic), number, range(1000))
        append(broker, replace(sent, values=[bytes(5) + noise.randbytes(1000) for _ in sent.keys]))
    part = broker.read(topic, broker.ends(topic).earliest, max_records=100, max_bytes=1 << 20)
    keep = tuple(end - 10 for end in broker.ends(topic).latest)
    client = admin(kafka_node.settings(kafka_node.operator))
    client.delete_records({TopicPartition(str(topic), number): offset for number, offset in enumerate(keep)})
    client.close()

    def go_on() -> None:
        position = part.next
        for _ in range(1000):
            # What had been fetched before may still come; then the truth.
            got = broker.read(topic, position, max_records=1000, max_bytes=1 << 20)
            for records in got.partitions:
                assert records.offsets[0] - position[records.partition] <= 1  # a marker at most
            position = got.next

    with pytest.raises(GoneError) as raised:
        go_on()
    assert raised.value.reason is Reason.POSITION_GONE
    assert raised.value.details["earliest"] == ",".join(map(str, keep))


def test_a_thousand_watchers_cost_one_consumer(broker: KafkaBroker) -> None:
    topics = [filled(broker, 1) for _ in range(2)]
    before = threading.active_count()
    woken = [threading.Event() for _ in range(1000)]
    with contextlib.ExitStack() as stack:
        for index, event in enumerate(woken):
            stack.enter_context(broker.watch(topics[index % 2], event.set))
        assert threading.active_count() <= before + 1
        append(broker, batch(lane_of(topics[0]), 2))
        for event in woken[::2]:
            assert event.wait(10)


def test_who_stands_where_a_look_at_receipts_began_misses_nothing(broker: KafkaBroker) -> None:
    """A look through a batch's range reads on from its consumer; it must not be lent to a reader as untouched."""
    topic = fresh_topic("readers")
    broker.create_topic(topic, partitions=1)
    for number in range(1, 16):
        append(broker, batch(lane_of(topic), number, range(1000), partitions=1, size=4000))
    state = broker.peek_lane(lane_of(topic))
    assert state is not None
    first = next(receipt for receipt in state.receipts if receipt.sequence == 1)
    (run,) = first.runs
    assert broker.find_incomplete([first]) == []
    part = broker.read(topic, (run.first,), max_records=10, max_bytes=1 << 20)
    assert part.partitions[0].offsets[0] == run.first


def test_what_a_consumer_holds_is_counted_the_same_when_it_comes_and_when_it_goes(broker: KafkaBroker) -> None:
    topic = filled(broker, 8)
    position, open_before_the_end = broker.ends(topic).earliest, 0
    for _ in range(10):
        position = broker.read(topic, position, max_records=300, max_bytes=1 << 20).next
        for pooled in broker._consumers._idle:
            held = [message for messages in pooled._buffered.values() for message in messages]
            assert pooled._bytes == sum(len(message) + len(message.key()) for message in held)
            open_before_the_end += bool(held)
    assert open_before_the_end

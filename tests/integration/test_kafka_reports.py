"""Which offsets a batch got, told by the delivery reports of its first and last record in each partition."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from kafka.admin import ConfigResource, ConfigResourceType

from exchange.broker.kafka import producers, transaction
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import admin
from exchange.broker.kafka.topics import lane_group
from exchange.broker.port import Append
from schemas.errors import InvalidError, Reason
from schemas.names import Lane, Topic
from tests.kit.cases.broker import KEY, HookCalls, append, batch, expected, fresh_topic, lane_of, positions_of, read_all
from tests.kit.patience import PATIENCE
from tests.kit.world.kafka import Node

pytestmark = pytest.mark.kafka

Act = Callable[[], object]


@pytest.fixture
def brokers(kafka_node: Node) -> Iterator[list[KafkaBroker]]:
    both = [KafkaBroker(kafka_node.settings(max_consumers=4), key=KEY) for _ in range(2)]
    yield both
    for broker in both:
        broker.close()


@pytest.fixture
def topic(brokers: list[KafkaBroker]) -> Topic:
    made = fresh_topic("reports")
    brokers[0].create_topic(made)
    return made


class Interrupted:
    """A producer that does something else before one of its records, when all before that one are on the brokers."""

    def __init__(self, producer: Producer, at: int, act: Act) -> None:
        self._producer, self._left, self._act = producer, at, act
        self.poll = producer.poll

    def produce(self, *args: Any, **named: Any) -> None:
        if not self._left:
            assert not self._producer.flush(10)
            self._act()
        self._left -= 1
        self._producer.produce(*args, **named)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lane, int, Act], list[bool]]:
    """Let something happen in the middle of a lane's appends; gives which of them had each record reported."""
    real = transaction._produce

    def of(lane: Lane, at: int, act: Act) -> list[bool]:
        each_reported: list[bool] = []

        def produce(producer: Any, sent: Append, *args: Any, report_each: bool, **named: Any) -> Any:
            if sent.lane == lane:
                each_reported.append(report_each)
                producer = Interrupted(producer, at, act)
            return real(producer, sent, *args, report_each=report_each, **named)

        monkeypatch.setattr(transaction, "_produce", produce)
        return each_reported

    return of


def test_a_lane_that_writes_alone_has_only_ends_reported(
    brokers: list[KafkaBroker], topic: Topic, interrupt: Callable[..., list[bool]]
) -> None:
    lane = lane_of(topic)
    each = interrupt(lane, 4, lambda: None)  # flushed in the middle: more than one set a partition, still in a row
    sent = [batch(lane, 1, range(300)), batch(lane, 2, range(1)), batch(lane, 3, range(50, 90), salt="three")]
    got = append(brokers[0], *sent)
    got += append(brokers[0], batch(lane, 4, range(7)))
    sent.append(batch(lane, 4, range(7)))
    assert each == [False] * 4
    assert all(len(one.runs) == len(set(made.partitions)) for one, made in zip(got, sent, strict=True))
    found = {(record.partition, record.position): record for record in read_all(brokers[1], topic)}
    for one, made in zip(got, sent, strict=True):
        assert [found.pop(place) for place in sorted(positions_of(one.runs))] == expected(one, made)
    assert not found


@pytest.mark.parametrize("at", [1, 150, 299])
def test_what_others_write_in_between_is_not_in_the_runs(
    brokers: list[KafkaBroker],
    topic: Topic,
    interrupt: Callable[..., list[bool]],
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane, other = lane_of(topic), lane_of(topic, "other")
    numbers = [3, 2, 1]

    def write_too() -> None:
        if numbers:
            append(brokers[1], batch(other, numbers.pop(), range(40)))

    each = interrupt(lane, at, write_too)
    mine = [batch(lane, number, range(300)) for number in (1, 2)]
    got = [append(brokers[0], one)[0] for one in mine]
    # Begun again once, with each record reported, and so from then on for a while.
    assert each == [False, True, True]
    found = {(record.partition, record.position): record for record in read_all(brokers[1], topic)}
    for one, made in zip(got, mine, strict=True):
        assert sum(run.last - run.first + 1 for run in one.runs) == 300
        assert [found.pop(place) for place in sorted(positions_of(one.runs))] == expected(one, made)
    assert len(found) == 120
    assert not numbers
    assert len(got[0].runs) > len(set(mine[0].partitions))
    monkeypatch.setattr(producers, "_REPORT_EACH_SECONDS", 0.0)
    append(brokers[0], replace(mine[0], sequence=3, digest=bytes(32)))
    assert each[3] is False


LARGE = bytes(5) + random.Random(3).randbytes(1_500_000)  # more than librdkafka puts in one set


@pytest.fixture
def narrow(brokers: list[KafkaBroker], topic: Topic, kafka_node: Node) -> Topic:
    """The topic, when it takes no set of that size any more."""
    append(brokers[0], batch(lane_of(topic), 1, range(20)))
    client = admin(kafka_node.settings(kafka_node.operator))
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, str(topic), {"max.message.bytes": "200000"})])
    client.close()
    return topic


def test_a_record_that_fails_alone_takes_its_batch_with_it(
    brokers: list[KafkaBroker], narrow: Topic, interrupt: Callable[..., list[bool]]
) -> None:
    lane = lane_of(narrow)
    each = interrupt(lane, -1, lambda: None)
    large = batch(lane, 2, range(300))
    values = list(large.values)
    values[150] = LARGE
    assert large.partitions[150] in large.partitions[:150]
    assert large.partitions[150] in large.partitions[151:]  # so that it is none of those that are reported
    hook = HookCalls()
    with pytest.raises(InvalidError) as raised:
        brokers[0].append([replace(large, values=values)], hook)
    assert raised.value.reason is Reason.BATCH_TOO_LARGE
    assert each[0] is False
    assert hook.calls == []
    assert len(read_all(brokers[1], narrow)) == 20
    append(brokers[0], large)
    assert len(read_all(brokers[1], narrow)) == 320


def test_a_transaction_of_which_a_record_failed_unreported_cannot_be_committed(
    brokers: list[KafkaBroker], narrow: Topic, kafka_node: Node
) -> None:
    """librdkafka's own promise, on which the reports of the ends alone rest."""
    name = lane_group(lane_of(narrow, "bare"))
    producer = Producer(kafka_node.settings().producer(name))
    transaction.initialise(producer, lane_of(narrow, "bare"), time.monotonic() + PATIENCE)
    producer.begin_transaction()
    for value in (b"before", LARGE):
        producer.produce(str(narrow), value, bytes(16), 0)
    producer.flush(10)
    with pytest.raises(KafkaException) as raised:
        transaction.commit(producer, time.monotonic() + PATIENCE)
    assert transaction.requires_abort(raised.value)
    transaction.abort(producer)
    assert len(read_all(brokers[1], narrow)) == 20

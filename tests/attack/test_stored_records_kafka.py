"""Attacks on records in Kafka by its administrator that a read finds; the others are found by `pool broker verify`."""

from contextlib import closing
from datetime import timedelta

import pytest
from kafka import TopicPartition

from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import admin
from exchange.broker.port import RecordsCorruptError, Retention
from schemas.errors import ConflictError, GoneError
from schemas.names import Topic
from tests.kit.cases.broker import append, batch, fresh_topic, lane_of, read_all
from tests.kit.world.kafka import Node

pytestmark = pytest.mark.kafka


def filled(broker: KafkaBroker, retention: timedelta | None = None) -> Topic:
    topic = fresh_topic("attacked")
    broker.create_topic(topic, partitions=2, retention=retention)
    for sequence in (1, 2, 3):
        append(broker, batch(lane_of(topic), sequence, range(8), partitions=2))
    return topic


def remove_first(node: Node, topic: Topic) -> None:
    client = admin(node.settings(node.operator))
    client.delete_records({TopicPartition(str(topic), 0): 3})
    client.close()


def test_removed_first_records_of_a_topic_that_keeps_them_are_corrupt_and_no_retention(kafka_node: Node) -> None:
    alarms: list[RecordsCorruptError] = []
    with closing(KafkaBroker(kafka_node.settings(), alarm=alarms.append)) as broker:
        topic = filled(broker)
        assert len(read_all(broker, topic)) == 24
        remove_first(kafka_node, topic)
        with pytest.raises(RecordsCorruptError):
            broker.ends(topic)
    other = KafkaBroker(kafka_node.settings(), alarm=alarms.append)
    with closing(other), pytest.raises(RecordsCorruptError):
        other.read(topic, (0, 0), max_records=100, max_bytes=1 << 20)
    assert {(alarm.topic, alarm.partition, alarm.offsets) for alarm in alarms} == {(str(topic), 0, (0, 2))}


def test_what_retention_removed_is_gone_and_not_corrupt(kafka_node: Node) -> None:
    with closing(KafkaBroker(kafka_node.settings(kafka_node.operator))) as broker:
        topic = filled(broker, timedelta(days=9))
        remove_first(kafka_node, topic)
        assert broker.ends(topic).earliest == (3, 0)
        with pytest.raises(GoneError):
            broker.read(topic, (0, 0), max_records=100, max_bytes=1 << 20)
        # Afterwards it cannot keep all: that would be what an attack leaves.
        with pytest.raises(ConflictError, match="number of days"):
            broker.configure_topic(topic, keep=Retention.ALL, retention=None)
        assert broker.configure_topic(topic, keep=Retention.ALL, retention=timedelta(days=99)).retention is not None

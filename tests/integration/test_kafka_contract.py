"""The broker's contract on a real Kafka with mutual TLS and the shipped access rules."""

from collections.abc import Iterator

import pytest
from kafka import TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import admin
from exchange.broker.kafka.topics import lane_group
from exchange.broker.port import Retention
from schemas.errors import ConflictError
from schemas.names import Lane, Topic
from tests.contract.broker.suite import BrokerContract
from tests.kit.cases.broker import KEY, Rig, append, batch, fresh_topic, lane_of
from tests.kit.world.kafka import Node

pytestmark = pytest.mark.kafka


class KafkaRig:
    joins_work = False
    erases = False

    def __init__(self, node: Node) -> None:
        self.node = node
        self.brokers: list[KafkaBroker] = []
        self.killed = False

    def broker(self) -> KafkaBroker:
        self.brokers.append(KafkaBroker(self.node.settings(max_consumers=4, call_timeout=8.0), key=KEY))
        return self.brokers[-1]

    def operator(self) -> KafkaBroker:
        self.brokers.append(KafkaBroker(self.node.settings(self.node.operator, call_timeout=8.0), key=KEY))
        return self.brokers[-1]

    def make_unavailable(self) -> None:
        self.node.kill()
        self.killed = True

    def fill_disk(self) -> bool:
        return False

    def restore(self) -> None:
        if self.killed:
            self.node.start()
            self.killed = False

    def retain(self, topic: Topic, now: int) -> None:
        """Remove what is older, as the broker does segment by segment when its hour has come."""
        info = self.broker().topic(topic)
        if info.retention is None:
            return
        limit = now // 1000 - int(info.retention.total_seconds() * 1000)
        broker = self.broker()
        keep = broker.positions_for_time(topic, limit * 1000)
        client = admin(self.node.settings(self.node.operator))
        client.delete_records({TopicPartition(str(topic), number): offset for number, offset in enumerate(keep)})
        client.close()

    def spoil(self, lane: Lane) -> bool:
        place = {TopicPartition(str(lane.topic), 0): OffsetAndMetadata(1, "c3BvaWxlZA", None)}
        client = admin(self.node.settings(self.node.operator))
        written = client.alter_group_offsets(lane_group(lane), place)
        client.close()
        assert list(written.values()) == [NoError]
        return True

    def compact(self, topic: Topic) -> bool:
        return False


class TestKafka(BrokerContract):
    @pytest.fixture
    def rig(self, kafka_node: Node) -> Iterator[Rig]:
        rig = KafkaRig(kafka_node)
        yield rig
        rig.restore()
        for broker in rig.brokers:
            broker.close()

    def test_a_topic_that_kept_the_latest_of_each_key_does_not_keep_all_from_then_on(self, rig: Rig) -> None:
        operator, topic = rig.operator(), fresh_topic()
        operator.create_topic(topic, keep=Retention.LATEST)
        append(operator, batch(lane_of(topic), 1))
        with pytest.raises(ConflictError, match="the latest"):
            operator.configure_topic(topic, keep=Retention.ALL, retention=None)
        assert operator.configure_topic(topic, keep=Retention.LATEST, retention=None).keep is Retention.LATEST

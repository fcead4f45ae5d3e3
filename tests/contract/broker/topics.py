"""Topics: creation, description, what an unknown one is answered."""

from dataclasses import replace
from datetime import timedelta

import pytest

from exchange.broker.port import Retention
from schemas.errors import ConflictError, InvalidError, Reason
from tests.kit.cases.broker import START, Rig, append, at_once, batch, fresh_topic, lane_of, read_all


class TopicContract:
    """Topics: creation, description, what an unknown one is answered."""

    def test_a_new_topic_is_empty_and_described_as_asked(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        made = broker.create_topic(topic, partitions=3, keep=Retention.LATEST, retention=timedelta(days=30))
        assert (made.topic, made.partitions, made.keep) == (topic, 3, Retention.LATEST)
        assert made.retention == timedelta(days=30)
        assert broker.topic(topic) == made
        ends = broker.ends(topic)
        assert ends.earliest == ends.latest
        assert len(ends.latest) == 3
        assert read_all(broker, topic) == []

    def test_creating_a_topic_again_gives_it_back_and_keeps_its_records(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        made = broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1))
        assert rig.broker().create_topic(topic) == made
        assert len(read_all(broker, topic)) == 8

    def test_another_number_of_partitions_is_a_conflict(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, partitions=2)
        with pytest.raises(ConflictError) as raised:
            broker.create_topic(topic, partitions=3)
        assert raised.value.reason is Reason.ALREADY_EXISTS
        assert broker.topic(topic).partitions == 2

    def test_gateways_that_create_one_topic_at_once_all_get_it(self, rig: Rig) -> None:
        topic = fresh_topic()
        brokers = [rig.broker() for _ in range(4)]
        made = at_once(*(lambda broker=broker: broker.create_topic(topic) for broker in brokers))
        assert made == [brokers[0].topic(topic)] * 4

    def test_renewed_generations_rise_and_are_the_same_for_every_gateway(self, rig: Rig) -> None:
        broker, topics = rig.broker(), [fresh_topic(), fresh_topic()]
        before = [broker.create_topic(topic) for topic in topics]
        append(broker, batch(lane_of(topics[0]), 1))
        assert broker.renew_generations() >= 2
        after = [rig.broker().topic(topic) for topic in topics]
        for old, new in zip(before, after, strict=True):
            assert new.generation > old.generation
            assert new == replace(old, generation=new.generation)
        assert rig.broker().create_topic(topics[0]) == after[0]
        assert len(read_all(broker, topics[0])) == 8

    def test_an_unknown_topic_is_not_found_by_any_call(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        calls = [
            lambda: broker.topic(topic),
            lambda: broker.ends(topic),
            lambda: broker.positions_for_time(topic, START),
            lambda: broker.read(topic, (0, 0, 0, 0), max_records=1, max_bytes=1 << 20),
            lambda: append(broker, batch(lane_of(topic), 1)),
        ]
        for call in calls:
            with pytest.raises(InvalidError) as raised:
                call()
            assert raised.value.reason is Reason.NOT_FOUND

    def test_what_a_topic_keeps_can_be_changed(self, rig: Rig) -> None:
        operator, topic = rig.operator(), fresh_topic()
        operator.create_topic(topic)
        for keep, retention in ((Retention.ALL, timedelta(days=30)), (Retention.LATEST, None), (Retention.ALL, None)):
            info = operator.configure_topic(topic, keep=keep, retention=retention)
            assert (info.keep, info.retention, info.partitions, info.generation) == (
                keep,
                retention,
                4,
                operator.topic(topic).generation,
            )
            assert operator.configure_topic(topic, keep=keep, retention=retention) == info, "repeating it is safe"

    def test_a_topic_that_does_not_exist_cannot_be_changed(self, rig: Rig) -> None:
        with pytest.raises(InvalidError) as raised:
            rig.operator().configure_topic(fresh_topic(), keep=Retention.ALL, retention=None)
        assert raised.value.reason is Reason.NOT_FOUND

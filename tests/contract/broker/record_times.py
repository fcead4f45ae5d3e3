"""Record times: monotone within a partition, and positions for a time."""

from tests.kit.cases.broker import SECOND, START, Rig, append, batch, fresh_topic, lane_of, read_all


class RecordTimeContract:
    """Record times: monotone within a partition, and positions for a time."""

    def test_recorded_at_never_falls_within_a_partition(self, rig: Rig) -> None:
        topic = fresh_topic()
        brokers = [rig.broker(), rig.broker()]
        brokers[0].create_topic(topic)
        for sequence, seconds in enumerate([10, 20, 5, 30, 1, 30], start=1):
            for number, broker in enumerate(brokers):
                at = START + (seconds - number) * SECOND
                append(broker, batch(lane_of(topic, f"c{number}"), sequence, range(12), recorded_at=at))
        records = read_all(brokers[0], topic)
        assert len(records) == 2 * 6 * 12
        for partition in range(4):
            times = [record.recorded_at for record in records if record.partition == partition]
            assert times == sorted(times)
            assert times[-1] == START + 30 * SECOND

    def test_positions_for_a_time_are_those_of_the_first_record_of_that_time_or_later(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for sequence in (1, 2, 3):
            append(broker, batch(lane_of(topic), sequence, range(20), recorded_at=START + sequence * 10 * SECOND))
        records = read_all(broker, topic)
        for seconds in (0, 10, 11, 20, 25, 30):
            at = START + seconds * SECOND
            later = {record for record in records if record.recorded_at >= at}
            assert set(read_all(broker, topic, broker.positions_for_time(topic, at))) == later
        assert broker.positions_for_time(topic, START + 31 * SECOND) == broker.ends(topic).latest

    def test_positions_for_a_time_in_an_empty_topic_are_its_end(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        assert broker.positions_for_time(topic, START) == broker.ends(topic).latest

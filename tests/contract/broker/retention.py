"""Retention and compaction: what is removed, and what a reader of a removed position gets."""

from datetime import timedelta

import pytest

from exchange.broker.port import Retention
from schemas.errors import GoneError, Reason
from tests.kit.cases.broker import (
    SECOND,
    START,
    VOID,
    Rig,
    append,
    batch,
    expected,
    fresh_topic,
    key_of,
    lane_of,
    positions_of,
    read_all,
)


class RetentionContract:
    """Retention and compaction: what is removed, and what a reader of a removed position gets."""

    def test_retention_makes_old_positions_gone_and_names_the_earliest(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        old = batch(lane_of(topic), 1, range(40), recorded_at=START)
        new = batch(lane_of(topic), 2, range(40), recorded_at=START + 600 * SECOND)
        append(broker, old)
        (kept,) = append(broker, new)
        began = broker.ends(topic)
        rig.retain(topic, START + 601 * SECOND)
        ends = rig.broker().ends(topic)
        assert ends.latest == began.latest
        assert all(now > before for now, before in zip(ends.earliest, began.earliest, strict=True))
        with pytest.raises(GoneError) as raised:
            broker.read(topic, began.earliest, max_records=10, max_bytes=1 << 20)
        assert raised.value.reason is Reason.POSITION_GONE
        assert raised.value.details["earliest"] == ",".join(map(str, ends.earliest))
        assert read_all(broker, topic) == expected(kept, new)

    def test_one_overtaken_partition_is_enough_to_be_gone(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        append(broker, batch(lane_of(topic), 1, range(40), recorded_at=START))
        append(broker, batch(lane_of(topic), 2, range(40), recorded_at=START + 600 * SECOND))
        began = broker.ends(topic)
        rig.retain(topic, START + 601 * SECOND)
        ends = broker.ends(topic)
        with pytest.raises(GoneError):
            broker.read(topic, (*ends.latest[:3], began.earliest[3]), max_records=10, max_bytes=1 << 20)

    def test_positions_are_not_reused_when_everything_has_gone(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        append(broker, batch(lane_of(topic), 1, range(40), recorded_at=START))
        latest = broker.ends(topic).latest
        rig.retain(topic, START + 3000 * SECOND)
        ends = rig.broker().ends(topic)
        assert ends.earliest == ends.latest == latest
        assert read_all(broker, topic) == []
        (appended,) = append(broker, batch(lane_of(topic), 2, range(40), recorded_at=START + 3000 * SECOND))
        assert all(position >= latest[partition] for partition, position in positions_of(appended.runs))
        assert len(read_all(broker, topic, latest)) == 40

    def test_retention_forgets_no_receipt(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, retention=timedelta(minutes=10))
        sent = batch(lane_of(topic), 1, range(40), recorded_at=START)
        (appended,) = append(broker, sent)
        rig.retain(topic, START + 3000 * SECOND)
        state = rig.broker().resume(lane_of(topic))
        assert state is not None
        assert (state.receipts[-1].sequence, state.receipts[-1].digest) == (1, appended.digest)
        assert state.receipts[-1].source_position == appended.source_position
        assert append(rig.broker(), sent)[0].duplicate
        assert read_all(broker, topic) == []

    def test_without_a_retention_everything_stays(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1, range(40), recorded_at=START))
        rig.retain(topic, START + 3600 * SECOND)
        assert len(read_all(broker, topic)) == 40

    def test_compaction_keeps_the_latest_of_each_key_where_it_stood(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, keep=Retention.LATEST)
        for sequence in range(1, 7):
            people = [person for person in range(30) if person % sequence == 0]
            append(
                broker, batch(lane_of(topic), sequence, people, marks=bytes([1 + 2 * (sequence == 6)]) * len(people))
            )
        before, ends = read_all(broker, topic), broker.ends(topic)
        if not rig.compact(topic):
            return
        latest = {record.key: record for record in before}
        after = read_all(broker, topic)
        assert {record.key: record for record in after} == latest
        assert set(after) <= set(before)
        assert len(after) < len(before)
        assert broker.ends(topic) == ends
        assert any(record.mark == VOID for record in after)
        # A reader that stood in the middle reads on; what was compacted away is skipped, never "gone".
        for record in before[::7]:
            position = tuple(
                record.position if partition == record.partition else latest
                for partition, latest in enumerate(ends.latest)
            )
            rest = [each for each in after if each.partition == record.partition and each.position >= record.position]
            assert read_all(broker, topic, position) == rest

    def test_compaction_goes_on_with_what_came_later(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic, keep=Retention.LATEST)
        for sequence in range(1, 5):
            (appended,) = append(broker, batch(lane_of(topic), sequence, range(20)))
            if not rig.compact(topic):
                return
        assert {record.key for record in read_all(broker, topic)} == {key_of(person) for person in range(20)}
        last = set(positions_of(appended.runs))
        assert last <= {(record.partition, record.position) for record in read_all(broker, topic)}

    def test_a_topic_that_keeps_everything_is_not_compacted(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for sequence in (1, 2):
            append(broker, batch(lane_of(topic), sequence, range(20)))
        rig.compact(topic)
        assert len(read_all(broker, topic)) == 40

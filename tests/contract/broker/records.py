"""Records and their receipt: what was appended is read as it was sent, at the positions of its receipt."""

from dataclasses import replace

import pytest

from schemas.errors import InvalidError, Reason
from schemas.record import MAX_BATCH_RECORDS
from tests.kit.cases.broker import (
    CORRECT,
    START,
    UPSERT,
    VOID,
    Rig,
    append,
    batch,
    expected,
    fresh_topic,
    lane_of,
    read_all,
)


class RecordContract:
    """Records and their receipt: what was appended is read as it was sent, at the positions of its receipt."""

    def test_the_receipt_says_where_every_record_stands(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, range(40), source_position=b"\x00\xff opaque" + bytes(100))
        (appended,) = append(broker, sent)
        assert not appended.duplicate
        assert (appended.lane, appended.sequence, appended.digest) == (sent.lane, 1, sent.digest)
        assert (appended.count, appended.source_position) == (40, sent.source_position)
        assert appended.recorded_at == sent.recorded_at
        assert read_all(broker, topic) == expected(appended, sent)

    def test_records_of_one_key_keep_their_order(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence, [1, 2, 3, 1, 2, 1]) for sequence in (1, 2, 3)]
        append(broker, sent[0])
        append(broker, *sent[1:])
        for person in (1, 2, 3):
            in_order = [
                value
                for each in sent
                for key, value in zip(each.keys, each.values, strict=True)
                if key == sent[0].keys[person - 1]
            ]
            found = [record.value for record in read_all(broker, topic) if record.key == sent[0].keys[person - 1]]
            assert found == in_order

    def test_voids_marks_and_valid_times_come_back(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        valid = b"".join(
            start.to_bytes(8, "little", signed=True) + end.to_bytes(8, "little", signed=True)
            for start, end in [(0, 0), (-1, 5), (1, START), (2**62, 0), (-(2**63), 2**63 - 1)]
        )
        sent = batch(
            lane_of(topic), 1, [1, 2, 3, 1, 2], marks=bytes([UPSERT, CORRECT, VOID, VOID, UPSERT]), valid=valid
        )
        plain = batch(lane_of(topic), 2, [5, 6], marks=bytes([VOID, CORRECT]))
        receipts = append(broker, sent, plain)
        found = {(record.partition, record.position): record for record in read_all(broker, topic)}
        for appended, each in zip(receipts, (sent, plain), strict=True):
            assert [found[record.partition, record.position] for record in expected(appended, each)] == expected(
                appended, each
            )
        voids = [record for record in found.values() if record.mark == VOID]
        assert len(voids) == 3
        assert all(record.value is None for record in voids)

    def test_ten_thousand_records_are_one_batch(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, range(MAX_BATCH_RECORDS), size=100)
        (appended,) = append(broker, sent)
        assert appended.count == MAX_BATCH_RECORDS
        assert read_all(broker, topic, step=3_000).__len__() == MAX_BATCH_RECORDS
        assert sorted(read_all(broker, topic), key=lambda record: (record.partition, record.position)) == expected(
            appended, sent
        )

    def test_more_than_ten_thousand_records_are_refused(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        with pytest.raises(InvalidError) as raised:
            append(broker, batch(lane_of(topic), 1, range(MAX_BATCH_RECORDS + 1)))
        assert raised.value.reason is Reason.BATCH_TOO_LARGE
        assert read_all(broker, topic) == []

    def test_an_oversize_record_refuses_its_whole_batch(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, range(50))
        values = list(sent.values)
        values[25] = bytes(64 * 1024 * 1024 + 1)
        with pytest.raises(InvalidError) as raised:
            append(broker, replace(sent, values=values))
        assert raised.value.reason is Reason.BATCH_TOO_LARGE
        assert read_all(broker, topic) == []
        (appended,) = append(broker, batch(lane_of(topic), 1, range(50), salt="without it"))
        assert not appended.duplicate
        assert len(read_all(broker, topic)) == 50

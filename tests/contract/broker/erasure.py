"""Erasure: the values of a key are gone, and nothing else has changed."""

import pytest

from schemas.errors import ConflictError
from tests.kit.cases.broker import VOID, Rig, append, batch, fresh_topic, key_of, lane_of, partition_of, read_all


class ErasureContract:
    """Erasure: the values of a key are gone, and nothing else has changed."""

    def test_an_erasure_takes_the_values_of_one_key_before_a_position_and_nothing_else(self, rig: Rig) -> None:
        if not rig.erases:
            pytest.skip("the backend is not asked for it through the port")
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        for sequence in (1, 2, 3):
            append(broker, batch(lane_of(topic), sequence, range(30)))
        append(broker, batch(lane_of(topic), 4, [7], marks=bytes([VOID])))
        key, partition = key_of(7), partition_of(key_of(7))
        before = broker.ends(topic).latest[partition]
        append(broker, batch(lane_of(topic), 5, [7]))
        stored, ends = read_all(broker, topic), broker.ends(topic)
        assert broker.erase(topic, partition, key, before) == 3
        assert broker.destroy_erased({topic})
        left = read_all(rig.broker(), topic)
        assert [(one.partition, one.position, one.key) for one in left] == [
            (one.partition, one.position, one.key) for one in stored
        ]
        for one, was in zip(left, stored, strict=True):
            if one.key == key and one.position < before:
                assert one.value is None
                assert one.mark >> 4 == was.mark >> 4
            else:
                assert one == was
        assert broker.ends(topic) == ends
        assert broker.erase(topic, partition, key, before) == 0, "a repeated call finds none"

    def test_after_an_erasure_the_lane_goes_on_and_knows_its_batches(self, rig: Rig) -> None:
        if not rig.erases:
            pytest.skip("the backend is not asked for it through the port")
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = batch(lane_of(topic), 1, [7])
        append(broker, sent)
        broker.erase(topic, partition_of(key_of(7)), key_of(7), 1 << 60)
        broker.destroy_erased({topic})
        assert append(broker, sent)[0].duplicate
        append(broker, batch(lane_of(topic), 2, range(10)))
        assert sum(one.value is not None for one in read_all(broker, topic)) == 10

    def test_a_backend_that_cannot_erase_says_so(self, rig: Rig) -> None:
        if rig.erases:
            pytest.skip("it can")
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        with pytest.raises(ConflictError):
            broker.erase(topic, 0, key_of(1), 10)

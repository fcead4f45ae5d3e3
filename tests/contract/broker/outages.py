"""Outages: a backend that is down or full, and an adapter that is closed."""

import pytest

from schemas.errors import Reason, UnavailableError
from tests.kit.cases.broker import START, HookCalls, Rig, append, batch, expected, fresh_topic, lane_of, read_all


class OutageContract:
    """Outages: a backend that is down or full, and an adapter that is closed."""

    def test_a_backend_that_is_down_is_unavailable_and_nothing_is_half_visible(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        sent = [batch(lane_of(topic), sequence, range(1000)) for sequence in (1, 2)]
        append(broker, sent[0])
        position = broker.ends(topic).latest
        hook = HookCalls()
        rig.make_unavailable()
        try:
            with pytest.raises(UnavailableError) as raised:
                broker.append([sent[1]], hook)
            assert raised.value.reason in {Reason.BROKER_UNAVAILABLE, Reason.OUTCOME_UNKNOWN}
            assert hook.calls == []
            for call in (
                lambda: broker.read(topic, position, max_records=1, max_bytes=1000),
                lambda: broker.resume(lane_of(topic, "other")),
                lambda: list(broker.lanes()),
                lambda: broker.create_topic(fresh_topic()),
                lambda: broker.positions_for_time(topic, START),
                lambda: broker.ends(topic),
                broker.ping,
            ):
                with pytest.raises(UnavailableError) as raised:
                    call()
                assert raised.value.reason is Reason.BROKER_UNAVAILABLE
        finally:
            rig.restore()
        broker.ping()
        found = len(read_all(broker, topic))
        assert found in {1000, 2000}
        state = broker.resume(lane_of(topic))
        assert state is not None
        assert state.receipts[-1].sequence == found // 1000
        (again,) = append(broker, sent[1])
        assert again.duplicate is (found == 2000)
        assert len(read_all(broker, topic)) == 2000

    def test_the_same_adapters_work_again_once_the_backend_is_back(self, rig: Rig) -> None:
        writer, reader, topic = rig.broker(), rig.broker(), fresh_topic()
        writer.create_topic(topic)
        append(writer, batch(lane_of(topic), 1))
        assert len(read_all(reader, topic)) == 8
        rig.make_unavailable()
        try:
            with pytest.raises(UnavailableError):
                append(writer, batch(lane_of(topic), 2))
        finally:
            rig.restore()
        writer.resume(lane_of(topic))
        append(writer, batch(lane_of(topic), 2))
        append(writer, batch(lane_of(topic), 3))
        assert len(read_all(reader, topic)) == 24

    def test_a_full_disk_is_unavailable_and_nothing_is_half_visible(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        first = batch(lane_of(topic), 1, range(100))
        (kept,) = append(broker, first)
        hook = HookCalls()
        if not rig.fill_disk():
            return
        try:
            for _ in range(2):
                with pytest.raises(UnavailableError) as raised:
                    broker.append([batch(lane_of(topic), 2, range(1000)), batch(lane_of(topic), 3)], hook)
                assert raised.value.reason is Reason.DISK_FULL
            assert hook.calls == []
            # What is there can still be read: publishing stops first.
            assert read_all(broker, topic) == expected(kept, first)
        finally:
            rig.restore()
        receipts = append(broker, batch(lane_of(topic), 2, range(1000)), batch(lane_of(topic), 3))
        assert [receipt.duplicate for receipt in receipts] == [False, False]
        assert len(read_all(broker, topic)) == 1108

    def test_a_closed_adapter_is_unavailable(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1))
        broker.close()
        broker.close()
        for call in (
            lambda: broker.topic(topic),
            lambda: broker.ends(topic),
            lambda: broker.read(topic, (0, 0, 0, 0), max_records=1, max_bytes=1000),
            lambda: append(broker, batch(lane_of(topic), 2)),
            lambda: broker.resume(lane_of(topic)),
            lambda: broker.create_topic(topic),
            lambda: list(broker.lanes()),
        ):
            with pytest.raises(UnavailableError):
                call()
        assert len(read_all(rig.broker(), topic)) == 8

    def test_closing_one_gateway_leaves_the_others_at_work(self, rig: Rig) -> None:
        one, two, topic = rig.broker(), rig.broker(), fresh_topic()
        one.create_topic(topic)
        append(one, batch(lane_of(topic), 1))
        append(two, batch(lane_of(topic, "c2"), 1))
        one.close()
        append(two, batch(lane_of(topic, "c2"), 2))
        assert len(read_all(two, topic)) == 24

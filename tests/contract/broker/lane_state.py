"""Lane state: what `resume`, `peek_lane` and `lanes` return, and what outlives a gateway."""

from dataclasses import replace

import pytest

from exchange.broker.port import Broker, LaneFault, LaneState
from schemas.errors import CorruptError
from schemas.names import Lane
from tests.kit.cases.broker import Rig, append, batch, fresh_topic, lane_of, read_all


def lane_state(broker: Broker, lane: Lane) -> LaneState | None:
    """Find one lane among all of the backend's."""
    return next((state for state in broker.lanes() if isinstance(state, LaneState) and state.lane == lane), None)


class LaneStateContract:
    """Lane state: what `resume`, `peek_lane` and `lanes` return, and what outlives a gateway."""

    def test_a_lane_that_never_appended_has_no_state(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        assert broker.resume(lane_of(topic)) is None
        assert lane_state(broker, lane_of(topic)) is None
        (appended,) = append(broker, batch(lane_of(topic), 1))
        assert appended.sequence == 1

    def test_resume_tells_the_latest_receipts_and_the_source_position(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        receipts = [append(broker, batch(lane_of(topic), sequence, range(30)))[0] for sequence in range(1, 5)]
        for gateway in (broker, rig.broker()):
            state = gateway.resume(lane_of(topic))
            assert state is not None
            assert state.lane == lane_of(topic)
            assert state.receipts == tuple(receipts[-len(state.receipts) :])
            assert state.receipts[-1].source_position == b"row 4"

    def test_the_state_outlives_every_gateway(self, rig: Rig) -> None:
        topic = fresh_topic()
        first = rig.broker()
        first.create_topic(topic)
        receipts = [append(first, batch(lane_of(topic), sequence))[0] for sequence in (1, 2)]
        first.close()
        second = rig.broker()
        assert append(second, batch(lane_of(topic), 2)) == [replace(receipts[1], duplicate=True)]
        state = second.resume(lane_of(topic))
        assert state is not None
        assert state.receipts[-1] == receipts[1]
        assert not append(second, batch(lane_of(topic), 3))[0].duplicate
        assert len(read_all(second, topic)) == 24

    def test_resume_remembers_more_than_the_last_batch_of_a_group(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        receipts = append(broker, *(batch(lane_of(topic), sequence) for sequence in range(1, 5)))
        state = rig.broker().resume(lane_of(topic))
        assert state is not None
        assert state.receipts == tuple(receipts[-len(state.receipts) :])

    def test_lanes_tells_every_lane_without_taking_it_over(self, rig: Rig) -> None:
        broker, sweeper, topic = rig.broker(), rig.broker(), fresh_topic()
        broker.create_topic(topic)
        last = {}
        for name, batches in (("a", 1), ("b", 3), ("c", 2)):
            for sequence in range(1, batches + 1):
                last[lane_of(topic, name)] = append(broker, batch(lane_of(topic, name), sequence))[0]
        states = [state for state in sweeper.lanes() if isinstance(state, LaneState) and state.lane.topic == topic]
        assert {state.lane: state.receipts[-1] for state in states} == last
        append(broker, batch(lane_of(topic, "a"), 2))

    def test_one_unreadable_lane_comes_as_its_fault_and_keeps_no_other_away(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        lanes = [lane_of(topic, name) for name in ("a", "b", "c")]
        for lane in lanes:
            append(broker, batch(lane, 1))
        if not rig.spoil(lanes[1]):
            return
        sweeper = rig.broker()
        found = {state.lane for state in sweeper.lanes() if isinstance(state, LaneState)}
        assert found >= {lanes[0], lanes[2]}
        assert lanes[1] not in found
        faults = {state.name: state.error for state in sweeper.lanes() if isinstance(state, LaneFault)}
        assert isinstance(faults[str(lanes[1])], CorruptError)
        assert str(lanes[1]) in faults[str(lanes[1])].message
        for ask in (sweeper.peek_lane, sweeper.resume):
            with pytest.raises(CorruptError):
                ask(lanes[1])

    def test_peek_lane_returns_what_is_committed_and_leaves_the_lane_with_its_owner(self, rig: Rig) -> None:
        owner, other, topic = rig.broker(), rig.broker(), fresh_topic()
        owner.create_topic(topic)
        lane = lane_of(topic)
        assert other.peek_lane(lane) is None
        for sequence in (1, 2, 3):
            (appended,) = append(owner, batch(lane, sequence))
            state = other.peek_lane(lane)
            assert state is not None
            assert (state.lane, state.receipts[-1]) == (lane, appended)
            assert owner.peek_lane(lane) == state
        assert other.peek_lane(lane_of(topic, "another")) is None

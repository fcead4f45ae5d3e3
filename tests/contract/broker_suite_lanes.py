"""Contract: where a lane stands, who owns it, and restarts."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from exchange.broker.port import Appended, Broker, LaneFault, LaneState
from registry.database.unit_of_work import UnitOfWork
from schemas.errors import ConflictError, CorruptError, Reason
from schemas.names import Lane
from tests.kit.cases.broker import Rig, Seals, append, batch, fresh_topic, lane_of, no_seal, read_all


def lane_state(broker: Broker, lane: Lane) -> LaneState | None:
    """Find one lane among all of the backend's."""
    return next((state for state in broker.lanes() if isinstance(state, LaneState) and state.lane == lane), None)


class LaneContract:
    """Where a lane stands, who owns it, and restarts."""

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
        for ask in (sweeper.stands, sweeper.resume):
            with pytest.raises(CorruptError):
                ask(lanes[1])

    def test_stands_tells_what_is_committed_and_leaves_the_lane_with_its_owner(self, rig: Rig) -> None:
        owner, other, topic = rig.broker(), rig.broker(), fresh_topic()
        owner.create_topic(topic)
        lane = lane_of(topic)
        assert other.stands(lane) is None
        for sequence in (1, 2, 3):
            (appended,) = append(owner, batch(lane, sequence))
            state = other.stands(lane)
            assert state is not None
            assert (state.lane, state.receipts[-1]) == (lane, appended)
            assert owner.stands(lane) == state
        assert other.stands(lane_of(topic, "another")) is None

    # who owns a lane

    def test_after_a_resume_elsewhere_the_older_owner_appends_nothing_more(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        append(old, batch(lane_of(topic), 1))
        new.resume(lane_of(topic))
        for _ in range(2):  # no automatic return
            with pytest.raises(ConflictError) as raised:
                append(old, batch(lane_of(topic), 2))
            assert raised.value.reason is Reason.LANE_FENCED
        append(new, batch(lane_of(topic), 2, salt="new"))
        with pytest.raises(ConflictError):
            append(old, batch(lane_of(topic), 3))
        assert len(read_all(new, topic)) == 16

    def test_a_lane_can_be_taken_back(self, rig: Rig) -> None:
        one, two, topic = rig.broker(), rig.broker(), fresh_topic()
        one.create_topic(topic)
        append(one, batch(lane_of(topic), 1))
        two.resume(lane_of(topic))
        append(two, batch(lane_of(topic), 2))
        state = one.resume(lane_of(topic))
        assert state is not None
        assert state.receipts[-1].sequence == 2
        append(one, batch(lane_of(topic), 3))
        with pytest.raises(ConflictError) as raised:
            append(two, batch(lane_of(topic), 4))
        assert raised.value.reason is Reason.LANE_FENCED

    def test_the_first_append_of_a_gateway_takes_the_lane_over(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        append(old, batch(lane_of(topic), 1))
        append(new, batch(lane_of(topic), 2))
        with pytest.raises(ConflictError) as raised:
            append(old, batch(lane_of(topic), 3))
        assert raised.value.reason is Reason.LANE_FENCED

    def test_fencing_one_lane_leaves_the_others_alone(self, rig: Rig) -> None:
        one, two, topic = rig.broker(), rig.broker(), fresh_topic()
        one.create_topic(topic)
        for name in ("a", "b"):
            append(one, batch(lane_of(topic, name), 1))
        two.resume(lane_of(topic, "a"))
        append(one, batch(lane_of(topic, "b"), 2))
        assert len(read_all(one, topic)) == 24

    def test_a_fenced_group_is_refused_whole_and_unsealed(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        append(old, batch(lane_of(topic), 1))
        new.resume(lane_of(topic))
        seals = Seals()
        with pytest.raises(ConflictError):
            old.append([batch(lane_of(topic), sequence) for sequence in (2, 3)], seals)
        assert seals.calls == []
        assert len(read_all(new, topic)) == 8

    def test_a_resume_during_an_append_of_the_old_owner_tells_of_it_or_prevents_it(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        assert old.resume(lane_of(topic)) is None
        states: list[LaneState | None] = []
        resume = threading.Thread(target=lambda: states.append(new.resume(lane_of(topic))))

        def seal(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
            resume.start()
            resume.join(0.5)  # it may be made to wait until this append has ended

        fenced = None
        try:
            old.append([batch(lane_of(topic), 1)], seal)
        except ConflictError as error:
            fenced = error.reason
        resume.join(60)
        (state,) = states
        assert fenced in {None, Reason.LANE_FENCED}
        assert (state is None) is (fenced is not None)
        assert len(read_all(new, topic)) == (0 if state is None else 8)

    def test_a_resume_without_any_batch_fences_too(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        assert old.resume(lane_of(topic)) is None
        assert new.resume(lane_of(topic)) is None
        with pytest.raises(ConflictError) as raised:
            old.append([batch(lane_of(topic), 1)], no_seal)
        assert raised.value.reason is Reason.LANE_FENCED
        append(new, batch(lane_of(topic), 1))

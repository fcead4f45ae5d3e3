"""Fencing: which gateway owns a lane, and what an older owner can no longer append."""

import threading
from collections.abc import Sequence

import pytest

from exchange.broker.port import Appended, LaneState
from registry.database.unit_of_work import UnitOfWork
from schemas.errors import ConflictError, Reason
from tests.kit.cases.broker import (
    HookCalls,
    Rig,
    append,
    batch,
    fresh_topic,
    lane_of,
    no_hook,
    read_all,
)


class FencingContract:
    """Fencing: which gateway owns a lane, and what an older owner can no longer append."""

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

    def test_a_fenced_group_is_refused_whole_and_its_commit_hook_not_called(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        append(old, batch(lane_of(topic), 1))
        new.resume(lane_of(topic))
        hook = HookCalls()
        with pytest.raises(ConflictError):
            old.append([batch(lane_of(topic), sequence) for sequence in (2, 3)], hook)
        assert hook.calls == []
        assert len(read_all(new, topic)) == 8

    def test_a_resume_during_an_append_of_the_old_owner_tells_of_it_or_prevents_it(self, rig: Rig) -> None:
        old, new, topic = rig.broker(), rig.broker(), fresh_topic()
        old.create_topic(topic)
        assert old.resume(lane_of(topic)) is None
        states: list[LaneState | None] = []
        resume = threading.Thread(target=lambda: states.append(new.resume(lane_of(topic))))

        def commit_hook(work: UnitOfWork | None, appended: Sequence[Appended]) -> None:
            resume.start()
            resume.join(0.5)  # it may be made to wait until this append has ended

        fenced = None
        try:
            old.append([batch(lane_of(topic), 1)], commit_hook)
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
            old.append([batch(lane_of(topic), 1)], no_hook)
        assert raised.value.reason is Reason.LANE_FENCED
        append(new, batch(lane_of(topic), 1))

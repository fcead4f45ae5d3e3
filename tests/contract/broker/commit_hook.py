"""Commit hook: when it is called, with what, and what its error does."""

import pytest

from registry.database.unit_of_work import UnitOfWork
from schemas.errors import PoolError, Reason
from tests.kit.cases.broker import HookCalls, Rig, append, batch, fresh_topic, lane_of, read_all


class HookError(Exception):
    """What a commit hook of the tests raises; it is the caller's own and must come back as it is."""


class CommitHookContract:
    """Commit hook: when it is called, with what, and what its error does."""

    def test_the_commit_hook_is_called_once_with_what_was_newly_appended(self, rig: Rig) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        hook = HookCalls()
        receipts = broker.append([batch(lane_of(topic), 1)], hook)
        assert [appended for _, appended in hook.calls] == [tuple(receipts)]
        assert isinstance(hook.calls[0][0], UnitOfWork) is rig.joins_work
        broker.append([batch(lane_of(topic), 1)], hook)
        assert len(hook.calls) == 1

    def test_records_are_not_visible_before_the_commit_hook_where_it_shares_the_transaction(self, rig: Rig) -> None:
        broker, reader, topic = rig.broker(), rig.broker(), fresh_topic()
        broker.create_topic(topic)
        seen: list[int] = []

        def look(work: UnitOfWork | None, appended: object) -> None:
            seen.append(len(read_all(reader, topic)))

        broker.append([batch(lane_of(topic), 1)], look)
        assert seen == ([0] if rig.joins_work else [8])

    @pytest.mark.parametrize("error", [HookError("no"), PoolError(Reason.QUOTA_EXHAUSTED, "no")])
    def test_a_commit_hook_that_raises_makes_append_raise(self, rig: Rig, error: Exception) -> None:
        broker, topic = rig.broker(), fresh_topic()
        broker.create_topic(topic)
        append(broker, batch(lane_of(topic), 1))
        with pytest.raises(type(error)):
            broker.append([batch(lane_of(topic), 2)], HookCalls(error))
        (again,) = append(broker, batch(lane_of(topic), 2))
        # What was committed without its seal is found again: by the retry here, by lanes() in the sweeper.
        assert again.duplicate is not rig.joins_work
        assert len(read_all(broker, topic)) == 16

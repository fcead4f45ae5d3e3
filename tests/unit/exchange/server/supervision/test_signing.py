"""Whether the log is signed up to date, by what its store and its folder say."""

import pytest

from exchange.audit.store import SigningState
from exchange.authorization.serving import ServingGuard
from exchange.server.supervision.signing import SigningMonitor
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError

NOW = 1_795_000_000_000_000
ROOT, OTHER = b"r" * 32, b"o" * 32


class Log:
    """A log that is looked at once in a while; the bound is 60 s."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.now = NOW
        self.monitor = SigningMonitor(60.0, self.monotonic)

    def look(
        self, size: int, oldest: tuple[str, int] | None = None, *, folder: int | None = None, root: bytes = ROOT
    ) -> str:
        state = SigningState(size=size, root=root, oldest=oldest)
        return self.reason(self.monitor.look(state, folder, now=self.now, monotonic=self.monotonic))

    def wait(self, seconds: float) -> None:
        self.monotonic += seconds
        self.now += int(seconds * 1e6)

    @staticmethod
    def reason(error: PoolError | None) -> str:
        return "" if error is None else str(error.reason)


def test_an_entry_that_waits_longer_than_the_bound_stops_serving_until_it_is_signed() -> None:
    log = Log()
    assert log.look(5) == ""
    assert log.look(5, ("a", NOW)) == ""
    log.wait(60)
    assert log.look(5, ("a", NOW)) == ""
    log.wait(1)
    assert log.look(5, ("a", NOW)) == Reason.LOG_BEHIND
    assert log.look(6, ("b", log.now)) == ""


def test_a_backlog_that_an_earlier_process_left_is_as_old_as_it_is() -> None:
    assert Log().look(5, ("a", NOW - 61_000_000)) == Reason.LOG_BEHIND


@pytest.mark.parametrize("step", [-86_400, 86_400])
def test_a_step_of_the_clock_ages_nothing(step: int) -> None:
    log = Log()
    log.look(5, ("a", NOW))
    log.now += step * 1_000_000
    log.monotonic += 30
    assert log.look(5, ("a", NOW)) == ""
    log.monotonic += 31
    assert log.look(5, ("a", NOW)) == Reason.LOG_BEHIND


def test_a_store_behind_the_folder_is_an_older_copy_and_one_before_it_is_not() -> None:
    assert Log().look(5, folder=5) == ""
    assert Log().look(5, folder=4) == "", "the sequencer writes the store first"
    assert Log().look(5, folder=6) == Reason.LOG_CORRUPT


def test_a_store_that_is_set_back_under_a_running_process_is_noticed_without_a_folder() -> None:
    log = Log()
    assert log.look(9) == ""
    assert log.look(8) == Reason.LOG_CORRUPT
    assert log.look(9, root=OTHER) == Reason.LOG_CORRUPT
    assert log.look(9) == ""
    assert log.look(10, root=OTHER) == ""


def test_what_the_sequencer_found_counts_until_it_signs_again() -> None:
    log = Log()
    log.monitor.sequencer_reported(CorruptError(Reason.LEAF_MISMATCH, "changed"))
    assert log.look(5) == Reason.LEAF_MISMATCH
    log.monitor.sequencer_reported(UnavailableError(Reason.DATABASE_UNAVAILABLE, "away"))
    assert log.look(5) == Reason.LEAF_MISMATCH, "a step that failed for want of the database proves nothing"
    log.monitor.sequencer_reported(None)
    assert log.look(5) == ""


def test_a_store_that_does_not_answer_stops_serving_after_the_bound() -> None:
    log = Log()
    log.look(5)
    log.wait(60)
    assert log.reason(log.monitor.no_answer(log.monotonic)) == ""
    log.wait(1)
    assert log.reason(log.monitor.no_answer(log.monotonic)) == Reason.LOG_BEHIND


def test_the_guard_refuses_with_a_time_to_come_back_and_opens_by_itself() -> None:
    guard = ServingGuard()
    guard.require()
    guard.update(CorruptError(Reason.LOG_CORRUPT, "the text for the operator"))
    with pytest.raises(UnavailableError) as refused:
        guard.require()
    assert (refused.value.reason, refused.value.retry_after) == (Reason.LOG_BEHIND, 5.0)
    assert refused.value.details == {"cause": Reason.LOG_CORRUPT}
    assert "operator" not in refused.value.message.replace("the operator sees why", "")
    guard.update(None)
    guard.require()

"""The background loops outlive whatever is raised in them, and a sequencer that stands still is seen from outside."""

import itertools
import math
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import psycopg2.errors
import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy import exc as sa_exc

from exchange.audit.store import Backlog
from exchange.broker.port import LaneFault
from exchange.server import background
from schemas.errors import CorruptError, Reason, UnavailableError

SECRET = "INSERT INTO t VALUES ('the value of a record')"


class Turns(threading.Event):
    """Lets a loop take so many turns, without a wait between them."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.left = turns

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self.left -= 1
        if self.left == 0:
            self.set()
        return self.is_set()


class Task:
    """Raises what it is given, one a turn; then succeeds."""

    def __init__(self, *errors: Exception, answer: Any = 0) -> None:
        self.errors = list(errors)
        self.answer = answer
        self.turns = 0

    def __call__(self, *_: object) -> Any:
        self.turns += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.answer


def raw() -> Exception:
    """An error of the driver's that no room has translated; its text holds a value."""
    return sa_exc.InternalError(SECRET, {}, psycopg2.errors.ReadOnlySqlTransaction("read-only"))


def away() -> UnavailableError:
    return UnavailableError(Reason.DATABASE_UNAVAILABLE, "PostgreSQL does not answer")


def run(loop: Callable[[threading.Event], None], turns: int) -> list[Any]:
    with structlog.testing.capture_logs() as logs:
        loop(Turns(turns))
    assert "value of a record" not in repr(logs)
    return [(line["event"], line.get("task"), line.get("error") or line.get("reason")) for line in logs]


def sequencing(step: Task, backlog: Task) -> Callable[[threading.Event], None]:
    sequencer: Any = SimpleNamespace(step=step)
    log: Any = SimpleNamespace(backlog=backlog)
    return partial(background.sequence, sequencer, log)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_sequencer_goes_on_after_any_error() -> None:
    step = Task(raw(), away(), answer=SimpleNamespace(size=41))
    backlog = Task(raw(), answer=Backlog(count=0, oldest=None))
    before = value("pool_sequencer_failures_total", reason="internal")
    logs = run(sequencing(step, backlog), 3)
    assert (step.turns, backlog.turns) == (3, 3)
    assert logs == [
        ("upkeep_failed", "sequence", "InternalError"),
        ("upkeep_failed", "backlog", "InternalError"),
        ("sequencer_failed", None, Reason.DATABASE_UNAVAILABLE),
    ]
    assert value("pool_sequencer_failures_total", reason="internal") == before + 1
    assert value("pool_checkpoint_size") == 41
    assert value("pool_unsequenced_entries") == 0


def test_the_sweeper_goes_on_after_any_error_and_with_the_other_tasks() -> None:
    sweep, expire, review, lags, connectors = Task(raw(), away()), Task(raw()), Task(raw()), Task(raw()), Task()
    clocks: Any = SimpleNamespace(run=Task(raw()))
    recovery: Any = SimpleNamespace(sweep=sweep)
    grants: Any = SimpleNamespace(expire=expire, review_unmasked=review)
    measure = [("lags", lags), ("connectors", connectors)]
    logs = run(partial(background.sweep, recovery, grants, clocks=clocks, measure=measure), 7)
    assert (sweep.turns, expire.turns, review.turns, lags.turns, connectors.turns) == (7, 7, 1, 7, 7)
    assert clocks.run.turns == 1
    assert logs == [
        ("upkeep_failed", "sweep", "InternalError"),
        ("upkeep_failed", "lags", "InternalError"),
        ("upkeep_failed", "expire", "InternalError"),
        ("upkeep_failed", "review", "InternalError"),
        ("upkeep_failed", "clocks", "InternalError"),
        ("upkeep_failed", "sweep", Reason.DATABASE_UNAVAILABLE),
    ]


def test_no_grant_ends_by_a_clock_that_is_not_trusted() -> None:
    jumped = UnavailableError(Reason.CLOCK_JUMPED, "20 days ahead")
    sweep, expire, review = Task(), Task(), Task()
    recovery: Any = SimpleNamespace(sweep=sweep)
    grants: Any = SimpleNamespace(expire=expire, review_unmasked=review)
    clocks: Any = SimpleNamespace(run=Task())
    run(partial(background.sweep, recovery, grants, clocks=clocks, clock_fault=lambda: jumped), 3)
    assert (sweep.turns, expire.turns, review.turns, clocks.run.turns) == (3, 0, 0, 0)


def test_nothing_is_signed_with_a_clock_that_is_not_trusted() -> None:
    jumped = UnavailableError(Reason.CLOCK_JUMPED, "20 days ahead")
    step, backlog = Task(answer=SimpleNamespace(size=41)), Task(answer=Backlog(count=0, oldest=None))
    logs = run(partial(sequencing(step, backlog), clock_fault=lambda: jumped), 2)
    assert (step.turns, backlog.turns) == (0, 2)
    assert ("sequencer_failed", None, Reason.CLOCK_JUMPED) in logs


def test_folds_are_written_each_turn_though_one_kind_of_them_fails() -> None:
    authentications, enforcer = Task(ValueError(SECRET), away()), Task(raw())
    first: Any = SimpleNamespace(flush=authentications)
    second: Any = SimpleNamespace(flush=enforcer)
    logs = run(partial(background.flush_folds, first, second), 4)
    assert authentications.turns == enforcer.turns == 3
    assert logs == [
        ("upkeep_failed", "authentications", "ValueError"),
        ("upkeep_failed", "flush", "InternalError"),
        ("upkeep_failed", "authentications", Reason.DATABASE_UNAVAILABLE),
    ]


def test_a_lane_that_cannot_be_read_is_named_in_the_log_and_counted() -> None:
    fault = LaneFault(name="d/c/permits.v1", error=CorruptError(Reason.LOG_CORRUPT, "its receipts cannot be read"))
    turns = iter([2, 0])

    def sweep(report: Callable[[LaneFault], None]) -> int:
        for _ in range(next(turns)):
            report(fault)
        return 0

    recovery: Any = SimpleNamespace(sweep=sweep)
    with structlog.testing.capture_logs() as logs:
        background.recover_receipts(recovery)
    assert value("pool_lanes_unreadable") == 2
    assert [(line["event"], line["lane"], line["reason"]) for line in logs] == [
        ("lane_unreadable", "d/c/permits.v1", Reason.LOG_CORRUPT)
    ] * 2
    background.recover_receipts(recovery)
    assert value("pool_lanes_unreadable") == 0


def test_the_topic_of_schemas_goes_on_after_any_error() -> None:
    step = Task(raw(), away())
    topic: Any = SimpleNamespace(step=step)
    logs = run(partial(background.send_schemas, topic), 3)
    assert step.turns == 3
    assert logs[0] == ("upkeep_failed", "schemas", "InternalError")


def test_the_age_rises_from_the_last_good_step_whoever_has_died() -> None:
    now = 100.0
    progress = background.SequencerProgress(lambda: now)
    assert math.isnan(progress.entries())
    progress.update(5, 0.5, succeeded=True)
    assert (progress.age(), progress.entries()) == (0.5, 5)
    now += 8
    assert (progress.age(), progress.entries()) == (8.5, 5)
    # The step failed after it had given the places: that nothing waits for a place does not mean that all is signed.
    progress.update(0, 0.0, succeeded=False)
    assert (progress.age(), progress.entries()) == (8.5, 0)
    now += 60  # nobody counts any more
    assert progress.age() == 68.5
    assert math.isnan(progress.entries())
    progress.update(2, 90.0, succeeded=False)  # older than was known
    assert progress.age() == 90.0
    progress.update(0, 0.0, succeeded=True)
    assert progress.age() == 0.0


def test_a_sequencer_that_always_fails_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 20)
    frozen = partial(background.SequencerProgress, lambda: next(clock))
    monkeypatch.setattr(background, "SequencerProgress", frozen)
    run(sequencing(Task(raw(), raw()), Task(raw(), raw())), 2)
    first = value("pool_unsequenced_age_seconds")
    assert first >= 20
    assert value("pool_unsequenced_age_seconds") > first
    assert math.isnan(value("pool_unsequenced_entries"))

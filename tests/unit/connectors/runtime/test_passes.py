"""Waiting for the next pass: a restart neither repeats nor leaves one out, and a clock that jumps is found."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from connectors.config.publication_models import PublishConfig
from connectors.runtime.passes import Passes
from connectors.state.ledger import Ledger

BEGIN = datetime(2026, 3, 1, 18, 31, tzinfo=UTC)  # 02:31 at Shanghai
SECTION = PublishConfig.model_validate(
    {"resource": "item.v1", "schedule": {"daily_at": "02:30", "timezone": "Asia/Shanghai"}}
)


class Clock(threading.Event):
    """A clock that goes on while somebody waits, and stops the connector after so many waits."""

    def __init__(self, now: datetime, waits: int = 10_000) -> None:
        super().__init__()
        self.now, self.waits, self.waited = now, waits, timedelta()

    def __call__(self) -> datetime:
        return self.now

    @override
    def wait(self, timeout: float | None = None) -> bool:
        self.waits -= 1
        if self.waits < 0:
            self.set()
        else:
            self.now += timedelta(seconds=timeout or 0.0)
            self.waited += timedelta(seconds=timeout or 0.0)
        return self.is_set()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "item.sqlite3", clock=lambda: BEGIN)
    yield ledger
    ledger.close()


def silent(_: str) -> None: ...


def test_the_first_pass_begins_at_once_and_the_next_when_it_is_due(ledger: Ledger) -> None:
    clock = Clock(BEGIN)
    passes = Passes(SECTION, 0.0, ledger, clock)
    assert passes.wait(clock, silent) is False
    assert clock.waited == timedelta()
    passes.note(clock.now)
    said: list[str] = []
    assert passes.wait(clock, said.append) is False
    assert clock.now == datetime(2026, 3, 2, 18, 30, tzinfo=UTC)
    assert said == ["the next pass is due at 2026-03-02T18:30:00+00:00"]


def test_a_restart_waits_for_the_same_time_and_status_knows_it(ledger: Ledger) -> None:
    Passes(SECTION, 0.0, ledger, Clock(BEGIN)).note(BEGIN)
    clock = Clock(BEGIN + timedelta(hours=1), waits=3)
    assert Passes(SECTION, 0.0, ledger, clock).wait(clock, silent) is True, "it is not due yet"
    assert ledger.meta("next_pass") == "2026-03-02T18:30:00+00:00"
    late = Clock(BEGIN + timedelta(days=9))
    passes = Passes(SECTION, 0.0, ledger, late)
    assert passes.wait(late, silent) is False
    assert late.waited == timedelta(), "what was due while it was stopped begins at once"
    passes.note(late.now)
    assert ledger.meta("next_pass") == ""
    assert passes.wait(late, silent) is False
    assert late.waited > timedelta(hours=1), "and once"


def test_a_machine_that_wakes_finds_what_is_due_within_a_step(ledger: Ledger) -> None:
    class Sleeper(Clock):
        @override
        def wait(self, timeout: float | None = None) -> bool:
            assert (timeout or 0.0) <= 60.0
            super().wait(timeout)
            self.now += timedelta(days=2)  # the machine sleeps; the wait itself does not know of it
            return self.is_set()

    Passes(SECTION, 0.0, ledger, Clock(BEGIN)).note(BEGIN)
    clock = Sleeper(BEGIN)
    assert Passes(SECTION, 0.0, ledger, clock).wait(clock, silent) is False
    assert clock.waited <= timedelta(seconds=60)


def test_without_a_schedule_the_interval_counts_from_the_end_of_a_pass(ledger: Ledger) -> None:
    clock = Clock(BEGIN)
    passes = Passes(PublishConfig(resource="item.v1"), 300.0, ledger, clock)
    assert passes.wait(clock, silent) is False
    assert clock.waited == timedelta()
    assert passes.wait(clock, silent) is False
    assert clock.waited == timedelta(seconds=300)

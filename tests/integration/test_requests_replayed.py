"""Random histories of requests and violation cases in a pool, and their figures counted again from the log's files.

People of all sides try any event at any time, with the pool's own services on PostgreSQL, as `tests/property` drives
the pure table. At the end, what `pool report kpi --from-log` counts from the files alone equals what the API shows.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from exchange.audit.note import NoteKey
from exchange.control.grants.submission import Supplement
from exchange.control.oversight.figures import FiguresAsked
from exchange.control.violations.service import Decision, Report
from exchange.kpi.facts import month_of
from exchange.kpi.replay import replay_log
from exchange.requests.model import Event
from exchange.requests.rules import REQUEST_RULES
from exchange.server import composition
from exchange.server.composition import App
from exchange.server.initialise import initialise
from exchange.violations.codes import ViolationCode
from exchange.violations.model import CaseEvent
from schemas.access import Grant, Role
from schemas.errors import PoolError
from tests.integration.test_request_transitions import AUTHORITY, CALL, SAID, Clock, Stage
from tests.kit import share
from tests.kit.cases.accounts import known
from tests.kit.cases.grants import a_person
from tests.kit.world import postgres

pytestmark = [pytest.mark.postgres, pytest.mark.counted, pytest.mark.timeout(600)]

RUNS = share.count(200, 8)
SECOND = a_person(Role.DATA_AUTHORITY, name="second-authority")


class Histories(RuleBasedStateMachine):
    """One request and the cases about it, in a pool that all examples share."""

    stage: ClassVar[Stage]
    happened: ClassVar[Counter[str]] = Counter()

    @initialize(sensitive=st.booleans())
    def submitted(self, *, sensitive: bool) -> None:
        self.stage.clock.ahead = timedelta()
        self.grant: Grant = self.stage.submit("number", *(("salary",) if sensitive else ()))
        self.case = ""

    @rule(days=st.sampled_from([0, 0, 1, 2, 3, 7, 11, 21, 60]))
    def time_passes(self, days: int) -> None:
        self.stage.clock.ahead += timedelta(days=days)

    @rule()
    def the_timer_runs(self) -> None:
        self.stage.app.pool.request_clocks.run()
        self.stage.grants.expire()

    @rule(event=st.sampled_from(Event), by=st.integers(0, 4))
    def anybody_tries(self, event: Event, by: int) -> None:
        stage = self.stage
        self._try(event, (stage.head, stage.officer, stage.asker, AUTHORITY, stage.editor)[by])

    @rule(first=st.integers(0, 11))
    def what_is_possible_is_tried(self, first: int) -> None:
        state = self.stage.request(self.grant).state
        events = [row.event for row in REQUEST_RULES if row.source is state]
        at = first % max(len(events), 1)
        any(self._try(event) for event in events[at:] + events[:at])

    def _try(self, event: Event, by: Any = None) -> bool:
        stage, grants, at = self.stage, self.stage.grants, self.grant.id
        right = {Event.COUNTERSIGN: stage.officer, Event.RESUBMIT: stage.asker}
        actor = by or right.get(event, stage.people.get(event, stage.head))
        before = stage.request(self.grant).version
        with suppress(PoolError):
            match event:
                case Event.SUBMIT | Event.LAPSE | Event.OVERDUE | Event.EXPIRE:
                    return False  # of a draft, and the timer's
                case Event.APPROVE | Event.CONCLUDE | Event.PROVISION:
                    grants.approve(actor, CALL, at)
                case Event.COUNTERSIGN:
                    grants.countersign(actor, CALL, at)
                case Event.RESUBMIT:
                    grants.resubmit(actor, CALL, at, Supplement(legal_basis="社会保险法 第七十四条第一款"))
                case _:
                    stage.change(self.grant, event, by=actor, **SAID[event])
        done = stage.request(self.grant).version > before
        self.happened[str(event)] += done
        return done

    @rule(code=st.sampled_from(ViolationCode))
    def a_violation_is_reported(self, code: ViolationCode) -> None:
        violations = self.stage.app.pool.violations
        with suppress(PoolError):
            report = Report(code=code, reason="信访举报", grant=self.grant.id)
            self.case = violations.report(SECOND, CALL, report).case.id

    @rule(event=st.sampled_from([*CaseEvent][2:]))  # those of a case that there is
    def it_is_decided_on(self, event: CaseEvent) -> None:
        by = self.stage.asker if event is CaseEvent.REPLY else AUTHORITY
        with suppress(PoolError):
            self.stage.app.pool.violations.decide(by, CALL, self.case, event, Decision(reason="属实"))
            self.happened[f"case {event}"] += 1


@pytest.fixture
def stage(tmp_path: Any, postgres_server: sa.URL) -> Iterator[Stage]:
    clock = Clock()
    with postgres.fresh_database(postgres_server) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "_database_clock", clock)
        patch.setenv("POOL_DATABASE", url.render_as_string(hide_password=False))
        app = App.open(initialise(tmp_path / "pool", pool_id="city", database="${env:POOL_DATABASE}"))
        known(app, SECOND)
        yield Stage(app, clock)
        app.close()


def test_the_figures_after_random_histories_equal_a_replay_of_the_log_s_files(stage: Stage, tmp_path: Any) -> None:
    Histories.stage = stage
    Histories.happened.clear()
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    app = stage.app
    while app.sequencer.step().placed:
        pass
    while app.collector.step():
        pass
    month = month_of(int(datetime.now(UTC).timestamp()) * 1_000_000)
    shown = app.pool.figures.month(AUTHORITY, CALL, FiguresAsked(month=month))
    del shown["names"]
    key = NoteKey.parse((tmp_path / "pool" / "log.pub").read_text().strip())
    counted, findings = replay_log(tmp_path / "pool" / "log", key=key, month=month, size=shown["entries"])
    assert not findings
    assert counted == shown
    told = {one["kpi"] for each in shown["departments"] for one in each["figures"] if one["value"]}
    assert "requests_received" in told, sorted(told)
    if share.count(1, 0):  # few runs seldom meet everything
        expected = {"requests_approved", "requests_refused", "overdue", "violations"}
        assert told >= expected, sorted(told)

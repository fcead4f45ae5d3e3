"""When a connector reports, and that a pool which takes no reports, or refuses them, changes nothing of a run."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connectors.config.config import ConnectorConfig
from connectors.runtime.reporting import Reporter
from connectors.state.ledger import Ledger
from schemas.connector_report import ConnectorReport, ReportAnswer, StreamState, check_report
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from tests.kit.patience import PATIENCE, wait_for

AT = datetime(2026, 5, 4, tzinfo=UTC)
GRANT = "0198c0de-0000-7000-8000-000000000001"


def a_config(folder: Path) -> ConnectorConfig:
    return ConnectorConfig.model_validate_json(
        json.dumps(
            {
                "version": 1,
                "connector": "drop",
                "exchange": {"identity": str(folder)},
                "state": str(folder / "state"),
                "source": {"kind": "files", "path": str(folder)},
                "publish": [{"resource": "people.v1"}, {"resource": "houses.v2"}],
                "subscribe": [{"grant": GRANT, "purpose": "p", "into": {"kind": "jsonl", "path": str(folder / "out")}}],
            }
        )
    )


class Pool:
    def __init__(self, answer: Callable[[], ReportAnswer | None] = lambda: ReportAnswer(next=60)) -> None:
        self.reports: list[ConnectorReport] = []
        self.answer = answer
        self.asked = threading.Event()

    def report(self, report: ConnectorReport) -> ReportAnswer | None:
        check_report(report)
        self.reports.append(report)
        self.asked.set()
        return self.answer()


def test_it_reports_at_the_start_and_at_the_end_with_every_stream(tmp_path: Path) -> None:
    pool, told = Pool(), list[str]()
    with Reporter(a_config(tmp_path), pool.report, lambda: AT, told.append) as reporter:
        assert pool.asked.wait(PATIENCE)
        reporter.stream_ended([("publish", "people.v1")])
        reporter.stream_ended([("publish", "houses.v2")], "contract_broken")
    first, last = pool.reports[0], pool.reports[-1]
    assert [(one.name, one.direction, one.mode) for one in first.streams] == [
        ("people.v1", "publish", "snapshot"), ("houses.v2", "publish", "snapshot"), (GRANT, "subscribe", ""),
    ]  # fmt: skip
    assert not first.ended
    assert {one.state for one in first.streams} == {StreamState.WAITING}
    assert last.ended
    assert [(one.state, one.reason) for one in last.streams] == [
        ("done", ""), ("stopped", "contract_broken"), ("waiting", ""),
    ]  # fmt: skip
    assert first.configuration == last.configuration != ""
    assert told == []


def test_it_states_counts_and_codes_of_the_ledger(tmp_path: Path) -> None:
    config, clock = a_config(tmp_path), lambda: AT
    ledger = Ledger(tmp_path / "state" / "drop" / "people.v1.sqlite3", clock=clock)
    run = ledger.begin_run("a portion whose name is nobody's business")
    reporter = Reporter(config, Pool().report, clock, lambda _: None)
    assert reporter.report().streams[0].state is StreamState.RUNNING
    for outcome, reason in (("delete_guard", "delete_guard"), ("done", "")):
        ledger.end_run(type(run)(id=run.id, portion=run.portion, read=7, published=5, quarantined=2, outcome=outcome))
        ledger.set_meta(last_success=ledger.now())
        report = reporter.report()
        check_report(report)
        [stream, *_] = report.streams
        assert (stream.state, stream.reason) == (StreamState.WAITING, reason)
        assert (stream.read, stream.published, stream.quarantined) == (7, 5, 2)
        assert stream.last_success == int(AT.timestamp() * 1e6)
    ledger.set_meta(change_stopped="was emptied at once (TRUNCATE) before 1/2")
    [stream, *_] = reporter.report().streams
    assert (stream.state, stream.reason) == (StreamState.STOPPED, "source_changed")
    assert "nobody's business" not in json.dumps(report.document())
    assert str(tmp_path) not in json.dumps(report.document())
    ledger.close()


def test_a_ledger_that_is_being_made_is_no_failure(tmp_path: Path) -> None:
    file = tmp_path / "state" / "drop" / "people.v1.sqlite3"
    file.parent.mkdir(parents=True)
    file.touch()
    report = Reporter(a_config(tmp_path), Pool().report, lambda: AT, lambda _: None).report()
    assert report.streams[0].state is StreamState.WAITING


def test_a_pool_that_takes_no_reports_is_asked_once(tmp_path: Path) -> None:
    pool, told = Pool(lambda: None), list[str]()
    with Reporter(a_config(tmp_path), pool.report, lambda: AT, told.append) as reporter:
        assert pool.asked.wait(PATIENCE)
        pool.asked.clear()
        reporter.run_ended()
        assert not pool.asked.wait(0.5)
    assert len(pool.reports) == 1
    assert told == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"), []),
        (
            InvalidError(Reason.REQUEST_INVALID, "another form"),
            ["the pool refuses this program's reports: request_invalid"],
        ),
        (PoolError(Reason.INTERNAL, "x"), []),
        (ValueError("closed channel"), ["a report to the pool failed: ValueError"]),
    ],
)
def test_a_report_that_fails_is_told_once_and_ends_nothing(tmp_path: Path, error: Exception, said: list[str]) -> None:
    def fail() -> ReportAnswer:
        raise error

    pool, told = Pool(fail), list[str]()
    with Reporter(a_config(tmp_path), pool.report, lambda: AT, told.append):
        assert pool.asked.wait(PATIENCE)
    wait_for(lambda: len(pool.reports) == 2, "the last report is tried all the same")
    assert told == said


def test_notices_of_the_pool_are_told_once(tmp_path: Path) -> None:
    pool, told = Pool(lambda: ReportAnswer(next=1, notices=("program_outdated", "later_code"))), list[str]()
    with Reporter(a_config(tmp_path), pool.report, lambda: AT, told.append):
        assert pool.asked.wait(PATIENCE)
    assert told == [
        "the pool says: a later version of this program is there; update it",
        "the pool says: later_code",
    ]

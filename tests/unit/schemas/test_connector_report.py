"""The form of a connector's report: what is in it comes back, and what must not be in it is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.connector_report import (
    MAX_STREAMS,
    ConnectorReport,
    Direction,
    StreamReport,
    StreamState,
    check_report,
)
from schemas.errors import InvalidError, Reason

COUNT = st.integers(0, 2**63 - 1)
TIME = st.integers(0, 253_402_300_799_000_000)
CODE = st.from_regex(r"[A-Za-z][A-Za-z_]{0,63}", fullmatch=True)
STREAM = st.builds(
    StreamReport,
    name=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,127}", fullmatch=True),
    direction=st.sampled_from(Direction),
    state=st.sampled_from(StreamState),
    mode=st.sampled_from(["", "snapshot", "cdc"]),
    reason=CODE | st.just(""),
    last_success=TIME,
    sequence=COUNT,
    unacknowledged=COUNT,
    keys=COUNT,
    read=COUNT,
    published=COUNT,
    quarantined=COUNT,
    unchanged=COUNT,
    voided=COUNT,
    quarantine=st.dictionaries(CODE, COUNT, max_size=5),
    ledger_lost=TIME,
)
REPORT = st.builds(
    ConnectorReport,
    program=st.just("exchange-pool/0.1.0"),
    started=TIME,
    configuration=st.just("") | st.binary(min_size=32, max_size=32).map(bytes.hex),
    streams=st.lists(STREAM, max_size=4, unique_by=lambda one: (one.direction, one.name)),
    ended=st.booleans(),
)
ONE = StreamReport(name="people.v1", direction=Direction.PUBLISH, state=StreamState.RUNNING)


@given(REPORT)
def test_a_report_within_its_bounds_is_taken_and_comes_back_from_its_document(report: ConnectorReport) -> None:
    check_report(report)
    assert ConnectorReport.of_document(json.loads(json.dumps(report.document()))) == report


@pytest.mark.parametrize(
    "wrong",
    [
        {"program": "a program with spaces"},
        {"program": "p" * 101},
        {"configuration": "not a digest"},
        {"started": -1},
        {"started": 2**62},
        {"streams": [replace(ONE, name=f"t-{n}.v1") for n in range(MAX_STREAMS + 1)]},
        {"streams": [ONE, ONE]},
        {"streams": [replace(ONE, name="\u5f20\u4e09")]},
        {"streams": [replace(ONE, name="n" * 129)]},
        {"streams": [replace(ONE, reason="could not write 13800000000")]},
        {"streams": [replace(ONE, mode="m m")]},
        {"streams": [replace(ONE, quarantine={"the value": 1})]},
        {"streams": [replace(ONE, quarantine={"TYPE": -1})]},
        {"streams": [replace(ONE, sequence=-1)]},
    ],
)
def test_what_is_no_count_time_or_code_is_refused_without_being_repeated(wrong: dict[str, Any]) -> None:
    report = replace(ConnectorReport(program="p", started=0), **wrong)
    with pytest.raises(InvalidError) as refused:
        check_report(report)
    assert refused.value.reason is Reason.REQUEST_INVALID
    assert "13800000000" not in refused.value.message
    assert "the value" not in refused.value.message


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"streams": None}, {"streams": [1]}, {"program": 1, "started": 0, "streams": []},
     {"program": "p", "started": "now", "streams": []}, {"program": "p", "started": 0, "streams": [], "more": 1},
     {"program": "p", "started": 0, "streams": [{"direction": "up", "state": "done", "name": "a"}]},
     {"program": "p", "started": 0, "streams": [{"direction": "publish", "state": "done", "name": "a", "read": "x"}]},
     {"program": "p", "started": 0, "streams": [{"direction": "publish", "state": "done", "name": None}]}],
)  # fmt: skip
def test_a_document_that_somebody_has_written_is_no_report(document: Any) -> None:
    with pytest.raises(InvalidError):
        ConnectorReport.of_document(document)

"""A connector of a successor goes on with what the connector of the merged department has published."""

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import ConflictError, Reason
from tests.kit.world.department import Department, only, row, rows


@pytest.fixture
def department(tmp_path: Path) -> Department:
    made = Department(tmp_path)
    made.put(rows(50))
    assert only(made.publish()).published == 50
    made.twin.providers[made.topic] = "d-2"  # the resource has gone over
    made.pool = made.twin.client("d-2", "drop", made.key)
    return made


def test_nothing_that_was_published_is_published_twice(department: Department) -> None:
    department.limits = replace(department.limits, succeeds="d-1", accept_deletes=True)
    department.put([row(0, note="new"), *rows(50)[2:]])
    run = only(department.publish())
    assert (run.published, run.unchanged, run.voided) == (1, 48, 1)
    assert "goes on with what d-1 has published, in a lane of its own" in department.said
    assert len(department.state()) == 49
    batches = {lane.department: log.sequence for lane, log in department.twin.lanes.items()}
    assert batches["d-1"] == 2
    assert batches["d-2"] >= 1, "a lane of its own, from its first batch"
    department.put([*rows(50)[2:], row(0, note="newer")])
    assert only(department.publish()).published == 1, "the ledger is the successor's from now on"


def test_a_ledger_of_another_department_is_refused_without_that(department: Department) -> None:
    for succeeds in ("", "d-3"):
        department.limits = replace(department.limits, succeeds=succeeds)
        with pytest.raises(ConflictError) as caught:
            department.publish()
        assert caught.value.reason is Reason.CONFIG_INVALID

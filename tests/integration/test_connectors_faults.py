"""When the pool does not answer, another one writes, or the ledger is lost: what is sent again, and what is not."""

import os
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.publishing.publication import Limits
from connectors.state.ledger import Ledger
from schemas.errors import ConflictError, Reason, RefusedError, UnavailableError
from schemas.record import KeyOccurrence
from tests.kit.world.department import TOPIC, Department, now, only, row, rows


@pytest.fixture
def department(tmp_path: Path) -> Department:
    return Department(tmp_path)


class Faults:
    """Fails the first so many times that a named thing happens."""

    def __init__(self, what: str, times: int, error: Exception | None = None) -> None:
        self.what = what
        self.left = times
        self.error = error or UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away")

    def __call__(self, what: str) -> None:
        if what == self.what and self.left:
            self.left -= 1
            raise self.error


@pytest.mark.parametrize(
    "what", ["hello", "schema", "resume", "before append", "between check and append", "after append"]
)
def test_what_the_pool_forgets_to_answer_is_sent_again_and_appended_once(department: Department, what: str) -> None:
    department.twin.fail = Faults(what, 3)
    department.put(rows(200))
    run = only(department.publish())
    assert run.outcome == "done"
    assert department.twin.fail.left == 0  # type: ignore[attr-defined]
    assert len(department.twin.records(TOPIC)) == 200
    assert len(department.state()) == 200


def test_a_fenced_lane_is_asked_where_it_stands(department: Department) -> None:
    fenced = ConflictError(Reason.LANE_FENCED, "another gateway has it", retry_after=0.001)
    department.twin.fail = Faults("after append", 2, fenced)
    department.put(rows(200))
    assert only(department.publish()).published + 80 >= 200
    assert len(department.twin.records(TOPIC)) == 200


def test_it_gives_up_when_nothing_succeeds_for_long(department: Department) -> None:
    department.limits = replace(department.limits, give_up_after=0.05)
    department.twin.fail = Faults("before append", 10**9)
    department.put(rows(10))
    with pytest.raises(UnavailableError):
        department.publish()


def test_a_refusal_by_access_is_not_retried(department: Department) -> None:
    faults = Faults("before append", 10, RefusedError(Reason.NOT_PROVIDER, "not yours"))
    department.twin.fail = faults
    department.put(rows(10))
    with pytest.raises(RefusedError):
        department.publish()
    assert faults.left == 9


def test_another_process_on_the_same_lane_is_noticed(department: Department, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rival = Department(tmp_path / "other", twin=department.twin, key=department.key)
    rival.put(rows(20, note="rival"))

    class Meddling(Faults):
        def __call__(self, what: str) -> None:
            if what == self.what and self.left:
                self.left = 0
                rival.publish()
                raise self.error

    department.put(rows(200))
    department.twin.fail = Meddling("before append", 1)
    with pytest.raises(ConflictError) as error:
        department.publish()
    assert error.value.reason is Reason.SEQUENCE_CONFLICT


def test_two_connectors_do_not_share_a_ledger(department: Department) -> None:
    held = Ledger(department.ledger_file, clock=now)
    with pytest.raises(UnavailableError) as error:
        department.publish()
    assert error.value.reason is Reason.LEDGER_IN_USE
    held.close()


def test_asked_to_stop_it_ends_with_what_is_acknowledged_remembered(department: Department) -> None:
    batches = 0

    def stop_after_two(what: str) -> None:
        nonlocal batches
        batches += what == "after append"
        if batches == 2:
            department.stop.set()

    department.twin.fail = stop_after_two
    department.limits = replace(department.limits, batch_rows=400)
    department.put(rows(9000))
    (run,) = department.publish()
    assert run.outcome == "stopped"
    sent = len(department.twin.records(TOPIC))
    assert 800 <= sent < 9000
    department.stop = threading.Event()
    department.twin.fail = lambda _: None
    assert only(department.publish()).unchanged == sent
    assert len(department.twin.records(TOPIC)) == 9000


def test_a_lost_ledger_is_learnt_again_from_a_file_that_is_still_there(department: Department) -> None:
    department.put(rows(300))
    department.publish()
    department.lose_ledger()
    run = only(department.publish())
    assert (run.published, run.unchanged) == (0, 300)
    department.put([*rows(298), row(298, "2.00")])
    run = only(department.publish())
    assert (run.published, run.voided, run.unchanged) == (1, 1, 298)
    assert department.twin.records(TOPIC)[300].mark.seen is KeyOccurrence.AGAIN


def test_a_ledger_lost_in_the_middle_goes_on_from_the_pool_s_position(department: Department) -> None:
    department.put(rows(12_000))
    department.limits = Limits(batch_rows=2_500, give_up_after=0)
    appended = 0

    def die_after_three(what: str) -> None:
        nonlocal appended
        appended += what == "after append"
        if appended == 3:
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "gone")

    department.twin.fail = die_after_three
    department.limits = replace(department.limits, backoff=0.001)
    with pytest.raises(UnavailableError):
        department.publish()
    sent = len(department.twin.records(TOPIC))
    department.twin.fail = lambda _: None
    department.lose_ledger()
    run = only(department.publish())
    assert run.unchanged > 0
    assert run.unchanged + run.published == 12_000
    assert len(department.twin.records(TOPIC)) == sent + run.published
    assert {each.mark.seen for each in department.twin.records(TOPIC)[sent:]} == {KeyOccurrence.UNKNOWN}
    assert len(department.state()) == 12_000


def test_after_a_loss_another_file_is_published_again_as_possibly_known(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.lose_ledger()
    department.put([*rows(100)[:50], row(200)])
    run = only(department.publish())
    assert (run.published, run.voided) == (51, 0)
    assert {each.mark.seen for each in department.twin.records(TOPIC)[100:]} == {KeyOccurrence.UNKNOWN}
    assert any("ledger was lost" in line for line in department.said)


def test_a_recovered_position_does_not_outlive_another_publication(department: Department) -> None:
    """A published, ledger lost, B published, A again: A's rows must go out, though a position once covered them."""
    first = rows(100)
    department.put(first)
    department.publish()
    department.lose_ledger()
    department.put(rows(100, amount="7.00"))
    assert only(department.publish()).published == 100
    path = department.put(first)
    os.utime(path, (2_000_000_000, 2_000_000_000))
    assert only(department.publish()).published == 100
    assert {record["amount"] for record in department.state().values()} == {Decimal("1.50")}


def test_a_recovered_position_does_not_outlive_an_older_file_that_is_read_first(department: Department) -> None:
    for at, (name, amount) in enumerate([("old.csv", "1.00"), ("new.csv", "2.00")]):
        path = department.put(rows(100, amount=amount), name=name)
        os.utime(path, (1_000_000_000 + at, 1_000_000_000 + at))
    department.publish()
    department.lose_ledger()
    department.publish()
    assert {str(record["amount"]) for record in department.state().values()} == {"2.00"}


def test_an_old_copy_of_the_ledger_is_not_believed(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    old = department.ledger_file.read_bytes()
    department.put(rows(100, amount="2.00"))
    department.publish()
    for each in department.ledger_file.parent.iterdir():
        each.unlink()
    department.ledger_file.write_bytes(old)
    (department.drop / "rows.csv").unlink()
    path = department.put(rows(99), name="back.csv")  # what the old copy believes to be published, but for one key
    os.utime(path, (2_000_000_000, 2_000_000_000))
    department.publish()
    assert {record["amount"] for record in department.state().values()} == {Decimal("1.50")}
    assert len(department.state()) == 99, "the old copy still knows which keys there were"


def test_a_pool_that_lost_batches_wants_a_person(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.twin.lanes.clear()
    department.put(rows(100, note="new"))
    with pytest.raises(ConflictError) as error:
        department.publish()
    assert "lost batches" in error.value.message

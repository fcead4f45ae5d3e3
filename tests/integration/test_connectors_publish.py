"""A department's rows into the pool: what is published, what is not, and what is remembered of it."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.files import AfterSuccess, ReadyWhen
from connectors.ledger import Ledger
from connectors.mapping import Column
from connectors.port import Portion, RejectCode, Replaces
from connectors.runner import Limits
from connectors.suite import Row
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError, UnavailableError
from schemas.record import Operation, Seen
from tests.kit.department import HEADER, TOPIC, Department, now, only, row, rows
from tests.kit.pool_twin import PoolTwin


@pytest.fixture
def department(tmp_path: Path) -> Department:
    return Department(tmp_path)


def test_every_row_arrives_as_the_contract_says(department: Department) -> None:
    department.put([row(7, "1234.50", "2026-01-31", "低保"), row(8, "-0.01", "", "")])
    run = only(department.publish())
    assert (run.read, run.published) == (2, 2)
    assert department.state() == {
        "0007": {"id": "0007", "amount": Decimal("1234.50"), "since": date(2026, 1, 31), "note": "低保"},
        "0008": {"id": "0008", "amount": Decimal("-0.01"), "since": None, "note": ""},
    }


def test_the_first_publication_says_first_and_a_change_says_again(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.put([*rows(99), row(99, "9.99")])
    run = only(department.publish())
    assert (run.published, run.unchanged) == (1, 99)
    records = department.twin.records(TOPIC)
    assert {each.mark.seen for each in records[:100]} == {Seen.FIRST}
    assert records[100].mark.seen is Seen.AGAIN
    assert records[100].value is not None
    assert records[100].value["amount"] == Decimal("9.99")


def test_the_same_content_again_publishes_nothing_under_whatever_name(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    assert department.publish() == []
    department.put(rows(100), name="again.csv")
    assert department.publish() == []
    assert len(department.twin.records(TOPIC)) == 100


def test_a_row_that_left_the_file_becomes_a_void(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.put(rows(100)[:60] + rows(100)[61:])
    run = only(department.publish())
    assert (run.published, run.voided, run.unchanged) == (0, 1, 99)
    last = department.twin.records(TOPIC)[-1]
    assert (last.key, last.mark.operation, last.mark.seen) == (b"0060", Operation.VOID, Seen.AGAIN)
    department.put(rows(100))
    assert only(department.publish()).published == 1
    assert len(department.state()) == 100


def test_every_row_of_a_key_that_stands_twice_is_quarantined(department: Department) -> None:
    department.put([*rows(50), row(7, "2.00"), row(7, "3.00")])
    department.limits = replace(department.limits, quarantine_share=0.5)
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined) == (52, 49, 3)
    assert "0007" not in department.state()
    entries = department.quarantined()
    assert [(each.line, each.code) for each in entries] == [
        (9, RejectCode.DUPLICATE_KEY),
        (52, RejectCode.DUPLICATE_KEY),
        (53, RejectCode.DUPLICATE_KEY),
    ]
    assert entries[1].original == b"0007,2.00,2026-01-31,\r\n"


def test_duplicates_far_apart_and_bad_ones_count_as_a_group(department: Department) -> None:
    """The first of the two is unreadable in another field: the second is no less in doubt."""
    department.put([row(1, "much"), *rows(6000)[2:], row(1, "1.00")])
    run = only(department.publish())
    assert run.quarantined == 2
    assert {each.code for each in department.quarantined()} == {RejectCode.TYPE, RejectCode.DUPLICATE_KEY}
    assert "0001" not in department.state()


def test_the_last_of_a_group_counts_if_the_department_says_so(department: Department) -> None:
    department.on_duplicate = "last"
    department.put([*rows(6000), row(7, "2.00"), row(7, "3.00")])
    run = only(department.publish())
    assert (run.published, run.quarantined) == (6000, 2)
    assert department.state()["0007"]["amount"] == Decimal("3.00")
    department.put([*rows(6000), row(7, "2.00"), row(7, "3.00")], name="renamed.csv")
    assert department.publish() == []


def test_a_published_key_that_is_in_quarantine_now_is_not_voided(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.put([*rows(99), row(99, "not a number")])
    run = only(department.publish())
    assert (run.voided, run.quarantined, run.unchanged) == (0, 1, 99)
    assert department.state()["0099"]["amount"] == Decimal("1.50")


def test_no_void_goes_out_while_a_row_has_a_key_that_nobody_can_read(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.put([*rows(98), ("", "1.00", "", "")])
    run = only(department.publish())
    assert (run.voided, run.quarantined) == (0, 1)
    assert any("cannot be read" in line for line in department.said)
    department.put(rows(98))
    assert only(department.publish()).voided == 2


def test_ragged_rows_and_stray_quotes_are_quarantined_with_line_and_bytes(department: Department) -> None:
    path = department.put(rows(100))
    text = path.read_bytes()
    path.write_bytes(text + b'0200,1.00\r\n0201,1.00,,"two\nlines"\r\n0202,"1.0"0,,\r\n0203,1.00,,,\r\n')
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined) == (104, 101, 3)
    assert [(each.line, each.code, each.original) for each in department.quarantined()] == [
        (102, RejectCode.ROW_SHAPE, b"0200,1.00\r\n"),
        (105, RejectCode.ROW_SHAPE, b'0202,"1.0"0,,\r\n'),
        (106, RejectCode.ROW_SHAPE, b"0203,1.00,,,\r\n"),
    ]
    assert department.state()["0201"]["note"] == "two\nlines"


def test_a_mended_row_leaves_the_quarantine(department: Department) -> None:
    department.put([*rows(99), row(99, "x")])
    department.publish()
    assert len(department.quarantined()) == 1
    department.put(rows(100))
    assert only(department.publish()).published == 1
    assert department.quarantined() == []
    assert [each.open for each in department.quarantined(everything=True)] == [False]


def test_a_row_that_stays_bad_is_seen_again_and_not_doubled(department: Department) -> None:
    for amount in ("1.00", "2.00"):
        department.put([row(0, amount), *rows(99)[1:], row(99, "x")])
        department.publish()
    (entry,) = department.quarantined()
    assert entry.attempts == 2


def test_too_many_bad_rows_stop_the_portion(department: Department) -> None:
    department.put([*rows(2000), *((f"x{number}", "bad", "", "") for number in range(150))])
    with pytest.raises(InvalidError) as error:
        department.publish()
    assert error.value.reason is Reason.QUARANTINE_LIMIT
    department.limits = replace(department.limits, quarantine_share=0.1)
    assert only(department.publish()).quarantined == 150
    assert len(department.state()) == 2000


@pytest.mark.parametrize("left", [0, 50])
def test_the_delete_guard_speaks_before_anything_leaves(department: Department, left: int) -> None:
    department.put(rows(100))
    department.publish()
    department.put([row(0, "5.00"), *rows(left)[1:]][: left or 0])
    with pytest.raises(InvalidError) as error:
        department.publish()
    assert error.value.reason is Reason.DELETE_GUARD
    assert error.value.details == {"missing": str(100 - left), "known": "100"}
    assert len(department.twin.records(TOPIC)) == 100, "nothing was published"
    department.limits = replace(department.limits, accept_deletes=True)
    assert only(department.publish()).voided == 100 - left


def test_a_missing_or_unknown_column_stops_everything(department: Department) -> None:
    department.put([("1", "2.00")], header=("id", "sum"))
    with pytest.raises(InvalidError) as error:
        department.publish()
    assert error.value.reason is Reason.CONTRACT_BROKEN
    assert "amount" in error.value.message
    assert "sum" in error.value.message
    assert department.twin.records(TOPIC) == []


def test_columns_are_renamed_excluded_and_filled_with_null(department: Department) -> None:
    department.columns = {
        "编号": Column(target="id"),
        "金额": Column(target="amount", strip=(",", "元")),
        "备注": Column(exclude=True),
    }
    department.put([("1", "1,234.50元", "secret")], header=("编号", "金额", "备注"))
    department.publish()
    assert department.state() == {"1": {"id": "1", "amount": Decimal("1234.50"), "since": None, "note": None}}


def test_rows_that_the_pool_refuses_are_quarantined_and_the_rest_goes_on(department: Department) -> None:
    bad = {f"{number:04d}" for number in (3, 41, 42, 99)}
    department.twin.refuses = lambda record: "no such household" if record["id"] in bad else ""
    department.put(rows(200))
    run = only(department.publish())
    assert (run.published, run.quarantined) == (196, 4)
    assert set(department.state()) == {f"{number:04d}" for number in range(200)} - bad
    assert [each.line for each in department.quarantined()] == [5, 43, 44, 101]
    assert [each.sequence for each in department.twin.records(TOPIC)] == sorted(
        each.sequence for each in department.twin.records(TOPIC)
    )


def test_a_refusal_of_the_batch_itself_stops(department: Department) -> None:
    department.put(rows(10))
    other = Department(department.folder / "x" if (department.folder / "x").mkdir() is None else department.folder)
    department.pool = department.twin.client("d-1", "drop", other.key)
    with pytest.raises(InvalidError) as error:
        department.publish()
    assert error.value.reason is Reason.SIGNATURE_INVALID
    assert department.twin.records(TOPIC) == []


def test_a_new_label_in_the_schema_publishes_nothing_a_new_field_publishes_all(department: Department) -> None:
    department.put(rows(50))
    department.publish()
    labelled: dict[str, Any] = {**department.schema, "zh": "低保家庭"}
    department.twin.publish_schema(TOPIC, labelled)
    assert department.publish() == []
    wider = {**labelled, "fields": [*labelled["fields"], {"name": "x", "type": ["null", "int"], "default": None}]}
    department.twin.publish_schema(TOPIC, wider)
    assert only(department.publish()).published == 50


# -- when things break -----------------------------------------------------------------------------------------


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


# -- a lost ledger -----------------------------------------------------------------------------------------------


def test_a_lost_ledger_is_learnt_again_from_a_file_that_is_still_there(department: Department) -> None:
    department.put(rows(300))
    department.publish()
    department.lose_ledger()
    run = only(department.publish())
    assert (run.published, run.unchanged) == (0, 300)
    department.put([*rows(298), row(298, "2.00")])
    run = only(department.publish())
    assert (run.published, run.voided, run.unchanged) == (1, 1, 298)
    assert department.twin.records(TOPIC)[300].mark.seen is Seen.AGAIN


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
    assert {each.mark.seen for each in department.twin.records(TOPIC)[sent:]} == {Seen.UNKNOWN}
    assert len(department.state()) == 12_000


def test_after_a_loss_another_file_is_published_again_as_possibly_known(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    department.lose_ledger()
    department.put([*rows(100)[:50], row(200)])
    run = only(department.publish())
    assert (run.published, run.voided) == (51, 0)
    assert {each.mark.seen for each in department.twin.records(TOPIC)[100:]} == {Seen.UNKNOWN}
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


# -- the folder ----------------------------------------------------------------------------------------------------


def test_a_file_in_no_encoding_is_set_aside_and_the_others_go_on(department: Department) -> None:
    bad = department.drop / "a.csv"
    bad.write_bytes("id,amount,since,note\r\n1,2.00,,王".encode() + b"\xff\xff\r\n")
    os.utime(bad, (1_000_000_000, 1_000_000_000))
    department.put(rows(10), name="b.csv")
    assert only(department.publish()).portion == "b.csv"
    (entry,) = department.quarantined()
    assert (entry.portion, entry.line, entry.code) == ("a.csv", 2, RejectCode.ENCODING)
    assert "byte 33" in entry.message
    assert department.publish() == []


def test_a_file_waits_for_its_marker(department: Department) -> None:
    department.ready_when = ReadyWhen(marker=".ok")
    department.after_success = AfterSuccess(move_to=department.drop / "done")
    path = department.put(rows(10))
    assert department.publish() == []
    path.with_suffix(".ok").touch()
    assert only(department.publish()).published == 10
    assert [each.name for each in sorted(department.drop.iterdir())] == ["done"]
    assert (department.drop / "done" / "rows.csv").exists()


def test_a_file_that_was_just_written_waits(department: Department) -> None:
    department.ready_when = ReadyWhen(unchanged=3600)
    path = department.put(rows(10))
    os.utime(path, (1_000_000_000, 1_000_000_000))  # what a copying tool does: the change time betrays it
    assert department.publish() == []


def test_files_are_published_oldest_first(department: Department) -> None:
    for at, (name, amount) in enumerate([("z.csv", "1.00"), ("a.csv", "2.00"), ("m.csv", "3.00")]):
        path = department.put(rows(20, amount=amount), name=name)
        os.utime(path, (1_000_000_000 + at, 1_000_000_000 + at))
    assert [run.portion for run in department.publish()] == ["z.csv", "a.csv", "m.csv"]
    assert department.publish() == []
    assert department.state()["0001"]["amount"] == Decimal("3.00")
    (department.drop / "z.csv").touch()
    os.utime(department.drop / "z.csv", (1_000_000_000, 1_000_000_000))
    assert department.publish() == [], "an old version that is touched does not overwrite a later one"


def test_a_file_a_month_voids_only_what_its_own_earlier_version_stated(department: Department) -> None:
    department.replaces = Replaces.SAME_NAME
    department.put(rows(30), name="2026-01.csv")
    department.put([row(number) for number in range(100, 130)], name="2026-02.csv")
    department.publish()
    assert len(department.state()) == 60
    department.put(rows(29), name="2026-01.csv")
    assert only(department.publish()).voided == 1
    assert len(department.state()) == 59


def test_a_file_of_additions_voids_nothing(department: Department) -> None:
    department.replaces = Replaces.NOTHING
    department.put(rows(30), name="1.csv")
    department.publish()
    department.put([row(100)], name="2.csv")
    run = only(department.publish())
    assert (run.published, run.voided) == (1, 0)
    assert len(department.state()) == 31


def test_a_file_that_changes_while_it_is_read_is_read_again(department: Department) -> None:
    path = department.put(rows(9999))
    changed = False

    def change(what: str) -> None:
        nonlocal changed
        if what == "before append" and not changed:
            changed = True
            department.put(rows(9999, amount="2.00"))

    department.twin.fail = change
    department.limits = replace(department.limits, batch_rows=1000, in_flight=1)
    runs = department.publish()
    assert runs[-1].outcome == "done"
    assert path.exists()
    assert {record["amount"] for record in department.state().values()} == {Decimal("2.00")}


def test_a_total_row_ends_the_file_and_a_title_precedes_it(department: Department) -> None:
    path = department.drop / "t.csv"
    path.write_text(
        "低保对象,,,\r\n　id ,amount,since,note\r\n1,1.00,,\r\n合计,1.00,,\r\n说明,,,\r\n", encoding="gb18030"
    )
    department.form = replace(department.form, header_row=2, stop_column="id", stop_value="合计")
    run = only(department.publish())
    assert (run.read, run.published) == (1, 1)
    assert list(department.state()) == ["1"]


def test_a_header_that_names_a_column_twice_is_set_aside(department: Department) -> None:
    department.put([("1", "2", "3", "4")], header=("id", "amount", "id", "note"))
    assert department.publish() == []
    (entry,) = department.quarantined()
    assert "twice: id" in entry.message


# -- a table under writes --------------------------------------------------------------------------------------


class Moving:
    """A table that changes between its two readings."""

    def __init__(self, first: list[Row], second: list[Row]) -> None:
        self.readings = [first, second]
        self.name, self.identity, self.replaces, self.stable, self.expected = "t", b"", Replaces.EVERYTHING, False, 0
        self.columns = list(HEADER)

    def read(self, fingerprint: bytes) -> Iterator[Portion]:
        yield self

    def changes(self, columns: Any = None) -> Iterator[Any]:
        import pyarrow as pa

        from connectors.port import Changes

        stated = self.readings.pop(0)
        for start in range(0, len(stated), 3):
            part = stated[start : start + 3]
            yield Changes(
                columns={name: pa.array([each[name] for each in part], pa.string()) for name in columns or HEADER},
                lines=range(start, start + len(part)),
                originals=[str(each).encode() for each in part],
            )

    def done(self) -> None: ...

    def close(self) -> None: ...


def _moving(first: str, second: str) -> Moving:
    def stated(letters: str) -> list[Row]:
        return [{"id": letter, "amount": "1.00", "since": None, "note": None} for letter in letters]

    return Moving(stated(first), stated(second))


def test_a_row_that_appears_or_returns_between_the_readings_is_not_voided(department: Department) -> None:
    department.publish(lambda _: _moving("abcdefg", "abcdefg"))
    run = only(department.publish(lambda _: _moving("abcdef", "abcdefgh")))
    assert (run.published, run.voided) == (1, 0)
    assert sorted(department.state()) == list("abcdefgh")


def test_a_row_that_moves_is_not_published_twice(department: Department) -> None:
    run = only(department.publish(lambda _: _moving("abcdef", "abcdefa")))
    assert (run.published, run.quarantined) == (6, 1)
    assert len(department.twin.records(TOPIC)) == 6


def test_the_twin_itself_refuses_what_the_pool_refuses(tmp_path: Path) -> None:
    """The kit is checked too: a twin that takes everything would make every test above worthless."""
    department = Department(tmp_path)
    department.put(rows(10))
    department.publish()
    twin: PoolTwin = department.twin
    (lane,) = twin.lanes
    client = twin.client("d-1", "drop", department.key)
    ledger = Ledger(department.ledger_file, clock=now)
    standing = ledger.standing()
    ledger.close()
    assert standing is not None
    assert client.resume(lane.topic).root == standing.root
    assert client.resume(lane.topic).source_position == standing.position

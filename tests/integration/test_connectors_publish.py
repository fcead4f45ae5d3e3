"""A department's rows into the pool: what is published, what is not, and what is remembered of it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.mapping.mapping import Column
from connectors.port import RejectCode
from connectors.state.ledger import Ledger
from exchange.client import BatchRefusedError
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Batch, KeyOccurrence, Operation, Receipt, key_bytes
from tests.kit.world.department import TOPIC, Department, now, only, row, rows


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
    assert {each.mark.seen for each in records[:100]} == {KeyOccurrence.FIRST}
    assert records[100].mark.seen is KeyOccurrence.AGAIN
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
    assert (last.key, last.mark.operation, last.mark.seen) == (b"0060", Operation.VOID, KeyOccurrence.AGAIN)
    department.put(rows(100))
    assert only(department.publish()).published == 1
    assert len(department.state()) == 100


def ended(department: Department) -> bool:
    """Take a row away; return whether its void ends its record and does not retract it."""
    sent: list[Batch] = []
    client = department.twin.client("d-1", "drop", department.key)
    publish = client.publish

    def recording(topic: Topic, batches: Iterable[Batch], **more: int) -> Iterator[Receipt]:
        yield from publish(topic, (sent.append(each) or each for each in batches), **more)  # type: ignore[func-returns-value]

    client.publish = recording  # type: ignore[method-assign,assignment]
    department.pool = client
    count = len(department.state())
    department.put(rows(count - 1))
    assert only(department.publish()).voided == 1
    department.pool = None
    return bool(sent[-1].valid)


@pytest.mark.parametrize(
    ("on_delete", "latest_alone", "expected"), [("", False, True), ("", True, False), ("retract", False, False)]
)
def test_a_row_that_is_gone_ends_where_history_is_kept(
    department: Department, on_delete: str, latest_alone: bool, expected: bool
) -> None:
    department.on_delete = on_delete
    department.twin.latest_alone = {TOPIC} if latest_alone else set()
    department.put(rows(100))
    department.publish()
    assert any("`on_delete` states it otherwise" in each for each in department.said) == (not on_delete)
    assert ended(department) is expected
    # What a lane began with holds, whatever the resource keeps later, until the configuration states another.
    department.twin.latest_alone ^= {TOPIC}
    assert ended(department) is expected
    department.on_delete = "end"
    assert ended(department) is True
    department.on_delete = ""
    assert ended(department) is True


def test_a_lane_of_an_earlier_program_goes_on_to_retract(department: Department) -> None:
    department.put(rows(100))
    department.publish()
    ledger = Ledger(department.ledger_file, clock=now)
    ledger.set_meta(on_delete="")  # the earlier program noted nothing
    ledger.close()
    assert ended(department) is False
    department.ledger_file.unlink()  # a lost ledger noted nothing either
    department.publish()
    assert ended(department) is False


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


def test_a_new_label_in_the_schema_publishes_nothing_and_neither_does_a_new_field_without_values(
    department: Department,
) -> None:
    department.put(rows(50))
    department.publish()
    labelled: dict[str, Any] = {**department.schema, "zh": "低保家庭"}
    department.twin.publish_schema(TOPIC, labelled)
    assert department.publish() == []
    wider = {**labelled, "fields": [*labelled["fields"], {"name": "x", "type": ["null", "int"], "default": None}]}
    department.twin.publish_schema(TOPIC, wider)
    run = only(department.publish())
    assert (run.published, run.unchanged) == (0, 50)


def test_the_contract_s_own_rules_are_kept_on_this_side(tmp_path: Path) -> None:
    schema = {
        "type": "record",
        "name": "Person",
        "key": ["id"],
        "fields": [
            {"name": "id", "type": "string", "check": "cn_id18"},
            {"name": "sex", "type": "string", "codes": ["1", "2"]},
            {"name": "name", "type": "string", "check": "not_empty"},
        ],
    }
    department = Department(tmp_path, topic="person.v1", schema=schema)
    department.limits = replace(department.limits, quarantine_share=1.0)
    department.put(
        [
            ("11010519491231002X", "1", "王"),
            ("110105194912310021", "1", "checksum"),
            ("1.10105E+17", "1", "spreadsheet"),
            ("440524188001010014", "3", "code"),
            ("440524188001010014", "", ""),
        ],
        header=("id", "sex", "name"),
    )
    run = only(department.publish())
    assert (run.published, run.quarantined) == (1, 4)
    assert [each.code for each in department.quarantined()] == [
        RejectCode.ID_CHECKSUM,
        RejectCode.NUMBER_TOO_LONG_FOR_ID,
        RejectCode.DUPLICATE_KEY,
        RejectCode.DUPLICATE_KEY,
    ]
    department.put([("440524188001010014", "3", "code"), ("11010519491231002X", "1", "")], header=("id", "sex", "name"))
    department.limits = replace(department.limits, accept_deletes=True)
    assert only(department.publish()).quarantined == 2
    assert [each.code for each in department.quarantined()] == [RejectCode.ENUM, RejectCode.NULL_NOT_ALLOWED]


def test_a_batch_that_is_too_large_is_halved(department: Department) -> None:
    """The pool's bound on bytes may be lower than ours."""
    client = department.twin.client("d-1", "drop", department.key)
    take = client.take

    def narrow(topic: Topic, batch: Batch) -> Receipt:
        if len(batch) > 10:
            raise BatchRefusedError(Reason.BATCH_TOO_LARGE, "too large", sequence=batch.sequence, rows=(), details={})
        return take(topic, batch)

    client.take = narrow  # type: ignore[method-assign]
    department.pool = client
    department.put(rows(100))
    assert only(department.publish()).published == 100
    assert max(Counter(each.sequence for each in department.twin.records(TOPIC)).values()) <= 10


def ordered(department: Department, *parts: str) -> bool:
    with closing(Ledger(department.ledger_file, clock=now)) as ledger:
        return ledger.order_correction(key_bytes(parts))


def test_a_key_that_was_ordered_is_published_once_as_a_correction_though_its_row_has_not_changed(
    department: Department,
) -> None:
    department.put(rows(3))
    department.publish()
    assert ordered(department, "0001")
    department.put([row(0), row(1), row(2, "9.99")])
    run = only(department.publish())
    assert (run.published, run.unchanged) == (2, 1)
    again = department.twin.records(TOPIC)[3:]
    assert {each.value["id"]: each.mark.operation for each in again if each.value} == {
        "0001": Operation.CORRECT,
        "0002": Operation.UPSERT,
    }
    assert {each.mark.seen for each in again} == {KeyOccurrence.AGAIN}
    department.put([row(0), row(1, "7.00"), row(2, "9.99")])
    assert only(department.publish()).published == 1
    assert department.twin.records(TOPIC)[-1].mark.operation is Operation.UPSERT, "once"


def test_a_correction_of_a_key_that_was_never_published_is_not_ordered(department: Department) -> None:
    department.put(rows(3))
    department.publish()
    assert not ordered(department, "0009")

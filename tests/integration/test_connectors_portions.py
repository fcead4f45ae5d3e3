"""Folders with their files, and tables under writes: which portion is published when, and what it voids."""

import gzip
import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.conformance import Row
from connectors.port import Portion, RejectCode, Replaces
from connectors.sources.drop_folder import AfterSuccess, ReadyWhen
from connectors.state.ledger import Ledger
from tests.kit.twins.pool_twin import PoolTwin
from tests.kit.world.department import HEADER, SCHEMA, TOPIC, Department, now, only, row, rows


@pytest.fixture
def department(tmp_path: Path) -> Department:
    return Department(tmp_path)


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
    department.file_format = replace(department.file_format, header_row=2, stop_column="id", stop_value="合计")
    run = only(department.publish())
    assert (run.read, run.published) == (1, 1)
    assert list(department.state()) == ["1"]


def test_a_header_that_names_a_column_twice_is_set_aside(department: Department) -> None:
    department.put([("1", "2", "3", "4")], header=("id", "amount", "id", "note"))
    assert department.publish() == []
    (entry,) = department.quarantined()
    assert "twice: id" in entry.message


def test_what_a_cell_that_is_too_long_holds_is_no_record(department: Department) -> None:
    path = department.drop / "long.csv"
    cell = "x" * 600_000 + '\n0777,9.00,,ghost\n""quoted""\n' + "y" * 600_000
    tail = "\n" + "z" * 3_000_000
    path.write_text(f'{",".join(HEADER)}\n0001,1.00,,a\n0002,1.00,,"{cell}{tail}"\n0003,1.00,,c\n', encoding="utf-8")
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined) == (3, 2, 1)
    assert sorted(department.state()) == ["0001", "0003"]
    (entry,) = department.quarantined()
    assert (entry.line, entry.code) == (3, RejectCode.ROW_SHAPE)
    assert "it ends on line 7" in entry.message
    assert entry.original.startswith(b"0002,")
    assert len(entry.original) < 5_000_000, "one record does not fill the ledger"


def test_a_record_of_many_lines_that_is_too_long_is_one_reject(department: Department) -> None:
    cells = ",".join(['"' + "x" * 900_000 + '\n0777,9.00,,ghost\n"'] * 12)
    path = department.drop / "long.csv"
    path.write_text(f"{','.join(HEADER)}\n0001,1.00,,a\n0002,{cells}\n0003,1.00,,c\n", encoding="utf-8")
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined) == (3, 2, 1)
    assert sorted(department.state()) == ["0001", "0003"]
    (entry,) = department.quarantined()
    assert (entry.line, entry.code) == (3, RejectCode.ROW_SHAPE)
    assert "more than 8,388,608 characters); it ends on line 27" in entry.message
    assert entry.original.startswith(b"0002,")
    assert len(entry.original) < 5_000_000, "one record does not fill the ledger"


def test_a_header_of_many_lines_that_is_too_long_sets_its_file_aside(department: Department) -> None:
    header = ",".join(f'"{number}{"x" * 90_000}\n"' for number in range(100))
    (department.drop / "long.csv").write_text(f"{header}\n1\n", encoding="utf-8")
    assert department.publish() == []
    (entry,) = department.quarantined()
    assert "more than 8,388,608 characters" in entry.message


LONG_LINES = {
    "a.csv": f"{','.join(HEADER)}\n0001,1.00,,a\n{'0,' * (1 << 22)}0\n0002,1.00,,b\n",
    "a.jsonl": f'\n{{"id": "0001", "amount": "1.00"}}\n[{"0," * (1 << 22)}0]\n',
}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz", "a.jsonl.gz"])
def test_a_line_that_is_too_long_sets_its_file_aside_and_the_others_go_on(department: Department, name: str) -> None:
    department.patterns = ("*.csv", "*.jsonl", "*.gz")
    content = LONG_LINES[name.removesuffix(".gz")].encode()
    path = department.drop / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    department.put(rows(10), name="b.csv")
    assert only(department.publish()).portion == "b.csv"
    (entry,) = department.quarantined()
    assert (entry.portion, entry.line, entry.code) == (name, 3, RejectCode.TOO_LARGE)
    assert "more than 8,388,608 characters" in entry.message
    assert department.publish() == []


def test_an_unclosed_quote_of_a_long_file_leaves_no_ghosts(department: Department) -> None:
    path = department.drop / "open.csv"
    rest = "".join(f"{number:04d},1.00,,{'n' * 200}\n" for number in range(2, 9000))
    path.write_text(f'{",".join(HEADER)}\n0001,1.00,,"a\n{rest}', encoding="utf-8")
    run = only(department.publish())
    assert (run.read, run.published, run.quarantined) == (1, 0, 1)
    assert "it ends on line 9000" in department.quarantined()[0].message


def test_a_code_of_an_older_standard_arrives_as_the_character_that_it_means(department: Department) -> None:
    department.put([row(1, note="王" + bytes.fromhex("FE59").decode("gb18030"))], encoding="gb18030")
    assert only(department.publish()).published == 1
    assert department.state()["0001"]["note"] == "王\u9fb4"


def test_a_file_that_is_set_aside_leaves_the_folder_with_its_marker(department: Department) -> None:
    department.ready_when = ReadyWhen(marker=".ok")
    department.after_reject = AfterSuccess(move_to=department.drop / "rejected")
    for name, content in (("empty.csv", b""), ("big5.csv", "id,amount,since,note\n1,1,,陳大文\n".encode("big5"))):
        (department.drop / name).write_bytes(content)
        (department.drop / f"{name}.ok").touch()
    assert department.publish() == []
    assert {entry.portion for entry in department.quarantined()} == {"empty.csv", "big5.csv"}
    assert [each.name for each in department.drop.iterdir()] == ["rejected"]
    assert {each.name for each in (department.drop / "rejected").iterdir()} == {"empty.csv", "big5.csv"}
    assert department.publish() == []


class Moving:
    """A table that changes between its two readings."""

    def __init__(self, first: list[Row], second: list[Row]) -> None:
        self.readings = [first, second]
        self.name, self.identity, self.replaces, self.stable = "t", b"", Replaces.EVERYTHING, False
        self.columns = list(HEADER)

    def portions(self, fingerprint: bytes) -> Iterator[Portion]:
        yield self

    def chunks(self, columns: Any = None) -> Iterator[Any]:
        import pyarrow as pa

        from connectors.port import RowChunk

        stated = self.readings.pop(0)
        for start in range(0, len(stated), 3):
            part = stated[start : start + 3]
            yield RowChunk(
                columns={name: pa.array([each[name] for each in part], pa.string()) for name in columns or HEADER},
                lines=range(start, start + len(part)),
                originals=[str(each).encode() for each in part],
            )

    def confirm(self) -> None: ...

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


def test_the_ledger_s_checkpoint_is_the_pool_s_last_batch(tmp_path: Path) -> None:
    department = Department(tmp_path)
    department.put(rows(10))
    department.publish()
    twin: PoolTwin = department.twin
    (lane,) = twin.lanes
    client = twin.client("d-1", "drop", department.key)
    ledger = Ledger(department.ledger_file, clock=now)
    checkpoint = ledger.checkpoint()
    ledger.close()
    assert checkpoint is not None
    assert client.resume(lane.topic).root == checkpoint.root
    assert client.resume(lane.topic).source_position == checkpoint.position


def test_a_field_that_is_added_publishes_no_row_that_says_the_same(tmp_path: Path) -> None:
    department = Department(tmp_path, null_values=("",))
    department.put(rows(100))
    assert only(department.publish()).published == 100
    ledger = Ledger(department.ledger_file, clock=now)
    with ledger.transaction() as sql:  # as an earlier program leaves it
        sql.execute("DELETE FROM meta WHERE name = 'contracts'")
    ledger.close()
    wider = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "phone", "type": ["null", "string"], "default": None}]}
    department.twin.publish_schema(department.topic, wider)
    department.put([*rows(99), row(99, amount="9.00")], name="second.csv")
    assert [(run.published, run.unchanged) for run in department.publish()] == [(0, 100), (1, 99)]
    header = (*HEADER, "phone")
    department.put([(*each, "138" if each[0] == "0007" else "") for each in rows(100)], name="third.csv", header=header)
    run = only(department.publish())
    assert (run.published, run.unchanged) == (2, 98), "the one that has the new field, and the one that changed back"
    assert department.state()["0007"]["phone"] == "138"

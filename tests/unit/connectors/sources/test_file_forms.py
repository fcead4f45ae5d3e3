"""Forms of files beside CSV: what each row becomes, and what is refused, with a cause that says what to do."""

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.port import Reject, Replaces
from connectors.sources import file_portion
from connectors.sources.drop_folder import AfterSuccess, DropFolder, ReadyWhen
from connectors.sources.file_portion import FileForm, FileFormat, open_binary
from connectors.state.ledger import Ledger
from registry.spreadsheet import shared_strings
from schemas.errors import InvalidError, Reason
from tests.kit.cases.workbooks import Raw, write_workbook

Read = tuple[list[dict[str, str | None]], list[Reject]]
Reader = Callable[..., Read]
ERROR = Raw("e", "<v>#N/A</v>")
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SHEET = "xl/worksheets/sheet1.xml"
UNCOMPUTED = Raw("n", "<f>SUM(A1:A2)</f>")


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Reader]:
    """Return a function that reads one file of a drop folder: its rows, and its rejects."""
    ledger = Ledger(tmp_path / "state" / "l.sqlite3", clock=lambda: datetime.now(UTC))

    def reading(path: Path, **file_format: Any) -> Read:
        folder = DropFolder(
            path.parent,
            [path.name],
            file_format=FileFormat(**file_format),
            replaces=Replaces.EVERYTHING,
            ready_when=ReadyWhen(unchanged=0),
            after_success=AfterSuccess(),
            history=ledger,
            quarantine=lambda *_: None,
            clock=lambda: datetime.now(UTC),
        )
        rows: list[dict[str, str | None]] = []
        rejects: list[Reject] = []
        portion = folder.open(path)
        for chunk in portion.chunks():
            columns = {name: column.to_pylist() for name, column in chunk.columns.items()}
            rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            rejects += chunk.rejects
        return rows, rejects

    yield reading
    ledger.close()


def refusal(read: Reader, path: Path, **file_format: Any) -> str:
    with pytest.raises(InvalidError) as caught:
        read(path, **file_format)
    assert caught.value.reason is Reason.FILE_REJECTED
    assert len(caught.value.details["sha256"]) == 64
    return caught.value.message


def jsonl(tmp_path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def test_members_become_columns_in_the_order_in_which_they_appear(read: Reader, tmp_path: Path) -> None:
    path = jsonl(tmp_path, '{"b": "1", "a": null}', "", '{"c": true, "a": ""}')
    rows, rejects = read(path)
    assert rows == [{"b": "1", "a": None, "c": None}, {"b": None, "a": "", "c": "true"}]
    assert list(rows[0]) == ["b", "a", "c"]
    assert not rejects


def test_numbers_keep_each_digit(read: Reader, tmp_path: Path) -> None:
    numbers = ["9007199254740993", "0.10000000000000000555", "-1.50", "1E400", "123456789012345678901234567890", "-0"]
    rows, _ = read(jsonl(tmp_path, *(f'{{"n": {number}}}' for number in numbers)))
    assert [row["n"] for row in rows] == numbers
    (row,), _ = read(jsonl(tmp_path, '{"n": {"a": [1.10, "x", null, {"王": false}]}}'))
    assert row["n"] == '{"a":[1.10,"x",null,{"王":false}]}'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": 1', "expected a JSON object on one line"),
        ("[1]", "expected a JSON object; got another value"),
        ('"text"', "expected a JSON object; got another value"),
        ('{"a": 1, "a": 2}', "expected an object that names each member once"),
        ('{"a": NaN}', "expected numbers that JSON has; got NaN"),
        ('{"a": "\\ud800"}', "expected text without half a surrogate pair"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "expected JSON of at most 100 levels of arrays and objects"),
    ],
)
def test_a_line_that_is_no_object_is_a_reject_with_its_line(
    read: Reader, tmp_path: Path, line: str, expected: str
) -> None:
    rows, (reject,) = read(jsonl(tmp_path, '{"a": "x"}', line, '{"a": "y"}'))
    assert [row["a"] for row in rows] == ["x", "y"]
    assert reject.line == 2
    assert reject.message.startswith(expected)
    assert reject.original == f"{line}\n".encode()


def test_json_lines_have_the_ladder_of_encodings(read: Reader, tmp_path: Path) -> None:
    (row,), _ = read(jsonl(tmp_path, '{"姓名": "王小明"}', encoding="gb18030"))
    assert row == {"姓名": "王小明"}
    assert "UTF-16 without a byte order mark" in refusal(
        read, jsonl(tmp_path, '{"姓名": "a", "b": "c"}', encoding="utf-16-le")
    )
    assert "no line that is a JSON object" in refusal(read, jsonl(tmp_path, "id,name", "1,x"))


@pytest.mark.parametrize("cut", [1, 12, 40])
def test_a_compressed_file_that_was_cut_is_set_aside(read: Reader, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.csv.gz"
    whole = gzip.compress(b"id,name\n" + b"".join(b"%d,x%d\n" % (n, n * n) for n in range(100)))
    path.write_bytes(whole[:-cut])
    assert "damaged or was cut" in refusal(read, path)
    path.write_bytes(b"id,name\n1,x\n")
    assert "damaged or was cut" in refusal(read, path)


def test_the_form_may_be_pinned(read: Reader, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("id\tname\n1\tx,y\n")
    assert read(path, form=FileForm.TSV)[0] == [{"id": "1", "name": "x,y"}]


@pytest.mark.parametrize(("begin", "end"), [('{"a":', "}"), ("[", "]")])
@pytest.mark.parametrize("levels", [101, 300, 480, 700, 990, 50_000])
def test_what_is_nested_too_deeply_is_a_reject(read: Reader, tmp_path: Path, levels: int, begin: str, end: str) -> None:
    deep, most = ('{"x":' + begin * (each - 1) + "1" + end * (each - 1) + "}" for each in (levels, 100))
    rows, (reject,) = read(jsonl(tmp_path, '{"x":1}', deep, most))
    assert next(row["x"] for row in rows) == "1"
    assert len(rows) == 2
    assert (reject.line, reject.message) == (2, "expected JSON of at most 100 levels of arrays and objects")


def book(tmp_path: Path, *rows: Sequence[Any], **more: Any) -> Path:
    path = tmp_path / "rows.xlsx"
    write_workbook(path, rows, **more)
    return path


def test_a_header_of_a_million_names_is_set_aside_at_once(read: Reader, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(",".join(f"{number:x}" for number in range(1_000_000)) + "\n")
    assert "has 1,000,000 columns; expected 16,384 at most" in refusal(read, path)
    path.write_text(",".join(["a", "b"] * 8_192) + "\n")
    assert "names columns twice: a, b;" in refusal(read, path)
    path.write_text(",".join(f"{number:x}" for number in range(16_384)) + "\n" + "," * 16_383 + "\n")
    assert len(read(path)[0][0]) == 16_384


def rewrite(path: Path, part: str, old: str, new: str) -> None:
    """Change the text of one part."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert parts[part].count(old.encode()) == 1
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(old.encode(), new.encode()) if name == part else content)


def cells(read: Reader, path: Path, **file_format: Any) -> list[list[str | None]]:
    rows, rejects = read(path, **file_format)
    assert not rejects, rejects
    return [list(row.values()) for row in rows]


def test_cells_become_texts(read: Reader, tmp_path: Path) -> None:
    at = datetime(2024, 2, 29, 8, 30, 15)  # noqa: DTZ001 - a workbook has no zones
    path = book(
        tmp_path,
        ["a", "b", "c", "d", "e", "f"],
        ["007", 42, 0.1 + 0.2, True, date(2024, 2, 29), at],
        [" x ", -1.5, 1e-7, False, date(1900, 3, 1), None],
        [None, 123456789012345, 110105199001010017, None, None, "王"],
    )
    assert cells(read, path) == [
        ["007", "42", "0.3", "true", "2024-02-29", "2024-02-29 08:30:15"],
        [" x ", "-1.5", "0.0000001", "false", "1900-03-01", ""],
        ["", "123456789012345", "1.1010519900101002e+17", "", "", "王"],
    ]


def test_a_workbook_that_counts_from_1904_has_the_same_dates(read: Reader, tmp_path: Path) -> None:
    assert cells(read, book(tmp_path, ["a"], [date(2024, 2, 29)], since_1904=True)) == [["2024-02-29"]]


@pytest.mark.parametrize(
    ("bad", "merged", "expected"),
    [
        (["1", ERROR], [], "expected a value in the cell B3; got an error"),
        (["1", UNCOMPUTED], [], "expected a value in the cell B3; got a formula that was not computed"),
        (["1", "x", "y"], [], "expected values in columns with a name; got one in the column C"),
        (["1", None], ["B2:B3"], "expected a value in the cell B3; got a part of cells merged with B2"),
        (["1", None], ["A3:B3"], "expected a value in the cell B3; got a part of cells merged with A3"),
    ],
)
def test_a_row_whose_cells_cannot_be_told_is_a_reject(
    read: Reader, tmp_path: Path, bad: list[Any], merged: list[str], expected: str
) -> None:
    rows, (reject,) = read(book(tmp_path, ["a", "b"], ["0", "x"], bad, ["2", "z"], merged=merged))
    assert [row["a"] for row in rows] == ["0", "2"]
    assert (reject.line, reject.message) == (3, expected)


def test_a_formula_that_returns_the_empty_text_is_empty(read: Reader, tmp_path: Path) -> None:
    path = book(
        tmp_path, ["a", "b"], ["1", Raw("str", '<f>IF(1,"","")</f><v></v>')], ["2", Raw("n", "<f>1+1</f><v>2</v>")]
    )
    assert cells(read, path) == [["1", ""], ["2", "2"]]


def test_the_header_may_stand_below_a_title_and_a_total_ends_the_sheet(read: Reader, tmp_path: Path) -> None:
    path = book(tmp_path, ["统计表"], [], ["序号", "金额"], ["1", 2], [], ["合计", 2], ["x", 1], merged=["A1:B1"])
    assert cells(read, path, header_row=3, stop_column="序号", stop_value="合计") == [["1", "2"]]


def test_what_is_no_usable_workbook_is_set_aside(read: Reader, tmp_path: Path) -> None:
    assert "no header" in refusal(read, book(tmp_path))
    assert "names columns twice: a" in refusal(read, book(tmp_path, ["a", "a"]))
    assert "merged with A1" in refusal(read, book(tmp_path, ["a", None, "b"], ["1", "2"], merged=["A1:B1"]))
    assert "no sheet 'other'" in refusal(read, book(tmp_path, ["a"]), sheet="other")
    assert cells(read, book(tmp_path, ["a"], ["1"], hidden_first=True)) == [["1"]]
    path = book(tmp_path, ["a"], ["1"], hidden_first=True)
    assert cells(read, path, sheet="Sheet1") == [["1"]]
    path.write_bytes(b"id,name\n1,x\n")
    assert "cannot be read as a workbook" in refusal(read, path)
    path.write_bytes(b"PK\x03\x04" + bytes(50))
    assert "cannot be read as a workbook" in refusal(read, path)
    old = tmp_path / "rows.xls"
    old.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    assert "save the workbook as .xlsx" in refusal(read, old)


@pytest.mark.parametrize("far", ["XFD1048576", "XFD2049", "XFD1000", "Z1048576", "A9999999", "ABCD2"])
def test_a_small_workbook_with_cells_far_apart_is_set_aside_before_memory_is_taken_for_those_between(
    read: Reader, tmp_path: Path, far: str
) -> None:
    path = book(tmp_path, ["a"], ["1"])
    row = far.lstrip("ABCDFXZ")
    rewrite(path, SHEET, "</sheetData>", f'<row r="{row}"><c s="&gt;" r="{far}"><v>1</v></c></row></sheetData>')
    assert path.stat().st_size < 3_000
    assert " cells, as far as " in refusal(read, path)


def test_rows_without_addresses_count_from_the_one_before(read: Reader, tmp_path: Path) -> None:
    path = book(tmp_path, ["a"], ["1"])
    rewrite(path, SHEET, "</sheetData>", '<row r="1048570"/><row><c r="XFD1048571"/></row><row><c/></row></sheetData>')
    assert "XFD1048571" in refusal(read, path)


def test_a_whole_column_of_merged_cells_ends_with_the_sheet(read: Reader, tmp_path: Path) -> None:
    path = book(tmp_path, ["a", "b"], ["1", "2"], merged=["A2:A1048576"] * 2_000)
    assert cells(read, path) == [["1", "2"]]


def test_ranges_of_merged_cells_one_over_the_other_are_looked_at_once_a_row(read: Reader, tmp_path: Path) -> None:
    """100,000 ranges of 100,000 rows would take hours, in a file of a few kilobytes."""
    rows = [["1", "2"] for _ in range(100_000)]
    path = book(tmp_path, ["a", "b"], *rows, merged=["A2:B1048576"] * 100_000)
    read_rows, rejects = read(path)
    assert (read_rows, len(rejects)) == ([], 100_000)
    assert "merged with A2" in rejects[-1].message


def test_a_part_that_is_larger_than_its_archive_says_is_set_aside(read: Reader, tmp_path: Path) -> None:
    path = book(tmp_path, ["a"], ["1"])
    with zipfile.ZipFile(path) as archive:
        content = archive.read(SHEET)
    short = len(content) - 20
    facts = [(zlib.crc32(content), zlib.crc32(content[: short + 1])), (len(content), short)]
    packed = path.read_bytes()
    for found, lie in facts:
        assert packed.count(found.to_bytes(4, "little")) >= 2
        packed = packed.replace(found.to_bytes(4, "little"), lie.to_bytes(4, "little"))
    path.write_bytes(packed)
    assert "not what the archive says" in refusal(read, path)


def test_a_part_that_is_there_twice_is_set_aside(read: Reader, tmp_path: Path) -> None:
    path = book(tmp_path, ["a"], ["1"])
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(SHEET, "<worksheet/>")
    assert "not what the archive says" in refusal(read, path)


# -- what somebody may put into a folder to do harm ------------------------------------------------------------------


def test_a_symbolic_link_is_set_aside_and_what_it_names_is_not_read(tmp_path: Path) -> None:
    secret, drop, aside = tmp_path / "secret.csv", tmp_path / "drop", tmp_path / "aside"
    secret.write_text("id,name\n1,secret\n")
    drop.mkdir()
    (drop / "rows.csv").symlink_to(secret)
    (drop / "nowhere.csv").symlink_to(tmp_path / "missing")
    told: list[tuple[str, Reject]] = []
    ledger = Ledger(tmp_path / "state" / "l.sqlite3", clock=lambda: datetime.now(UTC))
    folder = DropFolder(
        drop,
        ["*.csv"],
        file_format=FileFormat(),
        replaces=Replaces.EVERYTHING,
        ready_when=ReadyWhen(unchanged=0),
        after_success=AfterSuccess(delete=True),
        after_reject=AfterSuccess(move_to=aside),
        history=ledger,
        quarantine=lambda name, reject: told.append((name, reject)),
        clock=lambda: datetime.now(UTC),
    )
    assert list(folder.portions(bytes(8))) == []
    assert sorted(name for name, _ in told) == ["nowhere.csv", "rows.csv"]
    assert all("a symbolic link, which is not followed" in reject.message for _, reject in told)
    assert secret.read_text() == "id,name\n1,secret\n", "it is neither moved nor deleted"
    assert sorted(each.name for each in aside.iterdir()) == ["nowhere.csv", "rows.csv"]
    assert list(folder.portions(bytes(8))) == []
    assert len(told) == 2, "it is said once"
    ledger.close()


def test_a_link_that_takes_a_file_s_place_while_it_is_read_is_not_followed(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "rows.csv"
    secret.write_text("id,name\n1,secret\n")
    path.symlink_to(secret)
    for name in ("rows.csv", "rows.csv.gz"):
        link = tmp_path / name
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
        with pytest.raises(OSError, match="symbolic links"):
            open_binary(link)


def test_a_compressed_file_of_too_much_is_set_aside(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"id,name\n" + b"1,x\n" * 500_000))
    assert len(read(path)[0]) == 500_000
    monkeypatch.setattr(file_portion, "MAX_UNPACKED", 1 << 20)
    assert "more than" in refusal(read, path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_line_of_a_wrong_byte_is_counted_by_any_line_end(read: Reader, tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "rows.csv"
    for before in (1, 3, 200_000):
        path.write_bytes(b"id,name" + end + (b"1,x" + end) * before + b"2,\xff\xff\xff" + end)
        assert f"on line {before + 2}:" in refusal(read, path)


def test_a_shared_text_that_too_many_cells_name_is_set_aside_before_memory_is_taken_for_it(
    read: Reader, tmp_path: Path
) -> None:
    path = tmp_path / "rows.xlsx"

    def write(strings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        write_workbook(path, rows)
        items = "".join(f"<si><t>{each}</t></si>" for each in strings)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/sharedStrings.xml", f'<sst xmlns="{MAIN}">{items}</sst>')

    shared = Raw("s", "<v>1</v>")
    write(["id", "x" * (1 << 20)], [["id", "text"], *([n, shared] for n in range(3))])
    rows, _ = read(path)
    assert {len(row["text"] or "") for row in rows} == {1 << 20}
    write(["id", "x" * (1 << 20)], [["id", "text"], *([n, shared] for n in range(2_000))])
    assert path.stat().st_size < 100_000
    assert "cells of more than 1,024 MiB of text" in refusal(read, path)
    write(["id", "x", "y" * (1 << 20)], [["id", "text"], *([n, shared] for n in range(2_000))])
    assert len(read(path)[0]) == 2_000, "a long text that few cells name is no harm"


def test_more_shared_texts_than_there_is_memory_for_are_set_aside(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.xlsx"
    write_workbook(path, [["id"], [1]])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f'<sst xmlns="{MAIN}">{"<si/>" * 2_000}</sst>')
    assert len(read(path)[0]) == 1
    monkeypatch.setattr(shared_strings, "_MAX_STRINGS", 1_000)
    assert "more than 1,000 shared strings" in refusal(read, path)
    monkeypatch.setattr(shared_strings, "_MAX_PART", 1_000)
    assert "of shared strings" in refusal(read, path)

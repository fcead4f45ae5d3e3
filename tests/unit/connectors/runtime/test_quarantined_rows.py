"""Quarantined rows by column: of every form in which a source keeps them, and back from a mended file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.config.publication_models import FormatConfig, PublishConfig
from connectors.port import RejectCode
from connectors.publishing.mended_rows import MendedRow
from connectors.runtime.exports.quarantined_rows import parse_rows, render_rows
from connectors.state.quarantine import QuarantineEntry
from schemas.errors import InvalidError

COLUMNS = ["id", "note"]


def entry(original: bytes, portion: str) -> QuarantineEntry:
    return QuarantineEntry(
        id=17,
        portion=portion,
        line=5,
        code=RejectCode.TYPE,
        field="note",
        message="a number",
        original=original,
        first_seen="2026-03-01T00:00:00+00:00",
        last_seen="2026-03-01T00:00:00+00:00",
        attempts=1,
        open=True,
    )


def rendered(
    original: bytes, portion: str, columns: Sequence[str] | None = COLUMNS, **form: Any
) -> dict[str, str | None] | None:
    section = PublishConfig(resource="a.v1", format=FormatConfig(**form))
    (line,) = render_rows([entry(original, portion)], section, {portion: columns} if columns else {})
    found: dict[str, Any] = json.loads(line)
    assert (found["id"], found["line"], found["code"]) == (17, 5, "TYPE")
    assert ("original" in found) is (found["row"] is None)
    row: dict[str, str | None] | None = found["row"]
    return row


@pytest.mark.parametrize(
    ("original", "portion", "form", "row"),
    [
        (b'001,"a ""b"", c"\r\n', "rows.csv", {}, {"id": "001", "note": 'a "b", c'}),
        ("001,王小明".encode("gb18030"), "rows.csv", {}, {"id": "001", "note": "王小明"}),
        ("001,王小明".encode("big5"), "rows.csv", {"encoding": "big5"}, {"id": "001", "note": "王小明"}),
        (b"001;x", "rows.txt", {"delimiter": ";"}, {"id": "001", "note": "x"}),
        (b"001\tx, y", "rows.tsv.gz", {}, {"id": "001", "note": "x, y"}),
        (b'001\tsays "no', "rows.xlsx", {}, {"id": "001", "note": 'says "no'}),
        (b'{"id": "001", "note": null}', "public.item", {}, {"id": "001", "note": None}),
        (b'{"id": 110105194912310021, "note": 1.50}', "rows.jsonl", {}, {"id": "110105194912310021", "note": "1.50"}),
        (b'{"id": true, "note": {"a": [1.50]}}', "rows.jsonl", {}, {"id": "true", "note": '{"a":[1.50]}'}),
    ],
)
def test_a_row_comes_by_column_as_it_stands_there(
    original: bytes, portion: str, form: dict[str, Any], row: dict[str, str | None]
) -> None:
    assert rendered(original, portion, **form) == row


@pytest.mark.parametrize(
    ("original", "portion", "columns"),
    [
        (b"001,x,y", "rows.csv", COLUMNS),
        (b'001,"x', "rows.csv", COLUMNS),
        (b"001,x", "rows.csv", None),
        (b"001,x\r\n002,y", "rows.csv", COLUMNS),
        (b"[1, 2, 3]", "rows.jsonl", COLUMNS),
        (b"\xff\xfe0\0", "rows.csv", COLUMNS),
        (b"[" * 100_000, "rows.jsonl", COLUMNS),
    ],
)
def test_what_is_not_one_row_of_these_columns_comes_as_its_text(
    original: bytes, portion: str, columns: Sequence[str] | None
) -> None:
    assert rendered(original, portion, columns) is None


def test_what_was_written_is_read_back_and_lines_without_a_row_are_left_out(tmp_path: Path) -> None:
    section = PublishConfig(resource="a.v1")
    file = tmp_path / "bad.jsonl"
    lines = render_rows([entry("001,𠮷".encode(), "rows.csv")], section, {"rows.csv": COLUMNS})
    file.write_bytes(b"\xef\xbb\xbf" + b"".join(lines) + b'\n{"id": 18, "row": null, "original": "x"}\n')
    assert parse_rows(file) == [MendedRow(17, {"id": "001", "note": "𠮷"})]


@pytest.mark.parametrize(
    "line",
    [
        '{"id": 17, "row": {"id": "\\ud800"}}',
        '{"id": 17, "row": {"id": "1", "id": "2"}}',
        '{"id": 17, "row": {"id": NaN}}',
        '{"id": "seventeen", "row": {}}',
        '{"id": null, "row": {"id": "1"}}',
        '{"id": 17, "row": "id"}',
        "[" * 100_000,
        "no JSON",
    ],
)
def test_a_line_that_is_no_mended_row_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    file = tmp_path / "mended.jsonl"
    file.write_text(f'{{"id": 1, "row": {{"id": "secret"}}}}\n{line}\n')
    with pytest.raises(InvalidError) as refused:
        parse_rows(file)
    assert refused.value.message.startswith("mended.jsonl:2: expected ")
    assert "secret" not in refused.value.message

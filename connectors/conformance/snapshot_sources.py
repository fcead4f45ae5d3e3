# ruff: noqa: S101, D102 - tests, which assert, and whose names are their sentences
"""Conformance suite of snapshot sources: what the publisher of portions relies on.

class TestOurRegister(SnapshotSourceSuite):
@pytest.fixture(autouse=True)
def folder(self, tmp_path):
self.file = tmp_path / "register.db"

def make_source(self, rows):
write_register(self.file, rows)            # columns id, name, amount, note
return OurRegister(self.file)
"""

from collections.abc import Sequence
from typing import Any

from connectors.port import Portion, RowChunk, SnapshotSource
from schemas.errors import PoolError, UnavailableError

__all__ = ["COLUMNS", "Row", "SnapshotSourceSuite"]

COLUMNS = ("id", "name", "amount", "note")
Row = dict[str, str | None]

_AWKWARD_TEXTS = [
    "王小明",
    "𠮷野家 🀄",
    "㐂",
    'says "no", twice',
    "two\nlines",
    "carriage\r\nreturn",
    "000123456789012345678X",
    "=SUM(A1:A9)",
    "'; DROP TABLE t; --",
    "tab\there",
    "e\u0301 and \u00e9",
    "\\N",
    "NULL",
    "1e5",
]


class SnapshotSourceSuite:
    """The promises of a snapshot source. Override `make_source` and `make_unreachable`; the attributes name its limits.

    Attributes:
        distinguishes_null: the source distinguishes null from the empty text.
        many_rows: so many rows do not fit into one chunk.
    """

    distinguishes_null = True
    many_rows = 12_345

    def make_source(self, rows: Sequence[Row]) -> SnapshotSource:
        """Build a source that states these rows and no others; `id` is unique and never null."""
        raise NotImplementedError

    def make_unreachable(self, source: SnapshotSource) -> None:
        """Make what the source reads unreachable."""
        raise NotImplementedError

    def test_states_each_row_once_in_columns_of_text(self) -> None:
        rows = _rows(10)
        assert _read(self.make_source(rows)) == rows

    def test_leaves_every_text_as_it_is(self) -> None:
        rows: list[Row] = [
            {"id": str(at), "name": text, "amount": "007", "note": ""} for at, text in enumerate(_AWKWARD_TEXTS)
        ]
        assert _read(self.make_source(rows)) == rows

    def test_distinguishes_null_from_empty_if_it_can(self) -> None:
        rows: list[Row] = [
            {"id": "1", "name": "", "amount": "0", "note": None},
            {"id": "2", "name": "x", "amount": "1", "note": ""},
        ]
        if not self.distinguishes_null:
            rows[0]["note"] = ""
        assert _read(self.make_source(rows)) == rows

    def test_states_every_row_of_many_in_chunks(self) -> None:
        rows = _rows(self.many_rows)
        source = self.make_source(rows)
        chunks = [len(chunk) for chunk in _portion(source).chunks()]
        assert sum(chunks) == self.many_rows
        assert max(chunks) <= 10_000, "a chunk is kept in memory, and becomes one batch or two"
        assert _read(source) == rows

    def test_states_the_same_when_read_again(self) -> None:
        portion = _portion(self.make_source(_rows(50)))
        assert _texts(portion.chunks()) == _texts(portion.chunks())

    def test_states_the_requested_columns_and_no_others(self) -> None:
        portion = _portion(self.make_source(_rows(50)))
        chunks = list(portion.chunks(["id"]))
        assert {name for chunk in chunks for name in chunk.columns} == {"id"}
        assert chunks[0].columns["id"].to_pylist()[0] == "1000"

    def test_gives_each_row_a_line_of_its_own_and_its_original(self) -> None:
        chunks = list(_portion(self.make_source(_rows(50))).chunks())
        lines = [line for chunk in chunks for line in chunk.lines]
        assert len(set(lines)) == 50
        assert lines == sorted(lines)
        originals = [original for chunk in chunks for original in chunk.originals]
        assert len(originals) == 50
        assert all(b"1000" in original.replace(b"\0", b"") for original in originals[:1]), (
            "the original is the row, as it was"
        )

    def test_states_no_rows_when_there_are_none(self) -> None:
        assert _read(self.make_source([])) == []

    def test_raises_unavailable_when_it_cannot_be_reached(self) -> None:
        source = self.make_source(_rows(10))
        portion = _portion(source)
        self.make_unreachable(source)
        try:
            _texts(portion.chunks())
        except UnavailableError:
            return
        except PoolError as error:
            raise AssertionError(f"expected UnavailableError, got {type(error).__name__}") from error
        raise AssertionError("expected UnavailableError, got rows")

    def test_confirm_is_idempotent(self) -> None:
        portion = _portion(self.make_source(_rows(3)))
        portion.confirm()
        portion.confirm()


def _rows(count: int) -> list[Row]:
    return [
        {"id": str(1000 + at), "name": f"人{at}", "amount": f"{at}.50", "note": "" if at % 3 else "备注"}
        for at in range(count)
    ]


def _portion(source: SnapshotSource) -> Portion:
    portions = list(source.portions(bytes(8)))
    assert len(portions) == 1, "one state, one portion"
    return portions[0]


def _texts(chunks: Any) -> list[Row]:
    rows: list[Row] = []
    for chunk in chunks:
        assert isinstance(chunk, RowChunk)
        assert not chunk.rejects
        columns = {name: column.to_pylist() for name, column in chunk.columns.items()}
        rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows


def _read(source: SnapshotSource) -> list[Row]:
    rows = _texts(_portion(source).chunks())
    return sorted(rows, key=lambda row: int(row["id"] or 0))

# ruff: noqa: S101, D102, PT017 - tests, which assert, whose names are their sentences, and which need no pytest
"""The exam of every connector: inherit it, say how to make one, and be told what it does not keep.

    class TestOurRegister(SourceSuite):
        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.file = tmp_path / "register.db"

        def given(self, rows):
            write_register(self.file, rows)            # columns id, name, amount, note
            return OurRegister(self.file)

`SourceSuite` and `SinkSuite` are what the runner relies on (`connectors.port`). They use no pool and no network.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from connectors.port import Changes, Delivered, Portion, Sink, Source, Undelivered
from schemas.errors import ConflictError, PoolError, Reason, UnavailableError

__all__ = ["SinkSuite", "SourceSuite", "nothing_refused", "release"]

COLUMNS = ("id", "name", "amount", "note")
Row = dict[str, str | None]

_AWKWARD = [
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


class SourceSuite:
    """What a source keeps. Override `given`; the attributes say what the source cannot do.

    Attributes:
        has_null: the source tells "no value" from the empty text.
        many: rows that take more than one chunk.
    """

    has_null = True
    many = 12_345

    def given(self, rows: Sequence[Row]) -> Source:
        """Make a source that states these rows and no others; `id` is unique and never null."""
        raise NotImplementedError

    def taken_away(self, source: Source) -> None:
        """Make what the source reads unreachable."""
        raise NotImplementedError

    def test_states_each_row_once_in_columns_of_text(self) -> None:
        rows = _rows(10)
        assert _read(self.given(rows)) == rows

    def test_leaves_every_text_as_it_is(self) -> None:
        rows: list[Row] = [
            {"id": str(at), "name": text, "amount": "007", "note": ""} for at, text in enumerate(_AWKWARD)
        ]
        assert _read(self.given(rows)) == rows

    def test_tells_null_from_empty_if_it_can(self) -> None:
        rows: list[Row] = [
            {"id": "1", "name": "", "amount": "0", "note": None},
            {"id": "2", "name": "x", "amount": "1", "note": ""},
        ]
        if not self.has_null:
            rows[0]["note"] = ""
        assert _read(self.given(rows)) == rows

    def test_states_every_row_of_many_in_chunks(self) -> None:
        rows = _rows(self.many)
        source = self.given(rows)
        chunks = [len(changes) for changes in _portion(source).changes()]
        assert sum(chunks) == self.many
        assert max(chunks) <= 10_000, "a chunk is held in memory, and sealed as one batch or two"
        assert _read(source) == rows

    def test_states_the_same_when_read_again(self) -> None:
        portion = _portion(self.given(_rows(50)))
        assert _texts(portion.changes()) == _texts(portion.changes())

    def test_states_the_columns_that_are_asked_for_and_no_others(self) -> None:
        portion = _portion(self.given(_rows(50)))
        chunks = list(portion.changes(["id"]))
        assert {name for changes in chunks for name in changes.columns} == {"id"}
        assert chunks[0].columns["id"].to_pylist()[0] == "1000"

    def test_gives_each_row_a_line_of_its_own_and_its_original(self) -> None:
        chunks = list(_portion(self.given(_rows(50))).changes())
        lines = [line for changes in chunks for line in changes.lines]
        assert len(set(lines)) == 50
        assert lines == sorted(lines)
        originals = [original for changes in chunks for original in changes.originals]
        assert len(originals) == 50
        assert all(b"1000" in original.replace(b"\0", b"") for original in originals[:1]), (
            "the original is the row, as it was"
        )

    def test_states_no_rows_when_there_are_none(self) -> None:
        assert _read(self.given([])) == []

    def test_says_unavailable_when_it_is_taken_away(self) -> None:
        source = self.given(_rows(10))
        portion = _portion(source)
        self.taken_away(source)
        try:
            _texts(portion.changes())
        except UnavailableError:
            return
        except PoolError as error:
            raise AssertionError(f"expected UnavailableError, got {type(error).__name__}") from error
        raise AssertionError("expected UnavailableError, got rows")

    def test_takes_done_twice(self) -> None:
        portion = _portion(self.given(_rows(3)))
        portion.done()
        portion.done()


class SinkSuite:
    """What a sink keeps. Override `make`, `stored` and `taken_away`.

    Attributes:
        guards: a record never overwrites a later one. A sink that only appends leaves that to its readers.
        typed: `stored` gives values of the record's types; otherwise it gives texts.
    """

    guards = True
    typed = True

    def make(self) -> Sink:
        """Make a sink over the target; called again, another process over the same one."""
        raise NotImplementedError

    def stored(self) -> Mapping[str, Mapping[str, Any] | None]:
        """Return what the target holds: record key in hexadecimal → its fields, None = withdrawn or not there."""
        raise NotImplementedError

    def refusing(self) -> Sink | None:
        """Make a prepared sink whose target refuses a name that it already has; None if it takes everything."""
        return None

    def taken_away(self, sink: Sink) -> None:
        """Make the target unreachable."""
        raise NotImplementedError

    def ready(self) -> Sink:
        """Return a sink that is prepared for the suite's records."""
        sink = self.make()
        sink.prepare(SCHEMA)
        return sink

    def test_has_no_position_before_the_first_release(self) -> None:
        assert self.ready().position() == b""

    def test_stores_records_and_position_together(self) -> None:
        sink = self.ready()
        written = sink.write(release({1: "a", 2: "b"}), b"", b"p1", nothing_refused)
        assert (written.upserted, written.withdrawn, list(written.refused)) == (2, 0, [])
        sink.close()
        again = self.ready()
        assert again.position() == b"p1"
        assert _names(self.stored()) == {1: "a", 2: "b"}

    def test_a_later_record_takes_the_place_of_an_earlier_one(self) -> None:
        sink = self.ready()
        sink.write(release({1: "a", 2: "b"}), b"", b"p1", nothing_refused)
        sink.write(release({2: "c"}, at=20), b"p1", b"p2", nothing_refused)
        assert _names(self.stored()) == {1: "a", 2: "c"}

    def test_the_last_word_counts_within_one_release(self) -> None:
        sink = self.ready()
        first, second, gone = release({1: "a", 2: "x"}), release({1: "b", 3: "y"}, at=11), release({2: None}, at=12)
        sink.write(_joined(first, second, gone), b"", b"p1", nothing_refused)
        assert _names(self.stored()) == {1: "b", 3: "y"}

    def test_a_withdrawn_record_is_no_longer_valid(self) -> None:
        sink = self.ready()
        sink.write(release({1: "a", 2: "b"}), b"", b"p1", nothing_refused)
        written = sink.write(release({1: None, 9: None}, at=20), b"p1", b"p2", nothing_refused)
        assert written.withdrawn == 2
        assert _names(self.stored()) == {2: "b"}

    def test_a_withdrawn_record_that_returns_is_valid_again(self) -> None:
        sink = self.ready()
        sink.write(release({1: "a"}), b"", b"p1", nothing_refused)
        sink.write(release({1: None}, at=20), b"p1", b"p2", nothing_refused)
        sink.write(release({1: "b"}, at=30), b"p2", b"p3", nothing_refused)
        assert _names(self.stored()) == {1: "b"}

    def test_a_release_without_records_moves_the_position(self) -> None:
        sink = self.ready()
        sink.write(release({1: "a"}), b"", b"p1", nothing_refused)
        sink.write(release({}), b"p1", b"p2", nothing_refused)
        sink.write(release({}), b"p2", b"p3", nothing_refused)
        assert self.ready().position() == b"p3"
        sink.write(release({2: "b"}), b"p3", b"p4", nothing_refused)
        assert self.ready().position() == b"p4"
        assert _names(self.stored()) == {1: "a", 2: "b"}

    def test_a_second_writer_is_stopped_before_it_writes(self) -> None:
        slow, fast = self.ready(), self.ready()
        slow.write(release({1: "a"}), b"", b"p1", nothing_refused)
        fast.write(release({1: "b"}, at=20), b"p1", b"p2", nothing_refused)
        for before in (b"", b"p1", b"px"):
            try:
                slow.write(release({1: "stale"}, at=30), before, b"p9", nothing_refused)
            except ConflictError as error:
                assert error.reason is Reason.VERSION_CONFLICT
            else:
                raise AssertionError("expected VERSION_CONFLICT: the position was another one")
        assert _names(self.stored()) == {1: "b"}
        assert self.ready().position() == b"p2"

    def test_an_earlier_record_does_not_overwrite_a_later_one(self) -> None:
        sink = self.ready()
        sink.write(release({1: "late"}, at=50), b"", b"p1", nothing_refused)
        sink.write(release({1: "early"}, at=40), b"p1", b"p2", nothing_refused)
        assert _names(self.stored()) == ({1: "late"} if self.guards else {1: "early"})

    def test_what_the_target_refuses_is_set_aside_before_anything_is_stored(self) -> None:
        sink = self.refusing()
        if sink is None:
            return
        told: list[Undelivered] = []

        def dying(refused: Sequence[Undelivered]) -> None:
            told.extend(refused)
            raise _DiedError

        try:
            sink.write(release({1: "a", 2: "a", 3: "b"}), b"", b"p1", dying)
        except _DiedError:
            pass
        else:
            raise AssertionError("expected to be told of the refused record")
        assert len(told) == 1
        assert self.ready().position() == b"", "told too late: the position had passed over what was refused"
        assert _names(self.stored()) == {}
        written = sink.write(release({1: "a", 2: "a", 3: "b"}), b"", b"p1", told.extend)
        assert told[1:] == list(written.refused)
        assert told[0] == told[1], "the same record is told of, the second time"
        assert (written.upserted, len(self.stored()), self.ready().position()) == (2, 2, b"p1")

    def test_keeps_values_of_every_type(self) -> None:
        sink = self.ready()
        sink.write(_full(), b"", b"p1", nothing_refused)
        stored = {int(key, 16): fields for key, fields in self.stored().items()}
        for number, expected in enumerate(FULL, 1):
            fields = stored[number]
            assert fields is not None
            for name, value in expected.items():
                told = fields[name]
                assert _same(told, value) if self.typed else told is not None or value is None, (number, name)

    def test_says_unavailable_when_the_target_is_taken_away(self) -> None:
        sink = self.ready()
        sink.write(release({1: "a"}), b"", b"p1", nothing_refused)
        self.taken_away(sink)
        try:
            sink.write(release({2: "b"}), b"p1", b"p2", nothing_refused)
        except UnavailableError:
            return
        raise AssertionError("expected UnavailableError")


SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("born", pa.date32()),
        pa.field("amount", pa.decimal128(20, 4)),
        pa.field("count", pa.int64()),
        pa.field("ratio", pa.float64()),
        pa.field("good", pa.bool_()),
        pa.field("seen", pa.timestamp("us", tz="UTC")),
        pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
        pa.field("raw", pa.binary()),
    ]
)

FULL: list[dict[str, Any]] = [
    {
        "name": "𠮷野 \"'\\ 王\n五",
        "born": date(1949, 10, 1),
        "amount": Decimal("1234567890123456.7891"),
        "count": 2**63 - 1,
        "ratio": 0.1,
        "good": True,
        "seen": datetime(2026, 1, 31, 9, 30, 0, 123456, UTC),
        "kind": "甲",
        "raw": b"\x00\xff\x80",
    },
    {
        "name": "",
        "born": date(1, 1, 1),
        "amount": Decimal("-0.0001"),
        "count": -(2**63),
        "ratio": -1e300,
        "good": False,
        "seen": datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        "kind": "乙",
        "raw": b"",
    },
    dict.fromkeys(SCHEMA.names),
]


def release(names: Mapping[int, str | None], *, at: int = 10) -> Delivered:
    """Make a release of records that have a name, or of withdrawals (None)."""
    records = [{**dict.fromkeys(SCHEMA.names), "name": name} for name in names.values() if name is not None]
    return Delivered(
        keys=[number.to_bytes(16, "big") for number in names],
        recorded_at=[at] * len(names),
        withdrawn=[name is None for name in names.values()],
        records=pa.RecordBatch.from_pylist(records, SCHEMA),
        values=[b"" if name is None else b"value" for name in names.values()],
        entry_id="entry",
    )


def nothing_refused(refused: Sequence[Undelivered]) -> None:
    """Take the place of the quarantine where the target is expected to refuse nothing."""
    assert not refused, refused


class _DiedError(Exception):
    """The process, as it were."""


def _full() -> Delivered:
    return Delivered(
        keys=[number.to_bytes(16, "big") for number in range(1, len(FULL) + 1)],
        recorded_at=[10] * len(FULL),
        withdrawn=[False] * len(FULL),
        records=pa.RecordBatch.from_pylist(FULL, SCHEMA),
        values=[b"value"] * len(FULL),
        entry_id="entry",
    )


def _joined(*parts: Delivered) -> Delivered:
    return Delivered(
        keys=[key for part in parts for key in part.keys],
        recorded_at=[at for part in parts for at in part.recorded_at],
        withdrawn=[flag for part in parts for flag in part.withdrawn],
        records=pa.Table.from_batches([part.records for part in parts]).combine_chunks().to_batches()[0],
        values=[value for part in parts for value in part.values],
        entry_id="entry",
    )


def _names(stored: Mapping[str, Mapping[str, Any] | None]) -> dict[int, str]:
    return {int(key, 16): str(fields["name"]) for key, fields in stored.items() if fields is not None}


def _same(told: Any, value: Any) -> bool:
    if isinstance(value, datetime) and isinstance(told, datetime):
        return (told if told.tzinfo else told.replace(tzinfo=UTC)) == value
    return bool(told == value) or (isinstance(value, bytes) and bytes(told) == value)


def _rows(count: int) -> list[Row]:
    return [
        {"id": str(1000 + at), "name": f"人{at}", "amount": f"{at}.50", "note": "" if at % 3 else "备注"}
        for at in range(count)
    ]


def _portion(source: Source) -> Portion:
    portions = list(source.read(bytes(8)))
    assert len(portions) == 1, "one state, one portion"
    return portions[0]


def _texts(chunks: Any) -> list[Row]:
    rows: list[Row] = []
    for changes in chunks:
        assert isinstance(changes, Changes)
        assert not changes.rejects
        columns = {name: column.to_pylist() for name, column in changes.columns.items()}
        rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows


def _read(source: Source) -> list[Row]:
    rows = _texts(_portion(source).changes())
    return sorted(rows, key=lambda row: int(row["id"] or 0))

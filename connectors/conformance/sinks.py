# ruff: noqa: S101, D102, PT017 - tests, which assert, whose names are their sentences, and which need no pytest
"""Conformance suite of sinks: what the subscriber relies on."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from connectors.port import DecodedRelease, RejectedRecord, Sink
from schemas.errors import ConflictError, Reason, UnavailableError

__all__ = ["SCHEMA", "SinkSuite", "expect_no_rejects", "make_release"]


class SinkSuite:
    """The promises of a sink. Override `make_sink`, `stored` and `make_unreachable`.

    Attributes:
        keeps_latest: a record never overwrites a later one. A sink that only appends leaves that to its readers.
        typed: `stored` returns values of the record's types; otherwise it returns texts.
    """

    keeps_latest = True
    typed = True

    def make_sink(self) -> Sink:
        """Build a sink over the target; called again, the sink of another process over the same target."""
        raise NotImplementedError

    def stored(self) -> Mapping[str, Mapping[str, Any] | None]:
        """Return the records of the target: key in hexadecimal → its fields, None = withdrawn or absent."""
        raise NotImplementedError

    def make_rejecting_sink(self) -> Sink | None:
        """Build a prepared sink whose target rejects a name that it already has; None if it accepts everything."""
        return None

    def make_unreachable(self, sink: Sink) -> None:
        """Make the target unreachable."""
        raise NotImplementedError

    def prepared_sink(self) -> Sink:
        """Return a sink that is prepared for the suite's records."""
        sink = self.make_sink()
        sink.prepare(SCHEMA)
        return sink

    def test_has_no_position_before_the_first_release(self) -> None:
        assert self.prepared_sink().position() == b""

    def test_stores_records_and_position_together(self) -> None:
        sink = self.prepared_sink()
        written = sink.write(make_release({1: "a", 2: "b"}), b"", b"p1", expect_no_rejects)
        assert (written.upserted, written.withdrawn, list(written.rejected)) == (2, 0, [])
        sink.close()
        reopened = self.prepared_sink()
        assert reopened.position() == b"p1"
        assert _names(self.stored()) == {1: "a", 2: "b"}

    def test_a_later_record_replaces_an_earlier_one(self) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "a", 2: "b"}), b"", b"p1", expect_no_rejects)
        sink.write(make_release({2: "c"}, at=20), b"p1", b"p2", expect_no_rejects)
        assert _names(self.stored()) == {1: "a", 2: "c"}

    def test_the_last_record_of_a_key_counts_within_one_release(self) -> None:
        sink = self.prepared_sink()
        parts = make_release({1: "a", 2: "x"}), make_release({1: "b", 3: "y"}, at=11), make_release({2: None}, at=12)
        sink.write(_concatenate(*parts), b"", b"p1", expect_no_rejects)
        assert _names(self.stored()) == {1: "b", 3: "y"}

    def test_a_withdrawn_record_is_no_longer_valid(self) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "a", 2: "b"}), b"", b"p1", expect_no_rejects)
        written = sink.write(make_release({1: None, 9: None}, at=20), b"p1", b"p2", expect_no_rejects)
        assert written.withdrawn == 2
        assert _names(self.stored()) == {2: "b"}

    def test_a_withdrawn_record_that_returns_is_valid_again(self) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
        sink.write(make_release({1: None}, at=20), b"p1", b"p2", expect_no_rejects)
        sink.write(make_release({1: "b"}, at=30), b"p2", b"p3", expect_no_rejects)
        assert _names(self.stored()) == {1: "b"}

    def test_a_release_without_records_moves_the_position(self) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
        sink.write(make_release({}), b"p1", b"p2", expect_no_rejects)
        sink.write(make_release({}), b"p2", b"p3", expect_no_rejects)
        assert self.prepared_sink().position() == b"p3"
        sink.write(make_release({2: "b"}), b"p3", b"p4", expect_no_rejects)
        assert self.prepared_sink().position() == b"p4"
        assert _names(self.stored()) == {1: "a", 2: "b"}

    def test_a_second_writer_is_stopped_before_it_writes(self) -> None:
        slow, fast = self.prepared_sink(), self.prepared_sink()
        slow.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
        fast.write(make_release({1: "b"}, at=20), b"p1", b"p2", expect_no_rejects)
        for before in (b"", b"p1", b"px"):
            try:
                slow.write(make_release({1: "stale"}, at=30), before, b"p9", expect_no_rejects)
            except ConflictError as error:
                assert error.reason is Reason.VERSION_CONFLICT
            else:
                raise AssertionError("expected VERSION_CONFLICT: the position was another one")
        assert _names(self.stored()) == {1: "b"}
        assert self.prepared_sink().position() == b"p2"

    def test_an_earlier_record_does_not_overwrite_a_later_one(self) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "late"}, at=50), b"", b"p1", expect_no_rejects)
        sink.write(make_release({1: "early"}, at=40), b"p1", b"p2", expect_no_rejects)
        assert _names(self.stored()) == ({1: "late"} if self.keeps_latest else {1: "early"})

    def test_what_the_target_rejects_is_quarantined_before_anything_is_stored(self) -> None:
        sink = self.make_rejecting_sink()
        if sink is None:
            return
        quarantined: list[RejectedRecord] = []

        def quarantine_and_crash(rejected: Sequence[RejectedRecord]) -> None:
            quarantined.extend(rejected)
            raise _SimulatedCrashError

        try:
            sink.write(make_release({1: "a", 2: "a", 3: "b"}), b"", b"p1", quarantine_and_crash)
        except _SimulatedCrashError:
            pass
        else:
            raise AssertionError("expected a call with the rejected record")
        assert len(quarantined) == 1
        assert self.prepared_sink().position() == b"", "too late: the position had moved past what was rejected"
        assert _names(self.stored()) == {}
        written = sink.write(make_release({1: "a", 2: "a", 3: "b"}), b"", b"p1", quarantined.extend)
        assert quarantined[1:] == list(written.rejected)
        assert quarantined[0] == quarantined[1], "the same record, the second time"
        assert (written.upserted, len(self.stored()), self.prepared_sink().position()) == (2, 2, b"p1")

    def test_keeps_values_of_every_type(self) -> None:
        sink = self.prepared_sink()
        sink.write(_full(), b"", b"p1", expect_no_rejects)
        stored = {int(key, 16): fields for key, fields in self.stored().items()}
        for number, expected in enumerate(FULL, 1):
            fields = stored[number]
            assert fields is not None
            for name, value in expected.items():
                found = fields[name]
                assert _same(found, value) if self.typed else found is not None or value is None, (number, name)

    def test_raises_unavailable_when_the_target_cannot_be_reached(self) -> None:
        sink = self.prepared_sink()
        sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
        self.make_unreachable(sink)
        try:
            sink.write(make_release({2: "b"}), b"p1", b"p2", expect_no_rejects)
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


def make_release(names: Mapping[int, str | None], *, at: int = 10) -> DecodedRelease:
    """Build a release of records that have a name, or of withdrawals (None)."""
    records = [{**dict.fromkeys(SCHEMA.names), "name": name} for name in names.values() if name is not None]
    return DecodedRelease(
        keys=[number.to_bytes(16, "big") for number in names],
        recorded_at=[at] * len(names),
        withdrawn=[name is None for name in names.values()],
        records=pa.RecordBatch.from_pylist(records, SCHEMA),
        values=[b"" if name is None else b"value" for name in names.values()],
        entry_id="entry",
    )


def expect_no_rejects(rejected: Sequence[RejectedRecord]) -> None:
    """Fail the test if the target rejects a record: the quarantine callback where none is expected."""
    assert not rejected, rejected


class _SimulatedCrashError(Exception):
    """Stands for the end of the process."""


def _full() -> DecodedRelease:
    return DecodedRelease(
        keys=[number.to_bytes(16, "big") for number in range(1, len(FULL) + 1)],
        recorded_at=[10] * len(FULL),
        withdrawn=[False] * len(FULL),
        records=pa.RecordBatch.from_pylist(FULL, SCHEMA),
        values=[b"value"] * len(FULL),
        entry_id="entry",
    )


def _concatenate(*parts: DecodedRelease) -> DecodedRelease:
    return DecodedRelease(
        keys=[key for part in parts for key in part.keys],
        recorded_at=[at for part in parts for at in part.recorded_at],
        withdrawn=[flag for part in parts for flag in part.withdrawn],
        records=pa.Table.from_batches([part.records for part in parts]).combine_chunks().to_batches()[0],
        values=[value for part in parts for value in part.values],
        entry_id="entry",
    )


def _names(stored: Mapping[str, Mapping[str, Any] | None]) -> dict[int, str]:
    return {int(key, 16): str(fields["name"]) for key, fields in stored.items() if fields is not None}


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, datetime) and isinstance(found, datetime):
        return (found if found.tzinfo else found.replace(tzinfo=UTC)) == value
    return bool(found == value) or (isinstance(value, bytes) and bytes(found) == value)

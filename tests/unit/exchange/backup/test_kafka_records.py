"""What Kafka remembers of lanes against what the log holds: what cannot be known is refused, with what to do."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from exchange.backup.kafka_records import KafkaRecords
from exchange.broker.memory import MemoryBroker
from exchange.broker.port import Appended, LaneFault
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.names import ConnectorId, Lane, Topic
from schemas.record import OffsetRange, Receipt

LANE = Lane("01900000-0000-7000-8000-000000000001", ConnectorId("source"), Topic.parse("permits.v1"))


def remembered(first: int, last: int) -> list[Appended]:
    return [
        Appended(
            lane=LANE,
            sequence=number,
            digest=bytes([number]) * 32,
            source_position=b"at %d" % number,
            recorded_at=number,
            count=1,
            runs=(OffsetRange(partition=0, first=number, last=number),),
        )
        for number in range(first, last + 1)
    ]


class Receipts:
    """As many receipts of the lane as the database has, and those that are added."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.added: list[Receipt] = []

    def last_sequences(self, _: Any) -> dict[Lane, int]:
        return {LANE: self.last} if self.last else {}

    def put(self, _: Any, receipts: Sequence[tuple[Receipt, Sequence[bytes]]]) -> None:
        self.added += [receipt for receipt, _ in receipts]


def restored(kept: Sequence[Appended], last: int) -> list[Receipt]:
    """Restore the batches that Kafka alone has, over a database and a log that end with batch *last*."""
    store = Receipts(last)
    records = KafkaRecords(MemoryBroker(), {LANE: kept} if kept else {})
    records.restore_unlogged(
        cast("Any", None), cast("Any", store), lambda _: b"s" * 64, lambda _, one: (f"entry {one.sequence}", one.digest)
    )
    assert records.recovered == len(store.added)
    return store.added


@pytest.mark.parametrize(("kept", "last", "added"), [
    (remembered(1, 3), 3, []), (remembered(2, 5), 3, [4, 5]), (remembered(4, 5), 3, [4, 5]), ([], 0, []),
    (remembered(1, 2), 0, [1, 2]),
])  # fmt: skip
def test_what_kafka_alone_has_gets_its_receipt(kept: list[Appended], last: int, added: list[int]) -> None:
    receipts = restored(kept, last)
    assert [one.sequence for one in receipts] == added
    for one in receipts:
        assert (one.entry_id, one.source_position) == (f"entry {one.sequence}", b"at %d" % one.sequence)
        assert one.signature


@pytest.mark.parametrize(("kept", "last"), [([], 1), (remembered(1, 2), 3)])
def test_where_kafka_has_less_than_the_log_nothing_is_restored(kept: list[Appended], last: int) -> None:
    with pytest.raises(InvalidError, match=r"Kafka has lost records too.*make a new pool") as refused:
        restored(kept, last)
    assert refused.value.reason is Reason.CONFIG_INVALID


def test_batches_that_neither_the_log_nor_kafka_knows_are_refused() -> None:
    with pytest.raises(InvalidError, match=r"batches 4 to 6 of lane .*Restore with --log"):
        restored(remembered(7, 9), 3)


def test_a_lane_that_cannot_be_read_is_no_lane_that_is_empty() -> None:
    class Broken(MemoryBroker):
        def lanes(self) -> Any:
            yield LaneFault(name="x", error=CorruptError(Reason.LOG_CORRUPT, "unreadable"))

    with pytest.raises(CorruptError):
        KafkaRecords.open(Broken())

"""Which records of a read leave with the mark of a disputed value, and what that costs where nothing is disputed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exchange.broker.port import PartitionRecords, ReadResult
from exchange.corrections.model import CorrectionTicket, TicketState
from exchange.corrections.store import DisputedRecords, MemoryCorrections
from exchange.records.reading.disputed_values import DisputedValues
from exchange.records.reading.selection import join, select
from exchange.records.release import ViewOutput
from registry.database.unit_of_work import MemoryDatabase, Reader
from schemas.access import Grant, MaskRule
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from schemas.record import Operation, Packed
from tests.kit.cases.corrections import TOPIC, a_ticket
from tests.kit.cases.grants import a_grant

UPSERT, CORRECT = Operation.UPSERT, Operation.CORRECT
GRANT = replace(a_grant(), topic=TOPIC, fields=("full_name", "sex_code"), masks=())


class Store(MemoryCorrections):
    """Counts its reads, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.fails = 0, False

    def disputed(self, reader: Reader) -> DisputedRecords:
        self.reads += 1
        if self.fails:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "x")
        return super().disputed(reader)


class Pool:
    def __init__(self, *tickets: CorrectionTicket) -> None:
        self.store, self.db, self.now = Store(), MemoryDatabase(), 0.0
        self.values = DisputedValues(self.store, self.db, monotonic=lambda: self.now)
        self.add(*tickets)

    def add(self, *tickets: CorrectionTicket) -> None:
        with self.db.begin() as work:
            for ticket in tickets:
                self.store.add(work, ticket)

    def marked(self, read: ReadResult, grant: Grant = GRANT) -> list[int]:
        found = self.values.marked(grant, read)
        return [] if found is None else np.flatnonzero(found).tolist()


def a_read(*records: tuple[bytes, Operation], value: bytes | None = b"v") -> ReadResult:
    """Return a read of two partitions, the first with one record."""
    parts = []
    for number, some in enumerate((records[:1], records[1:])):
        parts.append(
            PartitionRecords(
                partition=number,
                offsets=range(len(some)),
                keys=[key for key, _ in some],
                values=[value] * len(some),
                recorded_at=[0] * len(some),
                mark=lambda index, some=some: int(some[index][1]) | 16,  # type: ignore[misc]
                valid=lambda _: b"",
            )
        )
    return ReadResult(partitions=tuple(parts), next=(1, 9))


R, S = b"r" * 16, b"s" * 16


def test_every_version_of_a_disputed_record_is_marked_and_its_correction_is_not() -> None:
    pool = Pool(a_ticket())
    assert pool.marked(a_read((S, UPSERT), (R, UPSERT), (R, CORRECT), (R, UPSERT))) == [1, 3]
    assert pool.marked(a_read((R, UPSERT), (S, UPSERT))) == [0]


@pytest.mark.parametrize(
    "grant",
    [replace(GRANT, fields=("sex_code",)), replace(GRANT, topic=Topic.parse("houses.v1"))],
    ids=["not shown", "another topic"],
)
def test_who_is_not_shown_the_field_is_told_nothing(grant: Grant) -> None:
    assert Pool(a_ticket()).marked(a_read((R, UPSERT)), grant) == []


def test_a_closed_ticket_marks_nothing_and_neither_is_a_void_marked() -> None:
    assert Pool(a_ticket(state=TicketState.WITHDRAWN)).marked(a_read((R, UPSERT))) == []
    assert Pool(a_ticket()).marked(a_read((R, Operation.VOID), value=None)) == []


def test_tickets_are_read_once_a_second_whatever_is_fetched() -> None:
    pool = Pool()
    for _ in range(1_000):
        assert pool.marked(a_read((R, UPSERT))) == []
    assert pool.store.reads == 1
    pool.add(a_ticket())
    assert pool.marked(a_read((R, UPSERT))) == []
    pool.now = 1.0
    assert pool.marked(a_read((R, UPSERT))) == [0]
    assert pool.store.reads == 2


def test_where_tickets_cannot_be_read_records_are_served_and_marked_as_before() -> None:
    pool = Pool(a_ticket())
    assert pool.marked(a_read((R, UPSERT))) == [0]
    pool.now, pool.store.fails = 1.0, True
    assert pool.marked(a_read((R, UPSERT))) == [0]


def selection(disputed: list[bool], records: int = 9) -> Any:
    read = a_read(*[(S, UPSERT)] * len(disputed))
    output = ViewOutput(selected=np.ones(len(disputed), np.bool_), values=Packed.of([b"v"] * len(disputed)))
    marks = np.array(disputed, np.bool_)
    gone = np.zeros(len(disputed), np.bool_)
    return select(read, output, gone, disputed=marks, records=records, size=99, first=True)


def test_the_marks_of_several_reads_are_those_of_the_answer() -> None:
    one, two = selection([False, True, True]), selection([True, False, True])
    assert (one.disputed, two.disputed) == ([1, 2], [0, 2])
    assert join([one, two], (1, 9)).disputed == [1, 2, 3, 5]
    assert join([], (1, 9)).disputed == []


def test_what_is_cut_off_takes_its_mark_with_it() -> None:
    cut = selection([True, True, True, True], records=2)
    assert (len(cut), list(cut.disputed)) == (2, [0, 1])


def test_a_grant_that_drops_the_disputed_field_has_no_mark() -> None:
    pool = Pool(a_ticket())
    read = a_read((S, UPSERT), (R, UPSERT))
    assert pool.marked(read, replace(GRANT, masks=(("full_name", MaskRule.DROP),))) == []
    assert pool.marked(read, replace(GRANT, masks=(("sex_code", MaskRule.DROP),))) == [1]

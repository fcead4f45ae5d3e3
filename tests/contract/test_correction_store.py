"""What every store of correction tickets keeps true, in memory and on PostgreSQL."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.corrections.model import CorrectionNotice, CorrectionTicket, TicketState
from exchange.corrections.postgres import PostgresCorrections, metadata
from exchange.corrections.store import CorrectionStore, MemoryCorrections, NoticeQuery, TicketQuery
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import ConflictError, CorruptError, InvalidError, PoolError, Reason
from schemas.names import Topic
from tests.kit.cases.corrections import BEHIND, NOW, RAISER, SOURCE, STRANGER, TOPIC, a_notice, a_ticket
from tests.kit.row_tags import row_tags

S = TicketState


@dataclass
class Home:
    store: CorrectionStore
    db: Database

    def add(self, *tickets: CorrectionTicket) -> None:
        for one in tickets:
            with self.db.begin() as work:
                self.store.add(work, one)

    def replace(self, after: CorrectionTicket, before: CorrectionTicket) -> None:
        with self.db.begin() as work:
            self.store.replace(work, after, before)

    def get(self, ticket: CorrectionTicket) -> CorrectionTicket | None:
        with self.db.read() as reader:
            return self.store.get(reader, ticket.id)

    def ids(self, **query: Any) -> list[int | str]:
        with self.db.read() as reader:
            found = self.store.page(reader, TicketQuery(**query))
        return ["damaged" if isinstance(one, DamagedRow) else int(one.id[-3:]) for one in found]

    def tell(self, *notices: CorrectionNotice) -> None:
        with self.db.begin() as work:
            self.store.add_notices(work, notices)

    def told(self, **query: Any) -> list[int | str]:
        with self.db.read() as reader:
            found = self.store.notices(reader, NoticeQuery(**query))
        return ["damaged" if isinstance(one, DamagedRow) else int(one.id[-3:]) for one in found]

    def acknowledge(self, notice: CorrectionNotice) -> CorrectionNotice:
        with self.db.begin() as work:
            return self.store.acknowledge(work, notice.id, by="wang.hr", at=NOW)

    def erase(self, topic: Topic, record: bytes) -> int:
        with self.db.begin() as work:
            return self.store.erase(work, topic, record)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return Home(MemoryCorrections(), MemoryDatabase())
    return on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresCorrections(row_tags()), PostgresDatabase(engine))


def refused(act: Callable[[], object], kind: type[PoolError] = ConflictError) -> Reason:
    with pytest.raises(kind) as caught:
        act()
    return caught.value.reason


def test_a_ticket_is_read_as_it_was_stored(home: Home) -> None:
    ticket = a_ticket()
    home.add(ticket)
    assert home.get(ticket) == ticket
    assert home.get(a_ticket(2)) is None
    answered = replace(
        ticket,
        state=S.CLOSED_CORRECTED,
        source=STRANGER,
        transfers=2,
        overdue_at=NOW + timedelta(days=20),
        reported_by="zhou",
        reported_at=NOW + timedelta(days=21),
        reason="the register was wrong",
        correction=BEHIND,
        correction_entry="e",
        told=3,
    )
    home.replace(answered, ticket)
    assert home.get(ticket) == answered


def test_a_ticket_that_was_changed_meanwhile_is_not_changed_again(home: Home) -> None:
    ticket = a_ticket()
    home.add(ticket)
    home.replace(replace(ticket, state=S.VERIFYING), ticket)
    assert refused(lambda: home.replace(replace(ticket, state=S.WITHDRAWN), ticket)) is Reason.VERSION_CONFLICT


def test_one_grant_has_one_open_ticket_of_a_record_and_field(home: Home) -> None:
    home.add(a_ticket())
    assert refused(lambda: home.add(a_ticket(2))) is Reason.ALREADY_EXISTS
    home.add(a_ticket(3, field="sex_code"), a_ticket(4, record=b"s" * 16), a_ticket(5, grant="g"))
    home.replace(replace(a_ticket(), state=S.WITHDRAWN), a_ticket())
    home.add(a_ticket(6))
    assert home.ids() == [1, 3, 4, 5, 6]


def test_lists_have_what_was_asked_for_in_the_order_of_time(home: Home) -> None:
    other = Topic.parse("houses.v1")
    home.add(
        a_ticket(1),
        a_ticket(2, topic=other, record=b"2" * 16, source=STRANGER),
        a_ticket(3, record=b"3" * 16, raiser=STRANGER, state=S.VERIFYING),
        a_ticket(4, record=b"4" * 16, overdue_at=NOW),
    )
    assert home.ids(party=STRANGER) == [2, 3]
    assert home.ids(party=SOURCE) == [1, 2, 3, 4]
    assert home.ids(party="nobody") == []
    assert home.ids(source=STRANGER) == [2]
    assert home.ids(raiser=RAISER, limit=2) == [1, 2]
    assert home.ids(states=frozenset({S.VERIFYING})) == [3]
    assert home.ids(topic=other) == [2]
    assert home.ids(record=b"4" * 16) == [4]
    assert home.ids(overdue=True) == [4]
    assert home.ids(overdue=False) == [1, 2, 3]
    assert home.ids(after=a_ticket(2).id) == [3, 4]
    with home.db.read() as reader:
        assert [home.store.count_open(reader, RAISER, most) for most in (2, 9)] == [2, 3]


def test_records_with_open_tickets_are_disputed_field_by_field(home: Home) -> None:
    closed = a_ticket(3, record=b"3" * 16)
    home.add(a_ticket(1), a_ticket(2, field="sex_code"), closed)
    home.replace(replace(closed, state=S.WITHDRAWN), closed)
    with home.db.read() as reader:
        assert home.store.disputed(reader) == {TOPIC: {b"r" * 16: frozenset({"full_name", "sex_code"})}}


def test_an_erasure_takes_the_record_out_of_tickets_and_notices(home: Home) -> None:
    home.add(a_ticket(2, state=S.CLOSED_CORRECTED), a_ticket(1), a_ticket(3, record=b"3" * 16))
    home.tell(a_notice(1, ticket=a_ticket(2).id), a_notice(2, ticket=a_ticket(3).id))
    assert home.erase(TOPIC, b"r" * 16) == 2
    assert home.erase(TOPIC, b"r" * 16) == 0
    gone, closed, kept = (home.get(a_ticket(number)) for number in (1, 2, 3))
    assert gone == a_ticket(1, state=S.CLOSED_REJECTED, record=b"", record_key=b"", claim=b"")
    assert closed == a_ticket(2, state=S.CLOSED_CORRECTED, record=b"", record_key=b"", claim=b"")
    assert kept == a_ticket(3, record=b"3" * 16)
    with home.db.read() as reader:
        assert [one.record_key for one in home.store.notices(reader, NoticeQuery())] == [b"", b"k" * 16]  # type: ignore[union-attr]


def test_a_notice_is_acknowledged_once(home: Home) -> None:
    home.tell(a_notice(1), a_notice(2, consumer=STRANGER))
    assert home.acknowledge(a_notice(1)) == a_notice(1, acknowledged_by="wang.hr", acknowledged_at=NOW)
    assert refused(lambda: home.acknowledge(a_notice(1))) is Reason.TRANSITION_NOT_ALLOWED
    assert refused(lambda: home.acknowledge(a_notice(9)), InvalidError) is Reason.NOT_FOUND
    assert home.told(acknowledged=False) == [2]
    assert home.told(acknowledged=True) == [1]
    assert home.told(consumer=STRANGER) == [2]
    assert home.told(ticket=a_ticket().id, limit=1) == [1]
    assert home.told(after=a_notice(1).id) == [2]


def test_a_notice_that_waits_is_handed_over_to_a_successor_and_one_that_was_read_stays(home: Home) -> None:
    home.tell(a_notice(1), a_notice(2))
    home.acknowledge(a_notice(1))
    with home.db.begin() as work:
        moved = home.store.hand_over(work, a_notice(2).id, consumer=STRANGER)
    assert moved == a_notice(2, consumer=STRANGER)
    assert (home.told(consumer=STRANGER), home.told(consumer=RAISER)) == ([2], [1])

    def hand_over(number: int) -> None:
        with home.db.begin() as work:
            home.store.hand_over(work, a_notice(number).id, consumer=STRANGER)

    assert refused(lambda: hand_over(1)) is Reason.TRANSITION_NOT_ALLOWED
    assert refused(lambda: hand_over(9), InvalidError) is Reason.NOT_FOUND


def test_what_a_failed_transaction_wrote_is_not_there(home: Home) -> None:
    home.add(a_ticket(1))

    def fail() -> None:
        with home.db.begin() as work:
            home.store.add(work, a_ticket(2, field="sex_code"))
            home.store.erase(work, TOPIC, b"r" * 16)
            home.store.add_notices(work, [a_notice()])
            raise ConflictError(Reason.VERSION_CONFLICT, "x")

    refused(fail)
    assert home.ids() == [1]
    assert home.get(a_ticket(1)) == a_ticket(1)
    assert home.told() == []


@pytest.mark.postgres
def test_a_row_that_the_pool_did_not_write_is_refused_named_and_erased_all_the_same(engine: sa.Engine) -> None:
    home = on_postgres(engine)
    home.add(a_ticket(1), a_ticket(2, field="sex_code"))
    home.tell(a_notice())
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE correction_ticket SET state = 'verifying' WHERE field = 'full_name'"))
        connection.execute(sa.text("UPDATE correction_notice SET consumer = 'x'"))
    assert refused(lambda: home.get(a_ticket(1)), CorruptError) is Reason.ROW_FORGED
    assert refused(lambda: home.replace(a_ticket(1), a_ticket(1, state=S.VERIFYING)), CorruptError) is Reason.ROW_FORGED
    assert refused(lambda: home.acknowledge(a_notice()), CorruptError) is Reason.ROW_FORGED
    assert home.ids() == ["damaged", 2]
    assert home.told() == ["damaged"]
    with home.db.read() as reader:
        assert home.store.disputed(reader) == {TOPIC: {b"r" * 16: frozenset({"sex_code"})}}
    assert home.erase(TOPIC, b"r" * 16) == 2
    with engine.connect() as connection:
        assert {*connection.execute(sa.text("SELECT claim, record_key FROM correction_ticket"))} == {(b"", b"")}

"""The timer records that a ticket's clock has run out, once, and does nothing else with it."""

import json
from datetime import datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import structlog

from exchange.authorization.enforcement import Enforcer
from exchange.control.corrections.recipients import Recipient
from exchange.control.corrections.upkeep import CorrectionUpkeep
from exchange.corrections.model import CorrectionTicket, TicketState
from exchange.corrections.store import MemoryCorrections, NoticeQuery
from exchange.deadlines.in_force import ShippedRules
from schemas.access import Action
from schemas.errors import PoolError, Reason, UnavailableError
from tests.kit.cases.audit import START, memory_world
from tests.kit.cases.corrections import BEHIND, NOW, RAISER, STRANGER, a_ticket

# Received on 2026-05-04, a holiday: ten working days from 6 May on, Saturday 9 May among them, end on 18 May.
DUE = datetime.fromisoformat("2026-05-19T00:00:00+08:00")


HEIRS = {"merged": "successor"}


class Pool:
    def __init__(self, *tickets: CorrectionTicket) -> None:
        self.world = memory_world()
        self.store = MemoryCorrections()
        self.at = NOW
        self.told: list[Recipient] | PoolError = []
        numbers = count(1)
        attributes: Any = SimpleNamespace(rules=ShippedRules().rules)
        records: Any = SimpleNamespace(record_key=lambda grant, _: (grant.encode() * 16)[:16])
        departments: Any = SimpleNamespace(heir=lambda _, department: HEIRS.get(department, department))
        recipients: Any = SimpleNamespace(of=self._received)
        self.upkeep = CorrectionUpkeep(
            database=self.world.db,
            enforcer=Enforcer(self.world.db, self.world.ledger(), pool_id="p", clock=lambda: START),
            attributes=attributes,
            store=self.store,
            records=records,
            recipients=recipients,
            departments=departments,
            now=lambda: self.at,
            new_id=lambda: f"0198c0de-0000-7000-8000-{next(numbers):012}",
        )
        with self.world.db.begin() as work:
            for ticket in tickets:
                self.store.add(work, ticket)

    def _received(self, ticket: CorrectionTicket) -> list[Recipient]:
        if isinstance(self.told, PoolError):
            raise self.told
        return self.told

    def ticket(self, number: int = 1) -> CorrectionTicket:
        with self.world.db.read() as reader:
            found = self.store.get(reader, a_ticket(number).id)
        assert found is not None
        return found

    def notices(self) -> list[Any]:
        with self.world.db.read() as reader:
            return [*self.store.notices(reader, NoticeQuery())]

    def entries(self, action: Action) -> list[dict[str, Any]]:
        store: Any = self.world.entries
        return [json.loads(leaf) for leaf in store.gateway_entries(action, unsigned=True)]


def test_an_overdue_ticket_is_an_entry_with_its_rule_and_nothing_else_happens() -> None:
    pool = Pool(a_ticket(1), a_ticket(2, record=b"2" * 16, state=TicketState.VERIFYING))
    pool.at = DUE - timedelta(seconds=1)
    assert pool.upkeep.overdue() == 0
    pool.at = DUE
    assert pool.upkeep.overdue() == 2
    assert pool.upkeep.overdue() == 0, "once a ticket"
    assert [pool.ticket(number).state for number in (1, 2)] == [TicketState.OPENED, TicketState.VERIFYING]
    assert pool.ticket().overdue_at == DUE
    entries = pool.entries(Action.CORRECTION_OVERDUE)
    by_ticket = {one["data"]["ticket"]: one["data"] for one in entries}
    assert set(by_ticket) == {a_ticket(1).id, a_ticket(2).id}
    data = by_ticket[a_ticket(1).id]
    assert (data["rule"], data["profile"], data["due_at"]) == ("correction", "809", DUE.isoformat())
    assert (data["source"], data["raiser"]) == (a_ticket().source, RAISER)


def test_answered_tickets_are_not_overdue() -> None:
    states = [*sorted(set(TicketState) - {TicketState.OPENED, TicketState.VERIFYING})]
    pool = Pool(*(a_ticket(number, record=bytes([number]) * 16, state=state) for number, state in enumerate(states, 1)))
    pool.at = DUE + timedelta(days=100)
    assert pool.upkeep.overdue() == 0


def corrected(number: int = 1) -> CorrectionTicket:
    return a_ticket(
        number, record=bytes([number]) * 16, state=TicketState.CORRECTED, correction=BEHIND, correction_entry="entry"
    )


def test_of_a_department_that_has_merged_the_successor_is_told() -> None:
    pool = Pool(corrected())
    pool.told = [Recipient(grant="g", key_id="k", consumer="merged", release="r1")]
    assert pool.upkeep.notify() == 1
    assert [one.consumer for one in pool.notices()] == ["successor"]
    [entry] = pool.entries(Action.CORRECTION_NOTIFY)
    assert entry["data"]["departments"] == ["successor"]


def test_each_grant_that_delivered_the_old_value_gets_one_notice_and_the_ticket_is_closed() -> None:
    pool = Pool(corrected())
    pool.told = [
        Recipient(grant="g", key_id="k", consumer=RAISER, release="r1"),
        Recipient(grant="h", key_id="h", consumer=STRANGER, release="r2"),
    ]
    assert pool.upkeep.notify() == 1
    assert pool.upkeep.notify() == 0
    assert (pool.ticket().state, pool.ticket().told) == (TicketState.CLOSED_CORRECTED, 2)
    assert [(one.grant, one.consumer, one.release, one.record_key) for one in pool.notices()] == [
        ("g", RAISER, "r1", b"k" * 16),
        ("h", STRANGER, "r2", b"h" * 16),
    ]
    [entry] = pool.entries(Action.CORRECTION_NOTIFY)
    assert entry["data"]["departments"] == sorted([RAISER, STRANGER])
    assert entry["data"]["correction"] == "entry"


def test_a_ticket_of_which_nobody_received_the_value_is_closed_too() -> None:
    pool = Pool(corrected())
    assert pool.upkeep.notify() == 1
    assert pool.ticket().told == 0


def test_what_fails_is_told_and_tried_again() -> None:
    pool = Pool(corrected(1), corrected(2))
    pool.told = UnavailableError(Reason.BROKER_UNAVAILABLE, "x")
    with structlog.testing.capture_logs() as logs:
        assert pool.upkeep.notify() == 0
    assert [(line["event"], line["ticket"]) for line in logs] == [
        ("correction_failed", corrected(1).id),
        ("correction_failed", corrected(2).id),
    ]
    assert pool.notices() == []
    pool.told = []
    assert pool.upkeep.notify() == 2

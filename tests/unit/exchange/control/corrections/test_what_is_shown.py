"""Who answers for one element of another department's record sees that value alone; what is retracted nobody sees."""

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.access.decision.roles import Standing
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.corrections.claim_seal import Claim
from exchange.control.corrections.records import FoundRecord, Version
from exchange.control.corrections.service import CorrectionService
from exchange.corrections.model import CorrectionTicket
from exchange.corrections.store import MemoryCorrections, TicketQuery
from exchange.deadlines.in_force import ShippedRules
from exchange.erasure.retractions import MemoryRetractions, Retraction
from schemas.access import GrantState
from schemas.errors import InvalidError, Reason
from schemas.record import Operation
from tests.kit.cases.audit import START, memory_world
from tests.kit.cases.corrections import GRANT, LI, NOW, PLACE, RAISER, SOURCE, STRANGER, TOPIC, WANG, ZHOU, a_ticket
from tests.kit.cases.grants import a_grant

CALL = RequestContext(trace="0" * 32, client="test")
RECORD = {"full_name": "王芳", "address": {"street": "文一路", "number": "1"}, "income": 1}
KEY = b"r" * 16
CLAIM = Claim(claimed="王方", evidence="户口簿")


class Pool:
    def __init__(self, *tickets: CorrectionTicket) -> None:
        self.world = memory_world()
        self.store, self.retractions = MemoryCorrections(), MemoryRetractions()
        version = Version(place=PLACE, recorded_at=0, operation=Operation.UPSERT, value=b"value")
        attributes: Any = SimpleNamespace(
            rules=ShippedRules().rules, standing=lambda _: Standing.ACTIVE, now=lambda _: NOW
        )
        records: Any = SimpleNamespace(
            versions=lambda _: iter([version]), find=lambda *_: FoundRecord(KEY, PLACE), correction=lambda _: None
        )
        seal: Any = SimpleNamespace(open=lambda *_, **__: CLAIM, seal=lambda *_, **__: b"sealed")
        grant = a_grant(
            id=GRANT,
            topic=TOPIC,
            consumer=RAISER,
            provider=SOURCE,
            fields=("full_name",),
            state=GrantState.ACTIVE,
            not_before=NOW - timedelta(days=1),
            expires=NOW + timedelta(days=1),
        )
        anything: Any = SimpleNamespace(source=lambda *_: SOURCE, get=lambda *_: grant)
        self.service = CorrectionService(
            database=self.world.db,
            enforcer=Enforcer(self.world.db, self.world.ledger(), pool_id="p", clock=lambda: START),
            attributes=attributes,
            access=anything,
            store=self.store,
            records=records,
            routing=anything,
            publications=anything,
            departments=anything,
            retractions=self.retractions,
            seal=seal,
            as_text=lambda _: json.dumps(RECORD),
            now=lambda: NOW,
            new_id=lambda: a_ticket().id,
        )
        with self.world.db.begin() as work:
            for ticket in tickets:
                self.store.add(work, ticket)

    def retract(self, position: int) -> None:
        with self.world.db.begin() as work:
            self.retractions.add(work, TOPIC, [Retraction(key=KEY, partition=PLACE.partition, position=position)])


def test_the_provider_sees_its_record() -> None:
    assert json.loads(Pool(a_ticket()).service.reveal(LI, CALL, a_ticket().id).record) == RECORD


@pytest.mark.parametrize(
    ("field", "value"), [("full_name", "王芳"), ("address.street", "文一路"), ("full_name.x", None), ("none", None)]
)
def test_another_source_department_sees_the_value_alone(field: str, value: str | None) -> None:
    ticket = a_ticket(source=STRANGER, field=field)
    shown = Pool(ticket).service.reveal(ZHOU, CALL, ticket.id)
    assert json.loads(shown.record) == {field: value}
    assert shown.claim == CLAIM


def test_who_raised_it_sees_the_claim_alone() -> None:
    assert Pool(a_ticket()).service.reveal(WANG, CALL, a_ticket().id).record == ""


def test_a_value_that_a_retraction_covers_is_shown_to_nobody() -> None:
    pool = Pool(a_ticket())
    pool.retract(PLACE.position)
    assert pool.service.reveal(LI, CALL, a_ticket().id).record, "it is not before the retraction"
    pool.retract(PLACE.position + 1)
    assert pool.service.reveal(LI, CALL, a_ticket().id).record == ""


def test_a_record_that_is_retracted_while_it_is_looked_for_is_not_doubted() -> None:
    pool = Pool()
    pool.retract(PLACE.position + 1)
    with pytest.raises(InvalidError) as caught:
        pool.service.open(WANG, CALL, grant_id=GRANT, record_key=b"k" * 16, field="full_name", claim=CLAIM)
    assert caught.value.reason is Reason.NOT_FOUND
    with pool.world.db.read() as reader:
        assert pool.store.page(reader, TicketQuery()) == []
    assert Pool().service.open(WANG, CALL, grant_id=GRANT, record_key=b"k" * 16, field="full_name", claim=CLAIM)

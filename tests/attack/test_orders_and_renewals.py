"""A renewal is no way around an order to rectify, whichever comes first.

A consumer whose read was refused as misuse has its grant renewed before the authority orders, or while it decides. The
order is to stop what the consumer has now, and what was ordered or escalated passes nothing on.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.roles import Standing
from exchange.access.grants.life_cycle import advance
from exchange.access.grants.memory import MemoryAccessStore
from exchange.access.grants.renewal import renewal
from exchange.access.grants.row_mac import RowMac
from exchange.access.grants.store import quota_day
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.approval import GrantApproval
from exchange.control.grants.rectification import check_not_held, check_not_referred, in_force
from exchange.control.violations.service import Decision, ViolationService
from exchange.deadlines.in_force import ShippedRules
from exchange.violations.model import CaseEvent, CaseState, Referral
from exchange.violations.store import MemoryViolations
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Actor, Grant, GrantState
from schemas.errors import PoolError, Reason
from tests.kit.cases.audit import memory_world
from tests.kit.cases.grants import GRANT, NOW, STRANGER, a_draft, a_grant, held
from tests.kit.cases.violations import CASE, HEAD, OFFICER, PERSONS, SECOND, a_case, an_occurrence

RENEWED, AGAIN, OTHER = (f"0198c0de-0000-7000-9000-00000000001{digit}" for digit in "234")
CALL = RequestContext(trace="0" * 32, client="test")


class Grants:
    """The part of the grant service that a decision on a case uses, on the store of the test."""

    def __init__(self, access: MemoryAccessStore) -> None:
        self.access = access

    def prepared(self, actor: Actor, grant_id: str, event: Event) -> tuple[Actor, str, Event]:
        return actor, grant_id, event

    def follow(self, work: UnitOfWork, _act: Any, _call: Any, change: tuple[Actor, str, Event], *, reason: str) -> None:
        actor, grant_id, event = change
        grant = self.access.lock_for_update(work, grant_id)
        holding = held(grant) if event is Event.RECTIFIED else None
        changed = advance(grant, event, by=actor, at=NOW, reason=reason, holding=holding)
        self.access.put(work, changed, entry_id="e", at=NOW)

    def await_releases(self) -> None: ...


class City:
    """A grant, a case of misuse under it, and the authority."""

    def __init__(self) -> None:
        self.world = memory_world()
        self.access = MemoryAccessStore(RowMac(b"k" * 32))
        self.cases = MemoryViolations()
        db = self.world.db
        attributes: Any = SimpleNamespace(
            now=lambda _: NOW,
            standing=lambda _: Standing.ACTIVE,
            persons=_persons,
            rules=ShippedRules().rules,
        )
        grants: Any = Grants(self.access)
        merged_none: Any = SimpleNamespace(heir=lambda _, department: department)
        self.service = ViolationService(
            database=db,
            enforcer=Enforcer(db, self.world.ledger(), pool_id="test-pool", clock=lambda: self.world.make.now),
            attributes=attributes,
            store=self.cases,
            access=self.access,
            grants=grants,
            departments=merged_none,
            entries=self.world.entries,
            new_id=lambda: CASE,
        )
        self.put(a_grant(requested_by="someone"))
        with db.begin() as work:
            self.cases.add(work, a_case(an_occurrence(grant=GRANT, subject=GRANT)))

    def put(self, grant: Grant) -> Grant:
        with self.world.db.begin() as work:
            self.access.put(work, grant, entry_id="e", at=NOW)
        return grant

    def change(self, grant_id: str, **changes: Any) -> None:
        current = self.grant(grant_id)
        self.put(replace(current, version=current.version + 1, **changes))

    def grant(self, grant_id: str = GRANT) -> Grant:
        with self.world.db.read() as reader:
            return self.access.get(reader, grant_id)

    def renew(self, grant_id: str, new: str, ended: GrantState = GrantState.COMPLETED) -> None:
        """Activate a renewal, as an approval does."""
        old = self.grant(grant_id)
        request = a_draft(id=new, renews=grant_id, requested_by="someone", expires=old.expires + timedelta(days=1))
        inherited = renewal(request, old, released=0, day=quota_day(NOW))
        self.put(replace(inherited, state=GrantState.ACTIVE, approved_by="li.ps", approved_at=NOW))
        self.change(grant_id, state=ended)

    def decide(self, *events: CaseEvent) -> None:
        for event in events:
            by = {CaseEvent.REPLY: HEAD, CaseEvent.ACCEPT: SECOND}.get(event, OFFICER)
            said = Decision(reason="as it is", referral=Referral.NOTICE if event is CaseEvent.ESCALATE else None)
            self.service.decide(by, CALL, CASE, event, said)

    def refusal(self, check: Any, grant_id: str) -> Reason | None:
        with self.world.db.begin() as work:
            try:
                check(self.cases, self.access, work, grant_id)
            except PoolError as error:
                return error.reason
        return None

    def passes_on(self, grant_id: str = GRANT) -> Reason | None:
        """Return why the activation of a renewal of a grant is refused; None where it is not."""
        approval = GrantApproval.__new__(GrantApproval)
        approval._access, approval._violations = self.access, self.cases
        with self.world.db.begin() as work:
            try:
                approval._lock_renewed(work, a_draft(id=AGAIN, renews=grant_id), held(a_draft(id=AGAIN)))
            except PoolError as error:
                return error.reason
        return None


def _persons(*accounts: str) -> Mapping[str, str]:
    return {name: PERSONS[name] for name in accounts}


@pytest.mark.parametrize("ended", [GrantState.COMPLETED, GrantState.EXPIRED])
def test_an_order_suspends_what_the_grant_was_renewed_to(ended: GrantState) -> None:
    city = City()
    city.renew(GRANT, RENEWED, ended)
    city.renew(RENEWED, AGAIN)
    city.decide(CaseEvent.CONFIRM, CaseEvent.ORDER)
    assert city.grant(AGAIN).state is GrantState.SUSPENDED
    assert city.refusal(check_not_held, AGAIN) is Reason.RECTIFICATION_ORDERED, "nobody else resumes it"
    city.decide(CaseEvent.REPLY, CaseEvent.ACCEPT)
    assert city.grant(AGAIN).state is GrantState.ACTIVE
    assert city.refusal(check_not_held, AGAIN) is None


def test_an_escalation_ends_what_the_grant_was_renewed_to_and_no_other_grant() -> None:
    city = City()
    city.put(a_grant(id=OTHER))
    city.renew(GRANT, RENEWED)
    city.decide(CaseEvent.CONFIRM, CaseEvent.ORDER, CaseEvent.ESCALATE)
    assert city.grant(RENEWED).state is GrantState.TERMINATED
    assert city.grant(GRANT).state is GrantState.COMPLETED
    assert city.grant(OTHER).state is GrantState.ACTIVE


def test_an_order_finds_the_renewal_that_a_successor_has() -> None:
    city = City()
    city.renew(GRANT, RENEWED)
    city.change(RENEWED, consumer=STRANGER)
    city.decide(CaseEvent.CONFIRM, CaseEvent.ORDER)
    assert city.grant(RENEWED).state is GrantState.SUSPENDED


def test_a_request_for_a_renewal_is_not_yet_in_force() -> None:
    city = City()
    city.put(a_draft(id=RENEWED, renews=GRANT, state=GrantState.SUBMITTED))
    city.change(GRANT, state=GrantState.EXPIRED)
    with city.world.db.read() as reader:
        assert in_force(city.access, reader, GRANT).id == GRANT
    city.decide(CaseEvent.CONFIRM, CaseEvent.ORDER)
    assert city.grant(RENEWED).state is GrantState.SUBMITTED


def test_an_expired_grant_under_an_order_passes_nothing_on() -> None:
    city = City()
    city.change(GRANT, state=GrantState.EXPIRED)
    assert city.passes_on() is None
    city.decide(CaseEvent.CONFIRM)
    assert city.passes_on() is None, "what is only confirmed stops nothing"
    city.decide(CaseEvent.ORDER)
    assert city.passes_on() is Reason.RECTIFICATION_ORDERED
    city.decide(CaseEvent.REPLY, CaseEvent.ACCEPT)
    assert city.passes_on() is None


@pytest.mark.parametrize("events", [(CaseEvent.ESCALATE,), (CaseEvent.ESCALATE, CaseEvent.CLOSE)], ids=str)
def test_an_expired_grant_of_an_escalated_case_passes_nothing_on(events: tuple[CaseEvent, ...]) -> None:
    city = City()
    city.change(GRANT, state=GrantState.EXPIRED)
    city.decide(CaseEvent.CONFIRM, CaseEvent.ORDER, *events)
    assert city.passes_on() is Reason.TRANSITION_NOT_ALLOWED
    city.put(a_grant(id=OTHER))
    assert city.refusal(check_not_referred, OTHER) is None, "the department's other grants may be renewed"


def test_a_renewal_between_decision_and_lock_is_a_conflict_and_nothing_happens() -> None:
    city = City()
    city.decide(CaseEvent.CONFIRM)
    locked = city.access.lock_holding

    def renewed_meanwhile(work: UnitOfWork, consumer: str, resource: Any) -> None:
        locked(work, consumer, resource)
        old = city.access.get(work, GRANT)
        request = renewal(a_draft(id=RENEWED, renews=GRANT), old, released=0, day=quota_day(NOW))
        city.access.put(work, replace(request, state=GrantState.ACTIVE), entry_id="e", at=NOW)
        ended = replace(old, version=old.version + 1, state=GrantState.COMPLETED)
        city.access.put(work, ended, entry_id="e", at=NOW)

    city.access.lock_holding = renewed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(PoolError) as caught:
        city.decide(CaseEvent.ORDER)
    assert caught.value.reason is Reason.VERSION_CONFLICT
    with city.world.db.read() as reader:
        case = city.cases.get(reader, CASE)
    assert case is not None
    assert case.state is CaseState.CONFIRMED


def test_a_decision_locks_what_the_consumer_holds_before_the_case() -> None:
    city = City()
    order: list[str] = []
    lock_holding, lock = city.access.lock_holding, city.cases.lock

    def holding(*arguments: Any) -> None:
        order.append("holding")
        lock_holding(*arguments)

    def case(*arguments: Any) -> Any:
        order.append("case")
        return lock(*arguments)

    city.access.lock_holding, city.cases.lock = holding, case  # type: ignore[method-assign]
    city.change(GRANT, state=GrantState.SUSPENDED)
    city.decide(CaseEvent.CONFIRM, CaseEvent.ORDER)
    assert order == ["case", "holding", "case"]

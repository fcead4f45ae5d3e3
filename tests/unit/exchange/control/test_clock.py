"""Two persons settle the clock: another person than the one who proposed, on the same clock, after a future time."""

from typing import Any

import pytest

from exchange.access.decision.roles import Standing
from exchange.audit.ledger import AuditLedger
from exchange.audit.memory import MemoryAudit
from exchange.audit.store import CheckpointRow
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.clock import ClockService
from registry.database.unit_of_work import MemoryDatabase
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

NOW = 1_795_000_000_000_000
DAY = 86_400_000_000
CALL = RequestContext(trace="a" * 32)


def person(name: str, role: Role = Role.DATA_AUTHORITY) -> Actor:
    return Actor(kind=ActorKind.HUMAN, id=name, department="", role=role)


class Attributes:
    """Two persons, one of whom has two accounts."""

    def standing(self, _actor: Actor) -> Standing:
        return Standing.ACTIVE

    def persons(self, *accounts: str) -> dict[str, str]:
        return {name: name.partition("-")[0] for name in accounts}


class Pool:
    def __init__(self, stored: int) -> None:
        self.now = NOW
        database = MemoryDatabase()
        self.audit = MemoryAudit(database)
        ledger = AuditLedger(self.audit, process="gateway@1")
        ledger.open(database)
        self.audit.put_checkpoint(CheckpointRow(size=1, root=b"r" * 32, note="", at=stored))
        attributes: Any = Attributes()
        self.clock = ClockService(
            enforcer=Enforcer(database, ledger, pool_id="pool", clock=lambda: self.now),
            attributes=attributes,
            log=self.audit,
            clock=lambda: self.now,
            machine=lambda: self.now,
        )


@pytest.fixture
def pool() -> Pool:
    return Pool(NOW + 20 * DAY)


def test_one_proposes_and_another_person_confirms(pool: Pool) -> None:
    proposal = pool.clock.propose(person("wang", Role.OPERATOR), CALL, "the time service was wrong until 10:02")
    assert proposal["ahead_seconds"] == 20 * 86_400
    assert pool.audit.gateway_entries(Action.CLOCK_SETTLE) == []
    pool.clock.confirm(person("li"), CALL, proposal["id"])
    assert len(pool.audit.gateway_entries(Action.CLOCK_SETTLE, unsigned=True)) == 1


@pytest.mark.parametrize("second", ["wang", "wang-2"])
def test_the_same_person_does_not_confirm(pool: Pool, second: str) -> None:
    proposal = pool.clock.propose(person("wang"), CALL, "the time service was wrong")
    with pytest.raises(RefusedError) as refused:
        pool.clock.confirm(person(second), CALL, proposal["id"])
    assert refused.value.reason is Reason.SAME_PERSON
    assert pool.audit.gateway_entries(Action.CLOCK_SETTLE) == []


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.SHARING_OFFICE_HEAD])
def test_the_data_authority_alone_confirms(pool: Pool, role: Role) -> None:
    proposal = pool.clock.propose(person("wang"), CALL, "the time service was wrong")
    with pytest.raises(RefusedError):
        pool.clock.confirm(person("li", role), CALL, proposal["id"])


def test_both_persons_saw_the_same_clock(pool: Pool) -> None:
    proposal = pool.clock.propose(person("wang"), CALL, "the time service was wrong")
    pool.now += DAY + 1
    with pytest.raises(InvalidError) as refused:
        pool.clock.confirm(person("li"), CALL, proposal["id"])
    assert refused.value.reason is Reason.NOT_FOUND


def test_a_clock_that_is_right_is_not_settled() -> None:
    with pytest.raises(ConflictError) as refused:
        Pool(NOW - DAY).clock.propose(person("wang"), CALL, "to be sure")
    assert refused.value.reason is Reason.TRANSITION_NOT_ALLOWED


def test_a_proposal_states_its_reason(pool: Pool) -> None:
    with pytest.raises(InvalidError) as refused:
        pool.clock.propose(person("wang"), CALL, " ")
    assert refused.value.reason is Reason.REQUEST_INVALID

"""Rules of a library are proposed, agreed to and activated by three persons, each act with its entry."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from exchange.access.decision.roles import Standing
from exchange.audit.ledger import AuditLedger
from exchange.audit.memory import MemoryAudit
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.hub.rules import HubRulesService
from exchange.hub.services.rule_changes import RulesState
from exchange.hub.store.rules_store import MemoryRules
from exchange.hub.store.store import MemoryHub
from registry.database.unit_of_work import MemoryDatabase, Reader
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.cases.hub_claims import document

NOW = 1_795_000_000_000_000
CALL = RequestContext(trace="a" * 32)
_PROVIDERS = {"population": "police", "marriages": "civil", "insured": "social", "travel-permits": "police"}


def person(name: str, role: Role, department: str = "") -> Actor:
    return Actor(kind=ActorKind.HUMAN, id=name, department=department, role=role)


EDITOR = person("editor", Role.CATALOGUE_EDITOR, "data")
OFFICER = person("officer", Role.DATA_AUTHORITY)
HEADS = {name: person(f"head.{name}", Role.SHARING_OFFICE_HEAD, name) for name in ("police", "civil", "social")}


class Attributes:
    def standing(self, _actor: Actor) -> Standing:
        return Standing.ACTIVE

    def persons(self, *accounts: str) -> dict[str, str]:
        return {name: name.partition("-")[0] for name in accounts}


class Pool:
    def __init__(self) -> None:
        self.database = MemoryDatabase()
        self.audit = MemoryAudit(self.database)
        ledger = AuditLedger(self.audit, process="gateway@1")
        ledger.open(self.database)
        self.store, self.hub = MemoryRules(), MemoryHub()
        attributes: Any = Attributes()
        self.rules = HubRulesService(
            database=self.database,
            enforcer=Enforcer(self.database, ledger, pool_id="pool", clock=lambda: NOW),
            attributes=attributes,
            store=self.store,
            hub=self.hub,
            provider=self._provider,
            now=lambda: datetime(2026, 5, 4, tzinfo=UTC),
        )

    def entries(self, action: Action) -> list[dict[str, Any]]:
        found = [json.loads(leaf) for leaf in self.audit.gateway_entries(action)]
        return found or [json.loads(leaf) for leaf in self.audit.gateway_entries(action, unsigned=True)]

    def _provider(self, _reader: Reader, topic: Topic) -> str | None:
        return _PROVIDERS.get(topic.name)

    def activate(self, number: int = 1, **fields: Any) -> None:
        made = self.rules.propose(EDITOR, CALL, document(number, **fields))
        for name in made.departments:
            self.rules.agree(HEADS[name], CALL, "population", number)
        self.rules.activate(OFFICER, CALL, "population", number)


@pytest.fixture
def pool() -> Pool:
    return Pool()


def refused(reason: Reason) -> Any:
    return pytest.raises(PoolError, check=lambda error: error.reason is reason)


def test_rules_are_active_once_every_department_has_agreed_and_the_authority_activates(pool: Pool) -> None:
    made = pool.rules.propose(EDITOR, CALL, document())
    assert made.departments == ("civil", "police", "social")
    with refused(Reason.TRANSITION_NOT_ALLOWED):
        pool.rules.activate(OFFICER, CALL, "population", 1)
    for name in made.departments:
        pool.rules.agree(HEADS[name], CALL, "population", 1)
    with pool.database.begin() as work:
        pool.hub.next_batch(work, [7], 1, "e")
    pool.rules.activate(OFFICER, CALL, "population", 1)
    (found,) = pool.rules.rules(EDITOR, CALL, "population")
    assert found.state is RulesState.ACTIVE
    assert (found.active_from[6], found.active_from[7]) == (1, 2)
    with pool.database.read() as reader:
        assert set(pool.hub.resources(reader)) == {"population.v1", "marriages.v1", "insured.v2", "travel-permits.v1"}
    (entry,) = pool.entries(Action.HUB_RULES_ACTIVATE)
    assert entry["resource"] == "population"
    assert entry["data"]["hash"] == made.rules.hash().hex()
    assert entry["data"]["departments"] == ["civil", "police", "social"]


def test_only_departments_whose_lead_changes_are_asked_and_the_version_before_retires(pool: Pool) -> None:
    pool.activate()
    turned = {"rule": "lead", "order": ["marriages.v1", "population.v1"]}
    second = pool.rules.propose(EDITOR, CALL, document(2, full_name=turned))
    assert second.departments == ("civil", "police")
    with refused(Reason.OTHER_DEPARTMENT):
        pool.rules.agree(HEADS["social"], CALL, "population", 2)
    for name in second.departments:
        pool.rules.agree(HEADS[name], CALL, "population", 2)
    pool.rules.activate(OFFICER, CALL, "population", 2)
    states = [one.state for one in pool.rules.rules(OFFICER, CALL, "population")]
    assert states == [RulesState.RETIRED, RulesState.ACTIVE]
    entries = {one["data"]["version"]: one["data"]["retires"] for one in pool.entries(Action.HUB_RULES_ACTIVATE)}
    assert entries == {1: 0, 2: 1}


def test_a_version_that_was_overtaken_is_proposed_again(pool: Pool) -> None:
    pool.activate()
    pool.rules.propose(EDITOR, CALL, document(2))
    pool.rules.propose(EDITOR, CALL, document(3))
    pool.rules.activate(OFFICER, CALL, "population", 3)
    with refused(Reason.VERSION_CONFLICT):
        pool.rules.activate(OFFICER, CALL, "population", 2)
    assert pool.rules.reject(OFFICER, CALL, "population", 2, "overtaken").state is RulesState.REJECTED
    assert "overtaken" in [one["data"].get("reason") for one in pool.entries(Action.HUB_RULES_ACTIVATE)]


def test_one_person_with_two_accounts_does_not_sign_twice(pool: Pool) -> None:
    pool.rules.propose(person("wang-editor", Role.CATALOGUE_EDITOR, "data"), CALL, document())
    for name in ("police", "social"):
        pool.rules.agree(HEADS[name], CALL, "population", 1)
    with refused(Reason.SAME_PERSON):
        pool.rules.agree(person("wang-head", Role.SHARING_OFFICE_HEAD, "civil"), CALL, "population", 1)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.SECURITY_OFFICER])
def test_other_roles_do_nothing_to_rules_and_their_tries_are_entries(pool: Pool, role: Role) -> None:
    pool.rules.propose(EDITOR, CALL, document())
    other = person("other", role, "police" if role is Role.SECURITY_OFFICER else "")
    tries = (
        lambda: pool.rules.propose(other, CALL, document(2)),
        lambda: pool.rules.agree(other, CALL, "population", 1),
        lambda: pool.rules.activate(other, CALL, "population", 1),
        lambda: pool.rules.reject(other, CALL, "population", 1, "so"),
    )
    for attempt in tries:
        with pytest.raises(PoolError) as caught:
            attempt()
        assert caught.value.reason in {Reason.ROLE_MISSING, Reason.ROLE_FORBIDDEN}
    assert [one.state for one in pool.rules.rules(other, CALL, "population")] == [RulesState.PROPOSED]


def test_a_source_that_is_not_catalogued_and_a_version_that_does_not_exist_are_refused(pool: Pool) -> None:
    unknown = {"rule": "lead", "order": ["weather.v1"]}
    with refused(Reason.RULES_INVALID):
        pool.rules.propose(EDITOR, CALL, document(full_name=unknown))
    with refused(Reason.NOT_FOUND):
        pool.rules.agree(HEADS["police"], CALL, "population", 1)
    assert pool.rules.rules(EDITOR, CALL, "population") == []

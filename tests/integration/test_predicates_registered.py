"""Predicates on a running pool: registered by two persons, named by requests, and by nobody's own words."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.admin_client import AdminClient
from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPIC = "residents.v1"
AGED: dict[str, Any] = {"op": "range", "field": "age", "low": 80, "high": None}
ALIVE = {"op": "eq", "field": "death_flag", "value": False}
ALIVE_80 = {"op": "and", "parts": [AGED, ALIVE]}


class Pool:
    """A pool whose police provides the population, and whose labour office asks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.police, self.labour = world.department("公安局"), world.department("人社局")
        self.police.offer(TOPIC, library.text("population"), code="101001/000002")
        self.second: AdminClient = world.people.second(world)

    def propose(self, name: str, expression: dict[str, Any]) -> dict[str, Any]:
        body = {"name": name, "library": "population", "expression": expression, "answers": "年满八十周岁且健在"}
        answer: dict[str, Any] = self.world.root.post("/hub/predicates", body | {"replaces": ["CERT-0031"]})
        return answer

    def registered(self, name: str, expression: dict[str, Any]) -> str:
        proposed = self.propose(name, expression)
        answer = self.second.post(f"/hub/predicates/{proposed['id']}/confirmation")
        assert answer["state"] == "confirmed"
        return str(answer["predicate"])

    def request(self, *predicates: str, fields: tuple[str, ...] = ("birth_date", "death_flag"), **terms: Any) -> str:
        asked = {"access_mode": "verify", "predicates": [*predicates]} | terms
        return self.labour.request(TOPIC, [*fields], **asked)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with World.start() as world:
        yield Pool(world)


def refused(call: Any) -> Reason:
    with pytest.raises(PoolError) as error:
        call()
    return error.value.reason


def test_a_predicate_is_registered_by_two_persons_and_each_step_has_an_entry(pool: Pool) -> None:
    proposed = pool.propose("two-persons", ALIVE_80)
    path = f"/hub/predicates/{proposed['id']}"
    assert (proposed["predicate"], proposed["state"]) == ("two-persons/1", "proposed")
    assert proposed["fields"] == ["birth_date", "death_flag"]
    assert refused(lambda: pool.world.root.post(f"{path}/confirmation")) is Reason.SAME_PERSON
    assert refused(lambda: pool.request("two-persons/1")) is Reason.PREDICATE_UNKNOWN
    assert refused(lambda: pool.propose("two-persons", AGED)) is Reason.ALREADY_EXISTS
    for role in ("sharing_office_head", "security_officer", "catalogue_editor"):
        account = pool.police.account(role)
        assert refused(lambda account=account: account.post(f"{path}/confirmation")) is Reason.ROLE_MISSING
        assert account.get(path) == proposed
    pool.second.post(f"{path}/confirmation")
    assert refused(lambda: pool.second.post(f"{path}/rejection", {"reason": "太迟"})) is Reason.TRANSITION_NOT_ALLOWED
    entries = pool.world.root.get("/audit/entries", {"resource": "two-persons/1", "limit": 100})
    confirmed = [one["entry"] for one in entries if one["entry"]["action"] == "hub:predicate:confirm"]
    allowed = [one for one in confirmed if one["decision"] == "allow"]
    assert len(allowed) == 1
    assert len(confirmed) == 5
    data = allowed[0]["data"]
    assert (data["predicate"], data["fields"]) == (proposed["id"], ["birth_date", "death_flag"])
    assert data["digest"].startswith("sha256:")


def test_a_request_names_registered_predicates_of_its_own_fields_alone(pool: Pool) -> None:
    alive = pool.registered("alive-80", ALIVE_80)
    grant = pool.labour.account("sharing_office_head").get(f"/grants/{pool.request(alive)}")
    assert (grant["access_mode"], grant["predicates"], grant["batch_max"]) == ("verify", [alive], 1)
    for call in (
        lambda: pool.request("alive-80/2"),
        lambda: pool.request("alive-79/1"),
        lambda: pool.request(alive, fields=("death_flag",)),
    ):
        assert refused(call) is Reason.PREDICATE_UNKNOWN
    later = pool.registered("alive-80", AGED)
    assert later == "alive-80/2"
    assert pool.request(later, fields=("birth_date",))


def test_two_predicates_on_one_field_say_why_and_two_persons_sign(pool: Pool) -> None:
    low, high = pool.registered("from-60", AGED | {"low": 60}), pool.registered("from-61", AGED | {"low": 61})
    fields = ("birth_date",)
    assert refused(lambda: pool.request(low, high, fields=fields)) is Reason.REQUEST_INVALID
    grant_id = pool.request(low, high, fields=fields, disclosure_reason="两档补贴")
    head = pool.police.account("sharing_office_head")
    assert head.post(f"/grants/{grant_id}/approval")["state"] == "countersigned"


def test_a_renewal_that_asks_another_predicate_is_signed_by_two_persons(pool: Pool) -> None:
    low, high = pool.registered("from-70", AGED | {"low": 70}), pool.registered("from-71", AGED | {"low": 71})
    head, asking = pool.police.account("sharing_office_head"), pool.labour.account("sharing_office_head")
    old = pool.request(low, fields=("birth_date",))
    pool.police.approve(old)
    terms = asking.get(f"/grants/{old}/renewal") | {"legal_basis": "社会保险法 第七十四条"}
    terms["expires"] = (datetime.now(UTC) + timedelta(days=60)).isoformat()
    new = asking.post("/requests", terms | {"predicates": [high]})["id"]
    answered = head.post(f"/grants/{new}/approval")
    assert (answered["state"], answered["together_with"][-1:]) == ("countersigned", [old]), "the two bracket a value"


def test_under_a_grant_that_answers_questions_no_record_is_fetched(pool: Pool) -> None:
    alive = pool.registered("for-fetch", ALIVE_80)
    lookup = pool.labour.request(TOPIC, ["birth_date"], access_mode="lookup")
    client = pool.world.client(pool.labour.enrol("copier"))
    said = {"purpose": "eligibility", "case": "STANDING-1"}
    for grant_id in (pool.request(alive), lookup):
        pool.police.approve(grant_id)
        position = client.describe(grant_id).position
        assert refused(lambda grant_id=grant_id: client.fetch(grant_id, **said)) is Reason.GRANT_MODE
        assert refused(lambda grant_id=grant_id, at=position: client.commit(grant_id, at, **said)) is Reason.GRANT_MODE
    denied = pool.world.root.get(
        "/audit/entries", {"decision": "deny", "action": "exchange:records:fetch", "limit": 10}
    )
    assert {one["entry"]["reason"] for one in denied} == {"grant_mode"}


@pytest.mark.parametrize(
    "expression", [{"op": "range", "field": "income", "low": 1, "high": None}, {"op": "script", "text": "1 = 1"}]
)
def test_an_expression_that_is_none_of_the_library_is_refused(pool: Pool, expression: dict[str, Any]) -> None:
    assert refused(lambda: pool.propose("broken", expression)) is Reason.FILTER_INVALID


def test_a_predicate_that_the_owner_of_the_database_changed_is_neither_shown_nor_named(pool: Pool) -> None:
    reference = pool.registered("owner", ALIVE_80)
    (row,) = pool.world.root.list("/hub/predicates", {"name": "owner"})
    engine = sa.create_engine((pool.world.data / "database-url").read_text().strip())
    change = sa.text("UPDATE access_predicate SET expression = replace(expression, :a, :b) WHERE name = 'owner'")
    with engine.begin() as connection:
        assert connection.execute(change, {"a": "80", "b": "18"}).rowcount == 1
    assert refused(lambda: pool.request(reference)) is Reason.ROW_FORGED
    assert refused(lambda: pool.second.get(f"/hub/predicates/{row['id']}")) is Reason.ROW_FORGED
    listed = pool.world.root.list("/hub/predicates")
    assert [one["id"] for one in listed if one.get("status") == "damaged"] == [row["id"]]
    with engine.begin() as connection:
        connection.execute(change, {"a": "18", "b": "80"})
    engine.dispose()
    assert pool.request(reference)


def test_the_commands_propose_list_show_and_confirm(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "expression.json"
    file.write_text(json.dumps(ALIVE_80))
    token = tmp_path / "authority.token"
    token.write_text(pool.world.people.tokens["authority-1"])

    def run(*words: str) -> str:
        options = ("--data", str(pool.world.data), "--token-file", str(token))
        return str(pool.world.programs.run("pool", "hub", "predicates", *options, *words).stdout)

    options = ("--library", "population", "--answers", "年满八十周岁且健在", "--replaces", "CERT-0031")
    assert "proposed: by-command/1, of birth_date, death_flag" in run("add", "by-command", str(file), *options)
    (row,) = pool.world.root.list("/hub/predicates", {"name": "by-command"})
    assert "by-command/1" in run("list", "--state", "proposed")
    shown = run("show", row["id"])
    assert "age from 80" in shown
    assert "CERT-0031" in shown
    assert "rejected: by-command/1" in run("reject", row["id"], "--reason", "范围不清")

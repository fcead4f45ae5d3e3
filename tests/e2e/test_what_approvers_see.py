"""What a provider reads before it decides: levels of the fields, and what was decided on like requests of others."""

import json
from typing import Any

import pytest

from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World, disclosing, in_clear

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPIC = "shown-residents.v1"
REFUSAL = {"reason": "无此职责", "clause": "政务数据共享条例 第二十一条", "ground": "out_of_duty"}


class Town:
    def __init__(self, world: World) -> None:
        self.world = world
        self.provider = world.department("公安局")
        self.provider.offer(TOPIC, library.text("population"))
        self._publish()
        self.asking, self.other, self.third = map(world.department, ("人社局", "医保局", "城管局"))
        self.near = self.other.request(TOPIC, ["full_name", "sex_code"])
        self.provider.approve(self.near)
        self.far = self.third.request(TOPIC, ["sex_code"], purpose="statistics")
        self.provider.account("sharing_office_head").post(f"/grants/{self.far}/reject", REFUSAL)
        self.waiting = self.other.request(TOPIC, ["full_name", "sex_code"])
        self.elsewhere = self.third.request(TOPIC, ["birth_date"])
        self.provider.approve(self.elsewhere)
        self.own = self.asking.request(TOPIC, ["sex_code"])
        self.provider.approve(self.own)
        self.request = self.asking.request(TOPIC, ["full_name", "sex_code"], **in_clear("full_name"))

    def _publish(self) -> None:
        """Publish 400 persons, half of them minors; the first hundred once more, no longer minors."""
        source = self.provider.enrol("rows")
        topic = Topic.parse(TOPIC)
        lane = Publisher(source.pool_id, source.department, source.connector, TOPIC, source.signing_key)
        rows = [{**row, "is_minor_under_14": number < 200} for number, row in enumerate(persons(400))]
        again = [{**row, "is_minor_under_14": False} for row in rows[:100]]
        with self.world.client(source) as pool:
            schema_id, text = pool.schema(topic)
            for part in (rows, again):
                list(pool.publish(topic, [lane.batch(framed(schema_id, text, part))]))

    def rows(self, office: Office, grant: str) -> dict[str, Any]:
        document: dict[str, Any] = office.account("sharing_office_head").get(f"/grants/{grant}/rows")
        return document

    def read(self, office: Office) -> dict[str, Any]:
        document: dict[str, Any] = office.account("sharing_office_head").get(f"/grants/{self.request}")
        return document


@pytest.fixture(scope="module")
def town(postgres_world: World) -> Town:
    return Town(postgres_world)


def test_a_provider_reads_the_level_of_each_field(town: Town) -> None:
    assert town.read(town.provider)["review"]["levels"] == {"full_name": "G3", "sex_code": "G2"}


def test_a_provider_reads_what_was_decided_on_like_requests_of_others_the_nearest_first(town: Town) -> None:
    similar = town.read(town.provider)["review"]["similar"]
    assert [(one["grant"], one["state"]) for one in similar] == [(town.near, "active"), (town.far, "rejected")]
    assert similar[0]["consumer"] == town.other.id


def test_the_authority_reads_them_and_the_department_that_asks_does_not(town: Town) -> None:
    assert len(town.world.root.get(f"/grants/{town.request}")["review"]["similar"]) == 2
    own = town.read(town.asking)
    assert "similar" not in own["review"]
    for other in (town.other, town.third):
        assert other.id not in json.dumps(own)


def test_the_command_prints_both(town: Town) -> None:
    token = town.world.folder / "root.token"
    token.write_text(town.world.root._headers["authorization"].removeprefix("Bearer "))
    access = ("--data", str(town.world.data), "--token-file", str(token))
    shown = town.world.programs.run("pool", "grant", *access, "show", town.request).stdout
    assert "full_name 姓名 G3: in clear" in shown
    assert f"active: 医保局, eligibility: full_name, sex_code ({town.near})" in shown
    assert "rejected: 城管局, statistics: sex_code" in shown


def test_a_provider_reads_how_many_rows_a_request_keeps_and_who_asks_does_not(town: Town) -> None:
    minors = {"op": "eq", "field": "is_minor_under_14", "value": True}
    filtered = town.asking.request(TOPIC, ["sex_code"], row_filter=minors, **disclosing("is_minor_under_14"))
    assert town.rows(town.provider, filtered) == {
        "grant": filtered, "rows": 100, "fewer": False, "read": 500, "whole": True,
    }  # fmt: skip
    assert town.rows(town.provider, town.request)["rows"] == 400
    assert town.world.root.get(f"/grants/{town.request}/rows")["rows"] == 400
    for office in (town.asking, town.other):
        with pytest.raises(PoolError) as refused:
            town.rows(office, filtered)
        assert refused.value.reason is (Reason.NOT_PROVIDER if office is town.asking else Reason.OTHER_DEPARTMENT)
    [entry] = town.world.root.get("/audit/entries", {"reason": "not_provider", "limit": 1})
    assert entry["entry"]["decision"] == "deny"

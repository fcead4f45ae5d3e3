"""Return flow (回流) as people use it: a county drafts, files and gets its own rows of a city's resource."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(300)]

TOPIC = Topic.parse("returned-residents.v1")
FIELD = "household_division_code"
PEOPLE = [person | {FIELD: ("330102", "330103")[at % 2]} for at, person in enumerate(persons(10))]
ASKED = {"topic": str(TOPIC), "purpose": "eligibility", "case": "STANDING-1"}


class Area:
    def __init__(self, world: World) -> None:
        self.world = world
        self.city, self.county, self.other = map(world.department, ("市公安局", "上城区人社局", "市城管局"))
        self.city.offer(str(TOPIC), library.text("population"))
        placement = {"level": "county", "division_code": "330102"}
        world.root.post(f"/departments/{self.county.id}/placement", placement)
        source, self.sink = self.city.enrol("source"), self.county.enrol("sink")
        lane = Publisher(source.pool_id, source.department, source.connector, str(TOPIC), source.signing_key)
        with world.client(source) as pool:
            schema_id, text = pool.schema(TOPIC)
            assert len(list(pool.publish(TOPIC, [lane.batch(framed(schema_id, text, PEOPLE))]))) == 1
        self.head = self.county.account("sharing_office_head")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `pool request` as the county's sharing office head."""
        token = self.world.folder / "head.token"
        token.write_text(self.head._headers["authorization"].removeprefix("Bearer "))
        return self.world.programs.run(
            "pool", "request", "--data", str(self.world.data), "--token-file", str(token), *words, check=False
        )


@pytest.fixture(scope="module")
def area(postgres_world: World) -> Area:
    return Area(postgres_world)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def test_a_county_gets_its_own_rows_and_no_others(area: Area) -> None:
    words = ("--division", "330102", "--purpose", "eligibility", "--case", "STANDING-1")
    drafted = area.command("return-flow", str(TOPIC), *words)
    assert drafted.returncode == 0, drafted.stderr
    request = json.loads(drafted.stdout)
    assert request["row_filter"] == {"op": "prefix", "field": FIELD, "value": "330102"}
    assert "第二十四条" in request["legal_basis"]
    assert request["history"] == "all"
    file = area.world.folder / "return.json"
    file.write_text(drafted.stdout)
    filed = area.command("submit", str(file))
    assert filed.returncode == 0, filed.stderr
    grant = json.loads(filed.stdout)["id"]
    provider = area.city.account("sharing_office_head")
    seen = provider.get(f"/grants/{grant}")["review"]
    assert seen["flow"] == "vertical_down"
    assert any("return flow (回流)" in sentence and "330102" in sentence for sentence in seen["words"])
    area.city.approve(grant)
    with area.world.client(area.sink) as pool:
        fetched = pool.fetch(grant, position=b"", max_records=200, purpose="eligibility", case="STANDING-1")
    assert len(fetched.values) == sum(person[FIELD] == "330102" for person in PEOPLE)


def test_without_a_division_it_is_the_whole_own_area(area: Area) -> None:
    draft = area.head.post("/requests/return-flow", ASKED)
    assert draft["row_filter"]["value"] == "330102"


@pytest.mark.parametrize("ground", ["conditions_not_met", "not_shared"])
def test_a_provider_adds_no_condition_to_rows_that_return(area: Area, ground: str) -> None:
    grant = area.head.post("/requests", area.head.post("/requests/return-flow", ASKED))["id"]
    provider = area.city.account("sharing_office_head")
    refusal = {"reason": "另需会商", "clause": "内部规定 第三条", "ground": ground}
    assert refused(lambda: provider.post(f"/grants/{grant}/reject", refusal)) is Reason.REQUEST_INVALID
    other = area.county.request(str(TOPIC), ["sex_code"])
    assert provider.post(f"/grants/{other}/reject", refusal)["state"] == "rejected", "of what is no return flow"
    assert provider.post(f"/grants/{grant}/reject", refusal | {"ground": "out_of_duty"})["state"] == "rejected"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"division": "330103"}, Reason.OTHER_DEPARTMENT),
        ({"division": "3301"}, Reason.OTHER_DEPARTMENT),
        ({"division": "330102%"}, Reason.OTHER_DEPARTMENT),
        ({"field": "full_name"}, Reason.FIELD_UNKNOWN),
        ({"topic": "nothing.v1"}, Reason.RESOURCE_UNKNOWN),
    ],
)
def test_what_is_not_its_own_is_not_drafted(area: Area, wanted: dict[str, Any], reason: Reason) -> None:
    assert refused(lambda: area.head.post("/requests/return-flow", {**ASKED, **wanted})) is reason


def test_only_a_lower_level_is_returned_to(area: Area) -> None:
    head = area.other.account("sharing_office_head")
    assert refused(lambda: head.post("/requests/return-flow", ASKED)) is Reason.DEPARTMENT_KIND
    editor = area.county.account("catalogue_editor")
    assert refused(lambda: editor.post("/requests/return-flow", ASKED)) is Reason.ROLE_MISSING
    assert refused(lambda: area.world.root.post("/requests/return-flow", ASKED)) is Reason.ROLE_MISSING

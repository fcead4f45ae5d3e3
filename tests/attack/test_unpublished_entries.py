"""What is not published is shown to its department, the data authority and auditors alone, by whatever list.

A department drafts an entry whose title, items and element nobody else knows; a second one is in review, a third was
withdrawn, a fourth is in force while its update is written. Another department looks everywhere.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute

from exchange.admin_client import AdminClient
from exchange.api.http import ROUTERS
from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.cases.catalogue import metadata
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

SECRET = "涉密排查名册"
HIDDEN = ("plan.v1", "plain.v1", "waiting.v1", "gone.v1")
IN_FORCE = "registers.v1"
ITEM = {"name": SECRET, "type": "text", "element": "DE00777", "source": True}
NAMELESS = {"name": "排查结果", "type": "text"}
# A route that returns entries and is not here is not looked at by this test.
ROUTES = {
    "/v1/catalogue",
    "/v1/catalogue/dcat",
    "/v1/catalogue/facets",
    "/v1/catalogue/notices",
    "/v1/catalogue/records",
    "/v1/catalogue/records/{topic}",
    "/v1/catalogue/records/{topic}/versions",
    "/v1/catalogue/search",
    "/v1/duplicates",
    "/v1/element-gaps",
    "/v1/elements",
    "/v1/elements/{code}",
    "/v1/elements/{code}/fields",
}


@dataclass
class City:
    world: World
    provider: Office
    other: Office

    def strangers(self) -> list[AdminClient]:
        """Return who sees what is in force alone: people of another department, and an operator."""
        roles = ("catalogue_editor", "sharing_office_head", "security_officer")
        return [*map(self.other.account, roles), self.world.remote(self.world.people.tokens["operator"])]

    def reviewers(self) -> list[AdminClient]:
        auditor = self.world.remote(self.world.people.tokens["auditor"])
        return [self.provider.account("sharing_office_head"), self.world.root, auditor]


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        made = City(world, world.department("公安局"), world.department("人社局"))
        for role in ("operator", "auditor"):
            world.account(role, role)
        editor, head = map(made.provider.account, ("catalogue_editor", "sharing_office_head"))
        element = {"code": "DE00777", "zh": "排查", "en": "Check", "type": "text", "length": 18}
        world.root.post("/elements", element)
        secret = metadata(title=SECRET, abstract=SECRET, theme="emergency").to_document() | {"items": [ITEM, NAMELESS]}
        editor.post("/catalogue/plan.v1/metadata", secret)
        waiting = editor.post("/catalogue/waiting.v1/metadata", secret)
        editor.post("/catalogue/waiting.v1/submission")
        head.post("/catalogue/waiting.v1/approval")
        editor.post("/catalogue/gone.v1/metadata", secret)
        editor.post("/catalogue/gone.v1/withdrawal")
        conditions = {"share_type": "conditional", "share_scope": "本市", "use_purpose": "履职", "level": "G4"}
        editor.post("/catalogue", {"topic": "plain.v1", "title": SECRET, "code": "102001/000001", **conditions})
        editor.post("/catalogue/plain.v1/schemas", {"text": library.text("population")})
        made.provider.offer(IN_FORCE, library.text("population"), code="203001/000009")
        editor.post(f"/catalogue/{IN_FORCE}/change", {"changed_on": "2026-01-05", "reason": "职责调整"})
        editor.post(f"/catalogue/{IN_FORCE}/metadata", secret | {"class_code": "203001", "code": "203001/000009"})
        made.other.account("catalogue_editor").post(
            "/catalogue/theirs.v1/metadata", metadata().to_document() | {"items": [NAMELESS]}
        )
        assert waiting["state"] == "draft"
        yield made


def told(reader: AdminClient) -> str:
    """Return everything that the lists of the catalogue tell a reader."""
    answers: list[Any] = [
        reader.list("/catalogue"),
        *(reader.list("/catalogue", {"limit": limit}) for limit in (1, 2)),
        reader.list("/catalogue/search"),
        reader.list("/catalogue/search", {"q": SECRET}),
        *(reader.list("/catalogue/search", {"state": state}) for state in ("draft", "archived", "suspended")),
        reader.list("/catalogue/search", {"theme": "emergency"}),
        reader.get("/catalogue/facets"),
        reader.get("/catalogue/facets", {"q": "名册"}),
        reader.list("/catalogue/records"),
        *(reader.list("/catalogue/records", {"state": state}) for state in ("draft", "authority_review", "updating")),
        reader.list("/elements"),
        reader.get("/elements/DE00777"),
        reader.list("/elements/DE00777/fields"),
        reader.list("/element-gaps"),
        reader.list("/duplicates"),
        [*reader.texts("/catalogue/dcat", {"form": "jsonld"})],
    ]
    if reader.get("/me")["department"]:
        answers.append(reader.list("/catalogue/notices"))
    return json.dumps(answers, ensure_ascii=False)


def test_lists_search_counts_elements_and_export_tell_nothing_of_what_is_not_in_force(city: City) -> None:
    for stranger in city.strangers():
        text = told(stranger)
        assert SECRET not in text
        assert not [topic for topic in HIDDEN if topic in text]
        assert IN_FORCE in text, "what was published stays in force while its update is written"
        counts = stranger.get("/catalogue/facets")["counts"]
        own = {"draft": 1} if stranger.get("/me")["department"] else {}
        assert counts["state"] == {**own, "published": 1}
        assert "emergency" not in counts["theme"]


def test_each_of_them_is_unknown_as_one_that_does_not_exist(city: City) -> None:
    answers = []
    for stranger in city.strangers():
        for topic in (*HIDDEN, "never.v1"):
            for path in (
                f"/catalogue/records/{topic}",
                f"/catalogue/records/{topic}/versions",
                f"/reports/lineage/{topic}",
                f"/reports/lineage/{topic}/batches",
            ):
                with pytest.raises(PoolError) as refused:
                    stranger.get(path)
                assert refused.value.reason is Reason.RESOURCE_UNKNOWN
                answers.append(refused.value.message.replace(topic, "TOPIC"))
    assert len({*answers}) == 1
    shown = city.strangers()[0].get(f"/catalogue/records/{IN_FORCE}")
    assert (shown["state"], shown["change"], shown["due_on"]) == ("published", None, None), "its update is not told"
    assert SECRET not in json.dumps(shown, ensure_ascii=False)


def test_a_cursor_of_a_list_does_not_tell_whether_there_is_an_entry(city: City) -> None:
    for stranger in city.strangers():
        for topic in (*HIDDEN, "never.v1"):
            found = json.dumps(stranger.list("/element-gaps", {"after": f"{topic}/"}))
            assert not [one for one in HIDDEN if one in found]


def test_a_request_for_it_is_for_a_resource_that_is_not_there(city: City) -> None:
    head = city.other.account("sharing_office_head")
    bodies = []
    for topic in ("plain.v1", "never.v1"):
        with pytest.raises(PoolError) as refused:
            city.other.request(topic, ["full_name"])
        assert refused.value.reason is Reason.RESOURCE_UNKNOWN
        bodies.append(refused.value.message.replace(topic, "TOPIC"))
    assert len({*bodies}) == 1
    assert head.list("/grants") == []


def test_a_lower_level_drafts_no_request_for_it_either(city: City) -> None:
    county = city.world.department("上城区人社局")
    placement = {"level": "county", "division_code": "330102"}
    city.world.root.post(f"/departments/{county.id}/placement", placement)
    for office in (county, city.other):
        answers = []
        for topic in (*HIDDEN, "never.v1"):
            with pytest.raises(PoolError) as refused:
                office.account("sharing_office_head").post("/requests/return-flow", {"topic": topic})
            assert refused.value.reason is Reason.RESOURCE_UNKNOWN
            answers.append(refused.value.message.replace(topic, "TOPIC"))
        assert len({*answers}) == 1


def test_its_department_the_authority_and_auditors_see_it(city: City) -> None:
    for reviewer in city.reviewers():
        text = told(reviewer)
        assert SECRET in text
        assert all(topic in text for topic in HIDDEN)
        assert reviewer.get("/catalogue/records/plan.v1")["metadata"]["title"] == SECRET
        assert reviewer.get("/catalogue/facets")["counts"]["state"]["draft"] >= 3


def test_an_entry_without_full_metadata_is_not_published_on_one_approval(city: City) -> None:
    with pytest.raises(PoolError) as refused:
        city.world.root.post("/catalogue/plain.v1/publication")
    assert refused.value.reason is Reason.TRANSITION_NOT_ALLOWED
    entries = city.world.root.list("/audit/entries", {"resource": "plain.v1"})
    assert Reason.TRANSITION_NOT_ALLOWED in [one["entry"]["data"].get("failed") for one in entries]


def test_every_route_that_returns_entries_is_looked_at() -> None:
    routes = {route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    reads = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in route.methods
    }
    assert routes
    assert {path for path in reads if path.startswith(("/v1/catalogue", "/v1/element", "/v1/duplicates"))} == ROUTES

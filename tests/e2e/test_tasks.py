"""What waits for whom each morning, by command and by HTTP: what a list offers can be done, and nothing else waits."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exchange.admin_client import AdminClient
from exchange.identity.tokens import fingerprint_of, new_token
from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.cases.catalogue import metadata
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOPIC, UPDATED, REVIEWED, DRAFTED = "population.v1", "movers.v1", "firms.v1", "plan.v1"


@dataclass
class City:
    world: World
    provider: Office
    consumer: Office
    request: str

    def tasks(self, who: AdminClient, path: str = "/tasks") -> dict[tuple[str, str], dict[str, Any]]:
        return {(one["kind"], one["id"]): one for one in who.list(path)}

    def pool(self, office: Office | None, role: str, *words: str) -> str:
        """Run `pool task` as an account; return what it prints."""
        name = "authority-1" if office is None else f"{role}-{office.id[-6:]}".replace("_", "-")
        token = self.world.folder / "token"
        token.write_text(self.world.people.tokens[name])
        options = ("--data", str(self.world.data), "--token-file", str(token))
        return self.world.programs.run("pool", "task", *options, *words).stdout


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        provider, consumer = world.department("公安局"), world.department("人社局")
        for topic in (TOPIC, UPDATED):
            provider.offer(topic, library.text("population"))
        editor, head = map(provider.account, ("catalogue_editor", "sharing_office_head"))
        editor.post(f"/catalogue/{UPDATED}/change", {"changed_on": "2026-01-05", "reason": "职责调整"})
        for topic in (REVIEWED, DRAFTED):
            editor.post(f"/catalogue/{topic}/metadata", metadata().to_document())
        editor.post(f"/catalogue/{REVIEWED}/schemas", {"text": library.text("population")})
        editor.post(f"/catalogue/{REVIEWED}/submission")
        head.post("/erasures", {"topic": TOPIC, "key": ["a"], "reason": "依法删除"})
        days = "".join(f"2040-{day},false,n\n" for day in ("01-01", "05-01", "05-02", "10-01", "10-02", "10-03"))
        world.root.post("/calendar/2040", {"content": f"date,is_workday,notice\n{days}"})
        yield City(world, provider, consumer, consumer.request(TOPIC, ["full_name"]))


def test_a_head_and_an_officer_see_the_requests_and_reviews_that_they_may_decide_on(city: City) -> None:
    head = city.tasks(city.provider.account("sharing_office_head"))
    request = head["request", city.request]
    assert {"reject"} <= {*request["acts"]}
    assert (request["title"], request["state"], request["department"]) == (TOPIC, "submitted", city.consumer.id)
    assert request["due_on"] is not None
    assert request["due"] in {"normal", "soon"}
    assert head["catalogue", REVIEWED]["acts"] == ["approve", "return"]
    assert head["catalogue", UPDATED]["acts"] == ["submit"]
    assert ("erasure", city.world.root.list("/erasures")[0]["id"]) not in head, "who proposed it does not confirm it"
    officer = city.tasks(city.provider.account("security_officer"))
    assert not any(kind == "catalogue" for kind, _ in officer)


def test_an_editor_sees_drafts_and_updates_and_nobody_of_another_department_does(city: City) -> None:
    editor = city.tasks(city.provider.account("catalogue_editor"))
    assert editor["catalogue", DRAFTED]["acts"] == ["submit"]
    assert editor["catalogue", UPDATED]["acts"] == ["describe"]
    assert ("catalogue", REVIEWED) not in editor
    for role in ("catalogue_editor", "sharing_office_head", "security_officer"):
        assert not {one for one in city.tasks(city.consumer.account(role)) if one[0] in {"catalogue", "erasure"}}


def test_what_two_authorities_decide_waits_for_the_other_one(city: City) -> None:
    first, second = city.world.root, city.world.people.second(city.world)
    (change,) = (one for one in second.list("/rule-changes") if one["state"] == "proposed")
    assert ("rules", change["id"]) not in city.tasks(first)
    assert city.tasks(second)["rules", change["id"]]["acts"] == ["confirm", "reject"]
    assert any(kind == "erasure" for kind, _ in city.tasks(first)), "an erasure that a department proposed"
    body = {
        "name": "new-editor", "role": "catalogue_editor", "department": city.consumer.id, "staff_number": "N-1",
        "token_fingerprint": fingerprint_of(new_token()),
    }  # fmt: skip
    proposal = first.post("/users", body)
    key = ("proposal", proposal["id"])
    assert key not in city.tasks(first)
    assert city.tasks(city.consumer.account("security_officer"))[key]["acts"] == ["confirm", "refuse"]
    assert city.tasks(city.consumer.account("security_officer"))[key]["due_at"] is not None
    assert "new-editor" not in json.dumps([*city.tasks(city.consumer.account("security_officer")).values()])


def test_what_is_overdue_is_a_list_of_its_own(city: City) -> None:
    overdue = city.tasks(city.provider.account("sharing_office_head"), "/tasks/overdue")
    assert [*overdue] == [("catalogue", UPDATED)]
    assert overdue["catalogue", UPDATED]["due"] == "overdue"
    assert city.pool(city.provider, "sharing_office_head", "overdue").split("\t")[1] == UPDATED
    assert json.loads(city.pool(None, "", "overdue", "--json")) == []


def test_pages_of_one_are_the_whole_list(city: City) -> None:
    head = city.provider.account("sharing_office_head")
    assert head.list("/tasks", {"limit": 1}) == head.list("/tasks")
    shown = [line.split("\t")[:2] for line in city.pool(city.provider, "sharing_office_head", "list").splitlines()]
    assert shown == [[one["kind"], one["id"]] for one in head.list("/tasks")]


def test_one_task_is_shown_to_whom_it_waits_for_and_to_nobody_else(city: City) -> None:
    head = city.provider.account("sharing_office_head")
    for (kind, one), task in city.tasks(head).items():
        assert head.get(f"/tasks/{kind}/{one}") == task
    shown = city.pool(city.provider, "sharing_office_head", "show", "request", city.request, "--json")
    assert json.loads(shown) == city.tasks(head)["request", city.request]
    stranger = city.world.department("水务局").account("sharing_office_head")
    for kind, one in (("request", city.request), ("catalogue", REVIEWED), ("violation", city.request)):
        with pytest.raises(PoolError) as refused:
            stranger.get(f"/tasks/{kind}/{one}")
        assert refused.value.reason is Reason.NOT_FOUND


def test_both_sides_are_told_what_changed_and_others_are_not(city: City) -> None:
    other = city.world.department("城管局")
    grant = city.consumer.request(TOPIC, ["sex_code"])
    city.provider.approve(grant)
    seen = {}
    for office in (city.provider, city.consumer, other):
        rows = office.account("sharing_office_head").list("/tasks/changes")
        assert rows == sorted(rows, key=lambda row: row["at"], reverse=True)
        seen[office.id] = [row["action"] for row in rows if row["grant"] == grant]
        assert office.account("sharing_office_head").list("/tasks/changes", {"limit": 2}) == rows
    assert "exchange:grant:approve" in seen[city.provider.id]
    assert "exchange:grant:approve" in seen[city.consumer.id], "the other party of the grant did it"
    assert seen[other.id] == []
    editor = city.provider.account("catalogue_editor").list("/tasks/changes")
    assert {row["kind"] for row in editor} >= {"catalogue"}
    assert "approve" in city.pool(city.consumer, "sharing_office_head", "changes")
    assert city.provider.account("sharing_office_head").list("/tasks/changes", {"since": "2099-01-01T00:00:00Z"}) == []


def test_each_state_of_a_request_waits_for_who_decides_next(city: City) -> None:
    head, officer = map(city.provider.account, ("sharing_office_head", "security_officer"))
    asker, root = city.consumer.account("sharing_office_head"), city.world.root

    def acts(who: AdminClient, request: str) -> list[str]:
        found: list[str] = city.tasks(who).get(("request", request), {}).get("acts", [])
        return sorted(found)

    request = city.consumer.request(TOPIC, ["id_number"])
    assert [acts(who, request) for who in (head, officer)] == [["approve", "need_more", "reject"], ["confirm"]]
    head.post(f"/requests/{request}/need_more", {"missing": ["依据的条款"]})
    assert [acts(who, request) for who in (head, officer, asker)] == [[], [], ["resubmit"]]
    asker.post(f"/requests/{request}/resubmission", {"legal_basis": "社会保险法 第七十四条"})
    assert acts(head, request) == ["approve", "reject"], "one list of what is missing is all that Art. 21 allows"
    head.post(f"/grants/{request}/approval")
    assert [acts(who, request) for who in (head, officer, root)] == [[], ["countersign"], []]
    officer.post(f"/grants/{request}/countersignature")
    waiting = city.tasks(head)["request", request]
    assert (waiting["state"], waiting["acts"], waiting["due_on"] is None) == ("approved", ["provision"], False)
    head.post(f"/grants/{request}/approval")
    assert not any(acts(who, request) for who in (head, officer, asker, root))
    request = city.consumer.request(TOPIC, ["sex_code"])
    refusal = {"reason": "与履职无关", "clause": "条例 第二十一条", "ground": "out_of_duty"}
    head.post(f"/requests/{request}/reject", refusal)
    assert not any(acts(who, request) for who in (head, officer, asker, root)), "to dispute it is a right alone"
    asker.post(f"/requests/{request}/dispute", {"reference": "纪要-1"})
    assert [acts(who, request) for who in (head, root)] == [[], ["overturn", "uphold"]]
    root.post(f"/requests/{request}/overturn", {"reason": "属于职责"})
    assert acts(root, request) == ["conclude"]
    root.post(f"/grants/{request}/approval")
    assert [acts(who, request) for who in (head, root)] == [["provision"], []]
    actions = [one["action"] for one in asker.list("/tasks/changes") if one["grant"] == request]
    assert actions[:2] == ["exchange:grant:conclude", "exchange:request:overturn"]


def test_due_dates_are_a_calendar_that_names_no_person(city: City, tmp_path: Path) -> None:
    file = tmp_path / "due.ics"
    assert "due dates" in city.pool(city.provider, "sharing_office_head", "calendar", str(file))
    text = file.read_bytes().decode().replace("\r\n ", "")
    assert f"UID:request-{city.request}@test-pool" in text
    assert f"UID:catalogue-{UPDATED}@test-pool" in text
    accounts = {one["name"] for one in city.world.root.list("/users")}
    assert not [name for name in accounts if name in text]


def test_what_was_done_waits_no_more(city: City) -> None:
    head = city.provider.account("sharing_office_head")
    before = city.tasks(head)
    assert ("request", city.request) in before
    city.provider.approve(city.request)
    head.post(f"/catalogue/{REVIEWED}/approval")
    after = city.tasks(head)
    assert ("request", city.request) not in after
    assert ("catalogue", REVIEWED) not in after
    assert city.tasks(city.world.root)["catalogue", REVIEWED]["acts"] == ["publish", "return"]

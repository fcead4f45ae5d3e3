"""A department merges into another: what it was responsible for goes over, and nothing names it as an active party."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from schemas.errors import PoolError, Reason
from tests.kit.cases.catalogue import metadata
from tests.kit.cases.department_tables import FOLLOWS, HISTORY, NAMES_NONE
from tests.kit.world import postgres
from tests.kit.world.permits import EAST, PERMITS, Drawer, Permits, sql, table
from tests.kit.world.world import Office, World
from tests.torture.clerks import SCHEMA

pytestmark = pytest.mark.postgres

REASON = {"reason": "机构改革方案"}
DUTY = {"legal_basis": "社会保险法 第七十四条", "purposes": ["eligibility"]}
ELEMENT = {
    "code": "DE00007", "zh": "许可编号", "en": "Permit number", "type": "text", "length": 18, "level": "G1",
    "personal": "N", "mask": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start() as world:
        yield world


@pytest.fixture
def target(postgres_server: sa.URL) -> Iterator[sa.URL]:
    with postgres.fresh_database(postgres_server) as url:
        yield url


def refused(act: Any, *arguments: Any, **named: Any) -> Reason:
    with pytest.raises(PoolError) as caught:
        act(*arguments, **named)
    return caught.value.reason


def merge(world: World, old: Office, into: Office) -> None:
    world.root.post(f"/departments/{old.id}/merger", {"into": into.id, **REASON})


def naming(world: World, department: str) -> dict[str, tuple[int, int]]:
    """Return for each table how many rows name a department anywhere, and how many of the active ones do."""
    address = sa.make_url((world.data / "database-url").read_text().strip())
    engine, found = sa.create_engine(address), {}
    with engine.connect() as connection:
        tables = connection.exec_driver_sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
            "AND table_type = 'BASE TABLE' AND table_name !~ '^broker_stretch_' AND table_name <> 'alembic_version'"
        ).scalars()
        for name in tables:
            rows = f"SELECT count(*) FROM {name} AS t WHERE to_jsonb(t)::text LIKE %(id)s"
            values = {"id": f"%{department}%"}
            every = connection.exec_driver_sql(rows, values).scalar_one()
            active = connection.exec_driver_sql(f"{rows} AND {FOLLOWS.get(name, 'true')}", values).scalar_one()
            found[name] = every, active
    engine.dispose()
    return found


def entries(world: World, action: str, **query: Any) -> list[dict[str, Any]]:
    return [one["entry"] for one in world.root.list("/audit/entries", {"action": action, **query})]


class Scene:
    """A department with all that one can have: resources, grants and requests on both sides, duties, a lead."""

    def __init__(self, world: World) -> None:
        self.world = world
        root = world.root
        self.permits = Permits(world, "旧许可局", "old-permits.v1")
        self.old, self.new = self.permits.office, world.department("新审批局")
        self.other, self.provider = world.department("使用局"), world.department("提供局")
        self.provider.offer("firms.v1", SCHEMA, level="G2")
        self.new.offer("sites.v1", SCHEMA, level="G2")
        editor = self.old.account("catalogue_editor")
        root.post("/elements", ELEMENT)
        item = {"name": "许可编号", "type": "text", "element": "DE00007", "source": True}
        editor.post("/catalogue/draft-permits.v1/metadata", {**metadata().to_document(), "items": [item]})
        world.new_code()  # the one that it was assigned: the next of its class
        editor.post("/catalogue/draft-permits.v1/schemas", {"text": SCHEMA})
        editor.post("/catalogue/draft-permits.v1/submission")
        self.old.account("sharing_office_head").post("/catalogue/draft-permits.v1/approval")
        root.post("/catalogue/draft-permits.v1/publication")
        root.post("/elements/DE00007/lead", {"department": self.old.id, "reason": "职责"})
        for office, code, name in (
            (self.old, "D-1", "许可核验"), (self.old, "D-2", "企业核查"), (self.new, "D-2", "场地核查"),
        ):  # fmt: skip
            root.post("/duties", {"department": office.id, "code": code, "name": name, **DUTY})
        # Granted to others, asked for by others, held, and asked for.
        self.given = self.other.request(self.permits.topic, PERMITS, row_filter=EAST)
        self.permits.office.approve(self.given)
        self.asked_of = self.other.request(self.permits.topic, PERMITS)
        self.held = self.old.request("firms.v1", PERMITS, duty="D-2")
        self.provider.approve(self.held)
        self.asked = self.old.request("firms.v1", ["version"], duty="D-1")
        # Between the two: one would share with itself.
        self.between = self.new.request(self.permits.topic, PERMITS, duty="D-2")
        self.permits.office.approve(self.between)
        self.open_between = self.old.request("sites.v1", PERMITS, duty="D-1")

    def grant(self, grant: str) -> dict[str, Any]:
        return dict(self.world.root.get(f"/grants/{grant}"))


@pytest.fixture(scope="module")
def scene(world: World) -> Scene:
    made = Scene(world)
    made.permits.publish({"e0": 1})
    before = naming(world, made.old.id)
    expected = set(FOLLOWS) - {"correction_notice", "correction_ticket", "registry_department", "share_request"}
    assert {name for name in expected if not before[name][1]} == set(), "the scene has a row of each"
    merge(world, made.old, made.new)
    return made


def test_nothing_in_any_table_names_the_merged_department_as_an_active_party(scene: Scene) -> None:
    found = naming(scene.world, scene.old.id)
    assert found.keys() == {*FOLLOWS, *HISTORY, *NAMES_NONE}, "each table of the database is reviewed"
    assert {name: active for name, (_, active) in found.items() if active and name in FOLLOWS} == {}
    assert {name: every for name, (every, _) in found.items() if every and name in NAMES_NONE} == {}
    gained = naming(scene.world, scene.new.id)
    moved = {"access_grant", "duty_item", "registry_catalogue", "registry_catalogue_record", "registry_data_element"}
    assert {name for name in moved if not gained[name][1]} == set()


def test_resources_grants_and_requests_go_over_as_they_were_decided(scene: Scene) -> None:
    root, old, new = scene.world.root, scene.old.id, scene.new.id
    providers = {one["topic"]: one["provider"] for one in root.list("/catalogue")}
    assert (providers[scene.permits.topic], providers["draft-permits.v1"]) == (new, new)
    record = root.get("/catalogue/records/draft-permits.v1")
    assert (record["provider"], record["state"], record["act"]["event"]) == (new, "published", "succeed")
    for grant, consumer, provider, state in (
        (scene.given, scene.other.id, new, "active"),
        (scene.asked_of, scene.other.id, new, "submitted"),
        (scene.held, new, scene.provider.id, "active"),
        (scene.asked, new, scene.provider.id, "submitted"),
        (scene.between, new, old, "terminated"),
        (scene.open_between, old, new, "withdrawn"),
    ):
        found = scene.grant(grant)
        assert (found["consumer"], found["provider"], found["state"]) == (consumer, provider, state), grant
    # The code of the successor's list stays the successor's; that of the other item is told apart.
    duties = {one["code"]: one for one in root.list("/duties", {"department": new})}
    assert duties["D-2"]["name"] == "场地核查"
    assert scene.grant(scene.held)["duty"] == f"D-2-{old[-6:]}"
    assert duties[f"D-2-{old[-6:]}"]["name"] == "企业核查"
    assert scene.grant(scene.asked)["duty"] == "D-1"
    element = root.get("/elements/DE00007")
    assert (element["lead"], element["sources"]) == (new, ["draft-permits.v1"])
    # A request that went over is decided on by the new office, and one that it took over goes on.
    scene.new.approve(scene.asked_of)
    scene.provider.approve(scene.asked)


def test_each_has_an_entry_that_names_both_departments(scene: Scene) -> None:
    moved = {one["grant"]["id"]: one["data"] for one in entries(scene.world, "exchange:grant:succeed")}
    assert {scene.given, scene.asked_of, scene.held, scene.asked, scene.open_between} <= moved.keys()
    assert moved[scene.given]["party"] == "provider"
    said = {"party": "consumer", "before": scene.old.id, "into": scene.new.id, "because": REASON["reason"]}
    assert {name: moved[scene.held][name] for name in said} == said
    what = [one["data"]["what"] for one in entries(scene.world, "registry:department:succeed")]
    assert {"duty", "resource", "lead"} == set(what)
    # The provider of a grant is told by an entry on its resource, and may end the grant.
    seen = scene.provider.account("sharing_office_head").list("/audit/entries", {"action": "exchange:grant:succeed"})
    assert {one["entry"]["grant"]["id"] for one in seen} >= {scene.held, scene.asked}


def test_a_merger_that_is_repeated_changes_nothing(scene: Scene) -> None:
    count = (
        len(entries(scene.world, "registry:department:succeed")),
        len(entries(scene.world, "exchange:grant:succeed")),
    )
    merge(scene.world, scene.old, scene.new)
    again = (
        len(entries(scene.world, "registry:department:succeed")),
        len(entries(scene.world, "exchange:grant:succeed")),
    )
    assert again == count


def test_a_successor_that_is_no_provider_takes_over_no_resource(world: World) -> None:
    old, new = world.department("旧测绘局"), world.department("新测绘局")
    old.offer("maps.v1", SCHEMA, level="G2")
    world.root.post(f"/departments/{new.id}/placement", {"kinds": ["consumer"]})
    assert refused(merge, world, old, new) is Reason.DEPARTMENT_KIND
    assert world.root.get(f"/departments/{old.id}")["status"] == "active"
    world.root.post(f"/departments/{new.id}/placement", {"kinds": ["consumer", "provider"]})
    merge(world, old, new)


def test_an_abolished_department_leaves_no_request_and_no_lead(world: World) -> None:
    old, provider = world.department("撤销局"), world.department("甲局")
    provider.offer("routes.v1", SCHEMA, level="G2")
    active, asked = old.request("routes.v1", PERMITS), old.request("routes.v1", ["version"])
    provider.approve(active)
    world.root.post("/elements", {**ELEMENT, "code": "DE00008"})
    world.root.post("/elements/DE00008/lead", {"department": old.id, "reason": "职责"})
    world.root.post(f"/departments/{old.id}/deactivation", REASON)
    states = [world.root.get(f"/grants/{one}")["state"] for one in (active, asked)]
    assert states == ["terminated", "withdrawn"]
    assert world.root.get("/elements/DE00008")["lead"] == ""
    found = naming(world, old.id)
    assert {name: active for name, (_, active) in found.items() if active and name in FOLLOWS} == {}


def test_a_grant_that_was_never_decided_on_beside_the_successors_is_suspended(world: World) -> None:
    old, new, provider = (world.department(name) for name in ("旧档案局", "新档案局", "乙局"))
    schema = json.loads(SCHEMA)
    schema["fields"][3]["mask"] = "drop"
    provider.offer("files.v1", json.dumps(schema, ensure_ascii=False), level="G2")
    clear = {"masks": {"note": "none"}, "unmasked_reason": "核对备注"}
    sensitive = new.request("files.v1", ["permit_no", "note"], **clear)
    provider.approve(sensitive)
    plain = old.request("files.v1", ["permit_no", "version"])
    provider.approve(plain)
    merge(world, old, new)
    moved = world.root.get(f"/grants/{plain}")
    assert (moved["consumer"], moved["state"]) == (new.id, "suspended")
    head = provider.account("sharing_office_head")
    resume = partial(head.post, f"/grants/{plain}/rectified", {"reason": "已核"})
    assert refused(resume) is Reason.CONFIRMATION_MISSING
    head.post(f"/grants/{sensitive}/suspend", {"reason": "并入"})
    head.post(f"/grants/{sensitive}/terminate", {"reason": "并入"})
    assert resume()["state"] == "active"


def test_targets_of_the_successor_and_of_others_go_on_without_a_double(world: World, target: sa.URL) -> None:
    permits = Permits(world, "许可局", "permits.v1")
    permits.publish({f"e{number}": 1 for number in range(10)})
    old, new = world.department("旧人社局"), world.department("新人社局")
    grant = old.request(permits.topic, PERMITS, row_filter=EAST)
    permits.office.approve(grant)
    assert "10 records received" in Drawer(world, old, "sink", grant, sql(world.folder, target)).draw()
    permits.publish({"e0": 2})
    permits.publish({"e1": 2}, "西城")
    merge(world, old, new)
    # The certificate of the merged department is of no use any more; the successor's connector enrols by itself.
    Drawer(world, old, "sink", grant, sql(world.folder, target)).draw(code=2)
    drawer = Drawer(world, new, "sink", grant, sql(world.folder, target))
    assert "2 records received: 1 written, 1 withdrawn" in drawer.draw()
    # Then the provider merges as well: its successor publishes in a lane of its own, and the grant has followed.
    successor = world.department("审批局")
    merge(world, permits.office, successor)
    permits.connect("source", successor)
    permits.publish({"e2": 2})
    permits.void("e3")
    assert "2 records received: 1 written, 1 withdrawn" in drawer.draw()
    expected = {f"e{number}": 1 for number in range(4, 10)} | {"e0": 2, "e2": 2}
    assert table(target) == expected
    assert "0 records received" in drawer.draw()
    until = (datetime.now(UTC) + timedelta(days=60)).isoformat()
    head = new.account("sharing_office_head")
    draft = {**head.get(f"/grants/{grant}/renewal"), "legal_basis": "社会保险法 第七十四条", "expires": until}
    renewed = head.post("/requests", draft)["id"]
    successor.approve(renewed)
    permits.publish({"e4": 2})
    assert "1 records received: 1 written, 0 withdrawn" in drawer.draw(), "a renewal after two mergers"

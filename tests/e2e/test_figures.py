"""Figures of supervision as people read them, and a replay of the log's files that gives the same."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exchange.client import Identity
from exchange.demo.people import persons
from exchange.kpi.facts import month_of
from schemas import library
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import Topic
from tests.kit.patience import wait_for
from tests.kit.share import random_of
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPICS = ("residents-counted.v1", "households-counted.v1")
REFUSAL = {"reason": "无此职责", "clause": "政务数据共享条例 第二十一条", "ground": "out_of_duty"}
MONTH = month_of(int(datetime.now(UTC).timestamp()) * 1_000_000)


class Town:
    """Two providers and two consumers, whose acts are drawn with the seed of the run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = random_of("acts that are counted")
        self.providers = [world.department(f"{name}统计") for name in ("民政局", "公安局")]
        self.consumers = [world.department(f"{name}统计") for name in ("医保局", "城管局")]
        self.lanes = []
        for provider, topic in zip(self.providers, TOPICS, strict=True):
            provider.offer(topic, library.text("population"))
            source = provider.enrol("source")
            lane = Publisher(source.pool_id, provider.id, source.connector, topic, source.signing_key)
            self.lanes.append((source, lane, topic))
        self.sinks = {one.id: one.enrol("sink") for one in self.consumers}
        self.active: list[tuple[Office, str]] = []
        self.waiting: list[tuple[Office, str]] = []
        self.ever: list[tuple[Office, str]] = []  # in force at some time
        self.done = {"approved": 0, "refused": 0}
        for each in self.lanes:
            self.publish(each)
        for act in (self.request, self.request, self.approve, self.draw, self.misuse, self.refuse):
            act()
        for _ in range(8):
            self.random.choice(
                (self.publish, self.request, self.approve, self.refuse, self.draw, self.misuse, self.end)
            )()

    def publish(self, of: tuple[Identity, Publisher, str] | None = None) -> None:
        source, lane, topic = of or self.random.choice(self.lanes)
        with self.world.client(source) as pool:
            schema_id, text = pool.schema(Topic.parse(topic))
            batch = lane.batch(framed(schema_id, text, list(persons(self.random.randint(1, 9)))))
            list(pool.publish(Topic.parse(topic), [batch]))

    def request(self) -> None:
        consumer = self.random.choice(self.consumers)
        at = self.random.randrange(2)
        fields = ["sex_code", *self.random.sample(["birth_date", "death_flag"], self.random.randint(0, 2))]
        self.waiting.append((self.providers[at], consumer.request(TOPICS[at], fields)))

    def approve(self) -> None:
        if self.waiting:
            provider, grant = self.waiting.pop(0)
            provider.approve(grant)
            consumer = provider.account("sharing_office_head").get(f"/grants/{grant}")["consumer"]
            self.done["approved"] += 1
            self.ever.append((provider, grant))
            self.active.append((next(one for one in self.consumers if one.id == consumer), grant))

    def refuse(self) -> None:
        if self.waiting:
            provider, grant = self.waiting.pop()
            provider.account("sharing_office_head").post(f"/grants/{grant}/reject", REFUSAL)
            self.done["refused"] += 1

    def draw(self, purpose: str = "eligibility") -> None:
        if self.active:
            consumer, grant = self.random.choice(self.active)
            with self.world.client(self.sinks[consumer.id]) as pool:
                pool.fetch(grant, position=b"", max_records=200, purpose=purpose, case="STANDING-1")

    def misuse(self) -> None:
        with suppress(RefusedError):
            self.draw("statistics")

    def end(self) -> None:
        if len(self.active) > 1:
            consumer, grant = self.active.pop()
            document = consumer.account("sharing_office_head").get(f"/grants/{grant}")
            provider = next(one for one in self.providers if one.id == document["provider"])
            provider.account("sharing_office_head").post(f"/grants/{grant}/suspend", {"reason": "用途已完成"})

    def settled(self) -> dict[str, Any]:
        """Return the figures once they are of all that the acts have written."""
        root = self.world.root
        newest = root.get("/audit/entries", {"limit": 1})[0]["entry"]["id"]
        wait_for(lambda: root.get(f"/audit/entries/{newest}")["proof"] == "signed", "the log is signed")
        index = root.get(f"/audit/entries/{newest}")["index"]
        wait_for(lambda: root.get("/reports/kpi")["entries"] > index, "the figures are of it")
        document: dict[str, Any] = root.get("/reports/kpi", {"month": MONTH})
        return document

    def pool(self, *words: str, account: Any = None) -> subprocess.CompletedProcess[str]:
        token = self.world.folder / "some.token"
        token.write_text((account or self.world.root)._headers["authorization"].removeprefix("Bearer "))
        noun, *rest = words
        access = ("--data", str(self.world.data), "--token-file", str(token))
        return self.world.programs.run("pool", noun, *access, *rest, check=False)


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with World.start() as world:
        yield Town(world)


def figure(document: dict[str, Any], department: str, kpi: str) -> dict[str, Any]:
    one = next(one for one in document["departments"] if one["department"] == department)
    found: dict[str, Any] = next(figure for figure in one["figures"] if figure["kpi"] == kpi)
    return found


def test_a_replay_of_the_log_s_files_gives_the_figures_that_the_pool_shows(town: Town) -> None:
    shown = town.settled()
    done = town.pool(
        "report", "kpi", "--month", MONTH, "--json", "--from-log", str(town.world.data / "log"), "--key",
        str(town.world.data / "log.pub"), "--size", str(shown["entries"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = shown.pop("names")
    assert json.loads(done.stdout) == shown
    assert {*names} == {one["department"] for one in shown["departments"]} - {""}
    assert {*names.values()} <= {"民政局统计", "公安局统计", "医保局统计", "城管局统计"}
    told = {
        kpi: sum(figure(shown, one["department"], kpi)["entries"] for one in shown["departments"])
        for kpi in ("releases_drawn", "releases_provided", "refusals_with_clause", "replied_on_time", "out_of_scope")
    }
    assert told["releases_drawn"] == told["releases_provided"] >= 1
    assert told["refusals_with_clause"] == town.done["refused"] >= 1
    assert told["replied_on_time"] == town.done["approved"] + town.done["refused"]
    assert told["out_of_scope"] >= 1


def test_each_figure_names_the_entries_behind_it(town: Town) -> None:
    shown = town.settled()
    told = {one["department"] for one in shown["departments"]}
    for department in (one for one in town.consumers if one.id in told):
        denials = figure(shown, department.id, "denials")
        query = {"month": MONTH, "department": department.id, "limit": 1}
        page = town.world.root.list("/reports/kpi/denials/entries", query)
        assert sum(one["amount"] for one in page) == denials["value"] == sum(denials["by"].values())
        assert [one["entry"] for one in page][:20] == denials["first"]
        for one in page[:3]:
            entry = town.world.root.get(f"/audit/entries/{one['entry']}")["entry"]
            assert (entry["decision"], entry["reason"]) == ("deny", one["detail"])
    standing = town.world.root.get("/reports/kpi/grants_in_force/entries", {"department": town.consumers[0].id})
    assert standing == []  # none has been in force for thirty days


def test_a_department_reads_its_own_figures_and_events_alone(town: Town) -> None:
    town.settled()
    one, other = town.consumers
    head = one.account("sharing_office_head")
    assert [each["department"] for each in head.get("/reports/kpi")["departments"]] == [one.id]
    assert {each["department"] for each in head.get("/supervision/events")} <= {one.id}
    for path in ("/reports/kpi", "/reports/kpi/denials/entries", "/supervision/events"):
        with pytest.raises(RefusedError) as caught:
            head.get(path, {"department": other.id})
        assert caught.value.reason is Reason.OTHER_DEPARTMENT
        with pytest.raises(RefusedError) as caught:
            one.account("catalogue_editor").get(path, {"department": one.id})
        assert caught.value.reason is Reason.ROLE_MISSING
    with pytest.raises(InvalidError):
        town.world.root.get("/reports/kpi/of-nothing/entries", {"department": one.id})


def test_events_are_read_from_a_sequence_on_and_tell_nothing_of_persons(town: Town) -> None:
    town.settled()
    root = town.world.root
    events = root.list("/supervision/events", {"limit": 3})
    kinds = {one["kind"] for one in events}
    assert {"clock", "refusal", "out_of_scope"} <= kinds
    sequences = [one["sequence"] for one in events]
    assert sequences == sorted(set(sequences))
    assert root.list("/supervision/events", {"since": sequences[2]})[: len(events) - 2] == events[2:]
    refusal = next(one for one in events if one["kind"] == "refusal")
    assert (refusal["clause"], refusal["detail"]) == (REFUSAL["clause"], REFUSAL["ground"])
    clock = next(one for one in events if one["kind"] == "clock")
    assert clock["rule"] == "reply.conditional"
    assert datetime.fromisoformat(clock["due"]).tzinfo is not None
    entry = root.get(f"/audit/entries/{refusal['entry']}")["entry"]
    assert entry["actor"]["id"] not in json.dumps(events)
    assert "STANDING-1" not in json.dumps(events)


def test_the_scoreboard_links_every_figure_to_ids_of_entries(town: Town, tmp_path: Path) -> None:
    town.settled()
    page = tmp_path / "board.html"
    done = town.pool("report", "kpi", "--month", MONTH, "--format", "html", "--output", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    linked = {part.partition('"')[0] for part in text.split('href="#')[1:]}
    assert linked <= {part.partition('"')[0] for part in text.split(' id="')[1:]}
    assert len(linked) > 10
    assert "<script" not in text
    rows = town.pool("report", "kpi", "--format", "csv").stdout.splitlines()
    assert rows[0].startswith("\ufeffmonth,department")
    assert "医保局统计" in town.pool("report", "kpi", account=town.consumers[0].account("sharing_office_head")).stdout
    listed = town.pool("report", "entries", "denials", "--department", town.consumers[0].id)
    assert listed.returncode == 0, listed.stderr
    assert "share_rate" in town.pool("report", "kpis").stdout
    assert "refusal" in town.pool("report", "events", "--kind", "refusal").stdout


def test_the_lineage_of_a_field_leads_from_its_source_to_its_consumers(town: Town) -> None:
    town.settled()
    root = town.world.root
    document = root.get(f"/reports/lineage/{TOPICS[0]}")
    assert (document["provider"], document["provider_name"]) == (town.providers[0].id, "民政局统计")
    assert document["schemas"][0]["version"] == 1
    by_name = {one["name"]: one for one in document["lineage"]}
    assert by_name["id_number"]["level"] == "G4"
    assert by_name["id_number"]["grants"] == []
    of_topic = [grant for _, grant in town.ever if root.get(f"/grants/{grant}")["topic"] == TOPICS[0]]
    assert [one["grant"] for one in by_name["sex_code"]["grants"]] == sorted(of_topic)
    shown = root.get("/reports/kpi", {"department": town.providers[0].id, "month": MONTH})
    released = figure(shown, town.providers[0].id, "records_provided")["value"]
    assert sum(one["records"] for one in document["grants"]) == released
    one = root.get(f"/reports/lineage/{TOPICS[0]}", {"field": "birth_date"})
    assert [each["name"] for each in one["lineage"]] == ["birth_date"]
    assert all("birth_date" in each["fields"] for each in one["grants"])
    with pytest.raises(InvalidError) as caught:
        root.get(f"/reports/lineage/{TOPICS[0]}", {"field": "no_such_field"})
    assert caught.value.reason is Reason.FIELD_UNKNOWN
    other = town.providers[1].account("sharing_office_head")
    with pytest.raises(RefusedError) as refused:
        other.get(f"/reports/lineage/{TOPICS[0]}")
    assert refused.value.reason is Reason.OTHER_DEPARTMENT


def test_a_batch_is_followed_to_who_drew_how_many_of_its_records(town: Town) -> None:
    provider, topic = town.providers[0], TOPICS[0]
    source, lane, _ = town.lanes[0]
    consumer = town.consumers[0]
    grant = consumer.request(topic, ["sex_code"])
    provider.approve(grant)
    with town.world.client(source) as pool:
        schema_id, text = pool.schema(Topic.parse(topic))
        list(pool.publish(Topic.parse(topic), [lane.batch(framed(schema_id, text, list(persons(5))))]))
    root = town.world.root
    newest = root.list(f"/reports/lineage/{topic}/batches")[0]
    assert (newest["records"], newest["drawn"], newest["lane"]) == (5, [], str(lane.lane))
    with town.world.client(town.sinks[consumer.id]) as pool:
        pool.fetch(grant, position=b"", max_records=200, purpose="eligibility", case="STANDING-1")
    newest = root.list(f"/reports/lineage/{topic}/batches", {"limit": 1})[0]
    [drawn] = newest["drawn"]
    assert (drawn["grant"], drawn["consumer"], drawn["records"]) == (grant, consumer.id, 5)
    assert root.get(f"/audit/entries/{drawn['first_entry']}")["entry"]["action"] == "exchange:records:fetch"
    joined = root.list(f"/reports/lineage/{topic}/batches", {"limit": 1})
    assert [one["entry"] for one in joined] == [one["entry"] for one in root.list(f"/reports/lineage/{topic}/batches")]
    shown = town.pool("report", "lineage", f"{topic}.sex_code").stdout
    assert "医保局统计" in shown
    assert newest["entry"] in shown
    html = town.pool("report", "lineage", topic, "--format", "html").stdout
    assert newest["entry"] in html
    assert "<script" not in html
    assert "batch drawn" in town.pool("report", "lineage", topic, "--format", "csv").stdout


def test_the_coverage_names_the_departments_and_themes_without_a_resource(town: Town) -> None:
    idle = town.world.department("档案局统计", division="330200")
    document = town.world.root.get("/reports/coverage")
    assert document["resources"] == 2
    counted = {one["department"]: one["resources"] for one in document["departments"]}
    assert (counted[town.providers[0].id], counted[idle.id]) == (1, 0)
    assert idle.id in document["empty"]["departments"]
    assert town.providers[0].id not in document["empty"]["departments"]
    assert document["empty"]["divisions"] == ["330200"]
    themes = [one["theme"] for one in document["themes"] if one["theme"]]
    used = {theme for one in document["departments"] for theme in one["themes"]} - {""}
    assert {*document["empty"]["themes"]} == {*themes} - used
    assert [idle.id, themes[0]] in document["empty"]["department_themes"]
    own = town.providers[0].account("sharing_office_head").get("/reports/coverage")
    assert [one["department"] for one in own["departments"]] == [town.providers[0].id]
    text = town.pool("report", "coverage").stdout
    assert "档案局统计" in text
    assert "empty in division" in town.pool("report", "coverage", "--format", "csv").stdout
    assert 'class="empty"' in town.pool("report", "coverage", "--format", "html").stdout

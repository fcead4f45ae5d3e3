"""Violation cases as people use them: found in the log, decided on by the authority, and the grant follows."""

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.admin_client import AdminClient
from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.patience import wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(300)]

TOPIC = Topic.parse("residents.v1")


class City:
    def __init__(self, world: World) -> None:
        self.world = world
        self.police, self.labour, self.other = map(world.department, ("公安局", "人社局", "城管局"))
        self.police.offer(str(TOPIC), library.text("population"))
        source, self.sink = self.police.enrol("source"), self.labour.enrol("sink")
        self.stranger = self.other.enrol("sink")
        lane = Publisher(source.pool_id, source.department, source.connector, str(TOPIC), source.signing_key)
        with world.client(source) as pool:
            schema_id, text = pool.schema(TOPIC)
            assert len(list(pool.publish(TOPIC, [lane.batch(framed(schema_id, text, list(persons(3))))]))) == 1
        self.second = world.account("ma-da", "data_authority")
        self.head, self.provider = (one.account("sharing_office_head") for one in (self.labour, self.police))

    def grant(self) -> str:
        grant = self.labour.request(str(TOPIC), ["sex_code"])
        self.police.approve(grant)
        return grant

    def draw(self, grant: str, *, purpose: str = "eligibility", case: str = "STANDING-1", by: Any = None) -> int:
        with self.world.client(by or self.sink) as pool:
            return len(pool.fetch(grant, position=b"", max_records=200, purpose=purpose, case=case).values)

    def cases(self, who: AdminClient | None = None, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (who or self.world.root).list("/violations", query)
        return found

    def one(self, **query: Any) -> dict[str, Any]:
        """Wait until the sweeper has found the case."""
        wait_for(lambda: self.cases(**query), "the case")
        [found] = self.cases(**query)
        return found

    def decide(self, case: str, event: str, who: AdminClient | None = None, **body: Any) -> dict[str, Any]:
        path = f"/violations/{case}/{event}"
        answer: dict[str, Any] = (who or self.world.root).post(path, {"reason": f"to {event}", **body})
        return answer

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        found = self.world.root.get("/audit/entries", {"limit": 1000, **query})
        return [one["entry"] for one in found]

    def reported(self, code: str = "C3", **body: Any) -> str:
        """Report and confirm a case, by two persons."""
        case: str = self.second.post("/violations", {"code": code, "reason": "信访举报", **body})["id"]
        self.decide(case, "confirm")
        return case

    def pool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the data authority."""
        token = self.world.folder / "root.token"
        token.write_text(self.world.root._headers["authorization"].removeprefix("Bearer "))
        return self.world.programs.run(
            "pool", "violation", "--data", str(self.world.data), "--token-file", str(token), *words, check=False
        )


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        yield City(world)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def test_reads_that_do_not_fit_their_grant_are_one_case_a_day_each_and_the_log_counts_them(city: City) -> None:
    grant = city.grant()
    assert city.draw(grant) == 3
    for _ in range(3):
        assert refused(lambda: city.draw(grant, purpose="statistics")) is Reason.PURPOSE_MISMATCH
        assert refused(lambda: city.draw(grant, case="ANOTHER")) is Reason.CASE_MISMATCH
        assert refused(lambda: city.draw(grant, by=city.stranger)) is Reason.GRANT_OTHER_CONSUMER
    wait_for(lambda: len(city.cases()) == 3, "the three cases")
    found = {one["sign"]: one for one in city.cases()}
    assert set(found) == {"purpose", "case", "scope"}
    for sign, office, reason in (
        ("purpose", city.labour, "purpose_mismatch"),
        ("case", city.labour, "case_mismatch"),
        ("scope", city.other, "grant_other_consumer"),
    ):
        case = found[sign]
        assert (case["state"], case["code"], case["respondent"]) == ("detected", "C2", office.id)
        assert case["subject"] == grant
        assert case["grant"] == ("" if sign == "scope" else grant), "the grant of another department is not its own"
        [first] = city.entries(entry=case["entry"])
        assert (first["reason"], first["actor"]["department"]) == (reason, office.id)
        assert city.world.root.get(f"/violations/{case['id']}")["calls"] >= 1
        [made] = [one for one in city.entries(action="exchange:violation:detect") if one["data"]["case"] == case["id"]]
        assert made["actor"]["id"] == "timer"
        assert made["data"]["evidence"] == case["entry"]
    assert city.draw(grant) == 3, "what was only detected stops nothing"


def test_an_order_suspends_the_grant_at_once_and_its_acceptance_resumes_it(city: City) -> None:
    grant, other = city.grant(), city.labour.enrol("other")  # of one connector, they would be folded for a minute
    assert refused(lambda: city.draw(grant, purpose="statistics", by=other)) is Reason.PURPOSE_MISMATCH
    case = city.one(grant=grant)["id"]
    assert city.decide(case, "confirm")["state"] == "confirmed"
    ordered = city.decide(case, "order", reason="程序须声明所授予的用途")
    assert (ordered["state"], ordered["due_state"]) == ("rectifying", "normal")
    assert refused(lambda: city.draw(grant)) is Reason.GRANT_SUSPENDED, "within one request"
    assert (
        refused(lambda: city.provider.post(f"/grants/{grant}/rectified", {"reason": "ours"}))
        is Reason.RECTIFICATION_ORDERED
    )
    assert (
        refused(lambda: city.world.root.post(f"/grants/{grant}/rectified", {"reason": "no"}))
        is Reason.RECTIFICATION_ORDERED
    )
    answers = {one["event"]: one for one in city.provider.get(f"/grants/{grant}/may")["events"]}
    assert answers["rectified"]["reason"] == "rectification_ordered"
    for who in (city.provider, city.world.root):
        waiting = {one["id"]: one["acts"] for one in who.list("/tasks") if one["kind"] == "request"}
        assert waiting[grant] == ["terminate"], "to resume it is no task while the order holds it"
    assert refused(lambda: city.decide(case, "accept")) is Reason.TRANSITION_NOT_ALLOWED, "nothing was stated yet"
    stated = city.decide(case, "reply", city.head, reason="已修正程序的用途声明")
    assert stated["statement"]["ordered"]
    closed = city.decide(case, "accept", city.second)
    assert (closed["state"], closed["outcome"]) == ("closed", "rectified")
    assert city.draw(grant) == 3
    # One transaction each: the decision and what it does to the grant follow each other in the log.
    [order] = [one for one in city.entries(action="exchange:violation:order") if one["data"]["case"] == case]
    [suspended] = city.entries(action="exchange:grant:suspend", grant=grant)
    [resumed] = city.entries(action="exchange:grant:resume", grant=grant, decision="allow")[:1]
    assert (order["gateway"], order["counter"] + 1) == (suspended["gateway"], suspended["counter"])
    assert order["data"]["rule"] == "rectification"
    assert order["data"]["due"] == ordered["due"]
    for entry in (suspended, resumed):
        assert entry["data"]["reason"] == f"violation case {case}: C2, decree 809 Art. 40(2)"


def test_a_case_that_is_not_rectified_ends_the_grant(city: City) -> None:
    grant = city.grant()
    case = city.reported(grant=grant)
    city.decide(case, "order")
    assert refused(lambda: city.decide(case, "escalate")) is Reason.REQUEST_INVALID, "to what?"
    escalated = city.decide(case, "escalate", referral="discipline")
    assert (escalated["state"], escalated["referral"]) == ("escalated", "discipline")
    assert city.provider.get(f"/grants/{grant}")["state"] == "terminated"
    assert refused(lambda: city.draw(grant)) is Reason.GRANT_NOT_ACTIVE
    assert city.decide(case, "close", reason="已通报批评")["outcome"] == "referred"


def test_two_orders_on_one_grant_keep_it_until_the_last_is_settled(city: City) -> None:
    grant = city.grant()
    first, second = city.reported(grant=grant), city.reported("C6", grant=grant)
    for case in (first, second):
        city.decide(case, "order")
        city.decide(case, "reply", city.head)
    city.decide(first, "accept")
    assert refused(lambda: city.draw(grant)) is Reason.GRANT_SUSPENDED
    assert city.world.root.get(f"/violations/{second}")["order"]["suspended"]
    city.decide(second, "accept")
    assert city.draw(grant) == 3


def test_what_the_provider_had_suspended_itself_the_authority_does_not_resume(city: City) -> None:
    grant = city.grant()
    case = city.reported(grant=grant)
    city.provider.post(f"/grants/{grant}/suspend", {"reason": "under review"})
    city.decide(case, "order")
    city.decide(case, "reply", city.head)
    city.decide(case, "accept")
    assert city.provider.get(f"/grants/{grant}")["state"] == "suspended"
    city.provider.post(f"/grants/{grant}/rectified", {"reason": "reviewed"})
    assert city.draw(grant) == 3


def test_a_provider_s_violation_does_not_stop_its_consumer(city: City) -> None:
    grant = city.grant()
    case = city.head.post("/violations", {"code": "P2", "grant": grant, "reason": "擅自增设条件"})
    assert case["respondent"] == city.police.id
    city.decide(case["id"], "confirm")
    city.decide(case["id"], "order")
    assert city.draw(grant) == 3


def test_only_the_authority_decides_and_the_department_concerned_is_heard(city: City) -> None:
    grant = city.grant()
    case = city.second.post("/violations", {"code": "C3", "grant": grant, "reason": "信访举报"})["id"]
    assert refused(lambda: city.decide(case, "confirm", city.second)) is Reason.SAME_PERSON
    officer = city.labour.account("security_officer")
    operator, auditor = city.world.account("op-v", "operator"), city.world.account("watcher-v", "auditor")
    for who in (city.head, officer, city.provider, operator, auditor):
        for event in ("confirm", "dismiss", "order", "accept", "escalate", "close"):
            assert refused(partial(city.decide, case, event, who)) in {Reason.ROLE_MISSING, Reason.ROLE_FORBIDDEN}
    assert city.world.root.get(f"/violations/{case}")["version"] == 1, "nothing of it happened"
    assert city.decide(case, "reply", officer, reason="并无此事")["statement"]["text"] == "并无此事"
    assert refused(lambda: city.decide(case, "reply")) is Reason.OTHER_DEPARTMENT
    assert city.decide(case, "dismiss")["outcome"] == "dismissed"


def test_a_department_sees_what_concerns_it_and_what_it_reported_and_nothing_else(city: City) -> None:
    grant = city.grant()
    case = city.provider.post("/violations", {"code": "C3", "grant": grant, "reason": "转交第三方"})
    assert (case["respondent"], case["reporter"]) == (city.labour.id, city.police.id)
    stranger = city.other.account("sharing_office_head")
    for who in (city.head, city.provider, city.labour.account("security_officer"), city.world.account("w2", "auditor")):
        assert who.get(f"/violations/{case['id']}")["id"] == case["id"]
        assert case["id"] in [one["id"] for one in city.cases(who)]
    assert case["id"] not in [one["id"] for one in city.cases(stranger)]
    hidden = refused(lambda: stranger.get(f"/violations/{case['id']}"))
    assert hidden is refused(lambda: stranger.get("/violations/none")), "not even whether there is one"
    assert {one["respondent"] for one in city.cases(stranger)} <= {city.other.id}
    assert refused(lambda: city.decide(case["id"], "reply", city.provider)) is Reason.OTHER_DEPARTMENT
    assert refused(lambda: city.cases(city.labour.account("catalogue_editor"))) is Reason.ROLE_MISSING
    assert refused(lambda: city.cases(city.world.account("op2", "operator"))) is Reason.ROLE_MISSING
    assert refused(lambda: city.world.root.get("/violations/none")) is Reason.NOT_FOUND
    # What the case says stands in entries that the department concerned may read, and others may not.
    act = {"action": "exchange:violation:report", "limit": 1000}
    assert case["id"] in {one["entry"]["data"].get("case") for one in city.head.get("/audit/entries", act)}
    assert case["id"] not in {one["entry"]["data"].get("case") for one in stranger.get("/audit/entries", act)}


def test_of_a_department_that_has_merged_the_successor_is_heard_and_keeps_the_grant(city: City) -> None:
    old, new = map(city.world.department, ("旧市容局", "新综合执法局"))
    grant = old.request(str(TOPIC), ["sex_code"])
    city.police.approve(grant)
    case, closed = city.reported(grant=grant), city.reported("C6", grant=grant)
    city.decide(case, "order")
    head = new.account("sharing_office_head")
    assert refused(lambda: city.decide(case, "reply", head)) is Reason.OTHER_DEPARTMENT, "not merged yet"
    assert city.cases(head) == []
    city.world.root.post(f"/departments/{old.id}/merger", {"into": new.id, "reason": "机构改革"})
    assert {one["id"]: one["respondent"] for one in city.cases(head)} == {case: old.id, closed: old.id}
    assert head.get(f"/violations/{case}")["respondent"] == old.id, "who broke a rule stays who broke it"
    waiting = {one["id"]: one["acts"] for one in head.list("/tasks") if one["kind"] == "violation"}
    assert waiting == {case: ["reply"], closed: ["reply"]}
    assert refused(lambda: city.decide(case, "reply", city.other.account("sharing_office_head"))) is (
        Reason.OTHER_DEPARTMENT
    )
    assert city.decide(case, "reply", head, reason="已由新部门整改")["statement"]["text"] == "已由新部门整改"
    assert city.decide(case, "accept")["outcome"] == "rectified"
    found = city.provider.get(f"/grants/{grant}")
    assert (found["consumer"], found["state"]) == (new.id, "active")
    # A second merger: the last successor is heard.
    last = city.world.department("行政执法局")
    city.world.root.post(f"/departments/{new.id}/merger", {"into": last.id, "reason": "机构改革"})
    assert city.decide(closed, "reply", last.account("sharing_office_head"))["statement"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"code": "C3", "grant": ""}, Reason.OTHER_DEPARTMENT),
        ({"code": "P2"}, Reason.REQUEST_INVALID),  # its own violation
        ({"code": "C3", "respondent": "other"}, Reason.REQUEST_INVALID),  # of who is no party
        ({"code": "C3", "day": "2099-01-01"}, Reason.REQUEST_INVALID),
        ({"code": "C3", "reason": " "}, Reason.REQUEST_INVALID),
        ({"code": "C3", "grant": "none"}, Reason.OTHER_DEPARTMENT),  # not even whether there is one
    ],
)
def test_a_department_reports_the_other_party_of_its_own_grant(
    city: City, body: dict[str, Any], reason: Reason
) -> None:
    body = {"reason": "so", "grant": city.grant(), **body}
    if body["grant"] == "":
        del body["grant"]
    if "respondent" in body:
        body["respondent"] = city.other.id
    assert refused(lambda: city.provider.post("/violations", body)) is reason


def test_a_stranger_reports_nothing_and_nobody_reports_twice(city: City) -> None:
    grant = city.grant()
    body = {"code": "C3", "grant": grant, "reason": "so"}
    stranger = city.other.account("sharing_office_head")
    assert refused(lambda: stranger.post("/violations", body)) is Reason.OTHER_DEPARTMENT
    first = city.provider.post("/violations", body)["id"]
    with pytest.raises(PoolError) as caught:
        city.provider.post("/violations", body)
    assert (caught.value.reason, caught.value.details["case"]) == (Reason.ALREADY_EXISTS, first)
    unknown = {"code": "C3", "respondent": "nobody", "reason": "so"}
    assert refused(lambda: city.world.root.post("/violations", unknown)) is Reason.DEPARTMENT_UNKNOWN
    assert refused(lambda: city.world.root.post("/violations", {**body, "grant": "none"})) is Reason.GRANT_UNKNOWN
    against = city.provider.post("/violations", {"code": "A2", "grant": grant, "reason": "争议未协调"})
    assert against["respondent"] == ""


def test_a_row_that_its_database_s_owner_changes_frees_no_grant_and_an_old_one_is_found(city: City) -> None:
    grant = city.grant()
    case = city.reported(grant=grant)
    engine = sa.create_engine((city.world.data / "database-url").read_text().strip())
    select = sa.text("SELECT * FROM violation_case WHERE id = :id")
    with engine.connect() as connection:
        old = dict(connection.execute(select, {"id": case}).mappings().one())
    city.decide(case, "order")
    assert refused(lambda: city.draw(grant)) is Reason.GRANT_SUSPENDED
    with engine.begin() as connection:
        current = dict(connection.execute(select, {"id": case}).mappings().one())
        connection.execute(sa.text("UPDATE violation_case SET state = 'closed' WHERE id = :id"), {"id": case})
    for attempt in (
        lambda: city.provider.post(f"/grants/{grant}/rectified", {"reason": "it says closed"}),
        lambda: city.decide(case, "reply", city.head),
        lambda: city.world.root.get(f"/violations/{case}"),
    ):
        assert refused(attempt) is Reason.ROW_FORGED
    named = [one for one in city.cases(limit=1000) if one.get("status") == "damaged"]
    assert [one["id"] for one in named] == [case]
    assert refused(lambda: city.draw(grant)) is Reason.GRANT_SUSPENDED
    # The row of before the order was right once: its tag holds, and the log says that a later act replaced it.
    restore = "UPDATE violation_case SET " + ", ".join(f"{name} = :{name}" for name in old) + " WHERE id = :id"
    with engine.begin() as connection:
        connection.execute(sa.text(restore), old)
    data = city.world.data
    verified = city.world.programs.run(
        "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
        "--database", str(data / "database-url"), "--secrets", str(data / "secrets"), check=False,
    )  # fmt: skip
    assert any("row.old" in line and case in line for line in verified.stdout.splitlines()), verified.stdout
    assert refused(lambda: city.draw(grant)) is Reason.GRANT_SUSPENDED, "the grant's own seal says so"
    with engine.begin() as connection:
        connection.execute(sa.text(restore), current)
    engine.dispose()


def test_the_commands(city: City) -> None:
    grant = city.grant()
    listed = city.pool("codes")
    assert listed.returncode == 0, listed.stderr
    assert "擅自超出使用范围" in listed.stdout
    done = city.pool("report", "C3", "--grant", grant, "--reason", "转交第三方", "--json")
    assert done.returncode == 0, done.stderr
    case = json.loads(done.stdout)["id"]
    assert city.pool("confirm", case, "--reason", "x").returncode != 0, "its reporter does not confirm it"
    city.decide(case, "confirm", city.second)
    ordered = city.pool("order", case, "--reason", "停止转交")
    assert ordered.returncode == 0, ordered.stderr
    shown = city.pool("show", case).stdout
    for word in ("rectifying", "C3", "人社局", "停止转交", "第四十条第三项", "until"):
        assert word in shown
    rows = city.pool("list", "--state", "rectifying", "--code", "C3", "--grant", grant).stdout
    assert case in rows
    assert "人社局" in rows
    assert city.pool("escalate", case, "--reason", "拒不改正", "--referral", "notice").returncode == 0
    closed = city.pool("close", case, "--reason", "已通报", "--json")
    assert json.loads(closed.stdout)["outcome"] == "referred"
    refusal = city.pool("accept", case, "--reason", "x")
    assert refusal.returncode != 0
    assert "transition_not_allowed" in refusal.stderr

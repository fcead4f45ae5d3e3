"""Duty lists as people use them: the authority writes them, and requests stay within them."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPIC = "listed-residents.v1"
DUTY = {"name": "养老待遇资格核验", "legal_basis": "社会保险法 第七十四条", "purposes": ["eligibility", "verification"]}


class Town:
    def __init__(self, world: World) -> None:
        self.world = world
        self.provider, self.consumer = world.department("公安局"), world.department("人社局")
        self.provider.offer(TOPIC, library.text("population"))
        self.before = self.consumer.request(TOPIC, ["sex_code"])
        self.provider.approve(self.before)
        world.root.post("/duties", {"department": self.consumer.id, "code": "HR-07", **DUTY})
        world.root.post("/duties", {"department": self.consumer.id, "code": "HR-08", **DUTY})
        self.retire("HR-08")

    def retire(self, code: str) -> dict[str, Any]:
        path = f"/duties/{self.consumer.id}/{code}/retirement"
        answer: dict[str, Any] = self.world.root.post(path, {"reason": "机构改革"})
        return answer

    def pool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the data authority."""
        token = self.world.folder / "root.token"
        token.write_text(self.world.root._headers["authorization"].removeprefix("Bearer "))
        noun, *rest = words
        return self.world.programs.run(
            "pool", noun, "--data", str(self.world.data), "--token-file", str(token), *rest, check=False
        )


@pytest.fixture(scope="module")
def town(postgres_world: World) -> Town:
    return Town(postgres_world)


def body(**terms: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "topic": TOPIC, "fields": ["birth_date", "death_flag"], "purpose": "eligibility", "case": "STANDING-1",
        "legal_basis": "社会保险法 第七十四条", "not_before": now.isoformat(),
        "expires": (now + timedelta(days=30)).isoformat(), "duty": "HR-07", **terms,
    }  # fmt: skip


def refused(office: Office, **terms: Any) -> PoolError:
    with pytest.raises(PoolError) as caught:
        office.request(TOPIC, ["sex_code"], **terms)
    return caught.value


@pytest.mark.parametrize(
    "terms",
    [{}, {"duty": "HR-99"}, {"duty": "HR-07", "purpose": "statistics"}, {"duty": "HR-08"}],
    ids=["no duty", "not on the list", "another purpose", "retired"],
)
def test_a_request_outside_the_duty_list_is_refused_and_in_the_log(town: Town, terms: dict[str, Any]) -> None:
    assert refused(town.consumer, **terms).reason is Reason.OUTSIDE_DUTY
    head = town.consumer.account("sharing_office_head")
    [entry] = head.get("/audit/entries", {"action": "exchange:grant:submit", "reason": "outside_duty", "limit": 1})
    assert entry["entry"]["decision"] == "deny"
    assert entry["entry"]["actor"]["department"] == town.consumer.id


def test_a_request_within_the_list_is_filed_and_its_approver_reads_the_duty(town: Town) -> None:
    grant = town.consumer.request(TOPIC, ["birth_date"], duty="HR-07")
    seen = town.provider.account("sharing_office_head").get(f"/grants/{grant}")
    assert seen["duty"] == "HR-07"
    assert "duty HR-07 养老待遇资格核验 (社会保险法 第七十四条)" in seen["review"]["words"]
    assert "养老待遇资格核验" in town.pool("grant", "show", grant).stdout
    entries = town.world.root.get("/audit/entries", {"action": "exchange:grant:submit", "grant": grant, "limit": 1})
    assert entries[0]["entry"]["data"]["duty"] == "HR-07"
    town.provider.approve(grant)


def test_a_grant_of_before_the_list_stays_and_its_reader_is_told(town: Town) -> None:
    seen = town.provider.account("sharing_office_head").get(f"/grants/{town.before}")
    assert seen["state"] == "active"
    assert "duty" not in seen
    assert any("before the department had a duty list" in word for word in seen["review"]["words"])


def test_a_department_without_a_list_asks_as_before_and_names_no_duty(town: Town) -> None:
    other = town.world.department("城管局")
    other.request(TOPIC, ["sex_code"])
    assert refused(other, duty="HR-07").reason is Reason.OUTSIDE_DUTY


@pytest.mark.parametrize("role", ["sharing_office_head", "security_officer", "catalogue_editor"])
def test_a_department_reads_lists_and_does_not_write_its_own(town: Town, role: str) -> None:
    reader = town.consumer.account(role)
    assert [one["code"] for one in reader.list("/duties", {"department": town.consumer.id})] == ["HR-07", "HR-08"]
    with pytest.raises(PoolError) as caught:
        reader.post("/duties", {"department": town.consumer.id, "code": "HR-09", **DUTY})
    assert caught.value.reason is Reason.ROLE_MISSING


@pytest.mark.parametrize("role", ["operator", "auditor"])
def test_the_pool_s_own_roles_do_not_write_them_either(town: Town, role: str) -> None:
    writer = town.world.account(f"writer-{role}", role)
    with pytest.raises(PoolError) as caught:
        writer.post(f"/duties/{town.consumer.id}/HR-07/retirement", {"reason": "x"})
    assert caught.value.reason is Reason.ROLE_FORBIDDEN


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"department": "nobody"}, Reason.DEPARTMENT_UNKNOWN),
        ({"code": "a:b"}, Reason.REQUEST_INVALID),
        ({"purposes": ["gossip"]}, Reason.REQUEST_INVALID),
        ({"purposes": []}, Reason.REQUEST_INVALID),
        ({"legal_basis": " "}, Reason.REQUEST_INVALID),
    ],
)
def test_an_item_with_a_fault_is_refused(town: Town, body: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(PoolError) as caught:
        town.world.root.post("/duties", {"department": town.consumer.id, "code": "HR-10", **DUTY, **body})
    assert caught.value.reason is reason


def test_the_commands(town: Town) -> None:
    office = town.world.department("医保局")
    said = ("--name", "待遇支付", "--basis", "社会保险法 第二十八条", "--purpose", "benefit-payment")
    written = town.pool("duty", "set", office.id, "YB-1", *said, "--purpose", "eligibility")
    assert written.returncode == 0, written.stderr
    listed = town.pool("duty", "list", "--department", office.id).stdout
    assert "YB-1" in listed
    assert "医保局" in listed
    shown = town.pool("duty", "show", office.id, "YB-1").stdout
    assert "benefit-payment,eligibility" in shown
    assert town.pool("duty", "retire", office.id, "YB-1").returncode != 0, "no reason"
    assert "retired" in town.pool("duty", "retire", office.id, "YB-1", "--reason", "并入").stdout
    assert "transition_not_allowed" in town.pool("duty", "retire", office.id, "YB-1", "--reason", "并入").stderr
    assert "not_found" in town.pool("duty", "show", office.id, "YB-9").stderr
    assert town.pool("duty", "set", office.id, "YB-1", *said).returncode == 0, "a retired item is written anew"
    assert '"status": "active"' in town.pool("duty", "list", "--json", "--department", office.id).stdout


# --- check: a request before it is filed


def test_a_check_answers_what_a_submission_would_and_files_nothing(town: Town) -> None:
    head = town.consumer.account("sharing_office_head")
    before = {one["id"] for one in head.list("/grants")}
    asked = body()
    checked = head.post("/requests/check", asked)
    assert checked["id"] == ""
    assert {one["id"] for one in head.list("/grants")} == before
    filed = head.post("/requests", asked)
    same = filed.keys() - {"id"}
    assert {name: checked[name] for name in same} == {name: filed[name] for name in same}
    shown = town.provider.account("sharing_office_head").get(f"/grants/{filed['id']}")
    assert checked["review"]["words"] == shown["review"]["words"]
    [entry] = head.get("/audit/entries", {"action": "exchange:request:check", "limit": 1})
    assert entry["entry"]["decision"] == "allow"


def test_a_check_tells_all_that_is_wrong_at_once(town: Town) -> None:
    head = town.consumer.account("sharing_office_head")
    with pytest.raises(PoolError) as caught:
        head.post("/requests/check", body(legal_basis=" ", case="", quota_per_day=0))
    assert caught.value.reason is Reason.REQUEST_INVALID
    for expected in ("a legal basis", "a standing case number", "a daily quota"):
        assert expected in str(caught.value)
    with pytest.raises(PoolError) as caught:
        head.post("/requests/check", body(duty="HR-99"))
    assert caught.value.reason is Reason.OUTSIDE_DUTY


@pytest.mark.parametrize("role", ["catalogue_editor", "security_officer"])
def test_who_may_not_file_a_request_does_not_check_one(town: Town, role: str) -> None:
    with pytest.raises(PoolError) as caught:
        town.consumer.account(role).post("/requests/check", body())
    assert caught.value.reason is Reason.ROLE_MISSING


def test_the_command_prints_what_the_approver_would_read(town: Town) -> None:
    file = town.world.folder / "request.json"
    file.write_text(json.dumps(body()))
    token = town.world.folder / "head.token"
    token.write_text(town.consumer.account("sharing_office_head")._headers["authorization"].removeprefix("Bearer "))
    access = ("--data", str(town.world.data), "--token-file", str(token))
    shown = town.world.programs.run("pool", "request", *access, "check", str(file)).stdout
    assert shown.startswith("This request could be filed, and has not been; filed now, it has to be decided by ")
    assert "not filed" in shown
    assert "duty HR-07 养老待遇资格核验" in shown

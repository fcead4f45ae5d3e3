"""Requests as people decide on them, over HTTP and with the commands: each event at least once."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exchange.admin_client import AdminClient
from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPIC, FREE, CLOSED = "asked-residents.v1", "asked-weather.v1", "asked-archives.v1"
REFUSAL = {"reason": "与履职无关", "clause": "条例 第二十一条", "ground": "out_of_duty"}
CERTIFICATE = {"number": "XH-2026-7", "date": "2026-09-01", "method": "覆写", "person": "保密办"}


class Town:
    def __init__(self, world: World) -> None:
        self.world = world
        self.provider, self.consumer = world.department("公安局"), world.department("人社局")
        self.provider.offer(TOPIC, library.text("population"))
        self.provider.offer(
            FREE, library.text("population"), share_type="unconditional", share_scope="", use_purpose=""
        )
        self.provider.offer(
            CLOSED, library.text("population"), share_type="none", share_scope="", use_purpose="",
            refuse_reason="涉及国家秘密", legal_basis="《保守国家秘密法》第二条",
        )  # fmt: skip
        self.head = self.provider.account("sharing_office_head")
        self.officer = self.provider.account("security_officer")
        self.asker = self.consumer.account("sharing_office_head")
        self.root = world.root

    def ask(self, *, sensitive: bool = False) -> str:
        return self.consumer.request(TOPIC, ["id_number" if sensitive else "sex_code"])

    def post(self, by: AdminClient, request: str, event: str, **body: Any) -> str:
        answer: dict[str, Any] = by.post(f"/requests/{request}/{event}", body)
        return str(answer["state"])

    def seen(self, request: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.asker.get(f"/requests/{request}")
        return answer

    def pool(self, by: AdminClient, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command with somebody's token."""
        token = self.world.folder / "command.token"
        token.write_text(by._headers["authorization"].removeprefix("Bearer "))
        noun, *rest = words
        access = ("--data", str(self.world.data), "--token-file", str(token))
        return self.world.programs.run("pool", noun, *access, *rest, check=False)

    def said(self, by: AdminClient, *words: str) -> str:
        done = self.pool(by, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def town(postgres_world: World) -> Town:
    return Town(postgres_world)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def denied(town: Town, reason: Reason) -> dict[str, Any]:
    """Return the newest entry with a reason; of an act that was allowed and failed, too."""
    found = town.root.get("/audit/entries", {"reason": str(reason), "limit": 1})
    entry: dict[str, Any] = found[0]["entry"]
    return entry


def test_a_request_goes_by_supplement_extension_refusal_and_dispute_to_a_grant(town: Town) -> None:
    request = town.ask(sensitive=True)
    assert town.post(town.root, request, "extend", days=5, reason="须会商") == "submitted"
    assert town.post(town.head, request, "need_more", missing=["依据的条款", "使用单位"]) == "supplement"
    assert town.seen(request)["clock"] == "supplement"
    supplement = {"legal_basis": "社会保险法 第七十四条第一款", "scenario": "养老待遇资格核验"}
    assert town.asker.post(f"/requests/{request}/resubmission", supplement)["state"] == "submitted"
    assert refused(lambda: town.post(town.head, request, "need_more", missing=["还缺"])) is Reason.SUPPLEMENT_REPEATED
    assert refused(lambda: town.post(town.head, request, "reject", reason="不行")) is Reason.CLAUSE_MISSING
    assert town.post(town.head, request, "reject", **REFUSAL) == "rejected"
    refusal = town.seen(request)["refusal"]
    assert (refusal["clause"], refusal["ground_zh"]) == ("条例 第二十一条", "超出申请部门履职需要")
    assert town.post(town.asker, request, "dispute", reference="纪要-1") == "in_dispute"
    assert town.post(town.root, request, "uphold", reason="同意", clause="条例 第二十一条") == "rejected"
    assert town.post(town.asker, request, "dispute", reference="纪要-2") == "in_dispute"
    assert town.post(town.root, request, "overturn", reason="属于职责") == "countersigned"
    assert town.seen(request)["waits_for"] == ["security_officer"]
    assert town.officer.post(f"/grants/{request}/countersignature")["state"] == "approved"
    assert town.head.post(f"/grants/{request}/approval")["state"] == "active"
    history = town.seen(request)["history"]
    assert [step["event"] for step in history] == [
        "submit", "extend", "need_more", "resubmit", "reject", "dispute", "uphold", "dispute", "overturn",
        "countersign", "conclude", "provision",
    ]  # fmt: skip
    assert {step["article"] for step in history} == {"Art. 20", "Art. 21", "Art. 28", "", "Art. 20, 21", "Art. 22"}
    for reason in (Reason.SUPPLEMENT_REPEATED, Reason.CLAUSE_MISSING):
        leaves = town.root.get("/audit/entries", {"grant": request, "limit": 100})
        assert leaves, reason


def test_each_refusal_is_in_the_log_with_its_reason(town: Town) -> None:
    request = town.ask()
    town.post(town.head, request, "need_more", missing=["依据"])
    town.asker.post(f"/requests/{request}/resubmission", {"legal_basis": "社会保险法 第七十四条"})
    refused(lambda: town.post(town.head, request, "need_more", missing=["又缺"]))
    refused(lambda: town.post(town.head, request, "reject", reason="不行", ground="out_of_duty"))
    failed = {
        one["entry"]["data"]["failed"]
        for one in town.root.get("/audit/entries", {"resource": TOPIC, "limit": 200})
        if "failed" in one["entry"].get("data", {})
    }
    assert {"supplement_repeated", "clause_missing"} <= failed


def test_what_is_not_shared_is_refused_with_its_legal_basis_and_in_the_log(town: Town) -> None:
    with pytest.raises(PoolError, match="《保守国家秘密法》第二条") as caught:
        town.consumer.request(CLOSED, ["sex_code"])
    assert caught.value.reason is Reason.NOT_SHARED
    entry = denied(town, Reason.NOT_SHARED)
    assert (entry["action"], entry["decision"]) == ("exchange:grant:submit", "deny")


def test_what_is_shared_without_conditions_takes_the_short_way(town: Town) -> None:
    request = town.consumer.request(FREE, ["sex_code"])
    seen, bound = town.seen(request), town.seen(town.ask())
    assert (seen["share_type"], seen["clock"]) == ("unconditional", "reply")
    assert seen["due_at"] < bound["due_at"]
    other = {**REFUSAL, "ground": "conditions_not_met"}
    assert refused(lambda: town.post(town.head, request, "reject", **other)) is Reason.REQUEST_INVALID
    assert town.head.post(f"/grants/{request}/approval")["state"] == "active"


def test_a_grant_ends_with_a_certificate_or_by_agreement(town: Town) -> None:
    active = [town.ask() for _ in range(2)]
    for request in active:
        town.provider.approve(request)
    first, second = active
    assert town.post(town.head, first, "change_service", reason="新系统", reference="备案-1") == "active"
    assert refused(lambda: town.post(town.asker, first, "complete", reason="已办结")) is Reason.REQUEST_INVALID
    assert town.post(town.asker, first, "complete", reason="已办结", certificate=CERTIFICATE) == "completed"
    entries = town.root.get("/audit/entries", {"grant": first, "action": "exchange:grant:complete", "limit": 9})
    assert CERTIFICATE in [one["entry"]["data"].get("certificate") for one in entries]
    assert town.post(town.head, second, "terminate_by_agreement", reason="停用", reference="备案-2") == "terminated"


def test_the_commands(town: Town) -> None:
    request = town.ask(sensitive=True)
    assert request in town.said(town.head, "request", "list", "--state", "submitted")
    town.said(town.root, "request", "extend", request, "--days", "3", "--reason", "须会商")
    town.said(town.head, "request", "supplement-list", request, "--missing", "依据的条款")
    file = town.world.folder / "supplement.yaml"
    file.write_text("scenario: 养老待遇资格核验\n")
    assert town.said(town.asker, "request", "resubmit", request, str(file)) == f"{request}: submitted\n"
    assert "countersigned" in town.said(town.head, "grant", "approve", request)
    shown = town.said(town.head, "request", "show", request)
    assert "waits for     the provider's security officer" in shown
    assert "养老待遇资格核验" in shown
    assert "need_more → supplement by" in shown
    withdrawn = town.said(town.head, "grant", "withdraw-signature", request, "--reason", "范围有误")
    assert withdrawn == f"{request}: submitted\n"
    assert town.said(town.officer, "grant", "countersign", request) == f"{request}: submitted\n"
    town.said(town.head, "grant", "approve", request)
    said = ("--filing", "备案-1", "--reason", "新系统")
    assert town.said(town.head, "grant", "change-service", request, *said) == f"{request}: active\n"
    words = ("--certificate", "XH-1", "--date", "2026-09-01", "--method", "覆写", "--person", "保密办")
    done = town.said(town.asker, "grant", "complete", request, *words, "--reason", "已办结")
    assert done == f"{request}: completed\n"
    refusal = ("--clause", "条例 第二十一条", "--reason", "与履职无关")
    second = town.ask()
    town.said(town.head, "grant", "reject", second, *refusal, "--ground", "out_of_duty")
    shown = town.said(town.asker, "request", "show", second)
    assert "超出申请部门履职需要" in shown
    for record, verdict in (("纪要-1", "uphold"), ("纪要-2", "overturn")):
        town.said(town.asker, "request", "dispute", second, "--record", record)
        clause = ("--clause", "条例 第二十一条") if verdict == "uphold" else ()
        town.said(town.root, "request", verdict, second, *clause, "--reason", "已核")
    town.said(town.root, "grant", "approve", second)
    assert town.said(town.head, "grant", "provision", second) == f"{second}: active\n"
    town.said(town.head, "grant", "end-by-agreement", second, "--filing", "备案-2", "--reason", "停用")
    third = town.ask()
    assert town.said(town.asker, "request", "withdraw", third) == f"{third}: withdrawn\n"
    assert '"state": "withdrawn"' in town.said(town.asker, "request", "show", third, "--json")


def test_other_departments_see_no_request_and_pages_join(town: Town) -> None:
    stranger: Office = town.world.department("城管局")
    other = stranger.account("sharing_office_head")
    request = town.ask()
    assert other.list("/requests") == []
    assert refused(lambda: other.get(f"/requests/{request}")) is Reason.OTHER_DEPARTMENT
    whole = [one["id"] for one in town.asker.list("/requests")]
    joined: list[str] = []
    while page := town.asker.get("/requests", {"limit": 2, "after": joined[-1] if joined else ""}):
        joined += [one["id"] for one in page]
    assert joined == whole
    assert request in whole
    assert town.asker.list("/requests", {"due": "overdue"}) == []
    assert datetime.now(UTC) - timedelta(days=1) < datetime.fromisoformat(town.seen(request)["received_at"])

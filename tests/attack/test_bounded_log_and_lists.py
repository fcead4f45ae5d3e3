"""Attacks on size: entries of refusals that vary, texts of any length, lists that answer with everything there is."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from exchange.authorization.entry_folding import OWN_RESOURCES
from exchange.authorization.entry_texts import MAX_RESOURCE
from schemas.errors import ConflictError, InvalidError, Reason
from tests.kit.share import count
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.timeout(300)]

CALLS = count(1_250, 200)
REFUSALS = 30  # a minute
CONFIGURED = f"[limits]\nrefusals_per_minute = {REFUSALS}\n\n[quotas]\nrequests = 5\ncatalogue_entries = 3\n"
SCHEMA = """{"type": "record", "name": "Permit", "zh": "许可", "doc": "Permits.", "key": ["permit_no"], "fields": [
    {"name": "permit_no", "type": "string", "zh": "许可证号", "level": "G2", "personal": "N", "sensitive": "N",
     "mask": "none"}]}"""


@pytest.fixture(scope="module")
def pool() -> Iterator[World]:
    with World.start(CONFIGURED) as world:
        yield world


@pytest.fixture(scope="module")
def police(pool: World) -> Office:
    return pool.department("公安局")


DECIDED: list[int] = []  # refusals that the first test got, and the second finds in the log


class Caller:
    """Calls the control API over one connection, without the client's patience."""

    def __init__(self, pool: World, account: Any) -> None:
        self._url = f"https://{pool.addresses['http']}/v1"
        self._http = httpx.Client(verify=account._tls, headers=account._headers, timeout=60)

    @classmethod
    @contextmanager
    def of(cls, pool: World, account: Any) -> Iterator["Caller"]:
        caller = cls(pool, account)
        try:
            yield caller
        finally:
            caller._http.close()

    def reason(self, method: str, path: str, body: Any = None) -> str:
        answer = self._http.request(method, self._url + path, json=body)
        return str(answer.json()["reason"]) if answer.is_error else ""


def written(pool: World) -> tuple[int, int]:
    """Return the number of entries in the database, and the bytes of their leaves."""
    engine = sa.create_engine((pool.data / "database-url").read_text().strip())
    try:
        with engine.connect() as connection:
            found = connection.execute(sa.text("SELECT count(*), coalesce(sum(length(leaf)), 0) FROM audit_entry"))
            entries, size = found.one()
    finally:
        engine.dispose()
    return int(entries), int(size)


def quota(act: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(ConflictError) as caught:
        act()
    assert caught.value.reason is Reason.DEPARTMENT_QUOTA
    return caught.value.details


def test_a_department_has_so_many_requests_and_entries_and_lists_are_pages(pool: World, police: Office) -> None:
    labour = pool.department("人社局")
    police.offer("permits.v1", SCHEMA, level="G2")
    asked = [labour.request("permits.v1", ["permit_no"]) for _ in range(5)]
    assert quota(lambda: labour.request("permits.v1", ["permit_no"])) == {"quota": "requests", "limit": "5"}
    head = labour.account("sharing_office_head")
    with pytest.raises(InvalidError, match="expected 2000 at most"):
        labour.request("permits.v1", ["permit_no"], legal_basis="法" * 100_000)
    with pytest.raises(InvalidError, match="expected 65536 at most"):
        labour.request("permits.v1", ["permit_no" * 100] * 1_000)

    assert [one["id"] for one in head.get("/grants")] == asked
    with httpx.Client(verify=head._tls, headers=head._headers, timeout=60) as http:
        url = f"https://{pool.addresses['http']}"
        found, path = [], "/v1/grants?limit=2&state=submitted"
        while path:
            answer = http.get(url + path)
            assert 1 <= len(answer.json()) <= 2
            found += [one["id"] for one in answer.json()]
            path = answer.links.get("next", {}).get("url", "")
        assert found == asked
        assert http.get(f"{url}/v1/grants?limit=1001").status_code == 422
        assert http.get(f"{url}/v1/departments?limit=0").status_code == 422
        assert http.get(f"{url}/v1/catalogue?after=nothing").json()["reason"] == "name_invalid"

    editor = labour.account("catalogue_editor")
    entry = {"title": "t", "share_type": "unconditional", "level": "G2"}
    for number in range(3):
        editor.post("/catalogue", entry | {"topic": f"own-{number}.v1", "code": f"20100{number}/000001"})
    full = partial(editor.post, "/catalogue", entry | {"topic": "own-9.v1", "code": "201009/000001"})
    assert quota(full) == {"quota": "catalogue_entries", "limit": "3"}
    listed = pool.programs.run("pool", "catalogue", *as_account(pool, head), "list").stdout
    assert {f"own-{number}.v1" for number in range(3)} <= {line.split("\t")[0] for line in listed.splitlines()}


def as_account(pool: World, account: Any) -> list[str]:
    token = pool.folder / "a-token"
    token.write_text(account._headers["authorization"].removeprefix("Bearer "))
    return ["--data", str(pool.data), "--token-file", str(token)]


def test_a_low_account_that_varies_the_resource_fills_no_log(pool: World, police: Office) -> None:
    before, began = written(pool), time.monotonic()
    long = quote("长" * 2_500)  # as long as an address may be
    with Caller.of(pool, police.account("catalogue_editor")) as editor:
        reasons = [editor.reason("POST", f"/grants/{number}{long}/approval") for number in range(CALLS)]
    entries, size = (after - earlier for after, earlier in zip(written(pool), before, strict=True))
    minutes = int((time.monotonic() - began) / 60) + 2  # that were begun
    assert entries <= minutes * (2 * OWN_RESOURCES + 2)
    assert size < minutes * 100_000
    assert set(reasons[: REFUSALS // 2]) == {"role_missing"}
    assert reasons.count("role_missing") <= minutes * REFUSALS, "beyond its budget the actor waits"
    assert reasons.count("rate_limited") == CALLS - reasons.count("role_missing")
    DECIDED.append(reasons.count("role_missing"))


def test_others_are_not_slowed_and_what_was_refused_is_counted(pool: World, police: Office) -> None:
    assert police.account("security_officer").get("/departments")
    pool.stop()  # writes what is counted
    pool.serve()
    query = {"action": "exchange:grant:approve", "decision": "deny", "limit": 1_000}
    named = [one["entry"] for one in pool.root.get("/audit/entries", query)]
    total = sum(one.get("data", {}).get("folded", 1) for one in named)
    assert total == DECIDED[0], "each refusal that was decided is counted"
    for several in (one["data"] for one in named if one["resource"] == "*"):
        assert len(several["resources"]) + several.get("unnamed", 0) == several["folded"]
        assert max(map(len, several["resources"])) <= MAX_RESOURCE


def test_an_act_that_fails_again_and_again_fills_no_log(pool: World, police: Office) -> None:
    entry = {"topic": "twice.v1", "title": "t", "code": "101001/000001", "share_type": "unconditional", "level": "G2"}
    with Caller.of(pool, police.account("catalogue_editor")) as editor:
        assert editor.reason("POST", "/catalogue", entry) == ""
        (before, _), began = written(pool), time.monotonic()
        reasons = {editor.reason("POST", "/catalogue", entry) for _ in range(count(300, 60))}
    assert reasons <= {"already_exists", "version_conflict"}
    minutes = int((time.monotonic() - began) / 60) + 2
    assert written(pool)[0] - before <= minutes * 2


def test_lists_that_are_repeated_have_one_entry_and_what_is_about_a_case_has_each(pool: World) -> None:
    auditor = pool.account("auditor-folds", "auditor")
    (before, _), began = written(pool), time.monotonic()
    for number in range(40):
        auditor.get("/audit/entries", {"action": f"exchange:grant:{number}"})
        auditor.get("/grants")
    assert written(pool)[0] - before <= 4 * (int((time.monotonic() - began) / 60) + 2)
    before, _ = written(pool)
    for number in range(10):
        auditor.get("/audit/entries", {"case": f"STANDING-{number}"})
    assert written(pool)[0] - before >= 10


def test_a_crash_loses_counts_of_the_last_minute_and_no_first_refusal(pool: World, police: Office) -> None:
    with Caller.of(pool, police.account("security_officer")) as officer:
        assert {officer.reason("POST", "/grants/crash-1/approval") for _ in range(20)} == {"role_missing"}
    pool.stop(signal.SIGKILL)
    pool.serve()
    found = [one["entry"] for one in pool.root.get("/audit/entries", {"resource": "crash-1"})]
    assert [(one["decision"], "data" in one) for one in found] == [("deny", False)], "the first was durable"
